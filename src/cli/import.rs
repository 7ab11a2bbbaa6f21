//! Moving over: the arguments of `pixeld import`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const IMPORT_AFTER_HELP: &str = "\
Example:
  DJANGO_DATABASE_URL=postgresql://app:secret@db.example.com/app pixeld import django --media /srv/app/media";

const IMPORT_DJANGO_AFTER_HELP: &str = "\
Name the Django app's database in DJANGO_DATABASE_URL, in DJANGO_DATABASE_URL_FILE or --database-url-file (a file that
holds the URL), or in --database-url. Everybody on the machine can read an argument while the command runs, and it stays in
the shell's history: if the URL has a password, use one of the others.

Exit status: 0 everything was imported; 3 something could not be imported, and the report says what and why; 1 the import
stopped, and the same command continues it; 64 wrong settings.

Examples:
  pixeld import django --database-url-file /run/secrets/django-database-url --media /srv/app/media --dry-run
  DJANGO_DATABASE_URL=postgresql://app:secret@db.example.com/app pixeld import django --media /srv/app/media";

/// Default number of rows in a batch.
const BATCH_ROWS: usize = 10_000;

/// What can be imported.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImportCommand {
    /// Import the Django app's images, under their ids, and its log rows, as hits, from the app's own PostgreSQL.
    ///
    /// The command only reads that database, in one snapshot. It remembers what it imported, so you can stop it at any time and run it again:
    /// it then imports only new rows, each once. pixeld may serve pixels meanwhile. PIXELD_IP_PRIVACY and PIXELD_RETENTION_DAYS
    /// apply to imported rows, too.
    #[command(after_help = IMPORT_DJANGO_AFTER_HELP)]
    Django(ImportDjangoArgs),
}

/// The arguments of `pixeld import django`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImportDjangoArgs {
    /// The Django app's database: postgresql://user:password@host:5432/database; default: DJANGO_DATABASE_URL.
    #[arg(long, value_name = "URL", conflicts_with = "database_url_file")]
    pub database_url: Option<String>,
    /// A file that holds this URL; default: DJANGO_DATABASE_URL_FILE.
    #[arg(long, value_name = "FILE")]
    pub database_url_file: Option<String>,
    /// The Django app's directory of uploaded files (MEDIA_ROOT).
    #[arg(long, value_name = "DIR")]
    pub media: PathBuf,
    /// Show what would be imported, and import nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Maximum number of rows in one transaction.
    #[arg(long, value_name = "COUNT", hide = true, default_value_t = BATCH_ROWS, value_parser = parse_batch_rows)]
    pub batch_rows: usize,
}

fn parse_batch_rows(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| (1..=50_000).contains(rows));
    rows.ok_or("use a number from 1 to 50000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn command(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("pixeld").chain(words.split_whitespace())).map(Cli::into_command)
    }

    #[test]
    fn an_import_is_read_and_names_its_database_once() {
        let args = ImportDjangoArgs {
            database_url: None,
            database_url_file: Some("/run/url".to_owned()),
            media: "/srv/media".into(),
            dry_run: true,
            batch_rows: BATCH_ROWS,
        };
        let words = "import django --database-url-file /run/url --media /srv/media --dry-run";
        assert_eq!(command(words).unwrap(), Command::Import(ImportCommand::Django(args.clone())));
        let named = ImportDjangoArgs {
            database_url: Some("postgresql://db/app".to_owned()),
            database_url_file: None,
            dry_run: false,
            ..args
        };
        let words = "import django --database-url postgresql://db/app --media /srv/media";
        assert_eq!(command(words).unwrap(), Command::Import(ImportCommand::Django(named)));
        for words in [
            "import",
            "import django",
            "import rails --media /srv/media",
            "import django --media /srv/media --database-url postgresql://db/app --database-url-file /run/url",
            "import django --media /srv/media --batch-rows 0",
        ] {
            assert_eq!(command(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }
}
