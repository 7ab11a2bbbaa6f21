//! Recovery and the reader against damage: every cut, every flipped bit, forged frames.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::fake_disk::{FakeDisk, Faults};
use pixeld_core::hit::fixture::carrying;
use pixeld_core::ids::SpoolId;

use super::fixture::{Folders, ReadHits, add_hits, bytes_of, hit, parcel, read_from, read_on};
use super::frame::{self, FrameKey};
use super::segment::SEGMENT_HEADER_BYTES;
use super::{Spool, recovery};

/// A small spool that was completely written, and the positions of everything in it.
struct Written {
    folders: Folders,
    spool: Arc<Spool>,
    hits: ReadHits,
    frames: Vec<Placed>,
}

/// A frame on disk.
#[derive(Debug, Clone)]
struct Placed {
    path: PathBuf,
    bytes: Range<usize>,
    seqs: Range<usize>,
}

/// Writes segments of frames with these numbers of hits.
fn write(segments: &[&[u64]]) -> Written {
    let folders = Folders::make();
    let spool = folders.begin(7);
    let mut appender = folders.appender(&spool, &FakeDisk::default());
    let (mut hits, mut frames) = (ReadHits::new(), Vec::new());
    for segment in segments {
        let mut offset = SEGMENT_HEADER_BYTES;
        for &count in *segment {
            let first = hits.len();
            let made: Vec<_> = (first as u64..first as u64 + count).map(|n| hit(n, n as usize % 3)).collect();
            appender.append(&[parcel(&made)]).unwrap();
            let bytes = offset..offset + frame::FRAME_HEADER_BYTES + made.concat().len();
            offset = bytes.end;
            hits.extend(made.into_iter().map(Some));
            let path = spool.path(spool.published().segments.last().unwrap().id);
            frames.push(Placed { path, bytes, seqs: first..hits.len() });
        }
        appender.end_segment();
    }
    appender.close();
    Written { folders, spool, hits, frames }
}

#[test]
fn a_newest_segment_that_is_cut_at_any_byte_gives_its_whole_frames() {
    let written = write(&[&[2, 1], &[1, 2, 1]]);
    let newest = written.frames.last().unwrap().path.clone();
    let whole = bytes_of(&newest);
    for cut in 0..=whole.len() {
        let left = written.folders.copy();
        let spool_of = |folders: &Folders| folders.recover_one().expect("the older segment is whole");
        let path = left.spools().join(newest.strip_prefix(written.folders.spools()).unwrap());
        std::fs::write(&path, &whole[..cut]).unwrap();
        let spool = spool_of(&left);
        let kept = written.frames.iter().filter(|f| f.path != newest || f.bytes.end <= cut);
        let next = kept.map(|frame| frame.seqs.end).max().unwrap();
        assert_eq!(spool.published().next_seq, next as u64, "cut at {cut}");
        for from in 0..=next {
            assert_eq!(read_from(&left, &spool, from as u64, 2), written.hits[from..next], "cut at {cut}");
        }
        let once = left.files();
        let again = spool_of(&left);
        assert_eq!(again.published().segments, spool.published().segments);
        assert!(left.files() == once, "a second recovery changes nothing; cut at {cut}");
    }
}

#[test]
fn a_spool_without_a_whole_frame_is_removed() {
    for length in [0, 10, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + 15] {
        let written = write(&[&[1]]);
        let bytes = bytes_of(&written.frames[0].path);
        std::fs::write(&written.frames[0].path, &bytes[..length]).unwrap();
        assert!(written.folders.recover_one().is_none());
        assert!(!written.spool.folder.exists(), "its folder goes with it");
    }
}

/// Flips every bit of the segment files, one at a time, and calls `check` with the file, the byte, and the frame that it
/// belongs to, if it is not in a header.
fn for_each_flipped_bit(written: &Written, mut check: impl FnMut(&PathBuf, usize, Option<&Placed>)) {
    let mut paths: Vec<_> = written.frames.iter().map(|frame| frame.path.clone()).collect();
    paths.dedup();
    for path in paths {
        let whole = bytes_of(&path);
        for bit in 0..whole.len() * 8 {
            let at = bit / 8;
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            let hurt = written.frames.iter().find(|frame| frame.path == path && frame.bytes.contains(&at));
            check(&path, at, hurt);
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

/// What a reader returns if the hits of `hurt` are damaged.
fn without(written: &Written, hurt: Option<&Placed>) -> ReadHits {
    let is_hurt = |n: usize| hurt.is_some_and(|frame| frame.seqs.contains(&n));
    written.hits.iter().enumerate().map(|(n, hit)| hit.clone().filter(|_| !is_hurt(n))).collect()
}

#[test]
fn any_flipped_bit_in_a_published_spool_costs_its_own_frame_only() {
    let written = write(&[&[2, 1], &[1, 1, 2], &[1, 2]]);
    for_each_flipped_bit(&written, |path, at, hurt| {
        for from in [0, 4] {
            let read = read_from(&written.folders, &written.spool, from as u64, 3);
            assert!(read == without(&written, hurt)[from..], "byte {at} of {}", path.display());
        }
    });
}

#[test]
fn any_flipped_bit_costs_its_own_frame_only_after_a_restart() {
    let written = write(&[&[2, 1], &[1, 2]]);
    let originals = written.folders.files();
    for_each_flipped_bit(&written, |path, at, hurt| {
        let flipped = bytes_of(path);
        let spool = written.folders.recover_one().expect("most of it is whole");
        let read = read_from(&written.folders, &spool, 0, 3);
        let mut expected = without(&written, hurt);
        while expected.last().is_some_and(Option::is_none) {
            // Damage at the very end looks like a torn tail: the number of hits in it is unknown.
            expected.pop();
        }
        assert!(read == expected, "byte {at} of {}", path.display());
        let damaged = hurt.map_or(0..SEGMENT_HEADER_BYTES, |frame| frame.bytes.clone());
        // A damaged header at the start of the newest segment is skipped; the reader makes its copy.
        let is_kept = written.folders.quarantined().iter().any(|copy| *copy == flipped[damaged.clone()]);
        assert!(is_kept, "the damaged bytes are copied aside; byte {at} of {}", path.display());
        for (path, bytes) in &originals {
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::remove_dir_all(recovery::quarantine(&written.folders.spools())).unwrap();
    });
}

#[test]
fn a_segment_whose_only_frame_is_damaged_is_copied_aside_whole() {
    let written = write(&[&[2], &[1]]);
    let path = &written.frames[1].path;
    let mut bytes = bytes_of(path);
    bytes[SEGMENT_HEADER_BYTES + 30] ^= 1;
    std::fs::write(path, &bytes).unwrap();
    let spool = written.folders.recover_one().unwrap();
    assert_eq!(read_from(&written.folders, &spool, 0, 3), written.hits[..2]);
    assert_eq!(written.folders.quarantined(), [bytes]);
}

#[test]
fn a_lost_segment_in_the_middle_counts_as_missing() {
    for length in [0, 20, SEGMENT_HEADER_BYTES] {
        let written = write(&[&[2, 1], &[1, 2], &[1, 1]]);
        let path = &written.frames[2].path;
        let bytes = bytes_of(path);
        std::fs::write(path, &bytes[..length]).unwrap();
        let spool = written.folders.recover_one().unwrap();
        let mut expected = written.hits.clone();
        expected[3..6].fill(None);
        for from in 0..=8 {
            assert_eq!(read_from(&written.folders, &spool, from as u64, 9), expected[from..]);
        }
    }
}

#[test]
fn a_frame_forged_in_a_user_agent_is_not_accepted_after_damage() {
    let forged = forged_frame(FrameKey::of(SpoolId::from_u128(8)));
    let folders = Folders::make();
    let spool = folders.begin(7);
    let mut appender = folders.appender(&spool, &FakeDisk::default());
    let mut carrier = Vec::new();
    carrying(1, &forged).encode(&mut carrier);
    let hits: Vec<_> = [hit(0, 3), carrier, hit(2, 3)].into();
    for hit in &hits {
        appender.append(&[parcel(std::slice::from_ref(hit))]).unwrap();
    }
    appender.close();
    let path = spool.path(spool.published().segments[0].id);
    let mut bytes = bytes_of(&path);
    let at = bytes.windows(forged.len()).position(|window| window == forged.as_bytes()).unwrap();
    // Damage before the forged frame makes the reader look for the next valid one.
    bytes[at - 4] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let expected: ReadHits = vec![Some(hits[0].clone()), None, Some(hits[2].clone())];
    assert_eq!(read_from(&folders, &spool, 0, 9), expected);
    assert_eq!(read_from(&folders, &folders.recover_one().unwrap(), 0, 9), expected);
}

/// A whole frame of the spool with this key, in the form of a user agent.
fn forged_frame(key: FrameKey) -> String {
    // Some number gives a checksum that is valid text.
    let forge = |n: u64| {
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes);
        bytes.extend_from_slice(&hit(n % 128, 3));
        frame::finish(&mut bytes, start, key, n / 128, 1);
        assert!(frame::decode(key, &bytes).is_ok());
        String::from_utf8(bytes).ok()
    };
    (0..1 << 14).find_map(forge).expect("one of many checksums is text")
}

#[test]
fn damage_after_hits_is_returned_in_a_separate_chunk() {
    let written = write(&[&[1, 1, 1]]);
    let mut bytes = bytes_of(&written.frames[1].path);
    bytes[written.frames[1].bytes.start + 25] ^= 4;
    std::fs::write(&written.frames[1].path, bytes).unwrap();
    let mut reader = written.folders.reader(&written.spool, 0);
    let chunks: Vec<_> = (0..3).map(|_| reader.read(100).unwrap()).collect();
    let counts: Vec<_> = chunks.iter().map(|chunk| (chunk.first_seq, chunk.missing, chunk.count)).collect();
    assert_eq!(counts, [(0, 0, 1), (1, 1, 1), (3, 0, 0)]);
    assert_eq!((reader.take_damages(), reader.take_damages()), (1, 0));
    let mut read = ReadHits::new();
    chunks.iter().for_each(|chunk| add_hits(&mut read, chunk));
    assert_eq!(read, without(&written, Some(&written.frames[1])));
}

#[test]
fn a_reader_that_seeks_back_returns_the_same_again() {
    let written = write(&[&[2, 1], &[1, 2]]);
    let mut reader = written.folders.reader(&written.spool, 0);
    let mut read = ReadHits::new();
    read_on(&mut reader, 2, &mut read);
    for seq in 0..=6 {
        reader.seek(seq);
        let mut again = ReadHits::new();
        read_on(&mut reader, 2, &mut again);
        assert_eq!(again, read[seq as usize..]);
    }
}

#[test]
fn a_segment_that_is_begun_again_under_its_name_is_read_from_its_new_file() {
    let folders = Folders::make();
    let disk = FakeDisk::default();
    let spool = folders.begin(7);
    let mut appender = folders.appender(&spool, &disk);
    appender.append(&[parcel(&[hit(0, 3)])]).unwrap();
    appender.end_segment();
    let reader = Arc::new(std::sync::Mutex::new(folders.reader(&spool, 0)));
    let read = Arc::new(std::sync::Mutex::new(ReadHits::new()));
    let look = {
        let (reader, read) = (Arc::clone(&reader), Arc::clone(&read));
        move || read_on(&mut reader.lock().unwrap(), 9, &mut read.lock().unwrap())
    };
    // A reader that looks when the disk has become full just after the new segment's header.
    disk.after_failed_write(look.clone());
    disk.set(Faults { room: Some(SEGMENT_HEADER_BYTES as u64 + 10), ..Faults::default() });
    appender.append(&[parcel(&[hit(1, 3)])]).unwrap_err();
    disk.set(Faults::default());
    std::thread::sleep(std::time::Duration::from_millis(110));
    appender.append(&[parcel(&[hit(2, 3)])]).unwrap();
    look();
    assert_eq!(*read.lock().unwrap(), [Some(hit(0, 3)), Some(hit(2, 3))]);
}

#[test]
fn a_power_cut_takes_the_unsynced_tail_and_its_numbers_are_never_used_again() {
    let folders = Folders::make();
    let disk = FakeDisk::default();
    let spool = folders.begin(7);
    let mut appender = folders.appender(&spool, &disk);
    let hits: Vec<_> = (0..4).map(|n| hit(n, 9)).collect();
    appender.append(&[parcel(&hits[..2])]).unwrap();
    appender.file().unwrap().sync().unwrap();
    appender.append(&[parcel(&hits[2..])]).unwrap();
    disk.power_cut();
    let recovered = folders.recover_one().unwrap();
    let read = || read_from(&folders, &recovered, 0, 9);
    assert_eq!(read(), [Some(hits[0].clone()), Some(hits[1].clone())]);
    assert!(recovered.published().closed);

    let next = folders.begin(9);
    folders.appender(&next, &disk).append(&[parcel(&[hit(5, 9)])]).unwrap();
    assert_eq!(read().len(), 2, "what is recorded now has numbers of another spool");
    assert_eq!(recovery::recover(&folders.spools()).unwrap().spools.len(), 2);
}

#[test]
fn a_spool_of_a_newer_version_is_refused_and_left_as_it_is() {
    let written = write(&[&[2], &[1]]);
    let before = |path: &PathBuf| bytes_of(path);
    for frame in &written.frames {
        let whole = before(&frame.path);
        let mut newer = whole.clone();
        newer[7] = 3;
        let crc = crc32c::crc32c(&newer[..32]);
        newer[32..36].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&frame.path, &newer).unwrap();
        let mut reader = written.folders.reader(&written.spool, frame.seqs.start as u64);
        assert!(reader.read(9).unwrap_err().to_string().contains("a newer pixeld"));
        // Recovery reads only the newest segment; the reader handles the others.
        let recovered = recovery::recover(&written.folders.spools());
        assert_eq!(recovered.is_err(), frame.seqs.start == 2);
        assert!(bytes_of(&frame.path) == newer && written.folders.quarantined().is_empty());
        std::fs::write(&frame.path, &whole).unwrap();
    }
}

/// Replaces a segment by a directory: the disk cannot read it as a file, even for root.
fn make_unreadable(path: &PathBuf) {
    std::fs::remove_file(path).unwrap();
    std::fs::create_dir(path).unwrap();
}

#[test]
fn a_newest_segment_that_cannot_be_read_is_moved_aside_and_the_rest_is_loaded() {
    let written = write(&[&[2], &[1]]);
    make_unreadable(&written.frames.last().unwrap().path);
    let recovered = recovery::recover(&written.folders.spools()).unwrap();
    assert_eq!((recovered.spools.len(), recovered.moved_aside, recovered.left_alone.len()), (1, 1, 0));
    let read = read_from(&written.folders, &recovered.spools[0], 0, 9);
    assert_eq!(read.iter().filter(|hit| hit.is_some()).count(), 2);
    let aside = std::fs::read_dir(recovery::quarantine(&written.folders.spools())).unwrap().count();
    assert_eq!(aside, 1, "nothing is deleted unread");
}

#[test]
fn a_segment_that_cannot_be_read_is_an_error_until_it_is_passed_over() {
    let written = write(&[&[2], &[1], &[1]]);
    make_unreadable(&written.frames[1].path);
    let mut reader = written.folders.reader(&written.spool, 0);
    assert_eq!(reader.read(9).unwrap().next_seq(), 2);
    for _ in 0..3 {
        reader.read(9).unwrap_err();
    }
    reader.pass_over_failed();
    let mut read = Vec::new();
    read_on(&mut reader, 9, &mut read);
    assert!(read.len() == 2 && read[0].is_none() && read[1].is_some(), "{read:?}");
    assert_eq!(reader.take_damages(), 1);
}

#[test]
fn a_folder_of_spools_that_cannot_be_read_or_is_gone_stops_no_start() {
    let written = write(&[&[2]]);
    let spools = written.folders.spools();
    std::fs::remove_dir_all(&spools).unwrap();
    let nothing = recovery::recover(&spools).unwrap();
    assert_eq!((nothing.spools.len(), nothing.left_alone.len()), (0, 0));
    std::fs::write(&spools, "a file").unwrap();
    let unreadable = recovery::recover(&spools).unwrap();
    assert_eq!((unreadable.spools.len(), unreadable.left_alone.len()), (0, 1));
}
