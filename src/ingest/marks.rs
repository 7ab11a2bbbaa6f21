//! How far each spool is loaded, in PostgreSQL: its mark, and the loaded batches.
//!
//! Nothing here retries. A mark moves only in the transaction that loads a batch ([`super::batch`]).

use time::OffsetDateTime;
use tokio_postgres::{Client, Error};

use crate::ingest::source::MarkName;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};

/// How far a spool is loaded, in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The spool's number.
    pub spool: i32,
    /// The next sequence number to load.
    pub next_seq: u64,
    /// The database's clock.
    pub now: Micros,
}

/// Finds a spool's mark, creates it at its first number if it is new, and records this connection as the one that loads
/// it.
///
/// # Errors
/// `55P03` if another connection holds the mark for longer than the session's lock_timeout.
pub(crate) async fn claim(client: &Client, name: MarkName, node: &str) -> Result<Mark, Error> {
    let MarkName { uuid: spool, first_seq } = name;
    // Checked first: an INSERT that conflicts would use up a number each time.
    if client.query_opt("SELECT 1 FROM spool_marks WHERE spool_uuid = $1", &[&spool]).await?.is_none() {
        let insert = "INSERT INTO spool_marks (spool_uuid, node, next_seq) VALUES ($1, $2, $3) \
                      ON CONFLICT (spool_uuid) DO NOTHING";
        client.execute(insert, &[&spool, &node, &(first_seq as i64)]).await?;
    }
    let claim = "UPDATE spool_marks SET node = $2, backend_pid = pg_backend_pid(), updated_at = clock_timestamp(), \
                 backend_started = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) \
                 WHERE spool_uuid = $1 \
                 RETURNING spool, next_seq, clock_timestamp()";
    let row = client.query_one(claim, &[&spool, &node]).await?;
    Ok(Mark { spool: row.get(0), next_seq: row.get::<_, i64>(1) as u64, now: row.get(2) })
}

/// How far each of `spools` is loaded; 0 if the database does not know it.
pub(crate) async fn loaded_to(client: &Client, spools: &[SpoolId]) -> Result<Vec<(SpoolId, u64)>, Error> {
    let select = "SELECT u, COALESCE(next_seq, 0) FROM unnest($1::uuid[]) u LEFT JOIN spool_marks ON spool_uuid = u";
    let rows = client.query(select, &[&spools]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as u64)).collect())
}

/// What distinguishes hits of a spool that have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HitIdentity {
    /// Its time.
    pub at: Micros,
    /// Its image.
    pub image: ImageId,
    /// Its message; nil if it has none.
    pub message: MessageId,
    /// Its recipient; nil if it has none.
    pub recipient: RecipientId,
}

/// A batch that has rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadedBatch {
    /// The batch's first number.
    pub first_seq: u64,
    /// The number after its last.
    pub next_seq: u64,
    at: (OffsetDateTime, OffsetDateTime),
}

/// The batches of a spool that have rows and overlap the numbers from `from` to before `to`, the last one first.
pub(crate) async fn batches_between(
    client: &Client,
    spool: i32,
    from: u64,
    to: u64,
) -> Result<Vec<LoadedBatch>, Error> {
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
pub(crate) async fn hits_of_batch(
    client: &Client,
    spool: i32,
    batch: &LoadedBatch,
) -> Result<Vec<(u64, HitIdentity)>, Error> {
    let select = "SELECT seq, at, image, message, recipient FROM hits \
                  WHERE at BETWEEN $1 AND $2 AND spool = $3 AND seq >= $4 AND seq < $5";
    let (first_seq, next_seq) = (batch.first_seq as i64, batch.next_seq as i64);
    let rows = client.query(select, &[&batch.at.0, &batch.at.1, &spool, &first_seq, &next_seq]).await?;
    let hit = |row: &tokio_postgres::Row| {
        let identity = HitIdentity { at: row.get(1), image: row.get(2), message: row.get(3), recipient: row.get(4) };
        (row.get::<_, i64>(0) as u64, identity)
    };
    Ok(rows.iter().map(hit).collect())
}

/// Ends the connection that is recorded as the one loading `spool`, if it still exists: a vanished client's backend can
/// hold the mark for hours. Returns whether there was one.
pub(crate) async fn end_predecessor(client: &Client, spool: SpoolId) -> Result<bool, Error> {
    let end = "SELECT pg_terminate_backend(a.pid) FROM spool_marks m \
               JOIN pg_stat_activity a ON a.pid = m.backend_pid AND a.backend_start = m.backend_started \
               WHERE m.spool_uuid = $1 AND a.pid <> pg_backend_pid() AND a.usename = current_user";
    Ok(!client.query(end, &[&spool]).await?.is_empty())
}

/// How many hits were loaded in batches that reach beyond a time, or at all.
pub(crate) async fn loaded_since(client: &Client, since: Option<OffsetDateTime>) -> Result<u64, Error> {
    let sum = "SELECT coalesce(sum(loaded), 0)::bigint FROM batches WHERE $1::timestamptz IS NULL OR max_at >= $1";
    Ok(client.query_one(sum, &[&since]).await?.get::<_, i64>(0) as u64)
}
