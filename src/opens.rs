//! Opens: what hits say about one message and one recipient, and how surely.
//!
//! Pure: [`classify`] judges a hit by its evidence, of which [`agent`] reads the user agent; [`rule`] and [`class`] name what
//! comes out.

pub mod agent;
pub mod class;
pub mod classify;
pub mod rule;
#[cfg(test)]
mod score;
