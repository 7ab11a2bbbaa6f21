//! Queries of the loader: the mark, partitions, and the one transaction that brings hits.
//!
//! Nothing here retries; the loader knows what an error means. A `commit()` that returns Ok for an aborted transaction
//! (rust-postgres #1334) cannot deceive it: every statement's outcome and count is checked before COMMIT, and the mark is
//! read again after any error.

use bytes::BytesMut;
use futures_util::SinkExt;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::db::locks::{LOADING, PARTITIONING};
use crate::ingest::copy::COPY_HITS;
use crate::ingest::source::MarkName;

/// How far a spool is loaded, as PostgreSQL knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The spool's number.
    pub spool: i32,
    /// The next sequence number to load.
    pub next_seq: u64,
    /// The database's clock, in µs since 1970.
    pub now_us: i64,
}

/// What a transaction writes about a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchRecord {
    /// The spool's number in `spool_marks`.
    pub spool: i32,
    /// The batch's first number.
    pub first_seq: u64,
    /// The number behind its last.
    pub next_seq: u64,
    /// Rows copied.
    pub loaded: u64,
    /// Hits held back by the throttle.
    pub throttled: u64,
    /// Hits of recipients that had opted out.
    pub suppressed: u64,
    /// Hits that PostgreSQL refused.
    pub quarantined: u64,
    /// Hits that were set aside because the database does not have their image; they stand among the quarantined.
    pub orphans: u64,
    /// Hits beyond the retention.
    pub expired: u64,
    /// Hits of images that do not exist.
    pub unknown_image: u64,
    /// Numbers whose bytes are damaged.
    pub missing: u64,
    /// Hits of people who were erased.
    pub erased: u64,
    /// The earliest and the latest row, in µs since 1970.
    pub at_us: Option<(i64, i64)>,
}

/// What can come of bringing a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The mark is elsewhere; nothing was written.
    #[error("the mark is at {0}")]
    MarkMoved(u64),
    /// Erasures came, or user agents went, since the batch was prepared; nothing was written.
    #[error("erasures came meanwhile")]
    Erasures,
    /// PostgreSQL refused the data itself; the same rows will be refused again.
    #[error("PostgreSQL refuses the data: {0}")]
    Data(Error),
    /// A day has no partition (any more).
    #[error("a partition is missing: {0}")]
    Partition(Error),
    /// Anything else: whether it was committed is unknown until the mark is read again.
    #[error("{0}")]
    Unclear(#[from] Error),
    /// A count that came back is not the one that was sent.
    #[error("{what}: {got} came back, {sent} was sent")]
    Count {
        /// Of what.
        what: &'static str,
        /// What was sent.
        sent: u64,
        /// What came back.
        got: u64,
    },
}

/// Finds a spool's mark, makes it at its first number if it is new, and notes this connection as the one that loads it.
///
/// # Errors
/// `55P03` where another connection holds the mark for longer than the session's lock_timeout.
pub async fn claim_mark(client: &Client, name: MarkName, node: &str) -> Result<Mark, Error> {
    let MarkName { uuid: spool, first_seq } = name;
    // Looked for first: an INSERT that conflicts would burn a number each time.
    if client.query_opt("SELECT 1 FROM spool_marks WHERE spool_uuid = $1", &[&spool]).await?.is_none() {
        let insert = "INSERT INTO spool_marks (spool_uuid, node, next_seq) VALUES ($1, $2, $3) \
                      ON CONFLICT (spool_uuid) DO NOTHING";
        client.execute(insert, &[&spool, &node, &(first_seq as i64)]).await?;
    }
    let claim = "UPDATE spool_marks SET node = $2, backend_pid = pg_backend_pid(), updated_at = clock_timestamp(), \
                 backend_started = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) \
                 WHERE spool_uuid = $1 \
                 RETURNING spool, next_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = client.query_one(claim, &[&spool, &node]).await?;
    Ok(Mark { spool: row.get(0), next_seq: row.get::<_, i64>(1) as u64, now_us: row.get(2) })
}

/// How far each of `spools` is loaded; one that the database does not know is at 0.
///
/// # Errors
/// As PostgreSQL says.
pub async fn marks(client: &Client, spools: &[Uuid]) -> Result<Vec<(Uuid, u64)>, Error> {
    let select = "SELECT u, COALESCE(next_seq, 0) FROM unnest($1::uuid[]) u LEFT JOIN spool_marks ON spool_uuid = u";
    let rows = client.query(select, &[&spools]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect())
}

/// What tells one hit of a spool from another that has its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HitIdentity {
    /// Its time, in µs since 1970.
    pub at_us: i64,
    /// Its image.
    pub image: Uuid,
    /// Its message; nil where it has none.
    pub message: Uuid,
    /// Its recipient; nil where it has none.
    pub recipient: Uuid,
}

/// A batch that has rows.
#[derive(Debug, Clone, Copy)]
pub struct LoadedBatch {
    /// The batch's first number.
    pub first_seq: u64,
    /// The number behind its last.
    pub next_seq: u64,
    at: (OffsetDateTime, OffsetDateTime),
}

/// The batches of a spool that have rows and reach into the numbers from `from` up to `to`, the last one first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn batches_between(client: &Client, spool: i32, from: u64, to: u64) -> Result<Vec<LoadedBatch>, Error> {
    let select = "SELECT first_seq, next_seq, min_at, max_at FROM batches \
                  WHERE spool = $1 AND first_seq < $3 AND next_seq > $2 AND loaded > 0 ORDER BY first_seq DESC";
    let rows = client.query(select, &[&spool, &(from as i64), &(to as i64)]).await?;
    let batch = |row: &tokio_postgres::Row| LoadedBatch {
        first_seq: row.get::<_, i64>(0) as u64,
        next_seq: row.get::<_, i64>(1) as u64,
        at: (row.get(2), row.get(3)),
    };
    Ok(rows.iter().map(batch).collect())
}

/// The rows of a spool's batch, by their numbers.
///
/// # Errors
/// As PostgreSQL says.
pub async fn hits_of_batch(client: &Client, spool: i32, batch: &LoadedBatch) -> Result<Vec<(u64, HitIdentity)>, Error> {
    let select = "SELECT seq, (extract(epoch FROM at) * 1000000)::bigint, image, message, recipient FROM hits \
                  WHERE at BETWEEN $1 AND $2 AND spool = $3 AND seq >= $4 AND seq < $5";
    let (first_seq, next_seq) = (batch.first_seq as i64, batch.next_seq as i64);
    let rows = client.query(select, &[&batch.at.0, &batch.at.1, &spool, &first_seq, &next_seq]).await?;
    let hit = |row: &tokio_postgres::Row| {
        let identity = HitIdentity { at_us: row.get(1), image: row.get(2), message: row.get(3), recipient: row.get(4) };
        (row.get::<_, i64>(0) as u64, identity)
    };
    Ok(rows.iter().map(hit).collect())
}

/// Whether an error says that another connection holds the mark.
#[must_use]
pub fn is_held(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Ends the connection that is noted as the one loading `spool`, if it is still there: a vanished client's backend can
/// hold the mark for hours. Says whether there was one.
///
/// # Errors
/// As PostgreSQL says.
pub async fn end_predecessor(client: &Client, spool: Uuid) -> Result<bool, Error> {
    let end = "SELECT pg_terminate_backend(a.pid) FROM spool_marks m \
               JOIN pg_stat_activity a ON a.pid = m.backend_pid AND a.backend_start = m.backend_started \
               WHERE m.spool_uuid = $1 AND a.pid <> pg_backend_pid() AND a.usename = current_user";
    Ok(!client.query(end, &[&spool]).await?.is_empty())
}

/// Which of `ids` are images, and when each was deleted, in µs since 1970; none where it was not.
///
/// # Errors
/// As PostgreSQL says.
pub async fn existing_images(client: &Client, ids: &[Uuid]) -> Result<Vec<(Uuid, Option<i64>)>, Error> {
    let select = "SELECT id, (extract(epoch FROM deleted_at) * 1000000)::bigint FROM images WHERE id = ANY($1)";
    Ok(client.query(select, &[&ids]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Makes the partition of the day that `day` begins (midnight UTC), unless it is there.
///
/// `CREATE TABLE (LIKE)` and `ATTACH`, since `CREATE … PARTITION OF` waits behind open writes. The replica identity lets rows be
/// deleted where somebody publishes changes of all tables; without a publication it costs nothing.
///
/// # Errors
/// As PostgreSQL says.
pub async fn make_partition(client: &Client, day: time::Date) -> Result<(), Error> {
    let written = |date: time::Date| date.format(format_description!("[year]-[month]-[day]")).unwrap_or_default();
    let name = format!("hits_{}", written(day).replace('-', ""));
    let (from, to) = (written(day), written(day.next_day().unwrap_or(day)));
    let attached = "SELECT 1 FROM pg_inherits WHERE inhparent = 'hits'::regclass AND inhrelid = to_regclass($1)";
    if client.query_opt(attached, &[&name]).await?.is_some() {
        return Ok(());
    }
    let make = format!(
        "BEGIN; SELECT pg_advisory_xact_lock({PARTITIONING}); \
         DO $make$ BEGIN \
           IF NOT EXISTS (SELECT 1 FROM pg_inherits \
                          WHERE inhparent = 'hits'::regclass AND inhrelid = to_regclass('{name}')) THEN \
             CREATE TABLE IF NOT EXISTS {name} (LIKE hits INCLUDING ALL); \
             ALTER TABLE {name} REPLICA IDENTITY FULL; \
             ALTER TABLE hits ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00'); \
           END IF; \
         END $make$; COMMIT"
    );
    let outcome = client.batch_execute(&make).await;
    if outcome.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    outcome
}

/// How many hits were loaded in batches that reach beyond a time, or at all.
///
/// # Errors
/// As PostgreSQL says.
pub async fn loaded_since(client: &Client, since: Option<OffsetDateTime>) -> Result<u64, Error> {
    let sum = "SELECT coalesce(sum(loaded), 0)::bigint FROM batches WHERE $1::timestamptz IS NULL OR max_at >= $1";
    Ok(client.query_one(sum, &[&since]).await?.get::<_, i64>(0) as u64)
}

/// Rows that were copied in a transaction that [`finish`] ends.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    /// How many, as PostgreSQL says.
    pub rows: u64,
    /// The database's clock, in µs since 1970.
    pub now_us: i64,
}

/// Begins the one transaction of a batch: locks the mark of `spool`, which must be at `first_seq`, asks who has opted out
/// (`opt_outs`, see [`crate::opt_outs::suppressions::changes`]), and copies the rows, if they were prepared by this `version` of
/// [`crate::erasure::request::ErasureState`]: no erasure is noted before the transaction ends.
/// `next_rows` gives the COPY stream part by part, and while it makes one, PostgreSQL works on the last; nothing at all
/// copies nothing.
///
/// # Errors
/// [`BatchError`]; after `Unclear` the connection must not be used again, after the others the transaction is undone.
pub async fn copy(
    client: &Client,
    spool: i32,
    first_seq: u64,
    version: i64,
    opt_outs: impl Future<Output = Result<(), Error>>,
    next_rows: impl FnMut() -> Option<BytesMut>,
) -> Result<Copied, BatchError> {
    // Whatever the server's default is: in a stricter one, the first statement would decide which opt-outs are seen.
    let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared({LOADING})");
    client.batch_execute(&begin).await?;
    let outcome = copy_in_transaction(client, spool, first_seq, version, opt_outs, next_rows).await;
    if let Err(BatchError::MarkMoved(_) | BatchError::Erasures | BatchError::Data(_) | BatchError::Partition(_)) =
        &outcome
    {
        client.batch_execute("ROLLBACK").await?;
    }
    outcome
}

async fn copy_in_transaction(
    client: &Client,
    spool: i32,
    first_seq: u64,
    version: i64,
    opt_outs: impl Future<Output = Result<(), Error>>,
    mut next_rows: impl FnMut() -> Option<BytesMut>,
) -> Result<Copied, BatchError> {
    let lock = "SELECT next_seq, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
                  (SELECT version FROM erasure_state) FROM spool_marks WHERE spool = $1 FOR UPDATE";
    let mark = client.query_one(lock, &[&spool]).await?;
    let next_seq = mark.get::<_, i64>(0) as u64;
    if next_seq != first_seq {
        return Err(BatchError::MarkMoved(next_seq));
    }
    if mark.get::<_, i64>(2) != version {
        return Err(BatchError::Erasures);
    }
    opt_outs.await?;
    let rows = match next_rows() {
        Some(first) => copy_rows(client, first, next_rows).await.map_err(of_copy)?,
        None => 0,
    };
    Ok(Copied { rows, now_us: mark.get(1) })
}

async fn copy_rows(
    client: &Client,
    first: BytesMut,
    mut next_rows: impl FnMut() -> Option<BytesMut>,
) -> Result<u64, Error> {
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>(COPY_HITS).await?);
    let mut rows = Some(first);
    while let Some(part) = rows {
        if let Err(closed) = sink.feed(part.freeze()).await {
            // The server stopped listening; its reason comes with the end.
            return sink.as_mut().finish().await.and(Err(closed));
        }
        rows = next_rows();
    }
    sink.as_mut().finish().await
}

/// Ends the transaction of [`copy`]: moves the mark, records the batch, commits.
///
/// # Errors
/// [`BatchError`], and the connection must not be used again; whether it was committed, the mark says.
pub async fn finish(client: &Client, batch: &BatchRecord, copied: Copied) -> Result<(), BatchError> {
    if copied.rows != batch.loaded {
        return Err(BatchError::Count { what: "rows copied", sent: batch.loaded, got: copied.rows });
    }
    let finish = "WITH mark AS (UPDATE spool_marks SET next_seq = $3, updated_at = clock_timestamp() \
                                WHERE spool = $1 AND next_seq = $2 RETURNING spool) \
                  INSERT INTO batches (spool, first_seq, next_seq, loaded, throttled, quarantined, expired, unknown_image, \
                                       missing, min_at, max_at, suppressed, erased, loaded_at) \
                  SELECT spool, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, clock_timestamp() FROM mark";
    let (min_at, max_at) = batch.at_us.map(|(min, max)| (timestamp(min), timestamp(max))).unzip();
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    let written = client
        .execute(
            finish,
            &[
                &batch.spool,
                &(batch.first_seq as i64),
                &(batch.next_seq as i64),
                &count(batch.loaded),
                &count(batch.throttled),
                &count(batch.quarantined + batch.orphans),
                &count(batch.expired),
                &count(batch.unknown_image),
                &count(batch.missing),
                &min_at,
                &max_at,
                &count(batch.suppressed),
                &count(batch.erased),
            ],
        )
        .await?;
    if written != 1 {
        return Err(BatchError::Count { what: "marks moved", sent: 1, got: written });
    }
    Ok(client.batch_execute("COMMIT").await?)
}

/// What an error of the COPY means. Classes 22 and 23 speak of the data, but for a missing partition, which is our job.
fn of_copy(error: Error) -> BatchError {
    let Some(refusal) = error.as_db_error() else { return BatchError::Unclear(error) };
    let code = refusal.code().code();
    if *refusal.code() == SqlState::CHECK_VIOLATION && refusal.constraint().is_none() {
        BatchError::Partition(error)
    } else if code.starts_with("22") || code.starts_with("23") {
        BatchError::Data(error)
    } else {
        BatchError::Unclear(error)
    }
}

/// A time that is counted in µs since 1970.
pub fn timestamp(at_us: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_us) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
