//! People who opted out, or were erased; old hits; secrets.

pub mod erasure;
pub mod opt_out;
pub mod opt_out_page;
pub mod retention;
pub mod secrets;
