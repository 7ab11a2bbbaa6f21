//! From a hit in memory to a row in PostgreSQL, once.
//!
//! [`queue`] → [`writer`] (through [`appender`], beside [`syncer`]) → [`spool`] → [`loader`] → PostgreSQL. A stage lets go
//! of a hit only when the next one holds it.

pub mod appender;
pub mod queue;
pub mod spool;
pub mod syncer;
pub mod writer;
