//! The room that spools may take: their own bound, and the free space of the disk.
//!
//! Guarantees: a write beyond the bound is refused before it is tried. If room on the disk is reserved for a PostgreSQL
//! that shares it, the same holds there, however rarely the disk is checked, since each write is subtracted from what
//! was left. The housekeeper is woken after each segment's worth of bytes, so that it sees a low disk before it is
//! full, however fast hits arrive. Gives up: what other programs write between two checks; then the write fails, and
//! the housekeeper is woken. A removed file takes its room until the removal is synced (a second), so a disk that fills
//! within that time drops hits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

use pixeld_core::metrics::DropReason;

/// Bytes after which a segment ends, unless the room is small.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// One segment takes at most this fraction of the room: the open one cannot be removed, so it must not be most of a
/// small disk.
const SEGMENTS_MIN: u64 = 8;

/// Minimum bytes of a segment, on the smallest disk.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The bytes of all spools, and their bounds.
#[derive(Debug)]
pub struct SpoolRoom {
    bytes: AtomicU64,
    /// The bound: `PIXELD_SPOOL_BYTES_MAX`.
    pub bytes_max: u64,
    /// Bytes that may still be written before the next check of the disk; `u64::MAX` is no bound.
    disk_left: AtomicU64,
    segment_bytes_max: AtomicU64,
    /// Bytes written since the last check of the disk.
    unseen: AtomicU64,
    housekeeper: OnceLock<Thread>,
}

impl SpoolRoom {
    /// Room of at most `bytes_max`, of which `bytes` are taken.
    pub fn new(bytes: u64, bytes_max: u64) -> SpoolRoom {
        SpoolRoom {
            bytes: AtomicU64::new(bytes),
            bytes_max,
            disk_left: AtomicU64::new(u64::MAX),
            segment_bytes_max: AtomicU64::new(SEGMENT_BYTES_MAX.min(bytes_max / SEGMENTS_MIN)),
            unseen: AtomicU64::new(0),
            housekeeper: OnceLock::new(),
        }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether `more` bytes fit.
    ///
    /// # Errors
    /// Which bound they would exceed.
    pub fn admit(&self, more: u64) -> Result<(), DropReason> {
        if self.bytes().saturating_add(more) > self.bytes_max {
            return Err(DropReason::SpoolFull);
        }
        if self.disk_left.load(Ordering::Relaxed) < more { Err(DropReason::DiskFull) } else { Ok(()) }
    }

    /// Adds bytes that were written.
    pub fn take(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let take = |left| (left != u64::MAX).then(|| u64::saturating_sub(left, bytes));
        // It returns an error if there is no bound, which is fine.
        self.disk_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok();
        let (before, segment) = (self.unseen.fetch_add(bytes, Ordering::Relaxed), self.segment_bytes_max());
        if before < segment && before.saturating_add(bytes) >= segment {
            self.ask_for_room();
        }
    }

    /// Subtracts bytes.
    pub fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes after which a segment ends.
    pub fn segment_bytes_max(&self) -> u64 {
        self.segment_bytes_max.load(Ordering::Relaxed)
    }

    /// The disk is being checked now.
    pub fn is_looked_at(&self) {
        self.unseen.store(0, Ordering::Relaxed);
    }

    /// Sets the result of a check of the disk: bytes that spools could take in total, and how many may be written until
    /// the next check.
    pub fn disk_has(&self, usable: u64, left: Option<u64>) {
        let segment = (usable / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        self.segment_bytes_max.store(segment.min(self.bytes_max / SEGMENTS_MIN), Ordering::Relaxed);
        self.disk_left.store(left.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sets the thread that looks after the room.
    pub fn is_kept_by(&self, housekeeper: Thread) {
        // There is one for each room.
        self.housekeeper.set(housekeeper).ok();
    }

    /// Wakes the housekeeper, since there is no room left.
    pub fn ask_for_room(&self) {
        if let Some(housekeeper) = self.housekeeper.get() {
            housekeeper.unpark();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start what is on the other side")]
mod tests {
    use super::*;

    #[test]
    fn a_write_fits_within_both_bounds_only() {
        let room = SpoolRoom::new(10, 100);
        assert_eq!((room.admit(90), room.admit(91)), (Ok(()), Err(DropReason::SpoolFull)));
        room.disk_has(1000, Some(50));
        assert_eq!((room.admit(50), room.admit(51)), (Ok(()), Err(DropReason::DiskFull)));
        room.take(20);
        assert_eq!((room.admit(30), room.admit(31)), (Ok(()), Err(DropReason::DiskFull)));
        room.disk_has(1000, None);
        room.take(60);
        assert_eq!((room.admit(10), room.bytes()), (Ok(()), 90));
    }

    #[test]
    fn the_housekeeper_is_woken_once_per_segment() {
        let (room, (sender, receiver)) = (std::sync::Arc::new(SpoolRoom::new(0, 8 << 20)), std::sync::mpsc::channel());
        let segment = room.segment_bytes_max();
        let housekeeper = std::thread::spawn({
            let room = std::sync::Arc::clone(&room);
            move || {
                room.is_kept_by(std::thread::current());
                sender.send(()).unwrap();
                for _ in 0..2 {
                    std::thread::park();
                    room.is_looked_at();
                    sender.send(()).unwrap();
                }
            }
        });
        receiver.recv().unwrap();
        for _ in 0..2 {
            room.take(segment - 1);
            assert!(receiver.recv_timeout(std::time::Duration::from_millis(20)).is_err(), "there is time");
            room.take(1);
            receiver.recv().unwrap();
        }
        housekeeper.join().unwrap();
    }

    #[test]
    fn a_segment_is_a_small_part_of_the_room() {
        let room = SpoolRoom::new(0, 8 << 30);
        let segment = |usable| {
            room.disk_has(usable, None);
            room.segment_bytes_max()
        };
        assert_eq!(segment(u64::MAX), SEGMENT_BYTES_MAX);
        assert_eq!(segment(24 << 20), 3 << 20);
        assert_eq!(segment(0), SEGMENT_BYTES_MIN);
        assert_eq!(SpoolRoom::new(0, 1 << 20).segment_bytes_max(), 1 << 17);
    }
}
