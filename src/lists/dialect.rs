//! The format of a list: its delimiter and line ends. Pure.
//!
//! Guarantees: Excel's first line `sep=;` is obeyed; if there is none and the header is ambiguous, the list is refused.

use super::Problem;
use super::rows::ROW_BYTES_MAX;

/// The format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// The separator of cells.
    pub delimiter: u8,
    /// The separator of rows.
    pub line_end: &'static [u8],
    /// Whether it begins with a byte order mark.
    pub has_mark: bool,
    /// Whether its first line names the delimiter.
    pub has_sep: bool,
}

/// Possible separators of cells; the first if none occurs.
pub(crate) const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// What comes before the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) dialect: Dialect,
    /// Bytes before it.
    pub(super) skipped: usize,
    /// Lines before it.
    pub(super) lines: u64,
}

/// Reads the beginning of a list (as UTF-8, without a mark) up to the end of its header. `None` if more bytes are
/// needed.
///
/// # Errors
/// If it is not a list, or its separator is not certain.
pub(super) fn read(start: &[u8], is_end: bool) -> Result<Option<Start>, Problem> {
    let too_long = || if start.len() > ROW_BYTES_MAX { Err(Problem::RowTooLong(1)) } else { Ok(None) };
    let (mut skipped, mut lines, mut named) = (0, 0, None);
    loop {
        let rest = &start[skipped..];
        let blank = rest.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        if blank == rest.len() {
            return if is_end { Err(Problem::Empty) } else { too_long() };
        }
        lines += line_ends(&rest[..blank]);
        skipped += blank;
        let line = &start[skipped..];
        let (counts, end) = count(line);
        let end = match end {
            Some(end) if line.get(end + 1).is_some() || is_end || line[end] == b'\n' => end,
            None if is_end => line.len(),
            _ => return too_long(),
        };
        if let (None, Some(sep)) = (named, sep(&line[..end])) {
            named = Some(sep?);
            skipped += end;
            continue;
        }
        let line_end: &[u8] = match &line[end..] {
            [b'\r', b'\n', ..] => b"\r\n",
            [b'\r', ..] => b"\r",
            _ => b"\n",
        };
        let delimiter = named.map_or_else(|| likeliest(counts), Ok)?;
        let dialect = Dialect { delimiter, line_end, has_mark: false, has_sep: named.is_some() };
        return Ok(Some(Start { dialect, skipped, lines }));
    }
}

fn line_ends(blank: &[u8]) -> u64 {
    let pairs = blank.windows(2).filter(|pair| pair == b"\r\n").count();
    (blank.len() - pairs) as u64
}

/// The delimiter in Excel's line: `sep=;`, also in quotation marks.
fn sep(line: &[u8]) -> Option<Result<u8, Problem>> {
    let line = line.strip_prefix(b"\"").map_or(line, |rest| rest.strip_suffix(b"\"").unwrap_or(rest));
    let (name, value) = line.split_at_checked(4)?;
    if !name.eq_ignore_ascii_case(b"sep=") {
        return None;
    }
    // Spreadsheets pad the line with delimiters: `sep=;;;`.
    Some(match value {
        [first, rest @ ..] if DELIMITERS.contains(first) && rest.iter().all(|byte| DELIMITERS.contains(byte)) => {
            Ok(*first)
        }
        _ => Err(Problem::Delimiter(String::from_utf8_lossy(value).chars().take(20).collect())),
    })
}

/// The most frequent one in the header.
fn likeliest(counts: [usize; 4]) -> Result<u8, Problem> {
    let most = counts.into_iter().max().unwrap_or_default();
    let mut best =
        DELIMITERS.into_iter().zip(counts).filter(|(_, count)| *count == most).map(|(delimiter, _)| delimiter);
    match (best.next(), best.next()) {
        (Some(one), Some(other)) if most > 0 => Err(Problem::Delimiters(one.into(), other.into())),
        (best, _) => Ok(best.unwrap_or(DELIMITERS[0])),
    }
}

/// How often each delimiter occurs in the first line, outside of quotes, and where the line ends.
fn count(line: &[u8]) -> ([usize; 4], Option<usize>) {
    enum Within {
        Begin,
        Plain,
        Quoted,
        Closed,
    }
    let (mut counts, mut within) = ([0; 4], Within::Begin);
    for (at, byte) in line.iter().enumerate() {
        let delimiter = DELIMITERS.iter().position(|delimiter| delimiter == byte);
        within = match (byte, within, delimiter) {
            // A doubled one closes and opens again.
            (b'"', Within::Begin | Within::Closed, _) => Within::Quoted,
            (b'"', Within::Quoted, _) => Within::Closed,
            (_, Within::Quoted, _) => Within::Quoted,
            (b'\r' | b'\n', ..) => return (counts, Some(at)),
            (_, _, Some(delimiter)) => {
                counts[delimiter] += 1;
                Within::Begin
            }
            _ => Within::Plain,
        };
    }
    (counts, None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_says_how_the_list_is_written() {
        for (start, delimiter, line_end) in [
            ("a,b;c,d\n", b',', &b"\n"[..]),
            ("a;b;c,d\r\n1", b';', b"\r\n"),
            ("a\tb\r1", b'\t', b"\r"),
            ("a|b\n", b'|', b"\n"),
            ("a", b',', b"\n"),
            ("\"a;b;c\",d\n1;2;3;4", b',', b"\n"),
            ("\"a\"\";;\n;\",d\n", b',', b"\n"),
            ("it\"\"s;a;b\n", b';', b"\n"),
            ("sep=;\r\na,b\n", b';', b"\n"),
            ("\"SEP=|\"\na;b\n", b'|', b"\n"),
            ("sep=\t\t\na,b\n", b'\t', b"\n"),
        ] {
            let found = read(start.as_bytes(), true).unwrap().unwrap();
            let has_sep = start.to_lowercase().contains("sep=");
            let expected = Dialect { delimiter, line_end, has_mark: false, has_sep };
            assert_eq!(found.dialect, expected, "{start:?}");
        }
        let start = read(b"\n\r\nsep=;\r\n\na;b\n", false).unwrap().unwrap();
        assert_eq!((start.skipped, start.lines), (11, 4));
    }

    #[test]
    fn ambiguous_input_makes_the_page_ask() {
        assert_eq!(read(b"a;b,c\n1", true), Err(Problem::Delimiters(',', ';')));
        assert_eq!(read(b"sep=x\na\n", true), Err(Problem::Delimiter("x".to_owned())));
        assert_eq!(read(b"sep=\na\n", true), Err(Problem::Delimiter(String::new())));
    }

    #[test]
    fn more_bytes_are_awaited_only_while_they_may_decide() {
        for start in ["", "a,b", "a,b\r", "\n\n\n\n\n", "\"a\nb\n", "sep=;\n", "sep=;\na;b"] {
            assert_eq!(read(start.as_bytes(), false), Ok(None), "{start:?}");
        }
        let long = [b'x'; ROW_BYTES_MAX + 1];
        assert_eq!(read(&long, false), Err(Problem::RowTooLong(1)));
        for empty in [&b""[..], b"\r\n\n", b"sep=;\n"] {
            assert_eq!(read(empty, true), Err(Problem::Empty));
        }
    }

    proptest! {
        #[test]
        fn any_beginning_is_read_or_refused(start: Vec<u8>, is_end: bool) {
            if let Ok(Some(found)) = read(&start, is_end) {
                prop_assert!(found.skipped < start.len() && DELIMITERS.contains(&found.dialect.delimiter));
            } else if is_end {
                prop_assert!(read(&start, true).is_err());
            }
        }
    }
}
