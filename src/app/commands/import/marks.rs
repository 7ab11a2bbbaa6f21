//! Hits that come from another program: how far each source is taken, and the one transaction that brings a batch of it.
//!
//! Guarantees: hits, mark, batch and how far the source is read move in one transaction, as with a spool on disk; what was
//! brought is marked (`batches.imported`), so that it is counted and is no event. One import at a time. Gives up: nothing
//! here retries.

use time::OffsetDateTime;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::ingest::transaction::{BatchError, Copied, timestamp};

/// How far a source is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The source's number in `spool_marks`.
    pub spool: i32,
    /// The next sequence number.
    pub next_seq: u64,
    /// The highest row that was looked at.
    pub last_id: Option<i64>,
    /// That row's time, in µs since 1970, where it has one.
    pub last_us: Option<i64>,
    /// Lower ids that had no row yet, in their order.
    pub late_ids: Vec<i64>,
}

/// What a transaction writes about a batch of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportedBatch {
    /// Rows copied.
    pub loaded: u64,
    /// Rows of people who asked not to be recorded.
    pub suppressed: u64,
    /// Rows of people who asked to be forgotten.
    pub erased: u64,
    /// Rows that are older than hits are kept.
    pub expired: u64,
    /// Rows of a picture that the source does not have.
    pub unknown_image: u64,
    /// Rows that cannot be read.
    pub quarantined: u64,
    /// The earliest and the latest row copied, in µs since 1970.
    pub at_us: Option<(i64, i64)>,
}

/// What became of all rows of a source so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that are hits.
    pub loaded: u64,
    /// Rows of people who asked not to be recorded.
    pub suppressed: u64,
    /// Rows that are older than hits are kept.
    pub expired: u64,
    /// Rows that could not be taken.
    pub refused: u64,
}

/// The sources that have one of these pictures; a picture's id is random, so that two programs never share one.
///
/// # Errors
/// As PostgreSQL says.
pub async fn find(client: &Client, pictures: &[Uuid]) -> Result<Vec<Taken>, Error> {
    let find = "SELECT i.spool, m.next_seq, i.last_id, (extract(epoch FROM i.last_at) * 1000000)::bigint, i.late_ids \
                FROM imports i JOIN spool_marks m ON m.spool = i.spool WHERE i.pictures && $1 ORDER BY i.spool";
    let taken = |row: &tokio_postgres::Row| Taken {
        spool: row.get(0),
        next_seq: row.get::<_, i64>(1) as u64,
        last_id: row.get(2),
        last_us: row.get(3),
        late_ids: row.get(4),
    };
    Ok(client.query(find, &[&pictures]).await?.iter().map(taken).collect())
}

/// Notes a new source, of which nothing is taken yet.
///
/// # Errors
/// As PostgreSQL says.
pub async fn begin(client: &Client, source: &str, pictures: &[Uuid]) -> Result<Taken, Error> {
    let begin = "WITH mark AS (INSERT INTO spool_marks (spool_uuid, node) VALUES ($1, $2) RETURNING spool) \
                 INSERT INTO imports (spool, source, pictures) SELECT spool, $2, $3 FROM mark RETURNING spool";
    let spool = client.query_one(begin, &[&Uuid::new_v4(), &source, &pictures]).await?.get(0);
    Ok(Taken { spool, next_seq: 0, last_id: None, last_us: None, late_ids: Vec::new() })
}

/// Notes pictures that a source has got since.
///
/// # Errors
/// As PostgreSQL says.
pub async fn note_pictures(client: &Client, spool: i32, pictures: &[Uuid]) -> Result<(), Error> {
    let note = "UPDATE imports SET pictures = ARRAY(SELECT DISTINCT unnest(pictures || $2::uuid[])) \
                WHERE spool = $1 AND NOT pictures @> $2::uuid[]";
    client.execute(note, &[&spool, &pictures]).await?;
    Ok(())
}

/// Ends the transaction that [`crate::ingest::transaction::copy`] began at `before`: moves the mark and the source on to `after`, records the
/// batch, commits.
///
/// # Errors
/// [`BatchError`], and the connection must not be used again; whether it was committed, the mark says.
pub async fn finish(
    client: &Client,
    before: &Taken,
    after: &Taken,
    batch: &ImportedBatch,
    copied: Copied,
) -> Result<(), BatchError> {
    if copied.rows != batch.loaded {
        return Err(BatchError::Count { what: "rows copied", sent: batch.loaded, got: copied.rows });
    }
    let finish = "WITH mark AS (UPDATE spool_marks SET next_seq = $3, updated_at = clock_timestamp() \
                                WHERE spool = $1 AND next_seq = $2 RETURNING spool), \
                       source AS (UPDATE imports i SET last_id = $11, last_at = $12, late_ids = $13 \
                                  FROM mark WHERE i.spool = mark.spool RETURNING i.spool) \
                  INSERT INTO batches (spool, first_seq, next_seq, loaded, suppressed, expired, unknown_image, quarantined, \
                                       min_at, max_at, loaded_at, imported, erased) \
                  SELECT spool, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), true, $14 FROM source";
    let (min_at, max_at) = batch.at_us.map(|(min, max)| (timestamp(min), timestamp(max))).unzip();
    let last_at: Option<OffsetDateTime> = after.last_us.map(timestamp);
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    let written = client
        .execute(
            finish,
            &[
                &before.spool,
                &(before.next_seq as i64),
                &(after.next_seq as i64),
                &count(batch.loaded),
                &count(batch.suppressed),
                &count(batch.expired),
                &count(batch.unknown_image),
                &count(batch.quarantined),
                &min_at,
                &max_at,
                &after.last_id,
                &last_at,
                &after.late_ids,
                &count(batch.erased),
            ],
        )
        .await?;
    if written != 1 {
        return Err(BatchError::Count { what: "marks moved", sent: 1, got: written });
    }
    Ok(client.batch_execute("COMMIT").await?)
}

/// What became of all rows of a source so far.
///
/// # Errors
/// As PostgreSQL says.
pub async fn totals(client: &Client, spool: i32) -> Result<Totals, Error> {
    let sum = "SELECT COALESCE(sum(loaded), 0)::bigint, COALESCE(sum(suppressed::bigint + erased), 0)::bigint, \
                 COALESCE(sum(expired), 0)::bigint, COALESCE(sum(unknown_image::bigint + quarantined), 0)::bigint \
               FROM batches WHERE spool = $1";
    let row = client.query_one(sum, &[&spool]).await?;
    let number = |at: usize| row.get::<_, i64>(at) as u64;
    Ok(Totals { loaded: number(0), suppressed: number(1), expired: number(2), refused: number(3) })
}

/// What must be known before rows are taken: the database's clock, and since when hits are kept, in µs since 1970.
///
/// # Errors
/// As PostgreSQL says.
pub async fn clock(client: &Client) -> Result<(i64, i64), Error> {
    let select = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
                    (extract(epoch FROM retained_from) * 1000000)::bigint FROM rollup_state";
    let row = client.query_one(select, &[]).await?;
    Ok((row.get(0), row.get(1)))
}
