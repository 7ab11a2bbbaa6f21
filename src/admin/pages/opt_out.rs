//! The page behind the link in an email's footer, on which its reader opts out of being recorded.
//!
//! Guarantees: only a POST changes anything, since scanners follow links. Each answer is a page in the reader's
//! language, without a script or a cookie, and without anything of the admin page: no name, no address, no link. So
//! anybody may reach it, under any name, from any page. It does not need the guards of the admin page: an attacker who
//! could make a browser send this form needs the token, and with the token can send the form anyway. [`OptOutThrottle`]
//! bounds what can be done with a token; without one nothing reaches the database.
//!
//! [`OptOutThrottle`]: crate::admin::throttle::OptOutThrottle

mod words;

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_LANGUAGE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, VARY};
use maud::{DOCTYPE, Markup, html};

use self::words::{Language, Words};
use crate::admin::answer::{self, Answer};
use crate::admin::refusal::Refusal;
use crate::admin::request::PublicRequest;
use crate::admin::{Admin, view};
use crate::db::audit::OPT_OUT_PAGE;
use crate::db::{QUERY_TIMEOUT, within};
use crate::opt_outs::suppressions;
use pixeld_core::privacy::RecipientHash;

/// The wait that a reader is advised while the database is away.
const AWAY_WAIT: Duration = Duration::from_secs(60);

/// What the page says.
enum State {
    /// What this is about, with the button.
    Ask,
    Out,
    In,
    /// No token of ours, or no path.
    NotValid,
    TooOften(Duration),
    Away,
}

/// `GET /opt-out/{token}`: says what the button will do. Changes nothing.
pub(crate) async fn show(admin: &Admin, request: &PublicRequest) -> Answer {
    answered(request, look(admin, request).await)
}

/// `POST /opt-out/{token}`, from the page's own buttons, or from a mail program by RFC 8058
/// (`List-Unsubscribe=One-Click`, in any form encoding).
pub(crate) async fn change(admin: &Admin, request: &PublicRequest) -> Answer {
    answered(request, make_change(admin, request).await)
}

/// Every other path or method below this path.
pub(crate) fn nothing(request: &PublicRequest) -> Answer {
    answered(request, Ok(State::NotValid))
}

async fn look(admin: &Admin, request: &PublicRequest) -> Result<State, Refusal> {
    if let Err(wait) = admin.opt_outs.throttle.count_address(request.address) {
        return Ok(State::TooOften(wait));
    }
    let Some(hash) = recipient(admin, request).await? else { return Ok(State::NotValid) };
    let client = admin.client().await?;
    let found = within(QUERY_TIMEOUT, "looking an opt-out up", suppressions::find(&client, hash)).await?;
    Ok(if found.is_some_and(|row| row.until.is_none()) { State::Out } else { State::Ask })
}

async fn make_change(admin: &Admin, request: &PublicRequest) -> Result<State, Refusal> {
    if let Err(wait) = admin.opt_outs.throttle.count_address(request.address) {
        return Ok(State::TooOften(wait));
    }
    let Some(hash) = recipient(admin, request).await? else { return Ok(State::NotValid) };
    if let Err(wait) = admin.opt_outs.throttle.count_recipient(hash) {
        return Ok(State::TooOften(wait));
    }
    let client = admin.client().await?;
    if request.form.get("undo") == "yes" {
        within(QUERY_TIMEOUT, "taking an opt-out back", suppressions::opt_in(&client, OPT_OUT_PAGE, hash)).await?;
        return Ok(State::In);
    }
    within(QUERY_TIMEOUT, "opting out", suppressions::opt_out(&client, OPT_OUT_PAGE, hash)).await?;
    Ok(State::Out)
}

/// The token's recipient; `None` if the token is invalid.
async fn recipient(admin: &Admin, request: &PublicRequest) -> Result<Option<RecipientHash>, Refusal> {
    let keys = admin.opt_outs.keys(admin).await?;
    let recipient = keys.links.verify(request.parameter("token")).ok();
    Ok(recipient.map(|recipient| keys.privacy.hash(recipient)))
}

fn answered(request: &PublicRequest, state: Result<State, Refusal>) -> Answer {
    let state = state.unwrap_or_else(|refusal| {
        refusal.log();
        State::Away
    });
    let language = Language::best(&request.languages);
    let words = language.words();
    let (status, wait) = match state {
        State::Ask | State::Out | State::In => (StatusCode::OK, None),
        State::NotValid => (StatusCode::NOT_FOUND, None),
        State::TooOften(wait) => (StatusCode::TOO_MANY_REQUESTS, Some(wait)),
        State::Away => (StatusCode::SERVICE_UNAVAILABLE, Some(AWAY_WAIT)),
    };
    let mut answer = answer::page(status, page(language, words, &state));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    headers.insert(VARY, HeaderValue::from_static("accept-language"));
    // The address contains the token.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex"));
    if let Some(wait) = wait {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    }
    answer
}

fn page(language: Language, words: &Words, state: &State) -> Markup {
    let (title, text) = match state {
        State::Ask => (words.ask_title, words.ask),
        State::Out => (words.out_title, words.out),
        State::In => (words.in_title, words.in_again),
        State::NotValid => (words.not_valid_title, words.not_valid),
        State::TooOften(_) => (words.later_title, words.too_often),
        State::Away => (words.later_title, words.away),
    };
    html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                // Empty: browsers would ask for one outside of this path.
                link rel="icon" href="data:,";
                // Relative, so that it is found under any path prefix.
                link rel="stylesheet" href=(view::style_path().trim_start_matches('/'));
            }
            body {
                main.wide.alone {
                    h1 { (title) }
                    p { (text) }
                    // To this same address: a form without an action is sent to its own page.
                    @match state {
                        State::Ask | State::In => { form method="post" { button type="submit" { (words.opt_out) } } }
                        State::Out => {
                            form method="post" { button.quiet type="submit" name="undo" value="yes" { (words.undo) } }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
