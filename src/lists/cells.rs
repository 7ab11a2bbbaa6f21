//! What a cell means, and how it is written. Pure.
//!
//! Guarantees: no written cell is a formula in any spreadsheet, whatever delimiter it uses: neither at the cell's
//! beginning, nor after a delimiter or a line break within it, where a spreadsheet with another delimiter would begin a
//! cell. A recipient in such a cell remains the same when an answer is uploaded as a list. Gives up: a sender's key
//! that has an apostrophe before a formula in such a place; it loses the apostrophe.

use std::borrow::Cow;

use super::dialect::DELIMITERS;
use pixeld_core::ids::RecipientId;
use pixeld_core::link::key::{Key, KeyError, Namespace};

/// The beginnings of formulas in some spreadsheet; those of East Asia accept the wide signs.
const FORMULAS: [&str; 8] = ["=", "+", "-", "@", "＝", "＋", "－", "＠"];

/// Bytes before a formula that some spreadsheet removes from the beginning of a cell.
const BLANKS: &[u8] = b"\t\r\n";

/// Whether a text would be a formula at the beginning of a cell.
fn begins_formula(text: &[u8]) -> bool {
    // The wide signs begin with this byte.
    matches!(text, [b'=' | b'+' | b'-' | b'@' | 0xef, ..])
        && FORMULAS.iter().any(|sign| text.starts_with(sign.as_bytes()))
}

/// Whether any reader may begin a cell at `at`: at the beginning, or after a delimiter, a line break and quotation
/// marks.
fn may_begin(cell: &[u8], at: usize) -> bool {
    let before = cell[..at].iter().rev().find(|byte| **byte != b'"');
    before.is_none_or(|byte| b"\r\n".contains(byte) || DELIMITERS.contains(byte))
}

/// Whether the text at `at` needs an apostrophe before it.
fn needs_apostrophe(cell: &[u8], at: usize) -> bool {
    let is_blank = at == 0 && cell.first().is_some_and(|first| BLANKS.contains(first));
    (is_blank || begins_formula(&cell[at..])) && may_begin(cell, at)
}

/// The cell with an apostrophe before everything that may become a formula.
pub(crate) fn neutral(cell: &[u8]) -> Cow<'_, [u8]> {
    if !(0..cell.len()).any(|at| needs_apostrophe(cell, at)) {
        return cell.into();
    }
    let mut out = Vec::with_capacity(cell.len() + 4);
    for (at, byte) in cell.iter().enumerate() {
        if needs_apostrophe(cell, at) {
            out.push(b'\'');
        }
        out.push(*byte);
    }
    out.into()
}

/// The cell without these apostrophes.
fn plain(cell: &str) -> Cow<'_, str> {
    let bytes = cell.as_bytes();
    if !bytes.contains(&b'\'') {
        return cell.into();
    }
    let mut out = Vec::with_capacity(cell.len());
    for (at, byte) in bytes.iter().enumerate() {
        let is_ours = *byte == b'\''
            && may_begin(&out, out.len())
            && (begins_formula(&bytes[at + 1..])
                || (out.is_empty() && bytes.get(at + 1).is_some_and(|next| BLANKS.contains(next))));
        if !is_ours {
            out.push(*byte);
        }
    }
    // Only ASCII was removed.
    String::from_utf8(out).map_or_else(|_| cell.into(), Cow::Owned)
}

/// Writes a cell, quoted if some spreadsheet needs it.
pub(crate) fn write(out: &mut Vec<u8>, cell: &[u8]) {
    let cell = neutral(cell);
    // All delimiters, since another spreadsheet may use a different one than this list; blanks, since one before a
    // quotation mark is refused.
    let is_plain = !cell.iter().any(|byte| b"\"\r\n".contains(byte) || DELIMITERS.contains(byte));
    if is_plain {
        out.extend_from_slice(&cell);
        return;
    }
    out.push(b'"');
    for byte in cell.iter() {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// The text in a formula `="0042"`, with which programs keep spreadsheets from removing zeros.
fn as_text(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix("=\"")?.strip_suffix('"')?;
    (!inner.contains('"')).then_some(inner.trim())
}

/// The recipient in a cell, as it may be in a link; `None` if the cell is empty, or has the nil UUID.
///
/// # Errors
/// If it cannot be a key.
pub(crate) fn recipient(cell: &[u8]) -> Result<Option<Cow<'_, str>>, KeyError> {
    let text = std::str::from_utf8(cell).unwrap_or_default();
    let text = match plain(text) {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    };
    let text = match as_text(&text) {
        Some(inner) => Cow::Owned(inner.to_owned()),
        None => text,
    };
    match Key::typed(&text) {
        Ok(Key::Id(id)) if id.is_nil() => Ok(None),
        Ok(_) => Ok(Some(text)),
        Err(KeyError::Empty) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the recipient in a cell.
///
/// # Errors
/// As [`recipient`].
pub(crate) fn recipient_id(cell: &[u8], namespace: Namespace) -> Result<Option<RecipientId>, KeyError> {
    let Some(text) = recipient(cell)? else { return Ok(None) };
    Key::typed(&text).map(|key| Some(namespace.id_of(&key)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lists::rows::{Batch, Rows};

    fn written(cell: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, cell.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_that_may_become_formulas_are_neutral() {
        for (cell, expected) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\"'\t'=1\""),
            ("\r=1", "\"'\r'=1\""),
            ("＝1", "'＝1"),
            ("=HYPERLINK(\"http://x\";\"y\")", "\"'=HYPERLINK(\"\"http://x\"\";\"\"y\"\")\""),
            ("a=1", "a=1"),
            ("'=1", "'=1"),
            ("", ""),
            ("x;=1+1;y", "\"x;'=1+1;y\""),
            ("x\"|=1|y", "\"x\"\"|'=1|y\""),
            ("x;\"=1\";y", "\"x;\"\"'=1\"\";y\""),
            ("note\n-1", "\"note\n'-1\""),
            ("Berlin, +49 30", "\"Berlin, +49 30\""),
            ("jane-doe@example.com", "jane-doe@example.com"),
        ] {
            assert_eq!(written(cell), expected);
        }
    }

    #[test]
    fn a_recipient_is_a_key_or_an_id_or_nobody() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        for (cell, expected) in [
            ("4711", Ok(Some("4711"))),
            (" jäne@example.com ", Ok(Some("jäne@example.com"))),
            (id, Ok(Some(id))),
            ("'+49 30", Ok(Some("+49 30"))),
            ("+49 30", Ok(Some("+49 30"))),
            ("a;'-5", Ok(Some("a;-5"))),
            ("'x", Ok(Some("'x"))),
            ("=\"0042\"", Ok(Some("0042"))),
            ("'=\"0042\"", Ok(Some("0042"))),
            ("=\"\"", Ok(None)),
            ("=\"a\"&\"b\"", Ok(Some("=\"a\"&\"b\""))),
            ("", Ok(None)),
            ("  ", Ok(None)),
            ("\u{200b}\u{a0}", Ok(None)),
            ("*|UNIQID|*", Err(KeyError::Unmerged)),
            ("00000000-0000-0000-0000-000000000000", Ok(None)),
            (&"x".repeat(129), Err(KeyError::Length)),
        ] {
            assert_eq!(
                recipient(cell.as_bytes()).map(|text| text.map(Cow::into_owned)),
                expected.map(|text| text.map(str::to_owned))
            );
        }
    }

    proptest! {
        #[test]
        fn no_cell_is_a_formula_with_any_delimiter(cells in prop::collection::vec("[-=+@'\",;|\t\r\na \u{ff1d}]{0,8}", 1..4)) {
            let mut line = Vec::new();
            for (at, cell) in cells.iter().enumerate() {
                if at > 0 {
                    line.push(b',');
                }
                write(&mut line, cell.as_bytes());
            }
            line.push(b'\n');
            for delimiter in DELIMITERS {
                for cell in as_spreadsheets_read(&line, delimiter) {
                    prop_assert!(!begins_formula(&cell), "{:?} of {:?}", String::from_utf8_lossy(&cell), String::from_utf8_lossy(&line));
                }
            }
            let (mut rows, mut read) = (Rows::new(b',', 0), Batch::default());
            prop_assert_eq!(rows.read(&mut &line[..], &mut read, 9), Ok(false));
            let back: Vec<Vec<u8>> = read.rows().next().map_or(Vec::new(), |row| row.cells().map(<[u8]>::to_vec).collect());
            let expected: Vec<Vec<u8>> = cells.iter().map(|cell| neutral(cell.as_bytes()).into_owned()).collect();
            // A single empty cell is an empty line.
            prop_assert!(back == expected || (back.is_empty() && expected == [b""]));
        }

        #[test]
        fn a_recipient_is_the_same_after_the_round_trip(key in "[-+=@a;, ]{1,6}") {
            let written = neutral(key.as_bytes());
            prop_assert_eq!(recipient(&written), recipient(key.as_bytes()));
        }
    }

    /// Cells as a lenient reader sees them: quotation marks at the beginning open a cell, and text after the closing
    /// one is appended.
    fn as_spreadsheets_read(line: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
        let (mut cells, mut cell, mut is_begin, mut is_quoted) = (Vec::new(), Vec::new(), true, false);
        let mut bytes = line.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' if is_begin => (is_begin, is_quoted) = (false, true),
                b'"' if is_quoted && bytes.next_if_eq(&b'"').is_some() => cell.push(b'"'),
                b'"' if is_quoted => is_quoted = false,
                byte if !is_quoted && (byte == delimiter || b"\r\n".contains(&byte)) => {
                    cells.push(std::mem::take(&mut cell));
                    is_begin = true;
                }
                byte => {
                    is_begin = false;
                    cell.push(byte);
                }
            }
        }
        cells
    }
}
