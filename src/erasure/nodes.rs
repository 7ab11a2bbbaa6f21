//! The nodes. Each is a data directory that may hold hits: which ones exist, what they have to carry out, and what they
//! have carried out.
//!
//! Guarantees: an erasure waits for each node that existed at the request, until the node acknowledges it, is retired,
//! or its row is deleted by hand.

use tokio_postgres::{Client, Error};

use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::NodeId;
use pixeld_core::privacy::RecipientHash;

/// Erasures that a node carries out at once.
pub(crate) const PENDING_MAX: i64 = 10_000;

/// An erasure in the form that nodes need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// Its number.
    pub id: i64,
    /// The recipient.
    pub recipient: RecipientHash,
    /// The time of the request.
    pub requested_at: Micros,
}

/// What a node erased on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// Segments that were rewritten.
    pub segments: u64,
    /// Hits in them.
    pub hits: u64,
    /// Quarantined files that were rewritten.
    pub files: u64,
}

/// Records that this data directory exists, and is not retired.
pub(crate) async fn register(client: &Client, node: NodeId, name: &str) -> Result<(), Error> {
    let upsert = "INSERT INTO nodes (node, name) VALUES ($1, $2) ON CONFLICT (node) DO UPDATE \
                  SET name = excluded.name, seen_at = clock_timestamp(), retired_at = NULL";
    client.execute(upsert, &[&node, &name]).await.map(|_| ())
}

/// Records that a data directory holds no hits and gets no more: receipts become final without it.
pub(crate) async fn retire(client: &Client, actor: &str, node: NodeId) -> Result<(), Error> {
    let update = "WITH retired AS (UPDATE nodes SET retired_at = clock_timestamp() WHERE node = $1 RETURNING node, name) \
                  INSERT INTO audit (actor, action, subject, detail) \
                  SELECT $2, 'node retired', node::text, jsonb_build_object('name', name) FROM retired";
    client.execute(update, &[&node, &actor]).await.map(|_| ())
}

/// The erasures that a node has not carried out, the oldest first; at most [`PENDING_MAX`].
pub(crate) async fn pending(client: &Client, node: NodeId) -> Result<Vec<Erasure>, Error> {
    let select = "SELECT id, recipient_hash, requested_at FROM erasures \
                  WHERE id > (SELECT erased_to FROM nodes WHERE node = $1) ORDER BY id LIMIT $2";
    let rows = client.query(select, &[&node, &PENDING_MAX]).await?;
    let erasure = |row: &tokio_postgres::Row| Erasure {
        id: row.get(0),
        recipient: RecipientHash::of_column(row.get(1)),
        requested_at: row.get(2),
    };
    Ok(rows.iter().map(erasure).collect())
}

/// Reopens those of the latest `max` erasures that the node's disk does not remember: the disk went back in time, with
/// all that was on it then.
pub(crate) async fn reopen(
    client: &Client,
    node: NodeId,
    max: i64,
    remembers: impl Fn(RecipientHash, Micros) -> bool,
) -> Result<(), Error> {
    let select = "SELECT id, recipient_hash, requested_at FROM erasures \
                  WHERE id <= (SELECT erased_to FROM nodes WHERE node = $1) ORDER BY id DESC LIMIT $2";
    let rows = client.query(select, &[&node, &max]).await?;
    let forgotten = rows
        .iter()
        .filter(|row| !remembers(RecipientHash::of_column(row.get(1)), row.get(2)))
        .map(|row| row.get(0))
        .min();
    let Some::<i64>(first) = forgotten else { return Ok(()) };
    tracing::warn!(
        erasure = first,
        "this node's disk has no list of erasures; pixeld carries out all erasures since this one again"
    );
    client.execute("UPDATE nodes SET erased_to = $2::bigint - 1 WHERE node = $1", &[&node, &first]).await.map(|_| ())
}

/// Records that a node has carried these out. A node that began after an erasure and had no hits of it gives no
/// receipt.
pub(crate) async fn acknowledge(
    client: &Client,
    node: NodeId,
    name: &str,
    done: &[(i64, OnDisk)],
) -> Result<(), Error> {
    let column = |value: fn(&OnDisk) -> u64| done.iter().map(|(_, on_disk)| value(on_disk) as i64).collect::<Vec<_>>();
    let ids: Vec<i64> = done.iter().map(|(id, _)| *id).collect();
    let insert = include_str!("nodes/acknowledge.sql");
    let (segments, hits, files) = (column(|d| d.segments), column(|d| d.hits), column(|d| d.files));
    client.execute(insert, &[&node, &name, &ids, &segments, &hits, &files]).await.map(|_| ())
}
