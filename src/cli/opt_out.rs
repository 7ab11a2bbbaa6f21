//! What `pixeld opt-out` takes.

use clap::Args;

/// What `pixeld opt-out` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct OptOutArgs {
    /// The recipient: a UUID, or the key that its links have; - reads it from standard input.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: String,
    /// Take the opt-out back: record this recipient again, from now on.
    #[arg(long)]
    pub undo: bool,
}
