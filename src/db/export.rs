//! All data held about one recipient, as one JSON object.
//!
//! Guarantees: opens and hits are those of one moment; they are read row by row, so that memory does not grow with
//! them. Numbers are written as words, as in `hits_readable`. Gives up: hits that are still in a spool, for a second or
//! two.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::partitions;
use super::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::ids::RecipientId;
use pixeld_core::privacy::RecipientHash;

const OPENS: &str = include_str!("export/opens.sql");

const HITS: &str = include_str!("export/hits.sql");

/// Receives the JSON, part by part.
pub trait Sink: Send {
    /// The next part.
    fn take(&mut self, part: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Approximate bytes of a part.
pub const PART_BYTES: usize = 64 << 10;

/// An export that has begun.
#[derive(Debug)]
pub struct Export {
    recipient: RecipientId,
    hash: RecipientHash,
    exported_at: String,
    opt_out: Option<String>,
    erasures: Vec<String>,
}

impl Export {
    /// Writes the actor to the audit, reads everything except opens and hits, and begins the transaction that reads
    /// those.
    pub async fn begin(
        client: &Client,
        actor: &str,
        recipient: RecipientId,
        hash: RecipientHash,
    ) -> Result<Export, DbError> {
        let bytes = &hash.0[..];
        let note = "INSERT INTO audit (actor, action, subject) VALUES ($1, 'recipient exported', encode($2, 'hex')) \
                    RETURNING to_json(clock_timestamp())#>>'{}'";
        let row = within(QUERY_TIMEOUT, "writing to the audit", client.query_one(note, &[&actor, &bytes])).await?;
        let opt_out = "SELECT row_to_json(r)::text FROM (SELECT since, until FROM suppressions WHERE hash = $1) AS r";
        let opt_out = within(QUERY_TIMEOUT, "reading opt-outs", client.query_opt(opt_out, &[&bytes])).await?;
        let erasures = "SELECT row_to_json(r)::text FROM (SELECT id AS erasure, requested_at, deleted_at, hits, opens \
                        FROM erasures WHERE recipient_hash = $1 ORDER BY id) AS r";
        let erasures = within(QUERY_TIMEOUT, "reading erasures", client.query(erasures, &[&bytes])).await?;
        // No day is dropped while it is read, and everything is of one moment. ONLY: a lock on each day would be too
        // many.
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ONLY hits IN ACCESS SHARE MODE; \
                        SET LOCAL statement_timeout = 0";
        within(QUERY_TIMEOUT, "BEGIN", client.batch_execute(snapshot)).await?;
        Ok(Export {
            recipient,
            hash,
            exported_at: row.get(0),
            opt_out: opt_out.map(|row| row.get(0)),
            erasures: erasures.iter().map(|row| row.get(0)).collect(),
        })
    }

    /// Writes one JSON object to `out`, while it is read. `client` must be the connection that was used to begin it.
    ///
    /// # Errors
    /// If PostgreSQL or `out` fails; `out` then has incomplete JSON.
    pub async fn write(&self, client: &Client, out: &mut impl Sink) -> anyhow::Result<()> {
        let Export { recipient, hash, .. } = self;
        let mut part = format!("{{\"recipient\": \"{recipient}\",\n\"hash\": \"{hash}\",\n");
        part.push_str(&format!("\"exported_at\": {},\n", serde_json::to_string(&self.exported_at)?));
        part.push_str(&format!("\"opt_out\": {},\n", self.opt_out.as_deref().unwrap_or("null")));
        part.push_str(&format!("\"erasures\": [{}],\n\"opens\": [", self.erasures.join(", ")));
        let mut items = Items { out, part, has_any: false };
        items.rows(client, OPENS, *recipient).await?;
        items.part.push_str("],\n\"hits\": [");
        items.has_any = false;
        let days = partitions::since(client, None).await?;
        for group in days.chunks(partitions::DAYS_AT_ONCE) {
            // Release the locks taken to find and read them; the snapshot stays.
            client.batch_execute("SAVEPOINT days").await?;
            for day in partitions::with_rows(client, group, "recipient = $1", &[recipient]).await? {
                items.rows(client, &HITS.replace("{day}", &day.name), *recipient).await?;
            }
            client.batch_execute("ROLLBACK TO SAVEPOINT days").await?;
        }
        items.part.push_str("]}\n");
        items.end_part().await
    }
}

/// Items of a JSON list, one a line.
struct Items<'a, T> {
    out: &'a mut T,
    part: String,
    has_any: bool,
}

impl<T: Sink> Items<'_, T> {
    async fn rows(&mut self, client: &Client, select: &str, recipient: RecipientId) -> anyhow::Result<()> {
        let values: [&(dyn ToSql + Sync); 1] = [&recipient];
        let values = values.iter().map(|value| *value as &(dyn ToSql + Sync));
        let mut stream = pin!(client.query_raw::<str, _, _>(select, values).await?);
        while let Some(row) = stream.try_next().await? {
            self.part.push_str(if std::mem::replace(&mut self.has_any, true) { ",\n  " } else { "\n  " });
            self.part.push_str(row.get(0));
            if self.part.len() >= PART_BYTES {
                self.end_part().await?;
            }
        }
        Ok(())
    }

    async fn end_part(&mut self) -> anyhow::Result<()> {
        Ok(self.out.take(std::mem::take(&mut self.part).into()).await?)
    }
}
