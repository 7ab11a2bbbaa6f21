//! People who opted out of being recorded.
//!
//! The path of an opt-out: the opt-out page or an admin writes a row ([`suppressions`]). Each node follows the table
//! ([`follow`]) and keeps the list in memory ([`suppressed`](pixeld_edge::suppressed)) and on disk ([`kept`]). `record`
//! in `crates/edge/src/lib.rs` checks it before it encodes a hit. The loader reads the changes again in the transaction
//! of each batch (`ingest/batch.rs`), and `admit` in `ingest/judge.rs` drops a hit that the edge let through.
//!
//! Guarantees: an opt-out is in force on every node within two seconds, and after restarts without the database. Gives
//! up: listing names; the list contains only hashes.

pub(crate) mod follow;
pub(crate) mod kept;
pub mod suppressions;
