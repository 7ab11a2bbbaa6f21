//! Opens and counts match the hits.

pub mod classes;
pub mod networks;
pub mod recount;
pub mod rollup;
pub mod zones;
