//! Starts the database, and keeps the embedded one running.
//!
//! Guarantees: a PostgreSQL that cannot be used now (unreachable, recovering, no room on its disk) is tried again
//! forever, since pixels are served in the meantime and hits wait in the spool. Only a problem that a person must solve
//! before the embedded one can ever start (no programs, another version, no place) ends the program, with the reason.

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

/// Interval between checks of the embedded PostgreSQL.
const CHECK: Duration = Duration::from_secs(5);

/// Wait between two attempts to reach the database.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the database if it is embedded, migrates, sets `ready`, and checks it until `close`, whose deadline also
/// applies to stopping it.
///
/// # Errors
/// If the embedded PostgreSQL cannot start before a person has solved the problem.
pub(super) async fn keep(
    db: Database,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
    mut close: Drain,
) -> anyhow::Result<()> {
    let mut late = close.clone();
    // Wait for a start that is in progress: abandoned half way, it would leave a server running.
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
        // It was asked to stop, and ends by itself.
        () = late.deadline() => tracing::warn!("PostgreSQL is still stopping at the drain's deadline"),
    }
    Ok(())
}

/// `None` if `close` came before it could be started.
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
        // Log each reason once: a database may come up and still be unusable.
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

/// Migrates the tables to this version, and remembers the installation if none was known.
async fn migrate_and_learn(db: &Database) -> Result<(), DbError> {
    migrate::run(db).await?;
    let session = db.connect("pixeld-check").await?;
    let found = within(QUERY_TIMEOUT, "looking at the installation", installation::id(&session.client)).await?;
    if let Err(error) = db.guard().learn(found) {
        tracing::warn!(%error, installation = %found, "the node's installation could not be saved to disk");
    }
    Ok(())
}

/// Checks that the database can still be used: it may have become read-only, lost rights or its tables, or be another
/// one. Uses a new connection, since settings of a database or a role apply to new ones.
async fn note_fitness(db: &Database, metrics: &Metrics) {
    let checked = async {
        let session = db.connect("pixeld-check").await?;
        fitness::check(&session.client).await?;
        let is_current = migrate::is_current(&session.client).await?;
        metrics.tables_are_current.store(is_current, Ordering::Relaxed);
        if !is_current {
            // For example after a restore of an older version's backup.
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
        // Another task reports that it is unreachable; until it returns, the last state stays.
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
pub(super) async fn until(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|&is_ready| is_ready).await.is_err() {
        std::future::pending().await
    }
}

/// The error text of a stopped command that only reads.
pub(super) const NOTHING_CHANGED: &str = "nothing changed";

/// The error text of a stopped command whose one statement may have committed.
pub(super) const NOT_KNOWN: &str = "it is not known whether it was done before that; run it again";

/// For commands: as [`with_lease`], but first migrates the tables to this version. A database without tables is
/// refused.
///
/// # Errors
/// As [`with_lease`].
pub(super) async fn with_database<T>(
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

/// Starts the database if it is embedded, does the `work`, and returns the lease, so that no unused server keeps
/// running. A signal interrupts the work, and its transactions must tolerate that; `broken_off` says what it means.
///
/// # Errors
/// On a database error, if the work fails, or on a signal.
pub(super) async fn with_lease<T>(
    db: &Database,
    broken_off: &str,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let _hold = signals::hold().context("cannot receive signals")?;
    // Finish the start even after a signal: abandoned half way, it would leave a server running.
    let lease = db.start().await?;
    let outcome = tokio::select! {
        biased;
        signal = signals::signal() => Err(anyhow::anyhow!("stopped by {signal}; {broken_off}")),
        outcome = work => outcome,
    };
    lease.release().await?;
    outcome
}
