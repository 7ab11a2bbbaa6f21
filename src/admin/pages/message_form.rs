//! The form for what only the sender knows about a message: its name, send time, and number of recipients.
//!
//! Guarantees: a value that is sent back as it was shown is no change, so that a time keeps its seconds, which the form
//! does not show.

use maud::{Markup, html};
use time::macros::datetime;

use crate::admin::request::{Fields, PageRequest};
use crate::admin::view::{Zone, field};
use crate::db::messages::{Change, Edit, Message};
use pixeld_core::text;

/// Maximum characters of a name.
pub(super) const NAME_CHARS_MAX: usize = 200;

/// Maximum recipients of one message: more is a typing error.
const SENT_COUNT_MAX: i64 = 100_000_000_000;

/// What the fields of a form say.
pub(super) struct Values {
    name: String,
    sent_at: String,
    sent_count: String,
}

impl Values {
    /// The stored values of a message.
    pub(super) fn known(message: &Message, zone: Zone) -> Values {
        Values {
            name: message.name.clone(),
            sent_at: message.sent_at.map(|at| zone.field(at)).unwrap_or_default(),
            sent_count: message.sent_count.map(|count| count.to_string()).unwrap_or_default(),
        }
    }

    /// The values as typed.
    pub(super) fn typed(form: &Fields) -> Values {
        let text = |name: &str| form.get(name).to_owned();
        Values { name: text("name"), sent_at: text("sent_at"), sent_count: text("sent_count") }
    }
}

/// Reads a form's changes to the known message. A field that was not sent changes nothing; an empty one clears its
/// value.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn read(form: &Fields, known: Option<&Message>, zone: Zone) -> Result<Change, &'static str> {
    let known = known.map(|message| Values::known(message, zone));
    let told = |name: &str, known: Option<&str>| {
        let typed = form.given(name).map(str::trim)?;
        (typed != known.unwrap_or_default()).then(|| typed.to_owned())
    };
    let name = told("name", known.as_ref().map(|known| &*known.name));
    if name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS_MAX || text::has_controls(name)) {
        return Err("a name may have up to 200 characters and no control characters");
    }
    let sent_at_s = match told("sent_at", known.as_ref().map(|known| &*known.sent_at)).as_deref() {
        None => Edit::Keep,
        Some("") => Edit::Clear,
        Some(typed) => {
            let at = zone.typed(typed).filter(|at| *at > datetime!(1970-01-01 0:00 UTC));
            let seconds = at.and_then(|at| u32::try_from(at.unix_timestamp()).ok());
            Edit::Set(seconds.ok_or("the send time must be a date and time from 1970 to 2105, like 2026-05-04T09:30")?)
        }
    };
    let sent_count = match told("sent_count", known.as_ref().map(|known| &*known.sent_count)).as_deref() {
        None => Edit::Keep,
        Some("") => Edit::Clear,
        Some(typed) => {
            let digits: String = typed.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let count = digits.parse().ok().filter(|count| is_plain && *count <= SENT_COUNT_MAX);
            Edit::Set(count.ok_or("the number of recipients must be a whole number from 0 to 100,000,000,000")?)
        }
    };
    Ok(Change { name, sent_at_s, sent_count })
}

/// The three fields; `place` distinguishes the ids of several forms on a page.
pub(super) fn fields(values: &Values, place: &str, zone: Zone) -> Markup {
    let [name, sent_at, sent_count] = ["name", "sent_at", "sent_count"].map(|field| format!("{field}-{place}"));
    let times = format!("Time zone: {}", zone.name());
    html! {
        div.row {
            (field("Name", &name, None, html! {
                input id=(name) name="name" value=(values.name) maxlength=(NAME_CHARS_MAX) autocomplete="off";
            }))
            (field("Sent at", &sent_at, Some(&times), html! {
                input id=(sent_at) name="sent_at" type="datetime-local" value=(values.sent_at) aria-describedby={ (sent_at) "-hint" };
            }))
            (field("Number of recipients", &sent_count, Some("Used for the open rate."), html! {
                input id=(sent_count) name="sent_count" inputmode="numeric" value=(values.sent_count) autocomplete="off"
                    aria-describedby={ (sent_count) "-hint" };
            }))
        }
    }
}

/// The form that changes a message; `next` is the page to return to.
pub(super) fn edit(message: &Message, values: &Values, next: &str, request: &PageRequest) -> Markup {
    html! {
        form.edit method="post" action={ "/messages/" (message.id) } {
            input type="hidden" name="next" value=(next);
            (fields(values, &message.id.as_uuid().simple().to_string(), request.zone))
            button type="submit" { "Save" }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::db::messages::Place;
    use pixeld_core::ids::MessageId;

    fn form(text: &str) -> Fields {
        Fields::parse(text.as_bytes())
    }

    fn known() -> Message {
        let at = datetime!(2026-05-04 09:00:37 UTC);
        Message {
            id: MessageId::MAX,
            name: "May".to_owned(),
            sent_at: Some(at),
            sent_count: Some(12_000),
            confirmed: 0,
            possible: 0,
            machine: 0,
            hits: 0,
            first_at: None,
            last_at: None,
            place: Place { at, id: MessageId::MAX },
        }
    }

    #[test]
    fn a_value_sent_back_as_shown_is_no_change() {
        let zone = Zone::named("Asia/Kolkata").unwrap();
        let same = form("name=May&sent_at=2026-05-04T14:30&sent_count=12000");
        assert_eq!(read(&same, Some(&known()), zone), Ok(Change::default()));
        assert_eq!(read(&form(""), Some(&known()), zone), Ok(Change::default()));
    }

    #[test]
    fn values_are_set_and_cleared() {
        let zone = Zone::named("Asia/Kolkata").unwrap();
        let change = read(&form("name=+June+&sent_at=2026-05-04T14:31&sent_count=1,000+000"), Some(&known()), zone);
        let at = datetime!(2026-05-04 09:01 UTC).unix_timestamp() as u32;
        let expected =
            Change { name: Some("June".to_owned()), sent_at_s: Edit::Set(at), sent_count: Edit::Set(1_000_000) };
        assert_eq!(change, Ok(expected));
        let change = read(&form("name=&sent_at=&sent_count="), Some(&known()), zone);
        assert_eq!(change, Ok(Change { name: Some(String::new()), sent_at_s: Edit::Clear, sent_count: Edit::Clear }));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            "name=a%00b",
            "name=a%0Ab",
            &format!("name={}", "x".repeat(NAME_CHARS_MAX + 1)),
            "sent_at=yesterday",
            "sent_at=1969-12-31T23:59",
            "sent_at=2106-12-31T23:59",
            "sent_at=2026-02-30T10:00",
            "sent_count=-1",
            "sent_count=%2B1",
            "sent_count=1.5",
            "sent_count=,",
            "sent_count=100000000001",
            "sent_count=99999999999999999999",
        ] {
            assert!(read(&form(wrong), Some(&known()), Zone::UTC).is_err(), "{wrong}");
        }
        assert!(OffsetDateTime::from_unix_timestamp(i64::from(u32::MAX)).unwrap().year() == 2106);
    }
}
