//! What the two pages that take a list share: fields, and the texts about lists.

use hyper::StatusCode;
use maud::{Markup, html};

use crate::admin::answer::{self, Answer};
use crate::admin::csv;
use crate::admin::refusal::Refusal;
use crate::admin::request::{Fields, PageRequest};
use crate::admin::view::{Frame, field};
use crate::lists::header::Consents;
use crate::lists::{Problem, consent};
use pixeld_core::ids::MessageId;
use pixeld_core::link::parse_uuid;

/// The field that accepts a list although its column looks wrong.
pub(super) const SURE: &str = "sure";

/// The message that a path names.
///
/// # Errors
/// If that is not a message's id.
pub(super) fn message(request: &PageRequest) -> Result<MessageId, Refusal> {
    let id = parse_uuid(request.parameter("message").as_bytes());
    id.filter(|id: &MessageId| !id.is_nil()).ok_or(Refusal::NotFound)
}

/// Who of a list has consented, by the form's fields.
///
/// # Errors
/// If it contradicts itself.
pub(super) fn consents(fields: &Fields) -> Result<Consents<'_>, Problem> {
    match (fields.get("consent").trim(), fields.get("all-consent")) {
        (column, "") => Ok(Consents::Column(column)),
        ("", _) => Ok(Consents::All),
        _ => Err(Problem::Both),
    }
}

/// The page of one of the two tasks.
pub(super) fn page(request: &PageRequest, status: StatusCode, title: &str, content: Markup) -> Answer {
    let frame = Frame { title, path: "/messages", user: request.user.as_ref(), zone: request.zone };
    answer::page(status, frame.page(content))
}

/// Which message it is about, with a link back to it.
pub(super) fn of_message(message: MessageId, name: &str) -> Markup {
    html! {
        p {
            "For the message "
            a href={ "/messages/" (message) } {
                @if name.is_empty() { span.id { (message) } } @else { (name) }
            }
            "."
        }
    }
}

/// The field for the column of recipients.
pub(super) fn recipient_field(fields: &Fields) -> Markup {
    let hint = "The column with their ids or keys, as in the links. If you leave this empty, the column recipient or id is used.";
    field(
        "Recipient column",
        "column",
        Some(hint),
        html! {
            input #column name="column" value=(fields.get("column")) maxlength="200" autocomplete="off" autocapitalize="none"
                spellcheck="false" aria-describedby="column-hint";
        },
    )
}

/// The field for the list. In every form the other fields come before it, since the form is read as it arrives.
pub(super) fn file_field() -> Markup {
    field(
        "List",
        csv::FILE,
        Some("CSV with column names in the first row, up to 1 GiB."),
        html! {
            input #file name=(csv::FILE) type="file" accept=".csv,.tsv,.txt,text/csv" required aria-describedby="file-hint";
        },
    )
}

/// What lists may be, and what happens to their cells.
pub(super) fn about_lists() -> Markup {
    html! {
        h2 { "About lists" }
        ul {
            li {
                "Columns may come in any order, separated by commas, semicolons, tabs or |, or by the character that a first line like " code { "sep=;" }
                " names. The text is UTF-8, or UTF-16 with a byte order mark. A row may have up to 64 KiB."
            }
            li {
                "A list is refused, with the number of the row, if it could be read in two ways: an unclosed quotation mark, more cells than the header, "
                "a letter that is not UTF-8, or a consent that is neither yes nor no."
            }
            li {
                "A cell that begins with " code { "=" } ", " code { "+" } ", " code { "-" } ", " code { "@" }
                ", a tab or a line break comes back with an apostrophe before it, because spreadsheets would run it as a formula: "
                code { "-5" } " becomes " code { "'-5" } ". The same is done within a cell, after a delimiter or a line break. In the recipient column "
                "this apostrophe is ignored, so you can upload a list that you downloaded here."
            }
            li { "Spaces around a recipient are ignored, and so are empty lines." }
        }
    }
}

/// The fields for the column of consents.
pub(super) fn consent_fields(fields: &Fields) -> Markup {
    let hint = format!(
        "Recipients whose cell is empty or says {} are not named in their link and not measured; {} mean yes. If you leave this empty, a column \
         called consent, opt-in, agreed, gdpr, einwilligung or similar is used; without one, everybody is named.",
        consent::NO.join(", "),
        consent::YES.join(", ")
    );
    html! {
        (field("Consent column", "consent", Some(&hint), html! {
            input #consent name="consent" value=(fields.get("consent")) maxlength="200" autocomplete="off" autocapitalize="none"
                spellcheck="false" aria-describedby="consent-hint";
        }))
        div.field {
            label.check {
                input type="checkbox" name="all-consent" value="yes" checked[!fields.get("all-consent").is_empty()];
                " Everybody on this list has agreed: use no consent column"
            }
        }
    }
}

/// The field that accepts a column that looks wrong.
pub(super) fn sure_field() -> Markup {
    html! {
        div.field {
            label.check {
                input type="checkbox" name=(SURE) value="yes";
                " The recipient column is right, even if it looks wrong"
            }
        }
    }
}
