//! Erasures: what was deleted where and when, and which nodes are outstanding. No page shows the recipient, and no
//! address names one.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use maud::{Markup, html};

use super::person;
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{Column, Frame, Tone, Zone, address, command, counted, empty, notice, table, time as time_of};
use crate::erasure::receipts::{self, NodeDone, NodeOutstanding, Receipt};

/// Receipts of a page.
const PAGE: usize = 50;

/// Silence of a node after which the page says how to go on without it. A running node reports twice a minute.
const SILENT_AFTER: Duration = Duration::from_secs(300);

/// `GET /erasures`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let before: Option<i64> = request.query.get("before").parse().ok();
    let client = admin.client().await?;
    let mut listed = receipts::latest(&client, before, PAGE as i64 + 1).await?;
    let is_more = listed.len() > PAGE;
    listed.truncate(PAGE);
    let actors = receipts::actors(&client, &listed).await?;
    drop(client);
    let content = html! {
        @if listed.is_empty() && before.is_none() {
            (empty("No erasures yet", html! {
                p { "To erase a recipient, open their page (" a href="/recipients" { "Recipients" } ") or use this command, which reads their id from standard input:" }
                (command(&admin.command("erase --recipient -")))
            }))
        } @else {
            p { "An erasure is " strong { "final" } " once the database and every node have carried it out. Receipts name nobody; a recipient’s page links to theirs." }
            (receipt_table(&listed, &actors, request.zone))
        }
        @if is_more || before.is_some() {
            div.pager role="navigation" aria-label="More receipts" {
                @if before.is_some() { a href="/erasures" { "Newest" } }
                @if let (true, Some(last)) = (is_more, listed.last()) {
                    a rel="next" href=(address("/erasures", &[("before", &last.id.to_string())])) { "Older" }
                }
            }
        }
    };
    Ok(answer::page(StatusCode::OK, frame(request, "Erasures").page(content)))
}

fn frame<'a>(request: &'a PageRequest, title: &'a str) -> Frame<'a> {
    Frame { title, path: "/recipients", user: request.user.as_ref(), zone: request.zone }
}

fn receipt_table(listed: &[Receipt], actors: &HashMap<i64, String>, zone: Zone) -> Markup {
    let columns = [
        Column::words("Receipt"),
        Column::words("Requested"),
        Column::words("By"),
        Column::words("State"),
        Column::words("Database"),
        Column::words("Nodes"),
        Column::words("Recipient’s hash"),
    ];
    let rows = listed.iter().map(|receipt| {
        html! {
            th.narrow scope="row" { a href={ "/erasures/" (receipt.id) } { (receipt.id) } }
            td { (time_of(receipt.requested_at, zone)) }
            td { (asked_by(receipt, actors)) }
            td { (state(receipt)) }
            td { (deleted(receipt)) }
            td { (receipt.done.len()) " done" @if !receipt.outstanding.is_empty() { ", " (receipt.outstanding.len()) " outstanding" } }
            td { span.id { (receipt.recipient) } }
        }
    });
    table("Erasures, newest first", &columns, rows)
}

fn asked_by(receipt: &Receipt, actors: &HashMap<i64, String>) -> Markup {
    match actors.get(&receipt.id) {
        Some(actor) => html! { (actor) },
        None if receipt.put_back_at.is_some() => html! { span.muted { "restored by a node" } },
        None => html! { span.muted { "not known" } },
    }
}

fn state(receipt: &Receipt) -> &'static str {
    match (receipt.deleted_at, receipt.outstanding.is_empty()) {
        (Some(_), true) => "final",
        (Some(_), false) => "waiting for nodes",
        (None, _) => "being deleted",
    }
}

fn deleted(receipt: &Receipt) -> String {
    let so_far = if receipt.deleted_at.is_none() { " so far" } else { "" };
    format!("{} and {} deleted{so_far}", counted(receipt.hits, "hit"), counted(receipt.opens, "open"))
}

/// `POST /erasures`: records an erasure, and redirects to its receipt.
///
/// # Errors
/// If no recipient is named.
pub(crate) async fn begin(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let recipient = person::recipient(request)?;
    let with_opt_out = request.form.get("opt-out") == "yes";
    let begun = async {
        let hash = admin.opt_outs.keys(admin).await?.privacy.hash(recipient);
        admin.erasing.begin(request.actor(), recipient, hash, with_opt_out).await
    };
    match begun.await {
        Ok(erasure) => Ok(answer::go_to(&format!("/erasures/{erasure}"))),
        Err(refusal @ (Refusal::Database(_) | Refusal::Statement { .. })) => Ok(not_begun(request, &refusal)),
        Err(refusal) => Err(refusal),
    }
}

/// States what is true now, which the page of a refusal cannot.
fn not_begun(request: &PageRequest, refusal: &Refusal) -> Answer {
    refusal.log();
    let why = match refusal {
        Refusal::Statement { reference, .. } => format!("The database refused this (reference {reference} in the log)"),
        _ => "The database is not answering".to_owned(),
    };
    let content = html! {
        (notice(Tone::Bad, html! {
            p {
                strong { (why) ", so nobody was erased" }
                " or opted out. Try again when this is fixed; asking twice does no harm."
            }
        }))
        p.muted {
            "If only the answer was lost, the erasure is first in the list of " a href="/erasures" { "erasures" } " and will be carried out."
        }
    };
    answer::page(refusal.status(), frame(request, "Not erased").page(content))
}

/// `GET /erasures/{erasure}`.
///
/// # Errors
/// On a database error, or if there is no erasure with this number.
pub(crate) async fn receipt(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let number: i64 = request.parameter("erasure").parse().map_err(|_| Refusal::NotFound)?;
    let client = admin.client().await?;
    let receipt = receipts::find(&client, number).await?.ok_or(Refusal::NotFound)?;
    let actors = receipts::actors(&client, std::slice::from_ref(&receipt)).await?;
    drop(client);
    let content = html! {
        (summary(&receipt))
        dl.facts {
            dt { "Recipient’s hash" } dd { span.id { (receipt.recipient) } }
            dt { "Requested" } dd { (time_of(receipt.requested_at, request.zone)) }
            dt { "By" } dd { (asked_by(&receipt, &actors)) }
            @if let Some(at) = receipt.put_back_at {
                dt { "Restored" } dd { (time_of(at, request.zone)) ", by a node that remembered it after the database was restored from an older backup" }
            }
            dt { "Database" }
            dd {
                (deleted(&receipt))
                @if let Some(at) = receipt.deleted_at { ", done " (time_of(at, request.zone)) }
            }
        }
        h2 { "Nodes" }
        @if receipt.done.is_empty() && receipt.outstanding.is_empty() {
            p { "No node existed when this was requested, so no node has any of these hits on its disk." }
        } @else {
            (node_table(&receipt, request.zone))
        }
        @if !receipt.outstanding.is_empty() { (what_to_do(admin, &receipt.outstanding, request.zone)) }
        p { a href="/erasures" { "All erasures" } " · " a href="/recipients" { "Recipients" } }
    };
    Ok(answer::page(StatusCode::OK, frame(request, &format!("Erasure {number}")).page(content)))
}

fn summary(receipt: &Receipt) -> Markup {
    let again = html! { a href={ "/erasures/" (receipt.id) } { "Refresh" } };
    match (receipt.deleted_at, receipt.outstanding.len()) {
        (Some(_), 0) => notice(
            Tone::Good,
            html! { p { strong { "This receipt is final. " } "The database and every node have carried out the erasure." } },
        ),
        (Some(_), outstanding) => notice(
            Tone::Warning,
            html! {
                p {
                    strong { "Not final yet: " } "the database is done; " (counted(outstanding as i64, "node"))
                    " still to come. A running node needs a few seconds. " (again) " to see its progress. You can leave this page."
                }
            },
        ),
        (None, _) => notice(
            Tone::Warning,
            html! {
                p {
                    strong { "Not final yet: " } "hits and opens are being deleted from the database. " (again)
                    " to see the progress. You can leave this page. If the deletion is interrupted, a node continues it within a minute."
                }
            },
        ),
    }
}

fn node_table(receipt: &Receipt, zone: Zone) -> Markup {
    let columns = [
        Column::words("Node"),
        Column::words("State"),
        Column::words("Found on its disk"),
        Column::words("Data directory"),
    ];
    let outstanding = receipt.outstanding.iter().map(|NodeOutstanding { node, name, seen_at }| {
        html! {
            th scope="row" { (name) }
            td { strong { "outstanding" } ", last seen " (time_of(*seen_at, zone)) }
            td { span.muted { "not searched yet" } }
            td { span.id { (node) } }
        }
    });
    let done = receipt.done.iter().map(|NodeDone { node, name, done_at, on_disk }| {
        let hits = counted(on_disk.hits as i64, "hit");
        html! {
            th scope="row" { (name) }
            td { "done " (time_of(*done_at, zone)) }
            td {
                @if on_disk.segments + on_disk.files == 0 { "nothing" }
                @else { (hits) " in " (counted(on_disk.segments as i64, "segment")) ", " (counted(on_disk.files as i64, "quarantined file")) }
            }
            td { span.id { (node) } }
        }
    });
    table("What each node has done", &columns, outstanding.chain(done))
}

/// The same advice as docs/privacy.md.
fn what_to_do(admin: &Admin, outstanding: &[NodeOutstanding], zone: Zone) -> Markup {
    let silent_since = pixeld_core::clock::now_utc() - SILENT_AFTER;
    html! {
        section.panel {
            h2 { "If a node stays outstanding" }
            p {
                "A node is one data directory. A running node carries out an erasure within seconds. A node that is down does so when it starts, before it loads "
                "any of the erased hits. If its disk has no room to rewrite a segment, it tries again and logs that."
            }
            p { "If a node will not come back, retire it with this command on its data directory. It loads the hits that are left and then removes every hit from the disk:" }
            (command(&admin.command("spool drain --retire")))
            p { "If the directory is lost, delete the node's row in the database. If the directory turns up again, its node registers again and carries out every erasure." }
            // Only silent nodes: deleting the row of a running node would stop its acknowledgements.
            @for NodeOutstanding { node, name, seen_at } in outstanding.iter().filter(|node| node.seen_at < silent_since) {
                p.hint { (name) ", last seen " (time_of(*seen_at, zone)) ":" }
                (command(&format!("DELETE FROM nodes WHERE node = '{node}';")))
            }
        }
    }
}
