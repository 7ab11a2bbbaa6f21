//! The command line: the commands and their arguments. Everything else is a setting in the environment
//! ([`crate::config`]).

mod hits;
mod image;
mod import;
mod link;
mod networks;
mod opt_out;
mod privacy;
mod user;
mod value;

#[cfg(test)]
mod help;

use clap::{Args, Parser, Subcommand};

pub(crate) use hits::{ReclassifyArgs, SpoolCommand};
pub(crate) use image::ImageCommand;
pub(crate) use import::{ImportCommand, ImportDjangoArgs};
pub(crate) use link::{LinkArgs, MessageCommand, MessageSetArgs, NamespaceArgs};
pub(crate) use networks::{NetworksCommand, NetworksUpdateArgs};
pub(crate) use opt_out::OptOutArgs;
pub(crate) use privacy::{EraseArgs, ExportArgs};
pub(crate) use user::{UserAddArgs, UserCommand, UserPasswordArgs};

/// The text below the list of commands.
const AFTER_HELP: &str = "\
Settings come from environment variables and from the file pixeld.env in PIXELD_DATA_DIR; .env.example lists all settings with
default and unit. Commands find the running pixeld by PIXELD_DATA_DIR (default ./data) or DATABASE_URL, and use the settings that it
started with. Only serve and migrate create a database; without one, the other commands end with status 64.
If settings are wrong, every command lists all errors and ends with exit status 64.

Examples:
  pixeld                               serve pixels on 0.0.0.0:8080, with a private PostgreSQL in ./data
  pixeld image add logo.png            add an image and print its id
  DATABASE_URL=postgresql://pixeld:secret@db.example.com/pixeld pixeld serve";

const SERVE_AFTER_HELP: &str = "\
Example:
  PIXELD_LISTEN=0.0.0.0:80 PIXELD_BASE_URL=http://pixels.example.com pixeld serve";

const MIGRATE_AFTER_HELP: &str = "\
Example, before new nodes are started:
  DATABASE_URL=postgresql://pixeld:secret@db.example.com/pixeld pixeld migrate";

const DATABASE_URL_AFTER_HELP: &str = "\
Example:
  psql \"$(pixeld database-url)\" -c 'SELECT * FROM hits_readable ORDER BY at DESC LIMIT 10'";

const IMAGE_AFTER_HELP: &str = "\
Examples:
  pixeld image add logo.png --title 'Our logo'
  pixeld image list";

const LINK_AFTER_HELP: &str = "\
Examples:
  pixeld link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --message may-news --recipient 4711
  pixeld link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --message may-news --recipient jane@example.com \\
      --sent-at now     (signed: with the PIXELD_SIGNING_KEYS that `pixeld serve` has)
  pixeld link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --message may-news --opt-out --csv list.csv > links.csv";

const OPT_OUT_AFTER_HELP: &str = "\
Examples:
  pixeld opt-out --recipient jane@example.com
  pixeld opt-out --recipient 22222222-2222-4222-8222-222222222222 --undo";

const NAMESPACE_AFTER_HELP: &str = "\
Examples:
  pixeld namespace
  pixeld namespace may-news 4711";

const MESSAGE_AFTER_HELP: &str = "\
Examples:
  pixeld message set may-news --name 'News of May' --sent-at 2026-05-04T09:00:00Z --sent-count 12000
  pixeld message list";

const NETWORKS_AFTER_HELP: &str = "\
Examples:
  pixeld networks update
  pixeld networks status";

const RECLASSIFY_AFTER_HELP: &str = "\
Examples:
  pixeld reclassify
  pixeld reclassify --since 2026-05-01T00:00:00Z";

const SPOOL_AFTER_HELP: &str = "\
Examples:
  pixeld spool status
  pixeld spool drain";

const HEALTHCHECK_AFTER_HELP: &str = "\
Examples, in a shell and in a Dockerfile:
  pixeld healthcheck && echo well
  HEALTHCHECK CMD [\"pixeld\", \"healthcheck\"]";

/// Show senders of email which messages were opened.
#[derive(Debug, Parser)]
#[command(name = "pixeld", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// The command; default: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The given command, or [`Command::Serve`] without options.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(ServeArgs { sample: false }))
    }
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve pixels and record their fetches, until SIGTERM or Ctrl-C (the default command).
    ///
    /// On SIGTERM, Ctrl-C or SIGHUP (the terminal was closed) pixeld finishes accepted work for up to PIXELD_DRAIN_SECONDS (default 10 s). A second signal
    /// stops it at once; the next start loads the hits that are left in the spool. Without DATABASE_URL, pixeld starts a private PostgreSQL in
    /// PIXELD_DATA_DIR (default ./data) and stops it at the end.
    #[command(after_help = SERVE_AFTER_HELP)]
    Serve(ServeArgs),
    /// Update the database's tables to this version, and exit.
    ///
    /// `serve` does this automatically. Several nodes may run it at once: one updates the tables, the others wait.
    /// A node belongs to the installation that it connected to first. On another or an empty database the command fails with exit status 64.
    #[command(after_help = MIGRATE_AFTER_HELP)]
    Migrate(MigrateArgs),
    /// Print the database's URL, for psql; it includes the password if DATABASE_URL has one.
    #[command(name = "database-url", after_help = DATABASE_URL_AFTER_HELP)]
    DatabaseUrl,
    /// Add images, or list them.
    #[command(subcommand, after_help = IMAGE_AFTER_HELP)]
    Image(ImageCommand),
    /// Print a link for an email, and the <img> tag that shows the image.
    ///
    /// If PIXELD_SIGNING_KEYS is set, its first key signs the link. Otherwise the link holds the ids, or your keys if they are not UUIDs.
    /// With --csv, print the links of a whole list.
    #[command(after_help = LINK_AFTER_HELP)]
    Link(LinkArgs),
    /// Stop recording what a recipient opens, at once and on every node; with --undo, record it again.
    ///
    /// Images are still served, and hits that were recorded before are kept. Prints a receipt.
    #[command(name = "opt-out", after_help = OPT_OUT_AFTER_HELP)]
    OptOut(OptOutArgs),
    /// Print the namespace that turns keys into ids (UUIDs of version 5), or the id of each KEY.
    #[command(after_help = NAMESPACE_AFTER_HELP)]
    Namespace(NamespaceArgs),
    /// Set a message's name, send time and number of recipients, or list messages with their opens.
    #[command(subcommand, after_help = MESSAGE_AFTER_HELP)]
    Message(MessageCommand),
    /// Add, list or remove users of the admin page.
    #[command(subcommand, after_help = user::USER_AFTER_HELP)]
    User(UserCommand),
    /// Download the providers' address lists, or show their state.
    #[command(subcommand, after_help = NETWORKS_AFTER_HELP)]
    Networks(NetworksCommand),
    /// Judge the stored hits again with the rules of this version, and update opens and counts.
    ///
    /// Run it after an upgrade, when all nodes have this version, or after you set a message's send time. pixeld may serve pixels and load hits
    /// meanwhile. The command works day by day, in complete chunks of 50,000 hits, so you can stop it at any time and run it again. A hit keeps
    /// the network that its address belonged to when it came.
    #[command(after_help = RECLASSIFY_AFTER_HELP)]
    Reclassify(ReclassifyArgs),
    /// Erase a recipient: delete their hits and opens from the database and from every node's disk, and show the receipt.
    ///
    /// Erased hits do not come back, neither from a node's disk nor from a backup that is restored later.
    /// pixeld records later opens again; to prevent that, opt the recipient out first. The receipt is final when every
    /// node that may hold hits has carried out the erasure. A node that is down does so when it starts.
    #[command(after_help = privacy::ERASE_AFTER_HELP)]
    Erase(EraseArgs),
    /// Print all data about a recipient, as JSON.
    #[command(after_help = privacy::EXPORT_AFTER_HELP)]
    Export(ExportArgs),
    /// Show the hits on disk that are not in the database yet, or load them.
    #[command(subcommand, after_help = SPOOL_AFTER_HELP)]
    Spool(SpoolCommand),
    /// Import the images and the log of another program.
    #[command(subcommand, after_help = import::IMPORT_AFTER_HELP)]
    Import(ImportCommand),
    /// Check whether the `pixeld serve` with the same settings can serve pixels; exit status 0 if it can, otherwise 1.
    #[command(after_help = HEALTHCHECK_AFTER_HELP)]
    Healthcheck,
}

/// The arguments of `pixeld migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MigrateArgs {
    /// Use this database from now on, even if this node belongs to another installation. Restart `serve` afterwards.
    ///
    /// pixeld loads the hits that wait on this node into it. The former installation's opt-outs and erasures do not apply to it;
    /// the node uses the lists of the new one.
    #[arg(long)]
    pub new_installation: bool,
}

/// The arguments of `pixeld serve`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// Add a sample image if there are no images, and print what to try.
    #[arg(long)]
    pub sample: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::hits::SpoolDrainArgs;
    use super::image::ImageAddArgs;
    use super::link::ListArgs;
    use super::*;
    use pixeld_core::ids::ImageId;

    fn command(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("pixeld").chain(words.split_whitespace())).map(Cli::into_command)
    }

    #[test]
    fn the_definition_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_is_read() {
        let id = ImageId::from_u128(0x6f1c_0a52_3f0e_4a53_9d53_6a1d_7b1f_2c11);
        let add = |file: &str, id, title: Option<&str>| {
            Command::Image(ImageCommand::Add(ImageAddArgs { file: file.into(), id, title: title.map(str::to_owned) }))
        };
        for (words, expected) in [
            ("", Command::Serve(ServeArgs { sample: false })),
            ("serve", Command::Serve(ServeArgs { sample: false })),
            ("serve --sample", Command::Serve(ServeArgs { sample: true })),
            ("migrate", Command::Migrate(MigrateArgs { new_installation: false })),
            ("database-url", Command::DatabaseUrl),
            ("image add a.gif", add("a.gif", None, None)),
            ("image add a.gif --id 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --title T", add("a.gif", Some(id), Some("T"))),
            ("image add --id 6F1C0A523F0E4A539D536A1D7B1F2C11 a.gif", add("a.gif", Some(id), None)),
            ("image list", Command::Image(ImageCommand::List)),
            ("opt-out --recipient 4711", Command::OptOut(OptOutArgs { recipient: "4711".to_owned(), undo: false })),
            (
                "opt-out --recipient 4711 --undo",
                Command::OptOut(OptOutArgs { recipient: "4711".to_owned(), undo: true }),
            ),
            ("namespace a b", Command::Namespace(NamespaceArgs { keys: vec!["a".to_owned(), "b".to_owned()] })),
            (
                "message set may --name May --sent-at 2026-05-04T09:00:00Z --sent-count 12000",
                Command::Message(MessageCommand::Set(MessageSetArgs {
                    message: "may".to_owned(),
                    name: Some("May".to_owned()),
                    sent_at: Some(1_777_885_200),
                    sent_count: Some(12_000),
                })),
            ),
            ("message list", Command::Message(MessageCommand::List)),
            ("networks update", Command::Networks(NetworksCommand::Update(NetworksUpdateArgs::default()))),
            ("networks status", Command::Networks(NetworksCommand::Status)),
            ("reclassify", Command::Reclassify(ReclassifyArgs { since: None })),
            (
                "reclassify --since 2026-05-04T09:00:00Z",
                Command::Reclassify(ReclassifyArgs { since: Some(1_777_885_200) }),
            ),
            ("spool status", Command::Spool(SpoolCommand::Status)),
            ("spool drain", Command::Spool(SpoolCommand::Drain(SpoolDrainArgs { retire: false }))),
            ("spool drain --retire", Command::Spool(SpoolCommand::Drain(SpoolDrainArgs { retire: true }))),
            (
                "erase --recipient 4711 --wait",
                Command::Erase(EraseArgs { recipient: Some("4711".to_owned()), wait: true, status: false }),
            ),
            ("erase --status", Command::Erase(EraseArgs { recipient: None, wait: false, status: true })),
            ("export --recipient -", Command::Export(ExportArgs { recipient: "-".to_owned() })),
            ("healthcheck", Command::Healthcheck),
        ] {
            assert_eq!(command(words).unwrap(), expected, "{words}");
        }
    }

    #[test]
    fn links_are_asked_for_one_by_one_or_as_a_list() {
        let id = ImageId::from_u128(0x6f1c_0a52_3f0e_4a53_9d53_6a1d_7b1f_2c11);
        for (words, expected) in [
            (
                "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --message may --recipient 4711 --sent-at 1777885200",
                Command::Link(LinkArgs {
                    image: id,
                    message: Some("may".to_owned()),
                    recipient: Some("4711".to_owned()),
                    csv: None,
                    list: ListArgs::default(),
                    opt_out: false,
                    sent_at: Some(1_777_885_200),
                }),
            ),
            (
                "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --csv - --opt-out --column mail --all-consent --sure",
                Command::Link(LinkArgs {
                    image: id,
                    message: None,
                    recipient: None,
                    csv: Some("-".into()),
                    list: ListArgs { column: "mail".to_owned(), all_consent: true, sure: true, ..ListArgs::default() },
                    opt_out: true,
                    sent_at: None,
                }),
            ),
        ] {
            assert_eq!(command(words).unwrap(), expected, "{words}");
        }
    }

    #[test]
    fn a_wrong_command_line_is_refused() {
        for words in [
            "sevre",
            "serve now",
            "image",
            "image add",
            "image add a.gif b.gif",
            "image add a.gif --id 1",
            "image add a.gif --id 00000000-0000-0000-0000-000000000000",
            "spool",
            "link",
            "link --image 1",
            "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --sent-at yesterday",
            "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --sent-at 0",
            "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --sent-at 4294967296",
            "link --image 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --recipient 1 --csv a.csv",
            "opt-out",
            "opt-out --undo",
            "message set",
            "message set may",
            "message set may --sent-count -1",
            "networks",
            "erase",
            "erase 4711",
            "erase --wait",
            "erase --status --wait",
            "export",
            "--sample",
        ] {
            assert_eq!(command(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn the_version_is_the_crates() {
        let error = command("--version").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")));
    }
}
