//! The task that keeps opens and counts in step with `hits`, and looks after closed days.
//!
//! Guarantees: after any failure it waits, reconnects and goes on. What a batch adds is in opens and counts once, in
//! the transaction that publishes it. One node at a time does it, the one that gets the lock; the others check again
//! later. A trickle of batches costs one transaction each [`TURN_MIN`]; a backlog is worked off without pauses. Gives
//! up: order between nodes' batches; they are numbered in the order in which they become visible.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::Instrument;

use super::tally::{Lock, Tally, TallyError};
use super::turn::{self, CHUNK_HITS_MAX, MISMATCH_PATIENCE, Mismatches, Outcome, Rolled};
use crate::backoff::Backoff;
use crate::db::{Database, DbError, partitions};
use pixeld_core::drain::Drain;
use pixeld_core::metrics::Metrics;

/// Minimum time from one transaction's start to the next's while there is no backlog.
pub const TURN_MIN: Duration = Duration::from_secs(1);

/// Interval between checks for batches of other nodes.
pub const POLL: Duration = Duration::from_secs(2);

/// The longest wait between two attempts.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Interval between checks for closed days.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// Minimum hits of a transaction, if larger ones take too long.
const CHUNK_HITS_MIN: u64 = 1000;

/// Keeps opens and counts in step.
pub struct Rollup {
    db: Database,
    metrics: Arc<Metrics>,
    committed: Arc<Notify>,
    tally: Option<Tally>,
    mismatches: Mismatches,
    hits_max: u64,
}

/// The result of one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A transaction was committed.
    Progressed(Rolled),
    /// Another node has the lock, or a batch's hits are not all visible yet.
    Later,
}

impl Rollup {
    /// A rollup that `committed` wakes when a batch was loaded.
    pub fn new(db: Database, metrics: Arc<Metrics>, committed: Arc<Notify>) -> Rollup {
        let mismatches = Mismatches::new(MISMATCH_PATIENCE);
        Rollup { db, metrics, committed, tally: None, mismatches, hits_max: CHUNK_HITS_MAX }
    }

    /// Rolls up, once the database is `ready`, until the drain; then once more what is pending, until the drain's
    /// deadline.
    pub async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) {
        let mut late = drain.clone();
        // The backlog is unknown before the first check.
        self.is_stuck();
        tokio::select! {
            () = ready => {}
            () = drain.asked() => return,
        }
        let days = index_days(self.db.clone());
        let rolling = self.keep_rolling(&mut drain);
        tokio::select! {
            () = rolling => {}
            () = days => {}
            () = late.deadline() => tracing::info!("the rollup was still running at the drain's deadline; the next start continues it"),
        }
    }

    /// Rolls up until the drain, including what is pending then.
    async fn keep_rolling(&mut self, drain: &mut Drain) {
        let mut backoff = Backoff::new(Duration::from_millis(100), RETRY_PAUSE_MAX);
        loop {
            let started = Instant::now();
            let is_last = drain.is_asked();
            let span = tracing::error_span!("rollup", hits_max = self.hits_max);
            let wait = match self.turn().instrument(span.clone()).await {
                Ok(Turn::Progressed(rolled)) => {
                    backoff.succeed();
                    if rolled.more {
                        continue;
                    }
                    TURN_MIN.saturating_sub(started.elapsed())
                }
                Ok(Turn::Later) => TURN_MIN,
                Err(error) => {
                    span.in_scope(|| self.failed(&error, !backoff.is_failing()));
                    backoff.fail()
                }
            };
            if is_last {
                // The next start, or another node, does what could not be done now.
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.asked() => continue,
            }
            if !backoff.is_failing() {
                tokio::select! {
                    () = self.committed.notified() => {}
                    () = tokio::time::sleep(POLL.saturating_sub(started.elapsed())) => {}
                    () = drain.asked() => {}
                }
            }
        }
    }

    /// One transaction.
    async fn turn(&mut self) -> Result<Turn, TallyError> {
        let tally = match self.tally.take() {
            Some(tally) if !tally.client().is_closed() => tally,
            _ => Tally::open(&self.db, "pixeld-rollup").await?,
        };
        let started = Instant::now();
        let turn = self.turn_with(&tally).await?;
        if let Turn::Progressed(rolled) = turn
            && rolled.batches > 0
        {
            self.metrics.rollup_hits.add(rolled.hits);
            self.metrics.rollup_mismatches.add(rolled.mismatches);
            self.metrics.rollup_seconds.observe(started.elapsed().as_secs_f64());
            self.hits_max = (self.hits_max * 2).min(CHUNK_HITS_MAX);
        }
        let backlog = turn::backlog(&tally).await?;
        let oldest_us = pixeld_core::clock::now_micros().0 - (backlog.age_seconds * 1e6) as i64;
        self.metrics.rollup_pending.set(backlog.batches);
        self.metrics.stuck.rollup.store(None);
        self.metrics.rollup_oldest_us.store(if backlog.batches > 0 { oldest_us } else { 0 }, Ordering::Relaxed);
        // After an error it is not put back: the state of its transaction is unknown.
        self.tally = Some(tally);
        Ok(turn)
    }

    async fn turn_with(&mut self, tally: &Tally) -> Result<Turn, TallyError> {
        let Some(mut state) = tally.begin(Lock::Try).await? else { return Ok(Turn::Later) };
        match turn::roll_up(tally, &mut state, self.hits_max, &mut self.mismatches).await? {
            Outcome::Rolled(rolled) if rolled.batches > 0 => {
                tally.commit().await?;
                Ok(Turn::Progressed(rolled))
            }
            Outcome::Rolled(rolled) => {
                tally.rollback().await?;
                Ok(Turn::Progressed(rolled))
            }
            Outcome::Mismatch => {
                tally.rollback().await?;
                Ok(Turn::Later)
            }
        }
    }

    /// From now on the lag grows, unless it does already, until a check of the backlog succeeds.
    fn is_stuck(&self) {
        let oldest_us = &self.metrics.rollup_oldest_us;
        // The error means that it grows already.
        oldest_us
            .compare_exchange(0, pixeld_core::clock::now_micros().0, Ordering::Relaxed, Ordering::Relaxed)
            .unwrap_or_default();
    }

    fn failed(&mut self, error: &TallyError, is_first: bool) {
        self.metrics.rollup_retries.one();
        self.is_stuck();
        let said = match error {
            TallyError::Db(error) => error.for_log(),
            TallyError::Count { .. } => error.to_string(),
        };
        let is_of_connection = matches!(error, TallyError::Db(error) if error.is_of_connection());
        let why = (!is_of_connection).then(|| Arc::new(error.to_string().replace('\n', " ")));
        self.metrics.stuck.rollup.store(why);
        if is_first {
            tracing::warn!(error = said, "opens and counts cannot be updated now; pixeld tries again");
        }
        if matches!(error, TallyError::Db(DbError::Timeout { .. })) {
            // With a fixed bound, a slow server would be sent the same transaction forever.
            self.hits_max = (self.hits_max / 2).max(CHUNK_HITS_MIN);
        }
    }
}

/// Indexes closed days forever, on a connection of its own.
async fn index_days(db: Database) {
    loop {
        let made = async {
            let session = db.connect("pixeld-index").await?;
            partitions::index_closed_days(&session.client).await
        };
        if let Err(error) = made.await {
            tracing::warn!(
                error = error.for_log(),
                "a closed day has no index on recipient yet; pixeld tries again later"
            );
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}
