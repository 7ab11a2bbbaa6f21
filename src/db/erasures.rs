//! Erasures: who asked to be forgotten, which nodes have carried it out, and what has to be finished.
//!
//! Guarantees: after [`request`] no transaction that brings hits can end without knowing of it, since each of them holds
//! [`BRINGING_LOCK`] shared and reads the version under it; ids of erasures become visible in their order. An erasure whose
//! deletion was interrupted is found by [`finish_all`] and can be finished by whoever has the database alone, since
//! recipients are found by their hash. Gives up: that search reads all hits.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::change::Changes;
use super::{Database, DbError, QUERY_TIMEOUT, partitions, within};
use crate::privacy::{PrivacyKey, RecipientHash};

/// Held shared by each transaction that brings hits, and alone while an erasure is noted.
pub const BRINGING_LOCK: i64 = 0x7069_7865_6c64_0071;

/// The first half of the lock that is held while an erasure's rows are deleted; the second is the erasure's id.
const DELETING_LOCK: i32 = 0x7078_0072;

/// How long it waits for transactions that bring hits, each time; meanwhile others of them wait behind it.
const ALONE_WAIT: &str = "500ms";

/// How often it tries, and the pause between two tries.
const ALONE_TRIES: u32 = 120;
const ALONE_PAUSE: Duration = Duration::from_millis(250);

/// Longest time to look through one partition for recipients or user agents.
const SCAN_TIMEOUT: Duration = Duration::from_secs(3600);

/// Erasures that a node carries out at once.
pub const PENDING_MAX: i64 = 10_000;

/// Unfinished ones that are looked for in all hits at once.
const UNFINISHED_MAX: i64 = 1000;

/// How old one is before others than the command that asked for it finish it.
const UNFINISHED_AFTER: Duration = Duration::from_secs(30);

/// Erasures that are put back by one statement.
const PUT_BACK_ROWS: usize = 5000;

/// What loaders judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasureState {
    /// Moves with each erasure, and with each user agent that is forgotten.
    pub version: i64,
    /// When the latest erasure was asked for, in µs since 1970; none while there is none.
    pub latest_us: Option<i64>,
}

/// An erasure as nodes need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Its number.
    pub id: i64,
    /// Who asked.
    pub recipient: RecipientHash,
    /// When, in µs since 1970.
    pub requested_us: i64,
}

/// What a node erased on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// Segments that were written anew.
    pub segments: u64,
    /// Hits in them.
    pub hits: u64,
    /// Quarantined files that were written anew.
    pub files: u64,
}

/// The version and the latest erasure, now.
///
/// # Errors
/// As PostgreSQL says.
pub async fn state(client: &Client) -> Result<ErasureState, Error> {
    let select = "SELECT version, (extract(epoch FROM latest_at) * 1000000)::bigint FROM erasure_state";
    let row = client.query_one(select, &[]).await?;
    Ok(ErasureState { version: row.get(0), latest_us: row.get(1) })
}

/// Which of these were erased, and when that was asked last, in µs since 1970.
///
/// # Errors
/// As PostgreSQL says.
pub async fn erased_among(client: &Client, hashes: &[RecipientHash]) -> Result<Vec<(RecipientHash, i64)>, Error> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.0[..]).collect();
    let select = "SELECT recipient_hash, (extract(epoch FROM max(requested_at)) * 1000000)::bigint FROM erasures \
                  WHERE recipient_hash = ANY($1) GROUP BY recipient_hash";
    Ok(client.query(select, &[&hashes]).await?.iter().map(|row| (hash_in(row.get(0)), row.get(1))).collect())
}

/// Notes that somebody is to be forgotten, and who asked for it. Returns the erasure's number.
///
/// # Errors
/// As PostgreSQL says, or where transactions that bring hits leave no gap for it.
pub async fn request(client: &Client, actor: &str, recipient: RecipientHash) -> Result<i64, DbError> {
    begin_alone(client).await?;
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

/// Begins a transaction beside which none brings hits.
pub(super) async fn begin_alone(client: &Client) -> Result<(), DbError> {
    let lock = format!(
        "BEGIN; SET LOCAL lock_timeout = '{ALONE_WAIT}'; SELECT pg_advisory_xact_lock({BRINGING_LOCK}); \
         SET LOCAL lock_timeout = '10s'"
    );
    for left in (0..ALONE_TRIES).rev() {
        match within(QUERY_TIMEOUT, "locking out loaders", client.batch_execute(&lock)).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                within(QUERY_TIMEOUT, "ROLLBACK", client.batch_execute("ROLLBACK")).await?;
                if left == 0 || error.sql_state() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
                    return Err(error);
                }
                tokio::time::sleep(ALONE_PAUSE).await;
            }
        }
    }
    Ok(())
}

/// Deletes the hits and opens of a recipient for an erasure, and notes that it is finished. Waits for whoever does the same.
///
/// # Errors
/// As PostgreSQL says; the erasure is unfinished then, and others take it up.
pub async fn delete(db: &Database, erasure: i64, recipient: Uuid) -> anyhow::Result<()> {
    let session = db.connect("pixeld-erase").await?;
    lock_deleting(&session.client, erasure).await?;
    Changes::open(db).await?.erase(erasure, recipient).await?;
    Ok(finish(&session.client, &[erasure]).await?)
}

/// One session's wait for another that deletes may last as long as that.
async fn lock_deleting(client: &Client, erasure: i64) -> Result<(), DbError> {
    loop {
        if try_deleting(client, erasure).await? {
            return Ok(());
        }
        tokio::time::sleep(ALONE_PAUSE).await;
    }
}

async fn try_deleting(client: &Client, erasure: i64) -> Result<bool, DbError> {
    // A number that wraps only makes two erasures wait for each other.
    let number = erasure as i32;
    let values: [&(dyn ToSql + Sync); 2] = [&DELETING_LOCK, &number];
    let lock = client.query_one("SELECT pg_try_advisory_lock($1, $2)", &values);
    Ok(within(QUERY_TIMEOUT, "pg_try_advisory_lock", lock).await?.get(0))
}

/// Notes that the rows of these erasures are gone; and of earlier ones of the same people, which were interrupted.
async fn finish(client: &Client, erasures: &[i64]) -> Result<(), DbError> {
    let update = "UPDATE erasures AS e SET deleted_at = clock_timestamp() \
                  WHERE e.deleted_at IS NULL AND (e.id = ANY($1) OR EXISTS (SELECT 1 FROM erasures d \
                    WHERE d.id = ANY($1) AND d.recipient_hash = e.recipient_hash AND d.id > e.id))";
    within(QUERY_TIMEOUT, "finishing an erasure", client.execute(update, &[&erasures])).await?;
    Ok(())
}

/// Finishes erasures that were interrupted or put back: finds their recipients by their hashes, in all hits and opens. Returns
/// how many were finished. Leaves out what somebody else is at.
///
/// # Errors
/// As PostgreSQL says; what is left is found again.
pub async fn finish_all(db: &Database, key: &PrivacyKey) -> anyhow::Result<usize> {
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
            ours.push((erasure, hash_in(hash)));
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
async fn find(client: &Client, key: &PrivacyKey, hashes: &[RecipientHash]) -> Result<Vec<Uuid>, DbError> {
    let (key, hashes): (&[u8], Vec<&[u8]>) = (&key.0, hashes.iter().map(|hash| &hash.0[..]).collect());
    let mut found = std::collections::BTreeSet::new();
    let days = partitions::since(client, None).await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    for table in days.iter().map(|day| day.name.as_str()).chain(["opens"]) {
        let find = format!(
            "SELECT DISTINCT recipient FROM {table} WHERE substring(sha256($1::bytea || uuid_send(recipient)) FOR 16) = ANY($2)"
        );
        let rows = within(SCAN_TIMEOUT, "looking for recipients", client.query(&find, &[&key, &hashes])).await?;
        found.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    client.batch_execute("SET statement_timeout = '60s'").await?;
    Ok(found.into_iter().collect())
}

/// Puts erasures back that this node remembers and the database does not: it was restored from an older backup. They are
/// unfinished then. Returns how many there were.
///
/// # Errors
/// As PostgreSQL says.
pub async fn put_back(client: &Client, remembered: &[(RecipientHash, i64)]) -> Result<u64, DbError> {
    let mut put_back = 0;
    for part in remembered.chunks(PUT_BACK_ROWS) {
        let hashes: Vec<&[u8]> = part.iter().map(|(hash, _)| &hash.0[..]).collect();
        let times: Vec<i64> = part.iter().map(|(_, requested_us)| *requested_us).collect();
        let lacking = "SELECT count(*) FROM unnest($1::bytea[], $2::bigint[]) AS k (hash, us) WHERE NOT EXISTS ( \
               SELECT 1 FROM erasures e WHERE e.recipient_hash = k.hash \
                 AND e.requested_at >= '1970-01-01 00:00:00+00'::timestamptz + k.us * interval '1 microsecond')";
        let row = within(QUERY_TIMEOUT, "comparing erasures", client.query_one(lacking, &[&hashes, &times])).await?;
        if row.get::<_, i64>(0) == 0 {
            continue;
        }
        begin_alone(client).await?;
        let insert = "WITH lacking AS (SELECT k.hash, max('1970-01-01 00:00:00+00'::timestamptz + k.us * interval '1 microsecond') AS at \
                        FROM unnest($1::bytea[], $2::bigint[]) AS k (hash, us) GROUP BY k.hash), \
                      back AS (INSERT INTO erasures (recipient_hash, requested_at, put_back_at) \
                        SELECT hash, at, clock_timestamp() FROM lacking WHERE NOT EXISTS (SELECT 1 FROM erasures e \
                          WHERE e.recipient_hash = hash AND e.requested_at >= at) ORDER BY at RETURNING requested_at), \
                      noted AS (INSERT INTO audit (actor, action, detail) \
                        SELECT 'pixeld', 'erasures put back', jsonb_build_object('count', count(*)) FROM back) \
                      UPDATE erasure_state SET version = version + 1, \
                        latest_at = GREATEST(latest_at, (SELECT max(requested_at) FROM back)) \
                      RETURNING (SELECT count(*) FROM back)";
        let row = within(QUERY_TIMEOUT, "putting erasures back", client.query_one(insert, &[&hashes, &times])).await?;
        within(QUERY_TIMEOUT, "COMMIT", client.batch_execute("COMMIT")).await?;
        put_back += row.get::<_, i64>(0) as u64;
    }
    Ok(put_back)
}

/// Notes that this data directory is there, and not retired.
///
/// # Errors
/// As PostgreSQL says.
pub async fn register(client: &Client, node: Uuid, name: &str) -> Result<(), Error> {
    let upsert = "INSERT INTO nodes (node, name) VALUES ($1, $2) ON CONFLICT (node) DO UPDATE \
                  SET name = excluded.name, seen_at = clock_timestamp(), retired_at = NULL";
    client.execute(upsert, &[&node, &name]).await.map(|_| ())
}

/// Notes that a data directory holds no hits any more and gets none.
///
/// # Errors
/// As PostgreSQL says.
pub async fn retire(client: &Client, node: Uuid) -> Result<(), Error> {
    client.execute("UPDATE nodes SET retired_at = clock_timestamp() WHERE node = $1", &[&node]).await.map(|_| ())
}

/// The erasures that a node has not carried out, the oldest first; at most [`PENDING_MAX`].
///
/// # Errors
/// As PostgreSQL says.
pub async fn pending(client: &Client, node: Uuid) -> Result<Vec<Erasure>, Error> {
    let select = "SELECT id, recipient_hash, (extract(epoch FROM requested_at) * 1000000)::bigint FROM erasures \
                  WHERE id > (SELECT erased_to FROM nodes WHERE node = $1) ORDER BY id LIMIT $2";
    let rows = client.query(select, &[&node, &PENDING_MAX]).await?;
    let erasure = |row: &tokio_postgres::Row| Erasure {
        id: row.get(0),
        recipient: hash_in(row.get(1)),
        requested_us: row.get(2),
    };
    Ok(rows.iter().map(erasure).collect())
}

/// Notes that a node has carried these out. One that began after an erasure and had nothing of it gives no receipt.
///
/// # Errors
/// As PostgreSQL says.
pub async fn acknowledge(client: &Client, node: Uuid, name: &str, done: &[(i64, OnDisk)]) -> Result<(), Error> {
    let column = |value: fn(&OnDisk) -> u64| done.iter().map(|(_, on_disk)| value(on_disk) as i64).collect::<Vec<_>>();
    let ids: Vec<i64> = done.iter().map(|(id, _)| *id).collect();
    let insert = "WITH noted AS (INSERT INTO erasure_nodes AS t (erasure, node, name, segments, hits, files) \
                    SELECT d.erasure, $1, $2, d.segments, d.hits, d.files \
                    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS d (erasure, segments, hits, files) \
                    JOIN erasures e ON e.id = d.erasure JOIN nodes n ON n.node = $1 \
                    WHERE d.segments + d.files > 0 OR n.created_at <= e.requested_at \
                    ON CONFLICT (erasure, node) DO UPDATE SET name = excluded.name, done_at = excluded.done_at, \
                      segments = t.segments + excluded.segments, hits = t.hits + excluded.hits, files = t.files + excluded.files) \
                  UPDATE nodes SET seen_at = clock_timestamp(), \
                    erased_to = GREATEST(erased_to, (SELECT max(id) FROM unnest($3::bigint[]) AS id)) WHERE node = $1";
    let (segments, hits, files) = (column(|d| d.segments), column(|d| d.hits), column(|d| d.files));
    client.execute(insert, &[&node, &name, &ids, &segments, &hits, &files]).await.map(|_| ())
}

/// What is known of an erasure.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub recipient: RecipientHash,
    /// When it was asked for.
    pub requested_at: OffsetDateTime,
    /// Rows of hits that were deleted.
    pub hits: i64,
    /// Rows of opens that were deleted.
    pub opens: i64,
    /// When all of them were gone.
    pub deleted_at: Option<OffsetDateTime>,
    /// When it was put back into a restored database.
    pub put_back_at: Option<OffsetDateTime>,
    /// Nodes that have carried it out.
    pub done: Vec<NodeDone>,
    /// Nodes that have not.
    pub outstanding: Vec<NodeOutstanding>,
}

/// A node that has carried an erasure out.
#[derive(Debug, Clone)]
pub struct NodeDone {
    /// Its data directory.
    pub node: Uuid,
    /// Its machine's name.
    pub name: String,
    /// When.
    pub done_at: OffsetDateTime,
    /// What was erased.
    pub on_disk: OnDisk,
}

/// A node that has not.
#[derive(Debug, Clone)]
pub struct NodeOutstanding {
    /// Its data directory.
    pub node: Uuid,
    /// Its machine's name.
    pub name: String,
    /// When it was last heard of.
    pub seen_at: OffsetDateTime,
}

impl Receipt {
    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.deleted_at.is_some() && self.outstanding.is_empty()
    }
}

/// The latest erasures, or those of one recipient, the newest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn receipts(client: &Client, of: Option<RecipientHash>, most: i64) -> Result<Vec<Receipt>, Error> {
    let of = of.map(|hash| hash.0.to_vec());
    let select = "SELECT id, recipient_hash, requested_at, hits, opens, deleted_at, put_back_at FROM erasures \
                  WHERE $1::bytea IS NULL OR recipient_hash = $1 ORDER BY id DESC LIMIT $2";
    let mut receipts = Vec::new();
    for row in client.query(select, &[&of, &most]).await? {
        receipts.push(with_nodes(client, &row).await?);
    }
    Ok(receipts)
}

/// One erasure.
///
/// # Errors
/// As PostgreSQL says.
pub async fn receipt(client: &Client, erasure: i64) -> Result<Receipt, Error> {
    let select =
        "SELECT id, recipient_hash, requested_at, hits, opens, deleted_at, put_back_at FROM erasures WHERE id = $1";
    with_nodes(client, &client.query_one(select, &[&erasure]).await?).await
}

async fn with_nodes(client: &Client, row: &tokio_postgres::Row) -> Result<Receipt, Error> {
    let id: i64 = row.get(0);
    let done =
        "SELECT node, name, done_at, segments, hits, files FROM erasure_nodes WHERE erasure = $1 ORDER BY done_at";
    let outstanding =
        "SELECT node, name, seen_at FROM nodes WHERE retired_at IS NULL AND erased_to < $1 ORDER BY name, node";
    let (done, outstanding) = (client.query(done, &[&id]).await?, client.query(outstanding, &[&id]).await?);
    let count = |row: &tokio_postgres::Row, at| row.get::<_, i64>(at) as u64;
    let node_done = |row: &tokio_postgres::Row| NodeDone {
        node: row.get(0),
        name: row.get(1),
        done_at: row.get(2),
        on_disk: OnDisk { segments: count(row, 3), hits: count(row, 4), files: count(row, 5) },
    };
    let node_outstanding =
        |row: &tokio_postgres::Row| NodeOutstanding { node: row.get(0), name: row.get(1), seen_at: row.get(2) };
    Ok(Receipt {
        id,
        recipient: hash_in(row.get(1)),
        requested_at: row.get(2),
        hits: row.get(3),
        opens: row.get(4),
        deleted_at: row.get(5),
        put_back_at: row.get(6),
        done: done.iter().map(node_done).collect(),
        outstanding: outstanding.iter().map(node_outstanding).collect(),
    })
}

fn hash_in(bytes: &[u8]) -> RecipientHash {
    let mut hash = [0; 16];
    hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    RecipientHash(hash)
}
