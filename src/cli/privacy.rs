//! Erasure and export: the arguments of `pixeld erase` and `pixeld export`.

use clap::{ArgGroup, Args};

/// The text below `pixeld erase --help`.
pub(super) const ERASE_AFTER_HELP: &str = "\
Examples:
  pixeld erase --recipient 4711 --wait
  printf %s jane@example.com | pixeld erase --recipient -
  pixeld erase --status";

/// The text below `pixeld export --help`.
pub(super) const EXPORT_AFTER_HELP: &str = "\
Examples:
  pixeld export --recipient 4711 > 4711.json
  printf %s jane@example.com | pixeld export --recipient -";

/// The arguments of `pixeld erase`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["recipient", "status"]))]
pub struct EraseArgs {
    /// The recipient: a UUID, or the key in the links; - reads it from standard input, which keeps it out of the
    /// shell's history and the list of processes. With --status: show only this recipient's receipts; default: the latest 50 receipts.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: Option<String>,
    /// Wait until every node has carried out the erasure.
    #[arg(long, requires = "recipient", conflicts_with = "status")]
    pub wait: bool,
    /// Erase nothing; show the receipts of the latest 50 erasures, or all receipts of one recipient.
    #[arg(long)]
    pub status: bool,
}

/// The arguments of `pixeld export`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExportArgs {
    /// The recipient: a UUID, or the key in the links; - reads it from standard input.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: String,
}
