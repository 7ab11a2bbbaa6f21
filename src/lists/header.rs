//! The names of a list's columns, and the purpose of each. Pure.
//!
//! Guarantees: a column is used because it was named, or because its name says what it holds, never because it is the
//! first. If two columns share a name that is needed, the list is refused.

use super::Problem;
use super::cells;
use super::consent;
use super::dialect::Dialect;
use super::rows::{Batch, Row, quoted};
use pixeld_core::link::parse_uuid;

/// Maximum columns that a problem names.
const NAMED_MAX: usize = 30;

/// Whose links may name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consents<'a> {
    /// Those for whom the column with this name says yes. If it is empty: the column whose name says consent, if there
    /// is one.
    Column(&'a str),
    /// Everybody's: the sender says that all have agreed.
    All,
}

/// What happens to a list's columns that have our names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ours {
    /// They are left out: nobody else uses these names.
    Replace,
    /// The list is refused.
    Refuse,
}

/// The names.
#[derive(Debug)]
pub(crate) struct Header {
    names: Vec<String>,
    /// Those that stay in the answer.
    kept: Vec<usize>,
}

impl Header {
    /// Reads the first row of a batch. `ours` are the columns that are added.
    ///
    /// # Errors
    /// If it is not a header, or has one of our columns that is not allowed there.
    pub(crate) fn read(batch: &Batch, ours: &[&str], what: Ours) -> Result<Header, Problem> {
        let row = batch.rows().next().ok_or(Problem::Empty)?;
        let names: Vec<String> = row.cells().map(|cell| one_line(&String::from_utf8_lossy(cell))).collect();
        if row.is_blank() {
            return Err(Problem::NoHeader);
        }
        let is_value = |name: &&String| parse_uuid::<uuid::Uuid>(name.as_bytes()).is_some() || is_address(name);
        if let Some(value) = names.iter().find(is_value) {
            return Err(Problem::RowAsHeader(value.clone()));
        }
        let is_ours = |name: &str| ours.contains(&name);
        match names.iter().find(|name| is_ours(name)) {
            Some(name) if what == Ours::Refuse => return Err(Problem::Taken(name.clone())),
            _ => {}
        }
        let kept = names.iter().enumerate().filter(|(_, name)| !is_ours(name)).map(|(at, _)| at);
        Ok(Header { kept: kept.collect(), names })
    }

    /// The name of a column.
    pub(crate) fn name(&self, column: usize) -> &str {
        self.names.get(column).map_or("", String::as_str)
    }

    /// The column with a name: spelt exactly so, or else in any case.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub(crate) fn column(&self, name: &str) -> Result<usize, Problem> {
        let name = one_line(name);
        self.find(&name)?.ok_or_else(|| Problem::NoColumn { known: self.listed(), asked: name })
    }

    /// As [`Header::column`]; `None` if there is none.
    ///
    /// # Errors
    /// If there is more than one.
    pub(crate) fn find(&self, name: &str) -> Result<Option<usize>, Problem> {
        let lower = name.to_lowercase();
        let exact: Vec<usize> = self.columns(|known| known == name);
        let found = if exact.is_empty() { self.columns(|known| known.to_lowercase() == lower) } else { exact };
        match found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Problem::TwoColumns(name.to_owned())),
        }
    }

    fn columns(&self, is_it: impl Fn(&str) -> bool) -> Vec<usize> {
        self.names.iter().enumerate().filter(|(_, name)| is_it(name)).map(|(at, _)| at).collect()
    }

    /// The column of recipients: with this name or, if that is empty, `recipient` or else `id`.
    ///
    /// # Errors
    /// As [`Header::column`].
    pub(crate) fn recipients(&self, name: &str) -> Result<usize, Problem> {
        if !name.trim().is_empty() {
            return self.column(name);
        }
        for name in ["recipient", "id"] {
            if let Some(column) = self.find(name)? {
                return Ok(column);
            }
        }
        Err(Problem::WhichRecipients { known: self.listed() })
    }

    /// The column of consents; `None` if all may be named.
    ///
    /// # Errors
    /// If the named column does not exist, or if it is not certain which one it is.
    pub(crate) fn consents(&self, consents: Consents<'_>) -> Result<Option<usize>, Problem> {
        match consents {
            Consents::All => return Ok(None),
            Consents::Column(name) if !name.trim().is_empty() => return self.column(name).map(Some),
            Consents::Column(_) => {}
        }
        let sounding = |sound| self.columns(|name| consent::sounds(name) == sound);
        let maybe = sounding(consent::Sounds::Maybe);
        match (&sounding(consent::Sounds::Certain)[..], &sounding(consent::Sounds::Opposite)[..]) {
            ([one], []) => Ok(Some(*one)),
            ([] | [_], [opposite, ..]) => Err(Problem::OptOuts(self.names[*opposite].clone())),
            ([], []) if maybe.is_empty() => self.find(consent::IN_LINK),
            ([], []) => Err(Problem::WhichConsents(self.list(maybe.into_iter()))),
            (several, _) => Err(Problem::WhichConsents(self.list(several.iter().copied()))),
        }
    }

    /// Refuses a row that does not match the header.
    ///
    /// # Errors
    /// If it has more cells.
    pub(crate) fn check(&self, row: Row<'_>) -> Result<(), Problem> {
        let columns = self.names.len();
        let is_header = |row: Row<'_>| {
            let cells = row.cells().map(|cell| String::from_utf8_lossy(cell));
            cells.zip(&self.names).all(|(cell, name)| one_line(cell.trim_start_matches('\u{feff}')) == **name)
        };
        // Lists that were concatenated.
        if row.number() > 1 && row.width() == columns && !row.is_blank() && is_header(row) {
            return Err(Problem::HeaderAgain(row.number()));
        }
        if columns > 1 && row.width() == 1 && row.cell(0).iter().any(|byte| b",;\t".contains(byte)) {
            return Err(Problem::OtherDelimiter(row.number()));
        }
        // Some spreadsheets save empty cells at the end of all rows.
        let cells = (columns..row.width()).rev().find(|at| !row.cell(*at).trim_ascii().is_empty()).map(|at| at + 1);
        // The header of one column shows no delimiter; `|` may be part of a merge tag, and is reported elsewhere.
        let parts = row.cell(0).split(|byte| b";\t".contains(byte)).count();
        match cells.or((columns == 1 && parts > 1).then_some(parts)) {
            Some(cells) => Err(Problem::TooWide { row: row.number(), cells, columns }),
            None => Ok(()),
        }
    }

    /// The cell of a row in a column that is needed.
    ///
    /// # Errors
    /// If the row ends before it.
    pub(crate) fn needed<'r>(&self, row: Row<'r>, column: usize) -> Result<&'r [u8], Problem> {
        if column < row.width() || row.is_blank() {
            return Ok(row.cell(column));
        }
        Err(Problem::TooShort { row: row.number(), cells: row.width(), column: self.name(column).to_owned() })
    }

    /// Whether a row's recipient may be named, by the column of consents.
    ///
    /// # Errors
    /// If the cell says neither yes nor no.
    pub(crate) fn has_consented(&self, row: Row<'_>, column: Option<usize>) -> Result<bool, Problem> {
        let Some(column) = column else { return Ok(true) };
        let cell = self.needed(row, column)?;
        consent::read(cell).ok_or_else(|| Problem::Consent {
            row: row.number(),
            column: self.name(column).to_owned(),
            word: quoted(cell),
        })
    }

    /// The cell of a row's recipient.
    ///
    /// # Errors
    /// If it is not certain who that is.
    pub(crate) fn recipient<'r>(&self, row: Row<'r>, column: usize) -> Result<&'r [u8], Problem> {
        let cell = self.needed(row, column)?;
        let text = cell.trim_ascii();
        if text.iter().any(|byte| b"\r\n".contains(byte)) {
            return Err(Problem::Broken(row.number()));
        }
        // What programs put in place of an unknown letter.
        if text.windows(3).any(|letter| letter == "\u{fffd}".as_bytes()) {
            return Err(Problem::LostLetter { row: row.number(), cell: quoted(text) });
        }
        Ok(cell)
    }

    /// Writes a row of the answer: the list's columns, then ours.
    pub(crate) fn write<T: AsRef<str>>(&self, out: &mut Vec<u8>, dialect: Dialect, row: Row<'_>, ours: &[T]) {
        let theirs = self.kept.iter().map(|at| row.cell(*at));
        let cells = theirs.chain(ours.iter().map(|cell| cell.as_ref().as_bytes()));
        for (at, cell) in cells.enumerate() {
            if at > 0 {
                out.push(dialect.delimiter);
            }
            cells::write(out, cell);
        }
        out.extend_from_slice(dialect.line_end);
    }

    fn listed(&self) -> String {
        let listed = self.list(0..self.names.len().min(NAMED_MAX));
        match self.names.len().saturating_sub(NAMED_MAX) {
            0 => listed,
            more => format!("{listed}, {more} more"),
        }
    }

    fn list(&self, columns: impl Iterator<Item = usize>) -> String {
        let names: Vec<String> = columns.map(|column| format!("{:?}", quoted(self.name(column).as_bytes()))).collect();
        names.join(", ")
    }
}

/// A name as people can type it: without the line breaks of a wrapped cell.
fn one_line(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether it looks like an e-mail address.
fn is_address(text: &str) -> bool {
    let host = text.split_once('@').filter(|(name, _)| !name.is_empty()).map_or("", |(_, host)| host);
    host.contains('.') && !text.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::rows::Rows;

    fn batch(list: &str) -> Batch {
        let (mut rows, mut batch) = (Rows::new(b',', 0), Batch::default());
        assert!(!rows.read(&mut list.as_bytes(), &mut batch, 1000).unwrap());
        rows.end(&mut batch).unwrap();
        batch
    }

    fn header(line: &str) -> Result<Header, Problem> {
        Header::read(&batch(line), &["pixeld_link"], Ours::Replace)
    }

    #[test]
    fn columns_are_found_by_name_and_never_guessed() {
        let found = header("Name, ID ,id,e-mail").unwrap();
        assert_eq!(
            (found.column("id"), found.column("Id"), found.column("NAME")),
            (Ok(2), Err(Problem::TwoColumns("Id".to_owned())), Ok(0))
        );
        assert_eq!(found.recipients(""), Ok(2));
        assert_eq!(header("x,\"Kunden\r\nnummer\"").unwrap().column("kunden  nummer"), Ok(1));
        assert_eq!(found.recipients("E-Mail"), Ok(3));
        assert_eq!(header("Mail,Recipient,id").unwrap().recipients(" "), Ok(1));
        assert_eq!(
            header("Mail,Name").unwrap().recipients("").unwrap_err().to_string(),
            "No column is called recipient or id. Name the column with the recipients. The file has \"Mail\", \"Name\"."
        );
        assert_eq!(header("id,name,id").unwrap().recipients(""), Err(Problem::TwoColumns("id".to_owned())));
        let problem = found.column("mail").unwrap_err().to_string();
        assert_eq!(problem, "There is no column \"mail\". The file has \"Name\", \"ID\", \"id\", \"e-mail\".");
        assert_eq!(header(", ,\n1,2").err(), Some(Problem::NoHeader));
        for value in ["jane@example.com", "01234567-89ab-cdef-0123-456789abcdef"] {
            assert_eq!(header(&format!("1,{value}\n")).err(), Some(Problem::RowAsHeader(value.to_owned())));
        }
        let wide = header(&vec!["x"; 40].join(",")).unwrap().column("y").unwrap_err().to_string();
        assert!(wide.ends_with(", 10 more."), "{wide}");
        assert_eq!(
            Header::read(&batch("id,tag\n"), &["link", "tag"], Ours::Refuse).err(),
            Some(Problem::Taken("tag".to_owned()))
        );
    }

    #[test]
    fn a_column_of_consents_is_used_by_its_name_and_asked_about_where_it_is_not_certain() {
        let consents = |line: &str, asked| header(line).unwrap().consents(Consents::Column(asked));
        for name in [
            "consent",
            "Consent",
            "Opt-In",
            "OPT_IN",
            "opted in",
            "has_consent",
            "Einwilligung",
            "GDPR",
            "agreed",
            "gdpr_consent",
        ] {
            assert_eq!(consents(&format!("id,{name}"), ""), Ok(Some(1)), "{name}");
        }
        for name in ["name", "content", "confirmed", "option"] {
            assert_eq!(consents(&format!("id,{name}"), ""), Ok(None), "{name}");
        }
        assert_eq!(consents("id,consent,ok", "OK"), Ok(Some(2)));
        assert_eq!(consents("id,consent,gdpr", ""), Err(Problem::WhichConsents("\"consent\", \"gdpr\"".to_owned())));
        assert_eq!(consents("id,Opt out", ""), Err(Problem::OptOuts("Opt out".to_owned())));
        assert_eq!(consents("id,unsubscribed,consent", ""), Err(Problem::OptOuts("unsubscribed".to_owned())));
        assert_eq!(consents("id,unsubscribed,consent", "consent"), Ok(Some(2)));
        assert_eq!(consents("id,consent_date,consent", ""), Ok(Some(2)));
        assert_eq!(consents("id,OPTIN_TIME", ""), Err(Problem::WhichConsents("\"OPTIN_TIME\"".to_owned())));
        // The column that made the links counts, even if the column of consents was removed from their list.
        assert_eq!(consents("id,pixeld_recipient_in_link", ""), Ok(Some(1)));
        assert_eq!(header("id,consent,opt_out").unwrap().consents(Consents::All), Ok(None));
    }

    #[test]
    fn rows_that_do_not_go_with_the_header_are_refused_and_short_ones_filled_up() {
        let list = batch("a,pixeld_link,b\n1\n1,old,2\n1,old,2,, \n1,old,2,3\n");
        let header = Header::read(&list, &["pixeld_link"], Ours::Replace).unwrap();
        let dialect = Dialect { delimiter: b';', line_end: b"\r\n", has_mark: false, has_sep: false };
        let (mut out, mut checked) = (Vec::new(), Vec::new());
        for row in list.rows() {
            checked.push(header.check(row));
            header.write(&mut out, dialect, row, &["L"]);
        }
        assert_eq!(String::from_utf8(out).unwrap(), "a;b;L\r\n1;;L\r\n1;2;L\r\n1;2;L\r\n1;2;L\r\n");
        assert_eq!(checked, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Problem::TooWide { row: 5, cells: 4, columns: 3 })]);
        let short = list.rows().nth(1).unwrap();
        assert_eq!(header.needed(short, 0), Ok(&b"1"[..]));
        assert_eq!(header.needed(short, 2), Err(Problem::TooShort { row: 2, cells: 1, column: "b".to_owned() }));
        let one = batch("id\n1;2\n");
        let header = Header::read(&one, &[], Ours::Replace).unwrap();
        assert_eq!(header.check(one.rows().nth(1).unwrap()), Err(Problem::TooWide { row: 2, cells: 2, columns: 1 }));
    }

    #[test]
    fn a_second_header_and_a_row_with_another_delimiter_are_refused() {
        for (list, problem) in [
            ("id,n\n1,a\nid,n\n", Problem::HeaderAgain(3)),
            ("id,n\n\u{feff}id, n\n", Problem::HeaderAgain(2)),
            ("id,n\n1;a\n", Problem::OtherDelimiter(2)),
            ("id,n\n1\ta\n", Problem::OtherDelimiter(2)),
        ] {
            let list = batch(list);
            let header = Header::read(&list, &[], Ours::Replace).unwrap();
            let found = list.rows().skip(1).find_map(|row| header.check(row).err());
            assert_eq!(found, Some(problem));
        }
    }

    #[test]
    fn a_recipient_that_was_cut_or_mangled_is_refused() {
        let list = batch("id,x\nj\u{fffd}ne,1\n\"a\nb\",2\nj\u{e4}ne,3\n");
        let header = Header::read(&list, &[], Ours::Replace).unwrap();
        let read: Vec<_> = list.rows().skip(1).map(|row| header.recipient(row, 0)).collect();
        let lost = Problem::LostLetter { row: 2, cell: "j\u{fffd}ne".to_owned() };
        assert_eq!(read, [Err(lost), Err(Problem::Broken(3)), Ok("j\u{e4}ne".as_bytes())]);
    }
}
