//! Keeps what this node knows of opt-outs in step with PostgreSQL, and on disk.
//!
//! Guarantees: an opt-out holds here within about a second: by its notice, or by the heartbeat, which asks each second what changed
//! and so notices a half-open connection too; rows that somebody removed by hand are noticed by a full list a minute. While the database
//! is down, what was known last holds, also after a restart. Gives up: the moment until then, which is the loader's to cover:
//! it asks once more in the transaction that brings hits.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::kept::{self, Digest};
use super::suppressed::Suppressed;
use crate::db::{Database, DbError, QUERY_TIMEOUT, installation, suppressions, within};

/// How often it is asked what changed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the answer may take before the connection counts as lost.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(2);

/// How often all rows are listed.
const FULL_LIST: Duration = Duration::from_secs(60);

/// Wait before a lost connection is opened again: at first, and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Somebody who keeps a [`Suppressed`] in step: up to which change they have read.
#[derive(Debug, Default)]
pub struct Reader {
    suppressed: Arc<Suppressed>,
    complete: AtomicI64,
}

impl Reader {
    /// One who has read nothing yet.
    #[must_use]
    pub fn new(suppressed: Arc<Suppressed>) -> Reader {
        Reader { suppressed, complete: AtomicI64::new(0) }
    }

    /// Reads all rows. To be done once on every new connection: it may lead to a database that was restored.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn list(&self, client: &Client) -> Result<(), Error> {
        self.suppressed.know(installation::privacy_key(client).await?);
        let mut listed = HashSet::new();
        let complete = suppressions::changes(client, 0, |rows| {
            self.suppressed.apply(rows);
            listed.extend(rows.iter().map(|row| row.hash));
        });
        let complete = complete.await?;
        self.complete.store(complete, Ordering::Relaxed);
        self.suppressed.keep_listed(&listed, complete);
        Ok(())
    }

    /// Reads what changed since it was last asked.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn catch_up(&self, client: &Client) -> Result<(), Error> {
        let after = self.complete.load(Ordering::Relaxed);
        let complete = suppressions::changes(client, after, |rows| self.suppressed.apply(rows)).await?;
        self.complete.store(complete, Ordering::Relaxed);
        Ok(())
    }
}

/// Where the list is kept on disk.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Tells the database apart.
    pub digest: Digest,
}

/// What is on disk. Call once, before the first request.
#[must_use]
pub fn recall(place: &Place) -> Arc<Suppressed> {
    let suppressed = Suppressed::default();
    if let Some((key, hashes)) = kept::read(&place.path, &place.digest) {
        suppressed.recall(key, hashes);
    }
    Arc::new(suppressed)
}

/// Runs for ever: once the database is `ready`, keeps in step.
pub async fn run(suppressed: Arc<Suppressed>, db: Database, place: Place, ready: impl Future<Output = ()>) {
    ready.await;
    let reader = Reader::new(Arc::clone(&suppressed));
    let follow = async {
        let mut pause = RECONNECT.0;
        loop {
            let started = Instant::now();
            if let Err(error) = follow(&reader, &db).await {
                tracing::warn!(error = error.for_log(), "opt-outs cannot be followed now; what was known last holds");
            }
            pause = if started.elapsed() > RECONNECT.1 { RECONNECT.0 } else { (pause * 2).min(RECONNECT.1) };
            tokio::time::sleep(pause).await;
        }
    };
    // Beside it, since a disk that stalls must not hold up what the edge is told.
    let keep = async {
        loop {
            suppressed.changed().await;
            keep(Arc::clone(&suppressed), place.clone()).await;
        }
    };
    tokio::join!(follow, keep);
}

/// Follows on one connection until it is lost.
async fn follow(reader: &Reader, db: &Database) -> Result<(), DbError> {
    // Listened to before it is listed: what changes in between is told twice rather than never.
    let (session, mut notices) = db.listen("pixeld-opt-outs", suppressions::CHANNEL).await?;
    within(QUERY_TIMEOUT, "listing opt-outs", reader.list(&session.client)).await?;
    let mut listed = Instant::now();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => {
                if notice.is_none() {
                    return Ok(());
                }
                // One look covers all that was told until now.
                while notices.try_recv().is_ok() {}
            }
            _ = heartbeat.tick() => {}
        }
        if listed.elapsed() > FULL_LIST {
            within(QUERY_TIMEOUT, "listing opt-outs", reader.list(&session.client)).await?;
            listed = Instant::now();
        } else {
            within(HEARTBEAT_WAIT, "the heartbeat of opt-outs", reader.catch_up(&session.client)).await?;
        }
    }
}

async fn keep(suppressed: Arc<Suppressed>, place: Place) {
    let Some(key) = suppressed.key() else { return };
    let kept = tokio::task::spawn_blocking(move || kept::write(&place.path, &place.digest, &key, &suppressed.hashes()));
    if let Ok(Err(error)) = kept.await {
        tracing::warn!(%error, "the list of opt-outs could not be kept on disk");
    }
}
