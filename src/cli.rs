//! The command line: which command, with what. Everything else is settings in the environment ([`crate::config`]).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// What is said below the list of commands.
const AFTER_HELP: &str = "\
Settings come from environment variables; .env.example lists every one with its default and unit.
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

const IMAGE_ADD_AFTER_HELP: &str = "\
Examples:
  pixeld image add logo.png --title 'Our logo'
  pixeld image add dot.gif --id 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11";

const IMAGE_LIST_AFTER_HELP: &str = "\
Example:
  pixeld image list";

const SPOOL_AFTER_HELP: &str = "\
Examples:
  pixeld spool status
  pixeld spool drain";

const SPOOL_STATUS_AFTER_HELP: &str = "\
Example:
  pixeld spool status";

const SPOOL_DRAIN_AFTER_HELP: &str = "\
Example, to retire a node after its `pixeld serve` was stopped:
  PIXELD_DATA_DIR=/var/lib/pixeld pixeld spool drain";

const HEALTHCHECK_AFTER_HELP: &str = "\
Example, in a Dockerfile:
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
    /// On SIGTERM or Ctrl-C accepted work is finished for up to PIXELD_DRAIN_SECONDS (default 10 s); a second signal
    /// ends it at once, and what is spooled is loaded at the next start. Without DATABASE_URL a private PostgreSQL in
    /// PIXELD_DATA_DIR (default ./data) is started, and stopped at the end.
    #[command(after_help = SERVE_AFTER_HELP)]
    Serve(ServeArgs),
    /// Bring the database's tables to this version, and exit.
    ///
    /// `serve` does so by itself. Any number of nodes may do it at once; one does it, the others wait.
    #[command(after_help = MIGRATE_AFTER_HELP)]
    Migrate,
    /// Print the database's URL, for psql; with the password, where DATABASE_URL has one.
    #[command(name = "database-url", after_help = DATABASE_URL_AFTER_HELP)]
    DatabaseUrl,
    /// Add images, or list them.
    #[command(subcommand, after_help = IMAGE_AFTER_HELP)]
    Image(ImageCommand),
    /// Look at the hits on disk that are not in the database yet, or load them.
    #[command(subcommand, after_help = SPOOL_AFTER_HELP)]
    Spool(SpoolCommand),
    /// Ask the `pixeld serve` with the same settings whether it can serve pixels; exit status 0 if so, else 1.
    #[command(after_help = HEALTHCHECK_AFTER_HELP)]
    Healthcheck,
}

/// What `pixeld serve` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ServeArgs {
    /// Add a sample image if there is none, and print what to try.
    #[arg(long)]
    pub sample: bool,
}

/// What can be done with images.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImageCommand {
    /// Add an image: GIF, PNG, JPEG or WebP, told by its bytes, not its name; at most 1 MiB and 4096 x 4096 pixels.
    ///
    /// It is stored byte for byte and served within about a second by every node. Prints its id.
    #[command(after_help = IMAGE_ADD_AFTER_HELP)]
    Add(ImageAddArgs),
    /// List the images: id, media type, width and height in pixels, bytes, title.
    #[command(after_help = IMAGE_LIST_AFTER_HELP)]
    List,
}

/// What `pixeld image add` takes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImageAddArgs {
    /// The image's file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The id that links name it by; default: a new random one.
    #[arg(long, value_name = "UUID", value_parser = parse_id)]
    pub id: Option<Uuid>,
    /// What people call it; default: the file's name.
    #[arg(long, value_name = "TITLE")]
    pub title: Option<String>,
}

/// What can be done with the spool.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum SpoolCommand {
    /// Show each spool in PIXELD_DATA_DIR: how many hits and bytes wait to be loaded.
    #[command(after_help = SPOOL_STATUS_AFTER_HELP)]
    Status,
    /// Load everything that waits into the database, and exit. Not while `pixeld serve` runs on the same directory.
    #[command(after_help = SPOOL_DRAIN_AFTER_HELP)]
    Drain,
}

/// An image's id; never nil, which means absent in a link.
fn parse_id(text: &str) -> Result<Uuid, String> {
    match Uuid::try_parse(text) {
        Ok(id) if id.is_nil() => Err("the nil UUID means \"none\" and cannot be an image's id".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err("a UUID is needed, like 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

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
            ("migrate", Command::Migrate),
            ("database-url", Command::DatabaseUrl),
            ("image add a.gif", add("a.gif", None, None)),
            ("image add a.gif --id 6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11 --title T", add("a.gif", Some(id), Some("T"))),
            ("image add --id 6F1C0A523F0E4A539D536A1D7B1F2C11 a.gif", add("a.gif", Some(id), None)),
            ("image list", Command::Image(ImageCommand::List)),
            ("spool status", Command::Spool(SpoolCommand::Status)),
            ("spool drain", Command::Spool(SpoolCommand::Drain)),
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
            "--sample",
        ] {
            assert_eq!(command(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }

    #[test]
    fn help_of_every_command_has_an_example() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
            command.get_subcommands_mut().filter(|command| command.get_name() != "help").for_each(check);
        }
        check(&mut Cli::command());
    }

    #[test]
    fn the_version_is_the_crates() {
        let error = command("--version").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayVersion);
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")));
    }
}
