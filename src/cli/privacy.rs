//! People who ask to be forgotten, or what is held on them: what `pixeld erase` and `pixeld export` take.

use clap::{ArgGroup, Args};

/// What is said below `pixeld erase --help`.
pub(super) const ERASE_AFTER_HELP: &str = "\
Examples:
  pixeld erase --recipient 4711 --wait
  printf %s jane@example.com | pixeld erase --recipient -
  pixeld erase --status";

/// What is said below `pixeld export --help`.
pub(super) const EXPORT_AFTER_HELP: &str = "\
Examples:
  pixeld export --recipient 4711 > 4711.json
  printf %s jane@example.com | pixeld export --recipient -";

/// What `pixeld erase` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["recipient", "status"]))]
pub struct EraseArgs {
    /// The recipient: a UUID, or the key that the links have; - reads it from standard input, so that it stands neither in the
    /// shell's history nor in the list of processes. With --status: whose receipts are shown; default: the latest 50 of all.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: Option<String>,
    /// Wait until every node has carried it out.
    #[arg(long, requires = "recipient", conflicts_with = "status")]
    pub wait: bool,
    /// Erase nothing; show the receipts of the latest 50 erasures, or of all of one recipient.
    #[arg(long)]
    pub status: bool,
}

/// What `pixeld export` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExportArgs {
    /// The recipient: a UUID, or the key that the links have; - reads it from standard input.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: String,
}
