//! Brings the database up, and keeps the embedded one up.
//!
//! Guarantees: a PostgreSQL that cannot be used now (unreachable, recovering, no room on its disk) is tried again for ever,
//! since pixels are served meanwhile and hits wait in the spool. Only what a person must put right before the embedded one
//! can ever start (no programs, another version, no place) ends the program, with the reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use super::which;
use crate::backoff::Backoff;
use crate::db::embedded::EmbeddedError;
use crate::db::{Database, DbError, Lease, QUERY_TIMEOUT, fitness, installation, migrate, within};
use crate::signals;
use pixeld_core::drain::Drain;
use pixeld_core::metrics::Metrics;

/// How often the embedded PostgreSQL is looked after.
const CHECK: Duration = Duration::from_secs(5);

/// Wait between two attempts to reach the database.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the database if it is ours, migrates, tells `ready`, and looks after it until `close`, whose deadline holds for
/// stopping it, too.
///
/// # Errors
/// Where the embedded PostgreSQL cannot be started before somebody has put something right.
pub async fn keep(
    db: Database,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
    mut close: Drain,
) -> anyhow::Result<()> {
    let mut late = close.clone();
    // A start that is under way is waited for: given up half way, it would leave a server running.
    let lease = tokio::select! {
        lease = start(&db, close.clone()) => lease?,
        () = late.deadline() => anyhow::bail!("PostgreSQL was still starting at the drain's deadline; the next start finds it"),
    };
    let Some(lease) = lease else { return Ok(()) };
    tokio::select! {
        () = watch_over(&db, &metrics, &ready) => {}
        () = close.asked() => {}
    }
    tokio::select! {
        released = lease.release() => released?,
        // It was told, and ends by itself.
        () = late.deadline() => tracing::warn!("PostgreSQL is still stopping at the drain's deadline"),
    }
    Ok(())
}

/// Nothing where `close` was asked for before it could be started.
async fn start(db: &Database, close: Drain) -> Result<Option<Lease>, DbError> {
    let mut backoff = Backoff::new(RETRY, RETRY);
    loop {
        if close.is_asked() {
            return Ok(None);
        }
        match db.start().await {
            Ok(lease) => return Ok(Some(lease)),
            Err(
                error @ DbError::Embedded(
                    EmbeddedError::Programs(_) | EmbeddedError::Version(_) | EmbeddedError::Place(_),
                ),
            ) => return Err(error),
            Err(error) => {
                if !backoff.is_failing() {
                    tracing::error!(
                        error = error.for_log(),
                        "PostgreSQL cannot be started yet; hits wait in the spool"
                    );
                }
                tokio::time::sleep(backoff.fail()).await;
            }
        }
    }
}

async fn watch_over(db: &Database, metrics: &Metrics, ready: &watch::Sender<bool>) {
    let mut told = String::new();
    while let Err(error) = migrate_and_learn(db).await {
        let why = error.for_log();
        let is_reached = !error.is_of_connection();
        metrics.database_problem.store(is_reached.then(|| Arc::new(why.clone())));
        // Once for each reason: a database that came up may then be one that cannot be used.
        if why != told {
            tracing::warn!(error = why, "the database is not usable yet; hits wait in the spool");
            told = why;
        }
        tokio::time::sleep(RETRY).await;
    }
    metrics.database_problem.store(None);
    metrics.tables_are_current.store(true, Ordering::Relaxed);
    ready.send_replace(true);
    loop {
        note_fitness(db, metrics).await;
        tokio::time::sleep(CHECK).await;
        if let Err(error) = db.ensure_running().await {
            tracing::error!(error = error.for_log(), "the embedded PostgreSQL is down and cannot be started");
        }
    }
}

/// Brings the tables to this version, and remembers which installation that is if none was known.
async fn migrate_and_learn(db: &Database) -> Result<(), DbError> {
    migrate::run(db).await?;
    let session = db.connect("pixeld-check").await?;
    let found = within(QUERY_TIMEOUT, "looking at the installation", installation::id(&session.client)).await?;
    if let Err(error) = db.guard().learn(found) {
        tracing::warn!(%error, installation = %found, "the node's installation could not be saved to disk");
    }
    Ok(())
}

/// Looks whether the database can still be used as it was: it may have become read-only, lost rights or its tables, or be another
/// one. On a connection of its own, since what somebody sets for a database or a role holds for new ones.
async fn note_fitness(db: &Database, metrics: &Metrics) {
    let checked = async {
        let session = db.connect("pixeld-check").await?;
        fitness::check(&session.client).await?;
        let is_current = migrate::is_current(&session.client).await?;
        metrics.tables_are_current.store(is_current, Ordering::Relaxed);
        if !is_current {
            // Restored from the backup of an older version, say.
            migrate::run(db).await?;
            if !migrate::is_current(&session.client).await? {
                return Err(DbError::Migration("some tables of this version are missing; restore a backup".to_owned()));
            }
            metrics.tables_are_current.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let problem = match checked.await {
        Err(error @ (DbError::Unfit(_) | DbError::Migration(_))) => Some(error.for_log()),
        // That it is away is noticed elsewhere; how it was stands until it is back.
        Err(_) => return,
        Ok(()) => None,
    };
    let before = metrics.database_problem.load_full();
    if before.as_deref() != problem.as_ref() {
        match &problem {
            Some(problem) => {
                tracing::error!(error = problem, "the database can no longer be used; hits wait in the spool")
            }
            None => tracing::info!("the database can be used again"),
        }
        metrics.database_problem.store(problem.map(Arc::new));
    }
}

/// Waits until the database is migrated.
pub async fn until(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|&is_ready| is_ready).await.is_err() {
        std::future::pending().await
    }
}

/// What is broken off when a command that only looks is stopped.
pub const NOTHING_CHANGED: &str = "nothing changed";

/// What is broken off when a command is stopped whose one statement may be through.
pub const NOT_KNOWN: &str = "it is not known whether it was done before that; run it again";

/// For commands: as [`with_lease`], with the tables brought to this version first. A database without any is refused.
///
/// # Errors
/// As [`with_lease`].
pub async fn with_database<T>(
    db: &Database,
    broken_off: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let migrated = async {
        which::check_tables(db).await?;
        migrate::run(db).await?;
        work.await
    };
    with_lease(db, broken_off, migrated).await
}

/// Starts the database if it is ours, does the `work`, and gives the lease back, so that no server is left running that nobody
/// uses. A signal breaks the work off, which the transactions of the work must stand; `broken_off` says what that means.
///
/// # Errors
/// As PostgreSQL says, as the work says, or where a signal came.
pub async fn with_lease<T>(
    db: &Database,
    broken_off: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let _hold = signals::hold().context("cannot receive signals")?;
    // To its end, also after a signal: given up half way, it would leave a server running.
    let lease = db.start().await?;
    let outcome = tokio::select! {
        biased;
        signal = signals::signal() => Err(anyhow::anyhow!("stopped by {signal}; {broken_off}")),
        outcome = work => outcome,
    };
    lease.release().await?;
    outcome
}
