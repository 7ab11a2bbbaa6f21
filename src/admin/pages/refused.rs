//! The page that says why something was not done, in the frame of all pages.

use hyper::header::{ALLOW, HeaderValue};
use maud::html;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::guard::Site;
use crate::admin::refusal::Refusal;
use crate::admin::view::{Frame, Tone, Zone, command, notice};
use crate::db::sessions::SignedIn;

/// The answer to a refused request.
pub(crate) fn show(admin: &Admin, user: Option<&SignedIn>, refusal: &Refusal) -> Answer {
    let status = refusal.status();
    let title = match refusal {
        Refusal::NotFound => "Not found",
        Refusal::Method(_) => "Not possible",
        Refusal::ViewerOnly => "Not allowed",
        Refusal::WrongHost => "Wrong address",
        Refusal::NotOwnPage => "Nothing changed",
        Refusal::FormTooLarge | Refusal::NoForm | Refusal::Upload(_) => "Not understood",
        Refusal::Busy | Refusal::TookTooLong => "Try again",
        Refusal::NoRoom => "No room",
        Refusal::Database(_) => "The database is not answering",
        Refusal::Statement { .. } => "The database refused this",
        Refusal::Broken(_) => "Something went wrong",
    };
    let problem = admin
        .options
        .metrics
        .database_problem
        .load_full()
        .filter(|_| matches!(refusal, Refusal::Database(_) | Refusal::Statement { .. }));
    let title = if problem.is_some() { "The database cannot be used" } else { title };
    let content = html! {
        @if let Some(problem) = problem { (notice(Tone::Bad, html! { p { "Pixels are still served, and hits wait on disk: " (problem) "." } })) }
        @else if matches!(refusal, Refusal::NotFound) { p { (refusal) } } @else { (notice(Tone::Bad, html! { p { (refusal) } })) }
        @match refusal {
            Refusal::WrongHost => { (other_ways(admin)) }
            Refusal::Database(_) => {
                p { "Hits waiting: " (crate::admin::view::number(admin.options.metrics.waiting().max(0))) ". pixeld loads them as soon as the database is back." }
            }
            _ => { p { a href="/" { "Go to the overview" } } }
        }
    };
    let frame = Frame { title, path: "", user, zone: Zone::UTC };
    let mut answer = answer::page(status, frame.page(content));
    if let Refusal::Method(allowed) = refusal {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    answer
}

/// Other ways to reach these pages.
fn other_ways(admin: &Admin) -> maud::Markup {
    let (site, tunnel) = (admin.sites.first(), admin.tunnel());
    html! {
        @if let Some(Site { origin, .. }) = site {
            p { "Open " a href={ (origin) "/" } { (origin) } ". If pixeld runs on another machine than yours, open a tunnel:" }
        }
        (command(&tunnel))
        p { "While it runs, open " code { (admin.tunnelled()) } "." }
        p.muted {
            "To use this page under another name, set " code { "PIXELD_ADMIN_BASE_URL" }
            " to the address that people type and restart pixeld. pixeld answers only known names, so that no other web site can read this page."
        }
    }
}
