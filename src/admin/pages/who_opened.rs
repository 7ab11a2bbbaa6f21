//! Who of a list opened a message: the list comes as CSV, and goes back with three more columns. Nothing of it stays here, so that addresses
//! of readers never do.

use std::borrow::Cow;
use std::collections::HashMap;

use hyper::StatusCode;
use maud::{Markup, html};
use uuid::Uuid;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::asked::{Asked, Fields};
use crate::admin::csv::cells::{self, Header};
use crate::admin::csv::rows::{Batch, Problem};
use crate::admin::csv::{self, Columns};
use crate::admin::refusal::Refusal;
use crate::admin::upload::Upload;
use crate::admin::view::zone::exact;
use crate::admin::view::{Frame, field, nothing};
use crate::db::opens::{self, Opened};
use crate::db::{installation, messages};
use crate::link::key::Namespace;
use crate::link::parse_uuid;
use crate::opens::class::{Certainty, Class};

/// `GET /messages/{message}/who-opened`.
///
/// # Errors
/// As the database says.
pub async fn show(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    form_page(admin, asked, StatusCode::OK, &Fields::default(), nothing()).await
}

/// `POST /messages/{message}/who-opened`.
///
/// # Errors
/// As the database and the disk say, or where too many do this at once.
pub async fn answer(admin: &Admin, asked: &Asked, mut upload: Upload) -> Result<Answer, Refusal> {
    let mut fields = Fields::default();
    match csv::answer_or_words(answered(admin, asked, &mut upload, &mut fields).await, upload).await? {
        Ok(answer) => Ok(answer),
        Err(notice) => form_page(admin, asked, StatusCode::UNPROCESSABLE_ENTITY, &fields, notice).await,
    }
}

async fn answered(admin: &Admin, asked: &Asked, upload: &mut Upload, fields: &mut Fields) -> Result<Answer, Refusal> {
    let message = message(asked)?;
    let file = csv::fields(upload, fields).await?;
    let place = admin.lists.take()?;
    let client = admin.client().await?;
    let namespace = installation::namespace(&client).await?;
    // Not kept while the list comes: others need it, too.
    drop(client);
    let columns = WhoOpened { admin, message, namespace, asked: fields.get("column").to_owned(), column: 0 };
    csv::answered(admin, upload, file, columns, &format!("who-opened-{message}.csv"), place).await
}

/// The message that a path names.
///
/// # Errors
/// Where that is no id of one.
pub fn message(asked: &Asked) -> Result<Uuid, Refusal> {
    let id = parse_uuid(asked.parameter("message").as_bytes());
    id.filter(|id| !id.is_nil()).ok_or(Refusal::NotFound)
}

struct WhoOpened<'a> {
    admin: &'a Admin,
    message: Uuid,
    namespace: Namespace,
    asked: String,
    column: usize,
}

impl Columns for WhoOpened<'_> {
    const NAMES: &'static [&'static str] = &["pixeld_opened", "pixeld_first_at", "pixeld_class"];

    fn choose(&mut self, header: &Header) -> Result<(), Problem> {
        self.column = header.recipients(&self.asked)?;
        Ok(())
    }

    async fn fill(&mut self, rows: &Batch, out: &mut Vec<Cow<'static, str>>) -> Result<(), Refusal> {
        let ids: Vec<Option<Uuid>> =
            rows.rows().map(|row| cells::recipient_id(row.cell(self.column), self.namespace)).collect();
        let mut known: Vec<Uuid> = ids.iter().flatten().copied().collect();
        known.sort_unstable();
        known.dedup();
        let mut opens = HashMap::new();
        if !known.is_empty() {
            let client = self.admin.client().await?;
            let found = opens::of_recipients(&client, self.message, &known).await?;
            opens.extend(found.into_iter().map(|open| (open.recipient, open)));
        }
        for id in ids {
            out.extend(match id {
                Some(id) => said(opens.get(&id)),
                None => ["not opened".into(), "".into(), "no id".into()],
            });
        }
        Ok(())
    }
}

/// What the columns say of a recipient.
fn said(open: Option<&Opened>) -> [Cow<'static, str>; 3] {
    let Some(open) = open else { return ["not opened".into(), "".into(), "".into()] };
    let class = Class::of(open.best).unwrap_or(Class::Unknown);
    let (word, at) = match class.certainty() {
        Certainty::Confirmed => ("opened", Some(open.confirmed_first_at.unwrap_or(open.first_at))),
        Certainty::Possible => ("possible", Some(open.first_at)),
        Certainty::Machine => ("not opened", None),
    };
    [word.into(), at.map_or(String::new(), exact).into(), class.name().into()]
}

async fn form_page(
    admin: &Admin,
    asked: &Asked,
    status: StatusCode,
    fields: &Fields,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let message = message(asked)?;
    let name = messages::name_of(&*admin.client().await?, message).await?;
    let content = html! {
        (notice)
        (of_message(message, &name))
        p {
            "Send the list of its recipients, and the same rows come back with three more columns that say who opened it. "
            "Nothing of the list is stored."
        }
        form.panel method="post" action={ "/messages/" (message) "/who-opened" } enctype="multipart/form-data" {
            div.row { (recipient_field(fields)) (file_field()) }
            button type="submit" { "Get the list back" }
        }
        h2 { "What the columns say" }
        ul {
            li {
                code { "pixeld_opened" } ": " code { "opened" } " where a person did, " code { "possible" }
                " where nothing tells a person from a machine, " code { "not opened" } " where nobody is known to have."
            }
            li {
                code { "pixeld_first_at" } ": when that was first, in UTC."
            }
            li {
                code { "pixeld_class" } ": what fetched it at best, like " code { "human" } " or " code { "scanner" }
                "; where only machines did, the word stands beside " code { "not opened" } ". "
                code { "no id" } " says that the row names no recipient: its cell is empty, longer than 128 bytes, no UTF-8, "
                "or a merge tag that was not replaced."
            }
        }
        (about_lists())
    };
    Ok(page(asked, status, "Who opened?", content))
}

/// The page of one of the two tasks.
pub(super) fn page(asked: &Asked, status: StatusCode, title: &str, content: Markup) -> Answer {
    let frame = Frame { title, path: "/messages", user: asked.user.as_ref(), zone: asked.zone };
    answer::page(status, frame.page(content))
}

/// Which message it is about, and the way back to it.
pub(super) fn of_message(message: Uuid, name: &str) -> Markup {
    html! {
        p {
            "Of the message "
            a href={ "/messages/" (message) } {
                @if name.is_empty() { span.id { (message) } } @else { (name) }
            }
            "."
        }
    }
}

/// The field for the column of recipients.
pub(super) fn recipient_field(fields: &Fields) -> Markup {
    let hint = "The column with their UUIDs or keys, as in the links. Left empty: recipient, else id, else the first.";
    field(
        "Column of recipients",
        "column",
        Some(hint),
        html! {
            input #column name="column" value=(fields.get("column")) maxlength="200" autocomplete="off" autocapitalize="none"
                spellcheck="false" aria-describedby="column-hint";
        },
    )
}

/// The field for the list. Fields come before it in every form, since it is read as it comes.
pub(super) fn file_field() -> Markup {
    field(
        "List",
        csv::FILE,
        Some("CSV with a line of names on top, up to 1 GiB."),
        html! {
            input #file name=(csv::FILE) type="file" accept=".csv,.tsv,.txt,text/csv" required aria-describedby="file-hint";
        },
    )
}

/// What lists may be, and what becomes of their cells.
pub(super) fn about_lists() -> Markup {
    html! {
        h2 { "About lists" }
        ul {
            li { "Any columns in any order; commas, semicolons or tabs between them; UTF-8; a row has at most 64 KiB." }
            li {
                "A cell that begins with " code { "=" } ", " code { "+" } ", " code { "-" } ", " code { "@" }
                ", a tab or a line break comes back with an apostrophe before it, since spreadsheets would run it as a formula: "
                code { "-5" } " as " code { "'-5" } ". In the column of recipients that apostrophe is overlooked, so that a list "
                "which came back may be sent again."
            }
            li { "Blanks around a recipient do not count. Empty lines are left out." }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_machine_is_no_open_and_a_confirmed_one_is_dated_by_a_person() {
        let at = |s: i64| OffsetDateTime::from_unix_timestamp(s).unwrap();
        let open = |best: Class, confirmed: Option<i64>| Opened {
            recipient: Uuid::nil(),
            first_at: at(1),
            confirmed_first_at: confirmed.map(at),
            best: best.number(),
        };
        let (first, second) = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z");
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
            assert_eq!(said(open.as_ref()), expected);
        }
    }
}
