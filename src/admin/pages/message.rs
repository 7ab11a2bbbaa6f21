//! One message: its three numbers, when it was opened, by what, and by which recipients.
//!
//! Guarantees: everything here comes from counts and from opens, read through their keys. A filter reads [`SCAN_MAX`]
//! opens and offers to go on, so that no page takes longer because a message was opened more often.

use hyper::StatusCode;
use maud::{Markup, html};

use super::message_chart::{Times, chart};
use super::message_form::{self, Values};
use super::messages::rate;
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::guard::safe_next;
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::route::is_page;
use crate::admin::view::{
    Column, Frame, Tone, Zone, address, class_words, command, counted, empty, fetches, nothing, notice, number,
    number_cell, percent, table, time, time_or,
};
use crate::db::counts;
use crate::db::messages::{self, Change, Facet, FacetKind, Message};
use crate::db::opens::{self, Open, Slice};
use crate::db::{installation, users::Role};
use pixeld_core::ids::RecipientId;
use pixeld_core::link::key::Key;
use pixeld_core::link::parse_uuid;
use pixeld_core::opens::class::{Certainty, Class};

/// Recipients of a page.
const PAGE: usize = 50;

/// Opens that a filter reads: they are spread over the whole table, so that each may cost a disk read.
const SCAN_MAX: i64 = 5_000;

/// Hits of a message from which on the page warns of one recipient who has nearly all of them; one keen reader has
/// fewer.
const CROWD_HITS_MIN: i64 = 50;

/// Minimum number of addresses that such hits come from; a travelling reader may have several.
const CROWD_ADDRESSES_MIN: i64 = 20;

/// The same for user agents, used if no addresses are kept.
const CROWD_USER_AGENTS_MIN: i64 = 10;

/// The filters, by their word in the address.
const FILTERS: [(&str, &str, Option<Certainty>); 4] = [
    ("", "All", None),
    ("confirmed", "Confirmed", Some(Certainty::Confirmed)),
    ("possible", "Possible", Some(Certainty::Possible)),
    ("machine", "Machines", Some(Certainty::Machine)),
];

/// `GET /messages/{message}`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let notice = match request.query.get("done") {
        "added" => notice(Tone::Good, html! { p { "The message was added." } }),
        "known" => notice(
            Tone::Warning,
            html! { p { "This message already existed, so nothing changed. You can edit it here." } },
        ),
        _ => nothing(),
    };
    let client = admin.client().await?;
    let Some(message) = asked_for(&client, request).await? else { return Ok(unknown(request)) };
    message_page(admin, &client, request, &message, Values::known(&message, request.zone), StatusCode::OK, notice).await
}

/// `POST /messages/{message}`.
pub(crate) async fn change(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let client = admin.client().await?;
    let Some(message) = asked_for(&client, request).await? else { return Ok(unknown(request)) };
    match message_form::read(&request.form, Some(&message), request.zone) {
        Ok(told) => {
            if told != Change::default() {
                messages::change(&client, request.actor(), message.id, &told).await?;
            }
            Ok(answer::go_to(&back(request, &message)))
        }
        Err(wrong) => {
            let notice = notice(Tone::Bad, html! { p { "Nothing changed: " (wrong) "." } });
            let values = Values::typed(&request.form);
            message_page(admin, &client, request, &message, values, StatusCode::UNPROCESSABLE_ENTITY, notice).await
        }
    }
}

/// Where to return after a change: a page of ours, or else the message's.
fn back(request: &PageRequest, message: &Message) -> String {
    let next = safe_next(request.form.get("next"));
    if next != "/" && is_page(next) { next.to_owned() } else { format!("/messages/{}", message.id) }
}

async fn asked_for(client: &tokio_postgres::Client, request: &PageRequest) -> Result<Option<Message>, Refusal> {
    match parse_uuid(request.parameter("message").as_bytes()) {
        Some(id) => Ok(messages::find(client, id).await?),
        None => Ok(None),
    }
}

fn unknown(request: &PageRequest) -> Answer {
    let content = html! {
        p { "There is no message with this id. A message appears when a link that names it is fetched for the first time." }
        p { a href="/messages" { "Search the messages" } " by name, id or key. An admin can add a message there before it is sent." }
    };
    let frame = Frame { title: "No such message", path: "/messages", user: request.user.as_ref(), zone: request.zone };
    answer::page(StatusCode::NOT_FOUND, frame.page(content))
}

async fn message_page(
    admin: &Admin,
    client: &tokio_postgres::Client,
    request: &PageRequest,
    message: &Message,
    values: Values,
    status: StatusCode,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let id = message.id;
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    let times = Times::of(message, request.zone, counts::quarters_from(client).await?);
    let opened = messages::opens_between(client, id, &times.bounds).await?;
    let rules = messages::facets(client, id, FacetKind::Rule).await?;
    let clients = messages::facets(client, id, FacetKind::Client).await?;
    let recipients = recipients(client, request, message).await?;
    let crowd = crowd(client, message).await?;
    let path = format!("/messages/{id}");
    let next = match request.form.get("next") {
        "" => &path,
        next => next,
    };
    let content = html! {
        (notice)
        (about(message, request.zone))
        (crowd)
        (cards(message))
        @if is_admin {
            details.panel open[status != StatusCode::OK] {
                summary { "Edit name, send time and number of recipients" }
                (message_form::edit(message, &values, next, request))
            }
        }
        @if message.hits == 0 {
            (empty("No opens yet", html! {
                p { "The message's links look like " code { "/image/{image}_" (id) "_{recipient}.png" } "; " code { "pixeld link" } " makes them:" }
                (command(&admin.command(&format!("link --image ID --message {id} --recipient 4711"))))
            }))
        } @else {
            (chart(&times, &opened, request.zone))
            (what_fetched(&rules))
            (mail_clients(&clients))
        }
        h2 #who-opened { "Who opened?" }
        ul {
            li { a href={ (path) "/who-opened" } { "Upload your recipient list to see who opened" } }
            li { a href={ (path) "/links" } { "Make the links for a recipient list" } }
        }
        h2 #recipients { "Recipients" }
        (recipients)
    };
    let title = if message.name.is_empty() { "Message without a name" } else { &message.name };
    let frame = Frame { title, path: "/messages", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

fn about(message: &Message, zone: Zone) -> Markup {
    html! {
        p.muted {
            span.id { (message.id) } br;
            @match (message.sent_at, message.sent_count) {
                (Some(at), Some(count)) => { "Sent " (time(at, zone)) " to " (counted(count, "recipient")) ". " }
                (Some(at), None) => { "Sent " (time(at, zone)) ". " }
                (None, Some(count)) => { "Sent to " (counted(count, "recipient")) ". No send time set. " }
                (None, None) => "No send time set. ",
            }
            @if message.hits > 0 {
                (fetches(message.hits)) ", first " (time_or(message.first_at, zone, "unknown")) ", last "
                (time_or(message.last_at, zone, "unknown")) ". "
                a href=(address("/hits", &[("message", &message.id.to_string())])) { "Show the hits" }
            }
        }
    }
}

/// Warns if nearly all hits name one recipient from many places: a merge tag was filled with the same value for all, or
/// in a way that no known grammar of tags covers.
async fn crowd(client: &tokio_postgres::Client, message: &Message) -> Result<Markup, Refusal> {
    let recipients = message.confirmed + message.possible + message.machine;
    // Only then can one have nine tenths; nearly every message ends here.
    if message.hits < CROWD_HITS_MIN || (recipients - 1) * 10 > message.hits {
        return Ok(nothing());
    }
    let Some(found) = opens::crowd(client, message.id, message.hits).await? else { return Ok(nothing()) };
    let is_crowd =
        found.addresses >= CROWD_ADDRESSES_MIN || (found.addresses == 0 && found.user_agents >= CROWD_USER_AGENTS_MIN);
    if !is_crowd {
        return Ok(nothing());
    }
    Ok(notice(
        Tone::Warning,
        html! {
            p {
                strong { "Nearly all fetches name one recipient. " }
                (number(found.hits)) " of " (fetches(message.hits)) " name "
                a href={ "/recipients/" (found.recipient) } { (found.recipient) } ", from "
                @if found.addresses > 0 { "at least " (number(found.addresses)) " addresses" } @else { "at least " (number(found.user_agents)) " mail programs" }
                ". Probably the merge tag for the recipient was filled with the same value for everybody, or one email went to many people (Cc, Bcc, a mailing list)."
            }
            p { "Copy the link from the source of an email that was sent and paste it into " a href="/not-recorded" { "Link check" } "." }
        },
    ))
}

fn cards(message: &Message) -> Markup {
    let of_all =
        |n: i64| message.sent_count.and_then(|all| percent(n, all)).map(|rate| format!("{rate} of recipients. "));
    html! {
        div.cards {
            section.card {
                h2 { span.mark.confirmed { "Confirmed" } }
                p.main { (number(message.confirmed)) }
                p.muted { (of_all(message.confirmed).unwrap_or_default()) "A person's mail program showed it." }
            }
            section.card {
                h2 { span.mark.possible { "Possible" } }
                p.main { (number(message.possible)) }
                p.muted { (of_all(message.possible).unwrap_or_default()) "A reader, or Apple's automatic loading." }
            }
            section.card {
                h2 { span.mark.machine { "Machines" } }
                p.main { (number(message.machine)) }
                p.muted { (of_all(message.machine).unwrap_or_default()) "So far only scanners or bots." }
            }
            section.card {
                h2 { "Open rate" }
                p.main { (rate(message)) }
                p.muted {
                    @match message.sent_count {
                        Some(count) => {
                            "Confirmed, of " (counted(count, "recipient")) ". This number includes people who opted out or whose link names nobody, and who are not measured."
                        }
                        None => "Enter the number of recipients to see the rate.",
                    }
                }
            }
        }
    }
}

fn what_fetched(rules: &[Facet]) -> Markup {
    let mut classes: Vec<(Class, i64)> = Vec::new();
    for rule in rules {
        match classes.iter_mut().find(|(class, _)| *class == rule.class) {
            Some((_, hits)) => *hits += rule.hits,
            None => classes.push((rule.class, rule.hits)),
        }
    }
    classes.sort_by_key(|(class, _)| class.rank());
    let class_rows =
        classes.iter().map(|(class, hits)| html! { th scope="row" { (class_words(*class)) } (number_cell(*hits)) });
    let rule_rows = rules.iter().map(|rule| {
        html! {
            th scope="row" { @if rule.sentence.is_empty() { (rule.name) } @else { (rule.sentence) } div.muted { (rule.name) } }
            td { (class_words(rule.class)) }
            (number_cell(rule.hits))
        }
    });
    html! {
        h2 { "Opened by" }
        (table("Fetches by kind of reader", &[Column::words("Opened by"), Column::numbers("Fetches")], class_rows))
        h3 { "Why we think so" }
        (table("Fetches by reason", &[Column::words("Reason"), Column::words("Opened by"), Column::numbers("Fetches")], rule_rows))
    }
}

fn mail_clients(clients: &[Facet]) -> Markup {
    let rows = clients.iter().map(|client| html! { th scope="row" { (client.name) } (number_cell(client.hits)) });
    html! {
        h2 { "Mail programs" }
        (table("Fetches by mail program", &[Column::words("Mail program"), Column::numbers("Fetches")], rows))
    }
}

async fn recipients(
    client: &tokio_postgres::Client,
    request: &PageRequest,
    message: &Message,
) -> Result<Markup, Refusal> {
    let path = format!("/messages/{}", message.id);
    let typed = request.query.get("recipient").trim();
    let search = search_form(&path, typed);
    if !typed.is_empty() {
        let found = match Key::typed(typed) {
            Ok(key) => {
                let id = installation::namespace(client).await?.id_of(&key);
                opens::find(client, message.id, id).await?
            }
            Err(_) => None,
        };
        return Ok(html! {
            (search)
            @match &found {
                Some(open) => (recipient_table(std::slice::from_ref(open), request.zone)),
                None => p role="status" { "No opens recorded for " strong { (typed) } "." },
            }
            p { a href={ (path) "#recipients" } { "Show all recipients" } }
        });
    }
    let (filter, _, certainty) =
        FILTERS.into_iter().find(|(word, ..)| *word == request.query.get("only")).unwrap_or(FILTERS[0]);
    let after: RecipientId = parse_uuid(request.query.get("after").as_bytes()).unwrap_or_default();
    let reads_max = if certainty.is_some() { SCAN_MAX } else { PAGE as i64 + 1 };
    let Slice { opens: mut listed, reached } =
        opens::of_message(client, message.id, after, certainty, PAGE as i64 + 1, reads_max).await?;
    let is_more = listed.len() > PAGE;
    listed.truncate(PAGE);
    let last = listed.last().map(|open| open.id);
    let further = |after: RecipientId| {
        format!("{}#recipients", address(&path, &[("only", filter), ("after", &after.to_string())]))
    };
    Ok(html! {
        (search)
        (filters(&path, filter))
        @if !listed.is_empty() {
            (recipient_table(&listed, request.zone))
        } @else if reached.is_none() {
            p role="status" { @if after.is_nil() { "No recipients." } @else { "End of list." } }
        }
        @if let (false, Some(reached)) = (is_more, reached.filter(|_| certainty.is_some())) {
            p role="status" { "Searched " (number(SCAN_MAX)) " recipients; there are more. " a href=(further(reached)) { "Search further" } }
        }
        div.pager role="navigation" aria-label="More recipients" {
            @if !after.is_nil() { a href={ (address(&path, &[("only", filter)])) "#recipients" } { "First page" } }
            @if let (true, Some(last)) = (is_more, last) { a rel="next" href=(further(last)) { "Next" } }
        }
    })
}

fn search_form(path: &str, typed: &str) -> Markup {
    html! {
        form.search role="search" method="get" action={ (path) "#recipients" } {
            label for="recipient" { "Search for a recipient by id or key" }
            div.line {
                input #recipient name="recipient" type="search" value=(typed) maxlength="128" autocomplete="off" autocapitalize="none"
                    spellcheck="false";
                button type="submit" { "Search" }
            }
        }
    }
}

fn filters(path: &str, filter: &str) -> Markup {
    html! {
        div.pager role="navigation" aria-label="Filter recipients" {
            @for (word, label, _) in FILTERS {
                a href={ (address(path, &[("only", word)])) "#recipients" } aria-current=[(word == filter).then_some("true")] { (label) }
            }
        }
    }
}

fn recipient_table(listed: &[Open<RecipientId>], zone: Zone) -> Markup {
    let caption = "Recipients and who or what opened the message";
    open_table(caption, "Recipient", listed, zone, |open| {
        html! { a href={ "/recipients/" (open.id) } { span.id { (open.id) } } }
    })
}

/// A table of opens; `first` is the heading of its first column, and `named` makes its cells.
pub(super) fn open_table<Id>(
    caption: &str,
    first: &'static str,
    listed: &[Open<Id>],
    zone: Zone,
    named: impl Fn(&Open<Id>) -> Markup,
) -> Markup {
    let columns = [
        Column::words(first),
        Column::words("Opened by"),
        Column::words("First fetch"),
        Column::words("Confirmed"),
        Column::words("Last fetch"),
        Column::numbers("Fetches"),
    ];
    let rows = listed.iter().map(|open| {
        html! {
            th scope="row" { (named(open)) }
            td { (class_words(open.best)) }
            td { (time(open.first_at, zone)) }
            td { (time_or(open.confirmed_first_at, zone, "no")) }
            td { (time(open.last_at, zone)) }
            (number_cell(open.hits))
        }
    });
    table(caption, &columns, rows)
}
