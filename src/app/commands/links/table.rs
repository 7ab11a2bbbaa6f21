//! Links for a whole list: a CSV comes in, the same CSV with the links in it goes out, row by row.
//!
//! Guarantees: whoever has not consented gets a link without a recipient, and a word that this does not know is never taken for
//! consent; a row that no link can be made for ends it, with the line, before anything is printed for that row.

use std::io::{Read, Write};

use anyhow::Context;

use crate::link::consent;

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// The message, where the table has one for each row.
    pub(super) message: Option<&'a str>,
    /// The recipient.
    pub(super) recipient: &'a str,
    /// Whether the recipient may be recorded as such.
    pub(super) has_consented: bool,
}

/// Copies the table from `input` to `output`, with the columns `added` behind its own, which `make` fills. Says how many rows there
/// were.
///
/// # Errors
/// Where it is no table, has no column `recipient`, or as `make` says.
pub(super) fn fill<const N: usize>(
    input: impl Read,
    output: impl Write,
    added: [&str; N],
    mut make: impl FnMut(Row<'_>) -> anyhow::Result<[String; N]>,
) -> anyhow::Result<u64> {
    let mut reader = csv::Reader::from_reader(input);
    let mut writer = csv::Writer::from_writer(output);
    let headers = reader.headers().context("the first line is no header")?.clone();
    let column = |name: &str| headers.iter().position(|header| header.trim().eq_ignore_ascii_case(name));
    let names = headers.iter().collect::<Vec<_>>().join(", ");
    let recipient = column("recipient")
        .with_context(|| format!("there is no column named recipient in the header, which has: {names}"))?;
    let (message, consent) = (column("message"), column("consent"));
    writer.write_record(headers.iter().chain(added))?;
    let mut count = 0;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |column: usize| record.get(column).unwrap_or_default().trim();
        let row = Row {
            message: message.map(cell),
            recipient: cell(recipient),
            has_consented: consent
                .map_or(Ok(true), |column| read_consent(cell(column)))
                .with_context(|| format!("line {line}"))?,
        };
        anyhow::ensure!(!row.recipient.is_empty(), "line {line} has no recipient");
        let made = make(row).with_context(|| format!("line {line}"))?;
        writer.write_record(record.iter().chain(made.iter().map(String::as_str)))?;
        count += 1;
    }
    writer.flush()?;
    Ok(count)
}

fn read_consent(text: &str) -> anyhow::Result<bool> {
    consent::read(text.as_bytes()).with_context(|| {
        let (yes, no) = (consent::YES.join(", "), consent::NO.join(", "));
        format!("consent is {text:?}; it can be {yes}, and {no} or nothing for no consent")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was made of each row, and the table that came out.
    fn filled(table: &str) -> Result<(Vec<String>, String), String> {
        let (mut rows, mut output) = (Vec::new(), Vec::new());
        let made = fill(table.as_bytes(), &mut output, ["link"], |row| {
            let Row { message, recipient, has_consented } = row;
            rows.push(format!("{} {recipient} {has_consented}", message.unwrap_or("-")));
            Ok(["a\"b".to_owned()])
        });
        made.map_err(|error| format!("{error:#}"))?;
        Ok((rows, String::from_utf8(output).unwrap()))
    }

    #[test]
    fn a_table_comes_out_with_links_and_who_has_not_consented_is_told() {
        let (rows, table) =
            filled("\u{feff}name,Recipient , CONSENT\n\"Doe, Jane\",1,yes\nA, 2 ,No\nB,3,\nC,4,TRUE\n").unwrap();
        assert_eq!(rows, ["- 1 true", "- 2 false", "- 3 false", "- 4 true"]);
        let expected = "name,Recipient , CONSENT,link\n\"Doe, Jane\",1,yes,\"a\"\"b\"\nA, 2 ,No,\"a\"\"b\"\nB,3,,\"a\"\"b\"\nC,4,TRUE,\"a\"\"b\"\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn without_a_column_for_it_consent_is_the_callers_matter() {
        let (rows, _) = filled("message,recipient\r\nmay,1\r\n").unwrap();
        assert_eq!(rows, ["may 1 true"]);
    }

    #[test]
    fn what_is_no_such_table_is_said_with_its_line() {
        for (table, said) in [
            ("", "no column named recipient"),
            ("email,consent\na@b,yes\n", "which has: email, consent"),
            ("recipient;consent\n1;yes\n", "no column named recipient"),
            ("recipient,consent\n1,yes\n2,maybe\n", "line 3: consent is \"maybe\""),
            ("recipient,consent\n1,yes\n,yes\n", "line 3 has no recipient"),
            ("recipient,consent\n1,yes\n2\n", "line: 3"),
        ] {
            let error = filled(table).unwrap_err();
            assert!(error.contains(said), "{table:?}: {error}");
        }
    }
}
