//! Appends groups of hits to the current segment, and begins the next one.
//!
//! Guarantees: after `Ok` every hit of the group has a number and is in a file, whole. After `Err` none of them is, no
//! number was used, and the file ends where it ended before (or is cut back to there before a number is used again).
//! Hits that are not synced yet are kept in memory (at most 64 MiB) and written again, into a segment of their own,
//! after a failed sync: a failed fdatasync may have discarded the pages, and a second one on the same file would report
//! success. Gives up: beyond that bound, hits of a failed sync can only be read from the page cache.

mod unsynced;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::unsynced::Unsynced;
use super::disk::{Disk, DiskFile, write_all};
use super::frame::{self, FRAME_PAYLOAD_BYTES_MAX};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentId};
use super::{Segment, Spool, SpoolRoom};
use pixeld_core::hit::Parcel;
use pixeld_core::metrics::{DropReason, Metrics};

/// Age at which a segment ends even if it is small, so that it can be removed once it is loaded.
const SEGMENT_AGE_MAX: Duration = Duration::from_secs(600);

/// How long hits are dropped without trying the disk again after it refused a write.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Appends to one spool.
pub struct Appender {
    spool: Arc<Spool>,
    room: Arc<SpoolRoom>,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    current: Option<Current>,
    next_seq: u64,
    unsynced: Unsynced,
    torn: Option<Torn>,
    refused: Option<(Instant, DropReason)>,
    /// Why hits are dropped, so that it is logged once and not for each group.
    dropping: Option<DropReason>,
}

/// The segment that is being appended to.
struct Current {
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    length: u64,
    opened: Instant,
}

/// A file with bytes after its end that could not be cut off.
struct Torn {
    file: Arc<dyn DiskFile>,
    length: u64,
}

impl Appender {
    /// Starts to append to an empty spool.
    pub fn new(spool: Arc<Spool>, room: Arc<SpoolRoom>, disk: Arc<dyn Disk>, metrics: Arc<Metrics>) -> Appender {
        Appender {
            spool,
            room,
            disk,
            metrics,
            current: None,
            next_seq: 0,
            unsynced: Unsynced::default(),
            torn: None,
            refused: None,
            dropping: None,
        }
    }

    /// The number that the next hit will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The file that was last appended to, if it is still the current one.
    pub fn file(&self) -> Option<&Arc<dyn DiskFile>> {
        self.current.as_ref().map(|current| &current.file)
    }

    /// Writes the hits of `parcels` as one group.
    ///
    /// # Errors
    /// Why none of them was written; the caller drops and counts them.
    pub fn append(&mut self, parcels: &[Parcel]) -> Result<(), DropReason> {
        if let Some((since, reason)) = self.refused {
            if since.elapsed() < RETRY_PAUSE {
                return Err(reason);
            }
            self.refused = None;
        }
        let kept_bytes = self.unsynced.bytes.len();
        let kept_frames = self.unsynced.frames.len();
        let next_seq = self.encode(parcels);
        let outcome = self.write_from(kept_bytes, next_seq);
        match outcome {
            Ok(()) => {
                self.unsynced.bound();
                if self.dropping.take().is_some() {
                    tracing::warn!("hits are recorded again");
                }
            }
            Err(reason) => {
                self.unsynced.bytes.truncate(kept_bytes);
                self.unsynced.frames.truncate(kept_frames);
                self.refused = Some((Instant::now(), reason));
            }
        }
        outcome
    }

    /// Encodes the group after the unsynced frames; returns the number after its last hit.
    fn encode(&mut self, parcels: &[Parcel]) -> u64 {
        let out = &mut self.unsynced.bytes;
        let mut seq = self.next_seq;
        let mut rest = parcels;
        while !rest.is_empty() {
            let start = frame::begin(out);
            let mut count = 0;
            while let Some((parcel, others)) = rest.split_first() {
                let payload = out.len() - start - frame::FRAME_HEADER_BYTES;
                if count > 0 && payload + parcel.bytes.len() > FRAME_PAYLOAD_BYTES_MAX {
                    break;
                }
                out.extend_from_slice(&parcel.bytes);
                count += parcel.count;
                rest = others;
            }
            frame::finish(out, start, self.spool.key, seq, count);
            seq += u64::from(count);
            self.unsynced.frames.push_back((out.len() - start, seq));
        }
        seq
    }

    /// Writes `unsynced` from `start` on, begins a segment if needed, and publishes it.
    fn write_from(&mut self, start: usize, next_seq: u64) -> Result<(), DropReason> {
        let bytes = (self.unsynced.bytes.len() - start) as u64;
        let full = |current: &Current| {
            current.length + bytes > self.room.segment_bytes_max().max(SEGMENT_HEADER_BYTES as u64 + bytes)
                || current.opened.elapsed() > SEGMENT_AGE_MAX
        };
        if self.current.as_ref().is_some_and(full) {
            self.end_segment();
        }
        if let Err(error) = self.cut_torn() {
            self.say_dropping(DropReason::DiskError, "a torn write still cannot be cut back", &error);
            return Err(DropReason::DiskError);
        }
        if let Err(reason) = self.room.admit(bytes + SEGMENT_HEADER_BYTES as u64) {
            let what = match reason {
                DropReason::SpoolFull => "PIXELD_SPOOL_BYTES_MAX is reached",
                _ => "the rest of the disk is kept for PostgreSQL",
            };
            self.say_dropping(reason, what, &io::ErrorKind::StorageFull.into());
            self.make_removable(reason);
            return Err(reason);
        }
        let first_attempt = self.write_group(start, next_seq);
        let Err(error) = first_attempt else { return Ok(()) };
        if is_full(&error) {
            self.say_dropping(DropReason::DiskFull, "the disk is full", &error);
            self.make_removable(DropReason::DiskFull);
            return Err(DropReason::DiskFull);
        }
        if self.torn.is_some() {
            // Its successor would use numbers that are on disk after the end of this one.
            return Err(DropReason::DiskError);
        }
        if self.dropping.is_none() {
            tracing::error!(%error, "a segment refused a write; pixeld tries the next one");
        }
        self.end_segment();
        self.write_group(start, next_seq).map_err(|error| {
            let reason = if is_full(&error) { DropReason::DiskFull } else { DropReason::DiskError };
            self.say_dropping(reason, "the disk refuses writes", &error);
            reason
        })
    }

    /// Logs once that hits are dropped, and why.
    fn say_dropping(&mut self, reason: DropReason, what: &str, error: &io::Error) {
        if self.dropping.replace(reason) == Some(reason) {
            return;
        }
        match reason {
            DropReason::DiskError => {
                tracing::error!(what, %error, "the spool cannot be written; hits are dropped until this is fixed")
            }
            _ => tracing::warn!(what, "the spool is full; hits are dropped until there is room"),
        }
    }

    /// There is no room: asks for some, and ends the segment, so that it can be removed once it is loaded. On a full
    /// disk only a large segment is ended; otherwise each bit of room that appears briefly would make a segment.
    fn make_removable(&mut self, reason: DropReason) {
        let is_large = |current: &Current| current.length >= self.room.segment_bytes_max() / 4;
        if reason == DropReason::SpoolFull || self.current.as_ref().is_some_and(is_large) {
            self.end_segment();
        }
        self.room.ask_for_room();
    }

    /// One attempt to write `unsynced` from `start` on.
    fn write_group(&mut self, start: usize, next_seq: u64) -> io::Result<()> {
        if self.current.is_none() {
            self.begin_segment(SegmentId { first_seq: self.next_seq, rewrite: 0 })?;
        }
        let Some(current) = &mut self.current else { return Err(io::Error::other("no segment")) };
        let bytes = &self.unsynced.bytes[start..];
        if let Err(error) = write_all(&*current.file, bytes, current.length) {
            // Cut off a torn write. If even that fails, readers stop before it, but its whole frames would be found
            // after a restart: nothing is written under their numbers until they are gone.
            if let Err(error) = current.file.truncate(current.length) {
                tracing::error!(%error, "a torn write could not be cut back; hits are dropped until this is fixed");
                self.torn = Some(Torn { file: Arc::clone(&current.file), length: current.length });
                self.end_segment();
            } else if current.length == SEGMENT_HEADER_BYTES as u64 {
                self.discard_segment();
            }
            return Err(error);
        }
        current.length += bytes.len() as u64;
        self.next_seq = next_seq;
        self.room.take(bytes.len() as u64);
        self.metrics.spool_appended.add(bytes.len() as u64);
        let end = current.id.may_overlap().then_some(next_seq);
        let segment = Segment { id: current.id, length: current.length, ended: false, end };
        self.spool.publish(|published| {
            // A segment is published with its first frame. One that is discarded before that is begun again under the
            // same name, and a reader that had opened it would go on reading the removed file.
            match published.segments.last_mut().filter(|last| last.id == segment.id) {
                Some(last) => *last = segment,
                None => published.segments.push(segment),
            }
            published.next_seq = next_seq;
        });
        Ok(())
    }

    /// Cuts off what an earlier attempt could not.
    fn cut_torn(&mut self) -> io::Result<()> {
        if let Some(torn) = &self.torn {
            torn.file.truncate(torn.length)?;
            self.torn = None;
        }
        Ok(())
    }

    /// Begins a segment under `id`, or the next free rewrite of it.
    fn begin_segment(&mut self, mut id: SegmentId) -> io::Result<()> {
        let file = loop {
            match self.disk.create(&self.spool.path(id)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => id.rewrite += 1,
                other => break other?,
            }
        };
        let header = segment::header(self.spool.uuid, id.first_seq);
        if let Err(error) = write_all(&*file, &header, 0) {
            if let Err(error) = self.disk.remove(&self.spool.path(id)) {
                tracing::warn!(%error, "an empty segment could not be removed");
            }
            return Err(error);
        }
        let length = header.len() as u64;
        self.room.take(length);
        self.spool.keep_open(id, Arc::clone(&file));
        self.current = Some(Current { id, file, length, opened: Instant::now() });
        Ok(())
    }

    /// Removes the current segment: it is empty and was never published.
    fn discard_segment(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.room.give_back(current.length);
        self.spool.close_file(current.id);
        if let Err(error) = self.disk.remove(&self.spool.path(current.id)) {
            tracing::warn!(%error, "an empty segment could not be removed");
        }
    }

    /// Ends the current segment; the next append begins another.
    pub fn end_segment(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.spool.publish(|published| {
            for segment in published.segments.iter_mut().filter(|segment| segment.id == current.id) {
                segment.ended = true;
            }
        });
    }

    /// Ends the current segment if it is old.
    pub fn end_old_segment(&mut self) {
        if self.current.as_ref().is_some_and(|current| current.opened.elapsed() > SEGMENT_AGE_MAX) {
            self.end_segment();
        }
    }

    /// Ends the current segment if that was requested.
    pub fn seal_if_asked(&mut self) {
        if self.spool.take_seal() {
            self.end_segment();
        }
    }

    /// A sync has covered all hits before `seq`.
    pub fn synced(&mut self, seq: u64) {
        let mut bytes = 0;
        while self.unsynced.frames.front().is_some_and(|&(_, next_seq)| next_seq <= seq) {
            bytes += self.unsynced.frames.pop_front().map_or(0, |(length, _)| length);
        }
        self.unsynced.bytes.drain(..bytes);
        self.unsynced.incomplete &= !self.unsynced.frames.is_empty();
        self.spool.synced(seq);
    }

    /// After a failed sync: writes all unsynced hits again, into a segment of their own, under their old numbers.
    /// Returns that segment's file, unless there was nothing to write.
    ///
    /// # Errors
    /// On a disk error; call again later.
    pub fn rewrite_unsynced(&mut self) -> io::Result<Option<Arc<dyn DiskFile>>> {
        self.end_segment();
        if self.unsynced.incomplete {
            tracing::error!("a sync failed after more was written than memory holds; a power cut now could lose hits");
        }
        if self.unsynced.frames.is_empty() {
            return Ok(None);
        }
        self.cut_torn()?;
        // Its name distinguishes it from a segment that was begun in the stream's order. It is ended at once: the next
        // one then begins after all its hits, and recovery uses that to find its place among the others.
        self.begin_segment(SegmentId { first_seq: self.first_unsynced_seq(), rewrite: 1 })?;
        let file = self.file().cloned();
        let written = self.write_group(0, self.next_seq);
        self.end_segment();
        written.map(|()| file)
    }

    /// The number of the first unsynced hit, read from its frame.
    fn first_unsynced_seq(&self) -> u64 {
        frame::decode(self.spool.key, &self.unsynced.bytes).map_or(self.next_seq, |frame| frame.first_seq)
    }

    /// Ends the spool: nothing more is appended.
    pub fn close(&mut self) {
        self.end_segment();
        self.spool.publish(|published| published.closed = true);
    }
}

/// Whether the disk has no room, for us or at all.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}

#[cfg(test)]
mod model_tests;
