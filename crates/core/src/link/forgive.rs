//! Links that were changed on the way: by mail transports that fold lines, programs that add to links, and people who copy them. Pure.
//!
//! Guarantees: passes a cleaned path to the strict reader (`link::route`), and decides nothing itself: a token must
//! still verify, an id must still be complete. Only what cannot be part of a link is left out, and only what has
//! exactly one meaning is respelt; no character of a token is changed, and none is added. A key's own characters are
//! not touched. Gives up: half an id, and two links in one, which stay as they are; and ambiguous paths: if two
//! readings differ, neither is used.
//!
//! | forgiven | for example |
//! |---|---|
//! | prefixes in any case, doubled slashes, `/./`, `/../` | `//T/…`, `/image/./…` |
//! | a whole address in the path, blanks and quotation marks before it | `/https://pixels.example.com/image/…`, `/%3Chttps:…` |
//! | slashes as JSON escapes them, hyphens as text programs set them (not in keys and tokens) | `\/image\/…`, `%E2%80%91` |
//! | percent-encoding, also done twice (not in keys) | `%5F`, `%2D`, `%252E` |
//! | blanks, line breaks, soft hyphens in ids and tokens | `AQFp%0D%0A%20-GAQ…` |
//! | quoted-printable in ids and tokens | `=3D` and `3D` before one, `=5F`, soft breaks |
//! | what follows the ending, see `link::ending` | `.gif&utm=1`, `.gif%20`, `.gif.` |
//! | no ending after three ids or a token | `/o/{token}` |

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::ending::{cannot_follow, is_blank, is_picture, split_ending};
use super::opt_out;
use super::token::TOKEN_CHARS;

/// How often a path is percent-decoded: it may have been encoded twice.
const DECODINGS_MAX: usize = 2;

/// Maximum letters and digits of a link's ending.
const ENDING_CHARS_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Keyed,
    Signed,
    OptOut,
}

/// The readings of a pixel's path that the strict reader refused; at most two, and none if it is not a pixel's.
pub fn readings(path: &str) -> Vec<String> {
    let Some((kind, path)) = find_kind(path) else { return Vec::new() };
    let mut readings: Vec<String> = match kind {
        Kind::Plain => readings_of(&path).iter().filter_map(|text| plain(text)).collect(),
        Kind::Signed => readings_of(&path).iter().filter_map(|text| signed(text)).collect(),
        Kind::Keyed => Vec::from_iter(keyed(&path)),
        Kind::OptOut => Vec::new(),
    };
    readings.dedup();
    readings
}

/// The path of an opt-out page, if this is a changed form of one.
pub fn opt_out_path(path: &str) -> Option<String> {
    let (Kind::OptOut, rest) = find_kind(path)? else { return None };
    let readings = readings_of(&rest);
    let mut tokens = readings.iter().filter_map(|text| front_token(text, opt_out::TOKEN_CHARS));
    let token = tokens.next()?;
    tokens.all(|other| other == token).then(|| format!("{}{token}", opt_out::PATH))
}

/// The kind of a link's path, and what follows its prefix.
fn find_kind(path: &str) -> Option<(Kind, String)> {
    let mut path = Cow::Borrowed(path);
    // JSON writes a slash like this; browsers take both for slashes.
    for escaped in ["\\/", "%5C/", "%5c/"] {
        if path.contains(escaped) {
            path = Cow::Owned(path.replace(escaped, "/"));
        }
    }
    for _ in 0..=DECODINGS_MAX {
        let segments = segments(&path);
        let skipped = before_prefix(&segments);
        let found = segments.iter().skip(skipped).take(if skipped > 1 { usize::MAX } else { 1 });
        let found = found.enumerate().find_map(|(at, segment)| Some((kind(segment)?, skipped + at)));
        if let Some((kind, at)) = found {
            let rest = segments.get(at + 1..)?.join("/");
            return (!rest.is_empty()).then_some((kind, rest));
        }
        path = Cow::Owned(decoded(&path)?);
    }
    None
}

/// The number of segments before the path itself: scheme and host of a whole URL, or its host alone; and blanks and
/// quotation marks.
fn before_prefix(segments: &[&str]) -> usize {
    let is_scheme = |segment: &str| {
        let text = decoded(segment);
        let text = text.as_deref().unwrap_or(segment).trim_start_matches(|c: char| !c.is_alphanumeric());
        ["http:", "https:"].iter().any(|scheme| scheme.eq_ignore_ascii_case(text))
    };
    match segments {
        [scheme, _, ..] if is_scheme(scheme) => 2,
        [host, next, ..] if host.contains(['.', ':']) && kind(next).is_some() => 1,
        [nothing, next, ..]
            if !decoded(nothing).is_none_or(|text| text.contains(char::is_alphanumeric)) && kind(next).is_some() =>
        {
            1
        }
        _ => 0,
    }
}

fn kind(segment: &str) -> Option<Kind> {
    let text = decoded(segment);
    let text: String = text.as_deref().unwrap_or(segment).chars().filter(|&c| !is_blank(c)).collect();
    let kinds = [("image", Kind::Plain), ("t", Kind::Keyed), ("o", Kind::Signed), ("opt-out", Kind::OptOut)];
    kinds.into_iter().find_map(|(name, kind)| text.eq_ignore_ascii_case(name).then_some(kind))
}

/// The parts between slashes, with `.` and `..` resolved.
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

/// Percent-decodes once; `None` if nothing is encoded.
fn decoded(text: &str) -> Option<String> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(text).into();
    match decoded {
        Cow::Borrowed(_) => None,
        Cow::Owned(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// A text of ids or a token, decoded and without blanks and soft breaks: once read as quoted-printable, once as it is.
fn readings_of(text: &str) -> [String; 2] {
    let mut text = Cow::Borrowed(text);
    for _ in 0..DECODINGS_MAX {
        let Some(decoded) = decoded(&text) else { break };
        text = Cow::Owned(decoded);
    }
    let text = with_end(text.replace("=\r\n", "").replace("=\n", ""));
    let text: String = text.chars().filter(|&c| !is_blank(c)).collect();
    let text = text.trim_start_matches('/');
    [unbroken(&from_quoted_printable(text)), unbroken(text)]
}

/// Puts a sign after the ending that nothing can continue, if what follows is about to be left out: `.gif x` is not
/// `.gifx`.
fn with_end(mut text: String) -> String {
    let end = text.match_indices('.').find_map(|(at, _)| {
        let (ending, rest) = split_ending(&text[at + 1..]);
        (is_picture(ending) && rest.starts_with(|c| c == '=' || is_blank(c))).then(|| text.len() - rest.len())
    });
    if let Some(end) = end {
        text.insert(end, ';');
    }
    text
}

/// Reads `=5F` as `_`, and so on for all characters of links other than letters and digits.
fn from_quoted_printable(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((front, behind)) = rest.split_once('=') {
        read.push_str(front);
        let pair = behind.get(..2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        rest = match pair {
            Some(byte @ (b'=' | b'_' | b'-' | b'.' | b'/')) => {
                read.push(char::from(byte));
                &behind[2..]
            }
            _ => {
                read.push('=');
                behind
            }
        };
    }
    read.push_str(rest);
    read
}

/// Removes the `=` of soft breaks whose line break is lost, and after which a link goes on. At a token's end they would
/// be padding, which is forged.
fn unbroken(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let behind = rest[at..].trim_start_matches('=');
        let end = if behind.starts_with(is_token_char) { at } else { rest.len() - behind.len() };
        read.push_str(&rest[..end]);
        rest = behind;
    }
    read.push_str(rest);
    read
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Removes the `3D` that is left of `=3D`, if it makes the text two characters longer than it can be.
fn without_3d(text: &str, chars: usize) -> &str {
    let is_left = text.len() == chars + 2 && text.get(..2).is_some_and(|front| front.eq_ignore_ascii_case("3D"));
    if is_left { &text[2..] } else { text }
}

fn id(text: &str) -> &str {
    without_3d(without_3d(text, 36), 32)
}

/// The token of this length at a text's beginning.
fn front_token(text: &str, chars: usize) -> Option<&str> {
    let (token, rest) = text.split_at(text.find(|c| !is_token_char(c)).unwrap_or(text.len()));
    let token = without_3d(token, chars);
    (token.len() == chars && !rest.starts_with('=')).then_some(token)
}

fn signed(text: &str) -> Option<String> {
    front_token(text, TOKEN_CHARS).map(|token| format!("/o/{token}.gif"))
}

fn plain(text: &str) -> Option<String> {
    let text = &text.replace(is_dash, "-");
    let end = text.find(|c: char| !(c.is_ascii_hexdigit() || c == '-' || c == '_')).unwrap_or(text.len());
    let (stem, tail) = text.split_at(end);
    let parts: Vec<&str> = stem.split('_').map(id).collect();
    let is_whole = match tail.strip_prefix('.').map(split_ending) {
        Some((ending, rest)) if is_picture(ending) => !rest.starts_with(['_', '-']),
        Some((ending, rest)) if !ending.is_empty() => ending.len() <= ENDING_CHARS_MAX && cannot_follow(rest),
        // Cut off. No id is certainly missing only if there are three.
        _ => parts.len() == 3 && cannot_follow(tail),
    };
    (is_whole && !names_another(tail)).then(|| format!("/image/{}.gif", parts.join("_")))
}

/// Whether what follows a link is, or contains, a second one, which may name somebody else.
pub fn names_another(tail: &str) -> bool {
    let mut text = tail.to_ascii_lowercase();
    for _ in 0..DECODINGS_MAX {
        text = decoded(&text).map_or(text, |decoded| decoded.to_ascii_lowercase());
    }
    ["/image/", "/t/", "/o/"].iter().any(|prefix| text.contains(prefix))
}

/// What text programs make of a hyphen.
fn is_dash(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2014}' | '\u{2212}')
}

fn keyed(rest: &str) -> Option<String> {
    let (image, keys) = rest.split_once('/')?;
    let [image, other] = readings_of(image);
    (id(&image) == id(&other)).then(|| format!("/t/{}/{keys}", id(&image)))
}

#[cfg(test)]
mod tests;
