//! What a mail client sees: links, images, refusals, limits.

pub mod bad_input;
pub mod browser;
pub mod contract;
pub mod forgiven;
pub mod images;
pub mod keys;
pub mod limits;
pub mod links;
