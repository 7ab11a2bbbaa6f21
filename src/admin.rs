//! The private listener: the admin page, and metrics and health for those who run pixeld.
//!
//! Guarantees: before a page looks at a request, [`guard`] has checked that it came under our own name and, if it
//! changes something, from our own page, and [`route`] says who may ask. No request takes longer than [`REQUEST_WAIT`],
//! or [`UPLOAD_WAIT`] with a file. Pages hold at most [`CLIENTS_MAX`] connections of the pool, so that an image never
//! waits for them. Gives up: scripts in the browser; pages work without any.
//!
//! # Layout
//! - [`listener`]: takes connections. [`Admin::answer`] is the whole path of a request.
//! - [`route`]: every path, who may ask, what answers. A new page is a line there and a file in [`pages`].
//! - [`pages::opt_out`]: for the readers of emails, therefore without the guards.
//! - [`guard`], [`session`], [`password`], [`throttle`]: who is let in. [`gate`]: how many at a time. [`opt_outs`]: the
//!   keys and limits of the opt-out page.
//! - [`request`], [`upload`], [`answer`], [`refusal`]: what a page reads and sends. [`csv`]: returns a list with added
//!   columns.
//! - [`view`]: the frame and the parts of pages, and the stylesheet. [`health`]: the state of pixeld in sentences.
//! - [`jobs`]: work that goes on after its page was answered: [`deletions`] and [`erasing`]. [`exports`]: an answer
//!   that is sent while it is read from the database.
//! - [`probes`]: the addresses for monitoring.

pub(crate) mod answer;
pub(crate) mod csv;
pub(crate) mod deletions;
pub(crate) mod erasing;
pub(crate) mod exports;
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod listener;
mod opt_outs;
pub(crate) mod pages;
pub(crate) mod password;
pub(crate) mod probes;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod session;
pub(crate) mod throttle;
pub(crate) mod upload;
pub(crate) mod view;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use tracing::Instrument;

use crate::config::{Limits, Listen, Signing};
use crate::db::sessions::{self, SignedIn};
use crate::db::{Database, DbError, QUERY_TIMEOUT, within};
use answer::Answer;
use deletions::Deletions;
use erasing::Erasing;
use exports::Exports;
use gate::{Gate, Place};
use guard::{Site, Sites};
use opt_outs::OptOuts;
use password::Passwords;
use pixeld_core::link::{forgive, opt_out};
use pixeld_core::metrics::Metrics;
use pixeld_edge::unrecorded::Unrecorded;
use refusal::Refusal;
use request::{Fields, PageRequest, PublicRequest};
use route::{Access, Handler, Route, RouteMatch};
use session::Token;
use throttle::SignInThrottle;
use upload::Upload;
use view::Zone;

/// Maximum time of a request, its body and its page together.
pub(crate) const REQUEST_WAIT: Duration = Duration::from_secs(20);

/// Maximum time in which a file is received and answered: a million rows over a slow line.
pub(crate) const UPLOAD_WAIT: Duration = Duration::from_secs(900);

/// Connections to the database that pages use at a time. The pool has more; those are for images.
pub(crate) const CLIENTS_MAX: usize = 2;

/// Finds the client's address from the peer's address and a request's headers.
pub(crate) type ClientAddress = Box<dyn Fn(IpAddr, &HeaderMap) -> IpAddr + Send + Sync>;

/// The parts of the private listener.
pub(crate) struct AdminOptions {
    /// The numbers of this process.
    pub metrics: Arc<Metrics>,
    /// The database.
    pub db: Database,
    /// The listeners, and the start of links.
    pub listen: Listen,
    /// The signing of links.
    pub signing: Signing,
    /// The bounds on clients.
    pub limits: Limits,
    /// All running settings, for people.
    pub settings: Vec<(&'static str, String)>,
    /// Requests that made no hit, and why.
    pub unrecorded: Arc<Unrecorded>,
    /// The directory for a file while it is answered.
    pub data_dir: PathBuf,
    /// The start of a shell command that runs this pixeld.
    pub program: String,
    /// Finds the client of a request.
    pub client_address: ClientAddress,
}

/// The private listener's state.
pub(crate) struct Admin {
    options: AdminOptions,
    sites: Sites,
    deletions: Deletions,
    erasing: Erasing,
    exports: Exports,
    clients: Gate,
    passwords: Passwords,
    throttle: SignInThrottle,
    opt_outs: OptOuts,
    lists: Gate,
}

/// A pool connection that a page borrows.
pub(crate) struct Client {
    client: deadpool_postgres::Object,
    _place: Place,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Admin {
    /// A private listener without any requests yet.
    pub(crate) fn new(options: AdminOptions) -> Admin {
        Admin {
            sites: Sites::new(&options.listen.admin_base_url, options.listen.private),
            deletions: Deletions::new(options.db.clone()),
            erasing: Erasing::new(options.db.clone()),
            options,
            exports: Exports::default(),
            clients: Gate::new(CLIENTS_MAX),
            passwords: Passwords::default(),
            throttle: SignInThrottle::default(),
            opt_outs: OptOuts::default(),
            lists: Gate::new(csv::LISTS_MAX),
        }
    }

    /// Ends the jobs that run behind the pages, and starts no new ones. Pages are still answered.
    pub(crate) fn end_jobs(&self) {
        self.deletions.end();
        self.erasing.end();
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        // A reader's link may have been changed on the way; every other path is read exactly as it is.
        let forgiven = forgive::opt_out_path(parts.uri.path());
        let path = forgiven.as_deref().unwrap_or(parts.uri.path());
        let found = route::find(&parts.method, path);
        let span = found.span();
        self.answer_found(peer, &parts, body, path, found).instrument(span).await
    }

    async fn answer_found(&self, peer: IpAddr, parts: &Parts, body: Incoming, path: &str, found: RouteMatch) -> Answer {
        if let RouteMatch::Route(route, _) = &found
            && let Handler::Open(handler) = route.handler
        {
            return handler(self).await;
        }
        // Everybody sees what is below this path, refusals included: the usual refusals would show how to reach the
        // other pages.
        if path.starts_with(opt_out::PATH) {
            return self.answer_public(peer, parts, body, found).await;
        }
        let mut user = None;
        let is_upload = matches!(&found, RouteMatch::Route(route, _) if matches!(route.handler, Handler::Upload(_)));
        let answered = self.page(peer, parts, body, found, &mut user);
        let wait = if is_upload { UPLOAD_WAIT } else { REQUEST_WAIT };
        let answered = tokio::time::timeout(wait, answered).await.unwrap_or(Err(Refusal::TookTooLong));
        answered.unwrap_or_else(|refusal| {
            refusal.log();
            pages::refused::show(self, user.as_ref(), &refusal)
        })
    }

    /// Passes a request through the guards, one after the other, to its page. `known` is set to the user as soon as
    /// that is clear, for the page of a refusal.
    async fn page(
        &self,
        peer: IpAddr,
        parts: &Parts,
        body: Incoming,
        found: RouteMatch,
        known: &mut Option<SignedIn>,
    ) -> Result<Answer, Refusal> {
        let site = self.sites.asked(parts).ok_or(Refusal::WrongHost)?;
        let is_look = parts.method == hyper::Method::GET || parts.method == hyper::Method::HEAD;
        if !is_look && !guard::is_from_own_page(&parts.headers, site) {
            return Err(Refusal::NotOwnPage);
        }
        let token = Token::sent(&parts.headers, site.way);
        let user = self.signed_in(token.as_ref()).await?;
        known.clone_from(&user);
        let (route, parameters) = match found {
            RouteMatch::Route(route, parameters) => (route, parameters),
            RouteMatch::OtherMethod(allowed) => return Err(Refusal::Method(allowed)),
            RouteMatch::Nothing => return Err(Refusal::NotFound),
        };
        if let Access::SignedIn(role) = route.access {
            match &user {
                None => return Ok(to_sign_in(parts, is_look)),
                Some(user) if user.role < role => return Err(Refusal::ViewerOnly),
                Some(_) => {}
            }
        }
        let mut request = PageRequest {
            site: site.clone(),
            address: (self.options.client_address)(peer, &parts.headers),
            user_agent: request::user_agent(&parts.headers),
            query: Fields::parse(parts.uri.query().unwrap_or_default().as_bytes()),
            form: Fields::default(),
            zone: user.as_ref().and_then(|user| Zone::named(&user.zone)).unwrap_or(Zone::UTC),
            user,
            token,
            parameters,
        };
        match route.handler {
            Handler::Page(handler) => {
                if !is_look {
                    request.form = request::read_form(&parts.headers, body).await?;
                }
                handler(self, &request).await
            }
            Handler::Upload(handler) => handler(self, &request, Upload::new(&parts.headers, body)?).await,
            Handler::Open(handler) => Ok(handler(self).await),
            // Answered before the guards.
            Handler::Public(_) => Err(Refusal::NotFound),
        }
    }

    /// Answers a request without guards.
    async fn answer_public(&self, peer: IpAddr, parts: &Parts, body: Incoming, found: RouteMatch) -> Answer {
        let mut request = PublicRequest {
            address: (self.options.client_address)(peer, &parts.headers),
            parameters: Vec::new(),
            form: Fields::default(),
            languages: request::languages(&parts.headers),
        };
        let RouteMatch::Route(Route { handler: Handler::Public(handler), .. }, parameters) = found else {
            return pages::opt_out::nothing(&request);
        };
        request.parameters = parameters;
        let answered = async {
            match request::read_any(&parts.headers, body).await {
                Ok(form) => request.form = form,
                Err(_) => return pages::opt_out::nothing(&request),
            }
            handler(self, &request).await
        };
        match tokio::time::timeout(REQUEST_WAIT, answered).await {
            Ok(answer) => answer,
            Err(_) => answer::text(StatusCode::SERVICE_UNAVAILABLE, "this took too long; please try again\n"),
        }
    }

    async fn signed_in(&self, token: Option<&Token>) -> Result<Option<SignedIn>, Refusal> {
        let Some(token) = token else { return Ok(None) };
        let client = self.client().await?;
        Ok(within(QUERY_TIMEOUT, "looking a session up", sessions::look(&client, &token.digest())).await?)
    }

    /// A connection to the database.
    pub(crate) async fn client(&self) -> Result<Client, Refusal> {
        let place = self.clients.wait().await.ok_or(Refusal::Busy)?;
        let client = self.options.db.pool().get().await.map_err(DbError::from)?;
        Ok(Client { client, _place: place })
    }

    /// A command of this pixeld, as people type it in a shell on its machine.
    fn command(&self, arguments: &str) -> String {
        format!("{} {arguments}", self.options.program)
    }

    /// The command that opens a tunnel from a person's own machine to this listener.
    fn tunnel(&self) -> String {
        let listen = self.options.listen.private;
        let to = match listen.ip() {
            ip if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listen.port()),
            _ => listen,
        };
        let host = self.sites.first().filter(|site| site.way == guard::Way::Open).map_or("SERVER", Site::host);
        format!("ssh -N -L {}:{to} YOU@{host}", listen.port())
    }

    /// The address that people open through that tunnel.
    fn tunnelled(&self) -> String {
        format!("http://localhost:{}", self.options.listen.private.port())
    }
}

/// Redirects to the sign-in, and from there back to the page that was asked for.
fn to_sign_in(parts: &Parts, is_look: bool) -> Answer {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if is_look && guard::is_from_elsewhere(&parts.headers) {
        return answer::page(StatusCode::OK, view::ask_again(guard::safe_next(path)));
    }
    let next = form_urlencoded::byte_serialize(guard::safe_next(path).as_bytes());
    match is_look && path != "/" {
        true => answer::go_to(&format!("/sign-in?next={}", next.collect::<String>())),
        false => answer::go_to("/sign-in"),
    }
}
