//! Opens, row by row: who opened a message, and what a recipient opened.
//!
//! Guarantees: each query reads at most a given number of rows, through a key and in its order, so that its time
//! depends neither on the number of hits nor on that of opens.

use time::OffsetDateTime;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::ids::{MessageId, RecipientId};
use pixeld_core::opens::class::{Certainty, Class};

/// What hits say about one message and one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Open<Id> {
    /// The other id of the pair: the recipient on a message's page, the message on a recipient's.
    pub id: Id,
    /// The message's name, if messages are listed; may be empty.
    pub name: String,
    /// The first hit.
    pub first_at: OffsetDateTime,
    /// The latest one.
    pub last_at: OffsetDateTime,
    /// The time of the first hit that confirms it.
    pub confirmed_first_at: Option<OffsetDateTime>,
    /// The number of hits.
    pub hits: i64,
    /// The best class of its hits.
    pub best: Class,
}

fn open<Id: FromSqlOwned>(row: &Row) -> Open<Id> {
    Open {
        id: row.get(0),
        name: row.get(1),
        first_at: row.get(2),
        last_at: row.get(3),
        confirmed_first_at: row.get(4),
        hits: row.get(5),
        best: Class::of(row.get(6)).unwrap_or(Class::Unknown),
    }
}

/// Opens, and how far they were read.
#[derive(Debug)]
pub(crate) struct Slice {
    /// In the order of their ids.
    pub opens: Vec<Open<RecipientId>>,
    /// The last row that was read, if there may be more.
    pub reached: Option<RecipientId>,
}

/// Opens of a message after a recipient (nil for the first), at most `max`; with a certainty, only those that have it.
/// Reads at most `reads_max` rows.
pub(crate) async fn of_message(
    client: &Client,
    message: MessageId,
    after: RecipientId,
    certainty: Option<Certainty>,
    max: i64,
    reads_max: i64,
) -> Result<Slice, Error> {
    let select = include_str!("opens/of_message.sql");
    let is_asked = |class: &Class| certainty.is_none_or(|certainty| class.certainty() == certainty);
    let classes: Vec<i16> = Class::ALL.into_iter().filter(is_asked).map(Class::number).collect();
    let rows = client.query(select, &[&message, &after, &classes, &reads_max, &max]).await?;
    let reached = rows.first().filter(|row| row.get::<_, i64>(8) == reads_max).map(|row| row.get(7));
    let opens = rows.iter().filter(|row| row.get::<_, Option<RecipientId>>(0).is_some()).map(open).collect();
    Ok(Slice { opens, reached })
}

/// The open of one message and one recipient.
pub(crate) async fn find(
    client: &Client,
    message: MessageId,
    recipient: RecipientId,
) -> Result<Option<Open<RecipientId>>, Error> {
    let select = "SELECT recipient, '', first_at, last_at, confirmed_first_at, hits, best FROM opens \
                  WHERE message = $1 AND recipient = $2";
    Ok(client.query_opt(select, &[&message, &recipient]).await?.as_ref().map(open))
}

/// Opens of a recipient before a message, by message, the last one first.
pub(crate) async fn of_recipient(
    client: &Client,
    recipient: RecipientId,
    before: MessageId,
    max: i64,
) -> Result<Vec<Open<MessageId>>, Error> {
    let select = "SELECT o.message, coalesce(m.name, ''), o.first_at, o.last_at, o.confirmed_first_at, o.hits, o.best \
                  FROM (SELECT * FROM opens WHERE recipient = $1 AND message < $2 ORDER BY message DESC LIMIT $3) AS o \
                  LEFT JOIN messages m ON m.id = o.message ORDER BY o.message DESC";
    Ok(client.query(select, &[&recipient, &before, &max]).await?.iter().map(open).collect())
}

/// Whether any of these recipients has an open of any message. One index look-up each, until one has.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub(crate) async fn any_of_recipients(client: &Client, recipients: &[RecipientId]) -> Result<bool, DbError> {
    let select = "SELECT EXISTS (SELECT FROM unnest($1::uuid[]) AS listed (id) \
                  WHERE EXISTS (SELECT FROM opens WHERE recipient = listed.id))";
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&recipients, Type::UUID_ARRAY)];
    let asked = client.query_typed(select, &parameters);
    let rows = within(QUERY_TIMEOUT, "looking recipients up", asked).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Whether a message has an open.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub(crate) async fn any_of_message(client: &Client, message: MessageId) -> Result<bool, DbError> {
    let select = "SELECT EXISTS (SELECT FROM opens WHERE message = $1)";
    let row = within(QUERY_TIMEOUT, "looking opens up", client.query_one(select, &[&message])).await?;
    Ok(row.get(0))
}

/// One recipient in nearly all hits of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    /// The recipient.
    pub recipient: RecipientId,
    /// How many hits name them.
    pub hits: i64,
    /// From how many addresses these come, among those that were read; 0 if none are kept.
    pub addresses: i64,
    /// From how many user agents.
    pub user_agents: i64,
}

/// Opens of a message that [`crowd`] reads: it is called only if there are few compared with its hits.
const CROWD_OPENS_MAX: i64 = 5_000;

/// The last hits of all messages that it reads.
const CROWD_HITS_MAX: i64 = 20_000;

/// The recipient in at least 9 of 10 of a message's `hits`, and from how many places they come. Reads a bounded number
/// of rows.
pub(crate) async fn crowd(client: &Client, message: MessageId, hits: i64) -> Result<Option<Crowd>, Error> {
    let select = "SELECT recipient, hits, first_at, last_at FROM ( \
                    SELECT recipient, hits, first_at, last_at FROM opens WHERE message = $1 ORDER BY recipient LIMIT $2) AS looked \
                  WHERE hits * 10 >= $3::bigint * 9 ORDER BY hits DESC LIMIT 1";
    let Some(row) = client.query_opt(select, &[&message, &CROWD_OPENS_MAX, &hits]).await? else { return Ok(None) };
    let (recipient, named): (RecipientId, i64) = (row.get(0), row.get(1));
    let (first_at, last_at): (OffsetDateTime, OffsetDateTime) = (row.get(2), row.get(3));
    let select = "SELECT count(DISTINCT ip), count(DISTINCT user_agent) FROM ( \
                    SELECT ip, user_agent, message, recipient FROM hits WHERE at >= $3 AND at <= $4 ORDER BY at DESC LIMIT $5) AS looked \
                  WHERE message = $1 AND recipient = $2";
    let row = client.query_one(select, &[&message, &recipient, &first_at, &last_at, &CROWD_HITS_MAX]).await?;
    Ok(Some(Crowd { recipient, hits: named, addresses: row.get(0), user_agents: row.get(1) }))
}

/// One recipient's open, for a list of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The recipient.
    pub recipient: RecipientId,
    /// The first hit of all.
    pub first_at: OffsetDateTime,
    /// The first that was confirmed.
    pub confirmed_first_at: Option<OffsetDateTime>,
    /// The number of the best class.
    pub best: i16,
}

/// The opens of these recipients; those who have none are left out. One look-up in the primary key each.
///
/// # Errors
/// If PostgreSQL does not answer within [`QUERY_TIMEOUT`].
pub(crate) async fn of_recipients(
    client: &Client,
    message: MessageId,
    recipients: &[RecipientId],
) -> Result<Vec<Opened>, DbError> {
    let select = "SELECT recipient, first_at, confirmed_first_at, best FROM opens \
                  WHERE message = $1 AND recipient = ANY($2)";
    let asked = async {
        // With explicit types, so that one round trip is enough: a list needs a thousand of these.
        let rows = client.query_typed(select, &[(&message, Type::UUID), (&recipients, Type::UUID_ARRAY)]).await?;
        let opened = |row: &Row| Opened {
            recipient: row.get(0),
            first_at: row.get(1),
            confirmed_first_at: row.get(2),
            best: row.get(3),
        };
        Ok::<_, Error>(rows.iter().map(opened).collect())
    };
    within(QUERY_TIMEOUT, "looking opens up", asked).await
}
