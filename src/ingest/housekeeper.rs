//! Looks after the spools: removes loaded segments that need not be kept, makes room if the disk is low, notices
//! changes that people make to the files, and sets the gauges that people watch.
//!
//! Guarantees: a segment is removed only when its hits are loaded. While there is room, PostgreSQL must confirm that on
//! the loader's connection, and `PIXELD_SPOOL_KEEP` must have passed (a database restored from a backup is brought up
//! to date from the kept segments). When the spool's bound or the disk is nearly reached, new hits come first: kept
//! segments are removed, the oldest first, even if only the hint says that they are loaded. The hint is written after
//! the answer to COMMIT, so the only loss is that a database restored from an older backup does not get them again; a
//! new hit without room is lost for certain. If the private PostgreSQL shares the disk, the spool stops while
//! PostgreSQL still has room for its log and for the waiting hits: without room it accepts no commit, so nothing is
//! loaded and no room is ever freed. Gives up: what other programs write to the disk within a second; and deleting hits
//! that wait.
//!
//! It is a thread of its own, so that neither a hanging database nor a hanging Redis stops it from making room.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::SpoolKeep;
use crate::db::embedded::wal_bytes_max;
use pixeld_core::ids::SpoolId;
use pixeld_core::metrics::Metrics;
use pixeld_spool::disk::{self, DiskSpace};
use pixeld_spool::kept::Kept;
use pixeld_spool::segment::SegmentId;
use pixeld_spool::{Spool, SpoolRoom};

/// Interval between checks.
pub(crate) const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Interval between checks while room is short.
const HOUSEKEEPING_SHORT: Duration = Duration::from_millis(100);

/// Minutes of traffic on which the estimate of the remaining time in an outage is based.
const RATE_MINUTES: f64 = 3.0;

/// Number of whole segments that must fit on the disk; otherwise loaded ones are removed.
const SEGMENTS_FREE: u64 = 2;

/// The housekeeper's options.
#[derive(Debug)]
pub(crate) struct HousekeeperOptions {
    /// The folder that holds all spools.
    pub spools: PathBuf,
    /// How long loaded segments are kept.
    pub keep: SpoolKeep,
    /// The private PostgreSQL's directory, if there is one.
    pub postgres: Option<PathBuf>,
}

/// The running housekeeper. It ends when this is dropped, without waiting: a hanging disk must not delay the end.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    thread: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
}

impl Housekeeper {
    /// Starts to look after `spools`, on a thread that `spawn` makes.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(crate) fn start(
        options: HousekeeperOptions,
        spools: Vec<Arc<Spool>>,
        room: Arc<SpoolRoom>,
        metrics: Arc<Metrics>,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>,
    ) -> std::io::Result<Housekeeper> {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = spawn(Box::new(move || {
            room.is_kept_by(std::thread::current());
            let mut keeper = Keeper::new(options, spools, room, metrics);
            while !ended.load(Ordering::Acquire) {
                std::thread::park_timeout(keeper.keep());
            }
        }))?;
        Ok(Housekeeper { thread: Some(thread), ends })
    }

    /// Ends it, and waits for that.
    pub(crate) fn finish(mut self) {
        let thread = self.thread.take();
        self.ends.store(true, Ordering::Release);
        let joined = thread.map(|thread| {
            thread.thread().unpark();
            thread.join()
        });
        if let Some(Err(_)) = joined {
            tracing::error!("the housekeeper panicked");
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
        }
    }
}

/// What is known about the spools.
struct Keeper {
    options: HousekeeperOptions,
    spools: Vec<Arc<Spool>>,
    room: Arc<SpoolRoom>,
    metrics: Arc<Metrics>,
    /// When this process first saw each loaded segment as loaded; a restart starts the clock again.
    loaded_since: HashMap<(SpoolId, SegmentId), Instant>,
    /// Segments that somebody else deleted.
    missing: HashSet<(SpoolId, SegmentId)>,
    appended: (Instant, u64),
    bytes_a_minute: f64,
    /// What was already logged, so that it is logged once.
    logged: Logged,
}

#[derive(Default)]
struct Logged {
    low: bool,
    not_removed: bool,
    problem: Option<String>,
}

/// The bytes of the spools and of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels {
    /// Loaded, and removable.
    kept: u64,
    /// Not loaded, or in a segment that cannot be removed yet.
    waiting: u64,
    /// Free on the disk.
    free: u64,
    /// Reserved for the private PostgreSQL, if it shares the disk.
    reserve: Option<u64>,
}

impl Levels {
    /// Bytes that could be spooled if all loaded segments were removed, as far as the disk is concerned. Waiting hits
    /// need about as much again in PostgreSQL before their segment can be removed.
    fn disk_room(&self, free: u64) -> u64 {
        match self.reserve {
            None => free,
            Some(reserve) => free.saturating_sub(reserve).saturating_sub(self.waiting) / 2,
        }
    }

    /// The bytes that all spools together could use on the disk.
    fn usable(&self) -> u64 {
        (self.free.saturating_sub(self.reserve.unwrap_or(0))).saturating_add(self.kept).saturating_add(self.waiting)
    }
}

impl Keeper {
    fn new(
        options: HousekeeperOptions,
        spools: Vec<Arc<Spool>>,
        room: Arc<SpoolRoom>,
        metrics: Arc<Metrics>,
    ) -> Keeper {
        Keeper {
            options,
            spools,
            room,
            metrics,
            loaded_since: HashMap::new(),
            missing: HashSet::new(),
            appended: (Instant::now(), 0),
            bytes_a_minute: 0.0,
            logged: Logged::default(),
        }
    }

    /// Checks everything once. Returns the wait until the next check.
    fn keep(&mut self) -> Duration {
        self.room.is_looked_at();
        let space = disk::space(&self.options.spools).ok();
        let free = space.map_or(u64::MAX, |space| space.free);
        let reserve = space.and_then(|space| self.reserve(space));
        let (kept, freed) = self.remove_loaded(free, reserve);
        let waiting = self.room.bytes().saturating_sub(kept);
        let levels = Levels { kept, waiting, free: free.saturating_add(freed), reserve };
        self.room.disk_has(levels.usable(), reserve.map(|_| levels.disk_room(levels.free)));
        self.look_for_missing();
        self.set_problem(space);
        self.set_levels(levels);
        self.spools.retain(|spool| !spool.is_gone());
        if self.is_low(levels.free, reserve) { HOUSEKEEPING_SHORT } else { HOUSEKEEPING }
    }

    /// Bytes to leave for the private PostgreSQL; `None` if it does not share the disk.
    fn reserve(&self, space: DiskSpace) -> Option<u64> {
        let device = |path: &Path| path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|found| found.dev());
        let postgres = self.options.postgres.as_deref()?;
        (device(postgres) == device(&self.options.spools)).then(|| wal_bytes_max(space.total))
    }

    /// Whether the disk is so low that loaded segments are removed.
    fn is_low(&self, free: u64, reserve: Option<u64>) -> bool {
        let segments = SEGMENTS_FREE * self.room.segment_bytes_max();
        free < reserve.unwrap_or(0).saturating_add(segments)
    }

    /// Removes segments that need not or cannot be kept. Returns the bytes of the loaded segments that stay, and of the
    /// removed ones.
    fn remove_loaded(&mut self, free: u64, reserve: Option<u64>) -> (u64, u64) {
        // Oldest first, each with whether PostgreSQL confirms that it is loaded.
        let kept: Vec<(Arc<Spool>, Kept, bool)> = self
            .spools
            .iter()
            .flat_map(|spool| {
                let is_sure = spool.published().loaded.is_sure;
                spool.kept().into_iter().map(move |kept| (Arc::clone(spool), kept, is_sure))
            })
            .collect();
        let mut kept_bytes: u64 = kept.iter().map(|(_, kept, _)| kept.bytes).sum();
        // Waiting hits must always find room beside hits that are only kept.
        let kept_bytes_max = self.options.keep.bytes.min(self.room.bytes_max / 2);
        let (mut still_kept, mut freed) = (HashMap::new(), 0);
        for (spool, kept, is_sure) in kept {
            let name = (spool.uuid, kept.id);
            let since = self.loaded_since.get(&name).copied().unwrap_or_else(Instant::now);
            let is_over = is_sure && (since.elapsed() >= self.options.keep.age || kept_bytes > kept_bytes_max);
            let is_crowded = self.room.bytes() > self.room.bytes_max / 10 * 9;
            let is_low = self.is_low(free.saturating_add(freed), reserve);
            if is_low && !is_over {
                self.say_low(free);
            }
            if !(is_over || is_crowded || is_low) {
                still_kept.insert(name, since);
                continue;
            }
            match spool.remove(kept) {
                Ok(()) => {
                    self.room.give_back(kept.bytes);
                    self.missing.remove(&name);
                    kept_bytes -= kept.bytes;
                    freed += kept.bytes;
                    self.logged.not_removed = false;
                }
                Err(error) => {
                    still_kept.insert(name, since);
                    if !std::mem::replace(&mut self.logged.not_removed, true) {
                        tracing::warn!(%error, spool = %spool.uuid, "a loaded segment could not be removed; pixeld keeps trying");
                    }
                }
            }
        }
        // Removing frees just the room that is needed, so a disk is low again and again; log that once.
        if !self.is_low(free.saturating_add(freed) / 2, reserve) {
            self.logged.low = false;
        }
        self.loaded_since = still_kept;
        (kept_bytes, freed)
    }

    fn say_low(&mut self, free: u64) {
        if !std::mem::replace(&mut self.logged.low, true) {
            tracing::warn!(
                free,
                "the disk is low: loaded segments are removed before PIXELD_SPOOL_KEEP is over, \
                 so a database that is restored from a backup would not get their hits again"
            );
        }
    }

    /// Finds files that somebody else deleted, and makes the writer begin another one if the current file is among
    /// them.
    fn look_for_missing(&mut self) {
        for spool in &self.spools {
            // We remove no file at the same time.
            let _files = spool.files();
            let segments = spool.published().segments.clone();
            let is_missing = |path: &Path| {
                fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            };
            let missing: Vec<_> = segments
                .iter()
                .filter(|segment| {
                    !self.missing.contains(&(spool.uuid, segment.id)) && is_missing(&spool.path(segment.id))
                })
                .collect();
            if missing.is_empty() {
                continue;
            }
            tracing::error!(
                folder = %spool.folder.display(),
                segments = missing.len(),
                "somebody deleted segments of the spool; pixeld loads those that are still open, the rest is lost and counted"
            );
            self.metrics.segments_missing.add(missing.len() as u64);
            if missing.iter().any(|segment| !segment.ended) {
                spool.ask_seal();
            }
            self.missing.extend(missing.iter().map(|segment| (spool.uuid, segment.id)));
        }
    }

    /// Sets the reason why no hit can be written, if that is visible without a hit.
    fn set_problem(&mut self, space: Option<DiskSpace>) {
        let folder = &self.options.spools;
        let problem = match disk::check_writable(folder) {
            // The writer creates it again.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("{} cannot be written: {error}", folder.display())),
            Ok(()) if space.is_some_and(|space| space.is_read_only) => {
                Some(format!("{} cannot be written: its file system is read-only", folder.display()))
            }
            Ok(()) => None,
        };
        if problem != self.logged.problem {
            match &problem {
                Some(problem) => {
                    tracing::error!(problem, "hits are dropped until this is fixed; pixels are served")
                }
                None => tracing::info!("the spool can be written again"),
            }
            self.metrics.spool_problem.store(problem.clone().map(Arc::new));
            self.logged.problem = problem;
        }
    }

    fn set_levels(&mut self, levels: Levels) {
        let bytes = self.room.bytes();
        let disk_room = levels.disk_room(levels.free.saturating_add(levels.kept));
        let room = self.room.bytes_max.saturating_sub(levels.waiting).min(disk_room);
        self.metrics.spool_bytes.set(bytes as i64);
        self.metrics.spool_room.set(room as i64);
        let (since, before) = self.appended;
        if since.elapsed() < HOUSEKEEPING {
            return;
        }
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        let appended = self.metrics.spool_appended.get();
        let rate = (appended - before) as f64 / minutes;
        self.bytes_a_minute += (rate - self.bytes_a_minute) * (minutes / RATE_MINUTES).min(1.0);
        self.appended = (Instant::now(), appended);
        let left = if self.bytes_a_minute < 1.0 { -1 } else { (room as f64 / self.bytes_a_minute) as i64 };
        self.metrics.outage_minutes.set(left);
    }
}

#[cfg(test)]
mod tests;
