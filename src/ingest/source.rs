//! One spool as the loader sees it: its reader, its mark, and which of its segments can be removed.
//!
//! Guarantees: a segment is removed only when the mark, as PostgreSQL has committed it, is behind its last hit, and then only
//! after `PIXELD_SPOOL_KEEP` (a database restored from a backup can still be brought up to date from what is kept), or when
//! the spool needs the room.
//! A spool's mark bears its UUID, unless its numbers were found to be in use by another history of it; then the rest of it has a
//! mark of its own, whose name stands in the spool's folder.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::spool::reader::Reader;
use super::spool::recovery::quarantine;
use super::spool::segment::SegmentId;
use super::spool::{Segment, Spool};
use crate::whole_file;

/// Name of the file that notes how far a spool was loaded. A hint: the truth is the mark.
const LOADED_HINT: &str = "loaded";

/// Name of the file that says under which other UUID a spool's mark is, and from which number on.
const MARK_NAME: &str = "mark";

/// By what name PostgreSQL knows how far a spool is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkName {
    /// `spool_marks.spool_uuid`.
    pub uuid: Uuid,
    /// The first number that it is about.
    pub first_seq: u64,
}

impl MarkName {
    /// The mark of the spool with this UUID, whose folder this is.
    #[must_use]
    pub fn of(spool: Uuid, folder: &Path) -> MarkName {
        let own = MarkName { uuid: spool, first_seq: 0 };
        let text = match fs::read_to_string(folder.join(MARK_NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return own,
            Err(error) => {
                tracing::error!(%error, %spool, "the name of a spool's mark cannot be read; its own is used");
                return own;
            }
        };
        let parse = |text: &str| {
            let (uuid, first_seq) = text.trim().split_once(' ')?;
            Some(MarkName { uuid: uuid.parse().ok()?, first_seq: first_seq.parse().ok()? })
        };
        parse(&text).unwrap_or_else(|| {
            tracing::error!(%spool, "the name of a spool's mark cannot be read; its own is used");
            own
        })
    }
}

/// A spool to load.
#[derive(Debug)]
pub struct Source {
    /// The spool.
    pub spool: Arc<Spool>,
    /// Its reader.
    pub reader: Reader,
    /// By what name the database knows how far it is loaded.
    pub mark: MarkName,
    /// This process appends to it.
    pub is_live: bool,
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
}

impl Source {
    /// The spool of an earlier start. What it holds is counted by the hint until its mark is known.
    #[must_use]
    pub fn recovered(spool: Arc<Spool>, spools: &Path) -> Source {
        let hint = fs::read_to_string(spool.folder.join(LOADED_HINT)).ok().and_then(|text| text.trim().parse().ok());
        let next_seq = spool.published().next_seq;
        let mark = MarkName::of(spool.uuid, &spool.folder);
        let loaded_seq = hint.unwrap_or(0).max(mark.first_seq).min(next_seq);
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), loaded_seq);
        Source { spool, reader, mark, is_live: false, number: None, loaded_seq, counted: next_seq - loaded_seq }
    }

    /// The spool of this start.
    #[must_use]
    pub fn live(spool: Arc<Spool>, spools: &Path) -> Source {
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), 0);
        let mark = MarkName { uuid: spool.uuid, first_seq: 0 };
        Source { spool, reader, mark, is_live: true, number: None, loaded_seq: 0, counted: 0 }
    }

    /// Gives the numbers from `first_seq` on a mark under a fresh UUID, which is returned. It is on disk then.
    ///
    /// # Errors
    /// As the disk says; nothing has changed then.
    pub fn begin_mark(&mut self, first_seq: u64) -> io::Result<Uuid> {
        let mark = MarkName { uuid: Uuid::new_v4(), first_seq };
        let text = format!("{} {first_seq}\n", mark.uuid);
        whole_file::replace(&self.spool.folder.join(MARK_NAME), text.as_bytes())?;
        self.mark = mark;
        self.number = None;
        Ok(mark.uuid)
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
        // A segment's hits end where the next one begins, unless either holds hits that were written again.
        let behind = |at: usize| {
            if let Some(end) = published.segments[at].end {
                return end;
            }
            let next = published.segments[at + 1..].iter().find(|next| !next.id.may_overlap());
            next.map_or(published.next_seq, |next| next.id.first_seq)
        };
        let loaded = |at: usize, segment: &Segment| {
            segment.ended && behind(at) <= self.loaded_seq && Some(segment.id) != reading
        };
        let all = published.segments.iter().enumerate();
        let segments: Vec<Segment> = all.take_while(|&(at, s)| loaded(at, s)).map(|(_, s)| *s).collect();
        drop(published);
        segments.into_iter().map(|s| Kept { id: s.id, bytes: s.length }).collect()
    }

    fn is_done_in(&self, published: &super::spool::Published) -> bool {
        published.closed && self.loaded_seq >= published.next_seq
    }

    /// Removes a loaded segment, and the folder with the last of a spool that is done. Says whether the spool is gone.
    ///
    /// # Errors
    /// As the disk says.
    pub fn remove(&self, kept: Kept) -> std::io::Result<bool> {
        // Whoever writes a segment anew looks for it in the list before it takes this one's place.
        let _files = self.spool.files();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::spool::fake_disk::FakeDisk;
    use crate::ingest::spool::fixture::{Folders, batch, hit, read_from};
    use crate::ingest::spool::recovery::list_spools;

    /// Two segments of two hits each, all four written again after a failed sync, and one hit behind them.
    fn written_again() -> (Folders, Arc<Spool>) {
        let folders = Folders::make();
        let spool = folders.begin(7);
        let mut appender = folders.appender(&spool, &FakeDisk::default());
        appender.append(&[batch(&[hit(0, 1), hit(1, 1)])]).unwrap();
        appender.synced(1);
        appender.end_segment();
        appender.append(&[batch(&[hit(2, 1), hit(3, 1)])]).unwrap();
        appender.rewrite_unsynced().unwrap();
        appender.append(&[batch(&[hit(4, 1)])]).unwrap();
        appender.close();
        (folders, spool)
    }

    #[test]
    fn a_segment_is_kept_until_all_its_hits_are_loaded_also_where_they_were_written_again() {
        let (folders, live) = written_again();
        let copy = folders.copy();
        let recovered = copy.recover_one().unwrap();
        for (folders, spool) in [(&folders, live), (&copy, recovered)] {
            let mut source = Source::recovered(Arc::clone(&spool), &folders.spools());
            for (loaded, removable) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 3), (5, 4)] {
                source.loaded(loaded);
                source.reader.seek(loaded);
                assert_eq!(source.kept().len(), removable, "{loaded} are loaded");
            }
            // What is removed at any moment costs nothing that is not loaded.
            for loaded in [2, 4] {
                source.loaded(loaded);
                source.reader.seek(loaded);
                for kept in source.kept() {
                    assert!(!source.remove(kept).unwrap());
                }
                let told = read_from(folders, &spool, loaded, 9);
                assert_eq!(told, (loaded..5).map(|n| Some(hit(n, 1))).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_spool_that_is_loaded_to_its_end_goes_with_its_last_segment() {
        let (folders, spool) = written_again();
        let mut source = Source::recovered(Arc::clone(&spool), &folders.spools());
        source.loaded(5);
        let gone: Vec<_> = source.kept().into_iter().map(|kept| source.remove(kept).unwrap()).collect();
        assert_eq!(gone, [false, false, false, true]);
        assert!(!spool.folder.exists());
    }

    #[test]
    fn a_recovered_spool_is_read_on_from_its_hint() {
        let (folders, spool) = written_again();
        Source::recovered(Arc::clone(&spool), &folders.spools()).loaded(3);
        let listed = list_spools(&folders.spools()).unwrap();
        assert_eq!((listed[0].next_seq, listed[0].segments), (5, 4));
        let source = Source::recovered(folders.recover_one().unwrap(), &folders.spools());
        assert_eq!((source.loaded_seq, source.counted, source.is_behind()), (3, 2, true));
    }
}
