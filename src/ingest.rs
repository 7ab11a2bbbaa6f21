//! From a hit in memory to a row in PostgreSQL, once.
//!
//! [`queue`](pixeld_edge::queue) → [`writer`] (beside [`syncer`]) → [`spool`](pixeld_spool) → [`loader`] → PostgreSQL
//! ([`batch`]). A stage drops its copy of a hit only when the next one has it.

pub mod batch;
pub mod copy;
pub(crate) mod housekeeper;
pub mod judge;
pub mod known;
pub mod loader;
pub(crate) mod marks;
pub mod memory;
pub(crate) mod orphan_notes;
pub mod shared_throttle;
pub(crate) mod source;
pub(crate) mod spans;
pub(crate) mod syncer;
pub mod throttle;
pub(crate) mod writer;
