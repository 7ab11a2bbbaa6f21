//! The writer: one thread that takes parcels from the queue and appends them to the spool.
//!
//! Guarantees: parcels are numbered in the order of the queue. A receipt is given after `write` returned (`written`),
//! after a sync (`synced`), or after the hits were dropped and counted. The writer waits only for the disk. Gives up:
//! hits while the disk stalls; the queue then fills and hits are dropped.
//!
//! While there is nothing to do it parks instead of blocking on the channel: a blocked crossbeam receiver spins in
//! `sched_yield` when hits come faster than it sleeps, which cost a third of a hit's time. Under load it does not wait
//! for a group to grow: while it writes one, the cores fill the next, and the more there is to do the larger that is (a
//! nap between all groups cost 0.4 µs a hit). It gathers for a moment only after a small group.

use std::sync::Arc;
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;

use super::syncer::Syncs;
use crate::config::Durability;
use pixeld_core::hit::Parcel;
use pixeld_core::metrics::Metrics;
use pixeld_edge::queue::{Intake, acknowledge};
use pixeld_spool::appender::Appender;
use pixeld_spool::disk::Disk;
use pixeld_spool::{Spool, SpoolRoom};

/// A group with fewer hits is small.
const SMALL_GROUP_HITS: u64 = 16;

/// How long the writer gathers after a small group: writing a group costs as much as several hits, whatever it
/// contains.
const SMALL_GROUP_PAUSE: Duration = Duration::from_micros(300);

/// Maximum time to park while nothing comes: at this interval old segments are ended and a closed queue is noticed.
const PARK_MAX: Duration = Duration::from_millis(250);

/// Maximum encoded bytes of one group; bounds the time of one write.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Wait after unsynced frames were written again, or could not be, before the next attempt.
const REWRITE_PAUSE: Duration = Duration::from_millis(250);

/// How often hits are written again after a failed sync once the queue is closed.
const LAST_REWRITES_MAX: u32 = 3;

/// The running writer.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The thread to wake after sending a parcel.
    pub thread: Thread,
    join: JoinHandle<()>,
}

/// Where the writer writes.
pub(crate) struct Target {
    /// The spool of this start.
    pub spool: Arc<Spool>,
    /// The bound of all spools.
    pub room: Arc<SpoolRoom>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// What a receipt promises.
    pub durability: Durability,
}

impl Writer {
    /// Starts the writer, on a thread that `spawn` makes, and its syncer. It ends when all sending halves of the queue
    /// are dropped and everything is synced, and panics if its syncer panicked.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(crate) fn start(
        target: Target,
        intake: Intake,
        metrics: Arc<Metrics>,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>,
    ) -> std::io::Result<Writer> {
        let join = spawn(Box::new(move || {
            let syncs = Syncs::default();
            let writer = std::thread::current();
            std::thread::scope(|scope| {
                scope.spawn(|| syncs.run(target.durability, &intake.receipts, &metrics, || writer.unpark()));
                let _closing = syncs.closing();
                Loop::new(&target, &intake, &metrics, &syncs).run();
            });
        }))?;
        Ok(Writer { thread: join.thread().clone(), join })
    }

    /// Waits until everything is written and synced. All sending halves of the queue must be dropped before.
    pub(crate) fn finish(self) {
        self.thread.unpark();
        if self.join.join().is_err() {
            tracing::error!("the writer panicked");
        }
    }
}

struct Loop<'a> {
    intake: &'a Intake,
    metrics: &'a Metrics,
    syncs: &'a Syncs,
    durability: Durability,
    appender: Appender,
    rewrite_at: Option<Instant>,
}

impl<'a> Loop<'a> {
    fn new(target: &Target, intake: &'a Intake, metrics: &'a Arc<Metrics>, syncs: &'a Syncs) -> Loop<'a> {
        let (spool, room, disk) = (Arc::clone(&target.spool), Arc::clone(&target.room), Arc::clone(&target.disk));
        let appender = Appender::new(spool, room, disk, Arc::clone(metrics));
        Loop { intake, metrics, syncs, durability: target.durability, appender, rewrite_at: None }
    }

    fn run(&mut self) {
        let mut group = Vec::new();
        loop {
            let open = self.gather(&mut group);
            if self.syncs.has_ended() {
                // Nothing would be synced any more. The scope that waits for both threads propagates its panic.
                return;
            }
            self.collect_syncs();
            self.appender.seal_if_asked();
            if !group.is_empty() {
                let hits = self.write(&group);
                group.clear();
                if open && hits < SMALL_GROUP_HITS {
                    std::thread::sleep(SMALL_GROUP_PAUSE);
                }
            } else if open {
                self.appender.end_old_segment();
                std::thread::park_timeout(PARK_MAX);
            } else {
                self.finish_syncs();
                self.appender.close();
                return;
            }
        }
    }

    /// Takes the waiting parcels, up to a bound. Returns whether more can come.
    fn gather(&self, group: &mut Vec<Parcel>) -> bool {
        let mut bytes = 0;
        while bytes < GROUP_BYTES_MAX {
            match self.intake.parcels.try_recv() {
                Ok(parcel) => {
                    bytes += parcel.bytes.len();
                    group.push(parcel);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// Writes a group and gives its receipts. Returns its number of hits.
    fn write(&mut self, group: &[Parcel]) -> u64 {
        let hits: u64 = group.iter().map(|parcel| u64::from(parcel.count)).sum();
        let receipts = group.iter().map(|parcel| (parcel.core, parcel.number));
        match self.appender.append(group) {
            Ok(()) => {
                self.metrics.spooled.add(hits as i64);
                let file = self.appender.file();
                match (self.durability, file) {
                    (Durability::Synced, Some(file)) => self.syncs.written(file, self.appender.next_seq(), receipts),
                    (Durability::Written, Some(file)) => {
                        self.syncs.written(file, self.appender.next_seq(), std::iter::empty());
                        acknowledge(&self.intake.receipts, receipts);
                    }
                    (_, None) => self.acknowledge_dropped(receipts),
                }
            }
            Err(reason) => {
                self.metrics.drop_hits(reason, hits);
                self.acknowledge_dropped(receipts);
            }
        }
        self.metrics.queued.add(-(hits as i64));
        hits
    }

    fn acknowledge_dropped(&self, receipts: impl Iterator<Item = (usize, u64)>) {
        match self.durability {
            Durability::Synced => self.syncs.acknowledge_in_turn(receipts),
            Durability::Written => acknowledge(&self.intake.receipts, receipts),
        }
    }

    /// Drops what is synced, and writes again what a failed sync may have lost.
    fn collect_syncs(&mut self) {
        let report = self.syncs.report();
        self.appender.synced(report.synced_seq);
        if !report.failed || self.rewrite_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.appender.rewrite_unsynced() {
            Ok(file) => self.syncs.rewritten(file, self.appender.next_seq()),
            Err(error) => tracing::error!(%error, "unsynced hits could not be rewritten yet"),
        }
        // After a rewrite, too: if every sync fails, each would be followed by the next at once and fill the spool.
        self.rewrite_at = Some(Instant::now() + REWRITE_PAUSE);
    }
    /// Syncs all that is written. A sync that fails now is repeated like any other, but not forever.
    fn finish_syncs(&mut self) {
        let mut rewrites = 0;
        while self.syncs.finish().failed {
            if rewrites == LAST_REWRITES_MAX {
                tracing::error!("the last hits could not be synced; a power cut now could lose them");
                return;
            }
            if rewrites > 0 {
                std::thread::sleep(REWRITE_PAUSE);
            }
            rewrites += 1;
            self.rewrite_at = None;
            self.collect_syncs();
        }
    }
}

#[cfg(test)]
mod tests;
