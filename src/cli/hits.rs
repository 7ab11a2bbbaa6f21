//! Hits: the arguments of `pixeld reclassify` and `spool`.

use clap::{Args, Subcommand};

use super::value::parse_time;

const SPOOL_STATUS_AFTER_HELP: &str = "\
Example:
  pixeld spool status";

const SPOOL_DRAIN_AFTER_HELP: &str = "\
Example, to retire a node after you stopped its `pixeld serve`:
  PIXELD_DATA_DIR=/var/lib/pixeld pixeld spool drain --retire";

/// The arguments of `pixeld reclassify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReclassifyArgs {
    /// Start with the day (UTC) of this time: 2026-05-04T09:00:00Z, or s since 1970; default: all hits.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<u32>,
}

/// What can be done with the spool.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum SpoolCommand {
    /// Show each spool in PIXELD_DATA_DIR: how many hits and bytes wait to be loaded.
    #[command(after_help = SPOOL_STATUS_AFTER_HELP)]
    Status,
    /// Load all waiting hits into the database, and exit. `pixeld serve` must not run on the same directory.
    #[command(after_help = SPOOL_DRAIN_AFTER_HELP)]
    Drain(SpoolDrainArgs),
}

/// The arguments of `pixeld spool drain`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SpoolDrainArgs {
    /// Then remove all hits and quarantined bytes from PIXELD_DATA_DIR, loaded hits too, and remove this node from the nodes
    /// that must carry out erasures.
    #[arg(long)]
    pub retire: bool,
}
