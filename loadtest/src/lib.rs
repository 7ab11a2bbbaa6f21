//! Sends loads to a server of pixels, and checks the result of each request.
//!
//! Guarantees: every load ends by itself; every request is numbered, so that each answer can be compared with its row. Gives up:
//! HTTP/2 and TLS; answers are read only as far as a load needs.
//!
//! # Layout
//! - [`pixels`]: what is requested: unique recipients, user agents of mail programs, client addresses.
//! - [`ledger`]: which requests were sent, and which were answered.
//! - [`connection`]: one HTTP/1.1 connection without an async runtime, since the client shares the machine's cores.
//! - [`generator`]: closed loop (peak) and open loop (a set rate), kept or new connections.
//! - [`reconcile`]: the ledger against the rows in PostgreSQL: lost, duplicated, never sent.
//! - [`machine`]: which process runs on which core. [`usage`]: the resources that a process has used.
//! - [`run`]: one load and its table.
//! - [`contestant`]: nginx and pixeld, for the comparison; [`compare`]: the comparison and its report.
//!
//! A private PostgreSQL and a `pixeld serve` come from the crate `pixeld-testkit`. Tests and benches of pixeld drive their loads
//! with this one.

pub mod compare;
pub mod connection;
pub mod contestant;
pub mod generator;
pub mod ledger;
pub mod machine;
pub mod pixels;
pub mod reconcile;
pub mod run;
pub mod usage;
