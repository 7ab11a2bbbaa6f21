//! Brings one chunk of a spool into PostgreSQL: judges it, makes its partitions, commits, and counts what became of it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{Instrument, Span};
use uuid::Uuid;

use super::orphans::Taken;
use super::{Clock, Loader, PATIENCE, within};
use crate::clocks::Reading;
use crate::hit::Hit;
use crate::ingest::judge::{Bounds, Day, Facts, Judged, Judging, Question, questions};
use crate::ingest::shared_throttle::QUESTION_HITS_MAX;
use crate::ingest::transaction as queries;
use crate::ingest::transaction::{BatchError, BatchRecord, Copied};
use crate::metrics::DropReason;
use crate::spool::frame::{self, FrameKey};
use crate::spool::reader::Chunk;
use crate::spool::recovery::{copy_aside, quarantine};

/// The longest time that one batch's hits lie apart, in µs.
const SPAN_MAX_US: i64 = 3_600_000_000;

/// Batches of one chunk at most, for that reason.
const SPANS_MAX: usize = 32;

/// Consecutive numbers of one spool: some missing, then hits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) first_seq: u64,
    pub(super) missing: u64,
    pub(super) hits: &'a [Hit<'a>],
}

impl Piece<'_> {
    pub(super) fn next_seq(&self) -> u64 {
        self.first_seq + self.missing + self.hits.len() as u64
    }

    /// The span in which its way into PostgreSQL is logged, within its spool's.
    pub(super) fn span(&self) -> Span {
        tracing::error_span!("batch", first_seq = self.first_seq, hits = self.hits.len())
    }
}

/// What hits are taken from, and how PostgreSQL knows it.
#[derive(Debug)]
pub(super) struct Origin {
    /// The UUID of its mark.
    pub(super) mark: Uuid,
    /// Its number in `spool_marks`.
    pub(super) spool: i32,
    pub(super) kind: OriginKind,
}

#[derive(Debug)]
pub(super) enum OriginKind {
    /// A spool, by its place among the sources.
    Spool(usize),
    /// Hits that were set aside.
    Orphans(Taken),
}

/// What became of a piece.
pub(super) enum Brought {
    Committed,
    /// PostgreSQL refuses its data, and says why.
    Refused(String),
    /// Somebody else has moved the mark.
    Elsewhere,
    /// Erasures came since it was prepared.
    Outdated,
}

/// A batch whose COMMIT may have been sent. Until its answer comes, or the mark is read again, nobody knows whether it is in.
pub(super) struct Pending {
    pub(super) spool: Uuid,
    pub(super) is_of_orphans: bool,
    record: BatchRecord,
    judged: Judged,
}

impl Loader {
    /// Brings a chunk: whole, or where PostgreSQL refuses the data, in halves down to the one bad row.
    pub(super) async fn load(&mut self, at: usize, chunk: &Chunk) -> anyhow::Result<()> {
        let Some(namespace) = self.namespace else { anyhow::bail!("the namespace of keys is not known") };
        let mut hits = Vec::with_capacity(chunk.count as usize);
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            let (mut hit, behind) = Hit::decode(rest)?;
            hit.resolve(namespace);
            hits.push(hit);
            rest = behind;
        }
        if let Some(first) = hits.first() {
            self.metrics.oldest_at_us.store(first.at_us, Ordering::Relaxed);
        }
        self.prepare(&mut hits).await?;
        let Some(spool) = self.sources[at].number else { anyhow::bail!("the spool has no number") };
        let mut origin = Origin { mark: self.sources[at].mark.uuid, spool, kind: OriginKind::Spool(at) };
        let mut missing = chunk.missing;
        let mut first_seq = chunk.first_seq;
        // Ranges of hits still to bring, the next one last.
        // What is asked about in one round trip is one batch.
        let hits_max = if self.shared_throttle.is_some() { QUESTION_HITS_MAX } else { usize::MAX };
        let mut ranges = spans(&hits, hits_max);
        ranges.reverse();
        while let Some((from, to)) = ranges.pop() {
            let piece = Piece { first_seq, missing, hits: &hits[from..to] };
            match self.bring(&mut origin, piece).instrument(piece.span()).await? {
                Brought::Committed => {
                    first_seq = piece.next_seq();
                    missing = 0;
                }
                Brought::Refused(reason) if to - from <= 1 => {
                    self.quarantine(&mut origin, piece, &reason).instrument(piece.span()).await?;
                    first_seq = piece.next_seq();
                    missing = 0;
                }
                Brought::Refused(_) => {
                    let middle = from + (to - from) / 2;
                    ranges.extend([(middle, to), (from, middle)]);
                }
                Brought::Outdated => {
                    self.erased.forget();
                    self.sources[at].reader.seek(first_seq);
                    return Ok(());
                }
                Brought::Elsewhere => {
                    // Whose hits it passed over is looked at when the mark is claimed again.
                    self.sources[at].forget_mark();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Learns what hits are judged by.
    pub(super) async fn prepare(&mut self, hits: &mut [Hit<'_>]) -> anyhow::Result<()> {
        let Some(session) = self.session.as_ref() else { anyhow::bail!("the connection is gone") };
        if within(self.patience, self.erased.learn(&session.client)).await? {
            self.known.forget_user_agents();
        }
        let ahead_us = crate::clock::now_us() - self.clock.now_us();
        // Before anything else of them is learnt, so that nothing of an erased hit reaches a table.
        within(self.patience, self.erased.mark(&session.client, hits, ahead_us)).await?;
        within(self.patience, self.known.learn(&session.client, hits)).await?;
        self.aside.close_notes(&self.known);
        Ok(())
    }

    pub(super) async fn bring(&mut self, origin: &mut Origin, piece: Piece<'_>) -> anyhow::Result<Brought> {
        let spool = origin.spool;
        let now_us = self.clock.now_us();
        let is_believed = self.clocks.believes(Reading::now(now_us), &self.metrics);
        let retention = self.options.retention.filter(|_| is_believed);
        let bounds = Bounds { now_us, built_us: crate::BUILT_US, retention };
        self.make_partitions(&bounds.days(piece.hits)).await?;
        let held_back = self.ask(origin, piece, bounds).await;
        let started = Instant::now();
        let mut judging = Judging::new(
            piece.hits,
            piece.first_seq + piece.missing,
            spool,
            bounds,
            self.throttle.as_ref(),
            &self.known,
        )
        .holding_back(held_back);
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let (version, opt_outs) = (self.erased.version(), self.opt_outs.catch_up(&session.client));
        let copying = queries::copy(&session.client, spool, piece.first_seq, version, opt_outs, || judging.next_rows());
        let copied = match patiently(&mut self.patience, copying).await? {
            Ok(copied) => copied,
            Err(BatchError::MarkMoved(_)) => return Ok(Brought::Elsewhere),
            Err(BatchError::Erasures) => return Ok(Brought::Outdated),
            Err(BatchError::Data(error)) => return Ok(Brought::Refused(said_by(&error))),
            Err(error @ BatchError::Partition(_)) => {
                self.partitions.clear();
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let judged = judging.finish();
        let record = BatchRecord {
            spool,
            first_seq: piece.first_seq,
            next_seq: piece.next_seq(),
            loaded: judged.loaded,
            throttled: judged.throttled,
            suppressed: judged.suppressed,
            expired: judged.expired,
            unknown_image: judged.unknown_image,
            missing: piece.missing,
            erased: judged.erased,
            at_us: (judged.loaded > 0).then_some((judged.min_at_us, judged.max_at_us)),
            ..BatchRecord::default()
        };
        self.commit(origin, piece, record, judged, copied).await?;
        self.metrics.copy_seconds.observe(started.elapsed().as_secs_f64());
        Ok(Brought::Committed)
    }

    /// Asks the shared throttle which hits it holds back. Before the transaction, which must not wait for Redis.
    async fn ask(&mut self, origin: &Origin, piece: Piece<'_>, bounds: Bounds) -> Vec<u64> {
        let (Some(shared), Some(throttle)) = (&mut self.shared_throttle, &self.throttle) else { return Vec::new() };
        let mut questions = questions(piece.hits, piece.first_seq + piece.missing, bounds, throttle, &self.known);
        match &origin.kind {
            OriginKind::Spool(_) => shared.ask(origin.mark, &questions).await,
            // By the names that they would have had, so that they are the same hits to whatever state of the database.
            OriginKind::Orphans(taken) => {
                questions.iter_mut().for_each(|question| question.seq = taken.own_number(question.seq));
                let held_back = shared.ask(taken.waiting.mark, &questions).await;
                held_back.into_iter().map(|number| taken.number_of(number)).collect()
            }
        }
    }

    /// Commits a batch and counts it. An error means that the outcome is unclear, and that the connection must go; the
    /// batch is counted then if the mark, once it is read again, says that it is in.
    async fn commit(
        &mut self,
        origin: &mut Origin,
        piece: Piece<'_>,
        mut record: BatchRecord,
        judged: Judged,
        copied: Copied,
    ) -> anyhow::Result<()> {
        match &mut origin.kind {
            OriginKind::Spool(_) => self.set_aside(origin.mark, piece, &judged, &mut record).await?,
            OriginKind::Orphans(taken) => {
                let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
                patiently(&mut self.patience, taken.take_to(&session.client, record.next_seq)).await??;
            }
        }
        let is_of_orphans = matches!(origin.kind, OriginKind::Orphans(_));
        let pending = Pending { spool: origin.mark, is_of_orphans, record, judged };
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        self.pending = Some(pending);
        patiently(&mut self.patience, queries::finish(&session.client, &record, copied)).await??;
        self.clock = Clock { database_us: copied.now_us, read: Instant::now() };
        self.patience = PATIENCE.0;
        if let Some(pending) = self.pending.take() {
            self.count(pending);
        }
        Ok(())
    }

    /// A mark was read again after an unclear outcome: counts the batch that was under way, if it is in.
    pub(super) fn settle_pending(&mut self, spool: Uuid, mark: u64) {
        if let Some(pending) = self.pending.take_if(|pending| pending.spool == spool)
            && pending.record.next_seq == mark
        {
            tracing::info!(spool = %pending.spool, mark, "the batch whose answer was lost is in");
            self.count(pending);
        }
    }

    async fn make_partitions(&mut self, days: &BTreeSet<Day>) -> anyhow::Result<()> {
        if days.is_empty() {
            return Ok(());
        }
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        // Tomorrow's is made today, so that midnight costs nothing.
        let tomorrow = Day::of(self.clock.now_us()).next();
        for &day in days.iter().chain([&tomorrow]) {
            if !self.partitions.contains(&day) {
                within(self.patience, queries::make_partition(&session.client, day.date()?)).await?;
                self.partitions.insert(day);
            }
        }
        Ok(())
    }

    /// Keeps the one hit that PostgreSQL refuses aside, and moves the mark over it.
    pub(super) async fn quarantine(
        &mut self,
        origin: &mut Origin,
        piece: Piece<'_>,
        reason: &str,
    ) -> anyhow::Result<()> {
        let uuid = match origin.kind {
            OriginKind::Spool(at) => self.sources[at].spool.uuid,
            OriginKind::Orphans(_) => origin.mark,
        };
        let (spool, seq) = (origin.spool, piece.first_seq + piece.missing);
        tracing::error!(seq, reason, "PostgreSQL refuses a hit; it is kept aside");
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        piece.hits.iter().for_each(|hit| hit.encode(&mut bytes));
        frame::finish(&mut bytes, start, FrameKey::of(uuid), seq, piece.hits.len() as u32);
        let record = BatchRecord {
            spool,
            first_seq: piece.first_seq,
            next_seq: piece.next_seq(),
            missing: piece.missing,
            quarantined: piece.hits.len() as u64,
            ..BatchRecord::default()
        };
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let version = self.erased.version();
        let nothing = queries::copy(&session.client, spool, piece.first_seq, version, async { Ok(()) }, || None);
        let copied = patiently(&mut self.patience, nothing).await??;
        // Not before: from here on no erasure is noted that its eraser would have looked for in this file.
        copy_aside(&quarantine(&self.options.spools), &format!("{uuid}-{seq:020}.refused"), &bytes);
        self.commit(origin, piece, record, Judged::default(), copied).await?;
        // It is no row, so it must not hold back one that will be.
        if let (Some(shared), Some(throttle), Some(hit)) =
            (&mut self.shared_throttle, &self.throttle, piece.hits.first())
            && let Some(token) = throttle.token(hit, self.known.user_agent(hit.user_agent).own)
        {
            let (mark, seq) = match &origin.kind {
                OriginKind::Spool(_) => (origin.mark, seq),
                OriginKind::Orphans(taken) => (taken.waiting.mark, taken.own_number(seq)),
            };
            shared.release(mark, Question { seq, token }).await;
        }
        Ok(())
    }

    fn count(&mut self, Pending { spool, is_of_orphans, record, judged }: Pending) {
        let metrics = &self.metrics;
        metrics.loaded.add(record.loaded);
        self.committed.notify_one();
        for (reason, n) in [
            (DropReason::Suppressed, record.suppressed),
            (DropReason::Throttled, record.throttled),
            (DropReason::UnknownImage, record.unknown_image),
            (DropReason::Expired, record.expired),
            (DropReason::Quarantined, record.quarantined),
            (DropReason::Damaged, record.missing),
            (DropReason::Erased, record.erased),
        ] {
            metrics.drop_hits(reason, n);
        }
        metrics.throttled_elsewhere.add(judged.throttled_elsewhere);
        metrics.clamped.add(judged.clamped);
        metrics.user_agents_capped.add(judged.user_agents_capped);
        let passed = (record.next_seq - record.first_seq) as i64;
        if is_of_orphans { &metrics.orphans } else { &metrics.spooled }.add(-passed);
        metrics.orphans.add(record.orphans as i64);
        metrics.batch_rows.observe(record.loaded as f64);
        if let Some(source) = self.sources.iter_mut().find(|source| source.mark.uuid == spool) {
            source.loaded(record.next_seq);
        }
        if let Some(throttle) = &mut self.throttle {
            throttle.spend(spool, judged.tokens.into_tokens());
        }
    }
}

/// Ranges of hits that lie within [`SPAN_MAX_US`] of each other, so that no batch spans days: who looks for a batch's hits
/// later reads all that came in its time. At most [`SPANS_MAX`] of them; where times jump more often, the last one holds
/// the rest. Each is cut again where it has more than `hits_max` hits.
pub(super) fn spans(hits: &[Hit<'_>], hits_max: usize) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let (mut from, mut earliest, mut latest) = (0, i64::MAX, i64::MIN);
    for (at, hit) in hits.iter().enumerate() {
        let (wider, later) = (earliest.min(hit.at_us), latest.max(hit.at_us));
        if at > from && later.saturating_sub(wider) > SPAN_MAX_US && spans.len() + 1 < SPANS_MAX {
            spans.push((from, at));
            (from, earliest, latest) = (at, hit.at_us, hit.at_us);
        } else {
            (earliest, latest) = (wider, later);
        }
    }
    spans.push((from, hits.len()));
    let cut = |(from, to): (usize, usize)| {
        // Also an empty one has a start: numbers may be missing before it.
        let starts = std::iter::once(from).chain((from..to).step_by(hits_max).skip(1));
        starts.map(move |start| (start, to.min(start.saturating_add(hits_max))))
    };
    spans.into_iter().flat_map(cut).collect()
}

/// Waits for a part of a batch no longer than the loader's patience, which grows when it was too short: a bound that a
/// slow server never meets would try the same batch for ever.
pub(super) async fn patiently<T>(patience: &mut Duration, part: impl Future<Output = T>) -> anyhow::Result<T> {
    let waited = *patience;
    tokio::time::timeout(waited, part).await.map_err(|_| {
        *patience = (waited * 2).min(PATIENCE.1);
        anyhow::anyhow!("a part of a batch took longer than {waited:?}")
    })
}

/// The server's own words, without the row that they may quote: it holds an address and ids.
fn said_by(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::fixture::carrying;

    fn spans_of(hours: &[i64]) -> Vec<(usize, usize)> {
        let hit = |&hour: &i64| Hit { at_us: hour * SPAN_MAX_US, ..carrying(0, "") };
        spans(&hours.iter().map(hit).collect::<Vec<_>>(), usize::MAX)
    }

    #[test]
    fn no_batch_has_more_hits_than_one_question_and_none_is_left_out() {
        let hits = [5, 5, 5, 7, 7, 7, 7, 7].map(|hour| Hit { at_us: hour * SPAN_MAX_US, ..carrying(0, "") });
        assert_eq!(spans(&hits, 2), [(0, 2), (2, 3), (3, 5), (5, 7), (7, 8)]);
        assert_eq!(spans(&hits, 3), [(0, 3), (3, 6), (6, 8)]);
        assert_eq!(spans(&[], 3), [(0, 0)]);
    }

    #[test]
    fn no_batch_spans_more_than_an_hour_and_none_is_left_out() {
        assert_eq!(spans_of(&[]), [(0, 0)]);
        assert_eq!(spans_of(&[5, 5, 6, 6]), [(0, 4)]);
        assert_eq!(spans_of(&[5, 6, 7, 8, 20]), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!(spans_of(&[20, 5, 5, 21]), [(0, 1), (1, 3), (3, 4)]);
        let jumping: Vec<i64> = (0..1000).map(|n| n % 2 * 10).collect();
        let spans = spans_of(&jumping);
        assert_eq!(spans.len(), SPANS_MAX);
        assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0) && spans[SPANS_MAX - 1].1 == 1000);
    }
}
