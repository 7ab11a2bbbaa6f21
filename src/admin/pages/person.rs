//! A recipient's rights, on their page: not to be recorded, to see what is held, to be erased.
//!
//! Guarantees: only an admin does any of it, and the audit names that admin. The recipient is named in the body of a
//! form, never in an address. Viewers see the state. Exports are for admins only, though viewers see all that is in
//! them: an export is a file that can be passed on.

use hyper::StatusCode;
use maud::{Markup, html};
use tokio_postgres::Client;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{Frame, Tone, Zone, nothing, notice, time as time_of};
use crate::db::users::Role;
use crate::db::{QUERY_TIMEOUT, within};
use crate::erasure::receipts::{self, Receipt};
use crate::opt_outs::suppressions;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::RecipientId;
use pixeld_core::link::parse_uuid;
use pixeld_core::privacy::Suppression;

/// A recipient's state.
pub(super) struct Standing {
    opt_out: Option<Suppression>,
    /// The latest erasure.
    erasure: Option<Receipt>,
}

impl Standing {
    /// Looks it up.
    pub(super) async fn look(admin: &Admin, client: &Client, recipient: RecipientId) -> Result<Standing, Refusal> {
        let hash = admin.opt_outs.keys_with(admin, client).await?.privacy.hash(recipient);
        Ok(Standing {
            opt_out: suppressions::find(client, hash).await?,
            erasure: receipts::of_recipient(client, hash, 1).await?.pop(),
        })
    }

    fn is_out(&self) -> bool {
        self.opt_out.is_some_and(|row| row.until.is_none())
    }

    fn recorded(&self, zone: Zone) -> Markup {
        let at = |at: Micros| at.utc().map(|at| time_of(at, zone));
        match self.opt_out.map(|row| (at(row.since), row.until.map(at))) {
            Some((Some(since), None)) => html! { strong { "Off" } ": opted out since " (since) },
            Some((_, Some(Some(until)))) => html! { "On again since " (until) },
            _ => html! { "On" },
        }
    }

    fn erased(&self, zone: Zone, is_admin: bool) -> Markup {
        let Some(receipt) = &self.erasure else { return html! { "Never" } };
        let number = html! { "receipt " (receipt.id) };
        html! {
            (time_of(receipt.requested_at, zone)) ", "
            @if is_admin { a href={ "/erasures/" (receipt.id) } { (number) } } @else { (number) }
            @if !receipt.is_final() { ", not final yet" }
        }
    }

    /// The part of the recipient's page that shows it, with what an admin can do.
    pub(super) fn panel(&self, request: &PageRequest, recipient: RecipientId) -> Markup {
        let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
        let button = |path: &str, class: Option<&str>, words: &str| {
            html! {
                form method="post" action=(path) {
                    (named(recipient))
                    button class=[class] type="submit" { (words) }
                }
            }
        };
        html! {
            section.panel aria-labelledby="may-ask" {
                h2 #may-ask { "Privacy requests" }
                dl.facts {
                    dt { "Tracking" } dd { (self.recorded(request.zone)) }
                    dt { "Erased" } dd { (self.erased(request.zone, is_admin)) }
                }
                @if is_admin {
                    div.buttons {
                        @if self.is_out() { (button("/recipients/record-again", Some("quiet"), "Undo the opt-out")) }
                        @else { (button("/recipients/opt-out", Some("quiet"), "Opt out")) }
                        (button("/recipients/export", Some("quiet"), "Download all data"))
                        (button("/recipients/erase", Some("quiet"), "Erase …"))
                    }
                    p.hint {
                        @if self.is_out() { "Undo the opt-out only if this person asks for it. " }
                        "Each action is logged in the " a href="/audit" { "audit" } " under your name; the recipient is not named."
                    }
                }
            }
        }
    }
}

/// The recipient, as a hidden field of a form.
fn named(recipient: RecipientId) -> Markup {
    html! { input type="hidden" name="recipient" value=(recipient); }
}

/// The recipient that a form names.
pub(super) fn recipient(request: &PageRequest) -> Result<RecipientId, Refusal> {
    let recipient = parse_uuid(request.form.get("recipient").as_bytes());
    recipient.filter(|id: &RecipientId| !id.is_nil()).ok_or(Refusal::NotFound)
}

/// The notice after one of its buttons.
pub(super) fn done(request: &PageRequest) -> Markup {
    match request.query.get("done") {
        "opted-out" => notice(
            Tone::Good,
            html! { p { strong { "Opted out. " } "All nodes stop recording this recipient within about two seconds. They still get all images." } },
        ),
        "recorded-again" => notice(
            Tone::Good,
            html! { p { strong { "The opt-out is undone. " } "Opens are recorded from now on. Opens since the opt-out stay unknown." } },
        ),
        "unchanged" => notice(Tone::Warning, html! { p { "Nothing changed: that was already the case." } }),
        _ => nothing(),
    }
}

/// `POST /recipients/opt-out`.
pub(crate) async fn opt_out(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    set_opt_out(admin, request, true).await
}

/// `POST /recipients/record-again`.
pub(crate) async fn record_again(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    set_opt_out(admin, request, false).await
}

async fn set_opt_out(admin: &Admin, request: &PageRequest, is_out: bool) -> Result<Answer, Refusal> {
    let recipient = recipient(request)?;
    let client = admin.client().await?;
    let hash = admin.opt_outs.keys_with(admin, &client).await?.privacy.hash(recipient);
    let receipt = if is_out {
        within(QUERY_TIMEOUT, "opting out", suppressions::opt_out(&client, request.actor(), hash)).await?
    } else {
        within(QUERY_TIMEOUT, "taking an opt-out back", suppressions::opt_in(&client, request.actor(), hash)).await?
    };
    let done = match (receipt.is_new, is_out) {
        (false, _) => "unchanged",
        (true, true) => "opted-out",
        (true, false) => "recorded-again",
    };
    Ok(answer::go_to(&format!("/recipients/{recipient}?done={done}")))
}

/// `POST /recipients/export`: all that is held, as a file.
///
/// # Errors
/// On a database error, or if too many exports run.
pub(crate) async fn export(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    admin.exports.begin(admin, request.actor(), recipient(request)?).await
}

/// `POST /recipients/erase`: says what erasing does, and asks. Changes nothing.
pub(crate) async fn ask_to_erase(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let recipient = recipient(request)?;
    let standing = Standing::look(admin, &*admin.client().await?, recipient).await?;
    let content = html! {
        section.panel {
            p { "This removes everything that pixeld holds about " span.id { (recipient) } ":" }
            ul {
                li { "Their hits and opens are deleted from the database. The counts of messages and images go down." }
                li { "Every node removes them from its disk. A node that is down does so when it starts, before it loads any of them." }
                li { "A receipt records what was deleted, where and when. It does not name the recipient. Do not note the name yourself." }
                li { "This cannot be undone. Clean up yourself what pixeld cannot reach: backups, your proxy’s logs, your mail system, your exports." }
            }
            form method="post" action="/erasures" {
                (named(recipient))
                @if standing.is_out() {
                    p { "This recipient opted out, so later opens are not recorded." }
                } @else {
                    label.check { input type="checkbox" name="opt-out" value="yes" checked; " Opt this recipient out, too" }
                    p.hint { "Otherwise pixeld records them again as soon as they open any email, even an old one." }
                }
                div.buttons {
                    button.danger type="submit" { "Erase this recipient" }
                    a href={ "/recipients/" (recipient) } { "Cancel" }
                }
            }
        }
    };
    let frame =
        Frame { title: "Erase a recipient?", path: "/recipients", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(StatusCode::OK, frame.page(content)))
}
