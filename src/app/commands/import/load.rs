//! Loads log rows into `hits`, batch by batch, in the order of their ids, by the pipeline that the loader uses ([`crate::ingest::batch`]).
//!
//! Guarantees: each row is imported once: the source's position moves with the rows. Gives up: order by time; rows that
//! appear under an id far below the last one ([`LATE_IDS_MAX`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;

use super::marks::{self, Taken};
use super::report::{Report, Shown};
use super::row::{self, Reading, Refusal};
use super::source::{LogRow, Picture, Source};
use crate::cli::ImportDjangoArgs;
use crate::config::Config;
use crate::db::{QUERY_TIMEOUT, installation, within};
use crate::ingest::batch::{BatchError, BatchRecord};
use crate::ingest::judge::{Bounds, Judged, Judging};
use crate::ingest::known::Known;
use crate::ingest::memory::Memory;
use crate::ingest::spans::spans;
use crate::network_lists::files::Lists;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::{Hit, safe_user_agent};

/// How long one transaction may take.
const BATCH_TIMEOUT: Duration = Duration::from_secs(120);

/// A day.
const DAY: Duration = Duration::from_hours(24);

/// The longest time that one batch's rows cover, so that a later search for its hits reads at most a day of others.
const SPAN_MAX: Duration = DAY;

/// Maximum batches into which a page of rows is cut for that reason; if times jump more often, the last batch holds the
/// rest.
const SPANS_MAX: usize = 64;

/// How far ahead of the database's clock a row may be. Its time is kept as written, although the machine's clock may
/// have been wrong.
const FUTURE_MAX: Duration = Duration::from_hours(366 * 24);

/// The next run looks again for a missing row if its id is at most this far below the highest one: it may have been
/// uncommitted.
const LATE_IDS_MAX: i64 = 10_000;

/// Where rows go.
pub(super) enum Destination {
    /// Into the database, from this position on.
    Database(Taken),
    /// Nowhere: a dry run.
    Nothing(Option<Taken>),
}

/// Rows of a batch that are not hits.
#[derive(Debug, Clone, Copy, Default)]
struct Refused {
    /// Their picture is not in the source.
    unknown_image: u64,
    /// They cannot be read.
    quarantined: u64,
}

/// An import of rows.
pub(super) struct Loading<'a> {
    client: &'a Client,
    source: &'a Source,
    reading: Reading,
    bounds: Bounds,
    memory: Memory,
    into: Destination,
    batch_rows: usize,
}

impl<'a> Loading<'a> {
    /// Reads what is needed to read and judge rows.
    pub(super) async fn new(
        config: &Config,
        args: &ImportDjangoArgs,
        client: &'a Client,
        source: &'a Source,
        pictures: &[Picture],
        into: Destination,
    ) -> anyhow::Result<Loading<'a>> {
        let namespace = within(QUERY_TIMEOUT, "reading the namespace", installation::namespace(client)).await?;
        let (now, retained_from) = within(QUERY_TIMEOUT, "reading the clock", marks::clock(client)).await?;
        let mut lists = Lists::default();
        for refused in lists.read_changes(&config.networks.folder).1 {
            tracing::warn!("a list of networks is refused and not used: {refused}");
        }
        let latest_at = now + FUTURE_MAX;
        let expired = config.privacy.retention_days.map_or(Micros::MIN, |days| now - DAY * days.get());
        let oldest = expired.max(retained_from).max(Micros(0));
        let reading = Reading {
            pictures: pictures.iter().map(|picture| (picture.number, picture.uuid)).collect::<HashMap<_, _>>(),
            namespace,
            networks: lists.networks(),
            ip_privacy: config.privacy.addresses,
            latest_at,
        };
        // Measured from the latest time that a row can have, so that no time is moved.
        let retention = Some(latest_at.since(oldest));
        let bounds = Bounds { now: latest_at, built_at: Micros(0), retention };
        let memory = Memory::new(Known::of_import(), Arc::default());
        within(QUERY_TIMEOUT, "reading who opted out", memory.opt_outs.list(client)).await?;
        Ok(Loading { client, source, reading, bounds, memory, into, batch_rows: args.batch_rows })
    }

    /// Imports all rows that are not imported yet.
    pub(super) async fn run(mut self, report: &mut Report, shown: &mut Shown) -> anyhow::Result<()> {
        let (mut last_id, late_ids) = match &self.into {
            Destination::Database(taken) | Destination::Nothing(Some(taken)) => (taken.last_id, taken.late_ids.clone()),
            Destination::Nothing(None) => (None, Vec::new()),
        };
        let mut done = 0;
        shown.begin("log rows", self.source.count_after(last_id.unwrap_or(i64::MIN)).await?);
        if !late_ids.is_empty() {
            let late = self.source.rows_among(&late_ids).await?;
            for rows in late.chunks(self.batch_rows) {
                self.take(rows, report).await?;
            }
        }
        loop {
            let rows = self.source.rows_after(last_id.unwrap_or(i64::MIN), self.batch_rows).await?;
            let Some(last) = rows.last() else { break };
            last_id = Some(last.id);
            self.take(&rows, report).await?;
            done += rows.len() as u64;
            shown.at(done);
        }
        shown.end();
        if let Destination::Database(Taken { spool, .. }) | Destination::Nothing(Some(Taken { spool, .. })) = self.into
        {
            report.totals = within(QUERY_TIMEOUT, "adding batches up", marks::totals(self.client, spool)).await?;
        }
        Ok(())
    }

    /// Imports some rows, in as many batches as their times need.
    async fn take(&mut self, rows: &[LogRow], report: &mut Report) -> anyhow::Result<()> {
        let mut rows = rows.to_vec();
        for row in &mut rows {
            row.user_agent = safe_user_agent(row.user_agent.as_bytes()).into_owned();
        }
        for range in spans(rows.iter().map(|row| row.at), SPAN_MAX, SPANS_MAX) {
            self.take_batch(&rows[range], report).await?;
        }
        Ok(())
    }

    async fn take_batch(&mut self, rows: &[LogRow], report: &mut Report) -> anyhow::Result<()> {
        let mut refused = Refused::default();
        let mut hits: Vec<Hit<'_>> = Vec::with_capacity(rows.len());
        for row in rows {
            match self.reading.hit(row) {
                Ok(hit) => hits.push(hit),
                Err(refusal) => {
                    report.rows.refuse(row, refusal);
                    match refusal {
                        Refusal::Picture => refused.unknown_image += 1,
                        _ => refused.quarantined += 1,
                    }
                }
            }
        }
        self.memory.leave_erased_out(self.client, &mut hits, Duration::ZERO, BATCH_TIMEOUT).await?;
        let judged = match &self.into {
            Destination::Database(before) => {
                let after = position_after(before, rows);
                let judged = self.load(before.clone(), &after, refused, &mut hits).await?;
                self.into = Destination::Database(after);
                judged
            }
            Destination::Nothing(_) => {
                let mut judging = Judging::new(&hits, 0, 0, self.bounds, None, &self.memory.known);
                while judging.next_rows().is_some() {}
                judging.finish()
            }
        };
        report.rows.taken += judged.loaded;
        report.rows.expired += judged.expired;
        report.rows.suppressed += judged.suppressed;
        report.rows.erased += judged.erased;
        report.rows.without_address += rows.iter().filter(|row| row::address(row).is_none()).count() as u64;
        Ok(())
    }

    /// Loads a batch in one transaction, and again if a day's partition was removed or an erasure arrived in between.
    async fn load(
        &mut self,
        before: Taken,
        after: &Taken,
        refused: Refused,
        hits: &mut [Hit<'_>],
    ) -> anyhow::Result<Judged> {
        for is_last in [false, false, true] {
            self.memory.learn(self.client, hits, BATCH_TIMEOUT).await?;
            self.memory.partitions.make(self.client, self.bounds.days(hits), BATCH_TIMEOUT).await?;
            let loading = tokio::time::timeout(BATCH_TIMEOUT, self.load_once(&before, after, refused, hits));
            match loading.await.with_context(|| format!("a batch took longer than {BATCH_TIMEOUT:?}"))? {
                Ok(judged) => return Ok(judged),
                Err(BatchError::Partition(_)) if !is_last => self.memory.partitions.forget(),
                Err(BatchError::Erasures) if !is_last => {
                    self.memory.erased.forget();
                    self.memory.leave_erased_out(self.client, hits, Duration::ZERO, BATCH_TIMEOUT).await?;
                }
                Err(BatchError::MarkMoved(_)) => break,
                Err(error) => {
                    return Err(error)
                        .context("log rows cannot be imported now; run the same command later to continue");
                }
            }
        }
        anyhow::bail!("another import ran at the same time; run this one again")
    }

    async fn load_once(
        &self,
        before: &Taken,
        after: &Taken,
        refused: Refused,
        hits: &[Hit<'_>],
    ) -> Result<Judged, BatchError> {
        let (spool, first_seq) = (before.spool, before.next_seq);
        let judging = Judging::new(hits, first_seq, spool, self.bounds, None, &self.memory.known);
        let (copied, judged) = self.memory.copy(self.client, spool, first_seq, judging).await?;
        marks::move_on(copied.client(), after).await?;
        let record = copied.record(after.next_seq, &judged);
        let unknown_image = record.unknown_image + refused.unknown_image;
        let record = BatchRecord { unknown_image, quarantined: refused.quarantined, is_imported: true, ..record };
        copied.commit(&record).await?;
        Ok(judged)
    }
}

/// The source's position once these rows are imported. They are in the order of their ids, and all of them are either
/// after the last one, or among those that were late.
fn position_after(before: &Taken, rows: &[LogRow]) -> Taken {
    let mut after = before.clone();
    after.next_seq += rows.len() as u64;
    let Some(last) = rows.last() else { return after };
    let taken: HashSet<i64> = rows.iter().map(|row| row.id).collect();
    if before.last_id.is_none_or(|before| last.id > before) {
        let oldest = last.id.saturating_sub(LATE_IDS_MAX);
        let first = before.last_id.map_or(1, |before| before.saturating_add(1)).max(oldest);
        after.late_ids.retain(|&id| id >= oldest);
        after.late_ids.extend((first..last.id).filter(|id| !taken.contains(id)));
        (after.last_id, after.last_at) = (Some(last.id), last.at);
    } else {
        after.late_ids.retain(|id| !taken.contains(id));
    }
    after
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn rows(ids: &[i64]) -> Vec<LogRow> {
        ids.iter().map(|&id| LogRow { id, at: Some(Micros(id)), ..LogRow::default() }).collect()
    }

    #[test]
    fn ids_without_a_row_are_looked_for_again_until_they_are_long_past() {
        let nothing = Taken { spool: 1, next_seq: 0, last_id: None, last_at: None, late_ids: Vec::new() };
        let first = position_after(&nothing, &rows(&[3, 4, 7]));
        assert_eq!((first.next_seq, first.last_id, first.last_at), (3, Some(7), Some(Micros(7))));
        assert_eq!(first.late_ids, [1, 2, 5, 6]);
        let late = position_after(&first, &rows(&[2, 5]));
        assert_eq!((late.next_seq, late.last_id, late.late_ids.as_slice()), (5, Some(7), &[1, 6][..]));
        let next = position_after(&late, &rows(&[8, 10]));
        assert_eq!((next.next_seq, next.last_id, next.late_ids.as_slice()), (7, Some(10), &[1, 6, 9][..]));
        let far = position_after(&next, &rows(&[i64::MAX - 1]));
        assert_eq!((far.late_ids.len() as i64, far.late_ids[0]), (LATE_IDS_MAX, i64::MAX - 1 - LATE_IDS_MAX));
        assert_eq!(position_after(&next, &[]), next);
    }

    #[test]
    fn no_batch_spans_more_than_a_day_and_no_row_is_left_out() {
        let ends = |spans: Vec<Range<usize>>| spans.iter().map(|span| (span.start, span.end)).collect::<Vec<_>>();
        let spans_of = |hours: &[i64]| {
            let row = |&hour: &i64| LogRow {
                at: (hour >= 0).then_some(Micros::of_seconds(hour * 3600)),
                ..LogRow::default()
            };
            spans(hours.iter().map(row).map(|row| row.at), SPAN_MAX, SPANS_MAX)
        };
        assert!(spans_of(&[]).is_empty());
        assert_eq!(ends(spans_of(&[-1, -1])), [(0, 2)]);
        assert_eq!(ends(spans_of(&[5, 29, 30, -1, 31, 100])), [(0, 2), (2, 5), (5, 6)]);
        let jumping: Vec<i64> = (0..1000).map(|n| n % 2 * 100).collect();
        let spans = spans_of(&jumping);
        assert_eq!(spans.len(), SPANS_MAX);
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start) && spans[SPANS_MAX - 1].end == 1000);
    }
}
