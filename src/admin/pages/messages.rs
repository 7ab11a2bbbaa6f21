//! All messages, page by page, and the search among them.
//!
//! Guarantees: a page is read through an index from a place in the list, so that its time does not grow with the number
//! of messages. A search for a name reads [`SEARCH_MAX`] of them and says where it ended.

use hyper::StatusCode;
use maud::{Markup, html};

use super::message_form::{self, Values};
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::{
    Column, Frame, Tone, address, counted, empty, field, nothing, notice, number, number_cell, percent, table, time_or,
};
use crate::db::messages::{self, Message, Place};
use crate::db::{installation, users::Role};
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::MessageId;
use pixeld_core::link::key::Key;

/// Messages of a page.
const PAGE: usize = 50;

/// Messages that a search for a name reads.
const SEARCH_MAX: i64 = 20_000;

/// Maximum characters of a search.
const WORDS_CHARS_MAX: usize = 200;

/// What a page lists.
struct Listed {
    messages: Vec<Message>,
    /// Whether there are newer ones.
    newer: bool,
    /// The place after which there are older ones.
    older: Option<Place>,
    /// Where a search ended before the last message.
    reached: Option<Place>,
}

/// `GET /messages`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    list_page(admin, request, StatusCode::OK, nothing()).await
}

/// `POST /messages`: adds a message before its first hit.
pub(crate) async fn add(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let typed = request.form.get("message").trim();
    let key = match Key::typed(typed) {
        Ok(Key::Id(id)) if id.is_nil() => Err("the nil UUID stands for “none”, so no message can have it".to_owned()),
        key => key.map_err(|error| error.to_string()),
    };
    let told = key.and_then(|key| {
        let change = message_form::read(&request.form, None, request.zone).map_err(str::to_owned)?;
        Ok((key, change))
    });
    let (key, change) = match told {
        Ok(told) => told,
        Err(wrong) => {
            let notice = notice(Tone::Bad, html! { p { "The message was not added: " (wrong) "." } });
            return list_page(admin, request, StatusCode::UNPROCESSABLE_ENTITY, notice).await;
        }
    };
    let client = admin.client().await?;
    let id = installation::namespace(&client).await?.id_of(&key);
    if messages::find(&client, id).await?.is_some() {
        return Ok(answer::go_to(&format!("/messages/{id}?done=known")));
    }
    messages::change(&client, request.actor(), id, &change).await?;
    Ok(answer::go_to(&format!("/messages/{id}?done=added")))
}

async fn list_page(
    admin: &Admin,
    request: &PageRequest,
    status: StatusCode,
    notice: Markup,
) -> Result<Answer, Refusal> {
    let words = searched(request);
    let is_admin = request.user.as_ref().is_some_and(|user| user.role == Role::Admin);
    let (before, after) = (place(request.query.get("before")), place(request.query.get("after")));
    let client = admin.client().await?;
    let listed = if words.is_empty() {
        page_of_all(&client, before, after).await?
    } else {
        search(&client, &words, before).await?
    };
    drop(client);
    let is_first = before.is_none() && after.is_none();
    let content = html! {
        (notice)
        (search_form(&words))
        @if !words.is_empty() { (outcome(&listed, &words, is_first)) }
        @if listed.messages.is_empty() && words.is_empty() {
            (empty("No messages yet", html! {
                p { "A message appears when a link that names it is fetched for the first time, like " code { "/image/{image}_{message}_{recipient}.png" } "." }
                @if is_admin { p { "You can also add a message here before it is sent, to give it a name." } }
            }))
        } @else if !listed.messages.is_empty() {
            (message_table(&listed.messages, request, is_admin, &words))
        }
        (pager(&listed, &words))
        @if is_admin { (add_form(request)) }
    };
    let frame = Frame { title: "Messages", path: "/messages", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(status, frame.page(content)))
}

/// The searched text: names have no control characters, and PostgreSQL accepts no NUL.
fn searched(request: &PageRequest) -> String {
    let words = request.query.get("q").trim();
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(WORDS_CHARS_MAX).collect()
}

async fn page_of_all(
    client: &tokio_postgres::Client,
    before: Option<Place>,
    after: Option<Place>,
) -> Result<Listed, Refusal> {
    if let Some(after) = after {
        let mut messages = messages::newer(client, after, PAGE as i64 + 1).await?;
        // The page before the first one is the first one.
        if messages.len() >= PAGE {
            let newer = messages.len() > PAGE;
            messages.drain(..messages.len() - PAGE);
            let older = messages.last().map(|message| message.place);
            return Ok(Listed { messages, newer, older, reached: None });
        }
    }
    let place = before.unwrap_or(Place::FIRST);
    let mut messages = messages::older(client, place, PAGE as i64 + 1).await?;
    let older = cut(&mut messages);
    Ok(Listed { messages, newer: before.is_some(), older, reached: None })
}

async fn search(client: &tokio_postgres::Client, words: &str, before: Option<Place>) -> Result<Listed, Refusal> {
    let place = before.unwrap_or(Place::FIRST);
    let found = messages::named(client, words, place, PAGE as i64 + 1, SEARCH_MAX).await?;
    let mut messages = found.messages;
    let older = cut(&mut messages);
    // A search for an id or a key shows that message first, wherever it is in the list.
    if before.is_none()
        && let Ok(key) = Key::typed(words)
        && let Some(message) = messages::find(client, installation::namespace(client).await?.id_of(&key)).await?
    {
        messages.retain(|other| other.id != message.id);
        messages.insert(0, message);
    }
    let reached = if older.is_some() { None } else { found.reached };
    Ok(Listed { messages, newer: before.is_some(), older, reached })
}

/// Cuts the list to the page's length, and returns where the next page begins.
fn cut(messages: &mut Vec<Message>) -> Option<Place> {
    let is_more = messages.len() > PAGE;
    messages.truncate(PAGE);
    messages.last().filter(|_| is_more).map(|message| message.place)
}

/// A place in a link: µs since 1970 and the id.
fn shown(place: Place) -> String {
    format!("{}_{}", Micros::from(place.at).0, place.id)
}

fn place(text: &str) -> Option<Place> {
    let (at, id) = text.split_once('_')?;
    // A time that PostgreSQL cannot hold is not a place.
    let at = Micros(at.parse().ok()?).utc()?;
    let id = id.parse().ok()?;
    (at.year() > 0).then_some(Place { at, id })
}

fn search_form(words: &str) -> Markup {
    html! {
        form.search role="search" method="get" action="/messages" {
            label for="q" { "Search by name, id or key" }
            div.line {
                input #q name="q" type="search" value=(words) maxlength=(WORDS_CHARS_MAX) autocomplete="off" spellcheck="false";
                button type="submit" { "Search" }
            }
        }
    }
}

fn outcome(listed: &Listed, words: &str, is_first: bool) -> Markup {
    let beyond = listed.reached.map(|place| address("/messages", &[("q", words), ("before", &shown(place))]));
    html! {
        @if listed.messages.is_empty() {
            p role="status" { @if is_first { "No message found for " } @else { "No more messages found for " } strong { (words) } "." }
        }
        @if let Some(beyond) = beyond {
            p.muted {
                "Searched " @if is_first { "the " (number(SEARCH_MAX)) " most recently opened messages. " } @else { (number(SEARCH_MAX)) " more messages. " }
                a href=(beyond) { "Search further back" }
            }
        }
        p { a href="/messages" { "Show all messages" } }
    }
}

fn message_table(listed: &[Message], request: &PageRequest, is_admin: bool, words: &str) -> Markup {
    let (before, after) = (request.query.get("before"), request.query.get("after"));
    let next = address("/messages", &[("q", words), ("before", before), ("after", after)]);
    let columns = [
        Column::words("Message"),
        Column::numbers("Confirmed"),
        Column::numbers("Possible"),
        Column::numbers("Machines"),
        Column::numbers("Open rate"),
        Column::words("Sent"),
        Column::words("First and last fetch"),
    ];
    let rows = listed.iter().map(|message| {
        html! {
            th scope="row" {
                (link(message))
                @if let Some(count) = message.sent_count { div.muted { "to " (counted(count, "recipient")) } }
                @if is_admin {
                    details.in-place {
                        summary aria-label={ "Edit " (called(message)) } { "Edit" }
                        (message_form::edit(message, &Values::known(message, request.zone), &next, request))
                    }
                }
            }
            (number_cell(message.confirmed))
            (number_cell(message.possible))
            (number_cell(message.machine))
            td.number { (rate(message)) }
            td { (time_or(message.sent_at, request.zone, "not set")) }
            td {
                (time_or(message.first_at, request.zone, "none"))
                @if message.first_at.is_some() { br; (time_or(message.last_at, request.zone, "none")) }
            }
        }
    });
    table("Messages, most recently opened first", &columns, rows)
}

/// What people call a message.
pub(crate) fn called(message: &Message) -> String {
    if message.name.is_empty() { message.id.to_string() } else { message.name.clone() }
}

/// A message's name or id, as a link to its page.
pub(crate) fn link(message: &Message) -> Markup {
    named_link(message.id, &message.name)
}

/// The same from an id and a name.
pub(crate) fn named_link(id: MessageId, name: &str) -> Markup {
    html! {
        a href={ "/messages/" (id) } {
            @if name.is_empty() { span.id { (id) } } @else { (name) }
        }
    }
}

/// Confirmed opens in percent of the recipients, if their number is known.
pub(crate) fn rate(message: &Message) -> Markup {
    match message.sent_count.and_then(|count| percent(message.confirmed, count)) {
        Some(rate) => html! { (rate) },
        None => html! { span.muted { "–" } },
    }
}

fn pager(listed: &Listed, words: &str) -> Markup {
    let newer = listed.messages.first().filter(|_| listed.newer).map(|first| match words {
        "" => address("/messages", &[("after", &shown(first.place))]),
        words => address("/messages", &[("q", words)]),
    });
    let older = listed.older.map(|place| address("/messages", &[("q", words), ("before", &shown(place))]));
    html! {
        @if newer.is_some() || older.is_some() {
            div.pager role="navigation" aria-label="More messages" {
                @if let Some(newer) = newer { a rel="prev" href=(newer) { @if words.is_empty() { "Newer" } @else { "First page" } } }
                @if let Some(older) = older { a rel="next" href=(older) { "Older" } }
            }
        }
    }
}

fn add_form(request: &PageRequest) -> Markup {
    let typed = request.form.get("message");
    html! {
        details.panel open[request.form.given("message").is_some()] {
            summary { "Add a message" }
            form method="post" action="/messages" {
                (field("Id or key", "message", Some("The id or key that the message has in your links."), html! {
                    input #message name="message" value=(typed) maxlength="128" required autocomplete="off" autocapitalize="none"
                        spellcheck="false" aria-describedby="message-hint";
                }))
                (message_form::fields(&Values::typed(&request.form), "new", request.zone))
                button type="submit" { "Add the message" }
            }
        }
    }
}
