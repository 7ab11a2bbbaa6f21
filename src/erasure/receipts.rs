//! Receipts of erasures: what was deleted, which nodes have carried them out, and who requested them.
//!
//! Guarantees: no receipt names its recipient. Three queries read any number of receipts, however many nodes there are;
//! an index of the audit (`audit_erasures`) finds the actor. Gives up: the actor of an erasure that a node put back.

use std::collections::HashMap;

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use super::nodes::OnDisk;
use pixeld_core::ids::NodeId;
use pixeld_core::privacy::RecipientHash;

/// What is known about an erasure.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    /// Its number.
    pub id: i64,
    /// Its recipient.
    pub recipient: RecipientHash,
    /// The time of the request.
    pub requested_at: OffsetDateTime,
    /// Rows of hits that were deleted.
    pub hits: i64,
    /// Rows of opens that were deleted.
    pub opens: i64,
    /// When all of them were deleted.
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
pub(crate) struct NodeDone {
    /// Its data directory.
    pub node: NodeId,
    /// Its machine's name.
    pub name: String,
    /// The time.
    pub done_at: OffsetDateTime,
    /// What was erased.
    pub on_disk: OnDisk,
}

/// A node that has not.
#[derive(Debug, Clone)]
pub(crate) struct NodeOutstanding {
    /// Its data directory.
    pub node: NodeId,
    /// Its machine's name.
    pub name: String,
    /// When it last reported.
    pub seen_at: OffsetDateTime,
}

impl Receipt {
    /// Whether nothing is left to do.
    pub(crate) fn is_final(&self) -> bool {
        self.deleted_at.is_some() && self.outstanding.is_empty()
    }
}

const ERASURES: &str = "SELECT id, recipient_hash, requested_at, hits, opens, deleted_at, put_back_at FROM erasures";

/// The latest erasures, or those before one, the newest first.
pub(crate) async fn latest(client: &Client, before: Option<i64>, max: i64) -> Result<Vec<Receipt>, Error> {
    let select = format!("{ERASURES} WHERE id < $1 ORDER BY id DESC LIMIT $2");
    found(client, &select, &[&before.unwrap_or(i64::MAX), &max]).await
}

/// The erasures of one recipient, the newest first.
pub(crate) async fn of_recipient(client: &Client, recipient: RecipientHash, max: i64) -> Result<Vec<Receipt>, Error> {
    let select = format!("{ERASURES} WHERE recipient_hash = $1 ORDER BY id DESC LIMIT $2");
    found(client, &select, &[&&recipient.0[..], &max]).await
}

/// One erasure.
pub(crate) async fn find(client: &Client, erasure: i64) -> Result<Option<Receipt>, Error> {
    Ok(found(client, &format!("{ERASURES} WHERE id = $1"), &[&erasure]).await?.pop())
}

/// Who requested these, by their numbers. An erasure that a node put back has no known actor.
pub(crate) async fn actors(client: &Client, receipts: &[Receipt]) -> Result<HashMap<i64, String>, Error> {
    let asked = receipts.iter().filter(|receipt| receipt.put_back_at.is_none());
    let ids: Vec<String> = asked.map(|receipt| receipt.id.to_string()).collect();
    // Without ORDER BY and LIMIT: with them, the planner would read the audit backwards instead of using its index.
    let select = "SELECT detail->>'erasure', actor FROM audit \
                  WHERE action = 'recipient erased' AND detail->>'erasure' = ANY($1)";
    let rows = client.query(select, &[&ids]).await?;
    Ok(rows.iter().filter_map(|row| Some((row.get::<_, &str>(0).parse().ok()?, row.get(1)))).collect())
}

async fn found(client: &Client, select: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Receipt>, Error> {
    let mut receipts: Vec<Receipt> = client.query(select, values).await?.iter().map(receipt).collect();
    let Some(last) = receipts.iter().map(|receipt| receipt.id).max() else { return Ok(receipts) };
    let ids: Vec<i64> = receipts.iter().map(|receipt| receipt.id).collect();
    let done = "SELECT node, name, done_at, segments, hits, files, erasure FROM erasure_nodes \
                WHERE erasure = ANY($1) ORDER BY done_at, node";
    let outstanding = "SELECT node, name, seen_at, erased_to FROM nodes \
                       WHERE retired_at IS NULL AND erased_to < $1 ORDER BY name, node";
    let (done, outstanding) = (client.query(done, &[&ids]).await?, client.query(outstanding, &[&last]).await?);
    for receipt in &mut receipts {
        let is_of = |row: &&Row| row.get::<_, i64>(6) == receipt.id;
        receipt.done = done.iter().filter(is_of).map(node_done).collect();
        let is_outstanding = |row: &&Row| row.get::<_, i64>(3) < receipt.id;
        receipt.outstanding = outstanding.iter().filter(is_outstanding).map(node_outstanding).collect();
    }
    Ok(receipts)
}

fn receipt(row: &Row) -> Receipt {
    Receipt {
        id: row.get(0),
        recipient: RecipientHash::of_column(row.get(1)),
        requested_at: row.get(2),
        hits: row.get(3),
        opens: row.get(4),
        deleted_at: row.get(5),
        put_back_at: row.get(6),
        done: Vec::new(),
        outstanding: Vec::new(),
    }
}

fn node_done(row: &Row) -> NodeDone {
    let count = |column: usize| row.get::<_, i64>(column) as u64;
    let on_disk = OnDisk { segments: count(3), hits: count(4), files: count(5) };
    NodeDone { node: row.get(0), name: row.get(1), done_at: row.get(2), on_disk }
}

fn node_outstanding(row: &Row) -> NodeOutstanding {
    NodeOutstanding { node: row.get(0), name: row.get(1), seen_at: row.get(2) }
}
