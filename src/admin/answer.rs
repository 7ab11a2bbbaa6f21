//! Answers, and the headers that every answer has.
//!
//! Guarantees: every answer of a page is built here, so each has the headers that keep it from being framed, sniffed or
//! cached, and from running or loading anything that is not ours.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use maud::PreEscaped;

use pixeld_core::text;

/// An answer of the private listener.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// No script at all, nothing from other sites, nothing inline; an image may be part of the page itself (`data:`).
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

const PRIVATE: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A page.
pub(crate) fn page(status: StatusCode, page: PreEscaped<String>) -> Answer {
    // Done here once, so that no page can show a name or a user agent that reverses the text around it.
    let page = match text::visible_page(&page.0) {
        Cow::Borrowed(_) => page.0,
        Cow::Owned(page) => page,
    };
    private(bytes(status, "text/html; charset=utf-8", page.into()))
}

/// A file for the client, which browsers store and do not show; `name` is its file name there.
pub(crate) fn download<B>(media_type: &'static str, name: &str, content: B) -> Answer
where
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let mut answer = private(body(StatusCode::OK, media_type, content));
    // Keep only the characters of a name that need no quotes.
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    answer
}

/// Sets the body's length, so that the browser shows progress and notices a cut answer.
pub(crate) fn sized(bytes: u64, mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    answer
}

/// An image on a page of ours. Opened on its own, it is sandboxed.
pub(crate) fn picture(media_type: &'static str, content: Bytes) -> Answer {
    let mut answer = private(bytes(StatusCode::OK, media_type, content));
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    answer
}

fn private(mut answer: Answer) -> Answer {
    for (name, value) in PRIVATE {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Sends the browser to one of our own paths, with GET.
pub(crate) fn go_to(path: &str) -> Answer {
    let mut answer = page(StatusCode::SEE_OTHER, PreEscaped(String::new()));
    // Our own paths are plain ASCII; anything else would be a bug, and leads to the start page.
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    answer.headers_mut().insert(LOCATION, path);
    answer
}

/// Plain text.
pub(crate) fn text(status: StatusCode, words: impl Into<String>) -> Answer {
    bytes(status, "text/plain; charset=utf-8", words.into().into())
}

/// A file that every page may share: cached forever, since its path changes with its content.
pub(crate) fn shared(media_type: &'static str, content: &'static str) -> Answer {
    let mut answer = bytes(StatusCode::OK, media_type, Bytes::from_static(content.as_bytes()));
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    answer.headers_mut().insert(CACHE_CONTROL, kept);
    answer
}

fn bytes(status: StatusCode, media_type: &'static str, content: Bytes) -> Answer {
    body(status, media_type, Full::new(content).map_err(|never| match never {}))
}

fn body<B>(status: StatusCode, media_type: &'static str, content: B) -> Answer
where
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let mut answer = Response::new(content.boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
