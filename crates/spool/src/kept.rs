//! Loaded segments that still exist: which ones, and how they are removed.
//!
//! Guarantees: a segment is listed only when all its hits are committed, including hits that were written again after a
//! failed sync. A removed one is in no list any more; when a spool is finished, its folder is removed with its last
//! segment.

use std::fs;
use std::io;

use super::segment::SegmentId;
use super::{Published, Segment, Spool};

/// A loaded segment that still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The segment.
    pub id: SegmentId,
    /// Its bytes.
    pub bytes: u64,
}

impl Spool {
    /// Segments whose hits are all committed, oldest first.
    pub fn kept(&self) -> Vec<Kept> {
        let published = self.published();
        let all = published.segments.iter().enumerate();
        let loaded =
            |&(at, segment): &(usize, &Segment)| segment.ended && end_of(&published, at) <= published.loaded.seq;
        all.take_while(loaded).map(|(_, s)| Kept { id: s.id, bytes: s.length }).collect()
    }

    /// Whether everything is loaded and removed, and nothing more will come.
    pub fn is_gone(&self) -> bool {
        let published = self.published();
        published.closed && published.segments.is_empty() && published.loaded.seq >= published.next_seq
    }

    /// Removes a loaded segment, if it still is one, and the folder with the last segment of a finished spool.
    pub fn remove(&self, kept: Kept) -> io::Result<()> {
        // A task that rewrites a segment looks for it in the list before it replaces this file.
        let _files = self.files();
        // A restored database may have reported in the meantime that less is loaded.
        if !self.kept().contains(&kept) {
            return Ok(());
        }
        if_there(fs::remove_file(self.path(kept.id)))?;
        self.close_file(kept.id);
        let mut published = self.published();
        published.segments.retain(|segment| segment.id != kept.id);
        let is_last = published.segments.is_empty() && published.closed;
        drop(published);
        if is_last {
            if_there(fs::remove_dir_all(&self.folder))
        } else {
            if_there(fs::File::open(&self.folder).and_then(|folder| folder.sync_all()))
        }
    }
}

/// The number after the last hit of the segment at this position of the list.
fn end_of(published: &Published, at: usize) -> u64 {
    if let Some(end) = published.segments[at].end {
        return end;
    }
    // A segment's hits end where the next one begins, unless either contains hits that were written again.
    let next = published.segments[at + 1..].iter().find(|next| !next.id.may_overlap());
    next.map_or(published.next_seq, |next| next.id.first_seq)
}

/// Ignores a missing file: somebody may have deleted it.
fn if_there(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
