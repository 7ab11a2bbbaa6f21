//! Messages: what their senders say about them, and their counts.
//!
//! Guarantees: no query here reads hits; each reads at most as many rows as requested, or as one message has slots,
//! rules and clients.

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::MessageId;
use pixeld_core::opens::class::{Certainty, Class};
use pixeld_core::text;

/// How far each read goes back before the last one: transactions commit later than they begin.
const OVERLAP: Duration = Duration::from_secs(10);

/// Send times that senders have set.
#[derive(Debug)]
pub(crate) struct SendTimes {
    /// Each message with its send time in s since 1970; 0 if it was cleared.
    pub messages: Vec<(MessageId, u32)>,
    /// The database's clock.
    pub now: Micros,
}

/// Send times that were set since a time of the database's clock, or all; the last ones first, at most `max`.
pub(crate) async fn sent_since(client: &Client, since: Option<Micros>, max: i64) -> Result<SendTimes, Error> {
    let now = client.query_one("SELECT clock_timestamp()", &[]).await?.get(0);
    let since = since.map_or(Micros::default(), |since| since - OVERLAP);
    let select = "SELECT id, coalesce(extract(epoch FROM sent_at), 0)::bigint FROM messages \
                  WHERE sent_changed_at >= $1 ORDER BY sent_changed_at DESC LIMIT $2";
    let rows = client.query(select, &[&since, &max]).await?;
    // A time before 1970 or after 2106 cannot be a send time.
    let messages = rows.iter().map(|row| (row.get(0), u32::try_from(row.get::<_, i64>(1)).unwrap_or(0))).collect();
    Ok(SendTimes { messages, now })
}

/// A change of one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Edit<T> {
    /// Keep it as it is.
    #[default]
    Keep,
    /// Clear it.
    Clear,
    /// Set it to this.
    Set(T),
}

impl<T> From<Option<T>> for Edit<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Edit::Keep, Edit::Set)
    }
}

impl<T: Copy> Edit<T> {
    fn value(&self) -> Option<T> {
        if let Edit::Set(value) = self { Some(*value) } else { None }
    }

    fn is_change(&self) -> bool {
        !matches!(self, Edit::Keep)
    }
}

/// A sender's change of a message's values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What people call it; an empty name clears it.
    pub name: Option<String>,
    /// When it was sent, in s since 1970.
    pub sent_at_s: Edit<u32>,
    /// The number of recipients.
    pub sent_count: Edit<i64>,
}

/// Changes a message, and writes the actor to the audit; creates it if nobody opened it yet. Returns whether it has
/// hits.
pub(crate) async fn change(client: &Client, actor: &str, id: MessageId, change: &Change) -> Result<bool, Error> {
    let sent_at = change.sent_at_s.value().map(|seconds| Micros::of_seconds(i64::from(seconds)));
    let upsert = include_str!("messages/change.sql");
    let (changes_time, changes_count) = (change.sent_at_s.is_change(), change.sent_count.is_change());
    let sent_count = change.sent_count.value();
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&actor, &id, &change.name, &sent_at, &sent_count, &changes_time, &changes_count];
    Ok(client.query_one(upsert, &parameters).await?.get(0))
}

/// Seconds since a send time was last set; `None` if none ever was.
pub(crate) async fn since_sent_changed_s(client: &Client) -> Result<Option<f64>, Error> {
    let age = "SELECT extract(epoch FROM clock_timestamp() - max(sent_changed_at))::float8 FROM messages \
               WHERE sent_changed_at IS NOT NULL";
    Ok(client.query_one(age, &[]).await?.get(0))
}

/// A message and its counts, for people.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its id.
    pub id: MessageId,
    /// What people call it; may be empty.
    pub name: String,
    /// When it was sent, if its sender set that.
    pub sent_at: Option<OffsetDateTime>,
    /// To how many recipients, if its sender set that.
    pub sent_count: Option<i64>,
    /// Recipients whose open is confirmed.
    pub confirmed: i64,
    /// Recipients who perhaps opened it.
    pub possible: i64,
    /// Recipients for whom only machines are known to have fetched it.
    pub machine: i64,
    /// All hits.
    pub hits: i64,
    /// The time of the earliest hit.
    pub first_at: Option<OffsetDateTime>,
    /// The time of the latest hit.
    pub last_at: Option<OffsetDateTime>,
    /// Its place in the list.
    pub place: Place,
}

/// A place in the list of messages, which has those with the latest hits first; one without hits is listed by when it
/// was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The time.
    pub at: OffsetDateTime,
    /// The message, to order equal times.
    pub id: MessageId,
}

impl Place {
    /// Before all others.
    pub(crate) const FIRST: Place = Place { at: datetime!(9999-01-01 0:00 UTC), id: MessageId::MAX };
}

const COLUMNS: &str = "id, name, sent_at, sent_count, confirmed_opens, possible_opens, \
                       opens - confirmed_opens - possible_opens, hits, first_at, last_at, coalesce(last_at, created_at) AS at";

fn message(row: &Row) -> Message {
    let id = row.get(0);
    Message {
        id,
        name: row.get(1),
        sent_at: row.get(2),
        sent_count: row.get(3),
        confirmed: row.get(4),
        possible: row.get(5),
        machine: row.get(6),
        hits: row.get(7),
        first_at: row.get(8),
        last_at: row.get(9),
        place: Place { at: row.get(10), id },
    }
}

/// The messages with the latest hits.
pub(crate) async fn latest(client: &Client, max: i64) -> Result<Vec<Message>, Error> {
    older(client, Place::FIRST, max).await
}

/// The messages after a place, the next one first.
pub(crate) async fn older(client: &Client, place: Place, max: i64) -> Result<Vec<Message>, Error> {
    let select = format!(
        "SELECT {COLUMNS} FROM messages WHERE (coalesce(last_at, created_at), id) < ($1, $2) \
         ORDER BY coalesce(last_at, created_at) DESC, id DESC LIMIT $3"
    );
    Ok(client.query(&select, &[&place.at, &place.id, &max]).await?.iter().map(message).collect())
}

/// The messages before a place, in the list's order: those nearest to it.
pub(crate) async fn newer(client: &Client, place: Place, max: i64) -> Result<Vec<Message>, Error> {
    let select = format!(
        "SELECT {COLUMNS} FROM messages WHERE (coalesce(last_at, created_at), id) > ($1, $2) \
         ORDER BY coalesce(last_at, created_at), id LIMIT $3"
    );
    Ok(client.query(&select, &[&place.at, &place.id, &max]).await?.iter().rev().map(message).collect())
}

/// The result of a search for a name.
#[derive(Debug)]
pub(crate) struct Matches {
    /// In the list's order.
    pub messages: Vec<Message>,
    /// The last message that was read, if there may be more.
    pub reached: Option<Place>,
}

/// The messages after a place whose name contains these words, in any case, at most `max`; reads at most `reads_max`
/// messages.
pub(crate) async fn named(
    client: &Client,
    words: &str,
    place: Place,
    max: i64,
    reads_max: i64,
) -> Result<Matches, Error> {
    let select = include_str!("messages/named.sql").replace("{columns}", COLUMNS);
    // Not ILIKE, which knows only ASCII case if the database's language is C.
    let pattern = text::pattern(words);
    let rows = client.query(&select, &[&place.at, &place.id, &reads_max, &pattern, &max]).await?;
    let all_read = |row: &Row| row.get::<_, i64>(13) == reads_max;
    let reached = rows.first().filter(|row| all_read(row)).map(|row| Place { at: row.get(11), id: row.get(12) });
    let messages = rows.iter().filter(|row| row.get::<_, Option<MessageId>>(0).is_some()).map(message).collect();
    Ok(Matches { messages, reached })
}

/// One message.
pub(crate) async fn find(client: &Client, id: MessageId) -> Result<Option<Message>, Error> {
    let select = format!("SELECT {COLUMNS} FROM messages WHERE id = $1");
    Ok(client.query_opt(&select, &[&id]).await?.as_ref().map(message))
}

/// What people call a message; empty if it has no name or is unknown.
pub(crate) async fn name_of(client: &Client, id: MessageId) -> Result<String, Error> {
    let row = client.query_opt("SELECT name FROM messages WHERE id = $1", &[&id]).await?;
    Ok(row.map_or_else(String::new, |row| row.get(0)))
}

/// Hits of a message by one rule, or by one mail client.
#[derive(Debug)]
pub(crate) struct Facet {
    /// What people call the rule or client.
    pub name: String,
    /// The rule's class.
    pub class: Class,
    /// The sentence that explains the rule; empty for a client.
    pub sentence: String,
    /// How many.
    pub hits: i64,
}

/// What hits are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FacetKind {
    /// The rule that judged them.
    Rule = 1,
    /// The mail client.
    Client = 2,
}

/// Hits of a message by rule or client, the most first; at most as many rows as there are rules or clients.
pub(crate) async fn facets(client: &Client, id: MessageId, kind: FacetKind) -> Result<Vec<Facet>, Error> {
    let word = if kind == FacetKind::Rule { "rule" } else { "client" };
    let select = "SELECT coalesce(w.name, $3::text || ' ' || f.value), coalesce(w.class, 0::smallint), coalesce(w.sentence, ''), f.hits \
                  FROM message_facets f LEFT JOIN words w ON w.kind = $3 AND w.number = f.value \
                  WHERE f.message = $1 AND f.facet = $2 AND f.hits > 0 ORDER BY f.hits DESC, f.value LIMIT 200";
    let facet = |row: &Row| Facet {
        name: row.get(0),
        class: Class::of(row.get(1)).unwrap_or(Class::Unknown),
        sentence: row.get(2),
        hits: row.get(3),
    };
    Ok(client.query(select, &[&id, &(kind as i16), &word]).await?.iter().map(facet).collect())
}

/// First opens of a message between each of these times and the next, counted as in [`super::counts`].
pub(crate) async fn opens_between(
    client: &Client,
    id: MessageId,
    times: &[OffsetDateTime],
) -> Result<Vec<[i64; 3]>, Error> {
    let select = "SELECT width_bucket(hour, $2::timestamptz[]) - 1, class, sum(first_opens)::bigint, \
                         sum(first_confirmed_opens)::bigint \
                  FROM message_hours WHERE message = $1 AND hour >= $3 AND hour < $4 GROUP BY 1, 2";
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(Vec::new()) };
    let mut sums = vec![[0; 3]; times.len() - 1];
    for row in client.query(select, &[&id, &times, first, last]).await? {
        let place = usize::try_from(row.get::<_, i32>(0)).ok();
        let Some(sum) = place.and_then(|place| sums.get_mut(place)) else { continue };
        sum[0] += row.get::<_, i64>(3);
        match Class::of(row.get(1)).unwrap_or(Class::Unknown).certainty() {
            Certainty::Confirmed => {}
            Certainty::Possible => sum[1] += row.get::<_, i64>(2),
            Certainty::Machine => sum[2] += row.get::<_, i64>(2),
        }
    }
    Ok(sums)
}
