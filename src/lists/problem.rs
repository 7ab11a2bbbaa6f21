//! Why a list is refused, in words for people. Rows are counted as a spreadsheet counts them: the header and empty lines, too.

use super::consent;
use super::rows::CELLS_MAX;

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has no byte but line ends.
    #[error("The file is empty.")]
    Empty,
    /// Its first line is blank in every cell.
    #[error("The file has no header: its first line names no columns. Add a header line.")]
    NoHeader,
    /// Its first line is a row.
    #[error("The first line contains {0:?}, so it is not a header. Add a header line.")]
    RowAsHeader(String),
    /// It is an Excel file.
    #[error("This is a workbook, not CSV. Save it as CSV (UTF-8) first.")]
    Workbook,
    /// It is another kind of file.
    #[error("This is {0}, not CSV. Save the list as CSV (UTF-8) first.")]
    OtherFile(&'static str),
    /// It has bytes that no text has.
    #[error("Row {0} is not text. Save the list as CSV (UTF-8) first.")]
    NotText(u64),
    /// A cell is in another encoding.
    #[error(
        "Row {row}: {cell:?} is not UTF-8, so a letter in it is unknown. Save the whole list as CSV (UTF-8); in Excel, choose \"CSV UTF-8\"."
    )]
    NotUtf8 {
        /// Which row.
        row: u64,
        /// Its first such cell, with what can be read of it.
        cell: String,
    },
    /// A program has replaced a letter before.
    #[error(
        "Row {row}: the recipient {cell:?} has lost a letter, probably because the list was saved in the wrong encoding. Export the list again."
    )]
    LostLetter {
        /// Which row.
        row: u64,
        /// The cell.
        cell: String,
    },
    /// Excel's first line names a delimiter that is not read.
    #[error("The first line names {0:?} as the separator. Use a comma, a semicolon, a tab or |.")]
    Delimiter(String),
    /// Two delimiters stand equally often in the header.
    #[error(
        "The header has equally many {0:?} and {1:?}, so the separator is not certain. Add a line before it: sep={0} or sep={1}"
    )]
    Delimiters(char, char),
    /// A row is too long.
    #[error(
        "Row {0} is too long. Maximum: 64 KiB and {CELLS_MAX} cells. Perhaps a quotation mark in it is not closed."
    )]
    RowTooLong(u64),
    /// The list ends within quotation marks.
    #[error("Row {0} begins a cell with a quotation mark that is never closed, so the following rows cannot be read.")]
    Unclosed(u64),
    /// Something stands after a closing quotation mark.
    #[error(
        "Row {0} has text after a closing quotation mark. Within quotation marks, write a quotation mark twice (\"\"), not as \\\"."
    )]
    AfterQuote(u64),
    /// A quotation mark comes after a blank.
    #[error(
        "Row {0} has a space between the separator and a quotation mark, so it is not certain where the cell ends. Remove the space."
    )]
    BlankBeforeQuote(u64),
    /// A row has cells that no column has.
    #[error(
        "Row {row} has {cells} cells, the header has {columns}. Does a cell contain a comma or another separator without quotation marks?"
    )]
    TooWide {
        /// Which row.
        row: u64,
        /// How many it has.
        cells: usize,
        /// How many columns the list has.
        columns: usize,
    },
    /// A row has the names of the columns again.
    #[error("Row {0} is the header again. Were lists joined? Remove this row.")]
    HeaderAgain(u64),
    /// A row is one cell, since something else stands between its parts than in the header.
    #[error("Row {0} is a single cell: it uses another separator than the header.")]
    OtherDelimiter(u64),
    /// A row ends before a column that is needed.
    #[error("Row {row} has {cells} cells and ends before the column {column:?}. Add the missing cells.")]
    TooShort {
        /// Which row.
        row: u64,
        /// How many it has.
        cells: usize,
        /// The column.
        column: String,
    },
    /// A recipient's cell has a line break.
    #[error(
        "Row {0}: the recipient contains a line break. Perhaps a quotation mark in this row or an earlier one is not closed."
    )]
    Broken(u64),
    /// A recipient that no link can name.
    #[error("Row {row}: the recipient {cell:?} cannot be a key: {error}.")]
    NoKey {
        /// Which row.
        row: u64,
        /// The cell.
        cell: String,
        /// Why.
        error: pixeld_core::link::key::KeyError,
    },
    /// A row, whose consent is no word that we know.
    #[error(
        "Row {row}: consent is {word:?} (column {column:?}); use one of {}, or {} or nothing for no consent.",
        consent::YES.join(", "), consent::NO.join(", ")
    )]
    Consent {
        /// Which row.
        row: u64,
        /// The column.
        column: String,
        /// What it says.
        word: String,
    },
    /// No column was named, and none has a name that says that it holds recipients.
    #[error("No column is called recipient or id. Name the column with the recipients. The file has {known}.")]
    WhichRecipients {
        /// The columns that are there.
        known: String,
    },
    /// Several may hold consents.
    #[error("Name the consent column: perhaps {0}. Or confirm that everybody has agreed.")]
    WhichConsents(String),
    /// A column may say who has opted out, which is the other way round.
    #[error(
        "The column {0:?} may say who must not be recorded. Name a consent column, or confirm that everybody has agreed."
    )]
    OptOuts(String),
    /// A column of consents, and everybody.
    #[error("Either name a consent column or confirm that everybody has agreed, not both.")]
    Both,
    /// A column that was asked for is not there.
    #[error("There is no column {asked:?}. The file has {known}.")]
    NoColumn {
        /// What was asked for.
        asked: String,
        /// The columns that are there.
        known: String,
    },
    /// Two columns have the name.
    #[error("Two columns are called {0:?}. Give them different names.")]
    TwoColumns(String),
    /// A column has a name of ours.
    #[error("The list already has a column {0:?}, probably from an earlier run. Rename or remove it.")]
    Taken(String),
}
