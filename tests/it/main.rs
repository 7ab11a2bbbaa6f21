//! Drives the real binary against a real PostgreSQL: what a mail client, a sender and an operator see, and what is left
//! after the worst failures.
//!
//! All loads come from this machine's loopback, so every server here runs with `PIXELD_ADDRESS_RATE=off` and
//! `PIXELD_THROTTLE=off` unless a test sets otherwise; the defaults would limit one address, as they should.
//!
//! Each folder's head describes its tests.
#![allow(clippy::unwrap_used, missing_docs)]
#![expect(
    clippy::disallowed_methods,
    reason = "the bans of clippy.toml are for the program; tests start what is on the other side"
)]

mod admin;
mod database;
mod edge;
mod faults;
mod kit;
mod opens;
mod privacy;
mod ship;
mod throttle;
