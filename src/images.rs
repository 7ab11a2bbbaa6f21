//! Images: how they are stored, and how each node's cache ([`pixeld_edge::images`]) follows.
//!
//! [`sync`] follows PostgreSQL, [`known`] keeps the ids on disk, [`upload`] accepts new images.

mod exif;
pub(crate) mod known;
#[cfg(test)]
mod samples;
pub(crate) mod sync;
pub(crate) mod upload;
