//! The throttle that nodes share through a real Redis, which stops, freezes and loses its data.

pub mod restored;
pub mod script;
pub mod shared;
