//! The daily partitions of `hits`, and the index on `recipient` that a day gets once it is closed.
//!
//! While a day is open such an index would cost more than the rest of a row; searches for a recipient's hits there read
//! the whole day.
//!
//! A statement locks each day that it may touch, and the day's indexes, until its transaction ends, and PostgreSQL has
//! room for a few thousand locks altogether. So nothing reads more than [`DAYS_AT_ONCE`] days in one transaction,
//! however many there are, unless it releases the locks in between ([`look`]).

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use super::locks::{self, PARTITIONING};
use super::{DbError, QUERY_TIMEOUT, within};

/// How long after its end a day counts as closed, by the database's clock.
pub const CLOSED_AFTER: Duration = Duration::from_secs(2 * 3600);

/// Maximum time to build an index.
const INDEX_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// Maximum days on which one transaction holds locks.
pub const DAYS_AT_ONCE: usize = 64;

/// How long to wait for a day that lacks a replica identity, to give it one.
const IDENTITY_WAIT: &str = "5s";

/// A partition of `hits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name, as SQL accepts it.
    pub name: String,
    /// The first time in it.
    pub from: OffsetDateTime,
    /// The first time after it.
    pub to: OffsetDateTime,
}

impl Partition {
    /// Whether one of these slots of counts, sorted by when they begin, overlaps it. A slot is an hour or a quarter of
    /// one.
    pub fn has_a_slot_of(&self, slots: &[OffsetDateTime]) -> bool {
        let next = slots.partition_point(|slot| *slot + time::Duration::HOUR <= self.from);
        slots.get(next).is_some_and(|slot| *slot < self.to)
    }
}

/// Partitions whose bounds are times; all those that pixeld creates are.
const LIST: &str = "SELECT name, at_from, at_to FROM ( \
       SELECT c.oid, c.oid::regclass::text AS name, (bounds[1])::timestamptz AS at_from, (bounds[2])::timestamptz AS at_to \
       FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
       CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') \
         AS bounds \
       WHERE i.inhparent = 'hits'::regclass AND bounds IS NOT NULL) AS p";

/// The partitions that hold times at or after `since`, the oldest first.
pub async fn since(client: &Client, since: Option<OffsetDateTime>) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE $1::timestamptz IS NULL OR at_to > $1 ORDER BY at_from");
    partitions(client.query(&list, &[&since])).await
}

/// The partitions that hold no time at or after `until`, the oldest first.
pub async fn until(client: &Client, until: OffsetDateTime) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE at_to <= $1 ORDER BY at_from");
    partitions(client.query(&list, &[&until])).await
}

/// The partitions that hold times in `[from, to]`, the oldest first.
pub async fn within_times(
    client: &Client,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Vec<Partition>, DbError> {
    let list = format!("{LIST} WHERE at_to > $1 AND at_from <= $2 ORDER BY at_from");
    partitions(client.query(&list, &[&from, &to])).await
}

async fn partitions(listing: impl Future<Output = Result<Vec<Row>, Error>>) -> Result<Vec<Partition>, DbError> {
    let rows = within(QUERY_TIMEOUT, "listing partitions", listing).await?;
    Ok(rows.iter().map(|row| Partition { name: row.get(0), from: row.get(1), to: row.get(2) }).collect())
}

/// Makes the partition of the day that `day` begins (midnight UTC), unless it exists.
pub async fn make(client: &Client, day: time::Date) -> Result<(), Error> {
    let written = |date: time::Date| date.format(format_description!("[year]-[month]-[day]")).unwrap_or_default();
    let name = format!("hits_{}", written(day).replace('-', ""));
    let (from, to) = (written(day), written(day.next_day().unwrap_or(day)));
    let attached = "SELECT 1 FROM pg_inherits WHERE inhparent = 'hits'::regclass AND inhrelid = to_regclass($1)";
    if client.query_opt(attached, &[&name]).await?.is_some() {
        return Ok(());
    }
    let make = include_str!("partitions/make.sql")
        .replace("{name}", &name)
        .replace("{from}", &from)
        .replace("{to}", &to)
        .replace("{lock}", &PARTITIONING.to_string());
    let outcome = client.batch_execute(&make).await;
    if outcome.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    outcome
}

/// One statement over several days: `select` for each of them, in which `{day}` is its name, `{n}` its index in `days`,
/// and `{from}` and `{to}` are its bounds.
pub fn over(days: &[Partition], select: &str) -> String {
    let time = |at: OffsetDateTime, up: i64| format!("to_timestamp({})", at.unix_timestamp() + up);
    let of_day = |(n, day): (usize, &Partition)| {
        let (from, to) = (time(day.from, 0), time(day.to, i64::from(day.to.nanosecond() > 0)));
        let select = select.replace("{day}", &day.name).replace("{n}", &n.to_string());
        format!("({})", select.replace("{from}", &from).replace("{to}", &to))
    };
    days.iter().enumerate().map(of_day).collect::<Vec<_>>().join(" UNION ALL ")
}

/// Those of `days` with rows that meet `condition` with these values, each checked by one look-up in its index if it
/// has one.
pub async fn with_rows(
    client: &Client,
    days: &[Partition],
    condition: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Partition>, Error> {
    // Counted, not LIMIT 1: for one row the planner would rather read a whole day.
    let select = format!("SELECT {{n}} AS n FROM {{day}} WHERE {condition} HAVING count(*) > 0");
    let mut found = Vec::new();
    for group in days.chunks(DAYS_AT_ONCE) {
        let rows = client.query(&over(group, &select), values).await?;
        let mut places: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        places.sort_unstable();
        found.extend(places.iter().filter_map(|&place| group.get(place as usize).cloned()));
    }
    Ok(found)
}

/// Runs a query in an open transaction, and releases the locks that it took.
pub async fn look(client: &Client, query: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    client.batch_execute("SAVEPOINT look").await?;
    let rows = client.query(query, values).await?;
    client.batch_execute("ROLLBACK TO SAVEPOINT look; RELEASE SAVEPOINT look").await?;
    Ok(rows)
}

const LACKING_IDENTITY: &str = include_str!("partitions/lacking_identity.sql");

/// Gives a replica identity to those of `days` that have none, if changes of tables are published: PostgreSQL otherwise
/// refuses to update or delete their rows. New days get one when they are created.
///
/// # Errors
/// [`DbError::Identity`] if PostgreSQL refuses that, or if a day is in use for too long; or a database error.
pub async fn identify(client: &Client, days: &[Partition]) -> Result<(), DbError> {
    let names: Vec<&str> = days.iter().map(|day| day.name.as_str()).collect();
    let lacking = within(QUERY_TIMEOUT, "looking at publications", client.query(LACKING_IDENTITY, &[&names])).await?;
    for row in &lacking {
        let table: String = row.get(0);
        let identify = format!(
            "BEGIN; SET LOCAL lock_timeout = '{IDENTITY_WAIT}'; ALTER TABLE ONLY {table} REPLICA IDENTITY FULL; COMMIT"
        );
        let done = within(QUERY_TIMEOUT, "setting a day's replica identity", client.batch_execute(&identify)).await;
        if let Err(error) = done {
            within(QUERY_TIMEOUT, "ROLLBACK", client.batch_execute("ROLLBACK")).await?;
            return Err(error.of_identity(table));
        }
        tracing::info!(table, "a table of hits now has a replica identity because a publication includes it");
    }
    Ok(())
}

/// Builds the index on `recipient` of each closed day without a valid one, the newest first. Returns how many were
/// built. Does nothing while another node is building. The connection's time-outs stay changed: give it a connection of
/// its own.
pub async fn index_closed_days(client: &Client) -> Result<u64, DbError> {
    if !locks::try_lock(client, locks::INDEXING).await? {
        return Ok(0);
    }
    let made = index_under_lock(client).await;
    if made.is_ok() {
        locks::unlock(client, locks::INDEXING).await?;
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
            tracing::info!(name, "an unfinished index was removed");
            let remove = format!("DROP INDEX CONCURRENTLY IF EXISTS {name}");
            within(INDEX_TIMEOUT, "removing an index", client.batch_execute(&remove)).await?;
        }
        let make = format!("CREATE INDEX CONCURRENTLY ON {} (recipient)", day.name);
        within(INDEX_TIMEOUT, "making an index", client.batch_execute(&make)).await?;
        tracing::info!(day = day.name, "a closed day now has its index on recipient");
    }
    Ok(days.len() as u64)
}
