//! Every path of the private listener: its method, who may ask, and which function answers. No other path is answered.

use std::borrow::Cow;

use futures_util::future::BoxFuture;
use hyper::Method;
use percent_encoding::percent_decode_str;
use tracing::Span;

use super::answer::Answer;
use super::refusal::Refusal;
use super::request::{PageRequest, PublicRequest};
use super::upload::Upload;
use super::{Admin, pages, probes, view};
use crate::db::users::Role;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who reaches the listener, under any name: for monitoring, and for what holds no secret.
    Open,
    /// Everybody, under our own name.
    Anybody,
    /// Users who are signed in, with at least this role.
    SignedIn(Role),
}

type Shown<'a> = BoxFuture<'a, Result<Answer, Refusal>>;

/// The function that answers.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    Open(for<'a> fn(&'a Admin) -> BoxFuture<'a, Answer>),
    Page(for<'a> fn(&'a Admin, &'a PageRequest) -> Shown<'a>),
    /// Reads the upload itself, within [`super::UPLOAD_WAIT`].
    Upload(for<'a> fn(&'a Admin, &'a PageRequest, Upload) -> Shown<'a>),
    /// Under any name and from anywhere, like `Open`, for people.
    Public(for<'a> fn(&'a Admin, &'a PublicRequest) -> BoxFuture<'a, Answer>),
}

/// A path, and its handler.
pub struct Route {
    /// GET (and then HEAD, too) or POST.
    pub method: &'static str,
    /// The path; a part in braces matches anything.
    pub pattern: &'static str,
    /// Who may ask.
    pub access: Access,
    pub(super) handler: Handler,
}

const ADMIN: Access = Access::SignedIn(Role::Admin);
const VIEWER: Access = Access::SignedIn(Role::Viewer);

/// All of them.
pub const ROUTES: &[Route] = &[
    open("/healthz", |_| Box::pin(async { probes::healthy() })),
    open("/readyz", |admin| Box::pin(probes::ready(admin))),
    open("/metrics", |admin| Box::pin(async { probes::metrics(admin) })),
    open("/style/{hash}", |_| Box::pin(async { view::stylesheet() })),
    open("/opt-out/style/{hash}", |_| Box::pin(async { view::stylesheet() })),
    public("GET", "/opt-out/{token}", |admin, request| Box::pin(pages::opt_out::show(admin, request))),
    public("POST", "/opt-out/{token}", |admin, request| Box::pin(pages::opt_out::change(admin, request))),
    get("/sign-in", Access::Anybody, |admin, request| Box::pin(pages::sign_in::show(admin, request))),
    post("/sign-in", Access::Anybody, |admin, request| Box::pin(pages::sign_in::sign_in(admin, request))),
    post("/sign-out", Access::Anybody, |admin, request| Box::pin(pages::sign_in::sign_out(admin, request))),
    post("/sign-out-everywhere", VIEWER, |admin, request| {
        Box::pin(pages::sign_in::sign_out_everywhere(admin, request))
    }),
    get("/", VIEWER, |admin, request| Box::pin(pages::overview::show(admin, request))),
    get("/messages", VIEWER, |admin, request| Box::pin(pages::messages::show(admin, request))),
    post("/messages", ADMIN, |admin, request| Box::pin(pages::messages::add(admin, request))),
    get("/messages/{message}", VIEWER, |admin, request| Box::pin(pages::message::show(admin, request))),
    post("/messages/{message}", ADMIN, |admin, request| Box::pin(pages::message::change(admin, request))),
    get("/recipients", VIEWER, |admin, request| Box::pin(pages::recipients::find(admin, request))),
    get("/recipients/{recipient}", VIEWER, |admin, request| Box::pin(pages::recipients::show(admin, request))),
    post("/recipients/opt-out", ADMIN, |admin, request| Box::pin(pages::person::opt_out(admin, request))),
    post("/recipients/record-again", ADMIN, |admin, request| Box::pin(pages::person::record_again(admin, request))),
    post("/recipients/export", ADMIN, |admin, request| Box::pin(pages::person::export(admin, request))),
    post("/recipients/erase", ADMIN, |admin, request| Box::pin(pages::person::ask_to_erase(admin, request))),
    get("/erasures", ADMIN, |admin, request| Box::pin(pages::erasures::show(admin, request))),
    post("/erasures", ADMIN, |admin, request| Box::pin(pages::erasures::begin(admin, request))),
    get("/erasures/{erasure}", ADMIN, |admin, request| Box::pin(pages::erasures::receipt(admin, request))),
    get("/messages/{message}/who-opened", VIEWER, |admin, request| Box::pin(pages::who_opened::show(admin, request))),
    upload("/messages/{message}/who-opened", VIEWER, |admin, request, upload| {
        Box::pin(pages::who_opened::answer(admin, request, upload))
    }),
    get("/messages/{message}/links", VIEWER, |admin, request| Box::pin(pages::make_links::show(admin, request))),
    upload("/messages/{message}/links", VIEWER, |admin, request, upload| {
        Box::pin(pages::make_links::answer(admin, request, upload))
    }),
    get("/images", VIEWER, |admin, request| Box::pin(pages::images::show(admin, request))),
    upload("/images", ADMIN, |admin, request, sent| Box::pin(pages::images::add(admin, request, sent))),
    get("/images/{image}", VIEWER, |admin, request| Box::pin(pages::image::show(admin, request))),
    get("/images/{image}/picture", VIEWER, |admin, request| Box::pin(pages::image::picture(admin, request))),
    post("/images/{image}/title", ADMIN, |admin, request| Box::pin(pages::image::set_title(admin, request))),
    upload("/images/{image}/replace", ADMIN, |admin, request, sent| {
        Box::pin(pages::image::replace(admin, request, sent))
    }),
    post("/images/{image}/delete", ADMIN, |admin, request| Box::pin(pages::image::set_deleted(admin, request, true))),
    post("/images/{image}/restore", ADMIN, |admin, request| Box::pin(pages::image::set_deleted(admin, request, false))),
    get("/hits", VIEWER, |admin, request| Box::pin(pages::hits::show(admin, request))),
    get("/hits/delete", ADMIN, |admin, request| Box::pin(pages::delete_hits::ask(admin, request))),
    post("/hits/delete", ADMIN, |admin, request| Box::pin(pages::delete_hits::begin(admin, request))),
    get("/jobs/{job}", ADMIN, |admin, request| Box::pin(pages::delete_hits::receipt(admin, request))),
    get("/not-recorded", VIEWER, |admin, request| Box::pin(pages::not_recorded::show(admin, request))),
    get("/audit", ADMIN, |admin, request| Box::pin(pages::audit::show(admin, request))),
    get("/settings", VIEWER, |admin, request| Box::pin(pages::settings::show(admin, request))),
    post("/settings/zone", VIEWER, |admin, request| Box::pin(pages::settings::set_zone(admin, request))),
    post("/settings/users", ADMIN, |admin, request| Box::pin(pages::settings::add_user(admin, request))),
    post("/settings/users/{user}/disable", ADMIN, |admin, request| {
        Box::pin(pages::settings::set_enabled(admin, request, false))
    }),
    post("/settings/users/{user}/enable", ADMIN, |admin, request| {
        Box::pin(pages::settings::set_enabled(admin, request, true))
    }),
];

const fn open(pattern: &'static str, handler: for<'a> fn(&'a Admin) -> BoxFuture<'a, Answer>) -> Route {
    Route { method: "GET", pattern, access: Access::Open, handler: Handler::Open(handler) }
}

const fn public(
    method: &'static str,
    pattern: &'static str,
    handler: for<'a> fn(&'a Admin, &'a PublicRequest) -> BoxFuture<'a, Answer>,
) -> Route {
    Route { method, pattern, access: Access::Open, handler: Handler::Public(handler) }
}

const fn get(
    pattern: &'static str,
    access: Access,
    handler: for<'a> fn(&'a Admin, &'a PageRequest) -> Shown<'a>,
) -> Route {
    Route { method: "GET", pattern, access, handler: Handler::Page(handler) }
}

const fn post(
    pattern: &'static str,
    access: Access,
    handler: for<'a> fn(&'a Admin, &'a PageRequest) -> Shown<'a>,
) -> Route {
    Route { method: "POST", pattern, access, handler: Handler::Page(handler) }
}

const fn upload(
    pattern: &'static str,
    access: Access,
    handler: for<'a> fn(&'a Admin, &'a PageRequest, Upload) -> Shown<'a>,
) -> Route {
    Route { method: "POST", pattern, access, handler: Handler::Upload(handler) }
}

/// The match of a request.
pub(super) enum RouteMatch {
    /// A route, and the values of its parameters.
    Route(&'static Route, Vec<(&'static str, String)>),
    /// A path that accepts only these methods.
    OtherMethod(&'static str),
    /// No path of ours.
    Nothing,
}

impl RouteMatch {
    /// The span in which the request is logged. It has the pattern and never the path: paths name recipients and
    /// contain tokens.
    pub(super) fn span(&self) -> Span {
        match self {
            RouteMatch::Route(route, _) => {
                tracing::error_span!("request", method = route.method, path = route.pattern)
            }
            RouteMatch::OtherMethod(_) | RouteMatch::Nothing => tracing::error_span!("request"),
        }
    }
}

/// Finds the route of a request.
pub(super) fn find(method: &Method, path: &str) -> RouteMatch {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut others = None;
    for route in ROUTES {
        let Some(parameters) = matched(route.pattern, path) else { continue };
        if route.method == method {
            return RouteMatch::Route(route, parameters);
        }
        others = Some(match (others, route.method) {
            (None, "GET") => "GET, HEAD",
            (None, _) => "POST",
            (Some(_), _) => "GET, HEAD, POST",
        });
    }
    others.map_or(RouteMatch::Nothing, RouteMatch::OtherMethod)
}

/// Whether a page can be shown under this path, to anybody.
pub(crate) fn is_page(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    matches!(find(&Method::GET, path), RouteMatch::Route(route, _) if matches!(route.access, Access::SignedIn(_)))
}

fn matched(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        let part = parts.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(_) if part.is_empty() => return None,
            Some(name) => {
                let value = percent_decode_str(part).decode_utf8().map(Cow::into_owned).ok()?;
                parameters.push((name, value));
            }
            None if part == expected => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_with_its_parameters_and_only_whole() {
        let found = |method: Method, path: &str| match find(&method, path) {
            RouteMatch::Route(route, parameters) => {
                let values: Vec<String> =
                    parameters.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{} {} {}", route.method, route.pattern, values.join("&"))
            }
            RouteMatch::OtherMethod(allowed) => format!("405 {allowed}"),
            RouteMatch::Nothing => "404".to_owned(),
        };
        assert_eq!(found(Method::GET, "/"), "GET / ");
        assert_eq!(found(Method::HEAD, "/settings"), "GET /settings ");
        let disable = "POST /settings/users/{user}/disable user=a/b";
        assert_eq!(found(Method::POST, "/settings/users/a%2Fb/disable"), disable);
        assert_eq!(found(Method::GET, "/settings/users/7/disable"), "405 POST");
        assert_eq!(found(Method::PUT, "/sign-in"), "405 GET, HEAD, POST");
        assert_eq!(found(Method::DELETE, "/metrics"), "405 GET, HEAD");
        for path in
            ["", "//", "/settings/", "/Settings", "/settings/users//disable", "/settings/users/%ff/disable", "*"]
        {
            assert_eq!(found(Method::POST, path), "404", "{path}");
        }
    }

    #[test]
    fn no_two_routes_are_the_same_and_nothing_is_changed_by_get() {
        for (at, route) in ROUTES.iter().enumerate() {
            let twins = ROUTES.iter().skip(at + 1).filter(|other| other.method == route.method);
            assert!(twins.clone().all(|other| other.pattern != route.pattern), "{}", route.pattern);
            assert!(["GET", "POST"].contains(&route.method));
            let is_for_readers = matches!(route.handler, Handler::Public(_));
            assert!(route.access != Access::Open || route.method == "GET" || is_for_readers, "{}", route.pattern);
        }
    }

    #[test]
    fn the_sign_in_returns_only_to_pages() {
        assert!(is_page("/") && is_page("/settings?done=added"));
        for path in ["/sign-in", "/metrics", "/sign-out", "/nowhere", "/settings/users"] {
            assert!(!is_page(path), "{path}");
        }
    }
}
