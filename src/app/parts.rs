//! What the integration tests and the benches use beside the program, under the names of its rooms.
//!
//! Nothing else but `main` leaves this crate, so the compiler finds what no code uses.

pub mod admin {
    //! The private listener.
    pub use crate::admin::route::{Access, ROUTES};
    pub use crate::admin::upload::UPLOAD_BYTES_MAX;
    pub use crate::admin::view::number;
}

pub mod app {
    //! `serve`, and what it does when a task ends.
    pub use crate::app::serve_ending;
    pub use crate::app::supervise::{IfItEnds, if_it_ends};
}

pub mod cli {
    //! What can be typed.
    pub use crate::cli::Cli;
}

pub mod config {
    //! Settings.
    pub use crate::config::{Config, Reader, Secret};
}

pub mod db {
    //! The way to PostgreSQL.
    pub use crate::db::users::Role;
    pub use crate::db::{Database, DbError, Lease, Session, export, images, locks, log, migrate, partitions, within};
}

pub mod ingest {
    //! From the queue to a row.
    pub use crate::ingest::{batch, copy, judge, known, loader, memory, shared_throttle, throttle};
}

pub mod network_lists {
    //! The lists of networks.
    pub use crate::network_lists::files;
}

pub mod opt_outs {
    //! People who asked not to be recorded.
    pub use crate::opt_outs::suppressions;
}

pub mod rollup {
    //! From hits to opens and counts.
    pub use crate::rollup::{change, retention, retention_day, tally, task, turn};
}

pub mod telemetry {
    //! Logs.
    pub use crate::telemetry::start;
}
