//! The loader: from spools to PostgreSQL, exactly once.
//!
//! A turn needs a connection (`loader/connected.rs`), a mark (`claim.rs`, `ahead.rs`) and a chunk of its spool, which
//! it loads in as few batches as it can (`load.rs`). `origin.rs` says where a batch's hits come from; `aside.rs` and
//! `orphans.rs` handle hits whose image is gone.
//!
//! Guarantees: a hit is in `hits` once, whatever is killed at any time ([`super::batch`] has the proof): after any
//! error the connection is dropped, and the mark is read again before anything is tried again. A data error costs one
//! row (quarantined and counted), never the stream. The loader never gives up in an outage; it waits, at most
//! [`RETRY_PAUSE_MAX`] between attempts. A recipient's hits are dropped from the moment of their opt-out on: the
//! transaction itself reads the opt-outs. A database that goes back to an earlier state (a restored backup, a failover)
//! gets what it lacks, and hits that it lost throttle nothing. A mark that is ahead skips only hits that are loaded.
//! Hits of an image that the database lost are set aside until it exists again. Gives up: order between spools; older
//! ones go first, and one that cannot be read any further does not stop the others.

mod ahead;
mod aside;
mod claim;
mod connected;
mod load;
mod origin;
mod orphans;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::Instrument;

use self::aside::Aside;
use self::connected::{Connected, PATIENCE};
use self::load::Pending;
use super::housekeeper::HOUSEKEEPING;
use super::known::Known;
use super::memory::Memory;
use super::shared_throttle::SharedThrottle;
use super::source::Source;
use crate::backoff::Backoff;
use crate::clocks::Clocks;
use crate::config::{Limits, Privacy, SpoolKeep};
use crate::db::{Database, refused_with};
use pixeld_core::drain::Drain;
use pixeld_core::hit::Hit;
use pixeld_core::link::key::Namespace;
use pixeld_core::metrics::Metrics;
use pixeld_edge::images::ImageCache;
use pixeld_edge::suppressed::Suppressed;
use pixeld_spool::Spool;
use pixeld_spool::orphans::Orphans;

/// Maximum rows in one batch, plus or minus a frame.
pub const BATCH_ROWS_MAX: u64 = 50_000;

/// Minimum time from one batch's start to the next's, so that a trickle of hits does not become a stream of commits.
pub const FLUSH_DELAY: Duration = Duration::from_millis(200);

/// The longest wait between two attempts.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The first of those waits.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);

/// The loader's options.
#[derive(Debug)]
pub struct LoaderOptions {
    /// The folder that holds all spools.
    pub spools: PathBuf,
    /// This machine's name, for the mark.
    pub node: String,
    /// The throttle, and the Redis through which nodes share it.
    pub limits: Limits,
    /// How old hits may be.
    pub privacy: Privacy,
    /// How long hits that were set aside are kept after they are loaded.
    pub keep: SpoolKeep,
}

/// Loads spools into PostgreSQL.
pub struct Loader {
    options: LoaderOptions,
    db: Database,
    metrics: Arc<Metrics>,
    sources: Vec<Source>,
    memory: Memory,
    shared_throttle: Option<SharedThrottle>,
    /// The namespace that turns keys into ids, as read over the first connection.
    namespace: Option<Namespace>,
    aside: Aside,
    /// Whether a writer appends to the newest of the sources.
    is_live: bool,
    pending: Option<Pending>,
    connected: Option<Connected>,
    patience: Duration,
    clocks: Arc<Clocks>,
    committed: Arc<Notify>,
}

/// The result of one turn of the loader.
enum Turn {
    /// A batch was committed, or a mark was at another number: continue at once.
    Progressed,
    /// There is nothing to load.
    Idle,
}

impl Loader {
    /// A loader of `recovered` spools, oldest first, of the spool that is being written, if any, and of hits that were
    /// set aside.
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
        let is_live = live.is_some();
        sources.extend(live.map(|spool| Source::live(spool, &options.spools)));
        Loader {
            aside: Aside::new(orphans, options.keep.age),
            is_live,
            options,
            db,
            metrics,
            sources,
            memory: Memory::new(Known::default(), Arc::default()),
            shared_throttle: None,
            namespace: None,
            pending: None,
            connected: None,
            patience: PATIENCE.0,
            clocks: Arc::default(),
            committed: Arc::default(),
        }
    }

    /// The same loader, which notifies `committed` of each batch that has hits in PostgreSQL.
    #[must_use]
    pub fn with_commit_notifier(mut self, committed: Arc<Notify>) -> Loader {
        self.committed = committed;
        self
    }

    /// The same loader, which shares its opt-outs with others through `suppressed`.
    #[must_use]
    pub fn with_opt_outs(mut self, suppressed: Arc<Suppressed>) -> Loader {
        self.memory.use_opt_outs(suppressed);
        self
    }

    /// The same loader, which keeps hits of images that this node knows and the database lacks.
    #[must_use]
    pub fn with_images(mut self, images: Arc<ImageCache>) -> Loader {
        self.memory.known.compare_images(images);
        self
    }

    /// The same loader, which compares the clocks together with others.
    #[must_use]
    pub fn with_clocks(mut self, clocks: Arc<Clocks>) -> Loader {
        self.clocks = clocks;
        self
    }

    /// Loads, once the database is `ready`, until the drain is asked for and everything is loaded, or the drain's
    /// deadline has passed. Returns how many hits are left.
    pub async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) -> u64 {
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        match (self.options.limits.throttle, &self.options.limits.redis_url) {
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
            // A database that is ready comes first: hits that wait for an image are not in `behind`, and may be loaded
            // now.
            tokio::select! {
                biased;
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
                Ok(Turn::Progressed) => {
                    backoff.succeed();
                    if self.behind() < BATCH_ROWS_MAX && !drain.is_asked() {
                        tokio::time::sleep(FLUSH_DELAY.saturating_sub(started.elapsed())).await;
                    }
                }
                Ok(Turn::Idle) => {
                    // Hits that wait for their image may go on waiting, except for the command that must leave nothing.
                    let is_held = self.aside.is_held && !self.is_live;
                    if drain.is_asked() && self.sources.iter().all(Source::is_done) && !is_held {
                        break;
                    }
                    if !self.sources.iter().any(Source::is_behind) {
                        // Otherwise the next hit would seem to have waited since the last one.
                        self.metrics.oldest_at_us.store(0, Ordering::Relaxed);
                    }
                    self.wait_for_hits(&mut drain).await;
                }
                Err(error) => {
                    let pause = self.turn_failed(&error, &mut backoff);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = drain.deadline() => break,
                    }
                }
            }
        }
        self.behind()
    }

    /// Counts a failed turn, and logs the first of several. Returns the pause before the next one.
    fn turn_failed(&mut self, error: &anyhow::Error, backoff: &mut Backoff) -> Duration {
        self.metrics.load_retries.one();
        self.metrics.database_up.set(0);
        self.metrics.load_refused.store(refused_with(error).map(Arc::new));
        self.note_oldest();
        if !backoff.is_failing() {
            tracing::warn!(error = crate::db::describe(error), "hits cannot be loaded now; they wait in the spool");
        }
        backoff.fail()
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

    /// Loads one chunk, over the existing connection. After an error there is none.
    async fn turn(&mut self) -> anyhow::Result<Turn> {
        let mut connected = self.take_connection().await?;
        let turn = self.load_next(&mut connected).await?;
        self.connected = Some(connected);
        Ok(turn)
    }

    /// Loads hits that were set aside and whose image exists again, or one chunk of the oldest spool that has one.
    async fn load_next(&mut self, connected: &mut Connected) -> anyhow::Result<Turn> {
        // Including those that are read to their end, so that no rewritten file stays open.
        self.sources.iter_mut().for_each(|source| source.reader.refresh());
        if self.load_orphans(connected).await? {
            return Ok(Turn::Progressed);
        }
        for place in 0..self.sources.len() {
            let source = &self.sources[place];
            let span = pixeld_spool::span(source.spool.uuid);
            let number = match source.number {
                Some(number) => number,
                // Nothing can be loaded under a mark that another connection holds; the other spools go on.
                None if source.is_held() || source.spool.published().next_seq == 0 => continue,
                None => match self.claim(connected, place).instrument(span.clone()).await? {
                    Some(number) => number,
                    None => continue,
                },
            };
            let source = &mut self.sources[place];
            if source.is_done() {
                continue;
            }
            let chunk = span.in_scope(|| source.reader.read(BATCH_ROWS_MAX));
            self.metrics.damages.add(source.reader.take_damages());
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    span.in_scope(|| source.is_unreadable(&error));
                    continue;
                }
            };
            source.unreadable_since = None;
            if chunk.is_empty() {
                continue;
            }
            let loaded = self.load_chunk(connected, place, number, &chunk).instrument(span).await;
            if loaded.is_err() {
                // Which part of it was committed is known once the mark is read again.
                self.sources[place].forget_mark();
            }
            loaded?;
            return Ok(Turn::Progressed);
        }
        let unreadable = self.sources.iter().filter(|source| source.unreadable_since.is_some()).count();
        self.metrics.spools_unreadable.set(unreadable as i64);
        Ok(Turn::Idle)
    }

    /// Reads the first waiting hit, so that the lag is known while the database is down.
    fn note_oldest(&mut self) {
        let Some(source) = self.sources.iter_mut().find(|source| source.is_behind()) else { return };
        source.reader.seek(source.loaded_seq);
        let Ok(chunk) = source.reader.read(1) else { return };
        source.reader.seek(source.loaded_seq);
        // Damage is counted when its hits are loaded, not each time that it is read.
        source.reader.take_damages();
        if let Ok((hit, _)) = Hit::decode(&chunk.bytes) {
            self.metrics.oldest_at_us.store(hit.at.0, Ordering::Relaxed);
        }
    }
}
