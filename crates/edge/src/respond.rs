//! Answers. An image's own headers are made once, when it is cached; here they get a status.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};

use crate::images::Image;

/// The edge's answer.
pub type Answer = Response<Full<Bytes>>;

/// An image under any status.
pub fn image(status: StatusCode, image: &Image) -> Answer {
    let mut answer = Response::new(Full::new(image.bytes.clone()));
    *answer.status_mut() = status;
    *answer.headers_mut() = image.headers.clone();
    answer
}

/// 304: the reader has this image already.
pub fn not_modified(image: &Image) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    *answer.headers_mut() = image.not_modified_headers.clone();
    answer
}

/// 405 with what is allowed.
pub fn method_not_allowed() -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// 413, and the connection ends: no request body is read here.
pub fn body_refused() -> Answer {
    closing(text(StatusCode::PAYLOAD_TOO_LARGE, "a GET or HEAD must not have a body\n"))
}

/// The same answer, and the connection ends after it.
pub fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A short text.
pub fn text(status: StatusCode, words: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(words.len()));
    answer
}

/// Whether `If-None-Match` names the image. Compared weakly, as RFC 9110 requires.
pub fn is_held(headers: &HeaderMap, image: &Image) -> bool {
    let etag = image.etag.as_bytes();
    headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        line.as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|named| named == b"*" || named.strip_prefix(b"W/").unwrap_or(named) == etag)
    })
}
