//! The arguments of `pixeld opt-out`.

use clap::Args;

/// The arguments of `pixeld opt-out`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct OptOutArgs {
    /// The recipient: a UUID, or the key in the links; - reads it from standard input.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: String,
    /// Undo the opt-out: record this recipient again from now on.
    #[arg(long)]
    pub undo: bool,
}
