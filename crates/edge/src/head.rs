//! What is needed of a request's head besides its path, found in one walk over its headers. Pure.

use hyper::Version;
use hyper::header::{CONNECTION, HeaderMap};

/// Maximum bytes of a request's head; also the size of a connection's buffer.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// The headers that we read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// The user agent; empty if there is none.
    pub user_agent: &'a [u8],
    /// The first X-Forwarded-For line.
    pub forwarded: Option<&'a [u8]>,
    /// There are more of them.
    pub is_forwarded_again: bool,
    /// There is an If-None-Match.
    pub is_conditional: bool,
    /// A header says that this is a prefetch: no person has looked yet.
    pub is_prefetch: bool,
}

impl<'a> Head<'a> {
    /// Reads a head.
    pub fn of(headers: &'a HeaderMap) -> Head<'a> {
        let mut head = Head::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            match name.as_str() {
                "user-agent" if head.user_agent.is_empty() => head.user_agent = value,
                "x-forwarded-for" if head.forwarded.is_none() => head.forwarded = Some(value),
                "x-forwarded-for" => head.is_forwarded_again = true,
                "if-none-match" => head.is_conditional = true,
                "sec-purpose" | "purpose" | "x-moz" | "x-purpose" => {
                    let begins = |with: &[u8]| value.get(..with.len()).is_some_and(|v| v.eq_ignore_ascii_case(with));
                    head.is_prefetch |= begins(b"prefetch") || begins(b"preview");
                }
                _ => {}
            }
        }
        head
    }
}

/// Whether hyper surely ends the connection after the answer to this request. Some requests after which it also ends, such
/// as those with several Connection lines, are not included.
#[must_use]
pub fn is_last(version: Version, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONNECTION).iter();
    match (lines.next(), lines.next()) {
        (None, _) => version == Version::HTTP_10,
        (Some(line), None) => line.to_str().is_ok_and(|line| {
            let has = |word| line.split(',').any(|named| named.trim().eq_ignore_ascii_case(word));
            has("close") && !has("keep-alive")
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn each_picture_detail_is_found_at_any_position() {
        let lines = headers(&[
            ("host", "x"),
            ("x-forwarded-for", "192.0.2.1"),
            ("user-agent", "Thunderbird"),
            ("x-forwarded-for", "192.0.2.2"),
            ("if-none-match", "*"),
        ]);
        let head = Head::of(&lines);
        assert_eq!((head.user_agent, head.forwarded), (&b"Thunderbird"[..], Some(&b"192.0.2.1"[..])));
        assert!(head.is_forwarded_again && head.is_conditional && !head.is_prefetch);
        assert_eq!(Head::of(&HeaderMap::new()), Head::default());
    }

    #[test]
    fn a_last_request_is_one_that_asks_for_the_end_and_for_nothing_else() {
        for (version, lines, expected) in [
            (Version::HTTP_11, &[][..], false),
            (Version::HTTP_11, &["close"][..], true),
            (Version::HTTP_11, &["TE, Close"][..], true),
            (Version::HTTP_11, &["closed"][..], false),
            (Version::HTTP_11, &["keep-alive"][..], false),
            (Version::HTTP_11, &["keep-alive, close"][..], false),
            (Version::HTTP_11, &["close", "keep-alive"][..], false),
            (Version::HTTP_10, &[][..], true),
            (Version::HTTP_10, &["close"][..], true),
            (Version::HTTP_10, &["keep-alive"][..], false),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("connection", *line)).collect();
            assert_eq!(is_last(version, &headers(&lines)), expected, "{version:?} {lines:?}");
        }
    }

    #[test]
    fn all_that_say_prefetch_are_heeded() {
        for (name, value, expected) in [
            ("sec-purpose", "prefetch;prerender", true),
            ("purpose", "Prefetch", true),
            ("x-moz", "prefetch", true),
            ("x-purpose", "preview", true),
            ("x-purpose", "pre", false),
            ("purpose", "navigate", false),
            ("x-other", "prefetch", false),
        ] {
            assert_eq!(Head::of(&headers(&[(name, value)])).is_prefetch, expected, "{name}: {value}");
        }
    }
}
