//! The log of hits, newest first: of a message, a recipient, an image or a time; one page reads a bounded number of
//! rows.

use hyper::StatusCode;
use maud::{Markup, html};
use time::OffsetDateTime;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::{Fields, PageRequest};
use crate::admin::view::{
    Column, Frame, Tone, Zone, class_words, counted, empty, field, notice, number, table, time as time_of,
};
use crate::db::installation;
use crate::db::log::{self, Hit, Look, Place, Wanted};
use crate::db::users::Role;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::key::{Key, KeyError, Namespace};
use pixeld_core::opens::class::Class;

/// Rows that one search reads.
pub(crate) const ROWS_MAX: i64 = 20_000;

/// Hits that one page shows.
pub(crate) const FOUND_MAX: i64 = 100;

/// Which hits to show, as a form or a link names them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter {
    pub message: Option<MessageId>,
    pub recipient: Option<RecipientId>,
    pub image: Option<ImageId>,
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

/// Its fields.
pub(super) const FIELDS: [&str; 5] = ["message", "recipient", "image", "from", "to"];

impl Filter {
    /// Reads the fields, or says what is wrong with them.
    pub(super) async fn read(client: &Client, fields: &Fields, zone: Zone) -> Result<Result<Filter, String>, Refusal> {
        let mut namespace = None;
        if ["message", "recipient"].iter().any(|name| matches!(Key::typed(fields.get(name).trim()), Ok(Key::Text(_)))) {
            namespace = Some(installation::namespace(client).await?);
        }
        Ok(Filter::typed(fields, zone, namespace))
    }

    fn typed(fields: &Fields, zone: Zone, namespace: Option<Namespace>) -> Result<Filter, String> {
        let key = |name: &str, what: &str| match (Key::typed(fields.get(name).trim()), namespace) {
            _ if fields.get(name).trim().is_empty() => Ok(None),
            (Ok(Key::Id(id)), _) => Ok(Some(id)),
            (Ok(key), Some(namespace)) => Ok(Some(namespace.id_of::<Uuid>(&key))),
            (Ok(_), None) | (Err(KeyError::Length), _) => {
                Err(format!("The {what} is not an id, and it is too long for a key."))
            }
            (Err(error @ (KeyError::Empty | KeyError::Encoded)), _) => {
                Err(format!("The {what} is not an id or a key: {error}."))
            }
            (Err(KeyError::Unmerged), _) => Err(format!(
                "The {what} is a merge tag that was not replaced, or a word like null. Such fetches are not recorded."
            )),
        };
        let image = match fields.get("image").trim() {
            "" => None,
            text => Some(
                pixeld_core::link::parse_uuid(text.as_bytes())
                    .ok_or("The image is not an id. Copy it from the page Images.")?,
            ),
        };
        let time = |name: &str| match fields.get(name).trim() {
            "" => Ok(None),
            text => {
                let at = if name == "to" { zone.typed_end(text) } else { zone.typed(text) };
                at.map(Some).ok_or(format!("The time {text} cannot be read. Write it like 2026-05-04T14:30."))
            }
        };
        let filter = Filter {
            message: key("message", "message")?.map(MessageId::of),
            recipient: key("recipient", "recipient")?.map(RecipientId::of),
            image,
            from: time("from")?,
            to: time("to")?,
        };
        match (filter.from, filter.to) {
            (Some(from), Some(to)) if from >= to => Err("From must be before Until.".to_owned()),
            _ => Ok(filter),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.message.is_none()
            && self.recipient.is_none()
            && self.image.is_none()
            && self.from.is_none()
            && self.to.is_none()
    }
}

/// The same fields as a query, followed by more.
pub(super) fn query_of(fields: &Fields, more: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in FIELDS {
        let value = fields.get(name).trim();
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    for (name, value) in more {
        query.append_pair(name, value);
    }
    query.finish()
}

/// `GET /hits`.
///
/// # Errors
/// On a database error, or if the place to continue from is not one of ours.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let behind = match request.query.get("behind") {
        "" => None,
        text => Some(place(text).ok_or(Refusal::NotFound)?),
    };
    let client = admin.client().await?;
    let (status, found) = match Filter::read(&client, &request.query, request.zone).await? {
        Ok(filter) => {
            let Filter { message, recipient, image, from, to } = filter;
            let wanted =
                Wanted { message, recipient, image, from, to, behind, rows_max: ROWS_MAX, found_max: FOUND_MAX };
            let look = log::look(&client, &wanted).await?;
            (StatusCode::OK, listed(request, &filter, &look, behind.is_some()))
        }
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, notice(Tone::Bad, html! { p { (wrong) } })),
    };
    drop(client);
    let content = html! { (form(request)) (found) };
    let frame = Frame { title: "Hits", path: "/hits", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

fn form(request: &PageRequest) -> Markup {
    let typed = |name: &str| request.query.get(name).to_owned();
    html! {
        form.panel method="get" action="/hits" {
            div.row {
                (field("Message", "message", Some("Id or key of the message."), html! {
                    input #message name="message" value=(typed("message")) maxlength="128" autocomplete="off" spellcheck="false"
                        aria-describedby="message-hint";
                }))
                (field("Recipient", "recipient", Some("Id or key of the recipient."), html! {
                    input #recipient name="recipient" value=(typed("recipient")) maxlength="128" autocomplete="off" spellcheck="false"
                        aria-describedby="recipient-hint";
                }))
                (field("Image", "image", Some("Id of the image."), html! {
                    input #image name="image" value=(typed("image")) maxlength="36" autocomplete="off" spellcheck="false"
                        aria-describedby="image-hint";
                }))
                (field("From", "from", None, html! { input #from name="from" type="datetime-local" value=(typed("from")); }))
                (field("Until", "to", None, html! { input #to name="to" type="datetime-local" value=(typed("to")); }))
            }
            button type="submit" { "Filter" }
            " " a href="/hits" { "All hits" }
        }
    }
}

fn listed(request: &PageRequest, filter: &Filter, look: &Look, is_later: bool) -> Markup {
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    html! {
        @if look.hits.is_empty() {
            (none_found(filter, look, request.zone, is_later))
        } @else {
            (hit_table(&look.hits, request.zone))
        }
        p {
            @if let Some(read_to) = look.read_to {
                @if look.hits.is_empty() { (counted(look.read, "hit")) " searched, back to " }
                @else { (counted(look.hits.len() as i64, "hit")) " shown, back to " }
                (time_of(read_to, request.zone)) ". "
            }
            @if let Some(next) = look.next {
                a href={ "/hits?" (query_of(&request.query, &[("behind", &spelled(next))])) } { "Show older hits" }
            } @else if look.read_to.is_some() {
                "End of list" @if !filter.is_empty() { ": no older hits match" } "."
            }
        }
        @if is_later { p { a href={ "/hits?" (query_of(&request.query, &[])) } { "Back to the newest" } } }
        @if is_admin && !filter.is_empty() && filter.image.is_none() {
            p { a href={ "/hits/delete?" (query_of(&request.query, &[])) } { "Delete these hits" } }
        }
    }
}

fn none_found(filter: &Filter, look: &Look, zone: Zone, is_later: bool) -> Markup {
    if let Some(read_to) = look.read_to.filter(|_| look.next.is_some()) {
        return notice(
            Tone::Warning,
            html! {
                p {
                    "No match in the " (number(look.read)) " hits searched, back to "
                    (time_of(read_to, zone)) ". A search stops after " (number(ROWS_MAX)) " hits to stay fast."
                }
            },
        );
    }
    if filter.is_empty() && !is_later {
        return empty(
            "No hits yet",
            html! {
                p { "Open a pixel's link in a browser and reload this page. If no hit shows up, see " a href="/not-recorded" { "Link check" } "." }
            },
        );
    }
    empty(
        "No hits found",
        html! {
            p { "Check the id or key, or choose a longer time. Requests that were not counted are listed with their reason under " a href="/not-recorded" { "Link check" } "." }
        },
    )
}

fn hit_table(hits: &[Hit], zone: Zone) -> Markup {
    let columns = [
        Column::words("Time"),
        Column::words("Image"),
        Column::words("Message"),
        Column::words("Recipient"),
        Column::words("Opened by"),
        Column::words("Mail program"),
        Column::words("Network"),
        Column::words("Address"),
        Column::words("User agent"),
    ];
    let rows = hits.iter().map(|hit| {
        html! {
            td { (time_of(hit.place.at, zone)) }
            td { (linked("/images/", hit.image.0.as_uuid(), &hit.image.1)) }
            td { (linked("/messages/", hit.message.0.as_uuid(), &hit.message.1)) }
            td { (linked("/recipients/", hit.recipient.as_uuid(), "")) }
            td {
                (opened_by(&hit.class))
                div.muted title=(hit.rule.0) { (if hit.rule.1.is_empty() { &hit.rule.0 } else { &hit.rule.1 }) }
            }
            td { (hit.client) }
            td { (hit.network) }
            td { @if let Some(address) = hit.address { (address) } @else { span.muted { "not kept" } } }
            td { (hit.user_agent) }
        }
    });
    table("Hits, newest first", &columns, rows)
}

/// A class in the words of the page; one that this version does not know is shown by its name.
fn opened_by(name: &str) -> Markup {
    match Class::ALL.into_iter().find(|class| class.name() == name) {
        Some(class) => class_words(class),
        None => html! { (name) },
    }
}

/// An id as a link to its page, with the page's name if it has one.
fn linked(front: &str, id: Uuid, name: &str) -> Markup {
    if id.is_nil() {
        return html! { span.muted { "none" } };
    }
    html! { a href={ (front) (id) } title=(id) { @if name.is_empty() { span.id { (id) } } @else { (name) } } }
}

/// A place, as links contain it.
fn spelled(place: Place) -> String {
    format!("{}.{}.{}", Micros::from(place.at).0, place.spool, place.seq)
}

fn place(text: &str) -> Option<Place> {
    let mut parts = text.split('.');
    let at = Micros(parts.next()?.parse().ok()?).utc()?;
    let (spool, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Place { at, spool, seq })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_spelled_and_nothing_else_is_one() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_777_000_000_123_456_000).unwrap();
        let behind = Place { at, spool: 3, seq: i64::MAX };
        assert_eq!(place(&spelled(behind)), Some(behind));
        for wrong in ["", "1", "1.2", "1.2.3.4", "x.2.3", "1.2.99999999999999999999", "9223372036854775807.1.1"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_typed_is_read_or_refused_with_words() {
        let namespace = Some(Namespace(Uuid::from_u128(1)));
        let typed = |text: &str| Filter::typed(&Fields::parse(text.as_bytes()), Zone::UTC, namespace);
        assert!(typed("message=&from=").unwrap().is_empty());
        let id = RecipientId::from_u128(7);
        assert_eq!(typed(&format!("recipient= {id} ")).unwrap().recipient, Some(id));
        assert_eq!(typed("message=May").unwrap().message, Some(Uuid::new_v5(&Uuid::from_u128(1), b"May").into()));
        for (text, part) in [
            ("message=*|ID|*", "merge tag"),
            ("image=logo", "not an id"),
            ("from=yesterday", "2026-05-04T14:30"),
            ("from=2026-05-04T14:30&to=2026-05-04T14:30", "before Until"),
        ] {
            assert!(typed(text).unwrap_err().contains(part), "{text}");
        }
        assert!(typed(&format!("message={}", "x".repeat(129))).unwrap_err().contains("too long"));
    }
}
