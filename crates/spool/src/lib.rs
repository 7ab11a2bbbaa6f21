//! The spool: hits on disk between the edge's answer and PostgreSQL's commit.
//!
//! Guarantees: a hit whose receipt was given is in a frame of a segment; hits are numbered from 0 without gaps; a spool
//! is begun anew at every start under a fresh UUID, so that a tail that a power cut took, a cloned disk or a restored
//! backup can never use a number twice. Gives up: numbers say nothing of time, and a spool by itself does not know how far
//! it was loaded; that is the mark, in PostgreSQL.
//!
//! The writer appends and publishes how far (here); the loader reads no further. Both see the same list of segments.

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
use uuid::Uuid;

use disk::DiskFile;
use frame::FrameKey;
pub use room::SpoolRoom;
use segment::SegmentId;

/// The span of all work on one spool, so that each line of the log says which. It has the level of errors: lines have it at every `PIXELD_LOG`.
#[must_use]
pub fn span(spool: Uuid) -> Span {
    tracing::error_span!("spool", uuid = %spool)
}

/// Segments of this process whose files stay open until they are removed, the newest ones.
const OPEN_FILES_MAX: usize = 16;

/// One spool: where it lies and which segments it has.
pub struct Spool {
    /// The spool's own UUID, made at the start that began it.
    pub uuid: Uuid,
    /// The folder that holds its segments.
    pub folder: PathBuf,
    /// The start of its frames' checksums.
    pub key: FrameKey,
    published: Mutex<Published>,
    /// Told when something was published.
    pub grown: Notify,
    /// Held while a file is removed or put in another's place.
    files: Mutex<()>,
    /// The files of the newest segments that this process wrote: what is in them can be read even if somebody deletes them.
    open_files: Mutex<VecDeque<(SegmentId, Arc<dyn DiskFile>)>>,
    /// How often files were written anew.
    rewrites: AtomicU64,
    /// The writer is to end its segment.
    seal_asked: AtomicBool,
    /// Everything before this number is synced, and will not be written again.
    synced_seq: AtomicU64,
}

/// What may be read.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The segments, as the stream runs. Loaded ones leave at the front.
    pub segments: Vec<Segment>,
    /// The number that the next hit will get.
    pub next_seq: u64,
    /// Nothing will be appended any more.
    pub closed: bool,
    /// How far it is loaded.
    pub loaded: Loaded,
}

/// How far a spool is loaded, as its loader knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Everything before this number was committed.
    pub seq: u64,
    /// PostgreSQL says so on the loader's connection; else it is what this process or an earlier one was told last.
    pub is_sure: bool,
}

/// One segment as far as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Which one.
    pub id: SegmentId,
    /// Bytes that may be read, header included.
    pub length: u64,
    /// Nothing will be appended to it any more.
    pub ended: bool,
    /// The number behind its last hit, where that does not follow from the segments behind it: it was written again.
    pub end: Option<u64>,
}

impl Segment {
    /// Whether it can hold the hit `seq`, as far as can be told without those behind it.
    #[must_use]
    pub fn may_hold(&self, seq: u64) -> bool {
        self.id.first_seq <= seq && self.end.is_none_or(|end| seq < end)
    }
}

impl Spool {
    /// A spool that lies in `spools` under its UUID, with what `published` says.
    #[must_use]
    pub fn new(spools: &Path, uuid: Uuid, published: Published) -> Arc<Spool> {
        let folder = spools.join(uuid.to_string());
        let key = FrameKey::of(uuid);
        // What an earlier process left is on disk for good.
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

    /// Where a segment lies.
    #[must_use]
    pub fn path(&self, segment: SegmentId) -> PathBuf {
        self.folder.join(segment.file_name())
    }

    /// What may be read, now.
    pub fn published(&self) -> MutexGuard<'_, Published> {
        // A panic elsewhere leaves whole values behind, since each change is one assignment after the write it tells of.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever removes a file or puts one in its place, so that none comes back.
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
    #[must_use]
    pub fn open_file(&self, segment: SegmentId) -> Option<Arc<dyn DiskFile>> {
        self.open_files().iter().find(|(id, _)| *id == segment).map(|(_, file)| Arc::clone(file))
    }

    /// Closes the file of a segment: it is removed, or another has taken its place.
    pub fn close_file(&self, segment: SegmentId) {
        self.open_files().retain(|(id, _)| *id != segment);
    }

    fn open_files(&self) -> MutexGuard<'_, VecDeque<(SegmentId, Arc<dyn DiskFile>)>> {
        self.open_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often files were written anew: open ones are no longer those on disk.
    #[must_use]
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Acquire)
    }

    /// Notes that a file was written anew.
    pub fn was_rewritten(&self) {
        self.rewrites.fetch_add(1, Ordering::Release);
    }

    /// Asks the writer to end the segment that it appends to.
    pub fn ask_seal(&self) {
        self.seal_asked.store(true, Ordering::Release);
    }

    /// Whether that was asked since the last call.
    pub fn take_seal(&self) -> bool {
        self.seal_asked.load(Ordering::Relaxed) && self.seal_asked.swap(false, Ordering::Acquire)
    }

    /// Everything before this number is synced: it is in no memory any more from which it could be written again.
    #[must_use]
    pub fn synced_seq(&self) -> u64 {
        self.synced_seq.load(Ordering::Acquire)
    }

    /// Notes how far it is synced.
    pub fn synced(&self, seq: u64) {
        self.synced_seq.fetch_max(seq, Ordering::Release);
    }

    /// Changes what may be read and tells the reader.
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
