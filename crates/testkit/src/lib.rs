//! What tests, benches and loads start beside or around pixeld: real programs, no mocks.
//!
//! Guarantees: everything listens only on 127.0.0.1, on its own ports, and keeps its data in its own directory.
//! Dropping a value ends what it has started. Gives up: other systems than Linux, since it reads `/proc`.
//!
//! # Layout
//! - [`postgres`]: a private PostgreSQL that can be queried, stopped and frozen.
//! - [`redis`]: a private Redis, with the same control.
//! - [`server`]: a `pixeld serve` with settings of its own, its answers and its metrics.
//! - [`process`]: signals, free ports, and waiting for a condition.
//!
//! The load generator is the crate `loadtest`, which uses this one.

pub mod postgres;
pub mod process;
pub mod redis;
pub mod server;
