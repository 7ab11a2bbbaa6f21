//! The daily partitions of `hits`: which there are, and the index on `recipient` that a day gets once it is closed.
//!
//! While a day is open such an index would cost more than all the rest of a row; what must find a recipient's hits there
//! reads the day.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Client;

use super::{DbError, QUERY_TIMEOUT, within};

/// How long after its end a day is taken for closed, by the database's clock.
pub const CLOSED_AFTER: Duration = Duration::from_secs(2 * 3600);

/// How long an index may take to be made.
const INDEX_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// Held while an index is made, so that one node at a time does it.
const INDEX_LOCK: i64 = 0x7069_7865_6c64_0003;

/// A partition of `hits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name, as SQL takes it.
    pub name: String,
    /// The first time in it.
    pub from: OffsetDateTime,
    /// The first time after it.
    pub to: OffsetDateTime,
}

/// Partitions whose bounds are times; all that pixeld makes are.
const LIST: &str = "SELECT name, at_from, at_to FROM ( \
       SELECT c.oid, c.oid::regclass::text AS name, (bounds[1])::timestamptz AS at_from, (bounds[2])::timestamptz AS at_to \
       FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
       CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') \
         AS bounds \
       WHERE i.inhparent = 'hits'::regclass AND bounds IS NOT NULL) AS p";

/// The partitions that hold times at or after `since`, the oldest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn since(client: &Client, since: Option<OffsetDateTime>) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE $1::timestamptz IS NULL OR at_to > $1 ORDER BY at_from");
    partitions(client.query(&list, &[&since])).await
}

/// The partitions that hold no time at or after `until`, the oldest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn until(client: &Client, until: OffsetDateTime) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE at_to <= $1 ORDER BY at_from");
    partitions(client.query(&list, &[&until])).await
}

/// The partitions that hold times in `[from, to]`, the oldest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn within_times(
    client: &Client,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE at_to > $1 AND at_from <= $2 ORDER BY at_from");
    partitions(client.query(&list, &[&from, &to])).await
}

async fn partitions(
    listing: impl Future<Output = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>>,
) -> Result<Vec<Partition>, DbError> {
    let rows = within(QUERY_TIMEOUT, "listing partitions", listing).await?;
    Ok(rows.iter().map(|row| Partition { name: row.get(0), from: row.get(1), to: row.get(2) }).collect())
}

/// Makes the index on `recipient` of each closed day that has no valid one, the newest first. Returns how many were made.
/// Does nothing while another node is at it. The connection's time-outs are changed for good: give it one of its own.
///
/// # Errors
/// As PostgreSQL says.
pub async fn index_closed_days(client: &Client) -> Result<u64, DbError> {
    let ours = client.query_one("SELECT pg_try_advisory_lock($1)", &[&INDEX_LOCK]);
    if !within(QUERY_TIMEOUT, "pg_try_advisory_lock", ours).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let made = index_under_lock(client).await;
    if made.is_ok() {
        let unlock = client.execute("SELECT pg_advisory_unlock($1)", &[&INDEX_LOCK]);
        within(QUERY_TIMEOUT, "pg_advisory_unlock", unlock).await?;
    }
    made
}

async fn index_under_lock(client: &Client) -> Result<u64, DbError> {
    let lacking = format!(
        "{LIST} WHERE at_to + make_interval(secs => $1) < clock_timestamp() AND NOT EXISTS ( \
           SELECT 1 FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
           WHERE x.indrelid = p.oid AND a.attname = 'recipient' AND x.indisvalid AND x.indpred IS NULL) \
         ORDER BY at_from DESC"
    );
    let days = partitions(client.query(&lacking, &[&CLOSED_AFTER.as_secs_f64()])).await?;
    if days.is_empty() {
        return Ok(0);
    }
    // It waits for every transaction that began before it, and reads the day twice.
    let unbounded = client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0");
    within(QUERY_TIMEOUT, "SET statement_timeout", unbounded).await?;
    for day in &days {
        let leftovers = "SELECT x.indexrelid::regclass::text FROM pg_index x \
             JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
             WHERE x.indrelid = $1::text::regclass AND a.attname = 'recipient' AND NOT x.indisvalid";
        let leftovers = within(QUERY_TIMEOUT, "looking for indexes", client.query(leftovers, &[&day.name])).await?;
        for leftover in &leftovers {
            let name: &str = leftover.get(0);
            tracing::info!(name, "an index that was not finished is removed");
            let remove = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
            within(INDEX_TIMEOUT, "removing an index", client.batch_execute(&remove)).await?;
        }
        let make = format!("CREATE INDEX CONCURRENTLY ON {} (recipient)", day.name);
        within(INDEX_TIMEOUT, "making an index", client.batch_execute(&make)).await?;
        tracing::info!(day = day.name, "a closed day has its index on recipient");
    }
    Ok(days.len() as u64)
}
