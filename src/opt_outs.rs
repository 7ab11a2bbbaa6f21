//! People who asked not to be recorded.
//!
//! In order: the opt-out page or an admin writes a row ([`suppressions`]); each node follows the table ([`follow`]) and has the list in memory
//! ([`suppressed`](pixeld_edge::suppressed)) and on disk ([`kept`]). `record` in `crates/edge/src/lib.rs` asks it before it encodes a hit. The loader asks again in the
//! transaction of each batch (`ingest/batch.rs`), and `admit` in `ingest/judge.rs` drops a hit that the edge let through.
//!
//! Guarantees: an opt-out holds on every node within two seconds, and over restarts without the database. Gives up: the list names no
//! one, so it cannot be read back.

pub mod follow;
pub mod kept;
pub mod suppressions;
