//! Links, keys and messages: the arguments of `pixeld link`, `namespace` and `message`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::value::{parse_id, parse_time, parse_title};
use pixeld_core::ids::ImageId;

const MESSAGE_SET_AFTER_HELP: &str = "\
Example:
  pixeld message set may-news --name 'News of May' --sent-at 2026-05-04T09:00:00Z --sent-count 12000";

const MESSAGE_LIST_AFTER_HELP: &str = "\
Example:
  pixeld message list";

/// The arguments of `pixeld link`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LinkArgs {
    /// The image's id.
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    pub image: ImageId,
    /// The message: a UUID or your own key, 1 to 128 bytes; default: the link names no message.
    #[arg(long, value_name = "UUID|KEY")]
    pub message: Option<String>,
    /// The recipient: a UUID or your own key, 1 to 128 bytes; default: the link names no recipient.
    #[arg(long, value_name = "UUID|KEY")]
    pub recipient: Option<String>,
    /// A CSV list of recipients (- is standard input); prints it with a link and a tag in each row; default: print one link.
    ///
    /// Its header names the columns: the recipient (`recipient` or `id`, or --column); `message`, if it differs from row to row; consents
    /// (`consent`, `opt-in`, `agreed`, `gdpr`, `einwilligung` and the like, or --consent-column). If it says "no" or nothing, the
    /// link does not name the recipient. All other columns stay unchanged. Nothing is printed until the whole list has been checked.
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub csv: Option<PathBuf>,
    /// How the CSV is read.
    #[command(flatten)]
    pub list: ListArgs,
    /// Add a link for the email's footer that opens the page where the recipient opts out.
    #[arg(long)]
    pub opt_out: bool,
    /// The message's send time: now, 2026-05-04T09:00:00Z, or s since 1970; only a signed link holds it;
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
    /// The column of the CSV that holds the consents; default: a column with a name like consent, if there is one.
    #[arg(
        long,
        value_name = "NAME",
        requires = "csv",
        conflicts_with = "all_consent",
        default_value = "",
        hide_default_value = true
    )]
    pub consent_column: String,
    /// Everybody in the CSV has agreed: use no consent column.
    #[arg(long, requires = "csv")]
    pub all_consent: bool,
    /// Accept the CSV although its recipient column looks wrong.
    #[arg(long, requires = "csv")]
    pub sure: bool,
}

/// The arguments of `pixeld namespace`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NamespaceArgs {
    /// Print the id of each of these keys, one a line; default: print the namespace.
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
}

/// What can be done with messages.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum MessageCommand {
    /// Set a message's name, send time and number of recipients. Values that you leave out stay unchanged.
    ///
    /// The send time helps to tell scanners from readers (`pixeld reclassify` applies it to older hits), and the number of recipients
    /// is needed for the open rate.
    #[command(after_help = MESSAGE_SET_AFTER_HELP)]
    Set(MessageSetArgs),
    /// List the 50 most recently opened messages: id, confirmed, possible and machine opens, hits, number of recipients, name.
    #[command(after_help = MESSAGE_LIST_AFTER_HELP)]
    List,
}

/// The arguments of `pixeld message set`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("told").required(true).multiple(true).args(["name", "sent_at", "sent_count"]))]
pub struct MessageSetArgs {
    /// The message: its UUID, or its key in the links.
    #[arg(value_name = "UUID|KEY")]
    pub message: String,
    /// The message's name; default: unchanged.
    #[arg(long, value_name = "NAME", value_parser = parse_title)]
    pub name: Option<String>,
    /// The send time: now, 2026-05-04T09:00:00Z, or s since 1970; default: unchanged.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub sent_at: Option<u32>,
    /// The number of recipients, 0 or more; default: unchanged.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(0..))]
    pub sent_count: Option<i64>,
}
