//! The syncer: a thread that makes written segments survive a power cut.
//!
//! Guarantees: with `written`, everything is synced within [`SYNC_INTERVAL`] and a disk's time for it. With `synced`,
//! one fdatasync covers all that was written while the one before ran, and only then receipts are given. A file whose
//! sync failed is never synced again; the writer must write its unsynced frames elsewhere.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Durability;
use pixeld_core::metrics::Metrics;
use pixeld_edge::queue::{CoreReceipts, acknowledge};
use pixeld_spool::disk::DiskFile;

/// Interval between syncs with `written`.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What the writer and the syncer share.
#[derive(Default)]
pub(crate) struct Syncs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Files with something unsynced, oldest first.
    files: Vec<Arc<dyn DiskFile>>,
    /// All hits before this number are in those files or synced.
    written_seq: u64,
    /// All hits before this number are synced.
    synced_seq: u64,
    /// Receipts to give once everything written so far is synced: core and parcel number.
    waiting: Vec<(usize, u64)>,
    failed: bool,
    /// Nothing more is written.
    finishing: bool,
    /// One of the two threads is ending or has ended.
    closed: bool,
}

/// What one sync covers.
struct Due {
    files: Vec<Arc<dyn DiskFile>>,
    written_seq: u64,
    waiting: Vec<(usize, u64)>,
}

/// What the writer learns of syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncReport {
    /// All hits before this number are synced.
    pub synced_seq: u64,
    /// A sync failed: unsynced hits must be written elsewhere, and then [`Syncs::rewritten`] called.
    pub failed: bool,
}

impl Syncs {
    /// Reports that all hits before `written_seq` are written, the last of them to `file`; `receipts` wait for the
    /// sync.
    pub(crate) fn written(
        &self,
        file: &Arc<dyn DiskFile>,
        written_seq: u64,
        receipts: impl Iterator<Item = (usize, u64)>,
    ) {
        let mut state = self.lock();
        let first = state.files.is_empty();
        // After a failure the file must not be synced again; the writer first writes these hits elsewhere.
        if !state.failed && !state.files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            state.files.push(Arc::clone(file));
        }
        state.written_seq = written_seq;
        let waited = state.waiting.len();
        state.waiting.extend(receipts);
        if first || state.waiting.len() > waited {
            self.changed.notify_one();
        }
    }

    /// Gives receipts of dropped hits in their turn: a number covers all before it, and those may wait for a sync.
    pub(crate) fn acknowledge_in_turn(&self, receipts: impl Iterator<Item = (usize, u64)>) {
        self.lock().waiting.extend(receipts);
        self.changed.notify_one();
    }

    /// Reports that everything unsynced at a failure is written again, to `file` (`None`: there was nothing).
    pub(crate) fn rewritten(&self, file: Option<Arc<dyn DiskFile>>, written_seq: u64) {
        let mut state = self.lock();
        state.failed = false;
        state.written_seq = written_seq;
        state.files.extend(file);
        self.changed.notify_one();
    }

    /// Whether the syncer has ended. Only the writer calls this, so the writer has not.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().closed
    }

    /// How far the syncs are.
    pub(crate) fn report(&self) -> SyncReport {
        let state = self.lock();
        SyncReport { synced_seq: state.synced_seq, failed: state.failed }
    }

    /// Syncs all that is written and waits for it. If it fails, write again, then call it again.
    pub(crate) fn finish(&self) -> SyncReport {
        let mut state = self.lock();
        state.finishing = true;
        self.changed.notify_one();
        while !state.failed && !state.closed && state.synced_seq < state.written_seq {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        SyncReport { synced_seq: state.synced_seq, failed: state.failed }
    }

    /// Releases both threads when it is dropped, so that neither waits for one that panicked.
    pub(crate) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to sync now. `None`: closed, and nothing is left.
    fn next(&self, durability: Durability) -> Option<Due> {
        let mut state = self.lock();
        let mut due = None;
        loop {
            if state.failed || (state.files.is_empty() && state.waiting.is_empty()) {
                if state.closed {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let due = *due.get_or_insert(now + SYNC_INTERVAL);
            let at_once =
                state.finishing || state.closed || (durability == Durability::Synced && !state.waiting.is_empty());
            if at_once || now >= due {
                let waiting = std::mem::take(&mut state.waiting);
                return Some(Due { files: std::mem::take(&mut state.files), written_seq: state.written_seq, waiting });
            }
            state = self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs until [`Closing`] is dropped and nothing is left. `wake_writer` is called after a failure.
    pub(crate) fn run(
        &self,
        durability: Durability,
        receipts: &[CoreReceipts],
        metrics: &Metrics,
        wake_writer: impl Fn(),
    ) {
        let _closing = self.closing();
        while let Some(Due { files, written_seq, waiting }) = self.next(durability) {
            let failure = files.iter().find_map(|file| file.sync().err());
            match failure {
                None => {
                    self.lock().synced_seq = written_seq;
                    acknowledge(receipts, waiting.into_iter());
                    self.changed.notify_one();
                }
                Some(error) => {
                    tracing::error!(%error, "a segment could not be synced; pixeld rewrites its hits to another one");
                    metrics.sync_failures.one();
                    let mut state = self.lock();
                    state.failed = true;
                    state.files.clear();
                    // Their receipts come with the sync of the next file to which they are written.
                    state.waiting.splice(0..0, waiting);
                    drop(state);
                    self.changed.notify_one();
                    wake_writer();
                }
            }
        }
    }
}

/// See [`Syncs::closing`].
pub(crate) struct Closing<'a>(&'a Syncs);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}
