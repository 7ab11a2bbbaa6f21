//! Messages: what their senders tell of them.

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

/// How far back each look goes behind the last one, in µs: transactions commit later than they begin.
const OVERLAP_US: i64 = 10_000_000;

/// Times of sending that were told.
#[derive(Debug)]
pub struct Told {
    /// Each message with its time in s since 1970; 0 where it was taken back.
    pub messages: Vec<(Uuid, u32)>,
    /// The database's clock, in µs since 1970.
    pub now_us: i64,
}

/// Which times of sending were told since a time of the database's clock, or at all; the last ones first, `most` at most.
///
/// # Errors
/// As PostgreSQL says.
pub async fn sent_since(client: &Client, since_us: Option<i64>, most: i64) -> Result<Told, Error> {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let now_us = client.query_one(now, &[]).await?.get(0);
    let since = at(since_us.map_or(0, |since_us| since_us.saturating_sub(OVERLAP_US)));
    let select = "SELECT id, coalesce(extract(epoch FROM sent_at), 0)::bigint FROM messages \
                  WHERE sent_changed_at >= $1 ORDER BY sent_changed_at DESC LIMIT $2";
    let rows = client.query(select, &[&since, &most]).await?;
    // A time before 1970 or beyond 2106 is no time of sending.
    let messages = rows.iter().map(|row| (row.get(0), u32::try_from(row.get::<_, i64>(1)).unwrap_or(0))).collect();
    Ok(Told { messages, now_us })
}

/// What a sender tells of a message; what is not told stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// What people call it.
    pub name: Option<String>,
    /// When it was sent, in s since 1970.
    pub sent_at_s: Option<u32>,
    /// To how many recipients.
    pub sent_count: Option<i64>,
}

/// Tells of a message; one that nobody opened yet is made. Says whether it has hits.
///
/// # Errors
/// As PostgreSQL says.
pub async fn change(client: &Client, id: Uuid, change: &Change) -> Result<bool, Error> {
    let sent_at = change.sent_at_s.map(|seconds| at(i64::from(seconds) * 1_000_000));
    let upsert = "INSERT INTO messages AS m (id, name, sent_at, sent_count, sent_changed_at) \
                  VALUES ($1, coalesce($2, ''), $3, $4, CASE WHEN $3::timestamptz IS NOT NULL THEN clock_timestamp() END) \
                  ON CONFLICT (id) DO UPDATE SET name = coalesce($2, m.name), sent_at = coalesce($3, m.sent_at), \
                      sent_count = coalesce($4, m.sent_count), \
                      sent_changed_at = coalesce(excluded.sent_changed_at, m.sent_changed_at) \
                  RETURNING hits > 0";
    let parameters: [&(dyn ToSql + Sync); 4] = [&id, &change.name, &sent_at, &change.sent_count];
    Ok(client.query_one(upsert, &parameters).await?.get(0))
}

/// Seconds since a time of sending was last told; nothing where none ever was.
///
/// # Errors
/// As PostgreSQL says.
pub async fn since_told_s(client: &Client) -> Result<Option<f64>, Error> {
    let age = "SELECT extract(epoch FROM clock_timestamp() - max(sent_changed_at))::float8 FROM messages \
               WHERE sent_changed_at IS NOT NULL";
    Ok(client.query_one(age, &[]).await?.get(0))
}

/// A message and its counts, for people.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its id.
    pub id: Uuid,
    /// What people call it; may be empty.
    pub name: String,
    /// When it was sent, where its sender told.
    pub sent_at: Option<OffsetDateTime>,
    /// To how many, where its sender told.
    pub sent_count: Option<i64>,
    /// Recipients whose open is confirmed.
    pub confirmed: i64,
    /// Recipients who perhaps opened it.
    pub possible: i64,
    /// Recipients of whom only machines are known to have fetched it.
    pub machine: i64,
    /// All hits.
    pub hits: i64,
    /// The latest one.
    pub last_at: Option<OffsetDateTime>,
}

/// The messages with the latest hits.
///
/// # Errors
/// As PostgreSQL says.
pub async fn latest(client: &Client, most: i64) -> Result<Vec<Message>, Error> {
    let select = "SELECT id, name, sent_at, sent_count, confirmed_opens, possible_opens, \
                         opens - confirmed_opens - possible_opens, hits, last_at \
                  FROM messages ORDER BY last_at DESC NULLS LAST, id LIMIT $1";
    let message = |row: &tokio_postgres::Row| Message {
        id: row.get(0),
        name: row.get(1),
        sent_at: row.get(2),
        sent_count: row.get(3),
        confirmed: row.get(4),
        possible: row.get(5),
        machine: row.get(6),
        hits: row.get(7),
        last_at: row.get(8),
    };
    Ok(client.query(select, &[&most]).await?.iter().map(message).collect())
}

fn at(at_us: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_us) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
