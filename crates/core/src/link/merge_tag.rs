//! Detects merge tags that a sender's program left in a link, and words like `null` that it wrote for a missing value.
//! Pure.
//!
//! Either would make one recipient of all. A name below is two or more letters, digits and `_ . : = | -`; the first is
//! a letter or `_`.
//!
//! ```text
//! anywhere   {{ }} {% %} {name} {$…} {0} {} ${…} #{…} %{…}   a brace, unless it holds a UUID, a number of three digits or a quoted text
//!            *|name   name|*   %%…%%   [[name   name]]   [%…   $[…   $(name   %(name   <<name>>   <% %> <? ?> <span <pstag: «name
//! apart      %name%   $name$   #name#   ::name::   @@name@@   ~name~      with no letter or digit beside it
//! alone      […] as a brace   @name@   @(name)   -name-   __name__   $name   %%name   name%%   %s   {0}
//! alone      undefined null None NaN nil (null) …, in the spellings that languages and spreadsheets print
//! ```
//!
//! Guarantees: half a tag is detected, too (`{{id`), and tags with HTML's escapes (`&lt;%= id %&gt;`). Ordinary ids,
//! hashes, base64, addresses, names and numbers are never taken for a tag: `100%`, `a@@b`, `x$1`, `tenant::user::42`,
//! `{01234567-89ab-cdef-0123-456789abcdef}`. Gives up: tags that look like a key (`:id`, `ID`), and half of one with a
//! single sign (`%ID`). If nearly all hits of a message are of one recipient, the message's page warns.

use super::parse_uuid;

/// What programs write for a missing value, in their spelling.
const WORDS: [&[u8]; 35] = [
    b"undefined",
    b"UNDEFINED",
    b"Undefined",
    b"null",
    b"NULL",
    b"Null",
    b"None",
    b"NONE",
    b"NaN",
    b"nan",
    b"NAN",
    b"NaT",
    b"nil",
    b"NIL",
    b"(null)",
    b"(NULL)",
    b"(nil)",
    b"(none)",
    b"<null>",
    b"<nil>",
    b"<none>",
    b"<NA>",
    b"<no value>",
    b"%!s(<nil>)",
    b"[object Object]",
    b"#N/A",
    b"#N/D",
    b"#NV",
    // From `#NAME?`, if the rest was taken for a query.
    b"#NAME",
    // A dump of MySQL or PostgreSQL.
    b"\\N",
    b"%s",
    b"%d",
    b"%i",
    b"%@",
    b"%1$s",
];

/// Maximum letters of a name.
const NAME_BYTES_MAX: usize = 64;

/// Whether a key, or a text with keys in it, is or contains a value that its program did not fill in.
pub fn is_unfilled(text: &[u8]) -> bool {
    is_unfilled_as_it_is(text) || without_entities(text).is_some_and(|text| is_unfilled_as_it_is(&text))
}

fn is_unfilled_as_it_is(text: &[u8]) -> bool {
    WORDS.contains(&without_quotes(text))
        || is_error_value(text)
        || is_alone(text)
        || (text.iter().any(|&byte| is_sign(byte)) && holds_tag(text))
}

/// Removes quotation marks around a text: the program that wrote it, as JSON, added them.
fn without_quotes(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inside @ .., b'"'] | [b'\'', inside @ .., b'\''] => inside,
        _ => text,
    }
}

/// What spreadsheets show for a cell with an error, in any language: `#REF!`, `#BEZUG!`, `#NOM?`, `#¡VALOR!`.
fn is_error_value(text: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_uppercase() || !byte.is_ascii() || b"/0_".contains(byte);
    matches!(text, [b'#', name @ .., b'!' | b'?'] if name.len() > 1 && name.iter().all(is_inner))
}

/// Decodes the signs that HTML escapes; `None` if there are none: `&lt;%= id %&gt;`, `&#123;&#123;id`.
fn without_entities(text: &[u8]) -> Option<Vec<u8>> {
    if !text.contains(&b'&') {
        return None;
    }
    let mut read = Vec::new();
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.iter().position(|&byte| byte == b'&') {
        let (front, behind) = rest.split_at(at);
        read.extend_from_slice(front);
        let end = behind.iter().take(10).position(|&byte| byte == b';');
        match end.and_then(|end| Some((end, entity(&behind[1..end])?))) {
            Some((end, byte)) => {
                read.push(byte);
                rest = &behind[end + 1..];
                changed = true;
            }
            None => {
                read.push(b'&');
                rest = &behind[1..];
            }
        }
    }
    read.extend_from_slice(rest);
    changed.then_some(read)
}

/// The character of an HTML entity, by its name or number.
fn entity(name: &[u8]) -> Option<u8> {
    let name = std::str::from_utf8(name).ok()?;
    let named = [("lt", b'<'), ("gt", b'>'), ("quot", b'"'), ("apos", b'\''), ("amp", b'&')];
    if let Some((_, byte)) = named.iter().find(|(known, _)| *known == name) {
        return Some(*byte);
    }
    let number = match name.strip_prefix('#')? {
        hex if hex.starts_with(['x', 'X']) => u8::from_str_radix(&hex[1..], 16),
        decimal => decimal.parse(),
    };
    number.ok().filter(u8::is_ascii)
}

/// The signs of tags that may be anywhere: each of these tags has at least one, most keys have none.
fn is_sign(byte: u8) -> bool {
    matches!(
        byte,
        b'*' | b'|' | b'{' | b'}' | b'%' | b'[' | b']' | b'<' | b'>' | b'$' | b'#' | b':' | b'@' | b'~' | 0xab
    )
}

fn is_alone(text: &[u8]) -> bool {
    match text {
        [b'[', inside @ .., b']'] => !is_value(inside.trim_ascii(), true),
        [b'@', name @ .., b'@'] => is_name(name),
        [b'_', b'_', name @ .., b'_', b'_'] => is_name(name) && !name.starts_with(b"_") && !name.ends_with(b"_"),
        // Only letters, as in programs with such tags: base64 for URLs may begin and end with a hyphen, too.
        [b'-', name @ .., b'-'] => is_camel_case(name),
        [b'@', b'(', name @ .., b')'] => is_name(name),
        [b'$', name @ ..] => {
            let name = name.strip_prefix(b"!").unwrap_or(name);
            is_name(name) && name.iter().all(|byte| byte.is_ascii_alphabetic() || b"_.->".contains(byte))
        }
        [b'%', b'%', name @ ..] if is_name(name) => !is_hex_pair(name),
        [name @ .., b'%', b'%'] => is_name(name),
        _ => false,
    }
}

fn holds_tag(text: &[u8]) -> bool {
    let is_begin = |byte: Option<&u8>| byte.is_some_and(|&byte| byte.is_ascii_alphabetic() || b"_ ".contains(&byte));
    let is_end = |byte: &u8| byte.is_ascii_alphanumeric() || b"_ )\"'".contains(byte);
    for (at, pair) in text.windows(2).enumerate() {
        let after = text.get(at + 2);
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        let is_tag = match pair {
            b"*|" | b"[[" | b"$[" | b"[%" | b"[*" | b"[$" | b"$(" | b"%(" => is_begin(after),
            b"|*" => before.is_some_and(is_end),
            b"]]" => before.is_some_and(|byte| is_end(byte) && !byte.is_ascii_digit()),
            b"%]" => before.is_some_and(is_end),
            b"<%" | b"%>" | b"<?" | b"?>" => true,
            // A guillemet in UTF-8.
            b"\xc2\xab" => is_begin(after),
            _ => text[at..].starts_with(b"<span") || text[at..].starts_with(b"<pstag:"),
        };
        if is_tag {
            return true;
        }
    }
    // Half of it may be an arrow: `News >> May`.
    let is_angled = between_two(text, b"<<", b">>").is_some_and(|name| is_begin(name.first()));
    is_angled
        || holds_braces(text)
        || between(text, b"%%").any(|_| true)
        || between(text, b"%").any(|(before, name, after)| is_percent_tag(before, name, after))
        || [&b"$"[..], b"#", b"::", b"@@", b"~"].iter().any(|sign| {
            between(text, sign).any(|(before, name, after)| {
                let is_apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
                is_name(name) && is_apart(before.last()) && is_apart(after.first())
            })
        })
}

/// Finds `%NAME%` in a text that may be percent-encoded: the last sign begins no encoded byte, and the first one is not
/// part of a multi-byte character.
fn is_percent_tag(before: &[u8], name: &[u8], after: &[u8]) -> bool {
    let is_encoded_before =
        before.len() >= 3 && before[before.len() - 3] == b'%' && is_hex_pair(&before[before.len() - 2..]);
    is_name(name) && !is_encoded_before && !is_hex_pair(after)
}

/// Whether a brace belongs to a tag.
fn holds_braces(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = text[at..].iter().position(|byte| b"{}".contains(byte)) {
        at += found;
        let before = at.checked_sub(1).map(|at| text[at]);
        if text[at] == b'}' {
            // The end of a text that is not a tag was skipped below.
            return text.get(at + 1) == Some(&b'}') || before.is_none_or(|byte| !byte.is_ascii_digit());
        }
        let rest = &text[at + 1..];
        let end = rest.iter().position(|&byte| byte == b'}');
        let inside = rest[..end.unwrap_or(rest.len())].trim_ascii();
        if !is_value(inside, end.is_some()) || before.is_some_and(|byte| b"$#%@".contains(&byte)) {
            return true;
        }
        at += 1 + end.map_or(rest.len(), |end| end + 1);
    }
    false
}

/// Whether the text in brackets is a value instead of a name: a UUID, a number of three or more digits, a quoted text.
fn is_value(inside: &[u8], is_closed: bool) -> bool {
    match inside.first() {
        None => false,
        Some(byte) if byte.is_ascii_digit() => !is_closed || inside.len() > 2,
        Some(b'"' | b'\'') => true,
        Some(_) => parse_uuid::<uuid::Uuid>(inside).is_some(),
    }
}

/// The texts between two consecutive signs, each with the texts before and after.
fn between<'a>(text: &'a [u8], sign: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8], &'a [u8])> {
    let next = move |from: usize| {
        let rest = text.get(from..)?;
        rest.windows(sign.len()).position(|window| window == sign).map(|at| from + at)
    };
    let mut open = next(0);
    std::iter::from_fn(move || {
        let begin = open?;
        let end = next(begin + sign.len())?;
        open = Some(end);
        Some((&text[..begin], &text[begin + sign.len()..end], &text[end + sign.len()..]))
    })
}

/// The text between a sign and the next other sign.
fn between_two<'a>(text: &'a [u8], open: &[u8], close: &[u8]) -> Option<&'a [u8]> {
    let position = |text: &[u8], sign: &[u8]| text.windows(sign.len()).position(|window| window == sign);
    let rest = &text[position(text, open)? + open.len()..];
    Some(&rest[..position(rest, close)?])
}

fn is_name(text: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:=|->".contains(byte);
    (2..=NAME_BYTES_MAX).contains(&text.len())
        && (text[0].is_ascii_alphabetic() || text[0] == b'_')
        && text.iter().all(is_inner)
}

/// `name`, `firstName`, `recipient_ID`: letters, few of them capitals.
fn is_camel_case(text: &[u8]) -> bool {
    (2..=20).contains(&text.len())
        && text[0].is_ascii_lowercase()
        && text.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && text.iter().filter(|byte| byte.is_ascii_uppercase()).count() <= 2
}

fn is_hex_pair(text: &[u8]) -> bool {
    matches!(text, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
