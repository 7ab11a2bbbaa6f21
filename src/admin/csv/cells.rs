//! What a cell says, and how it is written. Pure.
//!
//! Guarantees: no cell that is written begins as a formula does, in any spreadsheet that reads it, whatever delimiter that takes; a
//! recipient in such a cell is still the same one when an answer comes back as a list. Gives up: a key of the sender's that begins with
//! an apostrophe and then as a formula; it loses the apostrophe.

use uuid::Uuid;

use super::rows::{Batch, DELIMITERS, Dialect, Problem, Row};
use crate::link::key::{Key, Namespace};
use crate::link::parse_uuid;

/// What formulas begin with, in some spreadsheet: the wide signs in those of East Asia.
const FORMULAS: [&str; 11] = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"];

/// Columns that a problem names at most.
const NAMED_MAX: usize = 30;

/// Whether a spreadsheet may take a cell for a formula.
#[must_use]
pub fn is_formula(cell: &[u8]) -> bool {
    FORMULAS.iter().any(|begin| cell.starts_with(begin.as_bytes()))
}

/// Writes a cell: one that begins as a formula gets an apostrophe before it.
pub fn write(out: &mut Vec<u8>, cell: &[u8]) {
    let neutral: &[u8] = if is_formula(cell) { b"'" } else { b"" };
    // All delimiters, since a spreadsheet elsewhere may take another one than this list has.
    let is_plain = !cell.iter().any(|byte| b"\"\r\n".contains(byte) || DELIMITERS.contains(byte));
    if is_plain {
        out.extend_from_slice(neutral);
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(neutral);
    for byte in cell {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// The recipient that a cell names, as it may stand in a link; nothing where it names none.
#[must_use]
pub fn recipient(cell: &[u8]) -> Option<&str> {
    let cell = match cell {
        [b'\'', rest @ ..] if is_formula(rest) => rest,
        cell => cell,
    };
    let text = std::str::from_utf8(cell).ok()?.trim();
    match Key::typed(text) {
        Ok(Key::Id(id)) if id.is_nil() => None,
        Ok(_) => Some(text),
        Err(_) => None,
    }
}

/// The id of that recipient.
#[must_use]
pub fn recipient_id(cell: &[u8], namespace: Namespace) -> Option<Uuid> {
    Key::typed(recipient(cell)?).ok().map(|key| namespace.id_of(&key))
}

/// The names of a list's columns.
pub struct Header {
    names: Vec<String>,
    /// Those that the answer has, too.
    kept: Vec<usize>,
}

impl Header {
    /// Reads the first row of a batch. Columns with a name of `ours` are left out of the answer.
    ///
    /// # Errors
    /// Where it is no header.
    pub fn read(batch: &Batch, ours: &[&str]) -> Result<Header, Problem> {
        let row = batch.rows().next().ok_or(Problem::Empty)?;
        let names: Vec<String> = row.cells().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
        if names.iter().all(String::is_empty) {
            return Err(Problem::NoHeader);
        }
        let is_value = |name: &&String| parse_uuid(name.as_bytes()).is_some() || is_address(name);
        if let Some(value) = names.iter().find(is_value) {
            return Err(Problem::RowAsHeader(value.clone()));
        }
        let kept = names.iter().enumerate().filter(|(_, name)| !ours.contains(&name.as_str())).map(|(at, _)| at);
        Ok(Header { kept: kept.collect(), names })
    }

    /// The column of a name: spelt exactly so, else in any case.
    ///
    /// # Errors
    /// Where there is none.
    pub fn column(&self, name: &str) -> Result<usize, Problem> {
        let name = name.trim();
        let exact = self.names.iter().position(|known| known == name);
        let alike = || self.names.iter().position(|known| known.to_lowercase() == name.to_lowercase());
        exact.or_else(alike).ok_or_else(|| Problem::NoColumn { asked: name.to_owned(), known: self.listed() })
    }

    /// The column of recipients: of this name, else `recipient`, else `id`, else the first.
    ///
    /// # Errors
    /// As [`Header::column`].
    pub fn recipients(&self, name: &str) -> Result<usize, Problem> {
        if !name.trim().is_empty() {
            return self.column(name);
        }
        Ok(self.column("recipient").or_else(|_| self.column("id")).unwrap_or(0))
    }

    /// Writes a row of the answer: the list's columns, ours, and what the row has beyond the header.
    pub fn write<T: AsRef<str>>(&self, out: &mut Vec<u8>, dialect: Dialect, row: Row<'_>, ours: &[T]) {
        let beyond = self.names.len()..row.width();
        let theirs = self.kept.iter().map(|at| row.cell(*at));
        let cells = theirs.chain(ours.iter().map(|cell| cell.as_ref().as_bytes())).chain(beyond.map(|at| row.cell(at)));
        for (at, cell) in cells.enumerate() {
            if at > 0 {
                out.push(dialect.delimiter);
            }
            write(out, cell);
        }
        out.extend_from_slice(dialect.line_end);
    }

    fn listed(&self) -> String {
        let mut listed: Vec<String> = self
            .names
            .iter()
            .take(NAMED_MAX)
            .map(|name| format!("{:?}", name.chars().take(60).collect::<String>()))
            .collect();
        if self.names.len() > NAMED_MAX {
            listed.push(format!("{} more", self.names.len() - NAMED_MAX));
        }
        listed.join(", ")
    }
}

/// Whether it looks like an e-mail address.
fn is_address(text: &str) -> bool {
    let host = text.split_once('@').filter(|(name, _)| !name.is_empty()).map_or("", |(_, host)| host);
    host.contains('.') && !text.contains(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::csv::rows::Rows;

    fn batch(list: &str) -> Batch {
        let (mut rows, mut batch) = (Rows::new(b','), Batch::default());
        assert!(!rows.read(&mut list.as_bytes(), &mut batch, 1000).unwrap());
        rows.end(&mut batch).unwrap();
        batch
    }

    fn written(cell: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, cell.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_that_begin_as_formulas_do_are_neutral() {
        for (cell, expected) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("＝1", "'＝1"),
            ("=HYPERLINK(\"http://x\";\"y\")", "\"'=HYPERLINK(\"\"http://x\"\";\"\"y\"\")\""),
            ("a=1", "a=1"),
            ("'=1", "'=1"),
            ("", ""),
            ("a;=1", "\"a;=1\""),
        ] {
            assert_eq!(written(cell), expected);
        }
    }

    #[test]
    fn a_recipient_is_a_key_or_an_id_or_nobody() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        for (cell, expected) in [
            ("4711", Some("4711")),
            (" jäne@example.com ", Some("jäne@example.com")),
            (id, Some(id)),
            ("'+49 30", Some("+49 30")),
            ("+49 30", Some("+49 30")),
            ("'x", Some("'x")),
            ("", None),
            ("  ", None),
            ("*|UNIQID|*", None),
            ("00000000-0000-0000-0000-000000000000", None),
            (&"x".repeat(129), None),
        ] {
            assert_eq!(recipient(cell.as_bytes()), expected, "{cell}");
        }
        assert_eq!(recipient(b"j\xe4ne"), None);
    }

    #[test]
    fn columns_are_found_by_name_and_what_is_there_is_named() {
        let header = |line: &str| Header::read(&batch(line), &["pixeld_link"]);
        let found = header("Name, ID ,id,e-mail").unwrap();
        assert_eq!((found.column("id"), found.column("Id"), found.column("NAME")), (Ok(2), Ok(1), Ok(0)));
        assert_eq!(found.recipients(""), Ok(2));
        assert_eq!(found.recipients("E-Mail"), Ok(3));
        assert_eq!(header("Mail,Recipient,id").unwrap().recipients(" "), Ok(1));
        assert_eq!(header("Mail,Name").unwrap().recipients(""), Ok(0));
        let problem = found.column("mail").unwrap_err().to_string();
        assert_eq!(problem, "There is no column \"mail\". The file has \"Name\", \"ID\", \"id\", \"e-mail\".");
        assert_eq!(header(", ,\n1,2").err(), Some(Problem::NoHeader));
        for value in ["jane@example.com", "01234567-89ab-cdef-0123-456789abcdef"] {
            assert_eq!(header(&format!("1,{value}\n")).err(), Some(Problem::RowAsHeader(value.to_owned())));
        }
        let wide = header(&vec!["x"; 40].join(",")).unwrap().column("y").unwrap_err().to_string();
        assert!(wide.ends_with(", 10 more."), "{wide}");
    }

    #[test]
    fn uneven_rows_keep_our_columns_under_their_names() {
        let list = batch("a,pixeld_link,b\n1\n1,old,2\n1,old,2,3,=4\n");
        let header = Header::read(&list, &["pixeld_link"]).unwrap();
        let dialect = Dialect { delimiter: b';', line_end: b"\r\n", has_mark: false };
        let mut out = Vec::new();
        for row in list.rows() {
            header.write(&mut out, dialect, row, &["L"]);
        }
        assert_eq!(String::from_utf8(out).unwrap(), "a;b;L\r\n1;;L\r\n1;2;L\r\n1;2;L;3;'=4\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_one_cell_that_is_no_formula(cell in "[-=+@'\",;\t\r\na\u{ff1d}]{0,8}") {
            for delimiter in DELIMITERS {
                let list = format!("{}{}x\n", written(&cell), char::from(delimiter));
                let (mut rows, mut read) = (Rows::new(delimiter), Batch::default());
                rows.read(&mut list.as_bytes(), &mut read, 1000).unwrap();
                let row = read.rows().next().unwrap();
                prop_assert_eq!((read.len(), row.width()), (1, 2));
                prop_assert!(!is_formula(row.cell(0)));
                let neutral = if is_formula(cell.as_bytes()) { format!("'{cell}") } else { cell.clone() };
                prop_assert_eq!(row.cell(0), neutral.as_bytes());
            }
        }

        #[test]
        fn a_recipient_is_the_same_after_the_round_trip(key in "[-+=@a' ]{1,6}") {
            prop_assume!(!(key.starts_with('\'') && is_formula(&key.as_bytes()[1..])));
            let written = written(&key);
            prop_assert_eq!(recipient(written.as_bytes()), recipient(key.as_bytes()));
        }
    }
}
