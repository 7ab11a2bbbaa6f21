//! Days of hits that are beyond the retention, dropped whole.
//!
//! Guarantees: a day goes in one short transaction that has `hits` to itself, or not at all: it waits no longer for that than it is
//! told to, and whoever loads waits behind it no longer than that and the drop itself; a vacuum of the day is waited for before
//! that, while loads and queries run on. No hit goes that is not in the counts yet. Gives up: while a query reads `hits` for
//! hours, no day goes; it is tried again.
//!
//! `DETACH … CONCURRENTLY` holds nobody up, not even behind a query of hours (tried: beside one that waited, a row and a new day's
//! partition took 50 ms). But it cannot be in a transaction with the look for hits that are not counted, and one that is interrupted leaves
//! a day that is half there until somebody finalises it. A day of millions of rows goes in milliseconds either way.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::db::partitions::{self, Partition};
use crate::db::{DbError, QUERY_TIMEOUT, within};

/// How long after the end of the retention a day goes: a batch that was judged before that is surely in, and counted.
pub const MARGIN: Duration = Duration::from_secs(3600);

/// How long a vacuum of the day, or an index that is made on it, is waited for; longer than it takes until a vacuum gives way
/// (`deadlock_timeout`, a second).
const DAY_WAIT: Duration = Duration::from_secs(2);

/// What came of dropping a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It is gone; `hits` was waited for, and held, so long.
    Gone {
        /// Until nobody else used it.
        waited: Duration,
        /// Until it was free again.
        held: Duration,
    },
    /// Somebody used `hits` all the time.
    Busy,
    /// Hits that are not rolled up may lie in it.
    Pending,
}

/// The database's clock, in µs since 1970.
///
/// # Errors
/// As PostgreSQL says.
pub async fn now_us(client: &Client) -> Result<i64, DbError> {
    let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    Ok(within(QUERY_TIMEOUT, "asking for the time", client.query_one(select, &[])).await?.get(0))
}

/// The days that are wholly older than so many days, by the database's clock, the oldest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn overdue(client: &Client, days: u32) -> Result<Vec<Partition>, DbError> {
    let limit = "SELECT clock_timestamp() - make_interval(days => $1, secs => $2)";
    let (days, margin_s) = (i32::try_from(days).unwrap_or(i32::MAX), MARGIN.as_secs_f64());
    let row = within(QUERY_TIMEOUT, "asking for the time", client.query_one(limit, &[&days, &margin_s])).await?;
    partitions::until(client, row.get(0)).await
}

/// Drops a day, if `hits` can be had within `wait`. Its opens must be frozen.
///
/// # Errors
/// As PostgreSQL says; the day is still there then, or gone, and who looks again sees.
pub async fn drop_day(client: &Client, day: &Partition, wait: Duration) -> Result<Dropped, DbError> {
    let own = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE",
        DAY_WAIT.as_millis(),
        day.name
    );
    // Not more of the day before that: a query that reads all days would have hits and wait for the day, and we for it. ONLY: else it
    // would wait for whoever is at any of the days.
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
