//! Keeps this node's opt-outs in step with PostgreSQL, and on disk.
//!
//! Guarantees: an opt-out is in force here within about a second ([`crate::db::follow`]); the full list finds rows that
//! somebody wrote by hand under an old number. While the database is down, the last known list is in force, even after
//! a restart. If a database was restored from a backup, its missing rows are put back before a hit is loaded; the later
//! change of a recipient wins. Gives up: the moment until an opt-out is known here, which the loader covers: it reads
//! the changes once more in the transaction that loads hits; and telling a row that somebody deleted by hand from one
//! that a backup lacks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio_postgres::{Client, Error};

use super::kept;
use super::suppressions;
use crate::db::follow::{Table, follow, look_in_time};
use crate::db::{Database, DbError, QUERY_TIMEOUT, installation, within};
use pixeld_edge::suppressed::Suppressed;

/// How often the table is listed at once if rows had to be put back, or others changed rows in between.
const LISTS_MAX: u32 = 3;

/// Keeps a [`Suppressed`] in step: knows up to which change it has read.
#[derive(Debug, Default)]
pub struct Reader {
    suppressed: Arc<Suppressed>,
    complete: AtomicI64,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(suppressed: Arc<Suppressed>) -> Reader {
        Reader { suppressed, complete: AtomicI64::new(0) }
    }

    /// Reads all rows, and puts back what the database lacks. Call it once on every new connection: it may lead to a
    /// database that was restored from a backup.
    ///
    /// # Errors
    /// The connection must not be used again then.
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
                    "the database lacked opt-out changes that this node remembers, probably after a restored backup; pixeld restores them"
                );
            }
        }
        Ok(())
    }

    /// Reads what changed since the last call; also within a transaction.
    pub async fn catch_up(&self, client: &Client) -> Result<(), Error> {
        self.read_changes(client).await.map(|_| ())
    }

    /// The same outside of one: if the database was restored from a backup on this same connection, all rows are
    /// listed.
    ///
    /// # Errors
    /// The connection must not be used again then.
    pub async fn keep_up(&self, client: &Client) -> Result<(), Error> {
        if self.read_changes(client).await? { self.list(client).await } else { Ok(()) }
    }

    /// Returns whether the database's numbers are lower than those that were read before.
    async fn read_changes(&self, client: &Client) -> Result<bool, Error> {
        let after = self.complete.load(Ordering::Relaxed);
        let complete = suppressions::changes(client, after, |rows| self.suppressed.apply(rows)).await?;
        self.complete.store(complete, Ordering::Relaxed);
        Ok(complete < after)
    }
}

/// The list on disk. Call once, before the first request.
pub(crate) fn recall(path: &Path) -> Arc<Suppressed> {
    let suppressed = Suppressed::default();
    if let Some((key, rows)) = kept::read(path) {
        suppressed.recall(key, &rows);
    }
    Arc::new(suppressed)
}

/// Runs forever: once the database is `ready`, keeps in step with it, and the list on disk at `path`.
pub(crate) async fn run(suppressed: Arc<Suppressed>, db: Database, path: PathBuf, ready: impl Future<Output = ()>) {
    ready.await;
    let mut reader = Reader::new(Arc::clone(&suppressed));
    // In parallel, since a disk that stalls must not delay the edge's updates.
    let keep = async {
        loop {
            suppressed.changed().await;
            keep(Arc::clone(&suppressed), path.clone()).await;
        }
    };
    tokio::join!(follow(&db, &mut reader), keep);
}

impl Table for Reader {
    const APPLICATION_NAME: &'static str = "pixeld-opt-outs";
    const CHANNEL: &'static str = suppressions::CHANNEL;
    const HEARTBEAT: &'static str = "the heartbeat of opt-outs";

    async fn list(&mut self, client: &Client) -> Result<(), DbError> {
        within(QUERY_TIMEOUT, "listing opt-outs", Reader::list(self, client)).await
    }

    async fn look(&mut self, client: &Client) -> Result<(), DbError> {
        Ok(self.keep_up(client).await?)
    }

    async fn read_announced(&mut self, client: &Client, _: &[String]) -> Result<(), DbError> {
        // One read covers all that was announced until now.
        look_in_time(self, client).await
    }

    fn lost(&mut self, error: &DbError, is_first: bool) {
        if is_first {
            tracing::warn!(error = error.for_log(), "opt-outs cannot be followed now; the last known list applies");
        }
    }
}

async fn keep(suppressed: Arc<Suppressed>, path: PathBuf) {
    let Some(key) = suppressed.key() else { return };
    let kept = tokio::task::spawn_blocking(move || kept::write(&path, &key, &suppressed.rows()));
    if let Ok(Err(error)) = kept.await {
        tracing::warn!(%error, "the list of opt-outs could not be saved to disk");
    }
}
