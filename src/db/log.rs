//! The log of hits: what was recorded, newest first, read a bounded number of rows at a time.
//!
//! Guarantees: a search reads at most [`Wanted::rows_max`] rows, through the index on `at`, so that its time does not
//! grow with the number of hits. Searches that continue at each other's [`Place`] show every row once, even if many
//! have the same time. A message's or an image's hits are searched only where its counts, or batches that are not
//! counted yet, allow some. Gives up: a hit that is loaded late, behind the reader's position, needs a new search.

use std::net::IpAddr;

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use super::DbError;
use super::partitions::{self, DAYS_AT_ONCE};
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// Days in the first query of a search.
const FIRST_DAYS: usize = 4;

/// The hits to search for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this message; the nil UUID means "no message".
    pub message: Option<MessageId>,
    /// Of this recipient.
    pub recipient: Option<RecipientId>,
    /// Of this image.
    pub image: Option<ImageId>,
    /// From this time on.
    pub from: Option<OffsetDateTime>,
    /// Before this time.
    pub to: Option<OffsetDateTime>,
    /// After this place.
    pub behind: Option<Place>,
    /// Maximum rows to read.
    pub rows_max: i64,
    /// Maximum rows to return.
    pub found_max: i64,
}

/// A row's place in the log; no two rows share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its time.
    pub at: OffsetDateTime,
    /// Its spool.
    pub spool: i32,
    /// Its number in the spool.
    pub seq: i64,
}

/// A hit in words.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its place.
    pub place: Place,
    /// The image, and its title; the title may be empty.
    pub image: (ImageId, String),
    /// The message, nil if absent, and its name; the name may be empty.
    pub message: (MessageId, String),
    /// The recipient, nil if absent.
    pub recipient: RecipientId,
    /// The class's name.
    pub class: String,
    /// The rule's name, and the sentence that explains it.
    pub rule: (String, String),
    /// The mail client's name.
    pub client: String,
    /// The provider's network.
    pub network: String,
    /// As much of the address as is kept.
    pub address: Option<IpAddr>,
    /// The reader's user agent.
    pub user_agent: String,
}

/// The result of a search.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// The hits, newest first.
    pub hits: Vec<Hit>,
    /// Where the next search continues; `None` if there is nothing more.
    pub next: Option<Place>,
    /// The time of the last row that was read.
    pub read_to: Option<OffsetDateTime>,
    /// How many rows were read, including unwanted ones.
    pub read: i64,
}

/// The times between which hits of a message can be: from the counts, and from batches that are not counted yet.
const MESSAGE_TIMES: &str = "SELECT least(m.first_at, p.first_at), greatest(m.last_at, p.last_at) \
     FROM (SELECT min(min_at) AS first_at, max(max_at) AS last_at FROM batches WHERE published IS NULL) AS p \
     LEFT JOIN messages AS m ON m.id = $1 AND m.hits > 0";

/// The same for an image; no slot is longer than an hour.
const IMAGE_TIMES: &str = "SELECT least(i.first_at, p.first_at), greatest(i.last_at, p.last_at) \
     FROM (SELECT min(min_at) AS first_at, max(max_at) AS last_at FROM batches WHERE published IS NULL) AS p, \
       (SELECT min(hour) AS first_at, max(hour) + interval '1 hour' AS last_at FROM image_hours WHERE image = $1 AND hits > 0) AS i";

const LOOK: &str = include_str!("log/look.sql");

/// Searches once, through groups of days, the newest first: a query over all days would lock each of them.
pub async fn look(client: &Client, wanted: &Wanted) -> Result<Look, DbError> {
    let Some((from, to)) = window(client, wanted).await? else { return Ok(Look::default()) };
    // The last possible place at this time, if there is none to continue from.
    let behind = wanted.behind.unwrap_or(Place { at: to, spool: i32::MAX, seq: i64::MAX });
    let mut look = Look::default();
    let days = partitions::within_times(client, from, to.min(behind.at)).await?;
    let mut days = &days[..];
    // The first query covers few days: usually that is enough, and planning for many takes long.
    let mut at_once = FIRST_DAYS;
    while !days.is_empty() && look.next.is_none() {
        let group;
        (days, group) = days.split_at(days.len().saturating_sub(at_once));
        at_once = DAYS_AT_ONCE;
        let Some((first, last)) = group.first().zip(group.last()) else { break };
        let (from, to) = (from.max(first.from), to.min(last.to - time::Duration::microseconds(1)));
        look_at(client, wanted, &mut look, [from, to], behind, !days.is_empty()).await?;
    }
    Ok(look)
}

/// Adds to `look` what a query finds between two times; `has_older`: there are days before them.
async fn look_at(
    client: &Client,
    wanted: &Wanted,
    look: &mut Look,
    [from, to]: [OffsetDateTime; 2],
    behind: Place,
    has_older: bool,
) -> Result<(), Error> {
    let rows_max = wanted.rows_max - look.read;
    let found_max = wanted.found_max - look.hits.len() as i64;
    let values: [&(dyn ToSql + Sync); 10] = [
        &from,
        &to,
        &behind.at,
        &behind.spool,
        &behind.seq,
        &rows_max,
        &wanted.message,
        &wanted.recipient,
        &wanted.image,
        &found_max,
    ];
    let rows = client.query(LOOK, &values).await?;
    let Some(first) = rows.first() else { return Ok(()) };
    let read: i64 = first.get(0);
    let last_read = Place { at: first.get(1), spool: first.get(2), seq: first.get(3) };
    let hits: Vec<Hit> = rows.iter().filter_map(hit).collect();
    // If the page is full, the rows after it were read as well, and must be read again.
    let is_full = hits.len() as i64 >= found_max;
    let last_seen = hits.last().filter(|_| is_full).map_or(last_read, |hit| hit.place);
    look.hits.extend(hits);
    look.next = (read >= rows_max || last_seen != last_read || is_full && has_older).then_some(last_seen);
    look.read_to = Some(last_seen.at);
    look.read += read;
    Ok(())
}

/// The first and the last time to search; `None` if no hit is possible.
async fn window(client: &Client, wanted: &Wanted) -> Result<Option<(OffsetDateTime, OffsetDateTime)>, Error> {
    // PostgreSQL's own range is wider; no clock's is.
    let mut from = wanted.from.unwrap_or(time::macros::datetime!(1970-01-01 0:00 UTC));
    let mut to = match wanted.to {
        Some(to) => to - time::Duration::microseconds(1),
        None => time::macros::datetime!(9999-01-01 0:00 UTC),
    };
    let (message, image) = (wanted.message.map(MessageId::as_uuid), wanted.image.map(ImageId::as_uuid));
    for (id, times) in [(message, MESSAGE_TIMES), (image, IMAGE_TIMES)] {
        let Some(id) = id.filter(|id| !id.is_nil()) else { continue };
        let row = client.query_one(times, &[&id]).await?;
        let (Some(first), Some(last)) = (row.get(0), row.get(1)) else { return Ok(None) };
        (from, to) = (from.max(first), to.min(last));
    }
    Ok((from <= to).then_some((from, to)))
}

fn hit(row: &Row) -> Option<Hit> {
    let at: Option<OffsetDateTime> = row.get(4);
    let text = |column: usize| row.get::<_, String>(column);
    Some(Hit {
        place: Place { at: at?, spool: row.get(5), seq: row.get(6) },
        image: (row.get(7), text(16)),
        message: (row.get(8), text(17)),
        recipient: row.get(9),
        class: text(18),
        rule: (text(19), text(20)),
        client: text(21),
        network: text(22),
        address: row.get(10),
        user_agent: text(23),
    })
}
