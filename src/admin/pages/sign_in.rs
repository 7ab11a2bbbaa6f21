//! Signing in and out.
//!
//! Guarantees: a wrong password and an unknown name look alike and take the same time. No password is asked for over a
//! connection that others can read.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER, SET_COOKIE};
use maud::{Markup, html};

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::guard::{Way, safe_next};
use crate::admin::password;
use crate::admin::refusal::Refusal;
use crate::admin::request::PageRequest;
use crate::admin::route::is_page;
use crate::admin::session::{Token, cookie_gone};
use crate::admin::view::{Frame, Tone, command, field, notice};
use crate::db::{sessions, users};

/// Longest name that is looked up, in bytes: 64 characters of the longest kind.
const NAME_BYTES_MAX: usize = 256;

/// The notice above the form.
enum Outcome {
    Nothing,
    SignedOut,
    Wrong,
    TooOften(Duration),
}

/// `GET /sign-in`.
pub(crate) async fn show(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    if request.user.is_some() {
        return Ok(answer::go_to(next_of(request.query.get("next"))));
    }
    if request.site.way == Way::Open {
        return Ok(form_page(StatusCode::OK, request, open_way(admin)));
    }
    if !users::any(&*admin.client().await?).await? {
        return Ok(form_page(StatusCode::OK, request, nobody_yet(admin)));
    }
    let outcome = if request.query.get("done") == "signed-out" { Outcome::SignedOut } else { Outcome::Nothing };
    Ok(form_page(StatusCode::OK, request, form("", request.query.get("next"), outcome)))
}

/// `POST /sign-in`.
///
/// # Errors
/// On a database error, or if too many people sign in at once.
pub(crate) async fn sign_in(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    if request.site.way == Way::Open {
        return Ok(form_page(StatusCode::FORBIDDEN, request, open_way(admin)));
    }
    let (name, password, next) =
        (request.form.get("name").trim(), request.form.get("password"), request.form.get("next"));
    if let Err(wait) = admin.throttle.count(name, request.address) {
        let content = form(name, next, Outcome::TooOften(wait));
        let mut answer = form_page(StatusCode::TOO_MANY_REQUESTS, request, content);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        return Ok(answer);
    }
    let is_possible = name.len() <= NAME_BYTES_MAX && password.len() <= password::BYTES_MAX && !name.contains('\0');
    if is_possible && let Some(token) = try_password(admin, request, name, password).await? {
        let mut answer = answer::go_to(next_of(next));
        answer.headers_mut().insert(SET_COOKIE, token.cookie(request.site.way));
        return Ok(answer);
    }
    Ok(form_page(StatusCode::UNAUTHORIZED, request, form(name, next, Outcome::Wrong)))
}

/// The token of a new session, if the password is right.
async fn try_password(
    admin: &Admin,
    request: &PageRequest,
    name: &str,
    password: &str,
) -> Result<Option<Token>, Refusal> {
    // The connection goes back before the hashing, which takes a while: others need it.
    let account = users::account(&*admin.client().await?, name).await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let is_right = admin.passwords.is_right(password.to_owned(), hash).await?;
    let Some(account) = account.filter(|account| is_right && !account.is_disabled) else { return Ok(None) };
    let token = Token::random()?;
    let client = admin.client().await?;
    if let Some(old) = &request.token {
        sessions::end(&client, &old.digest()).await?;
    }
    let begun =
        sessions::begin(&client, account.id, &account.password_hash, &token.digest(), &request.user_agent).await?;
    Ok(begun.then_some(token))
}

/// `POST /sign-out`. For everybody: a session that has ended is signed out as well.
pub(crate) async fn sign_out(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    if let Some(token) = &request.token {
        sessions::end(&*admin.client().await?, &token.digest()).await?;
    }
    Ok(signed_out(request))
}

/// `POST /sign-out-everywhere`.
pub(crate) async fn sign_out_everywhere(admin: &Admin, request: &PageRequest) -> Result<Answer, Refusal> {
    if let Some(user) = &request.user {
        sessions::end_all(&*admin.client().await?, user).await?;
    }
    Ok(signed_out(request))
}

fn signed_out(request: &PageRequest) -> Answer {
    let mut answer = answer::go_to("/sign-in?done=signed-out");
    answer.headers_mut().insert(SET_COOKIE, cookie_gone(request.site.way));
    answer
}

fn next_of(next: &str) -> &str {
    let next = safe_next(next);
    if is_page(next) { next } else { "/" }
}

fn form_page(status: StatusCode, request: &PageRequest, content: Markup) -> Answer {
    let frame = Frame { title: "Sign in", path: "/sign-in", user: None, zone: request.zone };
    answer::page(status, frame.page(content))
}

fn form(name: &str, next: &str, outcome: Outcome) -> Markup {
    let next = next_of(next);
    let has_failed = matches!(outcome, Outcome::Wrong | Outcome::TooOften(_));
    html! {
        div {
            @match outcome {
                Outcome::Nothing => {}
                Outcome::SignedOut => { (notice(Tone::Good, html! { p { "You are signed out." } })) }
                Outcome::Wrong => { (notice(Tone::Bad, html! { p { "Wrong name or password." } })) }
                Outcome::TooOften(wait) => {
                    (notice(Tone::Bad, html! { p { "Too many attempts. Wait " (wait.as_secs() + 1) " seconds, then try again." } }))
                }
            }
            form.panel method="post" action="/sign-in" {
                @if next != "/" { input type="hidden" name="next" value=(next); }
                (field("Name", "name", None, html! {
                    input #name name="name" value=(name) autocomplete="username" autocapitalize="none" spellcheck="false"
                        maxlength="64" required autofocus[!has_failed];
                }))
                (field("Password", "password", None, html! {
                    input #password name="password" type="password" autocomplete="current-password" maxlength="1024" required
                        autofocus[has_failed];
                }))
                button type="submit" { "Sign in" }
            }
            p.hint { "Forgotten? Ask the person who runs pixeld to set a new one with " code { "pixeld user password NAME" } "." }
        }
    }
}

fn nobody_yet(admin: &Admin) -> Markup {
    html! {
        section.empty {
            h2 { "No users yet" }
            p { "Add a user on the machine that runs pixeld, in a shell with the settings of pixeld. The command asks for a password of at least 12 characters:" }
            (command(&admin.command("user add NAME")))
            p { "Then " a href="/sign-in" { "reload this page" } " and sign in." }
        }
    }
}

fn open_way(admin: &Admin) -> Markup {
    html! {
        (notice(Tone::Warning, html! {
            p { "You opened this page over plain HTTP, so others on the network could read your password. Signing in is not possible like this." }
        }))
        h2 { "Now: through a tunnel" }
        p { "Run this on your own machine, with your account on the server:" }
        (command(&admin.tunnel()))
        p { "While it runs, open " code { (admin.tunnelled()) } "." }
        h2 { "For good: with HTTPS" }
        p {
            "Put an HTTPS server (nginx, Caddy) in front of pixeld and set " code { "PIXELD_ADMIN_BASE_URL" }
            " to its address, such as " code { "https://pixel-admin.example.com" } "."
        }
    }
}
