//! Why nothing is recorded: the last requests that made no hit, what was dropped after the edge, and what a link would
//! record.

use std::time::Duration;

use hyper::StatusCode;
use maud::{Markup, html};
use uuid::Uuid;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::health::drop_sentences;
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{
    Column, Frame, Tone, Zone, command, counted, empty, field, nothing, notice, number_cell, table, time as time_of,
};
use crate::db::images::{self, ImageRow};
use crate::db::{installation, messages};
use crate::opt_outs::suppressions;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::pasted::{Pasted, pasted};
use pixeld_core::link::route::{Ids, Route, route};
use pixeld_core::link::{forgive, named, opt_out, token};
use pixeld_core::metrics::DropReason;
use pixeld_edge::unrecorded::{NOTES_MAX, Note, Reason};

/// Maximum characters that are read: a link, and the tag around it.
const LINK_CHARS_MAX: usize = 4000;

/// `GET /not-recorded`.
///
/// # Errors
/// On a database error, if the database is needed to check the link.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let link: String = request.query.get("link").chars().take(LINK_CHARS_MAX).collect();
    let result = if link.trim().is_empty() { nothing() } else { what_it_records(admin, &link, request.zone).await? };
    let notes = admin.options.unrecorded.latest();
    let unlisted = admin.options.unrecorded.unlisted();
    let content = html! {
        h2 #link-heading { "Check a link" }
        form.panel method="get" action="/not-recorded" aria-labelledby="link-heading" {
            (field("Link", "link", Some("Paste the whole link, its path or its <img> tag. Text from the source of an email, with =3D and broken lines, works too. Checking records nothing."), html! {
                textarea #link name="link" rows="3" maxlength=(LINK_CHARS_MAX) autocomplete="off" spellcheck="false" required
                    aria-describedby="link-hint" { (link) }
            }))
            button type="submit" { "Check the link" }
        }
        (result)
        h2 { "Recent requests that were not counted" }
        @if notes.is_empty() {
            (empty("All requests so far were counted", html! {
                p { "Or no request arrived. To test, open a pixel from outside your network and see whether it shows up here or under " a href="/hits" { "Hits" } ":" }
                (command(&format!("curl -i {}/image/test.gif", admin.options.listen.base_url)))
                p { "This link names no image, so the request must appear here. If it does not, it does not reach pixeld: check DNS, the firewall and the proxy." }
            }))
        } @else {
            (note_table(&notes, request.zone))
            p.muted {
                "The last " (NOTES_MAX) " for each reason since pixeld started, kept in memory only. Requests of people who opted out are not listed."
                @if unlisted > 0 { " " (counted(unlisted as i64, "more request")) " came too fast to be listed." }
            }
        }
        (drops(admin))
    };
    let frame = Frame { title: "Link check", path: "/not-recorded", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(StatusCode::OK, frame.page(content)))
}

fn note_table(notes: &[Note], zone: Zone) -> Markup {
    let columns = [
        Column::words("Time"),
        Column::words("Reason, and what to do"),
        Column::words("Request"),
        Column::words("Address"),
        Column::words("User agent"),
    ];
    let rows = notes.iter().map(|note| {
        let [why, todo] = note.reason.sentences();
        html! {
            td { @if let Some(at) = note.at.utc() { (time_of(at, zone)) } }
            td { (why) div.muted { (todo) } }
            td { code { (note.method) " " (note.path) } }
            td { @if let Some(address) = note.address { (address) } @else { span.muted { "not kept" } } }
            td { (note.user_agent) }
        }
    });
    table("Recent requests that were not counted, newest first", &columns, rows)
}

/// What happened to accepted hits that are in no table, by reason; empty if there are none.
fn drops(admin: &Admin) -> Markup {
    let dropped: Vec<(i64, [&str; 2])> = DropReason::ALL
        .iter()
        .map(|&reason| (admin.options.metrics.dropped(reason) as i64, drop_sentences(reason)))
        .filter(|&(count, _)| count > 0)
        .collect();
    let columns = [Column::numbers("Hits"), Column::words("Reason"), Column::words("What to do")];
    let rows = dropped.iter().map(|(count, [why, todo])| html! { (number_cell(*count)) td { (why) } td { (todo) } });
    html! {
        h2 { "Received, but not counted" }
        @if dropped.is_empty() {
            p { "None since pixeld started." }
        } @else {
            p.muted { "Totals since pixeld started; single hits are not listed." }
            (table("Hits that were received, but not counted", &columns, rows))
        }
    }
}

/// What a link contains, as far as it can be read.
#[derive(Default)]
struct LinkContent {
    image: Option<ImageId>,
    message: Option<MessageId>,
    recipient: Option<RecipientId>,
    /// Another id of the recipient under which they may have opted out; this link then records nothing.
    former_recipient: Option<RecipientId>,
    /// The keys as they were read.
    message_key: Option<String>,
    recipient_key: Option<String>,
    sent_at_s: u32,
    /// The number of the signing key.
    signed_by: Option<u8>,
    /// Why nothing is recorded.
    reason: Option<Reason>,
}

/// What a path contains by itself. `namespace` is set for a path with keys.
fn content_of(path: &str, parsed: &Route<'_>, namespace: Option<Namespace>, require_signed: bool) -> LinkContent {
    let mut content = LinkContent::default();
    match parsed {
        Route::Pixel { image, ids, sent_at_s, is_signed } => {
            (content.image, content.sent_at_s) = (Some(*image), *sent_at_s);
            content.signed_by = is_signed.then(|| path.strip_prefix("/o/").and_then(token::key_id)).flatten();
            match ids {
                Ids::Named { message, recipient } => {
                    (content.message, content.recipient) = (Some(*message), Some(*recipient));
                }
                Ids::Keyed { message, recipient } => {
                    content.message = namespace.map(|namespace| namespace.id_of(message));
                    content.recipient = namespace.map(|namespace| namespace.id_of(recipient));
                    (content.message_key, content.recipient_key) = (words(message), words(recipient));
                    content.former_recipient = namespace.and_then(|namespace| named::former_recipient(path, namespace));
                }
                Ids::Malformed => content.reason = Some(Reason::Malformed),
                Ids::Unmerged => content.reason = Some(Reason::Unmerged),
            }
            if content.reason.is_none() && require_signed && !is_signed {
                content.reason = Some(Reason::Unsigned);
            }
        }
        Route::NotAnImage => content.reason = Some(Reason::NoImageId),
        Route::Forged => content.reason = Some(Reason::Forged),
        Route::Health | Route::NotFound => content.reason = Some(Reason::WrongPath),
    }
    content
}

async fn what_it_records(admin: &Admin, link: &str, zone: Zone) -> Result<Markup, Refusal> {
    let pasted = pasted(link, &admin.options.listen.base_url);
    if pasted.path.to_ascii_lowercase().starts_with(opt_out::PATH) || forgive::opt_out_path(&pasted.path).is_some() {
        return Ok(notice(
            Tone::Warning,
            html! {
                p { strong { "This link records nothing. " } "It opens the page where a recipient opts out; it is not a pixel." }
            },
        ));
    }
    let client = admin.client().await?;
    let parsed = route(&pasted.path, &admin.options.signing.keys);
    let namespace = match &parsed {
        Route::Pixel { ids: Ids::Keyed { .. }, .. } => Some(installation::namespace(&client).await?),
        _ => None,
    };
    let mut content = content_of(&pasted.path, &parsed, namespace, admin.options.signing.is_required);
    let image = match content.image {
        Some(id) => images::find(&client, id).await?,
        None => None,
    };
    match (&image, content.image) {
        (None, Some(_)) => content.reason = Some(Reason::UnknownImage),
        (Some(ImageRow { deleted_at: Some(_), .. }), _) => content.reason = Some(Reason::DeletedImage),
        _ => {}
    }
    let message_name = match content.message.filter(|id| !id.is_nil()) {
        Some(id) => messages::name_of(&client, id).await?,
        None => String::new(),
    };
    let mut is_out = false;
    for id in [content.recipient, content.former_recipient].into_iter().flatten().filter(|id| !id.is_nil()) {
        let hash = installation::privacy_key(&client).await?.hash(id);
        is_out |= suppressions::find(&client, hash).await?.is_some_and(|found| found.until.is_none());
    }
    drop(client);
    Ok(html! {
        (verdict(admin, &content, is_out))
        (where_it_goes(&pasted, &admin.options.listen.base_url))
        (facts(&content, image.as_ref(), &message_name, zone))
    })
}

/// Whether it records anything.
fn verdict(admin: &Admin, content: &LinkContent, is_out: bool) -> Markup {
    html! {
        @match content.reason {
            Some(reason) => { @let [why, todo] = reason.sentences();
                (notice(Tone::Bad, html! { p { strong { "This link records nothing. " } (why) " " (todo) } })) }
            None if is_out => { (notice(Tone::Warning, html! { p { strong { "This link records nothing. " } "Its recipient opted out." } })) }
            None => { (notice(Tone::Good, html! { p { strong { "This link works. " } (how_often(admin, content)) } })) }
        }
    }
}

/// Why it may never arrive here.
fn where_it_goes(pasted: &Pasted, base_url: &str) -> Markup {
    html! {
        @if let Some(host) = &pasted.other_host {
            (notice(Tone::Warning, html! {
                p { "It goes to " code { (host) } ", but PIXELD_BASE_URL is " code { (base_url) } ". Unless that host leads to this pixeld, nothing arrives here." }
            }))
        }
        @if pasted.lacks_base_path {
            (notice(Tone::Warning, html! {
                p { "It does not begin with PIXELD_BASE_URL, " code { (base_url) } ". If the proxy passes on only links that do, nothing arrives here." }
            }))
        }
    }
}

/// What a fetch of a recorded link counts for.
fn how_often(admin: &Admin, content: &LinkContent) -> Markup {
    let is_message_named = content.message.is_some_and(|id| !id.is_nil());
    let is_recipient_named = content.recipient.is_some_and(|id| !id.is_nil());
    html! {
        @match (is_message_named, is_recipient_named) {
            (true, true) => "It counts as an open of this message by this recipient. ",
            (true, false) => "It names no recipient, so it counts for the message, but as nobody's open. ",
            (false, true) => "It names no message, so it does not count as an open. ",
            (false, false) => "It names neither a message nor a recipient, so it counts only for the image. ",
        }
        @match admin.options.limits.throttle.filter(|_| is_recipient_named) {
            Some(time) => { "Fetches by the same reader count at most once in " (in_words(time)) " (PIXELD_THROTTLE)." }
            None => "Each fetch counts.",
        }
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds % 3600 == 0 => counted((seconds / 3600) as i64, "hour").to_string(),
        seconds if seconds % 60 == 0 => counted((seconds / 60) as i64, "minute").to_string(),
        seconds => counted(seconds as i64, "second").to_string(),
    }
}

/// A key in words; `None` if it is an id.
fn words(key: &Key<'_>) -> Option<String> {
    match key {
        Key::Id(_) => None,
        Key::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

fn facts(content: &LinkContent, image: Option<&ImageRow>, message_name: &str, zone: Zone) -> Markup {
    let Some(image_id) = content.image else { return nothing() };
    let sent_at = Micros::of_seconds(content.sent_at_s.into()).utc();
    let title = image.map(|image| image.title.as_str()).filter(|title| !title.is_empty());
    html! {
        dl.facts {
            dt { "Image" }
            dd { a href={ "/images/" (image_id) } { (title.map_or_else(|| image_id.to_string(), ToOwned::to_owned)) } }
            dt { "Message" } dd { (link_to("/messages/", content.message.map(MessageId::as_uuid), message_name)) (as_read(&content.message_key)) }
            dt { "Recipient" } dd { (link_to("/recipients/", content.recipient.map(RecipientId::as_uuid), "")) (as_read(&content.recipient_key)) }
            dt { "Send time" }
            dd { @if content.sent_at_s == 0 { "not in the link" } @else if let Some(at) = sent_at { (time_of(at, zone)) } }
            dt { "Signature" }
            dd { @match content.signed_by { Some(id) => { "by key " (id) }, None => { "none" } } }
        }
    }
}

fn as_read(key: &Option<String>) -> Markup {
    html! { @if let Some(key) = key { " (the key " code { (key) } ")" } }
}

fn link_to(front: &str, id: Option<Uuid>, name: &str) -> Markup {
    match id {
        None => html! { span.muted { "not readable" } },
        Some(id) if id.is_nil() => html! { span.muted { "none" } },
        Some(id) => html! { a href={ (front) (id) } { @if name.is_empty() { (id) } @else { (name) } } },
    }
}
