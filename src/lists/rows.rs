//! From UTF-8 to rows, as it arrives. Pure.
//!
//! Guarantees: the same bytes give the same rows, however they are cut, and no row of more than [`ROW_BYTES_MAX`] bytes
//! or [`CELLS_MAX`] cells is held. Every row is UTF-8 without NUL. Where a lenient reader would guess, this one reports
//! a problem: a quotation mark that is never closed, text after a closing one, a blank before one. No crate does that,
//! so this reader is our own. Within a cell that does not begin with a quotation mark, a quotation mark is an ordinary
//! character.

use super::Problem;

/// Maximum bytes of a row.
pub(crate) const ROW_BYTES_MAX: usize = 64 << 10;

/// Maximum cells of a row.
pub(crate) const CELLS_MAX: usize = 4096;

/// Characters of a cell that a problem quotes.
const QUOTED_CHARS: usize = 60;

/// The position of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RowBegin,
    CellBegin,
    /// Only blanks of a cell were read.
    Blank,
    Plain,
    Quoted,
    /// After a quotation mark within quotation marks: it closes, unless another one follows.
    Closed,
}

/// Reads rows.
#[derive(Debug)]
pub(crate) struct Rows {
    delimiter: u8,
    at: At,
    /// Whether the last byte was a CR: an LF after it belongs to it.
    is_after_cr: bool,
    /// The current row.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Rows and empty lines so far.
    count: u64,
}

impl Rows {
    /// For a list with this delimiter, after `lines` that are not rows.
    pub(crate) fn new(delimiter: u8, lines: u64) -> Rows {
        let (bytes, ends) = (Vec::new(), Vec::new());
        Rows { delimiter, at: At::RowBegin, is_after_cr: false, bytes, ends, count: lines }
    }

    /// Reads rows from the front of `input` into a batch. Returns whether the batch is full, by its own bounds or with
    /// `max` rows; if not, all of the input was read.
    ///
    /// # Errors
    /// If a row is too long or ambiguous.
    pub(crate) fn read(&mut self, input: &mut &[u8], batch: &mut Batch, max: usize) -> Result<bool, Problem> {
        while let [byte, rest @ ..] = input {
            if self.at == At::Plain || self.at == At::Quoted {
                self.take_run(input);
                if let [byte, rest @ ..] = input {
                    *input = rest;
                    if self.step(*byte, batch)? && (batch.len() >= max || batch.is_full()) {
                        return Ok(true);
                    }
                }
            } else {
                *input = rest;
                if self.step(*byte, batch)? && (batch.len() >= max || batch.is_full()) {
                    return Ok(true);
                }
            }
            if self.bytes.len() > ROW_BYTES_MAX || self.ends.len() > CELLS_MAX {
                return Err(Problem::RowTooLong(self.row()));
            }
        }
        Ok(false)
    }

    /// Ends the last row, if it had no line end.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub(crate) fn end(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        match self.at {
            At::Quoted => Err(Problem::Unclosed(self.row())),
            At::RowBegin => Ok(()),
            _ => self.end_row(batch),
        }
    }

    /// The number of the current row.
    fn row(&self) -> u64 {
        self.count + 1
    }

    /// Reads ordinary bytes of a cell, as many as a row may have.
    fn take_run(&mut self, input: &mut &[u8]) {
        let is_quoted = self.at == At::Quoted;
        let means = |byte: &u8| match byte {
            b'"' => is_quoted,
            b'\r' | b'\n' => !is_quoted,
            byte => *byte == self.delimiter && !is_quoted,
        };
        let room = (ROW_BYTES_MAX + 1).saturating_sub(self.bytes.len()).min(input.len());
        let length = input[..room].iter().position(means).unwrap_or(room);
        self.bytes.extend_from_slice(&input[..length]);
        *input = &input[length..];
    }

    /// Reads a byte. Returns whether it ended a row.
    fn step(&mut self, byte: u8, batch: &mut Batch) -> Result<bool, Problem> {
        let is_second_half = std::mem::take(&mut self.is_after_cr) && byte == b'\n';
        if self.at == At::RowBegin {
            match byte {
                b'\n' if is_second_half => return Ok(false),
                b'\r' | b'\n' => {
                    self.is_after_cr = byte == b'\r';
                    self.count += 1;
                    return Ok(false);
                }
                _ => self.at = At::CellBegin,
            }
        }
        self.at = match (self.at, byte) {
            (At::CellBegin, b'"') => At::Quoted,
            (At::Blank, b'"') => return Err(Problem::BlankBeforeQuote(self.row())),
            (At::Quoted, b'"') => At::Closed,
            (At::Closed, b'"') | (At::Quoted, _) => {
                self.bytes.push(byte);
                At::Quoted
            }
            (_, byte) if byte == self.delimiter => {
                self.ends.push(self.bytes.len());
                At::CellBegin
            }
            (_, b'\r' | b'\n') => {
                self.is_after_cr = byte == b'\r';
                self.end_row(batch)?;
                return Ok(true);
            }
            (At::Closed, _) => return Err(Problem::AfterQuote(self.row())),
            (at, _) => {
                self.bytes.push(byte);
                if byte == b' ' && at != At::Plain { At::Blank } else { At::Plain }
            }
        };
        Ok(false)
    }

    fn end_row(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        self.ends.push(self.bytes.len());
        if self.bytes.len() > ROW_BYTES_MAX || self.ends.len() > CELLS_MAX {
            return Err(Problem::RowTooLong(self.row()));
        }
        if std::str::from_utf8(&self.bytes).is_err() {
            let begins = std::iter::once(0).chain(self.ends.iter().copied());
            let mut cells = begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end]);
            let cell = cells.find(|cell| std::str::from_utf8(cell).is_err()).unwrap_or_default();
            return Err(Problem::NotUtf8 { row: self.row(), cell: quoted(cell) });
        }
        if self.bytes.contains(&0) {
            return Err(Problem::NotText(self.row()));
        }
        self.count += 1;
        batch.push(&self.bytes, &self.ends, self.count);
        self.bytes.clear();
        self.ends.clear();
        self.at = At::RowBegin;
        Ok(())
    }
}

/// A cell, as a problem quotes it.
pub(crate) fn quoted(cell: &[u8]) -> String {
    String::from_utf8_lossy(cell).chars().take(QUOTED_CHARS).collect()
}

/// Several rows.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// The end of each cell.
    ends: Vec<usize>,
    /// The end of each row's cells, and the row's number.
    rows: Vec<(usize, u64)>,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    bytes: &'a [u8],
    begin: usize,
    ends: &'a [usize],
    number: u64,
}

impl Batch {
    /// Maximum rows of a batch.
    pub(crate) const ROWS_MAX: usize = 1000;

    /// Bytes from which on a batch accepts no further row.
    const BYTES_FULL: usize = 1 << 20;

    fn push(&mut self, bytes: &[u8], ends: &[usize], number: u64) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.ends.extend(ends.iter().map(|end| begin + end));
        self.rows.push((self.ends.len(), number));
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether it should accept no further row.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= Batch::ROWS_MAX || self.bytes.len() + self.ends.len() * 8 >= Batch::BYTES_FULL
    }

    /// Removes the rows.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.rows.clear();
    }

    /// The rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let firsts = std::iter::once(0).chain(self.rows.iter().map(|(last, _)| *last));
        firsts.zip(&self.rows).map(|(first, (last, number))| {
            let begin = first.checked_sub(1).map_or(0, |before| self.ends[before]);
            Row { bytes: &self.bytes, begin, ends: &self.ends[first..*last], number: *number }
        })
    }
}

impl<'a> Row<'a> {
    /// A cell; empty after the last one.
    pub(crate) fn cell(self, at: usize) -> &'a [u8] {
        let Some(end) = self.ends.get(at) else { return b"" };
        let begin = at.checked_sub(1).map_or(self.begin, |before| self.ends[before]);
        &self.bytes[begin..*end]
    }

    /// Its number, as in a spreadsheet: from 1, including the header.
    pub(crate) fn number(self) -> u64 {
        self.number
    }

    /// Whether all its cells are blank.
    pub(crate) fn is_blank(self) -> bool {
        self.cells().all(|cell| cell.trim_ascii().is_empty())
    }

    /// The number of cells.
    pub(crate) fn width(self) -> usize {
        self.ends.len()
    }

    /// All cells.
    pub(crate) fn cells(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.width()).map(move |at| self.cell(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(list: &[u8], cuts: &[usize], max: usize) -> Result<Vec<Vec<String>>, Problem> {
        let mut all = Vec::new();
        let (mut rows, mut batch) = (Rows::new(b',', 0), Batch::default());
        let take = |batch: &mut Batch, all: &mut Vec<Vec<String>>| {
            let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
            all.extend(batch.rows().map(|row| row.cells().map(text).collect::<Vec<_>>()));
            batch.clear();
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (list.len() + 1)).chain([0, list.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let mut input = &list[pair[0]..pair[1]];
            while rows.read(&mut input, &mut batch, max)? {
                assert!(batch.len() <= max);
                take(&mut batch, &mut all);
            }
        }
        rows.end(&mut batch)?;
        take(&mut batch, &mut all);
        Ok(all)
    }

    #[test]
    fn rows_of_any_width_and_line_end_are_read() {
        let list = b"a,b\r\n\"1,\"\"2\"\"\n\",x,y\n\n3\r,\n5\" pipe,\"\"\nlast";
        let expected: [&[&str]; 6] =
            [&["a", "b"], &["1,\"2\"\n", "x", "y"], &["3"], &["", ""], &["5\" pipe", ""], &["last"]];
        assert_eq!(read(list, &[], 1000).unwrap(), expected);
    }

    #[test]
    fn what_a_lenient_reader_guesses_at_is_refused_with_its_row() {
        let latin = |row| Problem::NotUtf8 { row, cell: "j\u{fffd}ne".to_owned() };
        for (list, problem) in [
            (&b"a\n1\n\"open,2\n3\n"[..], Problem::Unclosed(3)),
            (b"a\n\n\"1\\\"2\"\n", Problem::AfterQuote(3)),
            (b"a\n\"1\" ,2\n", Problem::AfterQuote(2)),
            (b"a\n1,\"Jane\n2,\"Bob\",x\n", Problem::AfterQuote(2)),
            (b"a\r\n1, \"Doe, Jane\"\r\n", Problem::BlankBeforeQuote(2)),
            (b"a\nx,j\xe4ne\n", latin(2)),
            (b"a\nx\n,j\xe4ne", latin(3)),
            (b"a\nx\0\n", Problem::NotText(2)),
        ] {
            assert_eq!(read(list, &[], 1000), Err(problem), "{:?}", String::from_utf8_lossy(list));
        }
    }

    #[test]
    fn a_row_has_bounds_and_its_number_is_that_of_a_spreadsheet() {
        let longest = format!("a\n{}\n", "x".repeat(ROW_BYTES_MAX));
        assert_eq!(read(longest.as_bytes(), &[], 1000).unwrap().len(), 2);
        let longer = format!("a\n{}\n", "x".repeat(ROW_BYTES_MAX + 1));
        assert_eq!(read(longer.as_bytes(), &[], 1000), Err(Problem::RowTooLong(2)));
        let longer = format!("a\n\"{}", "x\n".repeat(ROW_BYTES_MAX));
        assert_eq!(read(longer.as_bytes(), &[], 1000), Err(Problem::RowTooLong(2)));
        let wider = format!("a\nb\n{}\n", ",".repeat(CELLS_MAX + 1));
        assert_eq!(read(wider.as_bytes(), &[], 1000), Err(Problem::RowTooLong(3)));
        let (mut rows, mut batch) = (Rows::new(b',', 1), Batch::default());
        assert_eq!(rows.read(&mut &b"a\r\n\r\n\nb\r\rc\n"[..], &mut batch, 9), Ok(false));
        assert_eq!(batch.rows().map(Row::number).collect::<Vec<_>>(), [2, 5, 7]);
    }

    proptest! {
        #[test]
        fn however_a_list_is_cut_the_same_rows_come_out(
            list in "([a\"',; \r\n]|\u{fc}){0,60}", cuts in prop::collection::vec(any::<usize>(), 0..6), max in 1usize..4,
        ) {
            prop_assert_eq!(read(list.as_bytes(), &cuts, max), read(list.as_bytes(), &[], 1000));
        }

        #[test]
        fn any_cells_that_are_quoted_come_out_as_they_went_in(cells in prop::collection::vec("[a\",;\r\n \u{fc}]{0,6}", 1..5)) {
            let line = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(read(format!("{line}\r\n").as_bytes(), &[], 9), Ok(vec![cells]));
        }
    }
}
