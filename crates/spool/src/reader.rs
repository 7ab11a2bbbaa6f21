//! Reads a spool as a stream of hits, in order, as far as the writer has published.
//!
//! Guarantees: every number is returned once, in order, as a hit or as missing. Damage is copied to the `quarantine`;
//! the reader goes on at the next valid frame, and what is between counts as missing only if no later segment has it:
//! after a failed sync two segments can contain the same hits, and the second copy is skipped. Gives up: if damage
//! covers the very end of a spool, the number of hits that it held is unknown.
//!
//! The page cache makes reading recent writes cheap, so there is no second path in memory.

mod chunk;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::chunk::Chunk;
use self::chunk::Taken;
use super::disk::DiskFile;
use super::frame::{self, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameError};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId, header_is_right, refuse_newer};
use super::{Segment, Spool};

/// Bytes read at a time; a whole frame always fits.
const READ_BYTES: usize = FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX;

/// Reads one spool.
pub struct Reader {
    spool: Arc<Spool>,
    /// The folder for copies of damaged bytes.
    quarantine: PathBuf,
    next_seq: u64,
    place: Option<Place>,
    /// How often the spool had rewritten files when the place was opened.
    rewrites: u64,
    buffer: Vec<u8>,
    damages: u64,
    /// A segment that could not be read, and is skipped.
    passed_over: Option<SegmentId>,
    /// The segment that the last error was about.
    failed: Option<SegmentId>,
}

/// The reader's position in a segment.
struct Place {
    id: SegmentId,
    /// `None` if nothing of it can be read: its hits are missing.
    file: Option<Arc<dyn DiskFile>>,
    offset: u64,
}

impl Reader {
    /// A reader that begins at `next_seq`. Damaged bytes are copied below `quarantine`.
    pub fn new(spool: Arc<Spool>, quarantine: PathBuf, next_seq: u64) -> Reader {
        Reader {
            spool,
            quarantine,
            next_seq,
            place: None,
            rewrites: 0,
            buffer: Vec::new(),
            damages: 0,
            passed_over: None,
            failed: None,
        }
    }

    /// The number that is returned next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Damaged places found since the last call.
    pub fn take_damages(&mut self) -> u64 {
        std::mem::take(&mut self.damages)
    }

    /// The segment that is being read; all before it are read to their end.
    pub fn segment(&self) -> Option<SegmentId> {
        self.place.as_ref().map(|place| place.id)
    }

    /// Whether everything was returned and nothing more will come.
    #[cfg(any(test, feature = "fixture"))]
    pub fn is_at_end(&self) -> bool {
        let published = self.spool.published();
        published.closed && self.next_seq >= published.next_seq
    }

    /// Goes to `seq`, forward or back.
    pub fn seek(&mut self, seq: u64) {
        self.next_seq = seq;
        self.place = None;
    }

    /// Treats the segment that could not be read as empty; its numbers are then returned as missing. The file stays.
    pub fn pass_over_failed(&mut self) {
        self.passed_over = self.failed.take();
        self.damages += 1;
    }

    /// Closes a file that was replaced because of an erasure; reading goes on in the new one.
    pub fn refresh(&mut self) {
        let rewrites = self.spool.rewrites();
        if self.rewrites != rewrites {
            self.rewrites = rewrites;
            self.place = None;
        }
    }

    /// Reads on until it has about `rows_max` hits or nothing more is published. Empty: nothing new.
    ///
    /// # Errors
    /// On a disk error; then nothing is returned, and the next call tries again.
    pub fn read(&mut self, rows_max: u64) -> io::Result<Chunk> {
        self.refresh();
        let mut chunk = Chunk { first_seq: self.next_seq, ..Chunk::default() };
        let outcome = self.read_into(&mut chunk, rows_max);
        if outcome.is_err() && chunk.is_empty() {
            self.place = None;
            outcome?;
        }
        self.next_seq = chunk.next_seq();
        Ok(chunk)
    }

    fn read_into(&mut self, chunk: &mut Chunk, rows_max: u64) -> io::Result<()> {
        while chunk.count < rows_max {
            let Some(segment) = self.current_segment(chunk.next_seq())? else {
                self.add_lost_end(chunk);
                return Ok(());
            };
            let more = self.read_segment(segment, chunk, rows_max)?;
            if more == Progress::ChunkDone || chunk.count >= rows_max {
                return Ok(());
            }
            // Checked after the read: whatever was published by then is read before the reader leaves the segment.
            let (now, behind) = self.look(segment.id);
            if now.is_some_and(|now| now.length > segment.length) {
                continue;
            }
            if !segment.ended && !behind {
                return Ok(());
            }
            if !behind {
                self.add_lost_end(chunk);
                return Ok(());
            }
            self.step_over(segment.id)?;
        }
        Ok(())
    }

    /// All segments are read: the numbers that the spool counts beyond them are missing.
    fn add_lost_end(&self, chunk: &mut Chunk) {
        let published = self.spool.published();
        let read_to_the_end =
            published.segments.last().is_none_or(|last| last.ended && self.segment().is_some_and(|id| id == last.id));
        if read_to_the_end && chunk.count == 0 && published.next_seq > chunk.next_seq() {
            chunk.missing += published.next_seq - chunk.next_seq();
        }
    }

    /// Whether a segment after `id` has the hit `seq`: one that was written again after a failed sync.
    fn is_written_again(&self, id: SegmentId, seq: u64) -> bool {
        let published = self.spool.published();
        published.segments.iter().skip_while(|segment| segment.id != id).skip(1).any(|s| s.may_hold(seq))
    }

    /// The segment to read from now, opened.
    fn current_segment(&mut self, seq: u64) -> io::Result<Option<Segment>> {
        let published = self.spool.published();
        let place = self.place.as_ref();
        let here = place.and_then(|place| published.segments.iter().position(|segment| segment.id == place.id));
        // Otherwise the last one that begins at or before the number, otherwise the first. One that was written again
        // comes after those whose hits it repeats, and may contain fewer of them, so reading starts with those.
        let position = here.or_else(|| {
            let begins = |segment: &Segment| !segment.id.may_overlap() && segment.id.first_seq <= seq;
            let last = published.segments.iter().rposition(begins);
            last.or((!published.segments.is_empty()).then_some(0))
        });
        let Some(position) = position else {
            drop(published);
            self.place = None;
            return Ok(None);
        };
        let segment = published.segments[position];
        drop(published);
        // The one that was read may be loaded, and removed.
        if here.is_none() {
            self.place = None;
            self.place = Some(self.open(segment)?);
        }
        Ok(Some(segment))
    }

    /// The segment's current state, and whether there is one after it.
    fn look(&self, id: SegmentId) -> (Option<Segment>, bool) {
        let published = self.spool.published();
        let position = published.segments.iter().position(|segment| segment.id == id);
        (position.map(|at| published.segments[at]), position.is_some_and(|at| at + 1 < published.segments.len()))
    }

    fn step_over(&mut self, id: SegmentId) -> io::Result<()> {
        let published = self.spool.published();
        let at = published.segments.iter().position(|segment| segment.id == id);
        let next = at.and_then(|at| published.segments.get(at + 1).copied());
        drop(published);
        self.place = next.map(|segment| self.open(segment)).transpose()?;
        Ok(())
    }

    fn open(&mut self, segment: Segment) -> io::Result<Place> {
        let place = self.try_open(segment);
        self.failed = place.is_err().then_some(segment.id);
        place
    }

    fn try_open(&mut self, segment: Segment) -> io::Result<Place> {
        let path = self.spool.path(segment.id);
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        if self.passed_over == Some(segment.id) {
            return Ok(Place { id: segment.id, file: None, offset });
        }
        let file: Arc<dyn DiskFile> = match (File::open(&path), self.spool.open_file(segment.id)) {
            (Ok(file), _) => Arc::new(file),
            // Somebody deleted it, and this process has had it open since it was written.
            (Err(_), Some(file)) => file,
            (Err(error), None) => return Err(error),
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(&mut header, 0)?;
        refuse_newer(&header[..read])?;
        if !header_is_right(&header[..read], self.spool.uuid, segment.id.first_seq) {
            // Frames contain the spool's key themselves, so a lost header loses nothing else.
            tracing::error!(segment = %path.display(), "a segment's header is damaged; pixeld still reads its frames");
            self.damages += 1;
            offset = 0;
        }
        Ok(Place { id: segment.id, file: Some(file), offset })
    }

    /// Reads frames of `segment` into `chunk` until either is done.
    fn read_segment(&mut self, segment: Segment, chunk: &mut Chunk, rows_max: u64) -> io::Result<Progress> {
        loop {
            let Some(Place { file: Some(file), offset, .. }) = &self.place else { return Ok(Progress::SegmentDone) };
            if *offset >= segment.length {
                return Ok(Progress::SegmentDone);
            }
            let want = READ_BYTES.min((segment.length - offset) as usize);
            self.buffer.resize(want, 0);
            let read = read_full(&**file, &mut self.buffer, *offset);
            self.failed = read.is_err().then_some(segment.id);
            self.buffer.truncate(read?);
            let (used, stop) = self.take_frames(segment.id, chunk, rows_max);
            if let Some(place) = &mut self.place {
                place.offset += used as u64;
            }
            match stop {
                Stop::ChunkDone => return Ok(Progress::ChunkDone),
                Stop::WrittenAgain => return Ok(Progress::SegmentDone),
                Stop::BufferDone => {}
                Stop::Damage => self.pass_damage(segment, chunk.next_seq())?,
            }
        }
    }

    /// Takes frames out of the buffer. Returns how many of its bytes were used, and why it stopped.
    fn take_frames(&self, id: SegmentId, chunk: &mut Chunk, rows_max: u64) -> (usize, Stop) {
        let mut used = 0;
        while used < self.buffer.len() {
            let frame = match frame::decode(self.spool.key, &self.buffer[used..]) {
                Ok(frame) => frame,
                // Read again from here: the rest of the frame may be after the buffer.
                Err(FrameError::Short { need, .. }) if used > 0 && need <= READ_BYTES => {
                    return (used, Stop::BufferDone);
                }
                Err(_) => return (used, Stop::Damage),
            };
            if frame.first_seq > chunk.next_seq() && self.is_written_again(id, chunk.next_seq()) {
                return (used, Stop::WrittenAgain);
            }
            match chunk.take_frame(&frame) {
                Taken::All => used += frame.bytes(),
                Taken::GapAhead => return (used, Stop::ChunkDone),
                Taken::Unreadable => return (used, Stop::Damage),
            }
            if chunk.count >= rows_max {
                return (used, Stop::ChunkDone);
            }
        }
        // An empty buffer before the published length: the file is shorter than it was.
        (used, if used == 0 { Stop::Damage } else { Stop::BufferDone })
    }

    /// Copies the damaged bytes at the reader's position to the quarantine, and goes to the next valid frame, or the
    /// segment's end.
    fn pass_damage(&mut self, segment: Segment, seq: u64) -> io::Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let Some(file) = &place.file else { return Ok(()) };
        let mut bytes = vec![0; (segment.length - place.offset) as usize];
        let read = read_full(&**file, &mut bytes, place.offset);
        self.failed = read.is_err().then_some(segment.id);
        bytes.truncate(read?);
        // Skip the first byte; otherwise the frame that was just refused would be tried forever.
        let found = bytes.get(1..).and_then(|rest| frame::find(self.spool.key, rest, seq)).map(|at| at + 1);
        let damage = &bytes[..found.unwrap_or(bytes.len())];
        let from = place.offset;
        place.offset = found.map_or(segment.length, |at| from + at as u64);
        let name = format!("{}-{}-{from}.damaged", self.spool.uuid, segment.id.file_name());
        tracing::error!(
            segment = %self.spool.path(segment.id).display(), from, bytes = damage.len(), copy = name,
            "damaged bytes in the spool are copied to the folder quarantine; pixeld reads on after them"
        );
        self.damages += 1;
        super::recovery::copy_aside(&self.quarantine, &name, damage);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    SegmentDone,
    ChunkDone,
}

/// Why reading a buffer stopped.
enum Stop {
    BufferDone,
    ChunkDone,
    Damage,
    WrittenAgain,
}

fn read_full(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Reader { next_seq, .. } = self;
        f.debug_struct("Reader").field("spool", &self.spool.uuid).field("next_seq", next_seq).finish_non_exhaustive()
    }
}
