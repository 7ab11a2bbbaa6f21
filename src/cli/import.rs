//! Moving over: what `pixeld import` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const IMPORT_AFTER_HELP: &str = "\
Example:
  DJANGO_DATABASE_URL=postgresql://app:secret@db.example.com/app pixeld import django --media /srv/app/media";

const IMPORT_DJANGO_AFTER_HELP: &str = "\
The Django app's database is named by DJANGO_DATABASE_URL, by DJANGO_DATABASE_URL_FILE or --database-url-file (a file that
holds the URL), or by --database-url. An argument can be read by everybody on the machine while the command runs, and stays in
the shell's history: with a password in the URL take one of the others.

Exit status: 0 all is taken; 3 something could not be taken, and the report says what and why; 1 it could not go on, and the
same command goes on later; 64 wrong settings.

Examples:
  pixeld import django --database-url-file /run/secrets/django-database-url --media /srv/app/media --dry-run
  DJANGO_DATABASE_URL=postgresql://app:secret@db.example.com/app pixeld import django --media /srv/app/media";

/// Rows of one batch where nothing else is said.
const BATCH_ROWS: usize = 10_000;

/// What can be imported.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ImportCommand {
    /// Bring the Django app's pictures, under their ids, and its log rows, as hits, from its own PostgreSQL.
    ///
    /// Its database is only read, in one snapshot. What was taken is remembered: it may be stopped at any time and run again, and
    /// takes what is new since, each row once. Pixels may be served meanwhile. PIXELD_IP_PRIVACY and PIXELD_RETENTION_DAYS
    /// hold for it too.
    #[command(after_help = IMPORT_DJANGO_AFTER_HELP)]
    Django(ImportDjangoArgs),
}

/// What `pixeld import django` takes.
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
    /// Say what would be taken, and take nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Rows of one transaction at most.
    #[arg(long, value_name = "COUNT", hide = true, default_value_t = BATCH_ROWS, value_parser = parse_batch_rows)]
    pub batch_rows: usize,
}

fn parse_batch_rows(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| (1..=50_000).contains(rows));
    rows.ok_or("a number from 1 to 50000 is needed".to_owned())
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
