//! Links, keys and messages: what `pixeld link`, `namespace` and `message` take.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use uuid::Uuid;

use super::value::{parse_id, parse_time, parse_title};

const MESSAGE_SET_AFTER_HELP: &str = "\
Example:
  pixeld message set may-news --name 'News of May' --sent-at 2026-05-04T09:00:00Z --sent-count 12000";

const MESSAGE_LIST_AFTER_HELP: &str = "\
Example:
  pixeld message list";

/// What `pixeld link` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LinkArgs {
    /// The image.
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    pub image: Uuid,
    /// The message: a UUID, or a key of your own, 1 to 128 bytes; default: the link names none.
    #[arg(long, value_name = "UUID|KEY")]
    pub message: Option<String>,
    /// The recipient: a UUID, or a key of your own, 1 to 128 bytes; default: the link names none.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: Option<String>,
    /// A CSV of recipients (- is standard input), printed with a link and a tag for each row; default: one link is printed.
    ///
    /// Its header names the columns: the recipient (`recipient` or `id`, or --column); `message`, if it differs from row to row; consents
    /// (`consent`, `opt-in`, `agreed`, `gdpr`, `einwilligung` and the like, or --consent-column), where "no" or nothing makes
    /// a link without the recipient. All other columns stay as they are. Nothing is printed before the whole list was found right.
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub csv: Option<PathBuf>,
    /// How the CSV is read.
    #[command(flatten)]
    pub list: ListArgs,
    /// Add the link for the email's footer, with which the recipient opts out of being recorded.
    #[arg(long)]
    pub opt_out: bool,
    /// When the message is sent: now, 2026-05-04T09:00:00Z, or s since 1970; only a signed link holds it;
    /// default: unknown.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub sent_at: Option<u32>,
}

/// How a CSV is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// The column of the CSV that holds the recipients; default: recipient or id.
    #[arg(long, value_name = "NAME", requires = "csv", default_value = "", hide_default_value = true)]
    pub column: String,
    /// The column of the CSV that holds the consents; default: the one whose name tells it, if there is one.
    #[arg(
        long,
        value_name = "NAME",
        requires = "csv",
        conflicts_with = "all_consent",
        default_value = "",
        hide_default_value = true
    )]
    pub consent_column: String,
    /// Everybody in the CSV has agreed: no column of consents is used.
    #[arg(long, requires = "csv")]
    pub all_consent: bool,
    /// Take the CSV although its column of recipients looks wrong.
    #[arg(long, requires = "csv")]
    pub sure: bool,
}

/// What `pixeld namespace` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NamespaceArgs {
    /// Keys whose ids are printed, one a line; default: the namespace is printed.
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
}

/// What can be done with messages.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum MessageCommand {
    /// Tell of a message its name, when it was sent, and to how many. What is left out stays as it is.
    ///
    /// The time of sending is evidence of what fetched a pixel (`pixeld reclassify` applies it to older hits), and the number
    /// makes a rate of the opens.
    #[command(after_help = MESSAGE_SET_AFTER_HELP)]
    Set(MessageSetArgs),
    /// List the 50 messages with the latest hits: id, confirmed, possible and machine opens, hits, sent count, name.
    #[command(after_help = MESSAGE_LIST_AFTER_HELP)]
    List,
}

/// What `pixeld message set` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("told").required(true).multiple(true).args(["name", "sent_at", "sent_count"]))]
pub struct MessageSetArgs {
    /// The message: a UUID, or the key that its links have.
    #[arg(value_name = "UUID|KEY")]
    pub message: String,
    /// What people call it; default: as it was.
    #[arg(long, value_name = "NAME", value_parser = parse_title)]
    pub name: Option<String>,
    /// When it was sent: now, 2026-05-04T09:00:00Z, or s since 1970; default: as it was.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub sent_at: Option<u32>,
    /// To how many recipients it was sent, 0 or more; default: as it was.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    pub sent_count: Option<i64>,
}
