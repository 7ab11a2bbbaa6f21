use super::*;
use crate::fake_disk::{FakeDisk, Faults};
use pixeld_core::hit::fixture::carrying;
use pixeld_core::ids::{ImageId, RecipientId, SpoolId};

const MARK: SpoolId = SpoolId::from_u128(7);
const NAMESPACE: Namespace = Namespace(uuid::Uuid::from_u128(77));

/// A hit of a recipient and an image; its recipient's number makes it unique.
fn of(image: u128, recipient: u64) -> Hit<'static> {
    Hit { image: ImageId::from_u128(image), ..carrying(recipient, "Thunderbird") }
}

fn waiting(image: u128, numbers: Range<u64>) -> Waiting {
    let (first_seq, next_seq) = (numbers.start, numbers.end);
    Waiting { mark: MARK, spool: 1, image: ImageId::from_u128(image), first_seq, next_seq }
}

/// Adds hits of one image whose recipients have the numbers of the hits.
fn add(orphans: &Orphans, image: u128, numbers: &[u64]) -> io::Result<()> {
    let hits: Vec<(u64, Hit<'_>)> = numbers.iter().map(|&n| (n, of(image, n))).collect();
    orphans.add(MARK, &hits.iter().map(|(n, hit)| (*n, hit)).collect::<Vec<_>>())
}

fn read(orphans: &Orphans, waiting: &Waiting, max: usize) -> Vec<u64> {
    let kept = orphans.read(waiting, max).unwrap();
    for (n, bytes) in &kept {
        let hit = Hit::decode(bytes).unwrap().0;
        assert_eq!((hit.recipient, hit.image), (RecipientId::from_u128(u128::from(*n)), waiting.image));
    }
    kept.into_iter().map(|(n, _)| n).collect()
}

/// What a next start finds.
fn found(folder: &Path) -> Orphans {
    let orphans = Orphans::find(folder.to_owned());
    orphans.read_all();
    orphans
}

#[test]
fn added_hits_are_kept_once_in_any_order_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let orphans = found(folder.path());
    assert!(orphans.is_empty());
    add(&orphans, 1, &[5, 6, 9]).unwrap();
    add(&orphans, 2, &[7]).unwrap();
    add(&orphans, 1, &[5, 6, 9, 10]).unwrap();
    // A restored database has the spool's beginning set aside later.
    add(&orphans, 1, &[1, 2, 6]).unwrap();
    let bytes = orphans.bytes();
    add(&orphans, 1, &[1, 2, 6]).unwrap();
    assert_eq!(orphans.bytes(), bytes);
    for orphans in [&orphans, &found(folder.path())] {
        assert_eq!(read(orphans, &waiting(1, 0..100), 99), [1, 2, 5, 6, 9, 10]);
        assert_eq!(read(orphans, &waiting(1, 2..10), 3), [2, 5, 6]);
        assert_eq!(read(orphans, &waiting(2, 0..100), 99), [7]);
        assert_eq!(orphans.count(&[waiting(1, 2..10), waiting(2, 8..100)]), 4);
        assert_eq!((orphans.count_all(), orphans.bytes()), (7, bytes));
        assert_eq!(orphans.ends(), HashMap::from([(MARK, 11)]));
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    add(&found(folder.path()), 1, &[1, 2]).unwrap();
    let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    for torn in [&b"\x01"[..], &[7; 40]] {
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let orphans = found(folder.path());
        assert_eq!((fs::read(&path).unwrap(), orphans.bytes()), (whole.clone(), whole.len() as u64));
        assert_eq!(read(&orphans, &waiting(1, 0..9), 9), [1, 2]);
    }
    add(&found(folder.path()), 1, &[3]).unwrap();
    assert_eq!(read(&found(folder.path()), &waiting(1, 0..9), 9), [1, 2, 3]);
}

#[test]
fn they_take_no_more_than_their_part_of_the_spools_room() {
    let folder = tempfile::tempdir().unwrap();
    let orphans = found(folder.path());
    let room = Arc::new(SpoolRoom::new(0, 4000));
    orphans.share(&room);
    let mut kept = Vec::new();
    let error = (0..).find_map(|n| add(&orphans, 1, &[n]).inspect(|()| kept.push(n)).err()).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    assert!((500..=1000).contains(&orphans.bytes()) && room.bytes() == orphans.bytes(), "{}", orphans.bytes());
    assert_eq!(read(&orphans, &waiting(1, 0..99), 99), kept);
    // The spool is full.
    room.take(4000 - room.bytes());
    let full = Orphans::find(folder.path().join("other"));
    full.share(&room);
    assert_eq!(add(&full, 1, &[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn files_go_once_nothing_of_them_waits_and_the_spool_is_loaded_beyond_them() {
    let folder = tempfile::tempdir().unwrap();
    let orphans = found(folder.path());
    let room = Arc::new(SpoolRoom::new(0, 1 << 20));
    orphans.share(&room);
    add(&orphans, 1, &[1, 2, 8]).unwrap();
    let loaded_to = |seq| HashMap::from([(MARK, seq)]);
    for (waits, loaded, keep) in [
        (vec![waiting(1, 8..9)], loaded_to(9), Duration::ZERO),
        (vec![], loaded_to(8), Duration::ZERO),
        (vec![], HashMap::new(), Duration::ZERO),
        (vec![], loaded_to(9), Duration::from_secs(60)),
    ] {
        orphans.remove_done(&waits, &loaded, keep);
        assert_eq!(orphans.count_all(), 3);
    }
    orphans.remove_done(&[waiting(1, 3..8), waiting(2, 0..99)], &loaded_to(9), Duration::ZERO);
    assert!(orphans.is_empty() && orphans.bytes() == 0 && room.bytes() == 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    add(&orphans, 1, &[1]).unwrap();
    assert_eq!(read(&orphans, &waiting(1, 0..99), 99), [1]);
}

/// One recipient.
struct One(RecipientId);

impl Erasing for One {
    fn takes(&mut self, hit: &Hit<'_>) -> bool {
        hit.recipient == self.0
    }

    fn takes_id(&mut self, id: RecipientId) -> bool {
        id == self.0
    }
}

#[test]
fn an_erased_recipients_hits_are_gone_from_the_disk_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let orphans = found(folder.path());
    add(&orphans, 1, &[300, 301, 400]).unwrap();
    let mut who = One(RecipientId::from_u128(301));
    let mut files = 0;
    let disk = FakeDisk::default();
    disk.set(Faults { steps: Some(1), ..Faults::default() });
    orphans.erase(&disk, NAMESPACE, &mut who, |_| files += 1).unwrap_err();
    assert_eq!(read(&orphans, &waiting(1, 0..999), 9), [300, 301, 400], "whole as it was");
    disk.set(Faults::default());
    orphans.erase(&disk, NAMESPACE, &mut who, |_| files += 1).unwrap();
    assert_eq!((files, orphans.take_erased(), orphans.take_erased()), (1, 1, 0));
    let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert!(!fs::read(&path).unwrap().windows(16).any(|id| id == who.0.as_bytes()));
    for orphans in [&orphans, &found(folder.path())] {
        assert_eq!(read(orphans, &waiting(1, 0..999), 9), [300, 400]);
        // The original of the tombstone is skipped once more: it does not come back.
        add(orphans, 1, &[301]).unwrap();
        assert_eq!(orphans.count(&[waiting(1, 0..999)]), 2);
    }
}
