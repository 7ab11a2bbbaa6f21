//! From bytes, as they arrive, to a header and batches of rows.
//!
//! Guarantees: the result does not depend on how the bytes are cut; at most one chunk and one row are held. Every row
//! matches the header.

use super::Problem;
use super::dialect::{self, Dialect};
use super::header::{Header, Ours};
use super::rows::{Batch, Rows};
use super::text::{Decoder, MARK};

/// Reads a list.
#[derive(Debug)]
pub(crate) struct Reader {
    ours: &'static [&'static str],
    what: Ours,
    decoder: Decoder,
    /// Text that was not read yet.
    text: Vec<u8>,
    is_end: bool,
    rows: Option<(Dialect, Rows)>,
    header: Option<Header>,
    batch: Batch,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The header: [`Reader::header`].
    Header,
    /// Rows: [`Reader::batch`].
    Rows,
    /// Nothing until more bytes arrive; at the end, nothing at all.
    Nothing,
}

impl Reader {
    /// A reader of a list to which the columns `ours` are added.
    pub(crate) fn new(ours: &'static [&'static str], what: Ours) -> Reader {
        let (decoder, text, batch) = (Decoder::default(), Vec::new(), Batch::default());
        Reader { ours, what, decoder, text, is_end: false, rows: None, header: None, batch }
    }

    /// Adds bytes. First call [`Reader::advance`] until it returns [`Came::Nothing`] for those before.
    ///
    /// # Errors
    /// If it is not a list.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.decoder.push(bytes, &mut self.text)
    }

    /// There are no more bytes.
    ///
    /// # Errors
    /// As [`Reader::push`].
    pub(crate) fn end(&mut self) -> Result<(), Problem> {
        self.is_end = true;
        self.decoder.end(&mut self.text)
    }

    /// Reads on.
    ///
    /// # Errors
    /// If the list is refused.
    pub(crate) fn advance(&mut self) -> Result<Came, Problem> {
        self.batch.clear();
        let Some((_, rows)) = &mut self.rows else { return self.begin() };
        let mut text = &self.text[..];
        let max = if self.header.is_none() { 1 } else { Batch::ROWS_MAX };
        let is_full = rows.read(&mut text, &mut self.batch, max)?;
        let read = self.text.len() - text.len();
        self.text.drain(..read);
        if !is_full && self.is_end {
            rows.end(&mut self.batch)?;
            self.is_end = false;
        }
        match &self.header {
            _ if self.batch.is_empty() => Ok(Came::Nothing),
            Some(header) => {
                self.batch.rows().try_for_each(|row| header.check(row))?;
                Ok(Came::Rows)
            }
            None => {
                self.header = Some(Header::read(&self.batch, self.ours, self.what)?);
                Ok(Came::Header)
            }
        }
    }

    fn begin(&mut self) -> Result<Came, Problem> {
        let Some(start) = dialect::read(&self.text, self.is_end)? else { return Ok(Came::Nothing) };
        let dialect = Dialect { has_mark: self.decoder.has_mark, ..start.dialect };
        self.rows = Some((dialect, Rows::new(dialect.delimiter, start.lines)));
        self.text.drain(..start.skipped);
        self.advance()
    }

    /// The header, once it was read.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// How many columns are added.
    pub(crate) fn ours(&self) -> usize {
        self.ours.len()
    }

    /// The rows that were read.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Writes the header of the answer, and what the list has before it.
    pub(crate) fn write_header(&self, out: &mut Vec<u8>) {
        let Some((dialect, _)) = &self.rows else { return };
        if dialect.has_mark {
            out.extend_from_slice(MARK);
        }
        if dialect.has_sep {
            out.extend_from_slice(b"sep=");
            out.push(dialect.delimiter);
            out.extend_from_slice(dialect.line_end);
        }
        if let (Some(header), Some(row)) = (&self.header, self.batch.rows().next()) {
            header.write(out, *dialect, row, self.ours);
        }
    }

    /// Writes the rows that were read, each with as many of `cells` as columns are added.
    pub(crate) fn write_rows<T: AsRef<str>>(&self, out: &mut Vec<u8>, cells: &[T]) {
        let (Some((dialect, _)), Some(header)) = (&self.rows, &self.header) else { return };
        for (row, ours) in self.batch.rows().zip(cells.chunks_exact(self.ours.len())) {
            header.write(out, *dialect, row, ours);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to a list, with one column added.
    fn answered(list: &[u8], cut: usize) -> Result<String, Problem> {
        let (mut reader, mut out) = (Reader::new(&["x"], Ours::Replace), Vec::new());
        let mut take = |reader: &mut Reader| loop {
            match reader.advance()? {
                Came::Nothing => return Ok(()),
                Came::Header => reader.write_header(&mut out),
                Came::Rows => reader.write_rows(&mut out, &vec!["y"; reader.batch().len()]),
            }
        };
        for chunk in list.chunks(cut) {
            reader.push(chunk)?;
            take(&mut reader)?;
        }
        reader.end()?;
        take(&mut reader)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn lists_as_programs_write_them_come_back_as_they_were_written() {
        let utf_16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        for (list, expected) in [
            (b"id,n\n1,2\n".to_vec(), "id,n,x\n1,2,y\n"),
            (b"\xef\xbb\xbfid;n\r\n1;\"a\nb\"\r\n".to_vec(), "\u{feff}id;n;x\r\n1;\"a\nb\";y\r\n"),
            (b"sep=;\r\nid;n\r\n1;2".to_vec(), "sep=;\r\nid;n;x\r\n1;2;y\r\n"),
            (b"\xef\xbb\xbfsep=|\nid|n\n1|a,b\n".to_vec(), "\u{feff}sep=|\nid|n|x\n1|\"a,b\"|y\n"),
            (b"id|n\r1|2\r".to_vec(), "id|n|x\r1|2|y\r"),
            (utf_16("\u{feff}id\tn\r\n1\t\u{e4}\u{1f600}\r\n"), "\u{feff}id\tn\tx\r\n1\t\u{e4}\u{1f600}\ty\r\n"),
            (b"id,n\n\n,,,\n1,2,,\n3\n".to_vec(), "id,n,x\n,,y\n1,2,y\n3,,y\n"),
        ] {
            for cut in [1, 2, 3, 7, 1000] {
                assert_eq!(answered(&list, cut).as_deref(), Ok(expected), "{cut}");
            }
        }
        for (list, problem) in [
            (&b""[..], Problem::Empty),
            (b"\xef\xbb\xbf\r\n", Problem::Empty),
            (b"id,n\n1,2,3\n", Problem::TooWide { row: 2, cells: 3, columns: 2 }),
            (b"sep=;\nid;n\n\n1;2;3\n", Problem::TooWide { row: 4, cells: 3, columns: 2 }),
            (b"id,n\n1,\"2\n", Problem::Unclosed(2)),
            (b"a\0b\n", Problem::NotText(1)),
        ] {
            for cut in [1, 3, 1000] {
                assert_eq!(answered(list, cut), Err(problem.clone()), "{cut}");
            }
        }
    }
}
