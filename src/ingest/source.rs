//! One spool as the loader sees it: its reader, its mark, and which of its segments can be removed.
//!
//! Guarantees: a segment is removed only when the mark, as PostgreSQL has committed it, is behind its last hit, and then only
//! after `PIXELD_SPOOL_KEEP` (a database restored from a backup can still be brought up to date from what is kept), or when
//! the spool needs the room.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::spool::reader::Reader;
use super::spool::recovery::quarantine;
use super::spool::segment::SegmentId;
use super::spool::{Segment, Spool};

/// Name of the file that notes how far a spool was loaded. A hint: the truth is the mark.
const LOADED_HINT: &str = "loaded";

/// A spool to load.
#[derive(Debug)]
pub struct Source {
    /// The spool.
    pub spool: Arc<Spool>,
    /// Its reader.
    pub reader: Reader,
    /// The spool's number in `spool_marks`, once it is known.
    pub number: Option<i32>,
    /// Everything before this number is committed, as far as we know.
    pub loaded_seq: u64,
    /// Hits of it that are counted as spooled.
    pub counted: u64,
}

/// A loaded segment that is still there.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Which segment.
    pub id: SegmentId,
    /// Its bytes.
    pub bytes: u64,
    /// How long ago it was written last.
    pub age: Duration,
}

impl Source {
    /// The spool of an earlier start. What it holds is counted by the hint until its mark is known.
    #[must_use]
    pub fn recovered(spool: Arc<Spool>, spools: &Path) -> Source {
        let hint = fs::read_to_string(spool.folder.join(LOADED_HINT)).ok().and_then(|text| text.trim().parse().ok());
        let next_seq = spool.published().next_seq;
        let loaded_seq = hint.unwrap_or(0).min(next_seq);
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), loaded_seq);
        Source { spool, reader, number: None, loaded_seq, counted: next_seq - loaded_seq }
    }

    /// The spool of this start.
    #[must_use]
    pub fn live(spool: Arc<Spool>, spools: &Path) -> Source {
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), 0);
        Source { spool, reader, number: None, loaded_seq: 0, counted: 0 }
    }

    /// Whether every hit is loaded and none will come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let published = self.spool.published();
        published.closed && self.loaded_seq >= published.next_seq
    }

    /// Whether something is published and not loaded.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.loaded_seq < self.spool.published().next_seq
    }

    /// Notes that everything before `seq` is committed.
    pub fn loaded(&mut self, seq: u64) {
        self.loaded_seq = seq;
        if let Err(error) = fs::write(self.spool.folder.join(LOADED_HINT), format!("{seq}\n")) {
            tracing::debug!(%error, "the hint of how far a spool is loaded could not be written");
        }
    }

    /// Segments whose hits are all committed, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        let published = self.spool.published();
        let reading = if self.is_done_in(&published) { None } else { self.reader.segment() };
        let behind = published.segments.iter().skip(1).map(|next| next.id.first_seq).chain([published.next_seq]);
        let loaded =
            |segment: &Segment, behind: u64| segment.ended && behind <= self.loaded_seq && Some(segment.id) != reading;
        let segments: Vec<Segment> = published
            .segments
            .iter()
            .zip(behind)
            .take_while(|(s, behind)| loaded(s, *behind))
            .map(|(s, _)| *s)
            .collect();
        drop(published);
        let age = |id: SegmentId| {
            let modified = fs::metadata(self.spool.path(id)).and_then(|m| m.modified()).ok();
            modified.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
        };
        segments.into_iter().map(|s| Kept { id: s.id, bytes: s.length, age: age(s.id) }).collect()
    }

    fn is_done_in(&self, published: &super::spool::Published) -> bool {
        published.closed && self.loaded_seq >= published.next_seq
    }

    /// Removes a loaded segment, and the folder with the last of a spool that is done. Says whether the spool is gone.
    ///
    /// # Errors
    /// As the disk says.
    pub fn remove(&self, kept: Kept) -> std::io::Result<bool> {
        match fs::remove_file(self.spool.path(kept.id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut published = self.spool.published();
        published.segments.retain(|segment| segment.id != kept.id);
        let gone = published.segments.is_empty() && published.closed;
        drop(published);
        if gone {
            fs::remove_dir_all(&self.spool.folder)?;
        } else {
            fs::File::open(&self.spool.folder)?.sync_all()?;
        }
        Ok(gone)
    }
}
