//! pixeld: which emails were opened, by whom, when, and how certain that is.
//!
//! `ARCHITECTURE.md` is the map: the purpose of each room, which rooms it may use (a test checks every `use` against
//! that table), and where to change what. Only [`app`] sees all.

#![warn(unreachable_pub)]

mod admin;
mod app;
mod backoff;
mod cli;
mod clocks;
mod config;
mod db;
mod erasure;
mod images;
mod ingest;
mod kept_list;
mod lists;
mod network_lists;
mod opt_outs;
mod rollup;
mod signals;
mod telemetry;
mod whole_file;

pub use app::{main, parts};

use pixeld_core::clock::micros::Micros;

/// When this program was built: no hit of its own can be older.
const BUILT_AT: Micros = built_at(env!("PIXELD_BUILT"));

const fn built_at(seconds: &str) -> Micros {
    let digits = seconds.as_bytes();
    let mut value = 0;
    let mut at = 0;
    while at < digits.len() {
        assert!(digits[at].is_ascii_digit(), "PIXELD_BUILT is a number of seconds");
        value = value * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    Micros::of_seconds(value)
}
