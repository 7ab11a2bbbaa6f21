//! Reclassifying hits.

use std::sync::LazyLock;

use time::OffsetDateTime;

use super::{ChangeError, Changes};
use crate::db::partitions::{self, Partition};
use crate::db::within;
use crate::rollup::statement::statement;
use crate::rollup::tally::{self, ANY_JOIN, NESTED_LOOPS, same};
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// Where a chunk ends in a partition: at this hit, by (at, spool, seq).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Its time.
    pub at: OffsetDateTime,
    /// Its spool.
    pub spool: i32,
    /// Its number in the spool.
    pub seq: i64,
}

/// A hit, with what is needed to judge it.
#[derive(Debug, Clone, Copy)]
pub struct StoredHit<'a> {
    /// Its time.
    pub at: OffsetDateTime,
    /// The id of its user agent.
    pub user_agent_id: i64,
    /// Its user agent; `None` if only its id is known.
    pub user_agent: Option<&'a str>,
    /// When the message was sent, according to the link or else to the sender.
    pub sent_at: Option<OffsetDateTime>,
    /// The provider network of its address.
    pub network: i16,
    /// Whether a request header marked it as a prefetch, so no person has looked yet.
    pub prefetch: bool,
    /// Its message; nil if absent.
    pub message: MessageId,
    /// Its recipient; nil if absent.
    pub recipient: RecipientId,
    /// Its image.
    pub image: ImageId,
    /// Its verdict so far.
    pub judged: Verdict,
}

/// The verdict on a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The class's number.
    pub class: i16,
    /// The rule's number.
    pub rule: i16,
    /// The client's number.
    pub client: i16,
}

/// The result of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclassified {
    /// Where the next chunk begins; `None` if the partition is done.
    pub next: Option<Cursor>,
    /// Hits read.
    pub seen: u64,
    /// Hits whose verdict changed.
    pub changed: u64,
}

const READ: &str = include_str!("reclassify/read_hits.sql");

const SHOW: &str = include_str!("reclassify/show_hits.sql");

const VERDICTS: &str = "INSERT INTO verdicts (n, class, rule, client, tid) SELECT v.n, v.class, v.rule, v.client, w.tid \
     FROM unnest($1::int[], $2::smallint[], $3::smallint[], $4::smallint[]) AS v (n, class, rule, client) \
     JOIN work_hits w ON w.n = v.n";

static MOVE_HITS: LazyLock<String> = LazyLock::new(|| statement(include_str!("reclassify/move_hits.sql")));

const TOUCH: &str = include_str!("reclassify/touch_pairs.sql");

const GATHER: &str = include_str!("reclassify/gather_hits.sql");

impl Changes {
    /// Reclassifies one chunk of a partition's hits, those after `after`, and updates opens and counts. Hits that are
    /// loaded behind the cursor in the meantime are not read; their loader judged them by the current rules.
    ///
    /// # Errors
    /// [`ChangeError`]; go on with a new [`Changes`] and the same cursor.
    pub async fn reclassify_chunk(
        &mut self,
        day: &Partition,
        after: Option<Cursor>,
        mut judge: impl FnMut(&StoredHit<'_>) -> Verdict,
    ) -> Result<Reclassified, ChangeError> {
        if after.is_none() {
            partitions::identify(self.tally.client(), std::slice::from_ref(day)).await?;
        }
        self.begin().await?;
        let read = READ.replace("{day}", &day.name);
        let (at, spool, seq) = (after.map_or(day.from, |after| after.at), after.map(|a| a.spool), after.map(|a| a.seq));
        let seen = self.tally.execute("reading hits", &read, &[&at, &spool, &seq, &self.rows_max]).await?;
        let show = self.tally.client().query(SHOW, &[]);
        let rows = within(tally::STATEMENT_TIMEOUT, "reading hits", show).await?;
        same("hits read", seen, rows.len() as u64)?;
        let (mut numbers, mut classes, mut rules, mut clients) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let hit = stored(row);
            let verdict = judge(&hit);
            if verdict != hit.judged {
                numbers.push(row.get::<_, i32>(12));
                classes.push(verdict.class);
                rules.push(verdict.rule);
                clients.push(verdict.client);
            }
        }
        let changed = numbers.len() as u64;
        if changed > 0 {
            self.tally.execute("writing verdicts", VERDICTS, &[&numbers, &classes, &rules, &clients]).await?;
            self.write_verdicts(day, changed).await?;
        }
        let is_full = seen == self.rows_max as u64;
        let has_more = is_full || self.has_pending(day).await?;
        self.tally.commit().await?;
        let last = rows.last().map(|row| Cursor { at: row.get(0), spool: row.get(13), seq: row.get(14) });
        // If nothing was read and something is pending, the same position is tried again.
        let start = || Cursor { at: day.from, spool: i32::MIN, seq: i64::MIN };
        let next = has_more.then(|| last.or(after).unwrap_or_else(start));
        Ok(Reclassified { next, seen, changed })
    }

    async fn write_verdicts(&self, day: &Partition, changed: u64) -> Result<(), ChangeError> {
        self.tally.execute("adding hits up", &MOVE_HITS, &[]).await?;
        let touched = self.tally.execute("looking for opens", TOUCH, &[]).await?;
        let write = format!(
            "UPDATE {} AS h SET class = v.class, rule = v.rule, client = v.client \
             FROM verdicts v WHERE h.ctid = v.tid",
            day.name
        );
        self.tally.run("SET", NESTED_LOOPS).await?;
        let written = self.tally.execute("writing verdicts", &write, &[]).await?;
        same("hits judged again", changed, written)?;
        self.tally.run("SET", ANY_JOIN).await?;
        if touched > 0 {
            self.tally.execute("gathering hits", GATHER, &[]).await?;
        }
        self.settle(touched).await
    }

    /// Whether a batch that is not rolled up has hits in the partition.
    async fn has_pending(&self, day: &Partition) -> Result<bool, ChangeError> {
        let select = "SELECT EXISTS (SELECT 1 FROM batches WHERE published IS NULL AND loaded > 0 \
                      AND max_at >= $1 AND min_at < $2)";
        Ok(self.tally.row("looking for batches", select, &[&day.from, &day.to]).await?.get(0))
    }
}

fn stored(row: &tokio_postgres::Row) -> StoredHit<'_> {
    StoredHit {
        at: row.get(0),
        user_agent_id: row.get(1),
        user_agent: row.get(2),
        sent_at: row.get(3),
        network: row.get(4),
        prefetch: row.get(5),
        message: row.get(6),
        recipient: row.get(7),
        image: row.get(8),
        judged: Verdict { class: row.get(9), rule: row.get(10), client: row.get(11) },
    }
}
