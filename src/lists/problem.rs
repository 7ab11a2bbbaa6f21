//! Why a list is refused, in words for people. Rows are counted as in a spreadsheet, including the header and empty
//! lines.

use super::consent;
use super::rows::CELLS_MAX;

/// The reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// It has no bytes except line ends.
    #[error("The file is empty.")]
    Empty,
    /// Every cell of its first line is blank.
    #[error("The file has no header: its first line names no columns. Add a header line.")]
    NoHeader,
    /// Its first line is not a header.
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
        /// Its number.
        row: u64,
        /// The first such cell, as far as it can be read.
        cell: String,
    },
    /// A program has replaced a letter before.
    #[error(
        "Row {row}: the recipient {cell:?} has lost a letter, probably because the list was saved in the wrong encoding. Export the list again."
    )]
    LostLetter {
        /// Its number.
        row: u64,
        /// The cell.
        cell: String,
    },
    /// Excel's first line names a delimiter that is not supported.
    #[error("The first line names {0:?} as the separator. Use a comma, a semicolon, a tab or |.")]
    Delimiter(String),
    /// Two delimiters occur equally often in the header.
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
    /// Text follows a closing quotation mark.
    #[error(
        "Row {0} has text after a closing quotation mark. Within quotation marks, write a quotation mark twice (\"\"), not as \\\"."
    )]
    AfterQuote(u64),
    /// A quotation mark comes after a blank.
    #[error(
        "Row {0} has a space between the separator and a quotation mark, so it is not certain where the cell ends. Remove the space."
    )]
    BlankBeforeQuote(u64),
    /// A row has more cells than there are columns.
    #[error(
        "Row {row} has {cells} cells, the header has {columns}. Does a cell contain a comma or another separator without quotation marks?"
    )]
    TooWide {
        /// Its number.
        row: u64,
        /// Its number of cells.
        cells: usize,
        /// The list's number of columns.
        columns: usize,
    },
    /// A row repeats the names of the columns.
    #[error("Row {0} is the header again. Were lists joined? Remove this row.")]
    HeaderAgain(u64),
    /// A row is one cell, since it has another separator than the header.
    #[error("Row {0} is a single cell: it uses another separator than the header.")]
    OtherDelimiter(u64),
    /// A row ends before a column that is needed.
    #[error("Row {row} has {cells} cells and ends before the column {column:?}. Add the missing cells.")]
    TooShort {
        /// Its number.
        row: u64,
        /// Its number of cells.
        cells: usize,
        /// The column.
        column: String,
    },
    /// A recipient's cell has a line break.
    #[error(
        "Row {0}: the recipient contains a line break. Perhaps a quotation mark in this row or an earlier one is not closed."
    )]
    Broken(u64),
    /// A recipient that cannot be in a link.
    #[error("Row {row}: the recipient {cell:?} cannot be a key: {error}.")]
    NoKey {
        /// Its number.
        row: u64,
        /// The cell.
        cell: String,
        /// Why.
        error: pixeld_core::link::key::KeyError,
    },
    /// A consent that is not a known word.
    #[error(
        "Row {row}: consent is {word:?} (column {column:?}); use one of {}, or {} or nothing for no consent.",
        consent::YES.join(", "), consent::NO.join(", ")
    )]
    Consent {
        /// The row's number.
        row: u64,
        /// The column.
        column: String,
        /// The word.
        word: String,
    },
    /// No column was named, and no name says that it holds recipients.
    #[error("No column is called recipient or id. Name the column with the recipients. The file has {known}.")]
    WhichRecipients {
        /// The columns that exist.
        known: String,
    },
    /// Several may hold consents.
    #[error("Name the consent column: perhaps {0}. Or confirm that everybody has agreed.")]
    WhichConsents(String),
    /// A column may say who has opted out, which is the opposite.
    #[error(
        "The column {0:?} may say who must not be recorded. Name a consent column, or confirm that everybody has agreed."
    )]
    OptOuts(String),
    /// Both a column of consents and everybody were given.
    #[error("Either name a consent column or confirm that everybody has agreed, not both.")]
    Both,
    /// A requested column does not exist.
    #[error("There is no column {asked:?}. The file has {known}.")]
    NoColumn {
        /// The requested name.
        asked: String,
        /// The columns that exist.
        known: String,
    },
    /// Two columns have the name.
    #[error("Two columns are called {0:?}. Give them different names.")]
    TwoColumns(String),
    /// A column has a name of ours.
    #[error("The list already has a column {0:?}, probably from an earlier run. Rename or remove it.")]
    Taken(String),
}
