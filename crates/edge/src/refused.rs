//! Requests that hyper refuses before our code sees them: how they are answered, counted and noted.
//!
//! Guarantees: if a path was found, the answer is an image, so that no mail shows a broken one, and the request is
//! noted, unless it may be of somebody who opted out. The status stays hyper's. Gives up: the hit; what cannot be read
//! is not guessed.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Core, note_of, request_line};
use crate::images::transparent_gif;
use crate::unrecorded::Reason;

/// The answer to a head that begins with `front`; `None` if no path was found, and hyper's own answer is enough.
pub(crate) fn answer(core: &Core, peer: IpAddr, front: &[u8], status: u16) -> Option<Vec<u8>> {
    let reason = if status == 400 { Reason::Unreadable } else { Reason::TooLarge };
    core.count_refused(reason);
    let (method, target) = request_line::method_and_target(front)?;
    let method = str::from_utf8(method).ok()?;
    if target != b"*" {
        let path = String::from_utf8(request_line::mended_target(target)).unwrap_or_default();
        note_of(core, peer, &headers(front), method, &path, reason);
    }
    Some(with_picture(StatusCode::from_u16(status).ok()?, method == "HEAD"))
}

/// The headers at the beginning that are complete and readable.
fn headers(front: &[u8]) -> HeaderMap {
    let whole = front.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |end| &front[..end]);
    let mut headers = HeaderMap::new();
    for line in whole.split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn with_picture(status: StatusCode, is_head: bool) -> Vec<u8> {
    let gif = transparent_gif();
    let mut answer =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in &gif.headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let date = httpdate::fmt_http_date(pixeld_core::clock::now());
    answer.extend_from_slice(format!("connection: close\r\ndate: {date}\r\n\r\n").as_bytes());
    if !is_head {
        answer.extend_from_slice(&gif.bytes);
    }
    answer
}
