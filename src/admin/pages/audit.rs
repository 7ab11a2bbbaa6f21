//! The audit: who did what, and when. It names recipients by their hashes only.

use hyper::StatusCode;
use maud::{Markup, html};
use serde_json::{Map, Value};

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{Column, Frame, Zone, address, table, time as time_of};
use crate::db::audit::{self, Entry};

/// Entries of a page.
const PAGE: usize = 100;

/// `GET /audit`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let before: Option<i64> = request.query.get("before").parse().ok();
    let mut listed = audit::latest(&*admin.client().await?, before, PAGE as i64 + 1).await?;
    let is_more = listed.len() > PAGE;
    listed.truncate(PAGE);
    let content = html! {
        p {
            "Every opt-out, erasure, export and deletion, and every change to users, messages and images: made on this page, by a command, or with the "
            "link in an email’s footer. The audit is kept for ever and names recipients only by their hashes."
        }
        @if listed.is_empty() { p { "End of list." } } @else { (entry_table("The audit, newest first", &listed, request.zone)) }
        @if is_more || before.is_some() {
            div.pager role="navigation" aria-label="More entries" {
                @if before.is_some() { a href="/audit" { "Newest" } }
                @if let (true, Some(last)) = (is_more, listed.last()) {
                    a rel="next" href=(address("/audit", &[("before", &last.id.to_string())])) { "Older" }
                }
            }
        }
    };
    let frame = Frame { title: "Audit", path: "/settings", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(StatusCode::OK, frame.page(content)))
}

/// Entries, as a table.
pub(super) fn entry_table(caption: &str, entries: &[Entry], zone: Zone) -> Markup {
    let columns = [
        Column::words("When"),
        Column::words("Who"),
        Column::words("What"),
        Column::words("About"),
        Column::words("Detail"),
    ];
    let rows = entries.iter().map(|entry| {
        html! {
            td { (time_of(entry.at, zone)) }
            td { (entry.actor) }
            td { (entry.action) }
            td { (about(entry)) }
            td { (detail(&entry.detail)) }
        }
    });
    table(caption, &columns, rows)
}

/// The subject of an entry, as a link if it has a page.
fn about(entry: &Entry) -> Markup {
    let subject = &entry.subject;
    let page = match entry.action.split(' ').next() {
        Some("image") => Some("/images/"),
        Some("message") => Some("/messages/"),
        _ => None,
    };
    let is_hash = subject.len() == 32 && subject.bytes().all(|byte| byte.is_ascii_hexdigit());
    html! {
        @if let Some(page) = page { a.id href={ (page) (subject) } { (subject) } }
        @else if is_hash { span.muted { "recipient " } span.id { (subject) } }
        @else { (subject) }
    }
}

/// The details, in words; empty values are left out.
fn detail(json: &str) -> Markup {
    let known: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
    let known = known.into_iter().filter(|(_, value)| !value.is_null() && value != "");
    html! {
        @for (at, (name, value)) in known.enumerate() {
            @if at > 0 { ", " }
            @let said = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            @match name.as_str() {
                "erasure" => a href={ "/erasures/" (said) } { "receipt " (said) },
                "job" => a href={ "/jobs/" (said) } { "deletion " (said) },
                _ => { (name.replace('_', " ")) " " (said) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_in_words_and_are_only_text() {
        for (json, said) in [
            ("{}", ""),
            ("no JSON", ""),
            (r#"{"role": "admin"}"#, "role admin"),
            (r#"{"name": "", "sent_at": null, "sent_count": 7}"#, "sent count 7"),
            (r#"{"erasure": 3}"#, "<a href=\"/erasures/3\">receipt 3</a>"),
            (r#"{"hits": 4, "job": 9}"#, "hits 4, <a href=\"/jobs/9\">deletion 9</a>"),
            (r#"{"title": "<b>"}"#, "title &lt;b&gt;"),
        ] {
            assert_eq!(detail(json).0, said, "{json}");
        }
    }
}
