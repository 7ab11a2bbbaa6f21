//! The loader: spools → PostgreSQL, exactly once.
//!
//! Guarantees: a hit is in `hits` once, whatever is killed when: rows and the mark move in one transaction, and the mark is
//! read again before anything is tried again. A data error costs one row (copied aside and counted), never the stream. It
//! never gives up on an outage; it waits, at most [`RETRY_PAUSE_MAX`] between attempts. A recipient's hits are dropped from the
//! moment of their opt-out on: who opted out is asked in the transaction itself. Put back to an earlier state (a restored backup, a
//! failover), a database gets what it lacks, and what it lost throttles nothing. A mark that is ahead passes over no hit but those
//! that are loaded (`loader/ahead.rs`). Hits of an image that the database lost are set aside until it is there again
//! (`loader/orphans.rs`). Gives up: order between spools;
//! older ones go first, and one that cannot be read any further does not stop the others.

mod ahead;
mod bring;
mod orphans;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::Instrument;
use uuid::Uuid;

use self::ahead::Ahead;
use self::bring::Pending;
use self::orphans::Aside;
use super::housekeeper::HOUSEKEEPING;
use super::judge::Day;
use super::known::Known;
use super::shared_throttle::SharedThrottle;
use super::source::Source;
use super::throttle::{Throttle, ThrottleKey};
use super::transaction as queries;
use crate::clocks::Clocks;
use crate::config::Secret;
use crate::db::{Database, Session, installation, refused_with};
use crate::erasure::erased::Erased;
use crate::hit::Hit;
use crate::images::ImageCache;
use crate::link::key::Namespace;
use crate::metrics::Metrics;
use crate::opt_outs::follow::Reader;
use crate::opt_outs::suppressed::Suppressed;
use crate::shutdown::Drain;
use crate::spool::Spool;
use crate::spool::orphans::Orphans;

/// Rows that one batch brings at most, give or take a frame.
pub const BATCH_ROWS_MAX: u64 = 50_000;

/// The least time from one batch's start to the next's, so that a trickle of hits is not a stream of commits.
pub const FLUSH_DELAY: Duration = Duration::from_millis(200);

/// The longest wait between two attempts.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A lock that is not given is said by the server before our own patience ends, so that its holder can be looked for.
const LOADER_SETTINGS: &str = "SET lock_timeout = '4s'";

/// How long a spool whose mark somebody else holds is left alone.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// How long a batch may take before its connection is given up; doubled after each time-out, up to the second.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// What the loader works with.
#[derive(Debug)]
pub struct LoaderOptions {
    /// The folder that holds all spools.
    pub spools: PathBuf,
    /// How long a hit of the same fetch is held back; none is off.
    pub throttle: Option<Duration>,
    /// The Redis through which nodes share their throttle; none is each for itself.
    pub redis: Option<Secret>,
    /// Hits older than this are dropped.
    pub retention: Option<Duration>,
    /// How long hits that were set aside are kept after they are loaded.
    pub keep: Duration,
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
    erased: Erased,
    throttle: Option<Throttle>,
    shared_throttle: Option<SharedThrottle>,
    /// What keys are made ids under; learnt with the first connection, and so before the first hit is loaded.
    namespace: Option<Namespace>,
    /// Keeps step with who opted out.
    opt_outs: Reader,
    partitions: HashSet<Day>,
    pending: Option<Pending>,
    aside: Aside,
    session: Option<Session>,
    /// Spools whose mark another connection holds, and when to ask again.
    held: HashMap<Uuid, Instant>,
    clock: Clock,
    clocks: Arc<Clocks>,
    patience: Duration,
    committed: Arc<Notify>,
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
    /// A loader of `recovered` spools, oldest first, of the one that is being written, if any, and of hits that were set aside.
    #[must_use]
    pub fn new(
        options: LoaderOptions,
        db: Database,
        metrics: Arc<Metrics>,
        recovered: Vec<Arc<Spool>>,
        live: Option<Arc<Spool>>,
        orphans: Arc<Orphans>,
    ) -> Loader {
        let mut sources: Vec<Source> =
            recovered.into_iter().map(|spool| Source::recovered(spool, &options.spools)).collect();
        let backlog: u64 = sources.iter().map(|source| source.counted).sum();
        metrics.recovered.set(backlog as i64);
        metrics.spooled.add(backlog as i64);
        sources.extend(live.map(|spool| Source::live(spool, &options.spools)));
        let clock = Clock { database_us: crate::clock::now_us(), read: Instant::now() };
        let aside = Aside::new(orphans, options.keep);
        let loader = Loader {
            options,
            db,
            metrics,
            sources,
            known: Known::default(),
            opt_outs: Reader::default(),
            erased: Erased::default(),
            throttle: None,
            shared_throttle: None,
            namespace: None,
            partitions: HashSet::new(),
            pending: None,
            aside,
            session: None,
            held: HashMap::new(),
            clock,
            clocks: Arc::default(),
            patience: PATIENCE.0,
            committed: Arc::default(),
        };
        loader.heeding(Arc::default())
    }

    /// The same loader, which tells `committed` of each batch that has hits in PostgreSQL.
    #[must_use]
    pub fn telling(mut self, committed: Arc<Notify>) -> Loader {
        self.committed = committed;
        self
    }

    /// The same loader, which tells `suppressed` what it learns of opt-outs, and so makes use of what others learn.
    #[must_use]
    pub fn heeding(mut self, suppressed: Arc<Suppressed>) -> Loader {
        self.known.heed(&suppressed);
        self.opt_outs = Reader::new(suppressed);
        self
    }

    /// The same loader, which keeps hits of images that this node knows and the database does not have.
    #[must_use]
    pub fn knowing(mut self, images: Arc<ImageCache>) -> Loader {
        self.known.compare_images(images);
        self
    }

    /// The same loader, which compares the clocks together with others.
    #[must_use]
    pub fn with_clocks(mut self, clocks: Arc<Clocks>) -> Loader {
        self.clocks = clocks;
        self
    }

    /// Loads, once the database is `ready`, until `drain` is asked for and all is loaded, or its deadline has passed.
    /// Returns how many hits are left.
    pub async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) -> u64 {
        let mut pause = Duration::ZERO;
        match (self.options.throttle, &self.options.redis) {
            (Some(window), Some(url)) => self.shared_throttle = SharedThrottle::start(url, window, &self.metrics),
            (None, Some(_)) => tracing::info!("PIXELD_THROTTLE is off, so REDIS_URL is not used"),
            (_, None) => {}
        }
        self.aside.begin(&self.metrics);
        let mut ready = std::pin::pin!(ready);
        loop {
            self.note_oldest();
            let ended = async {
                drain.asked().await;
                if self.behind() > 0 {
                    drain.deadline().await;
                }
            };
            tokio::select! {
                () = &mut ready => break,
                () = ended => return self.behind(),
                () = tokio::time::sleep(HOUSEKEEPING) => {}
            }
        }
        loop {
            let started = Instant::now();
            let turn = tokio::select! {
                turn = self.turn() => turn,
                () = drain.deadline() => break,
            };
            self.sources.retain(|source| !source.spool.is_gone());
            if turn.is_ok() && self.metrics.load_refused.load().is_some() {
                self.metrics.load_refused.store(None);
            }
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
                    if !self.sources.iter().any(Source::is_behind) {
                        // Else the next hit would seem to have waited since the last one.
                        self.metrics.oldest_at_us.store(0, Ordering::Relaxed);
                    }
                    self.wait_for_hits(&mut drain).await;
                }
                Err(error) => {
                    self.metrics.load_retries.one();
                    self.metrics.database_up.set(0);
                    self.metrics.load_refused.store(refused_with(&error).map(Arc::new));
                    self.session = None;
                    self.note_oldest();
                    if pause.is_zero() {
                        tracing::warn!(
                            error = crate::db::told(&error),
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
        // Also of those that are read to their end, so that no file stays open that was written anew.
        self.sources.iter_mut().for_each(|source| source.reader.refresh());
        if self.bring_back().await? {
            return Ok(Turn::Went);
        }
        for at in 0..self.sources.len() {
            let spool = &self.sources[at].spool;
            let span = crate::spool::span(spool.uuid);
            let is_held = self.held.get(&self.sources[at].mark.uuid).is_some_and(|until| Instant::now() < *until);
            // Nobody loads behind a mark that somebody else holds; the other spools go on meanwhile.
            let is_empty = spool.published().next_seq == 0;
            if self.sources[at].number.is_none()
                && (is_held || is_empty || !self.claim(at).instrument(span.clone()).await?)
            {
                continue;
            }
            if self.sources[at].is_done() {
                continue;
            }
            let chunk = span.in_scope(|| self.sources[at].reader.read(BATCH_ROWS_MAX));
            self.metrics.damages.add(self.sources[at].reader.take_damages());
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    span.in_scope(|| self.sources[at].is_unreadable(&error));
                    continue;
                }
            };
            self.sources[at].unreadable_since = None;
            if chunk.is_empty() {
                continue;
            }
            let loaded = self.load(at, &chunk).instrument(span).await;
            if loaded.is_err() {
                // What was committed of it is known once the mark is read again.
                self.sources[at].forget_mark();
            }
            loaded?;
            return Ok(Turn::Went);
        }
        let unreadable = self.sources.iter().filter(|source| source.unreadable_since.is_some()).count();
        self.metrics.spools_unreadable.set(unreadable as i64);
        Ok(Turn::Idle)
    }

    /// Looks at the first hit that waits, so that the lag is known while the database is away.
    fn note_oldest(&mut self) {
        let Some(source) = self.sources.iter_mut().find(|source| source.is_behind()) else { return };
        source.reader.seek(source.loaded_seq);
        let Ok(chunk) = source.reader.read(1) else { return };
        source.reader.seek(source.loaded_seq);
        // Damage is counted when its hits are loaded, not each time that it is looked at.
        source.reader.take_damages();
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
            within(self.patience, session.client.batch_execute(LOADER_SETTINGS)).await?;
            if self.throttle.is_none()
                && let Some(window) = self.options.throttle
            {
                let key: ThrottleKey = within(self.patience, installation::throttle_key(&session.client)).await?;
                self.throttle = Some(Throttle::new(window, key));
            }
            if self.namespace.is_none() {
                self.namespace = Some(within(self.patience, installation::namespace(&session.client)).await?);
            }
            within(self.patience, self.opt_outs.list(&session.client)).await?;
            // Of all spools, before the first hit is judged: one of them may be loaded again before another's mark is read.
            let spools = self.throttle.as_ref().map(Throttle::spools).unwrap_or_default();
            for (spool, mark) in within(self.patience, queries::marks(&session.client, &spools)).await? {
                self.forget_lost(spool, mark);
            }
            self.session = Some(session);
            self.metrics.database_up.set(1);
            // It may be another database, restored from a backup.
            self.erased.forget();
            self.known.forget_images();
            self.aside.forget();
            // A mark is read anew on every connection: it may have been left unclear by the last one.
            self.sources.iter_mut().for_each(Source::forget_mark);
        }
        Ok(())
    }

    /// Reads a source's mark and puts its reader there. Says whether that could be done: another connection may hold it.
    async fn claim(&mut self, at: usize) -> anyhow::Result<bool> {
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        let source = &self.sources[at];
        let claimed = within(self.patience, async {
            anyhow::Ok(queries::claim_mark(&session.client, source.mark, &self.options.node).await)
        });
        let mark = match claimed.await? {
            Ok(mark) => mark,
            Err(error) if queries::is_held(&error) => {
                let ended = within(self.patience, queries::end_predecessor(&session.client, source.mark.uuid)).await?;
                tracing::warn!(spool = %source.mark.uuid, ended, "another connection holds the mark");
                self.held.insert(source.mark.uuid, Instant::now() + HELD_PAUSE);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.clock = Clock { database_us: mark.now_us, read: Instant::now() };
        self.settle_pending(self.sources[at].mark.uuid, mark.next_seq);
        let loaded_seq = self.sources[at].loaded_seq;
        if mark.next_seq > loaded_seq
            && let Ahead::OtherHits(from) = self.look_ahead(at, mark.spool, mark.next_seq).await?
        {
            self.fork(at, from)?;
            return Ok(false);
        }
        if mark.next_seq != loaded_seq {
            self.mark_is_elsewhere(at, mark.next_seq);
        }
        let source = &mut self.sources[at];
        source.reader.seek(source.loaded_seq);
        // Not before: from here on what is loaded may be removed.
        source.mark_is_known(mark.spool);
        Ok(true)
    }

    /// PostgreSQL says that a source is loaded to another number than we thought: it is right.
    fn mark_is_elsewhere(&mut self, at: usize, mark: u64) {
        let source = &self.sources[at];
        let (spool, thought) = (source.mark.uuid, source.loaded_seq);
        if mark < thought {
            tracing::warn!(%spool, thought, mark, "the database was put back: what it lacks is loaded again");
        } else {
            tracing::info!(%spool, thought, mark, "the mark is ahead: these hits were loaded from a copy");
        }
        self.passed_over(at, mark);
        self.forget_lost(spool, mark);
    }

    /// Goes on at `mark`, which somebody else brought a source's hits to.
    fn passed_over(&mut self, at: usize, mark: u64) {
        let source = &mut self.sources[at];
        let published = source.spool.published().next_seq;
        let moved = mark.min(published) as i64 - source.loaded_seq.min(published) as i64;
        // Not by this process: neither loaded nor dropped by it, so it was no backlog of its own.
        self.metrics.recovered.add(-moved);
        self.metrics.spooled.add(-moved);
        source.loaded(mark);
        source.reader.seek(mark);
    }

    fn session(&self) -> anyhow::Result<&Session> {
        self.session.as_ref().ok_or_else(|| anyhow::anyhow!("the connection is gone"))
    }

    /// The database has a spool up to `mark`: what was recorded of it beyond that must not hold its own hits back.
    fn forget_lost(&mut self, spool: Uuid, mark: u64) {
        let forgotten = self.throttle.as_mut().map_or(0, |throttle| throttle.forget_from(spool, mark));
        if forgotten > 0 {
            tracing::info!(%spool, mark, forgotten, "the throttle forgets hits that the database lost");
        }
    }
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
