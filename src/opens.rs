//! Opens: what hits say about one message and one recipient, and how surely.
//!
//! [`classify`] judges a hit by its evidence, of which [`agent`] reads the user agent; [`rule`] and [`class`] name what comes
//! out. These are pure. [`rollup`] is the task that keeps opens and counts in step with hits.

pub mod agent;
pub mod class;
pub mod classify;
pub mod retention;
pub mod rollup;
pub mod rule;
#[cfg(test)]
mod score;
