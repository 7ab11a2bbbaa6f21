//! Hits outside the chunk: of opens that must be computed again, and at the first and last time of messages that lost
//! some.
//!
//! Guarantees: however many days an open or a message covers, the transaction holds locks on a bounded number of them.
//! Other days are read in a savepoint that releases its locks, and written afterwards.

use std::collections::HashMap;
use std::sync::LazyLock;

use time::OffsetDateTime;

use super::{ChangeError, Changes};
use crate::db::partitions::{self, DAYS_AT_ONCE};
use crate::db::within;
use crate::rollup::statement::statement;
use crate::rollup::tally;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// Maximum pairs times days of one search whose rows go through the program.
const PAIR_DAYS_MAX: usize = 50_000;

const OTHER_HITS: &str = include_str!("others/other_hits.sql");

const PAIR_HITS: &str = "INSERT INTO pair_hits (at, seq, message, recipient, image, spool, class) ";

const UNNEST: &str = "SELECT * FROM unnest($1::timestamptz[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::int[], $7::smallint[])";

const FIND_EDGES: &str = include_str!("others/find_edges.sql");

const EDGE_HITS: &str = include_str!("others/edge_hits.sql");

static WRITE_EDGES: LazyLock<String> = LazyLock::new(|| statement(include_str!("others/write_edges.sql")));

impl Changes {
    /// Copies the hits of pairs that are not completely in the chunk into `pair_hits`.
    pub(super) async fn find_other_hits(&self) -> Result<(), ChangeError> {
        let span = "SELECT min(was_first_at), max(was_last_at), count(*) FROM touched WHERE NOT whole";
        let span = self.tally.row("looking at opens", span, &[]).await?;
        let (Some(from), Some(to)) = (span.get(0), span.get(1)) else { return Ok(()) };
        let pairs: i64 = span.get(2);
        // So that the planner knows whether they are few or many.
        self.tally.execute("ANALYZE", "ANALYZE touched", &[]).await?;
        let days = partitions::within_times(self.tally.client(), from, to).await?;
        if days.is_empty() {
            return Ok(());
        }
        if days.len() <= DAYS_AT_ONCE {
            let find = format!("{PAIR_HITS}{}", partitions::over(&days, OTHER_HITS));
            self.tally.execute("looking for other hits", &find, &[]).await?;
            return Ok(());
        }
        let at_once = (PAIR_DAYS_MAX / (pairs as usize).max(1)).clamp(1, DAYS_AT_ONCE);
        for group in days.chunks(at_once) {
            let find = partitions::over(group, OTHER_HITS);
            let look = partitions::look(self.tally.client(), &find, &[]);
            let rows = within(tally::STATEMENT_TIMEOUT, "looking for other hits", look).await?;
            if !rows.is_empty() {
                self.add_pair_hits(&rows).await?;
            }
        }
        Ok(())
    }

    async fn add_pair_hits(&self, rows: &[tokio_postgres::Row]) -> Result<(), ChangeError> {
        let at: Vec<OffsetDateTime> = rows.iter().map(|row| row.get(0)).collect();
        let seq: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
        let spool: Vec<i32> = rows.iter().map(|row| row.get(5)).collect();
        let class: Vec<i16> = rows.iter().map(|row| row.get(6)).collect();
        let insert = format!("{PAIR_HITS}{UNNEST}");
        let messages: Vec<MessageId> = rows.iter().map(|row| row.get(2)).collect();
        let recipients: Vec<RecipientId> = rows.iter().map(|row| row.get(3)).collect();
        let images: Vec<ImageId> = rows.iter().map(|row| row.get(4)).collect();
        let added = self
            .tally
            .execute("gathering other hits", &insert, &[&at, &seq, &messages, &recipients, &images, &spool, &class])
            .await?;
        Ok(tally::same("other hits", rows.len() as u64, added)?)
    }

    /// Corrects the first and last time of messages that may have lost the hit that they came from: searches the first
    /// and last slot that still has hits.
    pub(super) async fn correct_edges(&self) -> Result<(), ChangeError> {
        if self.tally.execute("looking for messages", FIND_EDGES, &[]).await? == 0 {
            return Ok(());
        }
        let hours = "SELECT first_hour FROM edges WHERE first_hour IS NOT NULL \
                     UNION SELECT last_hour FROM edges WHERE last_hour IS NOT NULL ORDER BY 1";
        let hours = within(tally::STATEMENT_TIMEOUT, "looking at hours", self.tally.client().query(hours, &[])).await?;
        let hours: Vec<OffsetDateTime> = hours.iter().map(|row| row.get(0)).collect();
        let mut found: HashMap<MessageId, [Option<OffsetDateTime>; 2]> = HashMap::new();
        if let (Some(first), Some(last)) = (hours.first(), hours.last()) {
            let mut days = partitions::within_times(self.tally.client(), *first, *last + time::Duration::HOUR).await?;
            days.retain(|day| day.has_a_slot_of(&hours));
            for group in days.chunks(DAYS_AT_ONCE) {
                let find = partitions::over(group, EDGE_HITS);
                let look = partitions::look(self.tally.client(), &find, &[]);
                for row in within(tally::STATEMENT_TIMEOUT, "looking for the first and last hit", look).await? {
                    let [first, last] = found.entry(row.get(0)).or_default();
                    *first = [*first, row.get(1)].into_iter().flatten().min();
                    *last = [*last, row.get(2)].into_iter().flatten().max();
                }
            }
        }
        let (messages, times): (Vec<MessageId>, Vec<[Option<OffsetDateTime>; 2]>) = found.into_iter().unzip();
        let (first, last): (Vec<_>, Vec<_>) = times.into_iter().map(|[first, last]| (first, last)).unzip();
        self.tally.execute("writing the first and last hit", &WRITE_EDGES, &[&messages, &first, &last]).await?;
        Ok(())
    }
}
