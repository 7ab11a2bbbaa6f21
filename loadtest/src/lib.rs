//! Loads a server of pixels, and finds out what became of each request.
//!
//! # Layout
//! - [`pixels`]: what is asked for: unique recipients, mail clients' user agents, client addresses.
//! - [`ledger`]: which requests were sent, and which were answered.
//! - [`connection`]: one HTTP/1.1 connection of ours, without an async runtime: the client shares the machine's cores.
//! - [`generator`]: closed loop (peak) and open loop (a set rate), kept or new connections.
//! - [`reconcile`]: the ledger against the rows in PostgreSQL: lost, duplicated, never sent.
//! - [`postgres`]: a private PostgreSQL, to be stopped, frozen and asked.
//! - [`redis`]: a private Redis, likewise.
//! - [`server`]: a `pixeld serve` of our own, its metrics and its end.
//! - [`machine`]: who runs on which core.
//! - [`contestant`]: nginx and pixeld, as they are compared; [`compare`]: the comparison and its report.
//! - [`run`]: one load and its table.
//! - [`process`]: CPU time and memory of a process, free ports.
//!
//! The integration tests of pixeld use the same parts.

pub mod compare;
pub mod connection;
pub mod contestant;
pub mod generator;
pub mod ledger;
pub mod machine;
pub mod pixels;
pub mod postgres;
pub mod process;
pub mod reconcile;
pub mod redis;
pub mod run;
pub mod server;
