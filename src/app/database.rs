//! Brings the database up, and keeps the embedded one up.
//!
//! Guarantees: an embedded PostgreSQL that cannot be started ends the program with the reason; one of the user's own that
//! cannot be reached is tried again for ever, since pixels are served meanwhile and hits wait in the spool.

use std::time::Duration;

use tokio::sync::watch;

use crate::db::{Database, Lease, migrate};
use crate::shutdown::Drain;

/// How often the embedded PostgreSQL is looked after.
const CHECK: Duration = Duration::from_secs(5);

/// Wait between two attempts to reach the database.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the database if it is ours, migrates, tells `ready`, and looks after it until `close`.
///
/// # Errors
/// Where the embedded PostgreSQL cannot be started, or a migration fails for good.
pub async fn keep(db: Database, ready: watch::Sender<bool>, mut close: Drain) -> anyhow::Result<()> {
    let lease = db.start().await?;
    tokio::select! {
        () = watch_over(&db, &ready) => {}
        () = close.asked() => {}
    }
    lease.release().await?;
    Ok(())
}

async fn watch_over(db: &Database, ready: &watch::Sender<bool>) {
    let mut told = false;
    while let Err(error) = migrate::run(db).await {
        if !told {
            tracing::warn!(error = format!("{error:#}"), "the database is not usable yet; hits wait in the spool");
            told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
    ready.send_replace(true);
    loop {
        tokio::time::sleep(CHECK).await;
        if let Err(error) = db.ensure_running().await {
            tracing::error!(error = format!("{error:#}"), "the embedded PostgreSQL is down and cannot be started");
        }
    }
}

/// Waits until the database is migrated.
pub async fn until(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|&is_ready| is_ready).await.is_err() {
        std::future::pending().await
    }
}

/// Starts the database if it is ours, and migrates: for commands.
///
/// # Errors
/// As PostgreSQL says.
pub async fn open(db: &Database) -> anyhow::Result<Lease> {
    let lease = db.start().await?;
    migrate::run(db).await?;
    Ok(lease)
}
