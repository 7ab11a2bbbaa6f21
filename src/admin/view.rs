//! The parts of every page: the frame, and small pieces. All text goes through maud, which escapes it.
//!
//! Guarantees: no script and nothing inline, so that the policy in [`super::answer`] holds. Each page has one heading,
//! landmarks and a way to skip to its content. Only `view/style.css` sets colours and sizes.

pub(crate) mod chart;
pub(crate) mod zone;

use std::sync::LazyLock;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use time::OffsetDateTime;

use super::answer::{self, Answer};
use crate::db::sessions::SignedIn;
use pixeld_core::digest::{self, Hex};
use pixeld_core::opens::class::{Certainty, Class};
pub(crate) use zone::Zone;

const STYLE: &str = include_str!("view/style.css");

/// The stylesheet's path: it changes with the content, so that browsers may keep it forever.
static STYLE_PATH: LazyLock<String> =
    LazyLock::new(|| format!("/style/{}.css", Hex(&digest::prefix::<8>(&[STYLE.as_bytes()]))));

/// An envelope with a dot, as the icon of the page.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
                    %3Crect x='1' y='3' width='14' height='10' rx='2' fill='%230b6477'/%3E\
                    %3Cpath d='M2 5l6 4 6-4' fill='none' stroke='white' stroke-width='1.5'/%3E\
                    %3Ccircle cx='13' cy='4' r='3' fill='%23f2b94b'/%3E%3C/svg%3E";

/// Pages that the navigation shows.
const NAVIGATION: [(&str, &str); 7] = [
    ("/", "Overview"),
    ("/messages", "Messages"),
    ("/recipients", "Recipients"),
    ("/images", "Images"),
    ("/hits", "Hits"),
    ("/not-recorded", "Link check"),
    ("/settings", "Settings"),
];

/// Where the stylesheet is.
pub(crate) fn style_path() -> &'static str {
    &STYLE_PATH
}

/// The stylesheet.
pub(crate) fn stylesheet() -> Answer {
    answer::shared("text/css; charset=utf-8", STYLE)
}

/// The frame of a page.
pub(crate) struct Frame<'a> {
    /// Its heading, and the title of the browser's tab.
    pub title: &'a str,
    /// Its place in the navigation.
    pub path: &'a str,
    /// Who is signed in.
    pub user: Option<&'a SignedIn>,
    /// The zone of the times in it.
    pub zone: Zone,
}

impl Frame<'_> {
    /// The page with this content.
    pub(crate) fn page(&self, content: Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                (head(self.title))
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header.top {
                        div.wide {
                            a.brand href="/" { "pixeld" }
                            @if let Some(user) = self.user { (self.navigation()) (signed_in(user)) }
                        }
                    }
                    main #content .wide .alone[self.user.is_none()] tabindex="-1" {
                        h1 { (self.title) }
                        (content)
                    }
                    footer {
                        div.wide {
                            "pixeld " (env!("CARGO_PKG_VERSION"))
                            @if self.user.is_some() { " · times are in " a href="/settings#zone" { (self.zone.name()) } }
                        }
                    }
                }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            nav aria-label="Pages" {
                ul {
                    @for (path, label) in NAVIGATION {
                        li { a href=(path) aria-current=[(path == self.path).then_some("page")] { (label) } }
                    }
                }
            }
        }
    }
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            title { (title) " · pixeld" }
            link rel="icon" href=(ICON);
            link rel="stylesheet" href=(*STYLE_PATH);
        }
    }
}

fn signed_in(user: &SignedIn) -> Markup {
    html! {
        form.account method="post" action="/sign-out" {
            span.who title=(user.name) { (user.name) }
            button.quiet type="submit" { "Sign out" }
        }
    }
}

/// A page that repeats the request from our site: a browser leaves out the cookie after a click on a link on another
/// site.
pub(crate) fn ask_again(path: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Opening"))
            body {
                meta http-equiv="refresh" content={ "0; url=" (path) };
                main.wide { p { a href=(path) { "Open the page" } } }
            }
        }
    }
}

/// The meaning of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Needs attention.
    Warning,
    /// Something failed.
    Bad,
}

/// A notice. Screen readers announce bad ones at once.
pub(crate) fn notice(tone: Tone, content: Markup) -> Markup {
    let (class, role) = match tone {
        Tone::Good => ("notice good", "status"),
        Tone::Warning => ("notice warning", "status"),
        Tone::Bad => ("notice bad", "alert"),
    };
    html! { div class=(class) role=(role) { (content) } }
}

/// A placeholder where there is no data yet, with what to do about it.
pub(crate) fn empty(title: &str, content: Markup) -> Markup {
    html! {
        section.empty {
            h2 { (title) }
            (content)
        }
    }
}

/// A command to copy.
pub(crate) fn command(line: &str) -> Markup {
    html! { pre.command tabindex="0" { code { (line) } } }
}

/// A field with its label; `hint` is shown below it.
pub(crate) fn field(label: &str, name: &str, hint: Option<&str>, input: Markup) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            (input)
            @if let Some(hint) = hint { p.hint id={ (name) "-hint" } { (hint) } }
        }
    }
}

/// A table that scrolls within itself if it is wider than the screen.
pub(crate) fn table(caption: &str, columns: &[Column], rows: impl IntoIterator<Item = Markup>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead {
                    tr {
                        @for column in columns {
                            th scope="col" class=[column.is_number.then_some("number")] { (column.label) }
                        }
                    }
                }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

/// A column of a table.
pub(crate) struct Column {
    label: &'static str,
    is_number: bool,
}

impl Column {
    /// A column of words.
    pub(crate) const fn words(label: &'static str) -> Column {
        Column { label, is_number: false }
    }

    /// A column of numbers.
    pub(crate) const fn numbers(label: &'static str) -> Column {
        Column { label, is_number: true }
    }
}

/// A cell with a number.
pub(crate) fn number_cell(n: i64) -> Markup {
    html! { td.number { (number(n)) } }
}

/// A number with a comma every three digits.
pub fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        text.push('−');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `n` in percent of `all`; `None` if `all` is 0.
pub(crate) fn percent(n: i64, all: i64) -> Option<String> {
    let permille = (i128::from(n) * 1000 + i128::from(all) / 2).checked_div(i128::from(all))?;
    Some(format!("{}.{}%", permille / 10, permille % 10))
}

/// A path of ours with these values as its query; empty ones are left out.
pub(crate) fn address(path: &str, values: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(values.iter().filter(|(_, value)| !value.is_empty()));
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A class, and how certain it is that a person looked.
pub(crate) fn class_words(class: Class) -> Markup {
    let mark = match class.certainty() {
        Certainty::Confirmed => "mark confirmed",
        Certainty::Possible => "mark possible",
        Certainty::Machine => "mark machine",
    };
    html! { span class=(mark) { (words_of(class)) } }
}

/// A class in the words of the page; docs/classes.md has both names.
pub(crate) const fn words_of(class: Class) -> &'static str {
    match class {
        Class::Unknown => "not known",
        Class::Human => "person",
        Class::Proxied => "webmail (Gmail, Yahoo …)",
        Class::PrivacyPrefetch => "Apple privacy loading",
        Class::Prefetch => "prefetch",
        Class::Scanner => "security scanner",
        Class::Bot => "bot",
    }
}

/// A number and its noun, such as "2 hits".
pub(crate) fn counted(n: i64, one: &str) -> String {
    format!("{} {one}{}", number(n), if n == 1 { "" } else { "s" })
}

/// A number of fetches.
pub(crate) fn fetches(n: i64) -> String {
    format!("{} {}", number(n), if n == 1 { "fetch" } else { "fetches" })
}

/// A time for people, with its exact value on hover.
pub(crate) fn time(at: OffsetDateTime, zone: Zone) -> Markup {
    let exact = zone::exact(at);
    html! { time datetime=(exact) title=(exact) { (zone.time(at)) } }
}

/// A time that may be unknown.
pub(crate) fn time_or(at: Option<OffsetDateTime>, zone: Zone, otherwise: &str) -> Markup {
    match at {
        Some(at) => time(at, zone),
        None => html! { span.muted { (otherwise) } },
    }
}

/// Empty markup.
pub(crate) fn nothing() -> Markup {
    PreEscaped(String::new())
}

#[cfg(test)]
mod tests;
