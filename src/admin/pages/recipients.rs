//! One recipient: which messages they opened, and their rights ([`person`]). Every possible id has a page, even if
//! nothing is known about it.
//!
//! Guarantees: a page is [`PAGE`] rows read through an index, however many messages or hits there are. Gives up: the
//! order by time across pages. Within a page, and nearly every recipient fits on one, the latest hit is first.

use hyper::StatusCode;
use maud::{Markup, html};

use super::message::open_table;
use super::messages::named_link;
use super::person::{self, Standing};
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{Frame, Tone, address, counted, nothing, notice};
use crate::db::installation::{self, RecipientError};
use crate::db::opens;
use crate::db::users::Role;
use pixeld_core::ids::{MessageId, RecipientId};
use pixeld_core::link::parse_uuid;

/// Messages of a page.
const PAGE: usize = 200;

/// `GET /recipients`.
pub(crate) async fn find(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let typed = request.query.get("q").trim();
    if typed.is_empty() {
        return Ok(search_page(request, StatusCode::OK, nothing()));
    }
    match installation::recipient_typed(&*admin.client().await?, typed).await {
        Ok(id) => Ok(answer::go_to(&format!("/recipients/{id}"))),
        Err(RecipientError::Database(error)) => Err(error.into()),
        Err(wrong) => {
            let notice = notice(Tone::Bad, html! { p { "This search is not possible: " (wrong) "." } });
            Ok(search_page(request, StatusCode::UNPROCESSABLE_ENTITY, notice))
        }
    }
}

fn search_page(request: &PageRequest, status: StatusCode, notice: Markup) -> Answer {
    let content = html! {
        (notice)
        (search_form(request.query.get("q")))
        p.muted {
            "Enter the id or key that a recipient has in your links. pixeld knows no names and no email addresses; "
            "if your links use the email address as the key, search for the address. A recipient’s page shows what they opened. There, admins can opt "
            "the recipient out, download their data or erase them, even if nothing is recorded."
        }
        @if request.user.as_ref().is_some_and(|user| user.role == Role::Admin) {
            p { a href="/erasures" { "Receipts of erasures" } }
        }
    };
    let frame = Frame { title: "Recipients", path: "/recipients", user: request.user.as_ref(), zone: request.zone };
    answer::page(status, frame.page(content))
}

fn search_form(typed: &str) -> Markup {
    html! {
        form.search role="search" method="get" action="/recipients" {
            label for="q" { "Search for a recipient by id or key" }
            div.line {
                input #q name="q" type="search" value=(typed) maxlength="128" autocomplete="off" autocapitalize="none" spellcheck="false";
                button type="submit" { "Search" }
            }
        }
    }
}

/// `GET /recipients/{recipient}`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let id = parse_uuid(request.parameter("recipient").as_bytes());
    let id = id.filter(|id: &RecipientId| !id.is_nil()).ok_or(Refusal::NotFound)?;
    let before = parse_uuid(request.query.get("before").as_bytes());
    let client = admin.client().await?;
    let mut listed = opens::of_recipient(&client, id, before.unwrap_or(MessageId::MAX), PAGE as i64 + 1).await?;
    let standing = Standing::look(admin, &client, id).await?;
    drop(client);
    let is_more = listed.len() > PAGE;
    listed.truncate(PAGE);
    let last = listed.last().map(|open| open.id);
    listed.sort_by_key(|open| std::cmp::Reverse(open.last_at));
    let path = format!("/recipients/{id}");
    let is_known = !listed.is_empty() || before.is_some();
    let content = html! {
        (person::done(request))
        p.muted { span.id { (id) } }
        @if !is_known {
            p { "No opens recorded for this recipient." }
        } @else if listed.is_empty() {
            p { "End of list." }
        } @else {
            (open_table("Messages that this recipient opened", "Message", &listed, request.zone, |open| named_link(open.id, &open.name)))
        }
        @if is_more || before.is_some() {
            p.muted { "There are more than " (counted(PAGE as i64, "message")) ". Each page shows its most recently opened message first." }
            div.pager role="navigation" aria-label="More messages" {
                @if before.is_some() { a href=(path) { "First page" } }
                @if let (true, Some(last)) = (is_more, last) {
                    a rel="next" href=(address(&path, &[("before", &last.to_string())])) { "Next" }
                }
            }
        }
        @if is_known { p { a href=(address("/hits", &[("recipient", &id.to_string())])) { "Show the hits of this recipient" } } }
        (standing.panel(request, id))
        (search_form(""))
    };
    let frame = Frame { title: "Recipient", path: "/recipients", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(StatusCode::OK, frame.page(content)))
}
