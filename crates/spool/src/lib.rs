//! The spool: hits on disk between the edge's answer and PostgreSQL's commit.
//!
//! Guarantees: a hit whose receipt was given is in a frame of a segment. Hits are numbered from 0 without gaps. Every
//! start begins a new spool with a new UUID, so that numbers are never reused, even after a power cut that loses a
//! tail, with a cloned disk or a restored backup. Gives up: order by time; and a spool by itself does not know how far
//! it was loaded: that is the mark, in PostgreSQL.
//!
//! The writer appends, and publishes its position here; the loader reads no further. Both see the same list of
//! segments.

#![warn(unreachable_pub)]

pub mod appender;
pub mod disk;
pub mod frame;
pub mod kept;
pub mod orphans;
pub mod reader;
pub mod recovery;
pub mod rewrite;
pub mod room;
pub mod segment;
pub mod tombstone;

#[cfg(any(test, feature = "fixture"))]
#[allow(clippy::unwrap_used, reason = "there in tests only")]
pub mod fake_disk;
#[cfg(any(test, feature = "fixture"))]
#[allow(clippy::unwrap_used, reason = "there in tests only")]
pub mod fixture;
#[cfg(test)]
mod recovery_tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::Span;

use disk::DiskFile;
use frame::FrameKey;
use pixeld_core::ids::SpoolId;
pub use room::SpoolRoom;
use segment::SegmentId;

/// The span of all work on one spool, so that each line of the log names it. It has the level of errors: lines have it
/// at every `PIXELD_LOG`.
#[must_use]
pub fn span(spool: SpoolId) -> Span {
    tracing::error_span!("spool", uuid = %spool)
}

/// Segments of this process whose files stay open until they are removed; only the newest ones.
const OPEN_FILES_MAX: usize = 16;

/// One spool: its folder and its segments.
pub struct Spool {
    /// The spool's own UUID, created with the spool.
    pub uuid: SpoolId,
    /// The folder that holds its segments.
    pub folder: PathBuf,
    /// The initial value of its frames' checksums.
    pub key: FrameKey,
    published: Mutex<Published>,
    /// Notified when something was published.
    pub grown: Notify,
    /// Held while a file is removed or replaced.
    files: Mutex<()>,
    /// The files of the newest segments that this process wrote: their contents can be read even if somebody deletes
    /// them.
    open_files: Mutex<VecDeque<(SegmentId, Arc<dyn DiskFile>)>>,
    /// How often files were rewritten.
    rewrites: AtomicU64,
    /// The writer should end its segment.
    seal_asked: AtomicBool,
    /// Everything before this number is synced, and will not be written again.
    synced_seq: AtomicU64,
}

/// The part that may be read.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The segments in the stream's order. Loaded ones leave at the front.
    pub segments: Vec<Segment>,
    /// The number that the next hit will get.
    pub next_seq: u64,
    /// Nothing more will be appended.
    pub closed: bool,
    /// How far it is loaded.
    pub loaded: Loaded,
}

/// How far a spool is loaded, as its loader knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Everything before this number was committed.
    pub seq: u64,
    /// PostgreSQL reported it on the loader's connection; otherwise it is the last value that this or an earlier
    /// process learnt.
    pub is_sure: bool,
}

/// The published part of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its id.
    pub id: SegmentId,
    /// Bytes that may be read, including the header.
    pub length: u64,
    /// Nothing more will be appended to it.
    pub ended: bool,
    /// The number after its last hit, if the following segments do not determine it: it was written again.
    pub end: Option<u64>,
}

impl Segment {
    /// Whether it can contain the hit `seq`, as far as can be known without the segments after it.
    pub fn may_hold(&self, seq: u64) -> bool {
        self.id.first_seq <= seq && self.end.is_none_or(|end| seq < end)
    }
}

impl Spool {
    /// A spool in the folder `spools` under its UUID, with what `published` says.
    pub fn new(spools: &Path, uuid: SpoolId, published: Published) -> Arc<Spool> {
        let folder = spools.join(uuid.to_string());
        let key = FrameKey::of(uuid);
        // What an earlier process left is safely on disk.
        let synced_seq = AtomicU64::new(published.next_seq);
        let published = Mutex::new(published);
        Arc::new(Spool {
            uuid,
            folder,
            key,
            published,
            grown: Notify::new(),
            files: Mutex::default(),
            open_files: Mutex::default(),
            rewrites: AtomicU64::default(),
            seal_asked: AtomicBool::default(),
            synced_seq,
        })
    }

    /// The path of a segment.
    pub fn path(&self, segment: SegmentId) -> PathBuf {
        self.folder.join(segment.file_name())
    }

    /// The part that may be read now.
    pub fn published(&self) -> MutexGuard<'_, Published> {
        // A panic elsewhere leaves consistent values, since each change is one assignment after the write that it
        // describes.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hold this to remove or replace a file, so that none comes back.
    pub fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the file of a segment open, for [`Spool::open_file`].
    pub fn keep_open(&self, segment: SegmentId, file: Arc<dyn DiskFile>) {
        let mut open = self.open_files();
        open.push_back((segment, file));
        if open.len() > OPEN_FILES_MAX {
            open.pop_front();
        }
    }

    /// The file of a segment, if it is still open.
    pub fn open_file(&self, segment: SegmentId) -> Option<Arc<dyn DiskFile>> {
        self.open_files().iter().find(|(id, _)| *id == segment).map(|(_, file)| Arc::clone(file))
    }

    /// Closes the file of a segment: it is removed or replaced.
    pub fn close_file(&self, segment: SegmentId) {
        self.open_files().retain(|(id, _)| *id != segment);
    }

    fn open_files(&self) -> MutexGuard<'_, VecDeque<(SegmentId, Arc<dyn DiskFile>)>> {
        self.open_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often files were rewritten: after that, open ones are not those on disk.
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Acquire)
    }

    /// Counts a rewritten file.
    pub fn was_rewritten(&self) {
        self.rewrites.fetch_add(1, Ordering::Release);
    }

    /// Asks the writer to end its current segment.
    pub fn ask_seal(&self) {
        self.seal_asked.store(true, Ordering::Release);
    }

    /// Whether that was requested since the last call.
    pub fn take_seal(&self) -> bool {
        self.seal_asked.load(Ordering::Relaxed) && self.seal_asked.swap(false, Ordering::Acquire)
    }

    /// Everything before this number is synced: it is no longer in any memory from which it could be written again.
    pub fn synced_seq(&self) -> u64 {
        self.synced_seq.load(Ordering::Acquire)
    }

    /// Sets how far it is synced.
    pub fn synced(&self, seq: u64) {
        self.synced_seq.fetch_max(seq, Ordering::Release);
    }

    /// Changes the part that may be read, and notifies the reader.
    pub fn publish(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published());
        self.grown.notify_one();
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("uuid", &self.uuid).field("published", &self.published).finish_non_exhaustive()
    }
}
