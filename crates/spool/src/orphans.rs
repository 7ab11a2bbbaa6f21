//! Hits whose image the database lacks although this node knew it: kept on disk until the image exists again.
//!
//! Guarantees: what was added is synced before the caller goes on, and is here once, however often it is added. It
//! stays until it is loaded, and then for `PIXELD_SPOOL_KEEP`, so that a database that is restored once more finds it
//! again. The table `orphans` says which of them still have to be loaded. Erasures include them. Their bytes are
//! bounded, and counted in the spools' room; hits without room are refused, and the caller counts them.
//!
//! Only ids that were in this node's list of images come here: a stranger who makes up ids fills nothing.
//!
//! A file is a segment (`spool/segment.rs`) of its own: `{mark}-{first number}.orphans` in the quarantine. Its frames
//! contain runs of consecutive numbers of the mark's spool, in the order in which they were set aside (not the numbers').

mod file;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::file::{each_hit, frames, parse};
use super::SpoolRoom;
use super::disk::{Disk, sync_parent};
use super::frame::FrameKey;
use super::rewrite::rewrite_orphans;
use super::segment::{self, SEGMENT_HEADER_BYTES};
use super::tombstone::Erasing;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, SpoolId};
use pixeld_core::link::key::Namespace;

/// The suffix of such a file's name.
pub const ORPHANS: &str = "orphans";

/// Maximum bytes of all files, and their maximum fraction of the spools' bound.
const BYTES_MAX: (u64, u64) = (256 << 20, 4);

/// Bytes after which another file is begun, so that none takes long to read or to rewrite.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The kept hits of all spools.
#[derive(Debug)]
pub struct Orphans {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<OrphanFile>,
    /// By the UUID of their spool's mark, and by number: the position of each hit, and its image.
    hits: HashMap<SpoolId, BTreeMap<u64, Entry>>,
    is_read: bool,
    room: Option<Arc<SpoolRoom>>,
    bytes_max: u64,
    /// Hits erased since the last call of [`Orphans::take_erased`].
    erased: u64,
}

/// The position of a hit. An erased hit has the nil UUID as its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    image: ImageId,
    file: usize,
}

#[derive(Debug)]
struct OrphanFile {
    path: PathBuf,
    mark: SpoolId,
    first_seq: u64,
    bytes: u64,
    /// Since when nothing in it has to be loaded, as far as is known.
    done_since: Option<Instant>,
    is_gone: bool,
}

/// A kept hit: its number and its bytes.
pub type Kept = (u64, Vec<u8>);

/// The waiting hits of an image and a spool: a row of the table `orphans`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The UUID of the spool's mark.
    pub mark: SpoolId,
    /// The spool's number in `spool_marks`.
    pub spool: i32,
    /// The image.
    pub image: ImageId,
    /// The first of its numbers.
    pub first_seq: u64,
    /// The number after the last.
    pub next_seq: u64,
}

impl Orphans {
    /// What earlier starts left in this quarantine; only its size is read here.
    pub fn find(folder: PathBuf) -> Orphans {
        let mut state = State { bytes_max: BYTES_MAX.0, ..State::default() };
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some((mark, first_seq)) = parse(&path) else { continue };
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            state.files.push(OrphanFile { path, mark, first_seq, bytes, done_since: None, is_gone: false });
        }
        Orphans { folder, state: Mutex::new(state) }
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.state().bytes()
    }

    /// From now on additions count in this room, which already includes [`Orphans::bytes`].
    pub fn share(&self, room: &Arc<SpoolRoom>) {
        let mut state = self.state();
        state.bytes_max = BYTES_MAX.0.min(room.bytes_max / BYTES_MAX.1);
        state.room = Some(Arc::clone(room));
    }

    /// Reads what earlier starts left, once. A file that cannot be read is left alone, and named in the log.
    pub fn read_all(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_read, true) {
            return;
        }
        for at in 0..state.files.len() {
            if let Err(error) = state.read_file(at) {
                tracing::error!(%error, path = %state.files[at].path.display(), "hits that were set aside cannot be read");
            }
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.state().hits.is_empty()
    }

    /// The UUIDs of the marks of all spools with kept hits, and the number after each one's last kept hit.
    pub fn ends(&self) -> HashMap<SpoolId, u64> {
        let end = |hits: &BTreeMap<u64, Entry>| hits.last_key_value().map_or(0, |(last, _)| last + 1);
        self.state().hits.iter().map(|(mark, hits)| (*mark, end(hits))).collect()
    }

    /// How many kept hits are among those that the database waits for.
    pub fn count(&self, waiting: &[Waiting]) -> u64 {
        let state = self.state();
        waiting.iter().map(|waiting| state.of(waiting).count() as u64).sum()
    }

    /// How many kept hits were not erased.
    pub fn count_all(&self) -> u64 {
        let state = self.state();
        state.hits.values().flat_map(BTreeMap::values).filter(|entry| !entry.image.is_nil()).count() as u64
    }

    /// Hits that were erased since the last call.
    pub fn take_erased(&self) -> u64 {
        std::mem::take(&mut self.state().erased)
    }

    /// Keeps hits of the spool whose mark has this UUID, each with its number, in their order; hits that are already
    /// kept are skipped. When it returns, they are safely on disk.
    ///
    /// # Errors
    /// `QuotaExceeded` beyond the bound, `StorageFull` if spools have no room; otherwise a disk error. Then nothing is
    /// kept.
    pub fn add(&self, mark: SpoolId, hits: &[(u64, &Hit<'_>)]) -> io::Result<()> {
        let mut state = self.state();
        let known = state.hits.get(&mark);
        let is_new = |(seq, _): &&(u64, &Hit<'_>)| known.is_none_or(|known| !known.contains_key(seq));
        let new: Vec<(u64, &Hit<'_>)> = hits.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let frames = frames(FrameKey::of(mark), &new);
        let at = state.file_for(&self.folder, mark, new[0].0, frames.len() as u64)?;
        let file = &mut state.files[at];
        let offset = file.bytes;
        let written = File::options().write(true).open(&file.path).and_then(|opened| {
            opened.write_all_at(&frames, offset)?;
            opened.sync_data()
        });
        if let Err(error) = written {
            // Bytes after the end are overwritten, or cut off by the next start.
            if let Ok(opened) = File::options().write(true).open(&file.path) {
                opened.set_len(offset).ok();
            }
            return Err(error);
        }
        file.bytes += frames.len() as u64;
        file.done_since = None;
        if let Some(room) = &state.room {
            room.take(frames.len() as u64);
        }
        let entries = state.hits.entry(mark).or_default();
        entries.extend(new.iter().map(|(seq, hit)| (*seq, Entry { image: hit.image, file: at })));
        Ok(())
    }

    /// The first of these waiting hits, at most `max`, by their numbers.
    ///
    /// A hit that is no longer in its file is forgotten, which is logged.
    pub fn read(&self, waiting: &Waiting, max: usize) -> io::Result<Vec<Kept>> {
        let mut state = self.state();
        let places: Vec<(u64, usize)> = state.of(waiting).map(|(seq, entry)| (seq, entry.file)).take(max).collect();
        let wanted: HashSet<u64> = places.iter().map(|(seq, _)| *seq).collect();
        let mut files: Vec<usize> = places.iter().map(|(_, file)| *file).collect();
        files.sort_unstable();
        files.dedup();
        let mut found = BTreeMap::new();
        for at in files {
            let bytes = fs::read(&state.files[at].path)?;
            each_hit(waiting.mark, &bytes, |seq, hit, encoded| {
                if wanted.contains(&seq) && hit.image == waiting.image {
                    found.insert(seq, encoded.to_vec());
                }
            });
        }
        if found.len() < wanted.len() {
            tracing::error!(
                mark = %waiting.mark, image = %waiting.image, hits = wanted.len() - found.len(),
                "hits that were set aside are damaged on disk and lost"
            );
            if let Some(hits) = state.hits.get_mut(&waiting.mark) {
                hits.retain(|seq, _| !wanted.contains(seq) || found.contains_key(seq));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Replaces the erased hits in all files by tombstones. Calls `each` after each file.
    ///
    /// # Errors
    /// On a disk error; finished files stay finished.
    pub fn erase<E: Erasing>(
        &self,
        disk: &dyn Disk,
        namespace: Namespace,
        who: &mut E,
        mut each: impl FnMut(&mut E),
    ) -> io::Result<()> {
        self.read_all();
        let mut state = self.state();
        for at in 0..state.files.len() {
            let file = &state.files[at];
            if file.is_gone {
                continue;
            }
            let (path, mark, first_seq) = (file.path.clone(), file.mark, file.first_seq);
            let changed = rewrite_orphans(disk, &path, mark, first_seq, namespace, who)?;
            each(who);
            if changed {
                let before = state.hits.get(&mark).map_or(0, |hits| left(hits, at));
                state.read_file(at)?;
                let after = state.hits.get(&mark).map_or(0, |hits| left(hits, at));
                state.erased += before.saturating_sub(after);
            }
        }
        Ok(())
    }

    /// Removes the files in which nothing had to be loaded for longer than `keep`: they contain none of `waiting`, and
    /// `loaded` says that each spool is loaded beyond them.
    pub fn remove_done(&self, waiting: &[Waiting], loaded: &HashMap<SpoolId, u64>, keep: Duration) {
        let mut state = self.state();
        let in_use: HashSet<usize> = waiting.iter().flat_map(|w| state.of(w).map(|(_, entry)| entry.file)).collect();
        let mut ends: HashMap<usize, u64> = HashMap::new();
        for (seq, entry) in state.hits.values().flatten() {
            ends.entry(entry.file).and_modify(|end| *end = (*end).max(seq + 1)).or_insert(seq + 1);
        }
        for at in 0..state.files.len() {
            let file = &mut state.files[at];
            let loaded = loaded.get(&file.mark).copied().unwrap_or(0);
            // Without an end, nothing of it could be read.
            let is_done = ends.get(&at).is_some_and(|&end| loaded >= end);
            if file.is_gone || in_use.contains(&at) || !is_done {
                file.done_since = None;
                continue;
            }
            if file.done_since.get_or_insert_with(Instant::now).elapsed() < keep {
                continue;
            }
            match fs::remove_file(&file.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %file.path.display(), "a file with loaded hits could not be removed");
                }
                _ => state.forget_file(at),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.files.iter().filter(|file| !file.is_gone).map(|file| file.bytes).sum()
    }

    fn of(&self, waiting: &Waiting) -> impl Iterator<Item = (u64, Entry)> {
        let numbers: Range<u64> = waiting.first_seq..waiting.next_seq;
        let image = waiting.image;
        let hits = self.hits.get(&waiting.mark).map(|hits| hits.range(numbers));
        hits.into_iter().flatten().filter(move |(_, entry)| entry.image == image).map(|(seq, entry)| (*seq, *entry))
    }

    /// Reads a file's hits; bytes after its last whole frame are cut off.
    fn read_file(&mut self, at: usize) -> io::Result<()> {
        let file = &mut self.files[at];
        let bytes = fs::read(&file.path)?;
        let entries = self.hits.entry(file.mark).or_default();
        let end = each_hit(file.mark, &bytes, |seq, hit, _| {
            entries.insert(seq, Entry { image: if hit.is_erased { ImageId::NONE } else { hit.image }, file: at });
        });
        if (end as u64) < file.bytes {
            tracing::warn!(path = %file.path.display(), from = end, "a torn tail was cut off");
            File::options().write(true).open(&file.path)?.set_len(end as u64)?;
            if let Some(room) = &self.room {
                room.give_back(file.bytes - end as u64);
            }
            file.bytes = end as u64;
        }
        Ok(())
    }

    /// The file for `more` bytes of a spool's hits: the newest one, or a new one.
    fn file_for(&mut self, folder: &Path, mark: SpoolId, first_seq: u64, more: u64) -> io::Result<usize> {
        let header = SEGMENT_HEADER_BYTES as u64;
        let full = |kind: io::ErrorKind, why: &str| Err(io::Error::new(kind, why.to_owned()));
        if self.bytes() + header + more > self.bytes_max {
            return full(io::ErrorKind::QuotaExceeded, "hits that are set aside already use all their room");
        }
        if self.room.as_ref().is_some_and(|room| room.admit(header + more).is_err()) {
            return full(io::ErrorKind::StorageFull, "the spool has no room");
        }
        let newest = self.files.iter().rposition(|file| file.mark == mark && !file.is_gone);
        if let Some(at) =
            newest.filter(|&at| self.files[at].bytes >= header && self.files[at].bytes + more <= FILE_BYTES_MAX)
        {
            return Ok(at);
        }
        fs::create_dir_all(folder)?;
        let mut path = folder.join(format!("{mark}-{first_seq:020}.{ORPHANS}"));
        let mut named = first_seq;
        while path.exists() {
            // A number is set aside in one file only; the name only has to be free.
            named += 1;
            path = folder.join(format!("{mark}-{named:020}.{ORPHANS}"));
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all_at(&segment::header(mark, named), 0)?;
        file.sync_all()?;
        sync_parent(&path)?;
        if let Some(room) = &self.room {
            room.take(header);
        }
        self.files.push(OrphanFile { path, mark, first_seq: named, bytes: header, done_since: None, is_gone: false });
        Ok(self.files.len() - 1)
    }

    fn forget_file(&mut self, at: usize) {
        let file = &mut self.files[at];
        file.is_gone = true;
        if let Some(room) = &self.room {
            room.give_back(file.bytes);
        }
        if let Some(hits) = self.hits.get_mut(&file.mark) {
            hits.retain(|_, entry| entry.file != at);
            if hits.is_empty() {
                self.hits.remove(&file.mark);
            }
        }
    }
}

/// Hits of a file that were not erased.
fn left(hits: &BTreeMap<u64, Entry>, at: usize) -> u64 {
    hits.values().filter(|entry| entry.file == at && !entry.image.is_nil()).count() as u64
}

#[cfg(test)]
mod tests;
