//! Hits of another program: how far each source is imported.
//!
//! Guarantees: a source's position moves in the transaction that loads its rows ([`crate::ingest::batch`]). One import
//! at a time. Gives up: retries; the caller repeats.

use tokio_postgres::{Client, Error};

use crate::ingest::batch::BatchError;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, SpoolId};

/// How far a source is imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// The source's number in `spool_marks`.
    pub spool: i32,
    /// The next sequence number.
    pub next_seq: u64,
    /// The highest row that was read.
    pub last_id: Option<i64>,
    /// That row's time, if it has one.
    pub last_at: Option<Micros>,
    /// Lower ids that had no row yet, in ascending order.
    pub late_ids: Vec<i64>,
}

/// The totals of a source so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Rows that are hits.
    pub loaded: u64,
    /// Rows of people who opted out.
    pub suppressed: u64,
    /// Rows that are older than the retention time.
    pub expired: u64,
    /// Rows that could not be imported.
    pub refused: u64,
}

/// The sources that have one of these pictures; a picture's id is random, so that two programs never share one.
pub(super) async fn find(client: &Client, pictures: &[ImageId]) -> Result<Vec<Taken>, Error> {
    let find = "SELECT i.spool, m.next_seq, i.last_id, i.last_at, i.late_ids \
                FROM imports i JOIN spool_marks m ON m.spool = i.spool WHERE i.pictures && $1 ORDER BY i.spool";
    let taken = |row: &tokio_postgres::Row| Taken {
        spool: row.get(0),
        next_seq: row.get::<_, i64>(1) as u64,
        last_id: row.get(2),
        last_at: row.get(3),
        late_ids: row.get(4),
    };
    Ok(client.query(find, &[&pictures]).await?.iter().map(taken).collect())
}

/// Adds a new source, from which nothing is imported yet.
pub(super) async fn begin(client: &Client, source: &str, pictures: &[ImageId]) -> Result<Taken, Error> {
    let begin = "WITH mark AS (INSERT INTO spool_marks (spool_uuid, node) VALUES ($1, $2) RETURNING spool) \
                 INSERT INTO imports (spool, source, pictures) SELECT spool, $2, $3 FROM mark RETURNING spool";
    let spool = client.query_one(begin, &[&SpoolId::random(), &source, &pictures]).await?.get(0);
    Ok(Taken { spool, next_seq: 0, last_id: None, last_at: None, late_ids: Vec::new() })
}

/// Adds a source's new pictures.
pub(super) async fn note_pictures(client: &Client, spool: i32, pictures: &[ImageId]) -> Result<(), Error> {
    let note = "UPDATE imports SET pictures = ARRAY(SELECT DISTINCT unnest(pictures || $2::uuid[])) \
                WHERE spool = $1 AND NOT pictures @> $2::uuid[]";
    client.execute(note, &[&spool, &pictures]).await?;
    Ok(())
}

/// Moves the source on to `after`, in the transaction that loads a batch.
///
/// # Errors
/// [`BatchError::Count`] if the source no longer exists; the batch must not be committed then.
pub(super) async fn move_on(client: &Client, after: &Taken) -> Result<(), BatchError> {
    let update = "UPDATE imports SET last_id = $2, last_at = $3, late_ids = $4 WHERE spool = $1";
    let moved = client.execute(update, &[&after.spool, &after.last_id, &after.last_at, &after.late_ids]).await?;
    if moved == 1 { Ok(()) } else { Err(BatchError::Count { what: "sources moved", sent: 1, got: moved }) }
}

/// The totals of a source so far.
pub(super) async fn totals(client: &Client, spool: i32) -> Result<Totals, Error> {
    let sum = "SELECT COALESCE(sum(loaded), 0)::bigint, COALESCE(sum(suppressed::bigint + erased), 0)::bigint, \
                 COALESCE(sum(expired), 0)::bigint, COALESCE(sum(unknown_image::bigint + quarantined), 0)::bigint \
               FROM batches WHERE spool = $1";
    let row = client.query_one(sum, &[&spool]).await?;
    let number = |at: usize| row.get::<_, i64>(at) as u64;
    Ok(Totals { loaded: number(0), suppressed: number(1), expired: number(2), refused: number(3) })
}

/// What must be known before rows are imported: the database's clock, and the start of the retention time.
pub(super) async fn clock(client: &Client) -> Result<(Micros, Micros), Error> {
    let row = client.query_one("SELECT clock_timestamp(), retained_from FROM rollup_state", &[]).await?;
    Ok((row.get(0), row.get(1)))
}
