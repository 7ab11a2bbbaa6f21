//! Rewrites files of a spool without a recipient's hits.
//!
//! Guarantees: a file is whole at every moment, old or new: the new one is written beside it, synced, and renamed over
//! it, and the folder is synced. Its length, and the time by which spools are sorted, stay. A segment that was removed
//! in the meantime does not come back. Needs room for one more segment at a time.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::disk::{Disk, write_all};
use super::tombstone::{self, Erasing};
use super::{Segment, Spool};
use pixeld_core::ids::SpoolId;
use pixeld_core::link::key::Namespace;

/// The suffix of a file that is being written.
pub const NEW: &str = "new";

/// Erases from an ended segment. Returns whether it was rewritten.
///
/// # Errors
/// On a disk error; then the segment is unchanged.
pub fn rewrite_segment(
    disk: &dyn Disk,
    spool: &Spool,
    segment: Segment,
    namespace: Namespace,
    who: &mut impl Erasing,
) -> io::Result<bool> {
    let path = spool.path(segment.id);
    let Some(mut bytes) = read(&path)? else { return Ok(false) };
    // After the published part there is only a torn write that could not be cut off yet.
    let is_torn = bytes.len() as u64 > segment.length;
    bytes.truncate(segment.length as usize);
    let changed = tombstone::erase_segment(&mut bytes, spool.uuid, segment.id.first_seq, namespace, who);
    if !changed && !is_torn {
        return Ok(false);
    }
    let replaced = replace(disk, &path, &bytes, |rename| {
        let _files = spool.files();
        if !spool.published().segments.iter().any(|listed| listed.id == segment.id) {
            return Ok(false);
        }
        rename()?;
        // Even if somebody deletes the new file, what is erased must not be read again.
        spool.close_file(segment.id);
        Ok(true)
    })?;
    spool.was_rewritten();
    Ok(replaced && changed)
}

/// Erases from a quarantined file. Returns whether it was rewritten.
///
/// # Errors
/// On a disk error; then the file is unchanged.
pub fn rewrite_quarantined(
    disk: &dyn Disk,
    path: &Path,
    namespace: Namespace,
    who: &mut impl Erasing,
) -> io::Result<bool> {
    let Some(mut bytes) = read(path)? else { return Ok(false) };
    if !tombstone::erase_loose(&mut bytes, namespace, who) {
        return Ok(false);
    }
    replace(disk, path, &bytes, |rename| rename().map(|()| true))
}

/// Erases from a file of hits that were set aside (`spool/orphans.rs`), which is a segment in another folder. Returns
/// whether it was rewritten.
///
/// # Errors
/// On a disk error; then the file is unchanged.
pub fn rewrite_orphans(
    disk: &dyn Disk,
    path: &Path,
    mark: SpoolId,
    first_seq: u64,
    namespace: Namespace,
    who: &mut impl Erasing,
) -> io::Result<bool> {
    let Some(mut bytes) = read(path)? else { return Ok(false) };
    if !tombstone::erase_segment(&mut bytes, mark, first_seq, namespace, who) {
        return Ok(false);
    }
    replace(disk, path, &bytes, |rename| rename().map(|()| true))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file `path` by `bytes`, if `decide` calls the function that it is given.
fn replace(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    decide: impl FnOnce(&dyn Fn() -> io::Result<()>) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".");
    fresh.push(NEW);
    let fresh = Path::new(&fresh);
    // A process that was killed half way left it.
    if fresh.exists() {
        disk.remove(fresh)?;
    }
    let written = (|| {
        let file = disk.create(fresh)?;
        write_all(&*file, bytes, 0)?;
        let begun = fs::metadata(path).and_then(|old| old.modified());
        if let Ok(begun) = begun {
            File::options().write(true).open(fresh)?.set_modified(begun)?;
        }
        file.sync()?;
        decide(&|| disk.rename(fresh, path))
    })();
    if !matches!(written, Ok(true))
        && fresh.exists()
        && let Err(error) = disk.remove(fresh)
    {
        tracing::warn!(%error, "a file that was to replace another could not be removed");
    }
    written
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use uuid::Uuid;

    use super::*;
    use crate::fake_disk::{FakeDisk, Faults};
    use crate::fixture::{Folders, ReadHits, hit, parcel, read_from, read_on};
    use pixeld_core::hit::Hit;
    use pixeld_core::ids::RecipientId;

    const NAMESPACE: Namespace = Namespace(Uuid::from_u128(77));

    /// The first recipient; smaller numbers are the fixture's image and message, and nobody.
    const FIRST: u64 = 100;

    /// Some of the fixture's recipients.
    struct Recipients(Vec<u128>);

    impl Erasing for Recipients {
        fn takes(&mut self, hit: &Hit<'_>) -> bool {
            self.takes_id(hit.recipient)
        }

        fn takes_id(&mut self, id: RecipientId) -> bool {
            self.0.contains(&id.as_uuid().as_u128())
        }
    }

    struct Written {
        folders: Folders,
        disk: FakeDisk,
        spool: Arc<Spool>,
        hits: Vec<Vec<u8>>,
    }

    /// Segments of frames of hits, the last one ended, too.
    fn write(segments: &[Vec<u8>]) -> Written {
        let (folders, disk) = (Folders::make(), FakeDisk::default());
        let spool = folders.begin(7);
        let mut appender = folders.appender(&spool, &disk);
        let mut hits = Vec::new();
        for frames in segments {
            for &count in frames {
                let made: Vec<_> = (0..count).map(|n| hit(FIRST + hits.len() as u64 + u64::from(n), 5)).collect();
                appender.append(&[parcel(&made)]).unwrap();
                hits.extend(made);
            }
            appender.file().unwrap().sync().unwrap();
            appender.end_segment();
        }
        appender.close();
        Written { folders, disk, spool, hits }
    }

    fn rewrite(written: &Written, who: &mut Recipients) -> io::Result<u64> {
        let segments = written.spool.published().segments.clone();
        let mut rewritten = 0;
        for segment in segments {
            rewritten += u64::from(rewrite_segment(&written.disk, &written.spool, segment, NAMESPACE, who)?);
        }
        Ok(rewritten)
    }

    /// What a reader returns if these recipients are erased.
    fn expected(hits: &[Vec<u8>], gone: &[u128]) -> ReadHits {
        let read = |(n, hit): (usize, &Vec<u8>)| {
            let mut hit = hit.clone();
            if gone.contains(&(u128::from(FIRST) + n as u128)) {
                pixeld_core::hit::entomb(&mut hit);
            }
            Some(hit)
        };
        hits.iter().enumerate().map(read).collect()
    }

    fn steps(count: u64) -> Faults {
        Faults { steps: Some(count), ..Faults::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn a_kill_at_any_step_leaves_each_hit_as_it_was_or_its_tombstone(
            segments in prop::collection::vec(prop::collection::vec(1u8..4, 1..4), 1..4),
            gone in prop::collection::vec(100u128..112, 1..4),
        ) {
            let written = write(&segments);
            let whole = expected(&written.hits, &[]);
            let erased = expected(&written.hits, &gone);
            for step in 0.. {
                // Each step fails once, after the one before it has succeeded.
                written.disk.set(steps(step));
                let outcome = rewrite(&written, &mut Recipients(gone.clone()));
                written.disk.set(Faults::default());
                for left in [written.folders.copy(), written.folders.copy()] {
                    let spool = left.recover_one().unwrap();
                    let read = read_from(&left, &spool, 0, 3);
                    prop_assert_eq!(read.len(), whole.len());
                    for (n, read) in read.iter().enumerate() {
                        prop_assert!(*read == whole[n] || *read == erased[n], "number {} after {} steps", n, step);
                    }
                    let files = left.files();
                    prop_assert!(files.iter().all(|(path, _)| !path.to_string_lossy().ends_with(".new")), "left over");
                }
                if outcome.is_ok() {
                    break;
                }
                prop_assert!(step < 200);
            }
            prop_assert_eq!(rewrite(&written, &mut Recipients(gone.clone())).unwrap(), 0, "nothing is left to do");
            written.disk.power_cut();
            let spool = written.folders.recover_one().unwrap();
            prop_assert_eq!(read_from(&written.folders, &spool, 0, 3), erased);
            for n in gone {
                let is_there = |bytes: &[u8]| bytes.windows(16).any(|id| id == n.to_be_bytes());
                let of_segment = |path: &Path| path.extension().is_some_and(|end| end == "seg");
                prop_assert!(!written.folders.files().iter().any(|(path, bytes)| of_segment(path) && is_there(bytes)));
            }
        }
    }

    #[test]
    fn a_reader_goes_on_in_the_file_that_was_put_in_place() {
        let written = write(&[vec![2, 2], vec![2]]);
        let mut reader = written.folders.reader(&written.spool, 0);
        let mut read = ReadHits::new();
        let first = reader.read(1).unwrap();
        crate::fixture::add_hits(&mut read, &first);
        assert_eq!(rewrite(&written, &mut Recipients(vec![100, 103, 105])).unwrap(), 2);
        read_on(&mut reader, 2, &mut read);
        let mut expected = expected(&written.hits, &[103, 105]);
        expected[0] = Some(written.hits[0].clone());
        assert_eq!(read, expected, "what was read before is the loader's to drop");
    }

    #[test]
    fn a_segment_that_was_removed_meanwhile_does_not_come_back() {
        let written = write(&[vec![1], vec![1]]);
        let segment = written.spool.published().segments[0];
        let path = written.spool.path(segment.id);
        written.spool.publish(|published| {
            published.segments.remove(0);
        });
        let rewritten =
            rewrite_segment(&written.disk, &written.spool, segment, NAMESPACE, &mut Recipients(vec![100])).unwrap();
        assert!(!rewritten);
        assert!(written.folders.files().iter().all(|(file, _)| !file.to_string_lossy().ends_with(".new")));
        assert!(path.exists(), "whoever takes it out of the list removes the file");
    }

    #[test]
    fn a_disk_that_is_full_leaves_the_segment_as_it_was() {
        let written = write(&[vec![3]]);
        let before = written.folders.files();
        written.disk.set(Faults { room: Some(40), ..Faults::default() });
        rewrite(&written, &mut Recipients(vec![101])).unwrap_err();
        assert!(written.folders.files() == before);
    }

    #[test]
    fn a_torn_tail_that_could_not_be_cut_goes_with_the_rest() {
        let written = write(&[vec![2]]);
        let path = written.spool.path(written.spool.published().segments[0].id);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &hit(9, 5)].concat()).unwrap();
        assert_eq!(rewrite(&written, &mut Recipients(vec![9])).unwrap(), 0);
        assert!(fs::read(&path).unwrap() == whole);
    }

    #[test]
    fn a_quarantined_file_loses_only_what_is_around_an_erased_id() {
        let folders = Folders::make();
        let path = folders.spools().join("a.damaged");
        let big = |n: u128| hit(n as u64, 1);
        fs::write(&path, [big(3), big(0xabcd_ef01_2345_6789), big(5)].concat()).unwrap();
        let mut who = Recipients(vec![0xabcd_ef01_2345_6789]);
        let disk = FakeDisk::default();
        assert!(rewrite_quarantined(&disk, &path, NAMESPACE, &mut who).unwrap());
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(&big(3)) && bytes.ends_with(&big(5)));
        assert!(!rewrite_quarantined(&disk, &path, NAMESPACE, &mut who).unwrap());
    }
}
