//! pixeld: which emails were opened, by whom, when, and how surely.
//!
//! # Layout
//! - [`config`]: settings from the environment, checked before a port is bound.
//! - [`hit`]: one recorded fetch and its bytes; what travels from the edge to PostgreSQL.
//! - [`link`]: paths, keys and signed tokens: what a link names.
//! - [`lists`]: lists of recipients as CSV, for the page and the command alike.
//! - [`networks`]: whose network an address lies in.
//! - [`edge`]: the public listener. Sees `hit`, `link`, `networks`, `images` and the sending half of `ingest::queue`; never `db`.
//! - [`images`]: which images exist and their bytes, cached; kept in step with PostgreSQL.
//! - [`ingest`]: queue, writer, spool, loader: from a hit in memory to a row in PostgreSQL, once.
//! - [`opens`]: what a hit says of a reader, with the rule that decided; from hits to opens and counts.
//! - [`privacy`]: people who asked not to be recorded or to be forgotten, as keyed hashes.
//! - [`text`]: texts that people type or strangers send, compared and shown.
//! - [`unrecorded`]: the last requests that made no hit, in memory, with why.
//! - [`whole_file`]: small files that are replaced whole.
//! - [`db`]: connections, migrations, the embedded PostgreSQL, and one file of queries a concern.
//! - [`admin`]: the private listener: pages, metrics, health. Sees `db`, `metrics` and `opens`; never `edge` or `ingest`.
//! - [`app`]: the only place where these are wired together; start order and drain order.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clocks;
pub mod config;
pub mod db;
pub mod edge;
pub mod hit;
pub mod images;
pub mod ingest;
pub mod link;
pub mod lists;
pub mod metrics;
pub mod networks;
pub mod opens;
pub mod privacy;
pub mod shutdown;
pub mod telemetry;
pub mod text;
pub mod unrecorded;
pub mod whole_file;

/// When this program was built, in µs since 1970: no hit of its own can be older.
pub const BUILT_US: i64 = built_us(env!("PIXELD_BUILT"));

const fn built_us(seconds: &str) -> i64 {
    let digits = seconds.as_bytes();
    let mut value = 0;
    let mut at = 0;
    while at < digits.len() {
        assert!(digits[at].is_ascii_digit(), "PIXELD_BUILT is a number of seconds");
        value = value * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    value * 1_000_000
}
