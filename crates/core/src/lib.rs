//! What all of pixeld speaks of: links, hits, opens, networks, and the numbers that are counted.
//!
//! Guarantees: nothing here opens a file or a socket, and no database, page or listener can be seen from here (`Cargo.toml` names none), so all
//! of it can be tried with any input. The one thing that it asks the system for is the time ([`clock`]).

pub mod clock;
pub mod digest;
pub mod drain;
pub mod hit;
pub mod link;
pub mod metrics;
pub mod networks;
pub mod opens;
pub mod privacy;
pub mod text;
