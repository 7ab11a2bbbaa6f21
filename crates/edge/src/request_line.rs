//! Repairs a request's first line if a mail program put bytes into it that HTTP forbids. Pure.
//!
//! Guarantees: only the target is changed, and its meaning stays the same: forbidden bytes are percent-encoded, and an
//! absolute URL is cut to its path, since this server has only one name. Nothing is decoded, and a line stays one line,
//! so a proxy before us has split the bytes into the same requests. Gives up: a line that does not end with its version
//! stays unchanged; hyper refuses it (`edge::mended`).

/// What to do with the first bytes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Nothing: it is valid HTTP, or cannot be repaired.
    AsItIs,
    /// Pass on these bytes instead.
    Mended(Vec<u8>),
    /// The line's end has not arrived yet.
    Unfinished,
}

/// Reads the first line of the received bytes.
pub fn read(received: &[u8]) -> Line {
    if is_as_http_wants_it(received) { Line::AsItIs } else { mend(received) }
}

/// The method and the target of a first line, as far as they can be recognised.
pub fn method_and_target(received: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = received.trim_ascii_start();
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let (method, rest) = line.split_at_checked(method_bytes(line)?)?;
    let rest = rest.strip_prefix(b" ")?;
    let version = b" HTTP/";
    let end = rest.windows(version.len()).rposition(|bytes| bytes == version);
    let target = rest[..end.unwrap_or(rest.len())].trim_ascii();
    (!target.is_empty()).then_some((method, target))
}

/// A target as HTTP allows it.
pub fn mended_target(target: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(target.len() + 16);
    let path = path_of(target);
    if !path.starts_with(b"/") && path != b"*" {
        mended.push(b'/');
    }
    for &byte in path {
        if is_forbidden(byte) {
            mended.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            mended.push(byte);
        }
    }
    mended
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Maximum letters of a method.
const METHOD_BYTES_MAX: usize = 16;

/// Checks sixteen bytes at a time: this is the only cost for every other request.
fn is_as_http_wants_it(received: &[u8]) -> bool {
    let rest = match received {
        [b'G', b'E', b'T', b' ', rest @ ..] | [b'H', b'E', b'A', b'D', b' ', rest @ ..] => rest,
        _ => return false,
    };
    let mut end = 0;
    for bytes in rest.chunks_exact(16) {
        if bytes.iter().fold(false, |any, &byte| any | is_forbidden(byte)) {
            break;
        }
        end += bytes.len();
    }
    end += rest[end..].iter().take_while(|&&byte| !is_forbidden(byte)).count();
    let is_end = rest[end..].starts_with(b" HTTP/1.") && matches!(rest.get(end + 9), Some(b'\r' | b'\n'));
    rest.starts_with(b"/") && is_end
}

/// What hyper refuses in a path or a query; and `#`, after which it would drop everything.
fn is_forbidden(byte: u8) -> bool {
    (byte <= b' ') | (byte >= 0x7f) | (byte == b'"') | (byte == b'#') | (byte == b'<') | (byte == b'>') | (byte == b'`')
}

#[cold]
fn mend(received: &[u8]) -> Line {
    // Blank lines before a request are allowed.
    let begin = received.len() - received.trim_ascii_start().len();
    let line = &received[begin..];
    let Some(method) = method_bytes(line) else { return Line::AsItIs };
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else { return Line::Unfinished };
    let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
    let Some(target) = [b" HTTP/1.1", b" HTTP/1.0"].iter().find_map(|version| line.strip_suffix(*version)) else {
        return Line::AsItIs;
    };
    let Some(target) = target.get(method + 1..).map(<[u8]>::trim_ascii).filter(|target| !target.is_empty()) else {
        return Line::AsItIs;
    };
    let version = &received[begin + line.len() - " HTTP/1.1".len()..];
    let mended = [&received[..=begin + method], &mended_target(target), version].concat();
    if mended == received { Line::AsItIs } else { Line::Mended(mended) }
}

/// The length of the method at a line's beginning; the whole line if nothing else has arrived yet.
fn method_bytes(line: &[u8]) -> Option<usize> {
    let bytes = line.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let goes_on = line.get(bytes).is_none_or(|&byte| byte == b' ');
    ((1..=METHOD_BYTES_MAX).contains(&bytes) && goes_on && !line.starts_with(b"CONNECT")).then_some(bytes)
}

/// The path and query of an absolute URL; another target stays unchanged.
fn path_of(target: &[u8]) -> &[u8] {
    let rest = [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    rest.map_or(target, |rest| &rest[rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len())..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_http_forbids_in_a_target_is_encoded_and_nothing_else_is_touched() {
        let rest = "\r\nHost: x\r\nUser-Agent: <\u{fc}> `\r\n\r\n";
        for (line, mended) in [
            (&b"GET /t/x/m\xfcller/4711.gif HTTP/1.1"[..], "GET /t/x/m%FCller/4711.gif HTTP/1.1"),
            (b"GET /t/x/May/<4711>.gif HTTP/1.1", "GET /t/x/May/%3C4711%3E.gif HTTP/1.1"),
            ("GET /t/x/mü/1.gif HTTP/1.1".as_bytes(), "GET /t/x/m%C3%BC/1.gif HTTP/1.1"),
            (b"HEAD /image/x.gif?a=\"b\"&c=m\xfc HTTP/1.1", "HEAD /image/x.gif?a=%22b%22&c=m%FC HTTP/1.1"),
            (b"GET /o/ab cd\tef.gif HTTP/1.1", "GET /o/ab%20cd%09ef.gif HTTP/1.1"),
            (b"GET  /o/ab.gif  HTTP/1.0", "GET /o/ab.gif HTTP/1.0"),
            (b"GET /o/a\rb\x00.gif HTTP/1.1", "GET /o/a%0Db%00.gif HTTP/1.1"),
            (b"GET /t/x/May/a#1.gif HTTP/1.1", "GET /t/x/May/a%231.gif HTTP/1.1"),
            (b"GET image/x.gif HTTP/1.1", "GET /image/x.gif HTTP/1.1"),
            (b"GET HTTPS://a b:/image/x.gif HTTP/1.1", "GET /image/x.gif HTTP/1.1"),
            (b"GET http://a?x HTTP/1.1", "GET /?x HTTP/1.1"),
            (b"GET http:// HTTP/1.1", "GET / HTTP/1.1"),
            (b"POST /`x` HTTP/1.1", "POST /%60x%60 HTTP/1.1"),
            (b"GET /x HTTP/1.1 y HTTP/1.1", "GET /x%20HTTP/1.1%20y HTTP/1.1"),
            (b"\r\nGET /<x HTTP/1.1", "\r\nGET /%3Cx HTTP/1.1"),
        ] {
            let received = [line, rest.as_bytes()].concat();
            let Line::Mended(found) = read(&received) else { panic!("{}", line.escape_ascii()) };
            assert_eq!(
                found.escape_ascii().to_string(),
                format!("{mended}{rest}").as_bytes().escape_ascii().to_string()
            );
        }
        for line in [
            &b"GET /image/x.gif HTTP/1.1"[..],
            b"GET / HTTP/1.0",
            b"GET /t/{id}/a|b/\\^[x]~!$'()*+,;=:@%.gif?{x}|\\^ HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"CONNECT a b:443 HTTP/1.1",
            b"GET /<x>",
            b"GET /<x> HTTP/2.0",
            b"get /<x> HTTP/1.1",
            b"X-Header: GET /<x> HTTP/1.1",
            b"GET  HTTP/1.1",
            b"\x16\x03\x01 <",
        ] {
            let received = [line, rest.as_bytes()].concat();
            assert_eq!(read(&received), Line::AsItIs, "{}", line.escape_ascii());
        }
        for front in [&b"G"[..], b"GET", b"GET /im", b"GET /image/<x> HTTP/1.1\r"] {
            assert_eq!(read(front), Line::Unfinished, "{}", front.escape_ascii());
        }
        assert_eq!(read(b"\x16\x03\x01"), Line::AsItIs, "what is no HTTP is not waited for");
    }

    proptest! {
        #[test]
        fn a_mended_line_is_one_line_that_hyper_takes(
            target in prop::collection::vec(any::<u8>().prop_filter("a line's end", |&byte| byte != b'\n'), 1..80), rest: Vec<u8>,
        ) {
            let received = [b"GET /", &target[..], b" HTTP/1.1\r\n", &rest].concat();
            let read_on = match read(&received) {
                Line::Mended(mended) => mended,
                Line::AsItIs => received,
                Line::Unfinished => unreachable!("its end is there"),
            };
            let (line, behind) = read_on.split_at(read_on.iter().position(|&byte| byte == b'\n').unwrap() + 1);
            prop_assert_eq!(behind, &rest[..]);
            let target = line.strip_prefix(b"GET ").unwrap().strip_suffix(b" HTTP/1.1\r\n").unwrap();
            prop_assert!(hyper::Uri::try_from(target).is_ok(), "{}", target.escape_ascii());
            prop_assert_eq!(read(&read_on), Line::AsItIs, "it is mended once");
        }

        #[test]
        fn any_bytes_are_read(received: Vec<u8>, front in "(GET|POST|CONNECT)? ?(https?://)?") {
            let received = [front.as_bytes(), &received].concat();
            let _ = (read(&received), method_and_target(&received));
        }
    }
}
