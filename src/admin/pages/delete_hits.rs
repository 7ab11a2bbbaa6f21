//! Deleting hits: a preview, and the receipt.

use hyper::StatusCode;
use maud::{Markup, html};
use time::OffsetDateTime;
use tokio_postgres::Client;

use super::hits::{Filter, ROWS_MAX, query_of};
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::{Fields, PageRequest};
use crate::admin::view::zone::exact;
use crate::admin::view::{Column, Frame, Tone, Zone, counted, notice, number, table, time as time_of};
use crate::db::messages;
use crate::rollup::change::{Deleted, Target, count_to_delete};
use crate::rollup::deletions::{self, Receipt};
use pixeld_core::ids::{MessageId, RecipientId};

/// Deletions that are listed.
const RECEIPTS: i64 = 20;

/// `GET /hits/delete`: shows what would be deleted, and asks.
pub(crate) async fn ask(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let client = admin.client().await?;
    let receipts = deletions::latest(&client, RECEIPTS).await?;
    let (status, said) = match wanted(&client, &request.query, request.zone).await? {
        Ok((filter, target)) => (StatusCode::OK, question(&client, request, &filter, target).await?),
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, notice(Tone::Warning, html! { p { (wrong) } })),
    };
    drop(client);
    let content = html! { (said) (receipt_table(admin, &receipts, request.zone)) };
    Ok(answer::page(status, frame(request, "Delete hits").page(content)))
}

/// `POST /hits/delete`: starts it.
pub(crate) async fn begin(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let client = admin.client().await?;
    // The times are in the zone that the page showed.
    let zone = Zone::named(request.form.get("zone")).unwrap_or(request.zone);
    let (status, wrong) = match wanted(&client, &request.form, zone).await? {
        Ok((_, target)) => match admin.deletions.begin(&client, request.actor(), target, &subject(target)).await? {
            Some(job) => return Ok(answer::go_to(&format!("/jobs/{job}"))),
            None => {
                (StatusCode::CONFLICT, "Another deletion is running. Wait until it ends, then try again.".to_owned())
            }
        },
        Err(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong),
    };
    let receipts = deletions::latest(&client, RECEIPTS).await?;
    drop(client);
    let content = html! {
        (notice(Tone::Bad, html! { p { (wrong) " Nothing was deleted." } }))
        (receipt_table(admin, &receipts, request.zone))
    };
    Ok(answer::page(status, frame(request, "Delete hits").page(content)))
}

/// `GET /jobs/{job}`: the progress of a deletion, or its receipt.
///
/// # Errors
/// On a database error, or if there is no deletion with this number.
pub(crate) async fn receipt(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let job: i64 = request.parameter("job").parse().map_err(|_| Refusal::NotFound)?;
    // Read before the audit: a deletion that ends in between must not look interrupted.
    let progress = admin.deletions.progress(job);
    let found = deletions::find(&*admin.client().await?, job).await?.ok_or(Refusal::NotFound)?;
    let state = State::of(&found, progress);
    let content = html! {
        (state.notice(&found))
        dl.facts {
            dt { "What" } dd { "All hits of " (found.subject) }
            dt { "Who" } dd { (found.actor) }
            dt { "Started" } dd { (time_of(found.began_at, request.zone)) }
            @if let Some(end) = &found.end { dt { "Ended" } dd { (time_of(end.at, request.zone)) } }
            dt { "Deleted" } dd { (state.deleted_words()) }
        }
        p { a href="/hits/delete" { "All deletions" } " · " a href="/hits" { "Hits" } }
    };
    Ok(answer::page(StatusCode::OK, frame(request, &format!("Deletion {job}")).page(content)))
}

enum State {
    Running(Deleted),
    Done(Deleted),
    Failed(Deleted),
    Interrupted,
}

impl State {
    fn of(receipt: &Receipt, progress: Option<Deleted>) -> State {
        match (&receipt.end, progress) {
            (Some(end), _) if end.is_done => State::Done(end.deleted),
            (Some(end), _) => State::Failed(end.deleted),
            (None, Some(deleted)) => State::Running(deleted),
            (None, None) => State::Interrupted,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            State::Running(_) => "running",
            State::Done(_) => "finished",
            State::Failed(_) => "failed",
            State::Interrupted => "interrupted",
        }
    }

    fn deleted_words(&self) -> String {
        match self {
            State::Running(deleted) => format!("{} so far", words(*deleted)),
            State::Done(deleted) | State::Failed(deleted) => words(*deleted),
            State::Interrupted => "not known".to_owned(),
        }
    }

    fn notice(&self, receipt: &Receipt) -> Markup {
        let job = receipt.job;
        let why = receipt.end.as_ref().and_then(|end| end.why.as_deref());
        match self {
            State::Running(_) => notice(
                Tone::Warning,
                html! {
                    p { strong { "The deletion is running. " } a href={ "/jobs/" (job) } { "Refresh" } " to see its progress. You can leave this page." }
                },
            ),
            State::Done(_) => notice(
                Tone::Good,
                html! { p { strong { "The deletion is finished. " } "Opens and counts match the remaining hits." } },
            ),
            State::Failed(_) => notice(
                Tone::Bad,
                html! {
                    @if let Some(why) = why { p { (why) } }
                    p { strong { "The deletion failed before it was done. " } @if why.is_none() { "The log says why. " } "The hits deleted until then are gone, and all counts are right. Start the same deletion again to finish." }
                },
            ),
            State::Interrupted => notice(
                Tone::Bad,
                html! {
                    p { strong { "The deletion was interrupted " } "when pixeld stopped, unless another pixeld on this database is still running it. "
                        "The hits deleted until then are gone, and all counts are right. Start the same deletion again to finish." }
                },
            ),
        }
    }
}

fn words(deleted: Deleted) -> String {
    format!("{} and {}", counted(deleted.hits as i64, "hit"), counted(deleted.opens as i64, "open"))
}

fn frame<'a>(request: &'a PageRequest, title: &'a str) -> Frame<'a> {
    Frame { title, path: "/hits", user: request.user.as_ref(), zone: request.zone }
}

/// What to delete, or why it cannot be deleted.
async fn wanted(client: &Client, fields: &Fields, zone: Zone) -> Result<Result<(Filter, Target), String>, Refusal> {
    let filter = match Filter::read(client, fields, zone).await? {
        Ok(filter) => filter,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let target = target_of(&filter, pixeld_core::clock::now_utc());
    Ok(target.map(|target| (filter, target)).map_err(ToOwned::to_owned))
}

fn target_of(filter: &Filter, now: OffsetDateTime) -> Result<Target, &'static str> {
    let is_nil = filter.message.is_some_and(MessageId::is_nil) || filter.recipient.is_some_and(RecipientId::is_nil);
    match *filter {
        Filter { image: Some(_), .. } => Err("Hits are deleted by message, recipient or time, not by image."),
        _ if is_nil => Err("The nil UUID stands for “none”. Delete such hits by time."),
        Filter { message, recipient, from: None, to: None, .. } => match (message, recipient) {
            (Some(message), Some(recipient)) => Ok(Target::Pair { message, recipient }),
            (Some(message), None) => Ok(Target::Message(message)),
            (None, Some(recipient)) => Ok(Target::Recipient(recipient)),
            (None, None) => Err(
                "Filter the page Hits by a message, a recipient or a time first. It then offers to delete what it shows.",
            ),
        },
        Filter { message: None, recipient: None, from: Some(from), to: Some(to), .. } => {
            // A time in the future would never be empty.
            let to = to.min(now);
            if from < to { Ok(Target::Period { from, to }) } else { Err("This time is in the future.") }
        }
        Filter { message: None, recipient: None, .. } => Err("To delete hits by time, enter both From and Until."),
        _ => Err("Delete hits either by message and recipient or by time, not by both at once."),
    }
}

/// What is deleted, in words for the audit, which names no recipient.
fn subject(target: Target) -> String {
    match target {
        Target::Recipient(_) => "one recipient".to_owned(),
        Target::Pair { message, .. } => format!("one recipient, of message {message}"),
        Target::Message(message) => format!("message {message}"),
        Target::Period { from, to } => format!("the time from {} to {}", exact(from), exact(to)),
    }
}

async fn question(client: &Client, request: &PageRequest, filter: &Filter, target: Target) -> Result<Markup, Refusal> {
    let count = count_to_delete(client, target, ROWS_MAX).await?;
    let count = if count > ROWS_MAX { format!("more than {} hits", number(ROWS_MAX)) } else { counted(count, "hit") };
    let name = match filter.message {
        Some(id) => messages::name_of(client, id).await?,
        None => String::new(),
    };
    let hidden = [
        ("message", filter.message.map(|id| id.to_string())),
        ("recipient", filter.recipient.map(|id| id.to_string())),
        ("from", filter.from.map(|_| request.query.get("from").trim().to_owned())),
        ("to", filter.to.map(|_| request.query.get("to").trim().to_owned())),
        ("zone", Some(request.zone.name().to_owned())),
    ];
    Ok(html! {
        section.panel {
            h2 { "Delete these hits?" }
            p {
                "You are about to delete " strong { (count) } " "
                @match target {
                    Target::Recipient(recipient) => { "of the recipient " span.id { (recipient) } },
                    Target::Message(message) => { "of the message " (name) " " span.id { (message) } },
                    Target::Pair { message, recipient } => {
                        "of the recipient " span.id { (recipient) } " in the message " (name) " " span.id { (message) }
                    },
                    Target::Period { from, to } => { "from " (time_of(from, request.zone)) " until " (time_of(to, request.zone)) },
                }
                " and the opens counted from them. Such hits that arrive during the deletion are deleted, too. "
                strong { "This cannot be undone." }
            }
            @if matches!(target, Target::Recipient(_)) {
                p.muted { "Hits of this recipient that name no message are deleted, too, but not included in this number." }
            }
            @if matches!(target, Target::Period { .. }) {
                p.muted { "Opens that are older than the hits that are still kept do not change." }
            }
            form method="post" action="/hits/delete" {
                @for (name, value) in &hidden {
                    @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
                }
                button.danger type="submit" { "Delete these hits" }
                " " a href={ "/hits?" (query_of(&request.query, &[])) } { "Cancel" }
            }
        }
    })
}

fn receipt_table(admin: &Admin, receipts: &[Receipt], zone: Zone) -> Markup {
    let columns = [
        Column::words("Deletion"),
        Column::words("Started"),
        Column::words("Who"),
        Column::words("All hits of"),
        Column::words("State"),
        Column::words("Deleted"),
    ];
    let rows = receipts.iter().map(|receipt| {
        let state = State::of(receipt, admin.deletions.progress(receipt.job));
        html! {
            th scope="row" { a href={ "/jobs/" (receipt.job) } { (receipt.job) } }
            td { (time_of(receipt.began_at, zone)) }
            td { (receipt.actor) }
            td { (receipt.subject) }
            td { (state.word()) }
            td { (state.deleted_words()) }
        }
    });
    html! {
        h2 { "Deletions" }
        @if receipts.is_empty() { p { "No deletions yet." } } @else { (table("Latest deletions, newest first", &columns, rows)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::ids::ImageId;
    use time::macros::datetime;

    #[test]
    fn only_what_can_be_deleted_whole_is_a_target() {
        let (a, b) = (MessageId::from_u128(1), RecipientId::from_u128(2));
        let (from, now, later) =
            (datetime!(2026-05-01 0:00 UTC), datetime!(2026-05-02 0:00 UTC), datetime!(2026-05-03 0:00 UTC));
        let target = |filter: Filter| target_of(&filter, now);
        let none = Filter::default();
        assert_eq!(target(Filter { message: Some(a), ..none }), Ok(Target::Message(a)));
        assert_eq!(target(Filter { recipient: Some(b), ..none }), Ok(Target::Recipient(b)));
        let pair = Ok(Target::Pair { message: a, recipient: b });
        assert_eq!(target(Filter { message: Some(a), recipient: Some(b), ..none }), pair);
        let period = Filter { from: Some(from), to: Some(later), ..none };
        assert_eq!(target(period), Ok(Target::Period { from, to: now }), "the future is left out");
        for wrong in [
            none,
            Filter { image: Some(ImageId::from_u128(1)), message: Some(a), ..none },
            Filter { message: Some(a), ..period },
            Filter { from: Some(from), ..none },
            Filter { from: Some(later), to: Some(later + time::Duration::DAY), ..none },
            Filter { recipient: Some(RecipientId::NONE), ..none },
        ] {
            assert!(target(wrong).is_err(), "{wrong:?}");
        }
        assert!(!subject(Target::Pair { message: a, recipient: b }).contains(&b.to_string()));
    }
}
