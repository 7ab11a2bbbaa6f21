//! The first page: the state of pixeld, what was opened lately, and which messages are busy.

use hyper::StatusCode;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::messages::link;
use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::health::{Finding, Weight, findings};
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::view::chart::{Bar, stacked};
use crate::admin::view::{
    Column, Frame, Tone, Zone, command, counted, empty, fetches, notice, number, number_cell, table, time_or,
};
use crate::db::counts::{self, Opens};
use crate::db::messages::{self, Message};

/// Days of the chart.
const DAYS: u16 = 30;

/// Messages that are listed.
const MESSAGES: i64 = 10;

/// `GET /`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    let now = pixeld_core::clock::now_utc();
    let days = request.zone.days_till(now, DAYS);
    let ago = |days_ago: usize| days[days.len().saturating_sub(2 + days_ago)];
    let client = admin.client().await?;
    let opens = counts::since(&client, [ago(0), ago(6), ago(29)]).await?;
    let by_day = counts::hits_between(&client, &days).await?;
    let listed = messages::latest(&client, MESSAGES).await?;
    let is_counted = opens[2].hits > 0 || !listed.is_empty();
    let is_loaded = is_counted || counts::any_loaded(&client).await?;
    drop(client);
    let content = html! {
        (health(admin))
        @if is_counted {
            (cards(opens))
            (day_chart(&days, &by_day, request.zone))
            (busiest(&listed, request.zone))
        } @else if is_loaded {
            (empty("Opens are not counted yet", html! {
                p { "Hits are in the database; pixeld usually counts them within seconds. If this message stays, look in the log for the rollup." }
            }))
        } @else {
            (first_steps(admin))
        }
    };
    let frame = Frame { title: "Overview", path: "/", user: request.user.as_ref(), zone: request.zone };
    Ok(answer::page(StatusCode::OK, frame.page(content)))
}

fn health(admin: &Admin) -> Markup {
    let found = findings(&admin.options.metrics, pixeld_core::clock::now_micros());
    let waiting = admin.options.metrics.waiting().max(0);
    if found.iter().all(|finding| finding.weight == Weight::Hint) {
        let waiting =
            if waiting == 0 { "nothing is waiting".to_owned() } else { format!("{} on the way", fetches(waiting)) };
        return notice(
            Tone::Good,
            html! {
                p { strong { "All is well." } " Opens are counted within seconds; " (waiting) "." }
                @for Finding { wrong, todo, .. } in &found { p.muted { (wrong) " " (todo) } }
            },
        );
    }
    let is_trouble = found.iter().any(|finding| finding.weight == Weight::Trouble);
    let tone = if is_trouble { Tone::Bad } else { Tone::Warning };
    notice(
        tone,
        html! {
            @if let [Finding { wrong, todo, .. }] = found.as_slice() {
                p { strong { (wrong) } " " (todo) }
            } @else {
                ul { @for Finding { wrong, todo, .. } in &found { li { strong { (wrong) } " " (todo) } } }
            }
        },
    )
}

fn cards([today, week, month]: [Opens; 3]) -> Markup {
    html! {
        div.cards {
            @for (label, opens) in [("Today", today), ("Last 7 days", week), ("Last 30 days", month)] {
                section.card {
                    h2 { (label) }
                    p.main { (number(opens.confirmed)) " " small { "confirmed " (if opens.confirmed == 1 { "open" } else { "opens" }) } }
                    dl {
                        dt { span.mark.possible { "possible" } } dd { (number(opens.possible)) }
                        dt { span.mark.machine { "machines" } } dd { (number(opens.machine)) }
                        dt { "fetches in all" } dd { (number(opens.hits)) }
                    }
                }
            }
        }
        p.muted {
            "Confirmed: a person’s mail program or webmail showed the message. Possible: a reader, or Apple’s automatic loading; nobody can tell. "
            "Machines: scanners, crawlers and prefetches. Each recipient counts once per message, on the day of their first open."
        }
    }
}

fn day_chart(days: &[OffsetDateTime], by_day: &[[i64; 3]], zone: Zone) -> Markup {
    let bars: Vec<Bar> = days
        .iter()
        .zip(by_day)
        .map(|(&day, &values)| {
            let time = zone.date(day);
            let label = time.rsplit_once(' ').map_or(time.as_str(), |(day, _)| day).to_owned();
            Bar { label, time, values }
        })
        .collect();
    html! {
        h2 { "Fetches by day" }
        (stacked("Fetches in the last 30 days", "fetches", &bars))
    }
}

fn busiest(listed: &[Message], zone: Zone) -> Markup {
    let columns = [
        Column::words("Message"),
        Column::numbers("Confirmed"),
        Column::numbers("Possible"),
        Column::numbers("Machines"),
        Column::words("Sent"),
        Column::words("Last fetch"),
    ];
    let rows = listed.iter().map(|message| {
        html! {
            th scope="row" {
                (link(message))
                @if let Some(count) = message.sent_count { div.muted { "to " (counted(count, "recipient")) } }
            }
            (number_cell(message.confirmed))
            (number_cell(message.possible))
            (number_cell(message.machine))
            td { (time_or(message.sent_at, zone, "not set")) }
            td { (time_or(message.last_at, zone, "none")) }
        }
    });
    html! {
        h2 { "Recently opened messages" }
        @if listed.is_empty() {
            p.muted { "No link with a message was opened yet. Such links look like " code { "/image/{image}_{message}_{recipient}.png" } "." }
        } @else {
            (table("Recently opened messages", &columns, rows))
            p { a href="/messages" { "All messages" } }
        }
    }
}

fn first_steps(admin: &Admin) -> Markup {
    html! {
        (empty("No opens yet", html! {
            p { "Three steps to the first open:" }
            ol {
                li { "Add an image, or list the images that are there:" (command(&admin.command("image add logo.png"))) (command(&admin.command("image list"))) }
                li { "Make a link for a message and a recipient:" (command(&admin.command("link --image ID --message may-news --recipient 4711"))) }
                li { "Open the link in a browser, or put its " code { "<img>" } " tag into an email and read that email. The open shows up here within seconds." }
            }
        }))
    }
}
