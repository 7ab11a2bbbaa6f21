//! Opens and counts are what the hits say.

pub mod classes;
pub mod networks;
pub mod recount;
pub mod rollup;
pub mod zones;
