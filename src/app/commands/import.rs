//! `pixeld import django`: the Django app's pictures and log, from its own PostgreSQL.
//!
//! Guarantees: that database is only read, in one snapshot. Each log row is imported once, however often the import
//! runs, is stopped or killed: its hits, the mark and the source's position move in one transaction. Rows that were
//! committed late, with an id slightly below an imported one, are imported by the next run. Nothing is left out
//! silently: the report counts and names what could not be imported.
//!
//! Gives up: nothing about a row whose picture has no usable file: it is a hit, but its links are answered 404 until
//! there is one.

mod load;
mod marks;
mod pictures;
mod report;
mod row;
mod source;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use self::load::{Destination, Loading};
use self::report::{Report, Shown};
use self::source::Source;
use crate::app::{database, which};
use crate::cli::ImportDjangoArgs;
use crate::config::{Config, Secret, check_database_url};
use crate::db::{Database, QUERY_TIMEOUT, locks, within};

/// How long to wait for another import, or for the connection of one that was killed.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Interval between attempts to get the lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The exit status if something could not be imported.
const EXIT_INCOMPLETE: u8 = 3;

/// Whether everything was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Everything.
    Whole,
    /// The report says what is missing.
    Partly,
}

impl Completeness {
    /// Its exit status.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Completeness::Whole => 0,
            Completeness::Partly => EXIT_INCOMPLETE,
        }
    }
}

/// `pixeld import django`.
///
/// # Errors
/// If one of the databases or the directory cannot be used, or if it was stopped; what was imported until then stays.
pub(crate) async fn import_django(config: &Config, args: &ImportDjangoArgs) -> anyhow::Result<Completeness> {
    if let Some(note) = &config.former.note {
        tracing::warn!("{note}");
    }
    let url = source_url(config, args)?;
    check_media(&args.media)?;
    // First of all: most mistakes are in this URL.
    let source = Source::open(url.expose()).await?;
    let db = which::find(config)?;
    let broken_off = "the rows imported so far are kept; run the same command to continue";
    let report = database::with_database(&db, broken_off, import(config, args, &db, &source)).await?;
    print!("{report}");
    if !args.dry_run {
        println!("imported into {}", db.whereabouts());
    }
    Ok(report.completeness())
}

async fn import(config: &Config, args: &ImportDjangoArgs, db: &Database, source: &Source) -> anyhow::Result<Report> {
    let session = db.connect("pixeld import").await?;
    let client = &session.client;
    if !args.dry_run {
        take_lock(client).await?;
    }
    let pictures = source.pictures().await?;
    let ids: Vec<_> = pictures.iter().map(|picture| picture.uuid).collect();
    let found = within(QUERY_TIMEOUT, "looking for earlier imports", marks::find(client, &ids)).await?;
    anyhow::ensure!(
        found.len() <= 1,
        "the images of {} were imported from {} databases before, so this database was made from several, and it is not known which of its \
         rows are already imported",
        source.name(),
        found.len()
    );
    let taken = found.into_iter().next();
    if let Some(taken) = &taken {
        source.check_is_what_was_imported(taken).await?;
    }
    let mut shown = Shown::new();
    let mut report = Report::new(args.dry_run);
    pictures::take(client, &pictures, args, &mut report, &mut shown).await?;

    let into = match (taken, args.dry_run) {
        (taken, true) => Destination::Nothing(taken),
        (Some(taken), false) => {
            let noting = marks::note_pictures(client, taken.spool, &ids);
            within(QUERY_TIMEOUT, "noting pictures", noting).await?;
            Destination::Database(taken)
        }
        // Without pictures there are no rows either, and nothing by which to recognise the source.
        (None, false) if ids.is_empty() => Destination::Nothing(None),
        (None, false) => {
            let beginning = marks::begin(client, "import django", &ids);
            Destination::Database(within(QUERY_TIMEOUT, "beginning an import", beginning).await?)
        }
    };
    Loading::new(config, args, client, source, &pictures, into).await?.run(&mut report, &mut shown).await?;
    Ok(report)
}

/// The URL of the Django app's database, from the option, file or variable that gives it.
fn source_url(config: &Config, args: &ImportDjangoArgs) -> anyhow::Result<Secret> {
    let (named_by, url) = match (&args.database_url, &args.database_url_file, &config.former.database_url) {
        (Some(url), _, _) => ("--database-url", Secret::new(url.as_str())),
        (None, Some(file), _) => {
            let url = Secret::of_file(file).map_err(|wrong| anyhow::anyhow!("--database-url-file {wrong}"))?;
            ("the URL in --database-url-file", url)
        }
        (None, None, Some(url)) => return Ok(url.clone()),
        (None, None, None) => anyhow::bail!(
            "the Django app's database is not named; set DJANGO_DATABASE_URL=postgresql://user:password@host:5432/database, or \
             give --database-url-file or --database-url"
        ),
    };
    check_database_url(url.expose()).map_err(|wrong| anyhow::anyhow!("{named_by} {wrong}"))?;
    Ok(url)
}

/// Refuses a path that is not a directory before anything is imported: otherwise all pictures would be reported as
/// missing.
fn check_media(media: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(media);
    entries.map(|_| ()).with_context(|| {
        format!(
            "--media {} cannot be read; it is the Django app's MEDIA_ROOT, the directory of uploaded files",
            media.display()
        )
    })
}

async fn take_lock(client: &tokio_postgres::Client) -> anyhow::Result<()> {
    let give_up_at = tokio::time::Instant::now() + LOCK_WAIT;
    while !locks::try_lock(client, locks::IMPORTING).await? {
        anyhow::ensure!(tokio::time::Instant::now() < give_up_at, "another import is running; wait until it ends");
        tokio::time::sleep(LOCK_POLL).await;
    }
    Ok(())
}
