//! The eraser: carries erasures out on this node's disk, and acknowledges them.
//!
//! Guarantees: an erasure is acknowledged only when no file of the spools and the quarantine holds the recipient's id
//! or key in a hit that was recorded before the request. What was in memory at that moment is written, the open segment
//! is ended and synced (so that no failed sync writes its hits again), and then every segment is searched. It first
//! remembers erasures on disk, and puts them back if a restored database lacks them. It also finishes what others left
//! in the database. It is a thread of its own at the loader's priority: reading 8 GiB of spool takes most of a minute.
//! Gives up: hits that are recorded after the request; they are new facts, and stay.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tracing::Instrument;

use super::RETRY_PAUSE_MAX;
use super::erased::CLOCK_MARGIN;
use super::nodes::{self, Erasure, OnDisk};
use super::request;
use super::{leftovers, remembered};
use crate::backoff::Backoff;
use crate::db::{Database, QUERY_TIMEOUT, Session, installation, within};
use pixeld_core::clock::micros::Micros;
use pixeld_core::drain::Drain;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{NodeId, RecipientId};
use pixeld_core::link::key::Namespace;
use pixeld_core::metrics::Metrics;
use pixeld_core::privacy::{PrivacyKey, RecipientHash};
use pixeld_spool::disk::Disk;
use pixeld_spool::orphans::{ORPHANS, Orphans};
use pixeld_spool::recovery::quarantine;
use pixeld_spool::rewrite::{NEW, rewrite_quarantined, rewrite_segment};
use pixeld_spool::tombstone::Erasing;
use pixeld_spool::{Segment, Spool};

/// Interval between checks for erasures.
pub(crate) const POLL: Duration = Duration::from_secs(2);

/// How often it reports that it is alive, and compares what it remembers with what the database knows.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long the writer may take to write what is in memory, end its segment and have it synced; after that everything
/// is tried again later.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Wait between two checks of the writer.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// The eraser's folders, and its identity.
#[derive(Debug)]
pub(crate) struct EraserOptions {
    /// The folder that holds all spools.
    pub spools: PathBuf,
    /// The file that remembers erasures.
    pub kept: PathBuf,
    /// The data directory's identity.
    pub node: NodeId,
    /// This machine's name.
    pub name: String,
    /// Spools that could not be read at the start: whose hits they hold is unknown.
    pub left_alone: usize,
}

/// Carries erasures out.
pub(crate) struct Eraser {
    options: EraserOptions,
    db: Database,
    metrics: Arc<Metrics>,
    disk: Arc<dyn Disk>,
    spools: Vec<Arc<Spool>>,
    orphans: Arc<Orphans>,
    connected: Option<Connected>,
}

/// A connection, and what was read over it.
struct Connected {
    session: Session,
    key: PrivacyKey,
    namespace: Namespace,
    /// When it last reported that it is alive.
    told: Option<Instant>,
}

impl Eraser {
    /// An eraser of these spools, of all earlier starts and of this one, and of the hits that were set aside.
    pub(crate) fn new(
        options: EraserOptions,
        db: Database,
        metrics: Arc<Metrics>,
        disk: Arc<dyn Disk>,
        spools: Vec<Arc<Spool>>,
        orphans: Arc<Orphans>,
    ) -> Eraser {
        Eraser { options, db, metrics, disk, spools, orphans, connected: None }
    }

    /// Carries out erasures, once the database is `ready`, until the drain.
    pub(crate) async fn run(mut self, ready: impl Future<Output = ()>, mut drain: Drain) {
        tokio::select! {
            () = ready => {}
            () = drain.asked() => return,
        }
        let (db, metrics) = (self.db.clone(), Arc::clone(&self.metrics));
        tokio::join!(self.run_turns(drain.clone()), leftovers::run(&db, &metrics, drain));
    }

    async fn run_turns(&mut self, mut drain: Drain) {
        let mut backoff = Backoff::new(Duration::from_millis(250), RETRY_PAUSE_MAX);
        while !drain.is_asked() {
            let wait = match self.turn(&drain).await {
                Ok(_) => {
                    backoff.succeed();
                    self.metrics.stuck.erasing.store(None);
                    POLL
                }
                Err(error) => {
                    self.connected = None;
                    self.metrics.stuck.erasing.store(crate::db::problem(&error));
                    if !backoff.is_failing() {
                        tracing::warn!(
                            error = crate::db::describe(&error),
                            "erasures cannot be carried out now; pixeld tries again"
                        );
                    }
                    backoff.fail()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.asked() => {}
            }
        }
    }

    /// Carries out all that is pending now.
    ///
    /// # Errors
    /// On an error of PostgreSQL or the disk.
    pub(crate) async fn carry_out_all(mut self, drain: &Drain) -> anyhow::Result<()> {
        while self.turn(drain).await? > 0 {}
        leftovers::finish(&self.db).await
    }

    /// Carries out what is pending, up to a bound. Returns the number of erasures.
    async fn turn(&mut self, drain: &Drain) -> anyhow::Result<usize> {
        let mut connected = match self.connected.take() {
            Some(connected) if !connected.session.client.is_closed() => connected,
            _ => self.connect().await?,
        };
        let client = &connected.session.client;
        if connected.told.is_none_or(|told| told.elapsed() > HEARTBEAT) {
            let registering = nodes::register(client, self.options.node, &self.options.name);
            within(QUERY_TIMEOUT, "registering this node", registering).await?;
            // Before the disk is used, so that a failing disk shows as erasures that stay pending.
            self.pending(client).await?;
            self.compare(&connected).await?;
            connected.told = Some(Instant::now());
        }
        let client = &connected.session.client;
        let pending = self.pending(client).await?;
        if !pending.is_empty() {
            let remembered: Vec<_> = pending.iter().map(|erasure| (erasure.recipient, erasure.requested_at)).collect();
            remembered::remember(&self.options.kept, &connected.key, &remembered)?;
            let ahead = ahead(&connected).await?;
            let done = self.erase(&connected, &pending, ahead, drain).await?;
            let acknowledging = nodes::acknowledge(client, self.options.node, &self.options.name, &done);
            within(QUERY_TIMEOUT, "acknowledging erasures", acknowledging).await?;
            let (segments, hits) = done.iter().fold((0, 0), |sum, (_, d)| (sum.0 + d.segments, sum.1 + d.hits));
            tracing::info!(erasures = done.len(), segments, hits, "erasures were carried out on this node's disk");
            self.metrics.erasures_pending.set(0);
        }
        self.connected = Some(connected);
        Ok(pending.len())
    }

    async fn connect(&self) -> anyhow::Result<Connected> {
        let session = self.db.connect("pixeld-eraser").await?;
        let key = within(QUERY_TIMEOUT, "reading the key", installation::privacy_key(&session.client)).await?;
        let namespace =
            within(QUERY_TIMEOUT, "reading the namespace", installation::namespace(&session.client)).await?;
        Ok(Connected { session, key, namespace, told: None })
    }

    /// The pending erasures, which also go to the metrics.
    async fn pending(&self, client: &Client) -> anyhow::Result<Vec<Erasure>> {
        let pending = within(QUERY_TIMEOUT, "looking for erasures", nodes::pending(client, self.options.node)).await?;
        self.metrics.erasures_pending.set(pending.len() as i64);
        Ok(pending)
    }

    /// Puts back what this node remembers and the database does not. Once per connection, it also repeats what the
    /// database knows and this node does not remember.
    async fn compare(&self, connected: &Connected) -> anyhow::Result<()> {
        let remembered = remembered::read(&self.options.kept, &connected.key)?;
        if connected.told.is_none() {
            let times: HashMap<RecipientHash, Micros> = remembered.iter().copied().collect();
            let remembers = |hash, asked_at| times.get(&hash).is_some_and(|&latest_at| latest_at >= asked_at);
            let most = remembered::ERASURES_MAX as i64;
            let reopening = nodes::reopen(&connected.session.client, self.options.node, most, remembers);
            within(QUERY_TIMEOUT, "comparing erasures", reopening).await?;
        }
        let put_back = request::put_back(&connected.session.client, &remembered).await?;
        if put_back > 0 {
            tracing::warn!(
                erasures = put_back,
                "the database lacks erasures that this node remembers, probably after a restored backup; pixeld carries them out again"
            );
        }
        Ok(())
    }

    /// Erases from all files. Returns what was erased for each erasure.
    async fn erase(
        &mut self,
        connected: &Connected,
        pending: &[Erasure],
        ahead: Duration,
        drain: &Drain,
    ) -> anyhow::Result<Vec<(i64, OnDisk)>> {
        // A spool that is loaded to its end and removed.
        self.spools.retain(|spool| {
            let published = spool.published();
            !published.closed || !published.segments.is_empty()
        });
        for spool in &self.spools {
            self.settle(spool).instrument(pixeld_spool::span(spool.uuid)).await?;
        }
        let mut erasures = PendingErasures::of(pending, connected.key.clone(), ahead);
        for spool in &self.spools {
            let ended = |segment: &&Segment| segment.ended;
            let segments: Vec<Segment> = spool.published().segments.iter().filter(ended).copied().collect();
            for segment in segments {
                anyhow::ensure!(!drain.is_asked(), "this node stops; the rest is done after the next start");
                let rewriting = || rewrite_segment(&*self.disk, spool, segment, connected.namespace, &mut erasures);
                if pixeld_spool::span(spool.uuid).in_scope(rewriting)? {
                    self.metrics.segments_rewritten.one();
                }
                erasures.end_segment();
                // The connection's own task runs on this thread.
                tokio::task::yield_now().await;
            }
        }
        self.erase_quarantined(connected.namespace, &mut erasures, drain)?;
        self.orphans.erase(&*self.disk, connected.namespace, &mut erasures, PendingErasures::end_file)?;
        // Only now, so that nothing else waits for it.
        let left_alone = self.options.left_alone;
        anyhow::ensure!(left_alone == 0, "{left_alone} spools could not be read at the start; the log names them");
        Ok(pending.iter().map(|erasure| (erasure.id, erasures.done(erasure.id))).collect())
    }

    fn erase_quarantined(
        &self,
        namespace: Namespace,
        erasures: &mut PendingErasures,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let entries = match fs::read_dir(quarantine(&self.options.spools)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let path = entry?.path();
            anyhow::ensure!(!drain.is_asked(), "this node stops; the rest is done after the next start");
            if path.extension().is_some_and(|end| end == NEW) {
                fs::remove_file(&path)?;
                continue;
            }
            // They have their own procedure, during which the loader can go on with them.
            if path.extension().is_some_and(|end| end == ORPHANS) {
                continue;
            }
            rewrite_quarantined(&*self.disk, &path, namespace, erasures)?;
            erasures.end_file();
        }
        Ok(())
    }

    /// Waits until all that was recorded before this call is in segments that are ended and synced.
    async fn settle(&self, spool: &Spool) -> anyhow::Result<()> {
        if spool.published().closed {
            return Ok(());
        }
        let deadline = Instant::now() + SETTLE_MAX;
        // In this order: what is written between the two is counted twice, and waited for.
        let queued = self.metrics.queued.get().max(0) as u64;
        let written = spool.published().next_seq + queued;
        while spool.published().next_seq < written && self.metrics.queued.get() > 0 {
            wait(deadline).await?;
        }
        spool.ask_seal();
        let end = spool.published().next_seq;
        let is_sealed = || spool.published().segments.iter().all(|s| s.ended || s.id.first_seq >= end);
        // Until it is synced, its hits are in memory and might be written again.
        while !is_sealed() || spool.synced_seq() < end {
            wait(deadline).await?;
        }
        Ok(())
    }
}

async fn wait(deadline: Instant) -> anyhow::Result<()> {
    anyhow::ensure!(Instant::now() < deadline, "the disk does not accept the hits in memory");
    tokio::time::sleep(SETTLE_LOOK).await;
    Ok(())
}

/// How far this node's clock is ahead of the database's; zero if it is behind.
async fn ahead(connected: &Connected) -> anyhow::Result<Duration> {
    let asking = connected.session.client.query_one("SELECT clock_timestamp()", &[]);
    let row = within(QUERY_TIMEOUT, "asking for the time", asking).await?;
    Ok(pixeld_core::clock::now_micros().since(row.get(0)))
}

/// The recipients to erase, and what was found of each.
struct PendingErasures {
    key: PrivacyKey,
    margin: Duration,
    /// For each recipient: the time of the latest request, and the erasures.
    asked: HashMap<RecipientHash, (Micros, Vec<i64>)>,
    latest_at: Micros,
    done: HashMap<i64, OnDisk>,
    /// Found in the current file.
    here: HashSet<RecipientHash>,
}

impl PendingErasures {
    fn of(pending: &[Erasure], key: PrivacyKey, ahead: Duration) -> PendingErasures {
        let mut asked: HashMap<RecipientHash, (Micros, Vec<i64>)> = HashMap::new();
        for erasure in pending {
            let (latest_at, ids) = asked.entry(erasure.recipient).or_insert((Micros::MIN, Vec::new()));
            *latest_at = (*latest_at).max(erasure.requested_at);
            ids.push(erasure.id);
        }
        let latest_at = asked.values().map(|(latest_at, _)| *latest_at).max().unwrap_or(Micros::MIN);
        let margin = CLOCK_MARGIN.saturating_add(ahead);
        PendingErasures { key, margin, asked, latest_at, done: HashMap::new(), here: HashSet::new() }
    }

    fn end_segment(&mut self) {
        for hash in std::mem::take(&mut self.here) {
            self.count(hash, |done| done.segments += 1);
        }
    }

    fn end_file(&mut self) {
        for hash in std::mem::take(&mut self.here) {
            self.count(hash, |done| done.files += 1);
        }
    }

    fn count(&mut self, hash: RecipientHash, count: impl Fn(&mut OnDisk)) {
        let Some((_, ids)) = self.asked.get(&hash) else { return };
        ids.iter().for_each(|id| count(self.done.entry(*id).or_default()));
    }

    fn done(&self, erasure: i64) -> OnDisk {
        self.done.get(&erasure).copied().unwrap_or_default()
    }
}

impl Erasing for PendingErasures {
    fn takes(&mut self, hit: &Hit<'_>) -> bool {
        if hit.at >= self.latest_at + self.margin {
            return false;
        }
        let hash = self.key.hash(hit.recipient);
        let Some(&(asked_at, _)) = self.asked.get(&hash) else { return false };
        if hit.at >= asked_at + self.margin {
            return false;
        }
        self.here.insert(hash);
        self.count(hash, |done| done.hits += 1);
        true
    }

    fn takes_id(&mut self, id: RecipientId) -> bool {
        let hash = self.key.hash(id);
        let takes = self.asked.contains_key(&hash);
        if takes {
            self.here.insert(hash);
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::hit::fixture::carrying;

    const ASKED_AT: Micros = Micros::of_seconds(1000);

    #[test]
    fn hits_from_before_an_erasure_go_and_later_ones_stay() {
        let key = PrivacyKey([3; 32]);
        let recipient = RecipientId::from_u128(7);
        let erasure = |id, requested_at: Micros| Erasure { id, recipient: key.hash(recipient), requested_at };
        let mut erasures =
            PendingErasures::of(&[erasure(1, Micros(0)), erasure(2, ASKED_AT)], key.clone(), Duration::ZERO);
        let at = |at: Micros| Hit { at, ..carrying(7, "") };
        let a_moment = Duration::from_micros(1);
        assert!(erasures.takes(&at(ASKED_AT - a_moment)) && erasures.takes(&at(ASKED_AT + CLOCK_MARGIN - a_moment)));
        assert!(!erasures.takes(&at(ASKED_AT + CLOCK_MARGIN)));
        assert!(!erasures.takes(&Hit { recipient: RecipientId::from_u128(8), ..at(Micros(0)) }));
        erasures.end_segment();
        assert_eq!(erasures.done(1), OnDisk { segments: 1, hits: 2, files: 0 });
        assert_eq!(erasures.done(2), erasures.done(1));
        assert!(erasures.takes_id(recipient));
        erasures.end_file();
        assert_eq!((erasures.done(2).files, erasures.done(3)), (1, OnDisk::default()));

        // A clock that is ahead makes earlier hits look later.
        let ahead = Duration::from_secs(5);
        let mut erasures = PendingErasures::of(&[erasure(2, ASKED_AT)], key.clone(), ahead);
        assert!(erasures.takes(&at(ASKED_AT + CLOCK_MARGIN + ahead - a_moment)));
    }
}
