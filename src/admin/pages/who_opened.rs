//! Who of a list opened a message: the list arrives as CSV, and is returned with three more columns. Nothing of it is
//! stored here, so readers' addresses never are.
//!
//! Guarantees: as far as pixeld can know, "not opened" appears only for people whose fetch would have been recorded:
//! not for those who opted out, who by this list do not consent, or whose link by this list names nobody. Gives up: a
//! link that was made without the recipient elsewhere; pixeld does not know of it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use hyper::StatusCode;
use maud::{Markup, html};

use super::list_form::{
    SURE, about_lists, consent_fields, consents, file_field, message, of_message, page, recipient_field, sure_field,
};
use crate::admin::Admin;
use crate::admin::answer::Answer;
use crate::admin::csv::{self, Columns};
use crate::admin::refusal::Refusal;
use crate::admin::request::{Fields, PageRequest};
use crate::admin::upload::Upload;
use crate::admin::view::nothing;
use crate::admin::view::zone::exact;
use crate::db::opens::{self, Opened};
use crate::db::{installation, messages};
use crate::lists::header::Header;
use crate::lists::rows::{Batch, Row};
use crate::lists::{Problem, cells, consent};
use crate::opt_outs::suppressions;
use pixeld_core::ids::{MessageId, RecipientId};
use pixeld_core::link::key::Namespace;
use pixeld_core::opens::class::{Certainty, Class};
use pixeld_core::privacy::{PrivacyKey, RecipientHash};

/// Recipients of a list from which on the page reports that none is known.
const KNOWN_FROM: u64 = 10;

/// `GET /messages/{message}/who-opened`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    form_page(admin, request, StatusCode::OK, &Fields::default(), nothing()).await
}

/// `POST /messages/{message}/who-opened`.
///
/// # Errors
/// On an error of the database or the disk, or if too many lists are answered at once.
pub(crate) async fn answer(admin: &Admin, request: &PageRequest, mut upload: Upload) -> Result<Answer, Refusal> {
    let mut fields = Fields::default();
    let answered = answered(admin, request, &mut upload, &mut fields).await;
    let form = |notice| form_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, &fields, notice);
    csv::answer_or_form(answered, upload, form).await
}

async fn answered(
    admin: &Admin,
    request: &PageRequest,
    upload: &mut Upload,
    fields: &mut Fields,
) -> Result<Answer, Refusal> {
    let message = message(request)?;
    let file = csv::fields(upload, fields).await?;
    let place = admin.lists.enter().ok_or(Refusal::Busy)?;
    let client = admin.client().await?;
    let namespace = installation::namespace(&client).await?;
    let privacy_key = installation::privacy_key(&client).await?;
    // Not held while the list arrives: others need it, too.
    drop(client);
    let columns = WhoOpened {
        admin,
        message,
        namespace,
        privacy_key,
        fields,
        column: 0,
        consent: None,
        in_link: None,
        rows: 0,
        recipients: 0,
        opened: 0,
        is_known: false,
    };
    csv::answered(admin, upload, file, columns, place).await
}

struct WhoOpened<'a> {
    admin: &'a Admin,
    message: MessageId,
    namespace: Namespace,
    privacy_key: PrivacyKey,
    fields: &'a Fields,
    column: usize,
    consent: Option<usize>,
    in_link: Option<usize>,
    rows: u64,
    recipients: u64,
    opened: u64,
    /// Whether an open of some message or an opt-out names one of the list's recipients.
    is_known: bool,
}

/// What a list says about a row before anything is looked up.
enum Listed {
    /// The recipient to look up, and why they may not be measured.
    Recipient(RecipientId, Option<&'static str>),
    /// The row names nobody, and why.
    Nobody(&'static str),
}

impl Columns for WhoOpened<'_> {
    const NAMES: &'static [&'static str] = &["pixeld_opened", "pixeld_first_at", "pixeld_class"];

    fn choose(&mut self, header: &Header) -> Result<(), Problem> {
        self.column = header.recipients(self.fields.get("column"))?;
        self.in_link = header.find(consent::IN_LINK)?;
        // That column is not a consent here: its own words give the reason.
        self.consent = header.consents(consents(self.fields)?)?.filter(|column| Some(*column) != self.in_link);
        Ok(())
    }

    async fn fill(&mut self, header: &Header, rows: &Batch, out: &mut Vec<Cow<'static, str>>) -> Result<(), Refusal> {
        let listed: Vec<Listed> = rows.rows().map(|row| self.listed(header, row)).collect::<Result<_, _>>()?;
        let mut ids: Vec<RecipientId> = listed.iter().filter_map(Listed::id).collect();
        ids.sort_unstable();
        ids.dedup();
        let (mut opens, mut out_now) = (HashMap::new(), HashSet::new());
        if !ids.is_empty() {
            let client = self.admin.client().await?;
            let found = opens::of_recipients(&client, self.message, &ids).await?;
            opens.extend(found.into_iter().map(|open| (open.recipient, open)));
            let hashes: Vec<RecipientHash> = ids.iter().map(|id| self.privacy_key.hash(*id)).collect();
            out_now = suppressions::out_now(&client, &hashes).await?;
            self.is_known = self.is_known
                || !opens.is_empty()
                || !out_now.is_empty()
                || opens::any_of_recipients(&client, &ids).await?;
        }
        for listed in listed {
            let said = match listed {
                Listed::Nobody(why) => ["not measured".into(), "".into(), why.into()],
                Listed::Recipient(id, why) => {
                    self.recipients += 1;
                    let is_out = out_now.contains(&self.privacy_key.hash(id));
                    said(opens.get(&id), is_out.then_some("opted out").or(why))
                }
            };
            self.rows += 1;
            self.opened += u64::from(said[0] == "opened");
            out.extend(said);
        }
        Ok(())
    }

    async fn end(&mut self, header: &Header) -> Result<String, Refusal> {
        let Self { rows, recipients, opened, message, .. } = self;
        if !self.is_known && *recipients >= KNOWN_FROM && self.fields.get(SURE).is_empty() {
            // If nobody has opened it yet, nobody can be known.
            if opens::any_of_message(&*self.admin.client().await?, *message).await? {
                return Err(Refusal::Upload(format!(
                    "None of these {recipients} recipients is known, but others opened this message. Is {:?} the right column?",
                    header.name(self.column)
                )));
            }
        }
        Ok(format!("who-opened-{message}-{rows}-rows-{opened}-opened.csv"))
    }
}

impl WhoOpened<'_> {
    fn listed(&self, header: &Header, row: Row<'_>) -> Result<Listed, Problem> {
        if row.is_blank() {
            return Ok(Listed::Nobody("an empty row"));
        }
        let cell = header.recipient(row, self.column)?;
        let has_consented = header.has_consented(row, self.consent)?;
        let is_in_link = self.in_link.is_none_or(|column| consent::read(row.cell(column)) != Some(false));
        let why = match (has_consented, is_in_link) {
            (false, _) => Some("no consent"),
            (_, false) => Some("link without recipient"),
            _ => None,
        };
        Ok(match cells::recipient_id(cell, self.namespace) {
            Ok(Some(id)) => Listed::Recipient(id, why),
            _ => Listed::Nobody("no id"),
        })
    }
}

impl Listed {
    fn id(&self) -> Option<RecipientId> {
        match self {
            Listed::Recipient(id, _) => Some(*id),
            Listed::Nobody(_) => None,
        }
    }
}

/// The cells for a recipient, who may not have been measured.
fn said(open: Option<&Opened>, unmeasured: Option<&'static str>) -> [Cow<'static, str>; 3] {
    let class = open.map(|open| Class::of(open.best).unwrap_or(Class::Unknown));
    let (word, at) = match (open, class.map(Class::certainty)) {
        (Some(open), Some(Certainty::Confirmed)) => ("opened", Some(open.confirmed_first_at.unwrap_or(open.first_at))),
        (Some(open), Some(Certainty::Possible)) => ("possible", Some(open.first_at)),
        _ if unmeasured.is_some() => ("not measured", None),
        _ => ("not opened", None),
    };
    let class = if word == "not measured" { unmeasured } else { class.map(Class::name) };
    [word.into(), at.map_or(String::new(), exact).into(), class.unwrap_or_default().into()]
}

async fn form_page(
    admin: &Admin,
    request: &PageRequest,
    status: StatusCode,
    fields: &Fields,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let message = message(request)?;
    let name = messages::name_of(&*admin.client().await?, message).await?;
    let content = html! {
        (notice)
        (of_message(message, &name))
        p {
            "Upload your recipient list. You get it back with three more columns that show who opened the message. "
            "The list is not stored."
        }
        form.panel method="post" action={ "/messages/" (message) "/who-opened" } enctype="multipart/form-data" {
            div.row { (recipient_field(fields)) (consent_fields(fields)) }
            div.row { (file_field()) }
            @if status != StatusCode::OK { (sure_field()) }
            button type="submit" { "Download the list with results" }
        }
        h2 { "What the new columns mean" }
        ul {
            li {
                code { "pixeld_opened" } ": " code { "opened" } " if a person did, " code { "possible" }
                " if it may have been a person or a machine, " code { "not opened" } " if neither, and "
                code { "not measured" } " if an open would not have been recorded."
            }
            li {
                code { "pixeld_first_at" } ": the time of the first such open, in UTC."
            }
            li {
                code { "pixeld_class" } ": who or what opened it, such as " code { "human" } " or " code { "scanner" }
                ". If only machines did, the machine is named next to " code { "not opened" } "."
            }
            li {
                "Next to " code { "not measured" } ", this column gives the reason: " code { "no consent" } " or " code { "link without recipient" }
                " according to this list (its consent column, or " code { "pixeld_recipient_in_link" } "), " code { "opted out" } ", or "
                code { "no id" } ": the cell is empty, longer than 128 bytes, or a merge tag that was not replaced. "
                "Upload the list that you got back with links. Then people whose link names nobody are \"not measured\" instead of \"not opened\"."
            }
            li { "The file's name says how many rows it has, and how many are " code { "opened" } "." }
        }
        (about_lists())
    };
    Ok(page(request, status, "Who opened?", content))
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_machine_is_no_open_and_a_confirmed_one_is_dated_by_a_person() {
        let at = |s: i64| OffsetDateTime::from_unix_timestamp(s).unwrap();
        let open = |best: Class, confirmed: Option<i64>| Opened {
            recipient: RecipientId::NONE,
            first_at: at(1),
            confirmed_first_at: confirmed.map(at),
            best: best.number(),
        };
        let (first, second) = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z");
        let why = Some("opted out");
        assert_eq!(said(None, why), ["not measured", "", "opted out"]);
        assert_eq!(said(Some(&open(Class::Bot, None)), why), ["not measured", "", "opted out"]);
        assert_eq!(said(Some(&open(Class::Human, Some(2))), why), ["opened", second, "human"]);
        for (open, expected) in [
            (None, ["not opened", "", ""]),
            (Some(open(Class::Human, Some(2))), ["opened", second, "human"]),
            (Some(open(Class::Proxied, Some(1))), ["opened", first, "proxied"]),
            (Some(open(Class::PrivacyPrefetch, None)), ["possible", first, "privacy_prefetch"]),
            (Some(open(Class::Unknown, None)), ["possible", first, "unknown"]),
            (Some(open(Class::Scanner, None)), ["not opened", "", "scanner"]),
            (Some(open(Class::Prefetch, None)), ["not opened", "", "prefetch"]),
            (Some(open(Class::Bot, None)), ["not opened", "", "bot"]),
        ] {
            assert_eq!(said(open.as_ref(), None), expected);
        }
    }
}
