//! Receipts of deletions: who had which hits deleted, when, and how many. They are in the audit, which is never deleted
//! from.
//!
//! Guarantees: no receipt names a recipient whose hits were deleted, so that it may outlive them. A deletion that began
//! and did not end has only its first entry.

use time::OffsetDateTime;
use tokio_postgres::{Client, Error};

use super::change::Deleted;

const BEGAN: &str = "began to delete hits";
const DONE: &str = "deleted hits";
const FAILED: &str = "deleting hits failed";

/// A receipt.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    /// Its number.
    pub job: i64,
    /// The user who requested it.
    pub actor: String,
    /// What to delete, in words.
    pub subject: String,
    /// When it began.
    pub began_at: OffsetDateTime,
    /// How it ended; `None` if it did not.
    pub end: Option<End>,
}

/// How a deletion ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// The time.
    pub at: OffsetDateTime,
    /// Whether everything was deleted.
    pub is_done: bool,
    /// How much was deleted.
    pub deleted: Deleted,
    /// Why not everything; `None` if everything was, or if an earlier version recorded it.
    pub why: Option<String>,
}

/// Records the start of a deletion, and returns its number.
pub(crate) async fn begin(client: &Client, actor: &str, subject: &str) -> Result<i64, Error> {
    let insert = "INSERT INTO audit (actor, action, subject) VALUES ($1, $2, $3) RETURNING id";
    Ok(client.query_one(insert, &[&actor, &BEGAN, &subject]).await?.get(0))
}

/// Records its end, with `why` if it failed; only once, however often it is called.
pub(crate) async fn end(client: &Client, job: i64, deleted: Deleted, why: Option<&str>) -> Result<(), Error> {
    let insert = "INSERT INTO audit (actor, action, subject, detail) \
         SELECT actor, $2, subject, jsonb_strip_nulls( \
           jsonb_build_object('job', $1::bigint, 'hits', $3::bigint, 'opens', $4::bigint, 'why', $6::text)) \
         FROM audit AS b WHERE id = $1 AND action = $5 \
           AND NOT EXISTS (SELECT FROM audit AS e WHERE e.id > b.id AND e.detail->>'job' = b.id::text)";
    let action = if why.is_none() { DONE } else { FAILED };
    client.execute(insert, &[&job, &action, &(deleted.hits as i64), &(deleted.opens as i64), &BEGAN, &why]).await?;
    Ok(())
}

const RECEIPTS: &str = "SELECT b.id, b.actor, b.subject, b.at, e.at, e.action = $2, e.hits, e.opens, e.why FROM audit AS b LEFT JOIN LATERAL ( \
       SELECT at, action, (detail->>'hits')::bigint AS hits, (detail->>'opens')::bigint AS opens, detail->>'why' AS why FROM audit \
       WHERE id > b.id AND action IN ($2, $3) AND detail->>'job' = b.id::text ORDER BY id LIMIT 1) AS e ON true \
     WHERE b.action = $1";

/// The receipt with this number.
pub(crate) async fn find(client: &Client, job: i64) -> Result<Option<Receipt>, Error> {
    let find = format!("{RECEIPTS} AND b.id = $4");
    let row = client.query_opt(&find, &[&BEGAN, &DONE, &FAILED, &job]).await?;
    Ok(row.as_ref().map(receipt))
}

/// The last receipts, the newest first.
pub(crate) async fn latest(client: &Client, max: i64) -> Result<Vec<Receipt>, Error> {
    let find = format!("{RECEIPTS} ORDER BY b.id DESC LIMIT $4");
    Ok(client.query(&find, &[&BEGAN, &DONE, &FAILED, &max]).await?.iter().map(receipt).collect())
}

fn receipt(row: &tokio_postgres::Row) -> Receipt {
    let number = |column: usize| row.get::<_, Option<i64>>(column).unwrap_or(0) as u64;
    let end = row.get::<_, Option<OffsetDateTime>>(4).map(|at| End {
        at,
        is_done: row.get(5),
        deleted: Deleted { hits: number(6), opens: number(7) },
        why: row.get(8),
    });
    Receipt { job: row.get(0), actor: row.get(1), subject: row.get(2), began_at: row.get(3), end }
}
