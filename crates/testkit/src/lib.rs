//! What tests, benches and loads start beside or around pixeld, with real programs and no mocks.
//!
//! Guarantees: everything listens on 127.0.0.1 only, on ports of its own, and keeps its data in a directory of its own. What a
//! value has started ends when the value is dropped. Gives up: it runs on Linux only, since it reads `/proc`.
//!
//! # Layout
//! - [`postgres`]: a private PostgreSQL that can be queried, stopped and frozen.
//! - [`redis`]: a private Redis, likewise.
//! - [`server`]: a `pixeld serve` with settings of its own, its answers and its metrics.
//! - [`process`]: signals, free ports, and waiting for a condition.
//!
//! The load generator is the crate `loadtest`, which uses this one.

pub mod postgres;
pub mod process;
pub mod redis;
pub mod server;
