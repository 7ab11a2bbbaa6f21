//! What is left after the worst failures.

pub mod batch;
pub mod clocks;
pub mod crash;
pub mod disk;
pub mod lost_images;
pub mod outage;
pub mod put_back;
pub mod signals;
pub mod small_disk;
pub mod supervise;
