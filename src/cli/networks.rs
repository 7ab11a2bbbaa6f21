//! Lists of networks: the arguments of `pixeld networks`.

use clap::{Args, Subcommand};

const NETWORKS_UPDATE_AFTER_HELP: &str = "\
Examples:
  pixeld networks update
  pixeld networks update --apple-url https://mirror.example.com/egress-ip-ranges.csv";

const NETWORKS_STATUS_AFTER_HELP: &str = "\
Example:
  pixeld networks status";

/// What can be done with the lists of networks.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum NetworksCommand {
    /// Download the address lists that Apple, Google, Google Cloud and Amazon publish into PIXELD_NETWORKS_DIR.
    ///
    /// Each download may take 60 s and 64 MiB. If a list cannot be downloaded, or has an error in it, the old list stays and the
    /// exit status is 1. A running `pixeld serve` reads new lists within 10 s.
    #[command(after_help = NETWORKS_UPDATE_AFTER_HELP)]
    Update(NetworksUpdateArgs),
    /// Show each list in PIXELD_NETWORKS_DIR: ranges and age; exit status 1 if a list is refused.
    #[command(after_help = NETWORKS_STATUS_AFTER_HELP)]
    Status,
}

/// The arguments of `pixeld networks update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct NetworksUpdateArgs {
    /// The URL of Apple's list of relay addresses (CSV); default: Apple's own.
    #[arg(long, value_name = "URL")]
    pub apple_url: Option<String>,
    /// The URL of Google's list (goog.json); default: Google's own.
    #[arg(long, value_name = "URL")]
    pub google_url: Option<String>,
    /// The URL of Google Cloud's list (cloud.json); default: Google's own.
    #[arg(long, value_name = "URL")]
    pub google_cloud_url: Option<String>,
    /// The URL of Amazon's list (ip-ranges.json); default: Amazon's own.
    #[arg(long, value_name = "URL")]
    pub amazon_url: Option<String>,
}
