//! Images: what is stored of them, and how each node's cache ([`pixeld_edge::images`]) is kept in step.
//!
//! [`sync`] follows PostgreSQL, [`known`] keeps the ids on disk, [`upload`] takes new images.

mod exif;
pub mod known;
#[cfg(test)]
mod samples;
pub mod sync;
pub mod upload;
