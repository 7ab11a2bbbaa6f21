//! Changes of loaded hits: reclassifying them, and deleting them.
//!
//! Guarantees: after each committed chunk, opens and counts match the hits. A chunk holds the same lock as the rollup,
//! after all pending batches are rolled up; it touches no hit of a pending batch. It is bounded, so that the rollup
//! waits for one chunk at most. A lock that is not granted is requested again, up to [`LOCK_TRIES`] times. After an
//! error nothing of the chunk is done or, if the answer to COMMIT was lost, all of it; running the same again is right
//! either way.
//!
//! An open whose `first_at` is before `rollup_state.retained_from` is frozen: its older hits are deleted, so that it
//! cannot be computed again. It is never rebuilt, only erased; the counts of its hours still follow its hits.
//!
//! Gives up: arithmetic for an open's first and best hit. They cannot be subtracted, so a touched pair is computed
//! again from its hits. Hits outside the chunk are searched between the open's first and last time: on a closed day
//! through the index on `recipient`, on an open one by reading the day.

mod count;
mod delete;
mod others;
mod reclassify;
mod retain;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub use self::count::count_to_delete;
pub use self::delete::{Deleted, Target};
pub use self::reclassify::{Cursor, Reclassified, StoredHit, Verdict};
use super::statement::statement;
use super::tally::{Lock, Tally, TallyError, same};
use super::turn::{self, CHUNK_HITS_MAX, MISMATCH_PATIENCE, Mismatches, Outcome};
use crate::db::partitions::{self, Partition};
use crate::db::{Database, DbError};

/// Hits of one chunk.
pub const CHUNK_ROWS_MAX: i64 = 50_000;

/// How often the lock is requested, each time for the session's `lock_timeout`.
pub const LOCK_TRIES: u32 = 12;

/// Total time to wait for a batch whose hits are not all visible.
const MISMATCH_WAIT_MAX: Duration = Duration::from_secs(90);

/// Wait between two checks of such a batch.
const MISMATCH_PAUSE: Duration = Duration::from_millis(500);

static REBUILD: LazyLock<String> = LazyLock::new(|| statement(include_str!("change/rebuild_pairs.sql")));

/// Why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// PostgreSQL failed.
    #[error("{0}")]
    Tally(#[from] TallyError),
    /// Another session keeps the lock.
    #[error("another transaction locked opens and counts for too long")]
    Locked,
    /// A loaded batch and its hits do not match, so that counts cannot be brought up to date.
    #[error("some hits of a batch are not there yet")]
    Mismatch,
    /// The nil UUID is nobody.
    #[error("the nil UUID stands for no message and no recipient")]
    Nil,
}

impl From<DbError> for ChangeError {
    fn from(error: DbError) -> ChangeError {
        ChangeError::Tally(error.into())
    }
}

impl From<tokio_postgres::Error> for ChangeError {
    fn from(error: tokio_postgres::Error) -> ChangeError {
        ChangeError::Tally(error.into())
    }
}

/// Changes hits together with opens and counts. After an error make a new one.
pub struct Changes {
    tally: Tally,
    mismatches: Mismatches,
    rows_max: i64,
}

impl Changes {
    /// Connects.
    pub async fn open(db: &Database) -> Result<Changes, ChangeError> {
        Changes::with(db, CHUNK_ROWS_MAX, MISMATCH_PATIENCE).await
    }

    /// As [`Changes::open`], with chunks of `rows_max` hits, and `patience` for a mismatch.
    pub async fn with(db: &Database, rows_max: i64, patience: Duration) -> Result<Changes, ChangeError> {
        let tally = Tally::open(db, "pixeld-change").await?;
        Ok(Changes { tally, mismatches: Mismatches::new(patience), rows_max: rows_max.max(1) })
    }

    /// The partitions that hold times at or after `since`, the oldest first.
    pub async fn partitions(&self, since: Option<time::OffsetDateTime>) -> Result<Vec<Partition>, ChangeError> {
        Ok(partitions::since(self.tally.client(), since).await?)
    }

    /// Begins a transaction with the lock, in which no visible batch is pending. A backlog is rolled up before, in
    /// transactions of its own.
    async fn begin(&mut self) -> Result<(), ChangeError> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let Some(mut state) = self.tally.begin(Lock::Wait).await? else {
                tries += 1;
                if tries >= LOCK_TRIES {
                    return Err(ChangeError::Locked);
                }
                continue;
            };
            match turn::roll_up(&self.tally, &mut state, CHUNK_HITS_MAX, &mut self.mismatches).await? {
                Outcome::Rolled(rolled) if rolled.more => self.tally.commit().await?,
                Outcome::Rolled(rolled) => {
                    if rolled.batches > 0 {
                        self.tally.clear().await?;
                    }
                    return Ok(());
                }
                Outcome::Mismatch => {
                    self.tally.rollback().await?;
                    if started.elapsed() > MISMATCH_WAIT_MAX {
                        return Err(ChangeError::Mismatch);
                    }
                    tokio::time::sleep(MISMATCH_PAUSE).await;
                }
            }
        }
    }

    /// Computes the opens of `touched` from their hits, and updates opens and counts.
    async fn settle(&self, touched: u64) -> Result<(), ChangeError> {
        if touched > 0 {
            self.find_other_hits().await?;
            let pairs = self.tally.execute("computing opens", &REBUILD, &[]).await?;
            same("opens computed", touched, pairs)?;
        }
        Ok(self.tally.apply(touched).await?)
    }
}
