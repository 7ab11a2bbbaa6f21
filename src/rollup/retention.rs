//! The task that deletes what is older than `PIXELD_RETENTION_DAYS`: days of hits, opens without hits, user agents
//! without hits.
//!
//! Guarantees: loads wait for it at most as long as [`LOCK_WAITS`] at a time. One node at a time does it; whatever
//! fails is tried again. Counts stay, since they name nobody. While the clocks cannot be trusted ([`crate::clocks`])
//! nothing is deleted. Gives up: precision. Hits are deleted by whole days (UTC), so that the oldest is up to a day and
//! an hour older than the retention, and more while a long query holds `hits`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::change::Changes;
use super::retention_day::{self, Dropped};
use super::tally;
use crate::clocks::{Clocks, Reading};
use crate::db::partitions::Partition;
use crate::db::{Database, locks, user_agents, within};
use pixeld_core::drain::Drain;
use pixeld_core::metrics::Metrics;

/// Interval between checks.
pub const PERIOD: Duration = Duration::from_secs(600);

/// How long it waits for `hits` at the first attempt, the second, and so on; loads wait behind it equally long.
pub const LOCK_WAITS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// Pause between two attempts, so that loads catch up.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Deletes what is older than the retention.
pub struct Retention {
    db: Database,
    metrics: Arc<Metrics>,
    days: NonZeroU32,
    clocks: Arc<Clocks>,
    /// Whether opens were searched since the start: an earlier process may have been stopped in the middle.
    has_looked: bool,
}

impl Retention {
    /// Keeps hits for `days` days.
    pub fn new(db: Database, metrics: Arc<Metrics>, days: NonZeroU32, clocks: Arc<Clocks>) -> Retention {
        Retention { db, metrics, days, clocks, has_looked: false }
    }

    /// Deletes, once the database is `ready`, until the drain.
    pub async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) {
        tokio::select! {
            () = ready => {}
            () = drain.asked() => return,
        }
        loop {
            let wait = tokio::select! {
                turn = self.turn() => match turn {
                    Ok(()) => {
                        self.metrics.stuck.retention.store(None);
                        PERIOD
                    }
                    Err(error) => {
                        self.metrics.stuck.retention.store(crate::db::problem(&error));
                        tracing::warn!(error = crate::db::describe(&error), "hits beyond the retention cannot be deleted now; pixeld tries again");
                        RETRY
                    }
                },
                () = drain.asked() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.asked() => return,
            }
        }
    }

    /// Deletes everything that is overdue now.
    ///
    /// # Errors
    /// Call it again then.
    pub async fn turn(&mut self) -> anyhow::Result<()> {
        let session = self.db.connect("pixeld-retention").await?;
        let client = &session.client;
        if !locks::try_lock(client, locks::RETAINING).await? {
            return Ok(());
        }
        let reading = Reading::now(retention_day::now(client).await?);
        if !self.clocks.believes(reading, &self.metrics) {
            return Ok(());
        }
        let overdue = retention_day::overdue(client, self.days.get()).await?;
        self.metrics.retention_overdue.set(overdue.len() as i64);
        if let Some(last) = overdue.last() {
            // Before any day is dropped: an open must not be rebuilt from half of its hits.
            Changes::open(&self.db).await?.retain_from(last.to).await?;
            for (left, day) in (0..overdue.len() as i64).rev().zip(&overdue) {
                if !self.drop_day(client, day).await? {
                    break;
                }
                self.metrics.retention_days.one();
                self.metrics.retention_overdue.set(left);
            }
        }
        if !overdue.is_empty() || !self.has_looked {
            let opens = Changes::open(&self.db).await?.forget_opens().await?;
            self.has_looked = true;
            if opens > 0 {
                tracing::info!(opens, "opens beyond the retention were deleted");
            }
        }
        let retained_from = client.query_one("SELECT retained_from FROM rollup_state", &[]);
        let retained_from = within(tally::STATEMENT_TIMEOUT, "reading rollup_state", retained_from).await?.get(0);
        let forgotten = user_agents::forget_unused(client, retained_from).await?;
        if forgotten > 0 {
            tracing::info!(user_agents = forgotten, "unused user agents were deleted");
        }
        Ok(())
    }

    /// Drops a day, with several attempts. Returns whether it is gone.
    async fn drop_day(&self, client: &tokio_postgres::Client, day: &Partition) -> anyhow::Result<bool> {
        for wait in LOCK_WAITS {
            match retention_day::drop_day(client, day, wait).await? {
                Dropped::Gone { waited, held } => {
                    let (waited_ms, held_ms) = (waited.as_millis() as u64, held.as_millis() as u64);
                    tracing::info!(day = day.name, waited_ms, held_ms, "a day beyond the retention was deleted");
                    return Ok(true);
                }
                // A node with a longer retention loaded something in the meantime.
                Dropped::Pending => Changes::open(&self.db).await?.retain_from(day.to).await?,
                Dropped::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            }
        }
        tracing::info!(day = day.name, "a day beyond the retention is in use; pixeld tries again later");
        Ok(false)
    }
}
