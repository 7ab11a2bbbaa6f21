//! What is needed of a request's head besides its path, found in one walk over its headers. Pure.

use hyper::header::HeaderMap;

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
