//! The loader: spools → PostgreSQL, exactly once.
//!
//! Guarantees: a hit is in `hits` once, whatever is killed when: rows and the mark move in one transaction, and the mark is
//! read again before anything is tried again. A data error costs one row (copied aside and counted), never the stream. It
//! never gives up on an outage; it waits, at most [`RETRY_PAUSE_MAX`] between attempts. Gives up: order between spools;
//! older ones go first, and one that cannot be read any further does not stop the others.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::house::{HOUSEKEEPING, House};
use super::judge::{self, Bounds, Judged};
use super::known::Known;
use super::source::Source;
use super::spool::reader::Chunk;
use super::spool::recovery::{copy_aside, quarantine};
use super::spool::{Spool, SpoolRoom, frame};
use super::throttle::{Throttle, ThrottleKey};
use crate::config::SpoolKeep;
use crate::db::hits::{self as queries, BatchError, BatchRecord};
use crate::db::{Database, Session};
use crate::hit::Hit;
use crate::metrics::{DropReason, Metrics};
use crate::shutdown::Drain;

/// Rows that one batch brings at most, give or take a frame.
pub const BATCH_ROWS_MAX: u64 = 20_000;

/// The least time from one batch's start to the next's, so that a trickle of hits is not a stream of commits.
pub const FLUSH_DELAY: Duration = Duration::from_millis(200);

/// The longest wait between two attempts.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a batch may take before its connection is given up; doubled after each time-out, up to the second.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// What the loader works with.
#[derive(Debug)]
pub struct LoaderOptions {
    /// The folder that holds all spools.
    pub spools: PathBuf,
    /// How long a hit of the same fetch is held back; none is off.
    pub throttle: Option<Duration>,
    /// Hits older than this are dropped.
    pub retention: Option<Duration>,
    /// How long loaded segments are kept.
    pub keep: SpoolKeep,
    /// This machine's name, for the mark.
    pub node: String,
}

/// Loads spools into PostgreSQL.
pub struct Loader {
    options: LoaderOptions,
    db: Database,
    metrics: Arc<Metrics>,
    sources: Vec<Source>,
    known: Known,
    throttle: Option<Throttle>,
    partitions: HashSet<time::Date>,
    session: Option<Session>,
    clock: Clock,
    patience: Duration,
    house: House,
}

/// The database's clock, read now and then and carried on by ours, which cannot jump.
#[derive(Debug, Clone, Copy)]
struct Clock {
    database_us: i64,
    read: Instant,
}

impl Clock {
    fn now_us(self) -> i64 {
        self.database_us + i64::try_from(self.read.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// What one turn of the loader came to.
enum Turn {
    /// A batch was committed, or a mark was found elsewhere: go on at once.
    Went,
    /// Nothing is there to load.
    Idle,
}

impl Loader {
    /// A loader of `recovered` spools, oldest first, and of the one that is being written, if any.
    #[must_use]
    pub fn new(
        options: LoaderOptions,
        db: Database,
        metrics: Arc<Metrics>,
        room: Arc<SpoolRoom>,
        recovered: Vec<Arc<Spool>>,
        live: Option<Arc<Spool>>,
    ) -> Loader {
        let mut sources: Vec<Source> =
            recovered.into_iter().map(|spool| Source::recovered(spool, &options.spools)).collect();
        let backlog: u64 = sources.iter().map(|source| source.counted).sum();
        metrics.recovered.set(backlog as i64);
        metrics.spooled.add(backlog as i64);
        sources.extend(live.map(|spool| Source::live(spool, &options.spools)));
        let clock = Clock { database_us: crate::hit::now_us(), read: Instant::now() };
        let house = House::new(options.spools.clone(), options.keep, room, Arc::clone(&metrics));
        Loader {
            options,
            db,
            metrics,
            sources,
            known: Known::default(),
            throttle: None,
            partitions: HashSet::new(),
            session: None,
            clock,
            patience: PATIENCE.0,
            house,
        }
    }

    /// Loads, once the database is `ready`, until `drain` is asked for and all is loaded, or its deadline has passed.
    /// Returns how many hits are left.
    pub async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) -> u64 {
        let mut pause = Duration::ZERO;
        let mut ready = std::pin::pin!(ready);
        loop {
            self.note_oldest();
            self.house.keep(&mut self.sources);
            tokio::select! {
                () = &mut ready => break,
                () = drain.deadline() => return self.behind(),
                () = tokio::time::sleep(HOUSEKEEPING) => {}
            }
        }
        loop {
            let started = Instant::now();
            let turn = tokio::select! {
                turn = self.turn() => turn,
                () = drain.deadline() => break,
            };
            self.house.keep(&mut self.sources);
            match turn {
                Ok(Turn::Went) => {
                    pause = Duration::ZERO;
                    if self.behind() < BATCH_ROWS_MAX && !drain.is_asked() {
                        tokio::time::sleep(FLUSH_DELAY.saturating_sub(started.elapsed())).await;
                    }
                }
                Ok(Turn::Idle) => {
                    if drain.is_asked() && self.sources.iter().all(Source::is_done) {
                        break;
                    }
                    self.wait_for_hits(&mut drain).await;
                }
                Err(error) => {
                    self.metrics.load_retries.one();
                    self.metrics.database_up.set(0);
                    self.session = None;
                    self.note_oldest();
                    if pause.is_zero() {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "hits cannot be loaded now; they wait in the spool"
                        );
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(50), RETRY_PAUSE_MAX);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = drain.deadline() => break,
                    }
                }
            }
        }
        self.behind()
    }

    async fn wait_for_hits(&self, drain: &mut Drain) {
        let live = self.sources.iter().rev().find(|source| !source.is_done());
        let grown = async {
            match live {
                Some(source) => source.spool.grown.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = grown => {}
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            () = drain.asked(), if !drain.is_asked() => {}
        }
    }

    /// Hits that are published and not loaded.
    fn behind(&self) -> u64 {
        self.sources.iter().map(|s| s.spool.published().next_seq.saturating_sub(s.loaded_seq)).sum()
    }

    /// Loads one chunk of the oldest spool that has one.
    async fn turn(&mut self) -> anyhow::Result<Turn> {
        self.connect().await?;
        for at in 0..self.sources.len() {
            if self.sources[at].number.is_none() && self.sources[at].spool.published().next_seq > 0 {
                self.claim(at).await?;
            }
            if self.sources[at].number.is_none() || self.sources[at].is_done() {
                continue;
            }
            let chunk = self.sources[at].reader.read(BATCH_ROWS_MAX);
            self.metrics.damages.add(self.sources[at].reader.take_damages());
            let chunk = match chunk {
                Ok(chunk) if chunk.is_empty() => continue,
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::error!(%error, spool = %self.sources[at].spool.uuid, "a segment cannot be read now");
                    continue;
                }
            };
            let loaded = self.load(at, &chunk).await;
            if loaded.is_err() {
                // What was committed of it is known once the mark is read again.
                self.sources[at].number = None;
            }
            loaded?;
            return Ok(Turn::Went);
        }
        Ok(Turn::Idle)
    }

    /// Looks at the first hit that waits, so that the lag is known while the database is away.
    fn note_oldest(&mut self) {
        let Some(source) = self.sources.iter_mut().find(|source| source.is_behind()) else { return };
        source.reader.seek(source.loaded_seq);
        let Ok(chunk) = source.reader.read(1) else { return };
        source.reader.seek(source.loaded_seq);
        if let Ok((hit, _)) = Hit::decode(&chunk.bytes) {
            self.metrics.oldest_at_us.store(hit.at_us, Ordering::Relaxed);
        }
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            let session = self.db.connect("pixeld-loader").await?;
            if self.throttle.is_none()
                && let Some(window) = self.options.throttle
            {
                let key: ThrottleKey = within(self.patience, queries::throttle_key(&session.client)).await?;
                self.throttle = Some(Throttle::new(window, key));
            }
            self.session = Some(session);
            self.metrics.database_up.set(1);
            // A mark is read anew on every connection: it may have been left unclear by the last one.
            self.sources.iter_mut().for_each(|source| source.number = None);
        }
        Ok(())
    }

    /// Reads a source's mark and puts its reader there.
    async fn claim(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let source = &mut self.sources[at];
        let claimed = within(self.patience, async {
            anyhow::Ok(queries::claim_mark(&session.client, source.spool.uuid, &self.options.node).await)
        });
        let mark = match claimed.await? {
            Ok(mark) => mark,
            Err(error) if queries::is_held(&error) => {
                let ended = within(self.patience, queries::end_predecessor(&session.client, source.spool.uuid)).await?;
                tracing::warn!(spool = %source.spool.uuid, ended, "another connection holds the mark");
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        self.clock = Clock { database_us: mark.now_us, read: Instant::now() };
        source.number = Some(mark.spool);
        if mark.next_seq != source.loaded_seq {
            self.mark_is_elsewhere(at, mark.next_seq);
        }
        let source = &mut self.sources[at];
        source.reader.seek(source.loaded_seq);
        Ok(())
    }

    /// PostgreSQL says that a source is loaded to another number than we thought: it is right.
    fn mark_is_elsewhere(&mut self, at: usize, mark: u64) {
        let source = &mut self.sources[at];
        let published = source.spool.published().next_seq;
        let moved = mark.min(published) as i64 - source.loaded_seq.min(published) as i64;
        tracing::info!(spool = %source.spool.uuid, thought = source.loaded_seq, mark, "the mark is elsewhere");
        // Not by this process: neither loaded nor dropped by it, so it was no backlog of its own.
        self.metrics.recovered.add(-moved);
        self.metrics.spooled.add(-moved);
        source.loaded(mark);
        source.reader.seek(mark);
    }

    /// Brings a chunk: whole, or where PostgreSQL refuses the data, in halves down to the one bad row.
    async fn load(&mut self, at: usize, chunk: &Chunk) -> anyhow::Result<()> {
        let mut hits = Vec::with_capacity(chunk.count as usize);
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            let (hit, behind) = Hit::decode(rest)?;
            hits.push(hit);
            rest = behind;
        }
        if let Some(first) = hits.first() {
            self.metrics.oldest_at_us.store(first.at_us, Ordering::Relaxed);
        }
        let Some(session) = self.session.as_ref() else { anyhow::bail!("the connection is gone") };
        within(self.patience, self.known.learn(&session.client, &hits)).await?;
        let mut missing = chunk.missing;
        let mut first_seq = chunk.first_seq;
        // Ranges of hits still to bring, the next one last.
        let mut ranges = Vec::from([(0, hits.len())]);
        while let Some((from, to)) = ranges.pop() {
            let piece = Piece { first_seq, missing, hits: &hits[from..to] };
            match self.bring(at, piece).await? {
                Brought::Committed => {
                    first_seq = piece.next_seq();
                    missing = 0;
                }
                Brought::Refused(reason) if to - from <= 1 => {
                    self.quarantine(at, piece, &reason).await?;
                    first_seq = piece.next_seq();
                    missing = 0;
                }
                Brought::Refused(_) => {
                    let middle = from + (to - from) / 2;
                    ranges.extend([(middle, to), (from, middle)]);
                }
                Brought::Elsewhere(mark) => {
                    self.mark_is_elsewhere(at, mark);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn bring(&mut self, at: usize, piece: Piece<'_>) -> anyhow::Result<Brought> {
        let Some(spool) = self.sources[at].number else { anyhow::bail!("the spool has no number") };
        let bounds =
            Bounds { now_us: self.clock.now_us(), built_us: crate::BUILT_US, retention: self.options.retention };
        let known = &self.known;
        let first_hit = piece.first_seq + piece.missing;
        let mut judged = judge::judge(
            piece.hits,
            first_hit,
            spool,
            bounds,
            self.throttle.as_ref(),
            |image| known.has_image(image),
            |text| known.user_agent(text),
        );
        let record = BatchRecord {
            spool,
            first_seq: piece.first_seq,
            next_seq: piece.next_seq(),
            loaded: judged.loaded,
            throttled: judged.throttled,
            expired: judged.expired,
            unknown_image: judged.unknown_image,
            missing: piece.missing,
            quarantined: 0,
            at_us: (judged.loaded > 0).then_some((judged.min_at_us, judged.max_at_us)),
        };
        self.make_partitions(&judged).await?;
        let rows = std::mem::take(&mut judged.rows);
        match self.commit(&record, rows).await? {
            Brought::Committed => {
                self.count(at, &record, &judged);
                if let Some(throttle) = &mut self.throttle {
                    throttle.spend(judged.tokens.into_tokens());
                }
                Ok(Brought::Committed)
            }
            other => Ok(other),
        }
    }

    /// Commits a batch. An error means that the outcome is unclear, and that the connection must go.
    async fn commit(&mut self, record: &BatchRecord, rows: bytes::BytesMut) -> anyhow::Result<Brought> {
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let started = Instant::now();
        let outcome = tokio::time::timeout(self.patience, queries::bring(&session.client, record, rows)).await;
        let Ok(outcome) = outcome else {
            let waited = self.patience;
            self.patience = (self.patience * 2).min(PATIENCE.1);
            anyhow::bail!("a batch took longer than {waited:?}");
        };
        match outcome {
            Ok(()) => {
                self.patience = PATIENCE.0;
                self.metrics.copy_seconds.observe(started.elapsed().as_secs_f64());
                Ok(Brought::Committed)
            }
            Err(BatchError::MarkMoved(mark)) => Ok(Brought::Elsewhere(mark)),
            Err(BatchError::Data(error)) => Ok(Brought::Refused(said_by(&error))),
            Err(error @ BatchError::Partition(_)) => {
                self.partitions.clear();
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn make_partitions(&mut self, judged: &Judged) -> anyhow::Result<()> {
        if judged.loaded == 0 {
            return Ok(());
        }
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let (first, last) = (day_of(judged.min_at_us)?, day_of(judged.max_at_us)?);
        let tomorrow = day_of(self.clock.now_us())?.next_day();
        let mut day = Some(first);
        let days = std::iter::from_fn(|| {
            let today = day.filter(|&today| today <= last)?;
            day = today.next_day();
            Some(today)
        });
        // Tomorrow's is made today, so that midnight costs nothing.
        for day in days.chain(tomorrow) {
            if !self.partitions.contains(&day) {
                within(self.patience, queries::make_partition(&session.client, day)).await?;
                self.partitions.insert(day);
            }
        }
        Ok(())
    }

    /// Keeps the one hit that PostgreSQL refuses aside, and moves the mark over it.
    async fn quarantine(&mut self, at: usize, piece: Piece<'_>, reason: &str) -> anyhow::Result<()> {
        let source = &self.sources[at];
        let Some(spool) = source.number else { anyhow::bail!("the spool has no number") };
        let seq = piece.first_seq + piece.missing;
        tracing::error!(spool = %source.spool.uuid, seq, reason, "PostgreSQL refuses a hit; it is kept aside");
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        piece.hits.iter().for_each(|hit| hit.encode(&mut bytes));
        frame::finish(&mut bytes, start, source.spool.key, seq, piece.hits.len() as u32);
        copy_aside(&quarantine(&self.options.spools), &format!("{}-{seq:020}.refused", source.spool.uuid), &bytes);
        let record = BatchRecord {
            spool,
            first_seq: piece.first_seq,
            next_seq: piece.next_seq(),
            missing: piece.missing,
            quarantined: piece.hits.len() as u64,
            ..BatchRecord::default()
        };
        match self.commit(&record, bytes::BytesMut::new()).await? {
            Brought::Committed => {
                self.count(at, &record, &Judged::default());
                Ok(())
            }
            Brought::Refused(reason) => anyhow::bail!("PostgreSQL refuses the record of a refused hit: {reason}"),
            Brought::Elsewhere(mark) => anyhow::bail!("the mark moved to {mark} meanwhile"),
        }
    }

    fn count(&mut self, at: usize, record: &BatchRecord, judged: &Judged) {
        let metrics = &self.metrics;
        metrics.loaded.add(record.loaded);
        for (reason, n) in [
            (DropReason::Throttled, record.throttled),
            (DropReason::UnknownImage, record.unknown_image),
            (DropReason::Expired, record.expired),
            (DropReason::Quarantined, record.quarantined),
            (DropReason::Damaged, record.missing),
        ] {
            metrics.drop_hits(reason, n);
        }
        metrics.clamped.add(judged.clamped);
        metrics.user_agents_capped.add(judged.user_agents_capped);
        metrics.spooled.add(-((record.next_seq - record.first_seq) as i64));
        metrics.batch_rows.observe(record.loaded as f64);
        self.sources[at].loaded(record.next_seq);
    }
}

/// Consecutive numbers of one spool: some missing, then hits.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    first_seq: u64,
    missing: u64,
    hits: &'a [Hit<'a>],
}

impl Piece<'_> {
    fn next_seq(&self) -> u64 {
        self.first_seq + self.missing + self.hits.len() as u64
    }
}

/// What became of a piece.
enum Brought {
    Committed,
    /// PostgreSQL refuses its data, and says why.
    Refused(String),
    /// The mark is at this number.
    Elsewhere(u64),
}

/// A bound on every exchange with PostgreSQL: COPY ignores statement_timeout, and a frozen server answers nothing at all.
async fn within<T, E: Into<anyhow::Error>>(
    patience: Duration,
    exchange: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(patience, exchange).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("PostgreSQL did not answer within {patience:?}"),
    }
}

fn day_of(at_us: i64) -> anyhow::Result<time::Date> {
    Ok(time::OffsetDateTime::from_unix_timestamp(at_us.div_euclid(1_000_000))?.date())
}

/// The server's own words, without the row that they may quote: it holds an address and ids.
fn said_by(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned())
}
