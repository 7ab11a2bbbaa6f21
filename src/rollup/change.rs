//! Changes of hits that are loaded already: judging them again, and deleting them.
//!
//! Guarantees: after each committed chunk, opens and counts are what the hits say. A chunk holds the same lock as the rollup,
//! after whatever is pending is rolled up; it touches no hit of a pending batch. It is bounded, so that the rollup waits for
//! one chunk at most; a lock that is not given is asked for again, up to [`LOCK_TRIES`] times. After an error nothing of the
//! chunk is done, or, where the answer to COMMIT was lost, all of it; to run the same again is right either way.
//!
//! An open whose `first_at` lies before `rollup_state.retained_from` is frozen: its older hits are gone, so that it cannot be
//! computed again. It is never rebuilt, only erased; its hours' hits follow all the same.
//!
//! Gives up: the first and best of an open cannot be taken back by arithmetic, so a pair that is touched is computed from its
//! hits. Those beyond the chunk are looked for between the open's first and last time, on a closed day through the index on
//! `recipient`, on an open one by reading the day.

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
use super::tally::{Lock, Tally, TallyError, opens_of, same};
use super::turn::{self, CHUNK_HITS_MAX, MISMATCH_PATIENCE, Mismatches, Outcome};
use crate::db::partitions::{self, Partition};
use crate::db::{Database, DbError};
use crate::opens::class;

/// Hits of one chunk.
pub const CHUNK_ROWS_MAX: i64 = 50_000;

/// How often the lock is asked for, each time for the session's `lock_timeout`.
pub const LOCK_TRIES: u32 = 12;

/// How long a batch whose hits are not all there is waited for altogether.
const MISMATCH_WAIT_MAX: Duration = Duration::from_secs(90);

/// Wait between two looks at such a batch.
const MISMATCH_PAUSE: Duration = Duration::from_millis(500);

/// Hits of batches that are not rolled up: they are in no count yet.
macro_rules! not_pending {
    () => {
        "NOT EXISTS (SELECT 1 FROM batches b WHERE b.published IS NULL AND b.spool = h.spool \
           AND h.seq >= b.first_seq AND h.seq < b.next_seq)"
    };
}
use not_pending;

/// The front of what fills `touched` from `t`: pairs with `whole`. Those without an open have nothing to be put right.
macro_rules! touch {
    () => {
        "INSERT INTO touched (message, recipient, was_first_at, was_last_at, was_confirmed_first_at, tid, was_first_class, \
           was_confirmed_first_class, was_best, whole) \
         SELECT t.message, t.recipient, o.first_at, o.last_at, o.confirmed_first_at, o.tid, o.first_class, \
           o.confirmed_first_class, o.best, "
    };
}
use touch;

/// One look through the key of opens for each row of `t`.
macro_rules! with_open {
    () => {
        " CROSS JOIN LATERAL (SELECT *, opens.ctid AS tid FROM opens \
           WHERE opens.message = t.message AND opens.recipient = t.recipient LIMIT 1) AS o \
         CROSS JOIN rollup_state AS s "
    };
}
use with_open;

static REBUILD: LazyLock<String> = LazyLock::new(|| class::numbered(REBUILD_NAMED));

const REBUILD_NAMED: &str = concat!(
    "INSERT INTO pairs \
     SELECT t.message, t.recipient, r.image, r.first_at, r.last_at, r.confirmed_first_at, r.hits, r.confirmed_hits, \
       r.first_seq, t.was_first_at, t.was_confirmed_first_at, r.first_spool, t.tid, class_of_rank(r.rank), r.first_class, \
       r.confirmed_first_class, t.was_best, t.was_first_class, t.was_confirmed_first_class \
     FROM touched AS t LEFT JOIN (",
    opens_of!("pair_hits"),
    ") AS r ON r.message = t.message AND r.recipient = t.recipient",
);

/// Why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// As PostgreSQL says.
    #[error("{0}")]
    Tally(#[from] TallyError),
    /// Somebody else keeps the lock.
    #[error("another transaction locked opens and counts for too long")]
    Locked,
    /// A loaded batch and its hits do not agree, so that counts cannot be brought up to date.
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

/// Changes hits, and opens and counts with them. After an error make a new one.
pub struct Changes {
    tally: Tally,
    mismatches: Mismatches,
    rows_max: i64,
}

impl Changes {
    /// Connects.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn open(db: &Database) -> Result<Changes, ChangeError> {
        Changes::with(db, CHUNK_ROWS_MAX, MISMATCH_PATIENCE).await
    }

    /// As [`Changes::open`], with chunks of so many hits, and a mismatch waited for so long.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn with(db: &Database, rows_max: i64, patience: Duration) -> Result<Changes, ChangeError> {
        let tally = Tally::open(db, "pixeld-change").await?;
        Ok(Changes { tally, mismatches: Mismatches::new(patience), rows_max: rows_max.max(1) })
    }

    /// The partitions that hold times at or after `since`, the oldest first.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn partitions(&self, since: Option<time::OffsetDateTime>) -> Result<Vec<Partition>, ChangeError> {
        Ok(partitions::since(self.tally.client(), since).await?)
    }

    /// Begins a transaction with the lock, in which nothing is pending that can be seen. A backlog is rolled up before, in
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

    /// Computes the opens of `touched` from their hits, and brings opens and counts in line.
    async fn settle(&self, touched: u64) -> Result<(), ChangeError> {
        if touched > 0 {
            self.find_other_hits().await?;
            let pairs = self.tally.execute("computing opens", &REBUILD, &[]).await?;
            same("opens computed", touched, pairs)?;
        }
        Ok(self.tally.apply(touched).await?)
    }
}
