//! The grammars of values: text in; value out, or what is wrong with the text.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::odd;

/// A value, or what is wrong with its text, as the rest of a sentence that begins with the variable.
pub(super) type Parsed<T> = Result<T, String>;

/// Maximum characters of a wrong value that an error repeats.
const QUOTED_CHARS_MAX: usize = 80;

/// The units of a duration, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

/// The units of a size, in bytes.
const SIZE_UNITS: [(&str, u64); 6] =
    [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A value as errors show it: in quotes, control characters escaped, long ones cut.
pub(super) fn quote(text: &str) -> String {
    // Perhaps a URL with a password that was set as the wrong variable.
    if odd::may_hold_password(text) {
        return "something that may hold a password (not shown)".to_owned();
    }
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The path of a secret's file as errors show it; hidden if it may be the secret itself, set as the wrong one of two
/// variables.
pub(super) fn shown_path(path: &str) -> String {
    if path.starts_with(['/', '.']) && !odd::may_hold_password(path) {
        quote(path)
    } else {
        "a file whose name may be the secret itself (not shown)".to_owned()
    }
}

/// A whole number in `range`.
pub(super) fn whole_number(text: &str, range: RangeInclusive<u64>) -> Parsed<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("is {}, which is not a whole number", quote(text)));
    }
    within(text, text.parse().ok(), &range)
}

/// A whole number with a unit of time, in `range` of milliseconds: `500ms`, `10s`, `30m`, `1h`, `7d`.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Parsed<Duration> {
    let millis = with_unit(text, &DURATION_UNITS, "duration")?.map(Duration::from_millis);
    within(text, millis, &range)
}

/// Bytes in `range`: a whole number, with a binary unit or none: `8 GiB`, `512MiB`, `67108864`.
pub(super) fn size(text: &str, range: RangeInclusive<u64>) -> Parsed<u64> {
    within(text, with_unit(text, &SIZE_UNITS, "size")?, &range)
}

/// One of `words`.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Parsed<T> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| format!("is {}, which is not allowed", quote(text)))
}

/// `off`, or what `parse` reads.
pub(super) fn or_off<T>(text: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    if text == "off" { Ok(None) } else { parse(text).map(Some) }
}

/// A number times its unit; `None` if the product overflows.
fn with_unit(text: &str, units: &[(&str, u64)], what: &str) -> Parsed<Option<u64>> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = (&text[..end], text[end..].trim_start_matches(' '));
    let unit = units.iter().find(|(name, _)| *name == unit).filter(|_| end > 0);
    let (_, unit) = unit.ok_or_else(|| {
        let names: Vec<_> = units.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        format!("is {}, which is not a {what} (a whole number and one of {})", quote(text), names.join(", "))
    })?;
    Ok(number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit)))
}

fn within<T: PartialOrd>(text: &str, value: Option<T>, range: &RangeInclusive<T>) -> Parsed<T> {
    match value {
        Some(value) if value < *range.start() => Err(format!("is {}, which is too small", quote(text))),
        Some(value) if value <= *range.end() => Ok(value),
        _ => Err(format!("is {}, which is too large", quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_duration(text: &str) -> Parsed<Duration> {
        duration(text, Duration::ZERO..=Duration::MAX)
    }

    fn any_size(text: &str) -> Parsed<u64> {
        size(text, 0..=u64::MAX)
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("30m", 1_800_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(any_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(any_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(any_duration("1 h"), Ok(Duration::from_secs(3600)));
        for text in ["", "1", "h", "1.5h", "-1s", "+1s", "1H", "1h30m", "1hour", "1\u{a0}h", "\u{661}h"] {
            assert!(any_duration(text).unwrap_err().contains("is not a duration"), "{text}");
        }
        assert!(any_duration("99999999999999999999h").unwrap_err().contains("too large"));
        assert!(any_duration("18446744073709551615d").unwrap_err().contains("too large"));
    }

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        for (text, bytes) in [("8 GiB", 8 << 30), ("8GiB", 8 << 30), ("512MiB", 512 << 20), ("1KiB", 1024)] {
            assert_eq!(any_size(text), Ok(bytes), "{text}");
        }
        for (text, bytes) in [("67108864", 67_108_864), ("0", 0), ("12B", 12), ("2TiB", 2 << 40)] {
            assert_eq!(any_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "8GB", "8G", "8gib", "1.5GiB", "-1", "8 GiB 2", "8GiB/s"] {
            assert!(any_size(text).unwrap_err().contains("is not a size"), "{text}");
        }
        assert!(any_size("18446744073709551615TiB").unwrap_err().contains("too large"));
    }

    #[test]
    fn both_ends_of_a_range_are_in_it() {
        assert_eq!((whole_number("1", 1..=3), whole_number("3", 1..=3)), (Ok(1), Ok(3)));
        assert!(whole_number("0", 1..=3).unwrap_err().contains("too small"));
        assert!(whole_number("4", 1..=3).unwrap_err().contains("too large"));
        assert!(whole_number("99999999999999999999", 1..=3).unwrap_err().contains("too large"));
        for text in ["", "+1", "-1", "1.0", "0x1", "one", "1 2"] {
            assert!(whole_number(text, 0..=9).unwrap_err().contains("not a whole number"), "{text}");
        }
    }

    #[test]
    fn a_long_value_is_cut_and_its_control_characters_are_escaped() {
        assert_eq!(quote("a\n\u{1b}[1m"), r#""a\n\u{1b}[1m""#);
        let quoted = quote(&"é".repeat(1000));
        assert_eq!(quoted.chars().count(), QUOTED_CHARS_MAX + 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text: String, number in "[0-9]{0,25}", unit in "[ a-zA-Z]{0,4}") {
            for text in [text, format!("{number}{unit}")] {
                drop((any_duration(&text), any_size(&text), whole_number(&text, 0..=u64::MAX), quote(&text)));
            }
        }
    }
}
