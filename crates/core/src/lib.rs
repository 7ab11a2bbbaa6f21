//! The vocabulary of pixeld: links, hits, opens, networks, and metrics.
//!
//! Guarantees: nothing here opens a file or a socket, and no database, page or listener is reachable from here
//! (`Cargo.toml` names none), so all of it can be tested with any input. It asks the system only for the time
//! ([`clock`]).

#![warn(unreachable_pub)]

pub mod clock;
pub mod digest;
pub mod drain;
pub mod hit;
pub mod ids;
pub mod link;
pub mod metrics;
pub mod networks;
pub mod opens;
pub mod privacy;
pub mod text;
