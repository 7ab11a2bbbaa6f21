//! The throttle that nodes share through a real Redis, which stops, freezes and forgets.

pub mod restored;
pub mod script;
pub mod shared;
