//! Reads a link that a person pasted: whole, without its scheme, only its path, in its `<img>` tag, or from an email's
//! source. Pure.
//!
//! Guarantees: the result is the path that a mail program or browser would request: quoted-printable and `&amp;` are
//! decoded, line breaks within the link removed, `.` and `..` resolved, and blanks and braces percent-encoded.
//! `link::route` then reads that path, as at the edge. Gives up: sources in base64, and every link but the first.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What browsers percent-encode in a path.
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'^').add(b'`').add(b'{').add(b'}');

/// The pasted link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted {
    /// The path that would be requested, without the query; without the path of `PIXELD_BASE_URL`, which a proxy
    /// removes.
    pub path: String,
    /// Its host, if that differs from the host of `PIXELD_BASE_URL`.
    pub other_host: Option<String>,
    /// Whether it has the host of `PIXELD_BASE_URL`, or none, but not its path.
    pub lacks_base_path: bool,
}

/// Reads a pasted text; `base_url` is `PIXELD_BASE_URL`.
pub fn pasted(text: &str, base_url: &str) -> Pasted {
    let text = from_quoted_printable(text);
    let text = address_in(&text);
    let text: String = from_entities(text).chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
    let text = text.trim().replace('\\', "/");
    let text = text.split(['?', '#']).next().unwrap_or(&text);
    let (host, path) = match text.split_once("://") {
        Some((_, rest)) => host_and_path(rest),
        // Without a scheme: the text before the first slash is a host if it looks like one.
        None => {
            let rest = text.strip_prefix("//").unwrap_or(text);
            match host_and_path(rest) {
                (Some(host), path) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
                _ => (None, text),
            }
        }
    };
    let base = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let (base_host, base_path) = host_and_path(base);
    let is_same = |host: &str| {
        let plain = |host: &str| {
            let port = if base_url.starts_with("https:") { ":443" } else { ":80" };
            let host = host.to_ascii_lowercase();
            host.strip_suffix(port).map_or(host.clone(), ToOwned::to_owned)
        };
        plain(host) == plain(base_host.unwrap_or_default())
    };
    let other_host = host.filter(|host| !is_same(host)).map(ToOwned::to_owned);
    let path = resolved(path);
    let base_path = base_path.trim_end_matches('/');
    let below_base = path.strip_prefix(base_path).filter(|rest| rest.starts_with('/'));
    let lacks_base_path = below_base.is_none() && host.is_some() && other_host.is_none();
    let path = below_base.unwrap_or(&path);
    Pasted { path: utf8_percent_encode(path, ENCODED).to_string(), other_host, lacks_base_path }
}

/// The URL in a text: in the first tag that shows an image, otherwise in the first line that has one, otherwise the
/// first line that is not empty.
fn address_in(text: &str) -> &str {
    let text = text.trim();
    if let Some(source) = source_of(text) {
        return source;
    }
    // `pixeld link` prints the link and, below it, its tag.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let begin = [first].into_iter().chain(lines).find_map(|line| Some(&line[scheme_at(line)?..]));
    let Some(begin) = begin else { return first };
    // A blank may belong to a merge tag.
    if begin.len() == first.len() || first.contains("{{") {
        begin
    } else {
        begin.split([' ', '"', '\'', '<', '>']).next().unwrap_or(begin)
    }
}

fn scheme_at(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    ["http://", "https://"].iter().filter_map(|scheme| lower.find(scheme)).min()
}

/// The value of `src` in the first `<img>` tag, or in any tag if there is no such tag.
fn source_of(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let tag = lower.find("<img").or_else(|| lower.starts_with('<').then_some(0))?;
    let name = ["src", "background", "href"].iter().find_map(|name| attribute(&lower, tag, name))?;
    let rest = &text[name..];
    Some(match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].split(quote).next().unwrap_or(rest),
        _ => rest.split([' ', '\t', '\r', '\n', '>']).next().unwrap_or(rest),
    })
}

/// Where an attribute's value begins, after its name, the equals sign and blanks.
fn attribute(lower: &str, tag: usize, name: &str) -> Option<usize> {
    let mut from = tag;
    loop {
        let at = from + lower[from..].find(name)?;
        from = at + name.len();
        let is_apart = lower[..at].ends_with(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'');
        let rest = lower[from..].trim_start();
        if is_apart && let Some(value) = rest.strip_prefix('=') {
            return Some(lower.len() - value.trim_start().len());
        }
    }
}

/// Decodes an email's source: soft line breaks, and characters such as `=3D`. Any other text stays unchanged.
fn from_quoted_printable(text: &str) -> Cow<'_, str> {
    if !["=3D", "=\n", "=\r\n"].iter().any(|sign| text.contains(sign)) {
        return text.into();
    }
    let text = text.replace("=\r\n", "").replace("=\n", "");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let pair = behind.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let is_upper = |pair: &&str| pair.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        let byte = pair.filter(is_upper).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match byte.filter(|_| first == b'=') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Decodes `&amp;`, `&#38;` and `&#x26;`.
fn from_entities(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((front, behind)) = rest.split_once('&') {
        read.push_str(front);
        let entity = behind.split_once(';').filter(|(name, _)| name.len() <= 8);
        let c = entity.and_then(|(name, _)| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some('\u{a0}'),
            _ => {
                let number = name.strip_prefix('#')?;
                let number = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)
            }
        });
        match (c, entity) {
            (Some(c), Some((_, after))) => {
                read.push(c);
                rest = after;
            }
            _ => {
                read.push('&');
                rest = behind;
            }
        }
    }
    read.push_str(rest);
    read
}

/// A path from its slash on, without the steps that browsers resolve.
fn resolved(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." | ".." if is_last => steps.push(""),
            "." => {}
            ".." => drop(steps.pop()),
            _ => steps.push(segment),
        }
    }
    format!("/{}", steps.join("/"))
}

fn host_and_path(text: &str) -> (Option<&str>, &str) {
    let at = text.find('/').unwrap_or(text.len());
    (Some(&text[..at]).filter(|host| !host.is_empty()), &text[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_link_is_read_however_it_is_pasted() {
        for (text, path, other_host) in [
            ("https://px.example.com/image/x.gif", "/image/x.gif", None),
            (" HTTPS://PX.example.com:443/image/x.gif?utm=1#x\n", "/image/x.gif", None),
            ("px.example.com/image/x.gif", "/image/x.gif", None),
            ("/image/x.gif", "/image/x.gif", None),
            ("image/x.gif", "/image/x.gif", None),
            ("<img src=\"https://px.example.com/image/x.gif\" alt=\"\">", "/image/x.gif", None),
            ("<img width='1' src='/image/x.gif'>", "/image/x.gif", None),
            ("<img src=/image/x.gif>", "/image/x.gif", None),
            ("<IMG\n  SRC = \"https://px.example.com/image/x.gif\"\n>", "/image/x.gif", None),
            ("<p>Hi <b>you</b> <img data-src=\"/no.gif\" src=\"/image/x.gif\"></p>", "/image/x.gif", None),
            ("<td background=\"https://px.example.com/image/x.gif\">", "/image/x.gif", None),
            (
                "<img src=3D\"https://px.example.com/t/a/m=\r\nay/47=\r\n11.gif\" width=3D\"1\">",
                "/t/a/may/4711.gif",
                None,
            ),
            ("https://px.example.com/o/AQ=\nFp.gif", "/o/AQFp.gif", None),
            ("<img src=3D\"https://px.example.com/t/a/m/j=C3=A4ne.gif\">", "/t/a/m/j%C3%A4ne.gif", None),
            ("<img src=\"https://px.example.com/t/a/m/x&amp;y.gif?a&amp;b\">", "/t/a/m/x&y.gif", None),
            ("/t/a/m/&#123;&#x7b;id}}.gif", "/t/a/m/%7B%7Bid%7D%7D.gif", None),
            ("/t/a/m/{{ .Subscriber.UUID }}.gif", "/t/a/m/%7B%7B%20.Subscriber.UUID%20%7D%7D.gif", None),
            ("https://px.example.com/t/a/m/{{ id }}.gif", "/t/a/m/%7B%7B%20id%20%7D%7D.gif", None),
            ("https://px.example.com/x/../image/./x.gif", "/image/x.gif", None),
            ("//px.example.com/image/x.gif", "/image/x.gif", None),
            ("//T/a/m/4711.gif", "//T/a/m/4711.gif", None),
            ("The link is https://px.example.com/image/x.gif and more", "/image/x.gif", None),
            (
                "https://px.example.com/image/x.gif\n<img src=\"https://px.example.com/image/x.gif\">",
                "/image/x.gif",
                None,
            ),
            ("http://localhost:8080/image/x.gif", "/image/x.gif", Some("localhost:8080")),
            ("evil.example/image/x.gif", "/image/x.gif", Some("evil.example")),
            ("https://px.example.com", "/", None),
            ("", "/", None),
        ] {
            let other_host = other_host.map(ToOwned::to_owned);
            let expected = Pasted { path: path.to_owned(), other_host, lacks_base_path: false };
            assert_eq!(pasted(text, "https://px.example.com"), expected, "{text}");
        }
    }

    #[test]
    fn a_link_without_the_base_path_is_reported() {
        let read = |text: &str| {
            let read = pasted(text, "https://x.org/p");
            (read.path, read.other_host.is_some(), read.lacks_base_path)
        };
        assert_eq!(read("https://x.org/p/image/a.gif"), ("/image/a.gif".to_owned(), false, false));
        assert_eq!(read("/p/image/a.gif"), ("/image/a.gif".to_owned(), false, false));
        assert_eq!(read("https://x.org/pimage/a.gif"), ("/pimage/a.gif".to_owned(), false, true));
        assert_eq!(read("https://x.org/image/a.gif"), ("/image/a.gif".to_owned(), false, true));
        assert_eq!(read("https://y.org/image/a.gif"), ("/image/a.gif".to_owned(), true, false));
    }

    proptest! {
        #[test]
        fn every_pasted_text_gives_a_path(text: String, front in "(<img src=[\"']?)?(https?://)?", signs in "[<>=&;#x3D'\" \n/.{}ä-]{0,30}") {
            for text in [format!("{front}{text}"), format!("{front}{signs}"), format!("<img {signs}src={text}")] {
                let path = pasted(&text, "http://localhost").path;
                prop_assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{}", path);
            }
        }
    }
}
