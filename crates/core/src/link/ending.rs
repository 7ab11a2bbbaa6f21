//! The end of a link: a picture's ending, and what other programs append to it. Pure.
//!
//! Guarantees: inside a text, only an ending of [`PICTURE_ENDINGS`] is searched for. What follows it is left out only
//! if it cannot be part of a link, so that `4711.gif&utm=1` is `4711`, and `joe.gif@example.com` and `a.gif-b` stay
//! unchanged.

use percent_encoding::percent_decode_str;

/// Endings of pictures; in links, they have no meaning.
const PICTURE_ENDINGS: [&str; 12] =
    ["gif", "png", "jpg", "jpeg", "jpe", "jfif", "webp", "apng", "avif", "bmp", "ico", "svg"];

/// Whether this is the ending of a picture, in any case.
pub fn is_picture(ending: &str) -> bool {
    PICTURE_ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// The text before the first picture's ending at the end of the text, or of a part of it that can be a link.
pub fn before_picture_ending(text: &str) -> Option<&str> {
    text.match_indices('.').find_map(|(at, _)| {
        let (ending, rest) = split_ending(&text[at + 1..]);
        let ends = is_picture(ending) && (cannot_follow(rest) || is_mark(&text[..at], rest));
        ends.then_some(&text[..at])
    })
}

/// The recipient's key at the end of a keyed link: without a picture's ending and what others appended to it; without
/// such an ending, all of it, since what follows another dot belongs to the key, as in `jane@example.com` and
/// `4711.50`.
pub fn key_before_ending(last: &str) -> &str {
    let first = before_picture_ending(last);
    // Characters that link-making programs encode, or leave as they are, belong to a key like `photo.jpg (2)` if the
    // link goes on to an ending.
    let goes_on = first.is_some_and(|stem| {
        let (_, rest) = split_ending(&last[stem.len() + 1..]);
        rest.starts_with(['%', '\'', '(', ')']) || (rest.starts_with(|c: char| !c.is_ascii() || MARKS.contains(&c)))
    });
    let at_end = last.rsplit_once('.').filter(|(stem, ending)| is_picture(ending) && !stem.contains('/'));
    match (at_end, first) {
        (Some((stem, _)), first) if goes_on || first.is_none() => stem,
        (_, Some(stem)) => stem,
        _ => encoded_ending(last).unwrap_or(last.trim_end_matches('/')),
    }
}

/// The text before a dot and a picture's ending that is partly encoded, once or twice.
fn encoded_ending(text: &str) -> Option<&str> {
    text.match_indices(['.', '%']).find_map(|(at, _)| {
        let once = percent_decode_str(&text[at..]).decode_utf8().ok()?;
        let twice = percent_decode_str(&once).decode_utf8().ok()?;
        let (ending, rest) = split_ending(twice.strip_prefix('.')?);
        (is_picture(ending) && cannot_follow(rest)).then_some(&text[..at])
    })
}

/// Splits the letters and digits at a text's beginning from the rest.
pub fn split_ending(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len()))
}

/// Whether a link has ended before this: it is empty, or begins with something that continues no id, key or ending. A
/// merge tag does continue it.
pub fn cannot_follow(rest: &str) -> bool {
    let Some(first) = rest.chars().next() else { return true };
    match first {
        '&' | ';' | '?' | '#' | '"' | '\'' | '(' | ')' | '<' | '>' | ',' | '=' | '/' | '\\' => true,
        // The end of a sentence, and not the beginning of another ending.
        '.' => rest.trim_start_matches('.').chars().next().is_none_or(|next| !next.is_ascii_alphanumeric()),
        '%' => {
            let encoded = rest.get(..3).filter(|pair| pair.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit()));
            let byte = encoded.and_then(|pair| percent_decode_str(pair).next());
            // A non-ASCII blank begins with a byte beyond ASCII; so may a letter, which can continue a key.
            byte.is_some_and(|byte| byte.is_ascii_control() || b" &;?#\"'()<>,=/\\".contains(&byte))
                || ["%C2%A0", "%E2%80%8", "%EF%BB%BF"]
                    .iter()
                    .any(|blank| rest.get(..blank.len()).is_some_and(|front| front.eq_ignore_ascii_case(blank)))
        }
        other => is_blank(other),
    }
}

/// What people and mark-up languages put around or after a link, besides the characters of [`cannot_follow`]. Merge
/// tags contain such marks, too.
const MARKS: [char; 9] = ['[', ']', '{', '}', '|', '*', '!', '`', '~'];

/// Whether a mark follows a text with an ending: one of [`MARKS`] if no tag can have begun before it, or punctuation
/// beyond ASCII, as in `4711.gif]`, `4711.gif**` and `4711.gif”`.
fn is_mark(stem: &str, rest: &str) -> bool {
    let decoded = percent_decode_str(rest).decode_utf8_lossy();
    let Some(first) = decoded.chars().next() else { return false };
    if !first.is_ascii() {
        return is_punctuation(first);
    }
    let stem = percent_decode_str(stem).decode_utf8_lossy();
    let stem = percent_decode_str(&stem).decode_utf8_lossy();
    MARKS.contains(&first) && !stem.contains(MARKS)
}

/// Quotation marks, dots and dashes of many languages, the sentence marks and brackets of Chinese and Japanese, and their wide forms.
fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{a1}' | '\u{ab}' | '\u{b7}' | '\u{bb}' | '\u{bf}' | '\u{2010}'..='\u{205e}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}'
        | '\u{3014}'..='\u{301f}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

/// A blank, a line break or another invisible character.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_a_part_of_a_link_is_left_out() {
        for rest in [
            "",
            "&utm=1",
            "%20",
            ".",
            "..",
            ". ",
            ".)",
            "\"",
            "'",
            ")",
            ";jsessionid=1",
            "/",
            "/x",
            ">",
            "%22",
            "%3E",
            ",",
            "=",
            "#x",
            "&amp;x=1",
            "%3Futm=1",
            "?x",
            "%0D%0A",
            "%00",
            "\u{a0}",
            "%C2%A0",
            "%e2%80%8b",
            "\u{200b}",
            "%EF%BB%BF",
            " ",
            "%20style=%22width:1px",
            "%E2%80%9D",
            "%c2%bb",
            "”",
            "%E2%80%A6",
            "%EF%BC%8C",
            "%E3%80%82",
            "%E3%80%8D",
            "]",
            "%5D",
            "%5B1%5D",
            "}",
            "**",
            "|here",
            "%7Chere",
            "!",
            "%60",
            "~~",
            "\\n",
            "%5Cu0026x=1",
            "%3Cbr%3E",
        ] {
            assert_eq!(before_picture_ending(&format!("4711.GiF{rest}")), Some("4711"), "{rest}");
        }
    }

    #[test]
    fn a_possible_part_of_a_link_does_not_end_it() {
        for (text, stem) in [
            ("4711.gif.png", Some("4711.gif")),
            ("4711.gif&v=1.5", Some("4711")),
            ("joe.gif@example.com", None),
            ("joe.gif+x@example.com.png", Some("joe.gif+x@example.com")),
            ("a.gif-b", None),
            ("a.gif_b", None),
            ("a.gifs", None),
            ("{{user.png}}", None),
            ("*|user.png|*.gif", Some("*|user.png|*")),
            ("%%user.png%%", None),
            ("[user.png]", None),
            ("%7B%7Buser.png%7D%7D", None),
            ("%257Buser.png%257D", None),
            ("*%7Cuser.png%7C*", None),
            ("~user.png~", None),
            ("m.gif%E6%97%A5", None),
            ("4711.50", None),
            ("jane@example.com", None),
            ("m.gif%C3%BC", None),
            ("", None),
        ] {
            assert_eq!(before_picture_ending(text), stem, "{text}");
        }
    }

    #[test]
    fn only_a_pictures_ending_is_taken_off_a_key() {
        for (last, key) in [
            ("jane@example.com", "jane@example.com"),
            ("jane@example.org", "jane@example.org"),
            ("4711.50", "4711.50"),
            ("4711.50.gif", "4711.50"),
            ("4711", "4711"),
            ("4711/", "4711"),
            ("4711.x", "4711.x"),
            ("v1.2.3", "v1.2.3"),
            ("jane@example.com.PNG", "jane@example.com"),
            ("jane@example.com.JpEg&utm=1", "jane@example.com"),
            ("x.gif.gif", "x.gif"),
            ("4711%2Egif", "4711"),
            ("4711%2eGIF%20", "4711"),
            ("4711%2e%67%69%66", "4711"),
            ("4711.%67if", "4711"),
            ("4711%252Egif", "4711"),
            ("4711%252E%2567if%22", "4711"),
            ("jane%40example%2Ecom", "jane%40example%2Ecom"),
            ("photo.jpg[2].gif", "photo.jpg[2]"),
            ("photo.jpg”.gif", "photo.jpg”"),
            ("4711.gif/x.png", "4711"),
            ("4711.gif&next=x.png", "4711"),
            ("photo.jpg%20%282%29.gif", "photo.jpg%20%282%29"),
            ("photo.jpg(2).gif", "photo.jpg(2)"),
            ("a.gif%26b.gif", "a.gif%26b"),
            ("", ""),
            (".gif", ""),
        ] {
            assert_eq!(key_before_ending(last), key, "{last}");
        }
    }

    proptest! {
        #[test]
        fn a_key_with_an_ending_after_it_is_that_key(key in "[A-Za-z0-9._~@%+-]{0,12}(\\.(gif|JPG))?(%[0-9A-F]{2}|['()!|*~“日\\[\\]{}])?[a-z0-9]{0,4}", ending in "gif|png|jpg|webp") {
            let link = format!("{key}.{ending}");
            prop_assert_eq!(key_before_ending(&link), key);
        }

        #[test]
        fn any_text_is_read(text: String, junk in "[.%&a-f0-9]{0,8}") {
            let _ = (before_picture_ending(&text), before_picture_ending(&format!("{text}.gif{junk}")));
        }
    }
}
