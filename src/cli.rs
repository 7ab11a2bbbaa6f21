//! The command line: which command, with what. Everything else is settings in the environment ([`crate::config`]).

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

pub use hits::{ReclassifyArgs, SpoolCommand, SpoolDrainArgs};
pub use image::{ImageAddArgs, ImageCommand};
pub use import::{ImportCommand, ImportDjangoArgs};
pub use link::{LinkArgs, ListArgs, MessageCommand, MessageSetArgs, NamespaceArgs};
pub use networks::{NetworksCommand, NetworksUpdateArgs};
pub use opt_out::OptOutArgs;
pub use privacy::{EraseArgs, ExportArgs};
pub use user::{UserAddArgs, UserCommand, UserNameArgs, UserPasswordArgs};

/// What is said below the list of commands.
const AFTER_HELP: &str = "\
Settings come from environment variables, and from the file pixeld.env in PIXELD_DATA_DIR; .env.example lists every one with its
default and unit. Commands find the running pixeld by PIXELD_DATA_DIR (default ./data) or DATABASE_URL; what it was started with
they take from there. Only serve and migrate make a database; the others end with status 64 where there is none.
Wrong settings end any command with exit status 64 and a list of all that is wrong.

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

/// Tells senders of email which messages were opened.
#[derive(Debug, Parser)]
#[command(name = "pixeld", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// What to do: the command that was given, else [`Command::Serve`] without options.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(ServeArgs { sample: false }))
    }
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve pixels and record their fetches, until SIGTERM or Ctrl-C (the default command).
    ///
    /// On SIGTERM, Ctrl-C or SIGHUP (the terminal was closed) accepted work is finished for up to PIXELD_DRAIN_SECONDS (default 10 s); a second signal
    /// ends it at once, and what is spooled is loaded at the next start. Without DATABASE_URL a private PostgreSQL in
    /// PIXELD_DATA_DIR (default ./data) is started, and stopped at the end.
    #[command(after_help = SERVE_AFTER_HELP)]
    Serve(ServeArgs),
    /// Bring the database's tables to this version, and exit.
    ///
    /// `serve` does so by itself. Any number of nodes may do it at once; one does it, the others wait.
    /// A node belongs to the installation that it reached first. On another or an empty database this ends with exit status 64.
    #[command(after_help = MIGRATE_AFTER_HELP)]
    Migrate(MigrateArgs),
    /// Print the database's URL, for psql; with the password, where DATABASE_URL has one.
    #[command(name = "database-url", after_help = DATABASE_URL_AFTER_HELP)]
    DatabaseUrl,
    /// Add images, or list them.
    #[command(subcommand, after_help = IMAGE_AFTER_HELP)]
    Image(ImageCommand),
    /// Print a link for an email, and the <img> tag that shows it.
    ///
    /// Signed where PIXELD_SIGNING_KEYS is set, with the first of its keys. Else with the ids as they are, or, where one is no
    /// UUID, with the keys as they are. With --csv, of a whole list.
    #[command(after_help = LINK_AFTER_HELP)]
    Link(LinkArgs),
    /// No longer record what a recipient opens, at once and on every node; or, with --undo, record it again.
    ///
    /// Images are served all the same, and what was recorded before is kept. Prints a receipt.
    #[command(name = "opt-out", after_help = OPT_OUT_AFTER_HELP)]
    OptOut(OptOutArgs),
    /// Print what keys that are no UUIDs are made ids under (as UUIDs of version 5), or the id of each KEY.
    #[command(after_help = NAMESPACE_AFTER_HELP)]
    Namespace(NamespaceArgs),
    /// Tell of a message what only its sender knows, or list the messages with their opens.
    #[command(subcommand, after_help = MESSAGE_AFTER_HELP)]
    Message(MessageCommand),
    /// Add, list or remove those who may sign in to the admin page.
    #[command(subcommand, after_help = user::USER_AFTER_HELP)]
    User(UserCommand),
    /// Fetch the lists of providers' networks, or show those there are.
    #[command(subcommand, after_help = NETWORKS_AFTER_HELP)]
    Networks(NetworksCommand),
    /// Judge the stored hits again with the rules of this version, and bring opens and counts in line.
    ///
    /// After an upgrade, or after the time of sending of a message was told. Pixels may be served and hits loaded meanwhile;
    /// run it when all nodes have this version. A day at a time, in chunks of 50,000 hits, each whole in itself: it may be
    /// stopped at any time and run again. A hit keeps the network that its address lay in when it came.
    #[command(after_help = RECLASSIFY_AFTER_HELP)]
    Reclassify(ReclassifyArgs),
    /// Forget a recipient: delete their hits and opens, here and on every node's disk, and show the receipt.
    ///
    /// What was recorded before is deleted, and does not come back from any node's disk, nor from a backup that is restored later.
    /// What is recorded afterwards is new: who does not want that either is opted out first. The receipt is final when every
    /// node that may hold hits has carried it out; a node that is down does so when it starts.
    #[command(after_help = privacy::ERASE_AFTER_HELP)]
    Erase(EraseArgs),
    /// Print all that is held on a recipient, as JSON.
    #[command(after_help = privacy::EXPORT_AFTER_HELP)]
    Export(ExportArgs),
    /// Look at the hits on disk that are not in the database yet, or load them.
    #[command(subcommand, after_help = SPOOL_AFTER_HELP)]
    Spool(SpoolCommand),
    /// Move over from another program: bring its images and its log.
    #[command(subcommand, after_help = import::IMPORT_AFTER_HELP)]
    Import(ImportCommand),
    /// Ask the `pixeld serve` with the same settings whether it can serve pixels; exit status 0 if so, else 1.
    #[command(after_help = HEALTHCHECK_AFTER_HELP)]
    Healthcheck,
}

/// What `pixeld migrate` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MigrateArgs {
    /// Take this database for this node's installation from now on, also where the node belongs to another. Restart `serve` after it.
    ///
    /// Hits that wait on this node are loaded into it. Lists of opt-outs and erasures of the former installation mean nobody
    /// in it, and begin from its own.
    #[arg(long)]
    pub new_installation: bool,
}

/// What `pixeld serve` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// Add a sample image if there is none, and print what to try.
    #[arg(long)]
    pub sample: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use uuid::Uuid;

    use super::*;

    fn command(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("pixeld").chain(words.split_whitespace())).map(Cli::into_command)
    }

    #[test]
    fn the_definition_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_is_read() {
        let id = Uuid::from_u128(0x6f1c_0a52_3f0e_4a53_9d53_6a1d_7b1f_2c11);
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
