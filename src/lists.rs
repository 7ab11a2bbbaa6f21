//! Lists of recipients: CSV in, the same rows with columns of ours out. One reader for the admin page and the command. Pure: bytes in,
//! rows, texts and problems out.
//!
//! Guarantees: a list that can be read in two ways is refused, with the row: an unclosed quotation mark, text after a closed one, a row with more
//! cells than the header, a byte that is not UTF-8, a consent that is neither a yes nor a no. The column of recipients is named, never guessed; a
//! column of consents is used where the list has one. No cell that is written is a formula, whatever delimiter it is read with. Gives up:
//! encodings other than UTF-8 and UTF-16, the quoting of the list, and empty lines.
//!
//! # Layout
//! - [`reader`]: bytes as they come to a header and batches of rows. [`text`]: UTF-16 to UTF-8. [`dialect`]: how a list is written. [`rows`]: its rows.
//! - [`header`]: which column is which. [`consent`]: what a cell of consents says. [`cells`]: what a cell says, and how it is written.
//! - [`doubts`]: what looks wrong in the column of recipients. [`problem`]: why a list is refused.

pub mod cells;
pub mod consent;
pub mod dialect;
pub mod doubts;
pub mod header;
pub mod problem;
pub mod reader;
pub mod rows;
mod text;

pub use problem::Problem;
