//! Lists of recipients: CSV in, the same rows with our columns added out. One reader for the admin page and the
//! command. Pure: bytes in, rows, texts and problems out.
//!
//! Guarantees: an ambiguous list is refused, with the row: an unclosed quotation mark, text after a closing one, a row
//! with more cells than the header, a byte that is not UTF-8, a consent that is neither a yes nor a no. The column of
//! recipients is named, never guessed; a column of consents is used if the list has one. No written cell is a formula,
//! whatever delimiter it is read with. Gives up: encodings other than UTF-8 and UTF-16, the list's own quoting, and
//! empty lines.
//!
//! # Layout
//! - [`reader`]: from bytes, as they arrive, to a header and batches of rows. [`text`]: UTF-16 to UTF-8. [`dialect`]:
//!   delimiters and line ends. [`rows`]: the rows.
//! - [`header`]: the columns by name. [`consent`]: what a cell of consents means. [`cells`]: what a cell means, and how
//!   it is written.
//! - [`doubts`]: what looks wrong in the column of recipients. [`problem`]: why a list is refused.

pub(crate) mod cells;
pub(crate) mod consent;
pub(crate) mod dialect;
pub(crate) mod doubts;
pub(crate) mod header;
pub(crate) mod problem;
pub(crate) mod reader;
pub(crate) mod rows;
mod text;

pub(crate) use problem::Problem;
