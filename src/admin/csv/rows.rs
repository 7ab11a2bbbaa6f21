//! Bytes to rows, as they come. Pure.
//!
//! Guarantees: whatever the bytes are, and however they are cut, the same rows come out, and none of more than [`ROW_BYTES_MAX`] bytes
//! or [`CELLS_MAX`] cells is held. Gives up: strictness; a quotation mark within a cell is itself, rows may have any number of cells.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// Bytes of a row at most.
pub const ROW_BYTES_MAX: usize = 64 << 10;

/// Cells of a row at most.
pub const CELLS_MAX: usize = 4096;

/// What UTF-8 may begin with.
pub const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a list cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has no byte but line ends.
    #[error("The file is empty.")]
    Empty,
    /// Its first line is blank in every cell.
    #[error("The file has no header: its first line names no columns. Put a line with their names on top.")]
    NoHeader,
    /// Its first line is a row.
    #[error(
        "The file has no header: its first line has {0:?}, which is no name of a column. Put a line with names on top."
    )]
    RowAsHeader(String),
    /// It is an Excel file.
    #[error("This is a workbook, not CSV. Save it as CSV (UTF-8) first.")]
    Workbook,
    /// It is UTF-16, or no text.
    #[error("This is no text in UTF-8. Save it as CSV (UTF-8) first.")]
    OtherText,
    /// A row, counted with the header, is too long.
    #[error(
        "Row {0} is too long: a row has at most 64 KiB and {CELLS_MAX} cells. A quotation mark before it may not be closed."
    )]
    RowTooLong(u64),
    /// A row, counted with the header, whose consent is no word that we know.
    #[error("Row {row} says {word:?} in the column of consents, which is neither a yes nor a no that is known here.")]
    Consent {
        /// Which row.
        row: u64,
        /// What it says.
        word: String,
    },
    /// A column that was asked for is not there.
    #[error("There is no column {asked:?}. The file has {known}.")]
    NoColumn {
        /// What was asked for.
        asked: String,
        /// The columns that are there.
        known: String,
    },
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// What stands between cells.
    pub delimiter: u8,
    /// What stands between rows.
    pub line_end: &'static [u8],
    /// Whether it begins with [`MARK`].
    pub has_mark: bool,
}

/// What may stand between cells; the first where none does.
pub const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

impl Dialect {
    /// Reads the beginning of a list up to the end of its header. Says, too, how many bytes come before that. Nothing where more bytes are
    /// needed to tell.
    ///
    /// # Errors
    /// Where it is no list.
    pub fn of(start: &[u8], is_end: bool) -> Result<Option<(Dialect, usize)>, Problem> {
        if start.len() < 4 && !is_end {
            return Ok(None);
        }
        // ZIP, which new workbooks are, and what old ones are.
        if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\xd0\xcf\x11\xe0") {
            return Err(Problem::Workbook);
        }
        let has_mark = start.starts_with(MARK);
        let mark = if has_mark { MARK.len() } else { 0 };
        let Some(blank) = start[mark..].iter().position(|byte| !b"\r\n".contains(byte)) else {
            return if is_end { Err(Problem::Empty) } else { too_long_or_more(start) };
        };
        let line = &start[mark + blank..];
        let (counts, end) = count(line);
        let end = match end {
            Some(end) if line.get(end + 1).is_some() || is_end || line[end] == b'\n' => end,
            None if is_end => line.len(),
            _ => return too_long_or_more(start),
        };
        if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || line[..end].contains(&0) {
            return Err(Problem::OtherText);
        }
        // The first of those that stand there most often.
        let best = counts.iter().zip(DELIMITERS).rev().max_by_key(|(count, _)| **count);
        let delimiter = best.map_or(DELIMITERS[0], |(_, delimiter)| delimiter);
        let line_end: &[u8] = match &line[end..] {
            [b'\r', b'\n', ..] => b"\r\n",
            [b'\r', ..] => b"\r",
            _ => b"\n",
        };
        Ok(Some((Dialect { delimiter, line_end, has_mark }, mark + blank)))
    }
}

fn too_long_or_more<T>(start: &[u8]) -> Result<Option<T>, Problem> {
    if start.len() > ROW_BYTES_MAX { Err(Problem::RowTooLong(1)) } else { Ok(None) }
}

/// How often each delimiter stands in the first line, outside of quotes, and where the line ends.
fn count(line: &[u8]) -> ([usize; 3], Option<usize>) {
    enum Within {
        Begin,
        Plain,
        Quoted,
        Closed,
    }
    let (mut counts, mut within) = ([0; 3], Within::Begin);
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

/// Reads rows.
pub struct Rows {
    reader: Reader,
    /// The row that is being read.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    bytes_used: usize,
    ends_used: usize,
    /// Rows that were read.
    count: u64,
}

impl Rows {
    /// Of a list with this delimiter, whose [`MARK`] was taken off.
    #[must_use]
    pub fn new(delimiter: u8) -> Rows {
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        let (bytes, ends) = (vec![0; ROW_BYTES_MAX], vec![0; CELLS_MAX]);
        Rows { reader, bytes, ends, bytes_used: 0, ends_used: 0, count: 0 }
    }

    /// Reads rows from the front of `input` into a batch. Says whether that is full now, by its own bounds or with `most` rows; else
    /// all of the input was read.
    ///
    /// # Errors
    /// Where a row is too long.
    pub fn read(&mut self, input: &mut &[u8], batch: &mut Batch, most: usize) -> Result<bool, Problem> {
        // No bytes mean the end, to the reader.
        while !input.is_empty() {
            let result = self.step(input)?;
            if result == ReadRecordResult::Record {
                self.give(batch);
                if batch.len() >= most || batch.is_full() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Ends the last row, where it had no line end.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn end(&mut self, batch: &mut Batch) -> Result<(), Problem> {
        while self.step(&mut &b""[..])? == ReadRecordResult::Record {
            self.give(batch);
        }
        Ok(())
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<ReadRecordResult, Problem> {
        let (bytes, ends) = (&mut self.bytes[self.bytes_used..], &mut self.ends[self.ends_used..]);
        let (result, read, bytes_more, ends_more) = self.reader.read_record(input, bytes, ends);
        *input = &input[read..];
        self.bytes_used += bytes_more;
        self.ends_used += ends_more;
        match result {
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => Err(Problem::RowTooLong(self.count + 1)),
            result => Ok(result),
        }
    }

    fn give(&mut self, batch: &mut Batch) {
        batch.push(&self.bytes[..self.bytes_used], &self.ends[..self.ends_used]);
        (self.bytes_used, self.ends_used) = (0, 0);
        self.count += 1;
    }
}

/// Some rows.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each cell ends.
    ends: Vec<usize>,
    /// Where the cells of each row end.
    rows: Vec<usize>,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    begin: usize,
    ends: &'a [usize],
}

impl Batch {
    /// Rows of a batch at most.
    pub const ROWS_MAX: usize = 1000;

    /// Bytes after which a batch takes no further row.
    const BYTES_FULL: usize = 1 << 20;

    fn push(&mut self, bytes: &[u8], ends: &[usize]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.ends.extend(ends.iter().map(|end| begin + end));
        self.rows.push(self.ends.len());
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether it should take no further row.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows.len() >= Batch::ROWS_MAX || self.bytes.len() + self.ends.len() * 8 >= Batch::BYTES_FULL
    }

    /// Takes the rows out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.rows.clear();
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let firsts = std::iter::once(0).chain(self.rows.iter().copied());
        firsts.zip(&self.rows).map(|(first, last)| {
            let begin = first.checked_sub(1).map_or(0, |before| self.ends[before]);
            Row { bytes: &self.bytes, begin, ends: &self.ends[first..*last] }
        })
    }
}

impl<'a> Row<'a> {
    /// A cell; empty beyond the last one.
    #[must_use]
    pub fn cell(self, at: usize) -> &'a [u8] {
        let Some(end) = self.ends.get(at) else { return b"" };
        let begin = at.checked_sub(1).map_or(self.begin, |before| self.ends[before]);
        &self.bytes[begin..*end]
    }

    /// How many cells.
    #[must_use]
    pub fn width(self) -> usize {
        self.ends.len()
    }

    /// All cells.
    pub fn cells(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.width()).map(move |at| self.cell(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(list: &[u8], cuts: &[usize], most: usize) -> Result<Vec<Vec<String>>, Problem> {
        let mut all = Vec::new();
        let (mut rows, mut batch) = (Rows::new(b','), Batch::default());
        let take = |batch: &mut Batch, all: &mut Vec<Vec<String>>| {
            let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
            all.extend(batch.rows().map(|row| row.cells().map(text).collect::<Vec<_>>()));
            batch.clear();
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (list.len() + 1)).chain([0, list.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let mut input = &list[pair[0]..pair[1]];
            while rows.read(&mut input, &mut batch, most)? {
                assert!(batch.len() <= most);
                take(&mut batch, &mut all);
            }
        }
        rows.end(&mut batch)?;
        take(&mut batch, &mut all);
        Ok(all)
    }

    fn dialect(start: &str) -> Dialect {
        Dialect::of(start.as_bytes(), true).unwrap().unwrap().0
    }

    #[test]
    fn the_header_says_how_the_list_is_written() {
        for (start, delimiter, line_end) in [
            ("a,b;c,d\n", b',', &b"\n"[..]),
            ("a;b;c,d\r\n1", b';', b"\r\n"),
            ("a\tb\r1", b'\t', b"\r"),
            ("a", b',', b"\n"),
            ("\"a;b;c\",d\n1;2;3;4", b',', b"\n"),
            ("\"a\"\";;\n;\",d\n", b',', b"\n"),
            ("it\"\"s;a;b\n", b';', b"\n"),
            ("a;b,c\n", b',', b"\n"),
        ] {
            let found = dialect(start);
            assert_eq!((found.delimiter, found.line_end, found.has_mark), (delimiter, line_end, false), "{start:?}");
        }
        assert_eq!(Dialect::of(b"\xef\xbb\xbf\n\r\na;b\n", false).unwrap().unwrap().1, 6);
        assert!(dialect("\u{feff}a").has_mark);
    }

    #[test]
    fn more_is_waited_for_only_while_it_may_tell() {
        for start in ["", "a,b", "a,b\r", "\u{feff}", "\n\n\n\n\n", "\"a\nb\n"] {
            assert_eq!(Dialect::of(start.as_bytes(), false), Ok(None), "{start:?}");
        }
        let long = [b'x'; ROW_BYTES_MAX + 1];
        assert_eq!(Dialect::of(&long, false), Err(Problem::RowTooLong(1)));
        for (bytes, problem) in [
            (&b""[..], Problem::Empty),
            (b"\xef\xbb\xbf\r\n\n", Problem::Empty),
            (b"PK\x03\x04rest", Problem::Workbook),
            (b"\xff\xfea\0,\0b\0\n\0", Problem::OtherText),
            (b"a\0b\n", Problem::OtherText),
        ] {
            assert_eq!(Dialect::of(bytes, true), Err(problem));
        }
    }

    #[test]
    fn rows_of_any_width_and_quoting_are_read() {
        let list = b"a,b\r\n\"1,\"\"2\"\"\n\",x,y\n\n3\r,\n\"open";
        let expected: [&[&str]; 5] = [&["a", "b"], &["1,\"2\"\n", "x", "y"], &["3"], &["", ""], &["open"]];
        assert_eq!(read(list, &[], 1000).unwrap(), expected);
    }

    #[test]
    fn a_row_has_bounds() {
        let longest = format!("a\n{}\n", "x".repeat(ROW_BYTES_MAX - 1));
        assert_eq!(read(longest.as_bytes(), &[], 1000).unwrap().len(), 2);
        let longer = format!("a\n{}\n", "x".repeat(ROW_BYTES_MAX + 1));
        assert_eq!(read(longer.as_bytes(), &[], 1000), Err(Problem::RowTooLong(2)));
        let wider = format!("a\nb\n{}\n", ",".repeat(CELLS_MAX + 1));
        assert_eq!(read(wider.as_bytes(), &[], 1000), Err(Problem::RowTooLong(3)));
    }

    proptest! {
        #[test]
        fn however_a_list_is_cut_the_same_rows_come_out(
            list in "([a\"',;\r\n]|\u{fc}){0,60}", cuts in prop::collection::vec(any::<usize>(), 0..6), most in 1usize..4,
        ) {
            let whole = read(list.as_bytes(), &[], 1000).unwrap();
            prop_assert_eq!(read(list.as_bytes(), &cuts, most).unwrap(), whole);
        }

        #[test]
        fn any_beginning_is_told_or_refused(start: Vec<u8>, is_end: bool) {
            if let Ok(Some((dialect, skipped))) = Dialect::of(&start, is_end) {
                prop_assert!(skipped < start.len() && DELIMITERS.contains(&dialect.delimiter));
            } else if is_end {
                prop_assert!(Dialect::of(&start, true).is_err());
            }
        }
    }
}
