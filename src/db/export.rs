//! All that is held on one recipient, as rows of JSON.
//!
//! Guarantees: opens and hits are those of one moment; they come row by row, so that memory does not grow with them. Numbers are
//! spelt out as in `hits_readable`. Gives up: hits that are still in a spool, for a second or two.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::partitions;
use super::{DbError, QUERY_TIMEOUT, within};
use crate::privacy::RecipientHash;

const OPENS: &str = "SELECT row_to_json(r)::text FROM ( \
       SELECT o.message, m.name AS message_name, o.image, o.first_at, o.last_at, o.confirmed_first_at, o.hits, o.confirmed_hits, \
         COALESCE(b.name, 'class ' || o.best) AS best_class, COALESCE(f.name, 'class ' || o.first_class) AS first_class \
       FROM opens o LEFT JOIN messages m ON m.id = o.message \
       LEFT JOIN words b ON b.kind = 'class' AND b.number = o.best \
       LEFT JOIN words f ON f.kind = 'class' AND f.number = o.first_class \
       WHERE o.recipient = $1 ORDER BY o.first_at, o.message) AS r";

/// The columns of a hit, and where their words come from.
const HITS: &str = "SELECT row_to_json(r)::text FROM ( \
       SELECT h.at, NULLIF(h.message, '00000000-0000-0000-0000-000000000000') AS message, h.image, h.sent_at, \
         COALESCE(c.name, 'class ' || h.class) AS class, COALESCE(w.name, 'rule ' || h.rule) AS rule, w.sentence AS rule_says, \
         COALESCE(n.name, 'network ' || h.network) AS network, COALESCE(k.name, 'client ' || h.client) AS client, \
         h.prefetch, host(h.ip) AS address, u.user_agent \
       FROM {table} h LEFT JOIN user_agents u ON u.id = h.user_agent \
       LEFT JOIN words c ON c.kind = 'class' AND c.number = h.class \
       LEFT JOIN words w ON w.kind = 'rule' AND w.number = h.rule \
       LEFT JOIN words n ON n.kind = 'network' AND n.number = h.network \
       LEFT JOIN words k ON k.kind = 'client' AND k.number = h.client \
       WHERE h.recipient = $1 ORDER BY h.at, h.spool, h.seq) AS r";

/// What is told besides opens and hits: one object for each.
#[derive(Debug, Clone)]
pub struct Known {
    /// The database's clock.
    pub exported_at: String,
    /// Since when the recipient is not recorded, and till when; nothing where they never opted out.
    pub opt_out: Option<String>,
    /// When they were to be forgotten.
    pub erasures: Vec<String>,
}

/// Writes to the audit who asks for it, and reads what is known besides opens and hits.
///
/// # Errors
/// As PostgreSQL says.
pub async fn begin(client: &Client, actor: &str, recipient: RecipientHash) -> Result<Known, DbError> {
    let hash = &recipient.0[..];
    let note = "INSERT INTO audit (actor, action, subject) VALUES ($1, 'recipient exported', encode($2, 'hex')) \
                RETURNING to_json(clock_timestamp())#>>'{}'";
    let row = within(QUERY_TIMEOUT, "writing to the audit", client.query_one(note, &[&actor, &hash])).await?;
    let opt_out = "SELECT row_to_json(r)::text FROM (SELECT since, until FROM suppressions WHERE hash = $1) AS r";
    let opt_out = within(QUERY_TIMEOUT, "reading opt-outs", client.query_opt(opt_out, &[&hash])).await?;
    let erasures = "SELECT row_to_json(r)::text FROM (SELECT id AS erasure, requested_at, deleted_at, hits, opens \
                    FROM erasures WHERE recipient_hash = $1 ORDER BY id) AS r";
    let erasures = within(QUERY_TIMEOUT, "reading erasures", client.query(erasures, &[&hash])).await?;
    // No day is dropped while it is read, and all is of one moment.
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE hits IN ACCESS SHARE MODE; \
                    SET LOCAL statement_timeout = 0";
    within(QUERY_TIMEOUT, "BEGIN", client.batch_execute(snapshot)).await?;
    Ok(Known {
        exported_at: row.get(0),
        opt_out: opt_out.map(|row| row.get(0)),
        erasures: erasures.iter().map(|row| row.get(0)).collect(),
    })
}

/// Gives each open of a recipient to `take`. Returns how many.
///
/// # Errors
/// As PostgreSQL says, or `take`.
pub async fn opens(
    client: &Client,
    recipient: Uuid,
    mut take: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<u64> {
    rows(client, OPENS, recipient, &mut take).await
}

/// Gives each hit of a recipient to `take`, the oldest first. Returns how many.
///
/// # Errors
/// As PostgreSQL says, or `take`.
pub async fn hits(
    client: &Client,
    recipient: Uuid,
    mut take: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<u64> {
    let mut count = 0;
    for day in partitions::since(client, None).await? {
        count += rows(client, &HITS.replace("{table}", &day.name), recipient, &mut take).await?;
    }
    Ok(count)
}

async fn rows(
    client: &Client,
    select: &str,
    recipient: Uuid,
    take: &mut impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<u64> {
    let values: [&(dyn ToSql + Sync); 1] = [&recipient];
    let stream =
        client.query_raw::<str, _, _>(select, values.iter().map(|value| *value as &(dyn ToSql + Sync))).await?;
    let mut stream = pin!(stream);
    let mut count = 0;
    while let Some(row) = stream.try_next().await.map_err(|error: Error| error)? {
        take(row.get(0))?;
        count += 1;
    }
    Ok(count)
}
