//! Lists of networks: what `pixeld networks` takes.

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
    /// Fetch the lists that providers publish (Apple, Google, Google Cloud, Amazon) into PIXELD_NETWORKS_DIR.
    ///
    /// Each within 60 s and at most 64 MiB. A list that cannot be fetched, or that holds anything wrong, leaves the old one as
    /// it is; the exit status is 1 then. A running `pixeld serve` reads the new ones within 10 s.
    #[command(after_help = NETWORKS_UPDATE_AFTER_HELP)]
    Update(NetworksUpdateArgs),
    /// Show each list in PIXELD_NETWORKS_DIR: ranges and age; exit status 1 where one is refused.
    #[command(after_help = NETWORKS_STATUS_AFTER_HELP)]
    Status,
}

/// What `pixeld networks update` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct NetworksUpdateArgs {
    /// Where Apple's list of relay addresses is fetched from instead (CSV); default: from Apple.
    #[arg(long, value_name = "URL")]
    pub apple_url: Option<String>,
    /// Where Google's list is fetched from instead (goog.json); default: from Google.
    #[arg(long, value_name = "URL")]
    pub google_url: Option<String>,
    /// Where Google Cloud's list is fetched from instead (cloud.json); default: from Google.
    #[arg(long, value_name = "URL")]
    pub google_cloud_url: Option<String>,
    /// Where Amazon's list is fetched from instead (ip-ranges.json); default: from Amazon.
    #[arg(long, value_name = "URL")]
    pub amazon_url: Option<String>,
}
