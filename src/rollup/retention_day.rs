//! Drops whole days of hits that are older than the retention.
//!
//! Guarantees: a day is dropped in one short transaction that has `hits` to itself, or not at all. It waits for that at
//! most as long as allowed, and loads wait behind it only that long plus the time of the drop; it waits for a vacuum of
//! the day before that, while loads and queries go on. No hit is dropped that is not in the counts yet. Gives up: days
//! while a query reads `hits` for hours; they are tried again.
//!
//! `DETACH … CONCURRENTLY` would block nobody, not even behind a query of hours (measured: beside one that waited, a
//! row and a new day's partition took 50 ms). But it cannot be in one transaction with the check for uncounted hits,
//! and an interrupted one leaves a half-detached day until somebody finalises it. Either way, a day of millions of rows
//! is dropped in milliseconds.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::db::partitions::{self, Partition};
use crate::db::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::clock::micros::Micros;

/// How long after the end of the retention a day is dropped: by then a batch that was judged before is loaded and
/// counted.
pub const MARGIN: Duration = Duration::from_secs(3600);

/// How long to wait for a vacuum of the day, or for an index that is being built on it; longer than a vacuum takes to
/// give way (`deadlock_timeout`, a second).
const DAY_WAIT: Duration = Duration::from_secs(2);

/// The result of dropping a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is dropped, after this wait for `hits` and this time of holding it.
    Gone {
        /// Until no other session used it.
        waited: Duration,
        /// Until it was free again.
        held: Duration,
    },
    /// Other sessions used `hits` all the time.
    Busy,
    /// It may contain hits that are not rolled up.
    Pending,
}

/// The database's clock.
pub async fn now(client: &Client) -> Result<Micros, DbError> {
    let asking = client.query_one("SELECT clock_timestamp()", &[]);
    Ok(within(QUERY_TIMEOUT, "asking for the time", asking).await?.get(0))
}

/// The days that are completely older than `days` days, by the database's clock, the oldest first.
pub async fn overdue(client: &Client, days: u32) -> Result<Vec<Partition>, DbError> {
    let limit = "SELECT clock_timestamp() - make_interval(days => $1, secs => $2)";
    let (days, margin_s) = (i32::try_from(days).unwrap_or(i32::MAX), MARGIN.as_secs_f64());
    let row = within(QUERY_TIMEOUT, "asking for the time", client.query_one(limit, &[&days, &margin_s])).await?;
    partitions::until(client, row.get(0)).await
}

/// Drops a day, if `hits` can be locked within `wait`. Its opens must be frozen.
///
/// # Errors
/// On a database error; whether the day still exists then shows at the next check.
pub async fn drop_day(client: &Client, day: &Partition, wait: Duration) -> Result<Dropped, DbError> {
    let own = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE",
        DAY_WAIT.as_millis(),
        day.name
    );
    // Lock no more of the day before that: a query that reads all days would have hits and wait for the day, and we for
    // it. ONLY: otherwise it would wait for every session that uses any of the days.
    let alone = format!(
        "SET LOCAL lock_timeout = '{}ms'; LOCK TABLE ONLY hits IN ACCESS EXCLUSIVE MODE",
        wait.as_millis().max(1)
    );
    let outcome = async {
        within(QUERY_TIMEOUT, "locking a day", client.batch_execute(&own)).await?;
        let started = Instant::now();
        within(QUERY_TIMEOUT, "locking hits", client.batch_execute(&alone)).await?;
        let waited = started.elapsed();
        let pending = "SELECT EXISTS (SELECT 1 FROM batches WHERE published IS NULL AND min_at < $1)";
        let pending = within(QUERY_TIMEOUT, "looking for batches", client.query_one(pending, &[&day.to])).await?;
        if pending.get(0) {
            within(QUERY_TIMEOUT, "ROLLBACK", client.batch_execute("ROLLBACK")).await?;
            return Ok(Dropped::Pending);
        }
        let drop = format!("DROP TABLE {}; COMMIT", day.name);
        within(QUERY_TIMEOUT, "dropping a day", client.batch_execute(&drop)).await?;
        Ok(Dropped::Gone { waited, held: started.elapsed() - waited })
    };
    match outcome.await {
        Err(error) => {
            let error: DbError = error;
            within(QUERY_TIMEOUT, "ROLLBACK", client.batch_execute("ROLLBACK")).await?;
            match error.sql_state() {
                Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(Dropped::Busy),
                _ => Err(error),
            }
        }
        dropped => dropped,
    }
}
