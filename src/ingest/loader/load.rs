//! Loads one chunk of a spool: judges it, makes its partitions, commits it batch by batch, and counts the results.
//!
//! Guarantees: what is counted was committed. A batch whose COMMIT got no answer stays [`Pending`] until its mark is
//! read again. If PostgreSQL refuses data, halves of it are tried, down to the one bad row. [`crate::ingest::batch`]
//! shows why each hit is in once. Gives up: retries; after an error the connection is dropped and the mark shows what
//! is in.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::Loader;
use super::connected::{Clock, Connected, PATIENCE, patiently};
use super::origin::{Origin, OriginKind, Piece};
use crate::clocks::Reading;
use crate::ingest::batch::{BatchError, BatchRecord, BatchTransaction, RowsCopied};
use crate::ingest::judge::{Bounds, Day, Facts, Judged, Judging, Question, questions};
use crate::ingest::shared_throttle::QUESTION_HITS_MAX;
use crate::ingest::spans::spans;
use pixeld_core::hit::Hit;
use pixeld_core::ids::SpoolId;
use pixeld_core::metrics::DropReason;
use pixeld_spool::frame::{self, FrameKey};
use pixeld_spool::reader::Chunk;
use pixeld_spool::recovery::{copy_aside, quarantine};

/// The longest time that one batch's hits cover.
const SPAN_MAX: Duration = Duration::from_secs(3600);

/// Maximum batches of one chunk, for that reason.
const SPANS_MAX: usize = 32;

/// The result of a piece that is one batch.
enum Outcome {
    Committed,
    /// PostgreSQL refuses its data, with this reason.
    Refused(String),
    /// Another process has moved the mark.
    MarkMoved,
    /// Erasures were added since it was prepared.
    Outdated,
}

/// How much of a piece is loaded.
pub(super) enum Loaded {
    All,
    /// Not all: another process has moved the mark.
    MarkMoved,
    /// Only what is before this number: erasures were added, and the rest must be prepared again.
    Outdated {
        next_seq: u64,
    },
}

/// A batch whose COMMIT may have been sent. Until its answer comes, or the mark is read again, it is unknown whether it
/// is in.
pub(super) struct Pending {
    pub(super) spool: SpoolId,
    pub(super) is_of_orphans: bool,
    record: BatchRecord,
    judged: Judged,
}

impl Loader {
    /// Loads a chunk of the spool with this number.
    pub(super) async fn load_chunk(
        &mut self,
        connected: &mut Connected,
        place: usize,
        number: i32,
        chunk: &Chunk,
    ) -> anyhow::Result<()> {
        let mut hits = Vec::with_capacity(chunk.count as usize);
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            let (mut hit, behind) = Hit::decode(rest)?;
            hit.resolve(connected.namespace);
            hits.push(hit);
            rest = behind;
        }
        if let Some(first) = hits.first() {
            self.metrics.oldest_at_us.store(first.at.0, Ordering::Relaxed);
        }
        self.prepare(connected, &mut hits).await?;
        let source = &self.sources[place];
        let mut origin = Origin { mark: source.mark.uuid, spool: number, kind: OriginKind::Spool(source.spool.uuid) };
        let piece = Piece { first_seq: chunk.first_seq, missing: chunk.missing, hits: &hits };
        match self.load_hits(connected, &mut origin, piece).await? {
            Loaded::All => {}
            Loaded::Outdated { next_seq } => self.sources[place].reader.seek(next_seq),
            // The next claim of the mark checks whose hits it skipped.
            Loaded::MarkMoved => self.sources[place].forget_mark(),
        }
        Ok(())
    }

    /// Reads the facts by which hits are judged.
    pub(super) async fn prepare(&mut self, connected: &Connected, hits: &mut [Hit<'_>]) -> anyhow::Result<()> {
        let (client, limit) = (connected.client(), self.patience);
        let ahead = pixeld_core::clock::now_micros().since(connected.clock.now());
        self.memory.leave_erased_out(client, hits, ahead, limit).await?;
        self.memory.learn(client, hits, limit).await?;
        self.aside.close_notes(&self.memory.known);
        Ok(())
    }

    /// Loads hits in as few batches as their times, the shared throttle and PostgreSQL's refusals allow: if it refuses
    /// the data, in halves down to the one bad row.
    pub(super) async fn load_hits(
        &mut self,
        connected: &mut Connected,
        origin: &mut Origin,
        all: Piece<'_>,
    ) -> anyhow::Result<Loaded> {
        let Piece { mut first_seq, mut missing, hits } = all;
        // One batch is one round trip to the shared throttle.
        let hits_max = if self.shared_throttle.is_some() { QUESTION_HITS_MAX } else { usize::MAX };
        // Ranges of hits still to load, the next one last.
        let mut ranges = ranges(hits, hits_max);
        ranges.reverse();
        while let Some(range) = ranges.pop() {
            let piece = Piece { first_seq, missing, hits: &hits[range.clone()] };
            match self.load_batch(connected, origin, piece).instrument(piece.span()).await? {
                Outcome::Committed => {}
                Outcome::Refused(reason) if range.len() <= 1 => {
                    self.quarantine(connected, origin, piece, &reason).instrument(piece.span()).await?;
                }
                Outcome::Refused(_) => {
                    let middle = range.start + range.len() / 2;
                    ranges.extend([middle..range.end, range.start..middle]);
                    continue;
                }
                Outcome::Outdated => {
                    self.memory.erased.forget();
                    return Ok(Loaded::Outdated { next_seq: first_seq });
                }
                Outcome::MarkMoved => return Ok(Loaded::MarkMoved),
            }
            (first_seq, missing) = (piece.next_seq(), 0);
        }
        Ok(Loaded::All)
    }

    async fn load_batch(
        &mut self,
        connected: &mut Connected,
        origin: &mut Origin,
        piece: Piece<'_>,
    ) -> anyhow::Result<Outcome> {
        let now = connected.clock.now();
        let is_believed = self.clocks.believes(Reading::now(now), &self.metrics);
        let retention = self.options.privacy.retention().filter(|_| is_believed);
        let bounds = Bounds { now, built_at: crate::BUILT_AT, retention };
        let mut days = bounds.days(piece.hits);
        if !days.is_empty() {
            // Tomorrow's partition is made today, so that midnight costs nothing.
            days.insert(Day::of(connected.clock.now()).next());
            self.memory.partitions.make(connected.client(), days, self.patience).await?;
        }
        let held_back = self.ask(origin, piece, bounds).await;
        let started = Instant::now();
        let memory = &self.memory;
        let throttle = memory.throttle.as_ref();
        let judging = Judging::new(piece.hits, piece.first_hit(), origin.spool, bounds, throttle, &memory.known);
        let judging = judging.holding_back(held_back);
        let copying = memory.copy(connected.client(), origin.spool, piece.first_seq, judging);
        let (copied, judged) = match patiently(&mut self.patience, copying).await? {
            Ok(copied) => copied,
            Err(BatchError::MarkMoved(_)) => return Ok(Outcome::MarkMoved),
            Err(BatchError::Erasures) => return Ok(Outcome::Outdated),
            Err(BatchError::Data(error)) => return Ok(Outcome::Refused(said_by(&error))),
            Err(error @ BatchError::Partition(_)) => {
                self.memory.partitions.forget();
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let record = BatchRecord { missing: piece.missing, ..copied.record(piece.next_seq(), &judged) };
        connected.clock = self.commit(origin, piece, copied, record, judged).await?;
        self.metrics.copy_seconds.observe(started.elapsed().as_secs_f64());
        Ok(Outcome::Committed)
    }

    /// Asks the shared throttle which hits it holds back. Before the transaction, which must not wait for Redis.
    async fn ask(&mut self, origin: &Origin, piece: Piece<'_>, bounds: Bounds) -> Vec<u64> {
        let (Some(shared), Some(throttle)) = (&mut self.shared_throttle, &self.memory.throttle) else {
            return Vec::new();
        };
        let mut questions = questions(piece.hits, piece.first_hit(), bounds, throttle, &self.memory.known);
        match &origin.kind {
            OriginKind::Spool(_) => shared.ask(origin.mark, &questions).await,
            // Under the names that they would have had, so that they are the same hits for every state of the database.
            OriginKind::Orphans(taken) => {
                questions.iter_mut().for_each(|question| question.seq = taken.own_number(question.seq));
                let held_back = shared.ask(taken.waiting.mark, &questions).await;
                held_back.into_iter().map(|number| taken.number_of(number)).collect()
            }
        }
    }

    /// Commits a batch and counts it. Returns the database's clock. An error means that the outcome is unclear, and
    /// that the connection must be dropped; the batch is then counted if the mark, once it is read again, shows that it
    /// is in.
    async fn commit(
        &mut self,
        origin: &mut Origin,
        piece: Piece<'_>,
        copied: BatchTransaction<'_, RowsCopied>,
        mut record: BatchRecord,
        judged: Judged,
    ) -> anyhow::Result<Clock> {
        let (client, patience) = (copied.client(), &mut self.patience);
        match &mut origin.kind {
            OriginKind::Spool(_) => {
                self.aside.set_aside(client, origin.mark, piece, &judged, &mut record, patience).await?;
            }
            OriginKind::Orphans(taken) => patiently(patience, taken.take_to(client, record.next_seq)).await??,
        }
        let is_of_orphans = matches!(origin.kind, OriginKind::Orphans(_));
        self.pending = Some(Pending { spool: origin.mark, is_of_orphans, record, judged });
        let now = copied.now();
        patiently(&mut self.patience, copied.commit(&record)).await??;
        let clock = Clock::at(now);
        self.patience = PATIENCE.0;
        if let Some(pending) = self.pending.take() {
            self.count(pending);
        }
        Ok(clock)
    }

    /// A mark was read again after an unclear outcome: counts the pending batch, if it is in.
    pub(super) fn settle_pending(&mut self, spool: SpoolId, mark: u64) {
        if let Some(pending) = self.pending.take_if(|pending| pending.spool == spool)
            && pending.record.next_seq == mark
        {
            tracing::info!(spool = %pending.spool, mark, "the batch whose answer was lost was loaded");
            self.count(pending);
        }
    }

    /// Quarantines the one hit that PostgreSQL refuses, and moves the mark past it.
    async fn quarantine(
        &mut self,
        connected: &mut Connected,
        origin: &mut Origin,
        piece: Piece<'_>,
        reason: &str,
    ) -> anyhow::Result<()> {
        let (uuid, seq) = (origin.uuid(), piece.first_hit());
        tracing::error!(seq, reason, "PostgreSQL refuses a hit; it is kept in the folder quarantine");
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        piece.hits.iter().for_each(|hit| hit.encode(&mut bytes));
        frame::finish(&mut bytes, start, FrameKey::of(uuid), seq, piece.hits.len() as u32);
        let erasures = self.memory.erased.version();
        let beginning = BatchTransaction::begin(connected.client(), origin.spool, piece.first_seq, erasures);
        let copied = patiently(&mut self.patience, beginning).await??.without_rows();
        // Not earlier: from here on no erasure is recorded whose eraser would have searched this file.
        copy_aside(&quarantine(&self.options.spools), &format!("{uuid}-{seq:020}.refused"), &bytes);
        let judged = Judged::default();
        let quarantined = piece.hits.len() as u64;
        let record = BatchRecord { missing: piece.missing, quarantined, ..copied.record(piece.next_seq(), &judged) };
        connected.clock = self.commit(origin, piece, copied, record, judged).await?;
        // It is not a row, so it must not hold a later one back.
        if let (Some(shared), Some(throttle), Some(hit)) =
            (&mut self.shared_throttle, &self.memory.throttle, piece.hits.first())
            && let Some(token) = throttle.token(hit, self.memory.known.user_agent(hit.user_agent).own)
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
        if let Some(throttle) = &mut self.memory.throttle {
            throttle.spend(spool, judged.tokens.into_tokens());
        }
    }
}

/// Ranges of hits that are one batch each: within [`SPAN_MAX`] of each other and at most `hits_max`.
fn ranges(hits: &[Hit<'_>], hits_max: usize) -> Vec<Range<usize>> {
    let mut spans = spans(hits.iter().map(|hit| Some(hit.at)), SPAN_MAX, SPANS_MAX);
    if spans.is_empty() {
        // Without hits there is still a batch: numbers may be missing.
        spans.push(0..0);
    }
    let cut = |span: Range<usize>| {
        let starts = std::iter::once(span.start).chain(span.clone().step_by(hits_max).skip(1));
        starts.map(move |start| start..span.end.min(start.saturating_add(hits_max)))
    };
    spans.into_iter().flat_map(cut).collect()
}

/// The server's own error text, without the row that it may quote, which contains an address and ids.
fn said_by(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::clock::micros::Micros;
    use pixeld_core::hit::fixture::carrying;

    fn ranges_of(hits: &[Hit<'_>], hits_max: usize) -> Vec<(usize, usize)> {
        ranges(hits, hits_max).into_iter().map(|range| (range.start, range.end)).collect()
    }

    fn spans_of(hours: &[i64]) -> Vec<(usize, usize)> {
        let hit = |&hour: &i64| Hit { at: Micros::of_seconds(hour * 3600), ..carrying(0, "") };
        ranges_of(&hours.iter().map(hit).collect::<Vec<_>>(), usize::MAX)
    }

    #[test]
    fn no_batch_has_more_hits_than_one_question_and_none_is_left_out() {
        let hits = [5, 5, 5, 7, 7, 7, 7, 7].map(|hour| Hit { at: Micros::of_seconds(hour * 3600), ..carrying(0, "") });
        assert_eq!(ranges_of(&hits, 2), [(0, 2), (2, 3), (3, 5), (5, 7), (7, 8)]);
        assert_eq!(ranges_of(&hits, 3), [(0, 3), (3, 6), (6, 8)]);
        assert_eq!(ranges_of(&[], 3), [(0, 0)]);
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
