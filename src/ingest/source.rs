//! One spool as the loader sees it: its reader and its mark.
//!
//! Guarantees: what it reports to the spool as loaded was committed by PostgreSQL, and the hint beside the segments
//! never names more. A spool's mark has the spool's UUID, unless another history of the spool was found to use its
//! numbers; then the rest of it has its own mark, whose name is in the spool's folder. Gives up: a hint that the disk
//! does not accept; an older one stays, and fewer hits count as loaded at the next start.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::whole_file;
use pixeld_core::ids::SpoolId;
use pixeld_spool::reader::Reader;
use pixeld_spool::recovery::quarantine;
use pixeld_spool::{Loaded, Spool};

/// Name of the file that records how far a spool was loaded. A hint: the truth is the mark.
const LOADED_HINT: &str = "loaded";

/// How long to try a segment that cannot be read before its hits are given up in favour of those after them.
const UNREADABLE_MAX: Duration = Duration::from_secs(30);

/// Name of the file that says under which other UUID a spool's mark is, and from which number on.
const MARK_NAME: &str = "mark";

/// The name under which PostgreSQL knows how far a spool is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkName {
    /// `spool_marks.spool_uuid`.
    pub uuid: SpoolId,
    /// The first number that it covers.
    pub first_seq: u64,
}

impl MarkName {
    /// The mark of the spool with this UUID and folder.
    pub(crate) fn of(spool: SpoolId, folder: &Path) -> MarkName {
        let own = MarkName { uuid: spool, first_seq: 0 };
        let text = match fs::read_to_string(folder.join(MARK_NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return own,
            Err(error) => {
                tracing::error!(%error, %spool, "the name of a spool's mark cannot be read; pixeld uses the spool's own name");
                return own;
            }
        };
        let parse = |text: &str| {
            let (uuid, first_seq) = text.trim().split_once(' ')?;
            Some(MarkName { uuid: uuid.parse().ok()?, first_seq: first_seq.parse().ok()? })
        };
        parse(&text).unwrap_or_else(|| {
            tracing::error!(%spool, "the name of a spool's mark cannot be read; pixeld uses the spool's own name");
            own
        })
    }
}

/// A spool to load.
#[derive(Debug)]
pub(crate) struct Source {
    /// The spool.
    pub spool: Arc<Spool>,
    /// Its reader.
    pub reader: Reader,
    /// The name under which the database knows how far it is loaded.
    pub mark: MarkName,
    /// This process appends to it.
    pub is_live: bool,
    /// The spool's number in `spool_marks`, once it is known.
    pub number: Option<i32>,
    /// Everything before this number is committed, as far as we know.
    pub loaded_seq: u64,
    /// Hits of it that are counted as spooled.
    pub counted: u64,
    /// Since when one of its segments cannot be read.
    pub unreadable_since: Option<Instant>,
    /// Another connection holds its mark; it is claimed again after this time.
    pub held_until: Option<Instant>,
}

impl Source {
    /// The spool of an earlier start. Its waiting hits are counted by the hint until its mark is known.
    pub(crate) fn recovered(spool: Arc<Spool>, spools: &Path) -> Source {
        let hint = fs::read_to_string(spool.folder.join(LOADED_HINT)).ok().and_then(|text| text.trim().parse().ok());
        let next_seq = spool.published().next_seq;
        let mark = MarkName::of(spool.uuid, &spool.folder);
        let loaded_seq = hint.unwrap_or(0).max(mark.first_seq).min(next_seq);
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), loaded_seq);
        spool.published().loaded = Loaded { seq: loaded_seq, is_sure: false };
        let counted = next_seq - loaded_seq;
        Source {
            spool,
            reader,
            mark,
            is_live: false,
            number: None,
            loaded_seq,
            counted,
            unreadable_since: None,
            held_until: None,
        }
    }

    /// The spool of this start.
    pub(crate) fn live(spool: Arc<Spool>, spools: &Path) -> Source {
        let reader = Reader::new(Arc::clone(&spool), quarantine(spools), 0);
        let mark = MarkName { uuid: spool.uuid, first_seq: 0 };
        Source {
            spool,
            reader,
            mark,
            is_live: true,
            number: None,
            loaded_seq: 0,
            counted: 0,
            unreadable_since: None,
            held_until: None,
        }
    }

    /// Gives the numbers from `first_seq` on a mark under a new UUID, which is returned. It is then on disk.
    ///
    /// # Errors
    /// On a disk error; then nothing has changed.
    pub(crate) fn begin_mark(&mut self, first_seq: u64) -> io::Result<SpoolId> {
        let mark = MarkName { uuid: SpoolId::random(), first_seq };
        let text = format!("{} {first_seq}\n", mark.uuid);
        whole_file::replace(&self.spool.folder.join(MARK_NAME), text.as_bytes())?;
        self.mark = mark;
        self.held_until = None;
        self.forget_mark();
        Ok(mark.uuid)
    }

    /// Whether every hit is loaded and no more will come.
    pub(crate) fn is_done(&self) -> bool {
        let published = self.spool.published();
        published.closed && self.loaded_seq >= published.next_seq
    }

    /// Whether it is too early to claim its mark again.
    pub(crate) fn is_held(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether something is published and not loaded.
    pub(crate) fn is_behind(&self) -> bool {
        self.loaded_seq < self.spool.published().next_seq
    }

    /// The mark was read: everything before `loaded_seq` is committed.
    pub(crate) fn mark_is_known(&mut self, number: i32) {
        self.number = Some(number);
        self.spool.published().loaded.is_sure = true;
    }

    /// The mark must be read again.
    pub(crate) fn forget_mark(&mut self) {
        self.number = None;
        self.spool.published().loaded.is_sure = false;
    }

    /// A segment cannot be read. After a while it is skipped, and its hits are counted as missing; the file stays. Not
    /// if only a person can repair it, and with it all waiting hits: no permission to read it, or a newer pixeld wrote
    /// it.
    pub(crate) fn is_unreadable(&mut self, error: &io::Error) {
        let Some(since) = self.unreadable_since else {
            tracing::error!(%error, spool = %self.spool.folder.display(), "a segment cannot be read; pixeld tries again");
            self.unreadable_since = Some(Instant::now());
            return;
        };
        let waits_for_somebody = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
        if since.elapsed() >= UNREADABLE_MAX && !waits_for_somebody {
            tracing::error!(%error, spool = %self.spool.folder.display(), "a segment cannot be read; pixeld loads the segments after it");
            self.reader.pass_over_failed();
            self.unreadable_since = None;
        }
    }

    /// Records that everything before `seq` is committed.
    pub(crate) fn loaded(&mut self, seq: u64) {
        self.loaded_seq = seq;
        self.spool.published().loaded.seq = seq;
        if let Err(error) = self.write_hint(seq) {
            tracing::debug!(%error, "the hint how far a spool is loaded could not be written");
        }
    }

    /// Always has the same length and overwrites the old one, so that even a full disk accepts it: at a start while the
    /// database is down it says which segments may be removed to make room.
    fn write_hint(&self, seq: u64) -> io::Result<()> {
        let mut options = fs::File::options();
        let file = options.write(true).create(true).truncate(false).open(self.spool.folder.join(LOADED_HINT))?;
        file.write_all_at(format!("{seq:020}\n").as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_spool::fake_disk::FakeDisk;
    use pixeld_spool::fixture::{Folders, hit, parcel, read_from};
    use pixeld_spool::recovery::list_spools;

    /// Two segments of two hits each, all four written again after a failed sync, and one hit after them.
    fn written_again() -> (Folders, Arc<Spool>) {
        let folders = Folders::make();
        let spool = folders.begin(7);
        let mut appender = folders.appender(&spool, &FakeDisk::default());
        appender.append(&[parcel(&[hit(0, 1), hit(1, 1)])]).unwrap();
        appender.synced(1);
        appender.end_segment();
        appender.append(&[parcel(&[hit(2, 1), hit(3, 1)])]).unwrap();
        appender.rewrite_unsynced().unwrap();
        appender.append(&[parcel(&[hit(4, 1)])]).unwrap();
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
                assert_eq!(spool.kept().len(), removable, "{loaded} are loaded");
            }
            // Removing at any moment loses nothing that is not loaded.
            for loaded in [2, 4] {
                source.loaded(loaded);
                for kept in spool.kept() {
                    spool.remove(kept).unwrap();
                    assert!(!spool.is_gone());
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
        let remove = |kept| {
            spool.remove(kept).unwrap();
            spool.is_gone()
        };
        let gone: Vec<_> = spool.kept().into_iter().map(remove).collect();
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
        assert_eq!(source.spool.published().loaded, Loaded { seq: 3, is_sure: false });
    }

    #[test]
    fn a_hint_of_an_earlier_version_is_read_and_written_over() {
        let (folders, spool) = written_again();
        let hint = spool.folder.join(LOADED_HINT);
        fs::write(&hint, "4\n").unwrap();
        let mut source = Source::recovered(Arc::clone(&spool), &folders.spools());
        assert_eq!(source.loaded_seq, 4);
        for seq in [5, 3] {
            source.loaded(seq);
            assert_eq!(fs::read_to_string(&hint).unwrap(), format!("{seq:020}\n"));
            assert_eq!(Source::recovered(Arc::clone(&spool), &folders.spools()).loaded_seq, seq);
        }
    }
}
