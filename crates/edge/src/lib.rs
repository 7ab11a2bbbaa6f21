//! The edge: answers pixels, and records each fetch.
//!
//! Guarantees: a GET of a pixel is answered with an image whatever else fails. A 200 (or 304) that made a hit is sent
//! only after the hit's receipt came, after it was dropped and counted, or after a stalled disk was waited for a
//! second. Gives up: an image that is not cached in time. Nothing else here waits for PostgreSQL, and that wait is half
//! a second at most.
//!
//! The whole path of a request can be read in [`answer`].
//!
//! What will be gone later is read here: the headers that mark a prefetch, and the network of the full address, before
//! the address is cut by `PIXELD_IP_PRIVACY`.

#![warn(unreachable_pub)]

pub mod client_address;
pub mod connections;
pub mod head;
pub mod images;
pub mod limits;
pub mod listener;
pub mod mended;
pub mod queue;
mod refused;
pub mod request_line;
pub mod respond;
pub mod stream;
pub mod suppressed;
pub mod unrecorded;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Once;

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode};
use ipnet::IpNet;
use uuid::Uuid;

use self::client_address::ClientAddress;
use self::connections::Connections;
use self::head::Head;
use self::limits::{Limits, Sketch};
use self::respond::Answer;
use crate::images::{Fetched, ImageCache, Lookup, transparent_gif};
use crate::queue::{Outbox, QueueFull, Received};
use crate::suppressed::Suppressed;
use crate::unrecorded::{Note, Reason, Unrecorded};
use pixeld_core::clock;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::{Hit, Keys, safe_user_agent};
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::named as link_named;
use pixeld_core::link::route::{self, Ids, Route};
use pixeld_core::link::token::SigningKeys;
use pixeld_core::metrics::{CoreCounts, DropReason, Metrics, Outcome};
use pixeld_core::networks::{Network, Networks};
use pixeld_core::privacy::IpPrivacy;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What all cores share.
#[derive(Debug)]
pub struct Edge {
    /// Which images exist, and their bytes.
    pub images: Arc<ImageCache>,
    /// The rate of each client address.
    pub limits: Limits,
    /// The numbers of this process.
    pub metrics: Arc<Metrics>,
    /// Peers whose X-Forwarded-For is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// How much of an address is kept.
    pub ip_privacy: IpPrivacy,
    /// Maximum connections of all cores together.
    pub connections_max: usize,
    /// The providers' networks.
    pub networks: ArcSwap<Networks>,
    /// The namespace that turns keys into ids; `None` until this node has learnt it.
    pub namespace: ArcSwapOption<Namespace>,
    /// The recipients who opted out.
    pub suppressed: Arc<Suppressed>,
    /// The keys of signed links.
    pub signing_keys: SigningKeys,
    /// Whether only signed links are recorded.
    pub require_signed: bool,
    /// Requests that made no hit, and why.
    pub unrecorded: Arc<Unrecorded>,
}

/// One core of the edge.
#[derive(Debug)]
pub struct Core {
    number: usize,
    edge: Arc<Edge>,
    outbox: Rc<Outbox>,
    connections: Rc<Connections>,
    sketch: Sketch,
}

impl Core {
    /// The core with this number.
    pub fn new(number: usize, edge: Arc<Edge>, outbox: Rc<Outbox>) -> Core {
        Core { number, edge, outbox, connections: Rc::default(), sketch: Sketch::default() }
    }

    /// Its open connections.
    pub fn connections(&self) -> &Rc<Connections> {
        &self.connections
    }

    fn counts(&self) -> &CoreCounts {
        &self.edge.metrics.cores[self.number]
    }

    fn count_refused(&self, reason: Reason) {
        if let Some(outcome) = reason.outcome() {
            self.counts().request(outcome);
        }
    }
}

/// Answers one request.
async fn answer(core: &Core, peer: IpAddr, request: &Request<Incoming>) -> Answer {
    let counts = core.counts();
    let is_head = request.method() == Method::HEAD;
    let has_body = !request.body().is_end_stream();
    if !is_head && request.method() != Method::GET {
        refuse(core, peer, request, Reason::Method);
        let refusal = respond::method_not_allowed();
        return if has_body { respond::closing(refusal) } else { refusal };
    }
    if has_body {
        refuse(core, peer, request, Reason::Body);
        return respond::body_refused();
    }
    if is_head {
        counts.heads.one();
    }
    let (image, ids, link) = match route::route(request.uri().path(), &core.edge.signing_keys) {
        Route::Pixel { image, ids, sent_at_s, is_signed } => {
            (image, ids, Link { sent_at_s, is_signed, former_recipient: None })
        }
        Route::NotAnImage => return not_found(core, peer, request, Reason::NoImageId),
        Route::Forged => return not_found(core, peer, request, Reason::Forged),
        Route::NotFound => return not_found(core, peer, request, Reason::WrongPath),
        Route::Health => {
            counts.request(Outcome::Health);
            return respond::text(StatusCode::OK, "ok\n");
        }
    };
    let link = Link { former_recipient: former_recipient(core, request.uri().path(), &ids), ..link };
    let at = clock::now_micros();
    let (served, outcome) = match find_image(core, image).await {
        Fetched::Cached(found) => (found, Outcome::Image),
        Fetched::Deleted => (transparent_gif(), Outcome::Deleted),
        Fetched::TimedOut => (transparent_gif(), Outcome::Fallback),
        Fetched::Unknown => return not_found(core, peer, request, Reason::UnknownImage),
    };
    let head = Head::of(request.headers());
    let is_held = head.is_conditional && respond::is_held(request.headers(), &served);
    // For an unrecorded link, report the reason rather than the response.
    let unrecorded = match &ids {
        _ if outcome == Outcome::Deleted => Some(Reason::DeletedImage),
        Ids::Malformed => Some(Reason::Malformed),
        Ids::Unmerged => Some(Reason::Unmerged),
        _ if core.edge.require_signed && !link.is_signed => Some(Reason::Unsigned),
        _ => None,
    };
    let answered = if is_held { Outcome::NotModified } else { outcome };
    counts.request(unrecorded.and_then(Reason::outcome).unwrap_or(answered));
    let reason = match unrecorded {
        Some(reason) => Some(reason),
        None if is_head => Some(Reason::Head),
        None => {
            let address = client_address(core, peer, &head, request.headers());
            record(core, address, &head, at, image, &ids, link).await.err()
        }
    };
    if let Some(reason) = reason {
        note(core, peer, request, reason);
    }
    if is_held { respond::not_modified(&served) } else { respond::image(StatusCode::OK, &served) }
}

/// What a link contains besides its ids.
#[derive(Debug, Clone, Copy)]
struct Link {
    sent_at_s: u32,
    is_signed: bool,
    former_recipient: Option<RecipientId>,
}

/// The recipient of a keyed link by an earlier reading of its key; `None` if nobody opted out.
fn former_recipient(core: &Core, path: &str, ids: &Ids<'_>) -> Option<RecipientId> {
    let Ids::Keyed { .. } = ids else { return None };
    if core.edge.suppressed.count() == 0 {
        return None;
    }
    link_named::former_recipient(path, **core.edge.namespace.load().as_ref()?)
}

/// Counts and notes a request that is refused.
fn refuse(core: &Core, peer: IpAddr, request: &Request<Incoming>, reason: Reason) {
    core.count_refused(reason);
    note(core, peer, request, reason);
}

fn not_found(core: &Core, peer: IpAddr, request: &Request<Incoming>, reason: Reason) -> Answer {
    refuse(core, peer, request, reason);
    respond::image(StatusCode::NOT_FOUND, &transparent_gif())
}

/// Notes a request that made no hit. Leaves no trace of a recipient who opted out.
fn note(core: &Core, peer: IpAddr, request: &Request<Incoming>, reason: Reason) {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    note_of(core, peer, request.headers(), request.method().as_str(), path, reason);
}

fn note_of(core: &Core, peer: IpAddr, headers: &HeaderMap, method: &str, path: &str, reason: Reason) {
    let at = clock::now_micros();
    let named = || link_named::recipients(path, core.edge.namespace.load().as_deref().copied());
    core.edge.unrecorded.note(at, reason, path.as_bytes(), named, || {
        let head = Head::of(headers);
        let found = found_address(core, peer, &head, headers);
        Note {
            at,
            reason,
            method: unrecorded::cut(method.as_bytes()),
            path: unrecorded::cut(path.as_bytes()),
            address: client_address::kept(found.address, core.edge.ip_privacy),
            user_agent: unrecorded::cut(head.user_agent),
        }
    });
}

/// The image from the cache, or fetched into it.
async fn find_image(core: &Core, id: ImageId) -> Fetched {
    match core.edge.images.lookup(id) {
        Lookup::Cached(image) => Fetched::Cached(image),
        Lookup::Deleted => Fetched::Deleted,
        Lookup::NotCached | Lookup::Lost | Lookup::Unknown | Lookup::NoList => core.edge.images.fetch(id).await,
    }
}

/// Records a hit and waits for its receipt; or drops and counts it, and returns why.
async fn record(
    core: &Core,
    address: IpAddr,
    head: &Head<'_>,
    at: Micros,
    image: ImageId,
    ids: &Ids<'_>,
    link: Link,
) -> Result<(), Reason> {
    let counts = core.counts();
    counts.accepted.one();
    let (message, recipient, keys) = named(core, ids);
    // Before anything else stores the address. If a key cannot become an id yet, the loader makes this check.
    let suppressed = &core.edge.suppressed;
    if suppressed.is_out(recipient) || link.former_recipient.is_some_and(|id| suppressed.is_out(id)) {
        core.edge.metrics.drop_hits(DropReason::Suppressed, 1);
        // Leave no trace of a recipient who opted out.
        return Ok(());
    }
    let network = core.edge.networks.load().of(address);
    if !core.edge.limits.allows(&core.sketch, address, network) {
        core.edge.metrics.drop_hits(DropReason::AddressRate, 1);
        return Err(Reason::AddressRate);
    }
    let user_agent = safe_user_agent(head.user_agent);
    let hit = Hit {
        at,
        sent_at_s: link.sent_at_s,
        image,
        message,
        recipient,
        network: network.map_or(0, Network::number),
        prefetch: head.is_prefetch,
        address: client_address::kept(address, core.edge.ip_privacy),
        keys,
        user_agent: &user_agent,
        is_erased: false,
    };
    match core.outbox.record(&hit) {
        Ok(receipt) => {
            if receipt.await == Received::Unwritten {
                counts.answered_unwritten.one();
            }
            Ok(())
        }
        Err(QueueFull) => {
            core.edge.metrics.drop_hits(DropReason::QueueFull, 1);
            Err(Reason::QueueFull)
        }
    }
}

/// Message and recipient, with their keys if only the loader can turn them into ids.
fn named<'a>(core: &Core, ids: &'a Ids<'_>) -> (MessageId, RecipientId, Option<Keys<'a>>) {
    match ids {
        Ids::Named { message, recipient } => (*message, *recipient, None),
        Ids::Keyed { message, recipient } => match &*core.edge.namespace.load() {
            Some(namespace) => (namespace.id_of(message), namespace.id_of(recipient), None),
            None => {
                let split = |key: &'a Key<'_>| match key {
                    Key::Id(id) => (*id, &[][..]),
                    Key::Text(text) => (Uuid::nil(), &text[..]),
                };
                let ((message, message_key), (recipient, recipient_key)) = (split(message), split(recipient));
                (message.into(), recipient.into(), Some(Keys { message: message_key, recipient: recipient_key }))
            }
        },
        Ids::Malformed | Ids::Unmerged => (MessageId::NONE, RecipientId::NONE, None),
    }
}

/// The client's address, by the proxies that are trusted.
fn client_address(core: &Core, peer: IpAddr, head: &Head<'_>, headers: &HeaderMap) -> IpAddr {
    let found = found_address(core, peer, head, headers);
    if found.untrusted_forwarded {
        core.counts().forwarded_untrusted.one();
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            tracing::warn!(
                "pixeld ignores X-Forwarded-For from a peer that is not in PIXELD_TRUSTED_PROXIES; if that peer is your \
                 proxy, all readers now have its address"
            );
        });
    }
    found.address
}

fn found_address(core: &Core, peer: IpAddr, head: &Head<'_>, headers: &HeaderMap) -> ClientAddress {
    let Some(first) = head.forwarded else { return ClientAddress { address: peer, untrusted_forwarded: false } };
    let trusted = &core.edge.trusted_proxies;
    if head.is_forwarded_again {
        let lines: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
        client_address::client_address(peer, lines.into_iter(), trusted)
    } else {
        client_address::client_address(peer, std::iter::once(first), trusted)
    }
}
