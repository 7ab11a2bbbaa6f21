//! The table `orphans`: which hits wait on the disks of nodes because the database lacks their image.
//!
//! Guarantees: it changes in the transactions that skip these hits and that load them, so that a restored database
//! always says which of them it lacks. Nodes that have copies of the same hits load them once.

use tokio_postgres::{Client, Error};

use super::batch::BatchError;
use pixeld_core::ids::SpoolId;
use pixeld_spool::orphans::Waiting;

/// The waiting hits of the spools whose marks have these UUIDs.
pub(crate) async fn waiting(client: &Client, marks: &[SpoolId]) -> Result<Vec<Waiting>, Error> {
    let select = "SELECT spool_uuid, spool, image, first_seq, orphans.next_seq FROM orphans JOIN spool_marks USING (spool) \
                  WHERE spool_uuid = ANY($1) ORDER BY spool, first_seq, image";
    let waiting = |row: &tokio_postgres::Row| Waiting {
        mark: row.get(0),
        spool: row.get(1),
        image: row.get(2),
        first_seq: row.get::<_, i64>(3) as u64,
        next_seq: row.get::<_, i64>(4) as u64,
    };
    Ok(client.query(select, &[&marks]).await?.iter().map(waiting).collect())
}

/// In a batch's transaction: records that hits wait. `open` is a note that reaches to a number after which nothing of
/// the image was loaded since; it is extended, if it still exists.
pub(crate) async fn note(client: &Client, waiting: &Waiting, open: Option<&Waiting>) -> Result<Waiting, Error> {
    let next_seq = waiting.next_seq as i64;
    if let Some(open) = open {
        let lengthen =
            "UPDATE orphans SET next_seq = $5 WHERE spool = $1 AND image = $2 AND first_seq = $3 AND next_seq = $4";
        let (first, next) = (open.first_seq as i64, open.next_seq as i64);
        if client.execute(lengthen, &[&open.spool, &open.image, &first, &next, &next_seq]).await? == 1 {
            return Ok(Waiting { next_seq: waiting.next_seq, ..*open });
        }
    }
    let insert = "INSERT INTO orphans (spool, image, first_seq, next_seq) VALUES ($1, $2, $3, $4)";
    client.execute(insert, &[&waiting.spool, &waiting.image, &(waiting.first_seq as i64), &next_seq]).await?;
    Ok(*waiting)
}

/// In the transaction that loads them: records that hits no longer wait, all or those before `rest`.
///
/// # Errors
/// [`BatchError::Count`] if another session has changed the note.
pub(crate) async fn take(client: &Client, waiting: &Waiting, rest: Option<u64>) -> Result<(), BatchError> {
    let (first, next) = (waiting.first_seq as i64, waiting.next_seq as i64);
    let which = "WHERE spool = $1 AND image = $2 AND first_seq = $3 AND next_seq = $4";
    let changed = match rest {
        Some(rest) => {
            let shorten = format!("UPDATE orphans SET first_seq = $5 {which}");
            client.execute(&shorten, &[&waiting.spool, &waiting.image, &first, &next, &(rest as i64)]).await?
        }
        None => {
            let delete = format!("DELETE FROM orphans {which}");
            client.execute(&delete, &[&waiting.spool, &waiting.image, &first, &next]).await?
        }
    };
    if changed == 1 { Ok(()) } else { Err(BatchError::Count { what: "notes of orphans", sent: 1, got: changed }) }
}
