//! The page that says why something was not done, in the frame of all pages.

use hyper::header::{ALLOW, HeaderValue};
use maud::html;

use crate::admin::Admin;
use crate::admin::answer::{self, Answer};
use crate::admin::guard::Site;
use crate::admin::refusal::Refusal;
use crate::admin::view::{Frame, Tone, Zone, command, notice};
use crate::db::sessions::SignedIn;

/// The answer to a request that was refused.
#[must_use]
pub fn show(admin: &Admin, user: Option<&SignedIn>, refusal: &Refusal) -> Answer {
    let status = refusal.status();
    let title = match refusal {
        Refusal::NotFound => "Not found",
        Refusal::Method(_) => "Not possible",
        Refusal::ViewerOnly => "Not allowed",
        Refusal::WrongHost => "Another address is needed",
        Refusal::NotOwnPage => "Nothing was changed",
        Refusal::FormTooLarge | Refusal::NoForm | Refusal::Upload(_) => "Not understood",
        Refusal::Busy | Refusal::TookTooLong => "Try again",
        Refusal::NoRoom => "No room",
        Refusal::Database(_) => "The database is away",
        Refusal::Statement { .. } => "The database refused this",
        Refusal::Broken(_) => "Something went wrong",
    };
    let problem = admin
        .metrics
        .database_problem
        .load_full()
        .filter(|_| matches!(refusal, Refusal::Database(_) | Refusal::Statement { .. }));
    let title = if problem.is_some() { "The database cannot be used" } else { title };
    let content = html! {
        @if let Some(problem) = problem { (notice(Tone::Bad, html! { p { "Pixels are served, and hits wait on disk: " (problem) "." } })) }
        @else if matches!(refusal, Refusal::NotFound) { p { (refusal) } } @else { (notice(Tone::Bad, html! { p { (refusal) } })) }
        @match refusal {
            Refusal::WrongHost => { (other_ways(admin)) }
            Refusal::Database(_) => {
                p { "Hits that wait: " (crate::admin::view::number(admin.metrics.waiting().max(0))) ". They are loaded as soon as it is back." }
            }
            _ => { p { a href="/" { "To the overview" } } }
        }
    };
    let frame = Frame { title, path: "", user, zone: Zone::UTC };
    let mut answer = answer::page(status, frame.page(content));
    if let Refusal::Method(allowed) = refusal {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    answer
}

/// How else to reach these pages.
fn other_ways(admin: &Admin) -> maud::Markup {
    let (site, tunnel) = (admin.sites.first(), admin.tunnel());
    html! {
        @if let Some(Site { origin, .. }) = site {
            p { "Open " a href={ (origin) "/" } { (origin) } ", or, if you are not on the machine that pixeld runs on, make a tunnel:" }
        }
        (command(&tunnel))
        p { "and open " code { (admin.tunnelled()) } " while it runs." }
        p.muted {
            "If people are to reach this page under another name, set " code { "PIXELD_ADMIN_BASE_URL" }
            " to what they type, and start pixeld again. Only known names are answered, so that no other web site can read this one."
        }
    }
}
