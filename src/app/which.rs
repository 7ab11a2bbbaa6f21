//! Finds the installation that a command works on.
//!
//! Guarantees: only `serve` and `migrate` create a database or its tables. Every other command finds those of a running
//! installation, or ends with [`EXIT_CONFIG`](crate::config::EXIT_CONFIG) and says where it looked and how to name
//! another. A command that changes something prints the installation's short name and address. Gives up: telling apart
//! two data directories of one database; they are one installation.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::config::Config;
use crate::db::{Database, QUERY_TIMEOUT, installation, migrate, within};

/// How long a `serve` that was started here may take to create its private PostgreSQL.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// How long a `serve` that was just started may take to create its first tables.
const MIGRATING_MAX: Duration = Duration::from_secs(5);

/// Interval between checks.
const POLL: Duration = Duration::from_millis(100);

/// There is nothing to work on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoInstallation(String);

/// The database of the installation that the settings name. Creates nothing.
///
/// # Errors
/// [`NoInstallation`], or settings that name no possible database.
pub(super) fn find(config: &Config) -> anyhow::Result<Database> {
    let db = whereabouts(config)?;
    let give_up_at = Instant::now() + if config.served.is_some() { MAKING_MAX } else { Duration::ZERO };
    // A `serve` that was just started for the first time is creating it.
    while !db.is_made() && Instant::now() < give_up_at {
        std::thread::sleep(POLL);
    }
    if !db.is_made() {
        let data_dir = config.storage.data_dir.display();
        let found = match std::fs::read_dir(&config.storage.data_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => format!("there is no directory {data_dir}"),
            Err(error) => format!("{data_dir} cannot be read ({error})"),
            Ok(_) => format!("there is no database of pixeld in {data_dir}"),
        };
        return Err(refusal(format!(
            "{found}, so nothing was done. Which pixeld do you mean? Set PIXELD_DATA_DIR to its data directory, or DATABASE_URL to its \
             database (`pixeld serve` starts a new one)"
        )));
    }
    Ok(db)
}

/// As [`find`], for commands that may create a database; an error if the `serve` of this data directory uses another
/// one.
///
/// # Errors
/// As [`find`].
pub(super) fn whereabouts(config: &Config) -> anyhow::Result<Database> {
    check_readable(&config.storage.data_dir)?;
    if config.storage.database_url.is_none() {
        let missing = config.served.as_ref().and_then(|served| Some((served, served.missing.get("DATABASE_URL")?)));
        if let Some((served, why)) = missing {
            return Err(refusal(format!(
                "the pixeld of {} uses the PostgreSQL at {}, and its DATABASE_URL {why}. Set DATABASE_URL here as well, or for all \
                 commands DATABASE_URL or DATABASE_URL_FILE in {} (mode 0600)",
                config.storage.data_dir.display(),
                served.database,
                config.settings_file().display()
            )));
        }
        if config.storage.require_database_url {
            return Err(refusal(
                "DATABASE_URL is not set, and PIXELD_REQUIRE_DATABASE_URL is true: pixeld runs no PostgreSQL here"
                    .to_owned(),
            ));
        }
    }
    Ok(Database::new(config)?)
}

/// A directory that exists but cannot be entered is not one without a database.
fn check_readable(data_dir: &Path) -> anyhow::Result<()> {
    match std::fs::metadata(data_dir.join(".")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(refusal(format!(
            "you may not enter {} ({error}): run this as the user who runs pixeld, or as root, or set DATABASE_URL and another \
             PIXELD_DATA_DIR",
            data_dir.display()
        ))),
        _ => Ok(()),
    }
}

/// An error that ends with status 64 and says what to set.
#[must_use]
pub(super) fn refusal(words: String) -> anyhow::Error {
    NoInstallation(words).into()
}

/// Refuses to update lists of networks that no pixeld reads.
pub(super) fn check_networks(config: &Config) -> anyhow::Result<()> {
    check_readable(&config.storage.data_dir)?;
    if config.networks.folder.is_dir()
        || config.storage.data_dir.is_dir()
        || !config.networks.folder.starts_with(&config.storage.data_dir)
    {
        return Ok(());
    }
    Err(refusal(format!(
        "there is no directory {}, so nothing was done. Which pixeld do you mean? Set PIXELD_DATA_DIR to its data directory, or \
         PIXELD_NETWORKS_DIR to its directory of lists",
        config.storage.data_dir.display()
    )))
}

/// Refuses a database without our tables.
///
/// # Errors
/// [`NoInstallation`], or a database error.
pub(super) async fn check_tables(db: &Database) -> anyhow::Result<()> {
    let session = db.connect("pixeld").await?;
    let give_up_at = Instant::now() + MIGRATING_MAX;
    loop {
        if within(QUERY_TIMEOUT, "looking for the tables", migrate::is_begun(&session.client)).await? {
            return Ok(());
        }
        if Instant::now() >= give_up_at {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Err(refusal(format!(
        "there is no pixeld in {}, so nothing was done. If it is the right one, `pixeld migrate` creates the tables there, and `pixeld \
         serve` does so automatically",
        db.whereabouts()
    )))
}

/// The place that a receipt names.
pub(super) async fn named(db: &Database, client: &Client) -> anyhow::Result<String> {
    let id = within(QUERY_TIMEOUT, "reading which installation this is", installation::id(client)).await?;
    Ok(format!("installation {id}, {}", db.whereabouts()))
}
