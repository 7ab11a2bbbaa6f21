use super::*;
use crate::ingest::source::Source;
use pixeld_spool::appender::Appender;
use pixeld_spool::fake_disk::FakeDisk;
use pixeld_spool::fixture::{Folders, hit, parcel};

struct World {
    folders: Folders,
    spool: Arc<Spool>,
    source: Source,
    appender: Appender,
    keeper: Keeper,
}

/// Four ended segments of one hit each, and one that is open.
fn world(keep: SpoolKeep) -> World {
    let folders = Folders::make();
    let spool = folders.begin(7);
    let room = Arc::new(SpoolRoom::new(0, 8 << 30));
    let disk = Arc::new(FakeDisk::default());
    let metrics = Metrics::new(1);
    let mut appender = Appender::new(Arc::clone(&spool), Arc::clone(&room), disk, Arc::clone(&metrics));
    for n in 0..5 {
        appender.append(&[parcel(&[hit(n, 100)])]).unwrap();
        if n < 4 {
            appender.end_segment();
        }
    }
    let source = Source::recovered(Arc::clone(&spool), &folders.spools());
    let options = HousekeeperOptions { spools: folders.spools(), keep, postgres: None };
    let keeper = Keeper::new(options, vec![Arc::clone(&spool)], room, metrics);
    World { folders, spool, source, appender, keeper }
}

const HOUR: SpoolKeep = SpoolKeep { age: Duration::from_secs(3600), bytes: 1 << 30 };

fn segments(spool: &Spool) -> usize {
    let listed = spool.published().segments.len();
    let there = fs::read_dir(&spool.folder).unwrap().flatten().filter(|entry| entry.path().extension().is_some());
    assert_eq!(there.count(), listed);
    listed
}

#[test]
fn on_a_low_disk_loaded_segments_go_the_oldest_first_and_no_more_than_are_needed() {
    let mut world = world(HOUR);
    world.source.loaded(3);
    world.source.mark_is_known(1);
    let low = SEGMENTS_FREE * world.keeper.room.segment_bytes_max();
    world.keeper.remove_loaded(low, None);
    assert_eq!(segments(&world.spool), 5, "there is room");
    let (_, freed) = world.keeper.remove_loaded(low - 1, None);
    assert_eq!((segments(&world.spool), world.spool.published().segments[0].id.first_seq), (4, 1));
    assert!(freed > 0);
    world.keeper.remove_loaded(0, None);
    assert_eq!(segments(&world.spool), 2, "all that are loaded go, and none that waits");
    assert_eq!(world.keeper.room.bytes(), world.spool.published().segments.iter().map(|s| s.length).sum::<u64>());
}

#[test]
fn while_the_mark_is_unknown_the_hint_counts_on_a_low_disk_only() {
    let mut world = world(SpoolKeep { age: Duration::ZERO, bytes: 0 });
    world.source.loaded(3);
    world.source.forget_mark();
    world.keeper.remove_loaded(u64::MAX, None);
    assert_eq!(segments(&world.spool), 5, "a restored database may ask for them");
    world.keeper.remove_loaded(0, None);
    assert_eq!(segments(&world.spool), 2);
    world.source.loaded(4);
    world.source.mark_is_known(1);
    world.keeper.remove_loaded(u64::MAX, None);
    assert_eq!(segments(&world.spool), 1, "PIXELD_SPOOL_KEEP is over");
}

#[test]
fn a_private_postgresql_keeps_room_for_its_log_and_for_what_waits() {
    let levels = |free, waiting| Levels { kept: 5, waiting, free, reserve: Some(100) };
    assert_eq!(levels(1100, 0).disk_room(1100), 500);
    assert_eq!(levels(1100, 400).disk_room(1100), 300);
    assert_eq!(levels(50, 0).disk_room(50), 0);
    assert_eq!(Levels { reserve: None, ..levels(1100, 400) }.disk_room(1100), 1100);
    assert_eq!(levels(1100, 400).usable(), 1405);
}

#[test]
fn a_segment_that_somebody_deletes_is_noticed_read_through_its_open_file_and_followed_by_another() {
    let mut world = world(HOUR);
    fs::remove_dir_all(world.folders.spools()).unwrap();
    fs::create_dir_all(&world.spool.folder).unwrap();
    world.keeper.keep();
    world.keeper.keep();
    assert_eq!(world.keeper.metrics.segments_missing.get(), 5, "each once");
    world.appender.seal_if_asked();
    world.appender.append(&[parcel(&[hit(5, 100)])]).unwrap();
    let mut read = pixeld_spool::fixture::ReadHits::new();
    pixeld_spool::fixture::read_on(&mut world.source.reader, 9, &mut read);
    assert_eq!(read, (0..6).map(|n| Some(hit(n, 100))).collect::<Vec<_>>());
    world.source.loaded(6);
    world.keeper.remove_loaded(0, None);
    assert_eq!(segments(&world.spool), 1, "those that are gone leave the list");
}
