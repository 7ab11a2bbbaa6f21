//! Links for a whole list: reads a CSV, and prints the same CSV with the links in it.
//!
//! Guarantees: a recipient who has not consented gets a link without a recipient. Nothing is printed unless every row
//! is valid: the answer waits in a file without a name, so a list of any length needs bounded memory. [`crate::lists`]
//! defines what a list may be, as on the admin page.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};

use anyhow::Context;

use crate::lists::doubts::Doubts;
use crate::lists::header::{Consents, Header, Ours};
use crate::lists::reader::{Came, Reader};
use crate::lists::rows::quoted;
use crate::lists::{Problem, cells};

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 1 << 16;

/// The values of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// The message, if the table has one for each row.
    pub(super) message: Option<&'a str>,
    /// The recipient.
    pub(super) recipient: &'a str,
    /// Whether the recipient may be recorded as such.
    pub(super) has_consented: bool,
}

/// The command's options.
#[derive(Debug)]
pub(super) struct Options<'a> {
    /// The column of recipients; may be empty.
    pub(super) column: &'a str,
    /// Who has consented.
    pub(super) consents: Consents<'a>,
    /// Whether to accept the column although it looks wrong.
    pub(super) is_sure: bool,
    /// The columns that are added.
    pub(super) added: &'static [&'static str],
}

/// What was done, for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    rows: u64,
    blank: u64,
    no_consent: u64,
    consent: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { rows, blank, no_consent, consent } = self;
        write!(f, "{} rows read and printed: {} links name their recipient", rows + blank, rows - no_consent)?;
        match consent {
            Some(column) => write!(f, ", {no_consent} do not (no consent in the column {column:?})")?,
            None => write!(f, " (no consent column)")?,
        }
        if *blank > 0 { write!(f, ", {blank} rows are empty") } else { Ok(()) }
    }
}

/// The positions of the columns.
struct Columns {
    recipient: usize,
    message: Option<usize>,
    consent: Option<usize>,
}

impl Columns {
    fn choose(header: &Header, options: &Options<'_>) -> Result<Columns, Problem> {
        Ok(Columns {
            recipient: header.recipients(options.column)?,
            message: header.find("message")?,
            consent: header.consents(options.consents)?,
        })
    }
}

/// The table from `input` with the columns added, which `make` fills, as a file to read.
///
/// # Errors
/// If it is not a list or looks wrong, or if `make` fails, with the row.
pub(super) fn fill(
    input: &mut dyn Read,
    options: &Options<'_>,
    mut make: impl FnMut(Row<'_>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<(File, Summary)> {
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut reader = Reader::new(options.added, Ours::Refuse);
    let (mut columns, mut doubts, mut out) = (None, Doubts::default(), Vec::new());
    let mut summary = Summary { rows: 0, blank: 0, no_consent: 0, consent: None };
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let read = input.read(&mut block).context("cannot read the list")?;
        if read == 0 {
            reader.end()?
        } else {
            reader.push(&block[..read])?
        }
        loop {
            let came = reader.advance()?;
            let Some(header) = reader.header().filter(|_| came != Came::Nothing) else { break };
            match &columns {
                None => {
                    let chosen = Columns::choose(header, options)?;
                    summary.consent = chosen.consent.map(|column| header.name(column).to_owned());
                    columns = Some(chosen);
                    reader.write_header(&mut out);
                }
                Some(columns) => {
                    let cells = links(&reader, header, columns, &mut summary, &mut doubts, &mut make)?;
                    reader.write_rows(&mut out, &cells);
                }
            }
            file.write_all(&out)?;
            out.clear();
        }
        if read == 0 {
            break;
        }
    }
    let (Some(header), Some(columns)) = (reader.header(), &columns) else { return Err(Problem::Empty.into()) };
    if let Some(words) = doubts.words(header.name(columns.recipient)).filter(|_| !options.is_sure) {
        anyhow::bail!("{words} If it is, add --sure; if not, name another column with --column.");
    }
    file.rewind()?;
    Ok((file, summary))
}

/// The cells to add to the rows.
fn links(
    reader: &Reader,
    header: &Header,
    columns: &Columns,
    summary: &mut Summary,
    doubts: &mut Doubts,
    make: &mut impl FnMut(Row<'_>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let mut made = Vec::new();
    for row in reader.batch().rows() {
        let number = row.number();
        if row.is_blank() {
            summary.blank += 1;
            made.extend(std::iter::repeat_n(String::new(), reader.ours()));
            continue;
        }
        let cell = header.recipient(row, columns.recipient)?;
        let no_key = |error| Problem::NoKey { row: number, cell: quoted(cell), error };
        let recipient = cells::recipient(cell).map_err(no_key)?;
        doubts.add(number, recipient.as_deref());
        let recipient = recipient.with_context(|| format!("row {number} has no recipient"))?;
        let message = columns.message.map(|column| header.needed(row, column)).transpose()?;
        let message = message.map(|cell| std::str::from_utf8(cell).unwrap_or_default().trim());
        let has_consented = header.has_consented(row, columns.consent)?;
        summary.rows += 1;
        summary.no_consent += u64::from(!has_consented);
        let row = Row { message, recipient: &recipient, has_consented };
        made.extend(make(row).with_context(|| format!("row {number}"))?);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options<'_> =
        Options { column: "", consents: Consents::Column(""), is_sure: false, added: &["link"] };

    /// What was made of each row, the resulting table, and the notes.
    fn filled(table: impl AsRef<[u8]>, options: &Options<'_>) -> Result<(Vec<String>, String, String), String> {
        let (mut rows, mut output) = (Vec::new(), String::new());
        let made = fill(&mut table.as_ref(), options, |row| {
            let Row { message, recipient, has_consented } = row;
            rows.push(format!("{} {recipient} {has_consented}", message.unwrap_or("-")));
            Ok(vec!["a\"b".to_owned()])
        });
        let (mut file, summary) = made.map_err(|error| format!("{error:#}"))?;
        file.read_to_string(&mut output).unwrap();
        Ok((rows, output, summary.to_string()))
    }

    #[test]
    fn a_table_gets_links_and_missing_consents_are_counted() {
        let table = "\u{feff}name;Recipient ; Opt-In\n\"Doe, Jane\";1;yes\nA; 2 ;No\nB;3;\nC;4;TRUE\n;;\n";
        let (rows, table, summary) = filled(table, &OPTIONS).unwrap();
        assert_eq!(rows, ["- 1 true", "- 2 false", "- 3 false", "- 4 true"]);
        let expected = "\u{feff}name;Recipient ; Opt-In;link\n\"Doe, Jane\";1;yes;\"a\"\"b\"\nA; 2 ;No;\"a\"\"b\"\nB;3;;\"a\"\"b\"\n\
                        C;4;TRUE;\"a\"\"b\"\n;;;\n";
        assert_eq!(table, expected);
        let words = "5 rows read and printed: 2 links name their recipient, 2 do not (no consent in the column \"Opt-In\"), 1 rows are empty";
        assert_eq!(summary, words);
    }

    #[test]
    fn columns_are_as_the_command_says_and_a_message_may_be_each_rows_own() {
        let (rows, _, summary) = filled("message,recipient\r\nmay,1\r\n", &OPTIONS).unwrap();
        let words = "1 rows read and printed: 1 links name their recipient (no consent column)";
        assert_eq!((rows, &*summary), (vec!["may 1 true".to_owned()], words));
        let named = Options { column: "no", consents: Consents::Column("ok"), ..OPTIONS };
        assert_eq!(filled("id,no,ok,consent\n1,2,no,yes\n", &named).unwrap().0, ["- 2 false"]);
        let all = Options { consents: Consents::All, ..OPTIONS };
        assert_eq!(filled("id,consent\n1,never\n", &all).unwrap().0, ["- 1 true"]);
    }

    #[test]
    fn an_uncertain_list_is_refused_with_its_row() {
        for (table, said) in [
            (&b""[..], "The file is empty"),
            (b"email,consent\na@b,yes\n", "The file has \"email\", \"consent\""),
            (b"4711\n4712\n", "No column is called recipient"),
            (b"recipient,consent\n1,yes\n2,maybe\n", "Row 3: consent is \"maybe\""),
            (b"recipient,consent\n1,yes\n,yes\n", "row 3 has no recipient"),
            (b"recipient,consent\n1,yes\n2\n", "Row 3 has 1 cells and ends before the column \"consent\""),
            (b"recipient,name\n1,Doe, Jane\n", "Row 2 has 3 cells"),
            (b"recipient\n1\n\"2\n3\n", "Row 3 begins a cell with a quotation mark that is never closed"),
            (b"recipient,x\n1,\"a\\\"b\"\n", "Row 2 has text after a closing quotation mark"),
            (b"recipient,x\n1,j\xfcrgen\n", "Row 2: \"j\u{fffd}rgen\" is not UTF-8"),
            (b"recipient,link\n1,x\n", "already has a column \"link\""),
            (b"recipient\n{{id}}\n", "Row 2: the recipient \"{{id}}\" cannot be a key"),
            (b"recipient\n7\n7\n7\n", "All 3 rows name the same recipient"),
        ] {
            let error = filled(table, &OPTIONS).unwrap_err();
            assert!(error.contains(said), "{table:?}: {error}");
        }
        let sure = Options { is_sure: true, ..OPTIONS };
        assert!(filled("recipient\n7\n7\n7\n", &sure).is_ok());
    }
}
