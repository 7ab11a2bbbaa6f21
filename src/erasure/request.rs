//! Erasures: the requests, the deletion in the database, and what has to be finished.
//!
//! Guarantees: after [`request`] no transaction that loads hits can commit without knowing the erasure, since each of
//! them holds [`locks::LOADING`] shared and reads the version under it; ids of erasures become visible in their order.
//! [`finish_all`] finds an erasure whose deletion was interrupted; the database alone is enough to finish it, since
//! recipients are found by their hash. Gives up: speed; that search reads all hits.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use crate::db::locks::{self, DELETING};
use crate::db::{Database, DbError, QUERY_TIMEOUT, partitions, within};
use crate::opt_outs::suppressions;
use crate::rollup::change::Changes;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::RecipientId;
use pixeld_core::privacy::{PrivacyKey, RecipientHash};

/// The pause between two attempts to get [`DELETING`].
const DELETING_PAUSE: Duration = Duration::from_millis(250);

/// Maximum time to search one partition for recipients or user agents.
const SCAN_TIMEOUT: Duration = Duration::from_secs(3600);

/// Unfinished erasures that one search through all hits covers.
const UNFINISHED_MAX: i64 = 1000;

/// Age at which others finish an erasure instead of the command that requested it.
const UNFINISHED_AFTER: Duration = Duration::from_secs(30);

/// Erasures that are put back by one statement.
const PUT_BACK_ROWS: usize = 5000;

/// What loaders need to know about erasures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErasureState {
    /// Increases with each erasure, and with each user agent that is deleted.
    pub version: i64,
    /// When the latest erasure was requested; `None` if there is none.
    pub latest_at: Option<Micros>,
}

/// The version and the latest erasure, now.
pub(crate) async fn state(client: &Client) -> Result<ErasureState, Error> {
    let row = client.query_one("SELECT version, latest_at FROM erasure_state", &[]).await?;
    Ok(ErasureState { version: row.get(0), latest_at: row.get(1) })
}

/// Which of these were erased, and when that was last requested.
pub(crate) async fn erased_among(
    client: &Client,
    hashes: &[RecipientHash],
) -> Result<Vec<(RecipientHash, Micros)>, Error> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.0[..]).collect();
    let select = "SELECT recipient_hash, max(requested_at) FROM erasures \
                  WHERE recipient_hash = ANY($1) GROUP BY recipient_hash";
    Ok(client
        .query(select, &[&hashes])
        .await?
        .iter()
        .map(|row| (RecipientHash::of_column(row.get(0)), row.get(1)))
        .collect())
}

/// Records an erasure and its actor; with `with_opt_out` also the recipient's opt-out: both or nothing. Returns the
/// erasure's number.
///
/// Give it a connection of its own: a caller that stops waiting must drop it, and the open transaction with it.
///
/// # Errors
/// On a database error, or if transactions that load hits leave no gap for it.
pub(crate) async fn request(
    client: &Client,
    actor: &str,
    recipient: RecipientHash,
    with_opt_out: bool,
) -> Result<i64, DbError> {
    locks::begin_alone(client).await?;
    if with_opt_out {
        // Loaders, too, take the lock of opt-outs after this one. First, so that no moment is between the two times.
        within(QUERY_TIMEOUT, "opting out", suppressions::opt_out(client, actor, recipient)).await?;
    }
    let insert = "WITH asked AS (INSERT INTO erasures (recipient_hash) VALUES ($1) RETURNING id, requested_at), \
                  moved AS (UPDATE erasure_state SET version = version + 1, \
                    latest_at = GREATEST(latest_at, (SELECT requested_at FROM asked))), \
                  noted AS (INSERT INTO audit (actor, action, subject, detail) \
                    SELECT $2, 'recipient erased', encode($1, 'hex'), jsonb_build_object('erasure', id) FROM asked) \
                  SELECT id FROM asked";
    let recipient = &recipient.0[..];
    let row = within(QUERY_TIMEOUT, "noting an erasure", client.query_one(insert, &[&recipient, &actor])).await?;
    within(QUERY_TIMEOUT, "COMMIT", client.batch_execute("COMMIT")).await?;
    Ok(row.get(0))
}

/// Deletes the hits and opens of a recipient for an erasure, and records that it is finished. Waits for others that
/// delete for it.
///
/// # Errors
/// On a database error; the erasure is then unfinished, and others continue it.
pub(crate) async fn delete(db: &Database, erasure: i64, recipient: RecipientId) -> anyhow::Result<()> {
    let session = db.connect("pixeld-erase").await?;
    lock_deleting(&session.client, erasure).await?;
    Changes::open(db).await?.erase(erasure, recipient).await?;
    Ok(finish(&session.client, &[erasure]).await?)
}

/// Waits for another session that deletes, for as long as that takes.
async fn lock_deleting(client: &Client, erasure: i64) -> Result<(), DbError> {
    loop {
        if try_deleting(client, erasure).await? {
            return Ok(());
        }
        tokio::time::sleep(DELETING_PAUSE).await;
    }
}

async fn try_deleting(client: &Client, erasure: i64) -> Result<bool, DbError> {
    // A number that wraps around only makes two erasures wait for each other.
    let number = erasure as i32;
    let values: [&(dyn ToSql + Sync); 2] = [&DELETING, &number];
    let lock = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &values);
    Ok(within(QUERY_TIMEOUT, "pg_try_advisory_lock", lock).await?.get(0))
}

/// Records that the rows of these erasures are deleted; and those of earlier, interrupted ones of the same people.
async fn finish(client: &Client, erasures: &[i64]) -> Result<(), DbError> {
    let update = "UPDATE erasures AS e SET deleted_at = clock_timestamp() \
                  WHERE e.deleted_at IS NULL AND (e.id = ANY($1) OR EXISTS (SELECT 1 FROM erasures d \
                    WHERE d.id = ANY($1) AND d.recipient_hash = e.recipient_hash AND d.id > e.id))";
    within(QUERY_TIMEOUT, "finishing an erasure", client.execute(update, &[&erasures])).await?;
    Ok(())
}

/// Finishes erasures that were interrupted or put back: finds their recipients by their hashes, in all hits and opens.
/// Returns how many were finished. Skips erasures that others are working on.
///
/// # Errors
/// On a database error; what is left is found again.
pub(crate) async fn finish_all(db: &Database, key: &PrivacyKey) -> anyhow::Result<usize> {
    let session = db.connect("pixeld-erase").await?;
    let select = "SELECT id, recipient_hash FROM erasures WHERE deleted_at IS NULL \
                  AND (put_back_at IS NOT NULL OR requested_at < clock_timestamp() - make_interval(secs => $2)) \
                  ORDER BY id LIMIT $1";
    let after_s = UNFINISHED_AFTER.as_secs_f64();
    let values: [&(dyn ToSql + Sync); 2] = [&UNFINISHED_MAX, &after_s];
    let listing = session.client.query(select, &values);
    let mut ours = Vec::new();
    for row in within(QUERY_TIMEOUT, "listing erasures", listing).await? {
        let (erasure, hash): (i64, &[u8]) = (row.get(0), row.get(1));
        if try_deleting(&session.client, erasure).await? {
            ours.push((erasure, RecipientHash::of_column(hash)));
        }
    }
    if ours.is_empty() {
        return Ok(0);
    }
    let hashes: Vec<RecipientHash> = ours.iter().map(|(_, hash)| *hash).collect();
    let mut changes = Changes::open(db).await?;
    for recipient in find(&session.client, key, &hashes).await? {
        let hash = key.hash(recipient);
        if let Some((erasure, _)) = ours.iter().find(|(_, of)| *of == hash) {
            changes.erase(*erasure, recipient).await?;
        }
    }
    let ids: Vec<i64> = ours.iter().map(|(erasure, _)| *erasure).collect();
    finish(&session.client, &ids).await?;
    Ok(ids.len())
}

/// The recipients in hits and opens that have one of these hashes.
async fn find(client: &Client, key: &PrivacyKey, hashes: &[RecipientHash]) -> Result<Vec<RecipientId>, DbError> {
    let (key, hashes): (&[u8], Vec<&[u8]>) = (&key.0, hashes.iter().map(|hash| &hash.0[..]).collect());
    let mut found = std::collections::BTreeSet::new();
    let days = partitions::since(client, None).await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    for table in days.iter().map(|day| day.name.as_str()).chain(["opens"]) {
        let find = format!(
            "SELECT DISTINCT recipient FROM {table} WHERE substring(sha256($1::bytea || uuid_send(recipient)) FOR 16) = ANY($2)"
        );
        let rows = within(SCAN_TIMEOUT, "looking for recipients", client.query(&find, &[&key, &hashes])).await?;
        found.extend(rows.iter().map(|row| row.get::<_, RecipientId>(0)));
    }
    client.batch_execute("SET statement_timeout = '60s'").await?;
    Ok(found.into_iter().collect())
}

/// Puts erasures back that this node remembers and the database does not: it was restored from an older backup. They
/// are then unfinished. Returns how many there were.
pub(crate) async fn put_back(client: &Client, remembered: &[(RecipientHash, Micros)]) -> Result<u64, DbError> {
    let mut put_back = 0;
    for part in remembered.chunks(PUT_BACK_ROWS) {
        let hashes: Vec<&[u8]> = part.iter().map(|(hash, _)| &hash.0[..]).collect();
        let times: Vec<Micros> = part.iter().map(|(_, requested_at)| *requested_at).collect();
        let lacking = "SELECT count(*) FROM unnest($1::bytea[], $2::timestamptz[]) AS k (hash, at) WHERE NOT EXISTS ( \
               SELECT 1 FROM erasures e WHERE e.recipient_hash = k.hash \
                 AND e.requested_at >= k.at)";
        let row = within(QUERY_TIMEOUT, "comparing erasures", client.query_one(lacking, &[&hashes, &times])).await?;
        if row.get::<_, i64>(0) == 0 {
            continue;
        }
        locks::begin_alone(client).await?;
        let insert = include_str!("request/put_back.sql");
        let row = within(QUERY_TIMEOUT, "putting erasures back", client.query_one(insert, &[&hashes, &times])).await?;
        within(QUERY_TIMEOUT, "COMMIT", client.batch_execute("COMMIT")).await?;
        put_back += row.get::<_, i64>(0) as u64;
    }
    Ok(put_back)
}
