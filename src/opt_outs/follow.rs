//! Keeps what this node knows of opt-outs in step with PostgreSQL, and on disk.
//!
//! Guarantees: an opt-out holds here within about a second: by its notice, or by the heartbeat, which asks each second
//! what changed and so notices a half-open connection too; rows that somebody wrote by hand under an old number are
//! noticed by a full list a minute. While the database is down, what was known last holds, also after a restart. What a
//! database that was restored from a backup lacks is put back before a hit is loaded: of each recipient the later change
//! holds. Gives up: the moment until an opt-out is known, which is the loader's to cover: it asks once more in the
//! transaction that brings hits; and telling a row that somebody deleted by hand from one that a backup lacks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::kept;
use super::suppressed::Suppressed;
use super::suppressions;
use crate::db::{Database, DbError, QUERY_TIMEOUT, installation, within};

/// How often it is asked what changed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the answer may take before the connection counts as lost.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(2);

/// How often all rows are listed.
const FULL_LIST: Duration = Duration::from_secs(60);

/// How often it is listed at once where rows had to be put back, or others changed some meanwhile.
const LISTS_MAX: u32 = 3;

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

    /// Reads all rows, and puts back what the database lacks. To be done once on every new connection: it may lead to a
    /// database that was restored from a backup.
    ///
    /// # Errors
    /// As PostgreSQL says. The connection must not be used again then.
    pub async fn list(&self, client: &Client) -> Result<(), Error> {
        self.suppressed.know(installation::privacy_key(client).await?);
        for _ in 0..LISTS_MAX {
            let (mut listed, mut lacking) = (HashSet::new(), Vec::new());
            let complete = suppressions::changes(client, 0, |rows| {
                lacking.extend(rows.iter().filter_map(|row| self.suppressed.apply_listed(row)));
                listed.extend(rows.iter().map(|row| row.hash));
            });
            let complete = complete.await?;
            lacking.extend(self.suppressed.unlisted(&listed));
            let last_change = self.suppressed.last_change();
            self.complete.store(complete, Ordering::Relaxed);
            if lacking.is_empty() && last_change <= complete {
                self.suppressed.keep_listed(&listed, complete);
                return Ok(());
            }
            let put_back = suppressions::put_back(client, &lacking, last_change).await?;
            if put_back > 0 {
                tracing::warn!(
                    opt_outs = put_back,
                    "the database lacked changes of opt-outs that this node remembers, as after a restored backup; they are put back"
                );
            }
        }
        Ok(())
    }

    /// Reads what changed since it was last asked; also within a transaction.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn catch_up(&self, client: &Client) -> Result<(), Error> {
        self.read_changes(client).await.map(|_| ())
    }

    /// The same outside of one: where the database was restored from a backup on this very connection, all rows are listed.
    ///
    /// # Errors
    /// As PostgreSQL says. The connection must not be used again then.
    pub async fn keep_up(&self, client: &Client) -> Result<(), Error> {
        if self.read_changes(client).await? { self.list(client).await } else { Ok(()) }
    }

    /// Says whether the database's numbers are behind those that were read before.
    async fn read_changes(&self, client: &Client) -> Result<bool, Error> {
        let after = self.complete.load(Ordering::Relaxed);
        let complete = suppressions::changes(client, after, |rows| self.suppressed.apply(rows)).await?;
        self.complete.store(complete, Ordering::Relaxed);
        Ok(complete < after)
    }
}

/// What is on disk. Call once, before the first request.
#[must_use]
pub fn recall(path: &Path) -> Arc<Suppressed> {
    let suppressed = Suppressed::default();
    if let Some((key, rows)) = kept::read(path) {
        suppressed.recall(key, &rows);
    }
    Arc::new(suppressed)
}

/// Runs for ever: once the database is `ready`, keeps in step, and on disk at `path`.
pub async fn run(suppressed: Arc<Suppressed>, db: Database, path: PathBuf, ready: impl Future<Output = ()>) {
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
            keep(Arc::clone(&suppressed), path.clone()).await;
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
            within(HEARTBEAT_WAIT, "the heartbeat of opt-outs", reader.keep_up(&session.client)).await?;
        }
    }
}

async fn keep(suppressed: Arc<Suppressed>, path: PathBuf) {
    let Some(key) = suppressed.key() else { return };
    let kept = tokio::task::spawn_blocking(move || kept::write(&path, &key, &suppressed.rows()));
    if let Ok(Err(error)) = kept.await {
        tracing::warn!(%error, "the list of opt-outs could not be kept on disk");
    }
}
