//! Opens: what hits say about one message and one recipient, and how certain that is.
//!
//! [`classify`] judges a hit by its evidence; [`agent`] reads the user agent; [`rule`] and [`class`] name the result.
//! All of it is pure.

pub mod agent;
pub mod class;
pub mod classify;
pub mod rule;
#[cfg(test)]
mod score;
