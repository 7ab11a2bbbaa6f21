//! Deleting the hits of a recipient, a message or a time.

use std::sync::LazyLock;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

use super::{ChangeError, Changes};
use crate::db::partitions::{self, DAYS_AT_ONCE, Partition};
use crate::db::{DbError, within};
use crate::rollup::statement::statement;
use crate::rollup::tally;
use pixeld_core::ids::{MessageId, RecipientId};

/// Maximum time to search one partition for hits, without the lock; an open day is read whole.
pub(super) const SEARCH_TIMEOUT: Duration = Duration::from_secs(3600);

/// A chunk with this many hits includes no further day, so that the lock is not held for longer than a day's hits need.
const SHARED_ROWS_MAX: i64 = 5000;

/// Wait if the found hits are not rolled up yet.
const PENDING_PAUSE: Duration = Duration::from_millis(200);

/// The hits to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// All hits of a recipient.
    Recipient(RecipientId),
    /// Those of one recipient and one message.
    Pair {
        /// The message.
        message: MessageId,
        /// The recipient.
        recipient: RecipientId,
    },
    /// All hits of a message.
    Message(MessageId),
    /// All hits in a time range, of all messages and recipients. Frozen opens stay: it is unknown what the hits of the range
    /// contributed to them. A range that is not over may never become empty.
    Period {
        /// From this time on.
        from: OffsetDateTime,
        /// Before this time.
        to: OffsetDateTime,
    },
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Rows of hits.
    pub hits: u64,
    /// Rows of opens.
    pub opens: u64,
}

impl Target {
    /// The condition on rows of hits, with [`Target::values`] as `$1` and `$2`. Except for a time range, opens meet it,
    /// too.
    fn condition(self) -> &'static str {
        match self {
            Target::Recipient(_) => "recipient = $1 AND $2::uuid IS NOT NULL",
            Target::Pair { .. } => "recipient = $1 AND message = $2",
            Target::Message(_) => "message = $2 AND $1::uuid IS NOT NULL",
            Target::Period { .. } => "at >= $1 AND at < $2",
        }
    }

    fn values(&self) -> [&(dyn ToSql + Sync); 2] {
        match self {
            Target::Recipient(recipient) => [recipient, recipient],
            Target::Pair { message, recipient } => [recipient, message],
            Target::Message(message) => [message, message],
            Target::Period { from, to } => [from, to],
        }
    }

    fn has_nil(self) -> bool {
        match self {
            Target::Recipient(id) => id.is_nil(),
            Target::Message(id) => id.is_nil(),
            Target::Pair { message, recipient } => message.is_nil() || recipient.is_nil(),
            Target::Period { .. } => false,
        }
    }
}

const DELETE_HITS: &str = include_str!("delete/delete_hits.sql");

static SUBTRACT_HITS: LazyLock<String> = LazyLock::new(|| statement(include_str!("delete/subtract_hits.sql")));

const TOUCH: &str = include_str!("delete/touch_pairs.sql");

const TOUCH_LEFTOVERS: &str = include_str!("delete/touch_leftovers.sql");

impl Changes {
    /// Deletes all hits of `target` chunk by chunk, and its opens, until none is found, so hits that are loaded during
    /// that time are included. An error may leave part of them; call it again then.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`].
    pub async fn delete_hits(&mut self, target: Target) -> Result<Deleted, ChangeError> {
        self.delete_hits_reporting(target, |_| {}).await
    }

    /// The same; reports after each chunk how much is deleted.
    ///
    /// # Errors
    /// As [`Changes::delete_hits`].
    pub async fn delete_hits_reporting(
        &mut self,
        target: Target,
        tell: impl Fn(Deleted) + Sync,
    ) -> Result<Deleted, ChangeError> {
        self.delete_all(target, None, tell).await
    }

    /// As [`Changes::delete_hits`] of a recipient. Each chunk's own transaction adds what it deletes to the erasure's
    /// row, and marks the user agents of its hits as doubted.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`].
    pub async fn erase(&mut self, erasure: i64, recipient: RecipientId) -> Result<Deleted, ChangeError> {
        self.delete_all(Target::Recipient(recipient), Some(erasure), |_| {}).await
    }

    async fn delete_all(
        &mut self,
        target: Target,
        erasure: Option<i64>,
        tell: impl Fn(Deleted) + Sync,
    ) -> Result<Deleted, ChangeError> {
        if target.has_nil() {
            return Err(ChangeError::Nil);
        }
        let mut deleted = Deleted::default();
        loop {
            // Hits that are pending now are found through their open after this.
            self.begin().await?;
            self.tally.commit().await?;
            let days = self.days_of(target).await?;
            let found = self.delete_of_days(&days, target, erasure, &mut deleted, &tell).await?;
            let (left, gone) = self.delete_leftovers(target, erasure).await?;
            deleted.opens += gone;
            tell(deleted);
            if found == 0 && left == 0 {
                return Ok(deleted);
            }
        }
    }

    /// The partitions that may contain hits of the target: only those that do, except for a time range.
    async fn days_of(&self, target: Target) -> Result<Vec<Partition>, ChangeError> {
        let client = self.tally.client();
        let days = match target {
            Target::Period { from, to } => return Ok(partitions::within_times(client, from, to).await?),
            Target::Recipient(_) => partitions::since(client, None).await?,
            Target::Pair { message, recipient } => {
                let span = "SELECT first_at, last_at FROM opens WHERE message = $1 AND recipient = $2";
                let pair: [&(dyn ToSql + Sync); 2] = [&message, &recipient];
                let span = client.query_opt(span, &pair);
                match within(tally::STATEMENT_TIMEOUT, "looking for the open", span).await? {
                    Some(span) => partitions::within_times(client, span.get(0), span.get(1)).await?,
                    None => Vec::new(),
                }
            }
            Target::Message(message) => return self.days_of_message(message).await,
        };
        let [first, second] = target.values();
        Ok(self.unbounded(partitions::with_rows(client, &days, target.condition(), &[first, second])).await?)
    }

    /// From its slots: no index finds a message's hits in a day.
    async fn days_of_message(&self, message: MessageId) -> Result<Vec<Partition>, ChangeError> {
        let client = self.tally.client();
        let hours = "SELECT DISTINCT hour FROM message_hours WHERE message = $1 AND hits > 0 ORDER BY hour";
        let of: [&(dyn ToSql + Sync); 1] = [&message];
        let hours = client.query(hours, &of);
        let hours: Vec<OffsetDateTime> = within(tally::STATEMENT_TIMEOUT, "looking for the message", hours)
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect();
        let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return Ok(Vec::new()) };
        let mut days = partitions::within_times(client, *first, *last + time::Duration::HOUR).await?;
        days.retain(|day| day.has_a_slot_of(&hours));
        Ok(days)
    }

    /// Deletes the hits of a target in these partitions; each is read once from beginning to end. Returns how many were
    /// found. Days with few hits share a chunk.
    async fn delete_of_days(
        &mut self,
        days: &[Partition],
        target: Target,
        erasure: Option<i64>,
        deleted: &mut Deleted,
        tell: &(impl Fn(Deleted) + Sync),
    ) -> Result<u64, ChangeError> {
        partitions::identify(self.tally.client(), days).await?;
        let mut found = 0;
        let mut chunk = Chunk::default();
        for day in days {
            let find = format!(
                "SELECT ctid::text FROM {} WHERE ctid > $3::text::tid AND {} ORDER BY ctid LIMIT $4",
                day.name,
                target.condition()
            );
            let [first, second] = target.values();
            let mut last = "(0,0)".to_owned();
            loop {
                let room = self.rows_max - chunk.rows;
                let values: [&(dyn ToSql + Sync); 4] = [first, second, &last, &room];
                let rows = self.search(&find, &values).await?;
                let tids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                let is_full = tids.len() as i64 >= room;
                if let Some(end) = tids.last() {
                    last.clone_from(end);
                    found += tids.len() as u64;
                    chunk.rows += tids.len() as i64;
                    chunk.days.push((day, tids));
                }
                if is_full || chunk.days.len() >= DAYS_AT_ONCE {
                    self.delete_chunk(std::mem::take(&mut chunk), target, erasure, deleted, tell).await?;
                }
                if !is_full {
                    break;
                }
            }
            if chunk.rows >= SHARED_ROWS_MAX {
                self.delete_chunk(std::mem::take(&mut chunk), target, erasure, deleted, tell).await?;
            }
        }
        if chunk.rows > 0 {
            self.delete_chunk(chunk, target, erasure, deleted, tell).await?;
        }
        Ok(found)
    }

    /// Deletes rows that were found without the lock: rows that were moved or are pending since are left for the next
    /// round.
    async fn delete_chunk(
        &mut self,
        chunk: Chunk<'_>,
        target: Target,
        erasure: Option<i64>,
        deleted: &mut Deleted,
        tell: &(impl Fn(Deleted) + Sync),
    ) -> Result<(), ChangeError> {
        self.begin().await?;
        let [first, second] = target.values();
        let mut hits = 0;
        for (day, tids) in &chunk.days {
            let delete = DELETE_HITS.replace("{day}", &day.name).replace("{target}", target.condition());
            hits += self.tally.execute("deleting hits", &delete, &[first, second, tids]).await?;
        }
        let mut opens = 0;
        if hits > 0 {
            let takes_frozen = !matches!(target, Target::Period { .. });
            self.tally.execute("adding hits up", &SUBTRACT_HITS, &[]).await?;
            let touched = self.tally.execute("looking for opens", TOUCH, &[&takes_frozen]).await?;
            self.settle(touched).await?;
            self.correct_edges().await?;
            opens = self.opens_gone().await?;
        }
        self.note(erasure, Deleted { hits, opens }).await?;
        self.tally.commit().await?;
        deleted.hits += hits;
        deleted.opens += opens;
        tell(*deleted);
        if hits == 0 {
            tokio::time::sleep(PENDING_PAUSE).await;
        }
        Ok(())
    }

    /// Adds what a chunk deleted to its erasure.
    async fn note(&self, erasure: Option<i64>, deleted: Deleted) -> Result<(), ChangeError> {
        let Some(erasure) = erasure.filter(|_| deleted != Deleted::default()) else { return Ok(()) };
        let (hits, opens) = (deleted.hits as i64, deleted.opens as i64);
        let add = "UPDATE erasures SET hits = hits + $2, opens = opens + $3 WHERE id = $1";
        self.tally.execute("adding to an erasure", add, &[&erasure, &hits, &opens]).await?;
        // In this order, since loaders lock them so.
        let doubt = "UPDATE user_agents AS u SET doubted_at = clock_timestamp() FROM ( \
               SELECT id FROM user_agents WHERE id IN (SELECT user_agent FROM work_hits) AND id <> 0 AND doubted_at IS NULL \
               ORDER BY id FOR UPDATE) AS d WHERE u.id = d.id";
        self.tally.execute("doubting user agents", doubt, &[]).await?;
        Ok(())
    }

    async fn opens_gone(&self) -> Result<u64, ChangeError> {
        let count = "SELECT count(*) FROM pairs WHERE first_at IS NULL";
        let row = self.tally.row("counting opens", count, &[]).await?;
        Ok(row.get::<_, i64>(0) as u64)
    }

    /// Deletes opens whose hits were deleted before: with their partition, or by hand. Returns how many opens existed,
    /// and how many of them were deleted.
    async fn delete_leftovers(&mut self, target: Target, erasure: Option<i64>) -> Result<(u64, u64), ChangeError> {
        if matches!(target, Target::Period { .. }) {
            // An open does not belong to one time: it is deleted with its last hit.
            return Ok((0, 0));
        }
        let find = format!("SELECT message, recipient FROM opens WHERE {} LIMIT $3", target.condition());
        let [first, second] = target.values();
        let rows = self.search(&find, &[first, second, &self.rows_max]).await?;
        if rows.is_empty() {
            return Ok((0, 0));
        }
        let messages: Vec<MessageId> = rows.iter().map(|row| row.get(0)).collect();
        let recipients: Vec<RecipientId> = rows.iter().map(|row| row.get(1)).collect();
        self.begin().await?;
        let touched = self.tally.execute("looking for opens", TOUCH_LEFTOVERS, &[&messages, &recipients]).await?;
        self.settle(touched).await?;
        let gone = self.opens_gone().await?;
        self.note(erasure, Deleted { hits: 0, opens: gone }).await?;
        self.tally.commit().await?;
        Ok((rows.len() as u64, gone))
    }

    /// Searches for rows without the lock, and without the short time limit of other statements.
    pub(super) async fn search(
        &self,
        find: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, DbError> {
        self.unbounded(self.tally.client().query(find, values)).await
    }

    /// Runs what may take longer than other statements, outside a transaction.
    async fn unbounded<T>(
        &self,
        searching: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        let client = self.tally.client();
        let searching = async {
            client.batch_execute("SET statement_timeout = 0").await?;
            let found = searching.await?;
            client.batch_execute("SET statement_timeout = '60s'").await?;
            Ok::<_, DbError>(found)
        };
        within(SEARCH_TIMEOUT, "looking for rows", searching).await
    }
}

/// Rows of several days that one transaction deletes.
#[derive(Default)]
struct Chunk<'a> {
    days: Vec<(&'a Partition, Vec<String>)>,
    rows: i64,
}
