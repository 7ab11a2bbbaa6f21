//! From a hit in memory to a row in PostgreSQL, once.
//!
//! [`queue`] → [`writer`] (through [`appender`], beside [`syncer`]) → [`spool`] → [`loader`] → PostgreSQL. A stage lets go
//! of a hit only when the next one holds it.

pub mod appender;
pub mod copy;
pub mod erased;
pub mod eraser;
pub mod house;
pub mod judge;
pub mod known;
pub mod loader;
pub mod orphans;
pub mod queue;
pub mod shared_throttle;
pub mod source;
pub mod spool;
pub mod syncer;
pub mod throttle;
pub mod writer;
