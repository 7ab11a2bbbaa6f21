//! Opens: what hits say about one message and one recipient, and how surely.
//!
//! [`classify`] judges a hit by its evidence, of which [`agent`] reads the user agent; [`rule`] and [`class`] name what comes
//! out. All of it is pure.

pub mod agent;
pub mod class;
pub mod classify;
pub mod rule;
#[cfg(test)]
mod score;
