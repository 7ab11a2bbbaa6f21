//! The appender and the reader against a model: a list of hits, and how many of them are safe from a power cut.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::fake_disk::{FakeDisk, Faults};
use crate::fixture::{Folders, ReadHits, hit, parcel, read_from, read_on};
use crate::reader::Reader;

#[derive(Debug, Clone)]
enum Step {
    /// Parcels of hits, each with the lengths of its hits' contents.
    Append(Vec<Vec<usize>>),
    /// A group of more than one frame.
    AppendLarge,
    Break(Faults),
    Sync {
        fails: bool,
    },
    EndSegment,
    Read {
        rows_max: u64,
    },
    ReadFrom {
        seq: Index,
        rows_max: u64,
    },
    Kill {
        seq: usize,
    },
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let bytes = || {
        prop_oneof![
            3 => Just(None),
            3 => (0u64..1500).prop_map(Some),
            1 => (1_000_000u64..1_300_000).prop_map(Some),
        ]
    };
    let rarely = || prop::bool::weighted(0.2);
    (bytes(), bytes(), rarely(), prop::bool::weighted(0.4), rarely()).prop_map(
        |(room, write_error_after, create, truncate, remove)| Faults {
            room,
            write_error_after,
            create,
            truncate,
            remove,
            ..Faults::default()
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let parcels = prop::collection::vec(prop::collection::vec(0usize..512, 1..4), 1..4);
    prop_oneof![
        12 => parcels.prop_map(Step::Append),
        1 => Just(Step::AppendLarge),
        4 => any_faults().prop_map(Step::Break),
        4 => Just(Step::Break(Faults::default())),
        5 => prop::bool::weighted(0.4).prop_map(|fails| Step::Sync { fails }),
        2 => Just(Step::EndSegment),
        4 => (1u64..20).prop_map(|rows_max| Step::Read { rows_max }),
        2 => (any::<Index>(), 1u64..20).prop_map(|(seq, rows_max)| Step::ReadFrom { seq, rows_max }),
        1 => (0usize..100).prop_map(|seq| Step::Kill { seq }),
    ]
}

struct World {
    folders: Folders,
    disk: FakeDisk,
    spool: Arc<Spool>,
    appender: Appender,
    reader: Reader,
    read: ReadHits,
    /// Every hit whose append returned `Ok`.
    hits: ReadHits,
    /// How many of them are synced.
    synced: usize,
    /// Files that a sync would have to cover.
    unsynced: Vec<Arc<dyn DiskFile>>,
    must_rewrite: bool,
    made: u64,
}

impl World {
    fn new() -> World {
        let (folders, disk) = (Folders::make(), FakeDisk::default());
        let spool = folders.begin(7);
        let appender = folders.appender(&spool, &disk);
        let reader = folders.reader(&spool, 0);
        World {
            folders,
            disk,
            spool,
            appender,
            reader,
            read: ReadHits::new(),
            hits: ReadHits::new(),
            synced: 0,
            unsynced: Vec::new(),
            must_rewrite: false,
            made: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(parcels) => self.append(&parcels),
            Step::AppendLarge => self.append(&vec![vec![511; 350]; 6]),
            Step::Break(faults) => self.disk.set(faults),
            Step::Sync { fails } => self.sync(fails),
            Step::EndSegment => self.appender.end_segment(),
            Step::Read { rows_max } => {
                read_on(&mut self.reader, rows_max, &mut self.read);
                assert_same(&self.read, &self.hits);
            }
            Step::ReadFrom { seq, rows_max } => {
                let seq = seq.index(self.hits.len() + 1);
                assert_same(&read_from(&self.folders, &self.spool, seq as u64, rows_max), &self.hits[seq..]);
            }
            Step::Kill { seq } => self.kill(seq),
        }
        assert_eq!(self.appender.next_seq(), self.hits.len() as u64, "a failed append uses no number");
        assert_eq!(self.spool.published().next_seq, self.hits.len() as u64);
    }

    fn append(&mut self, fillers: &[Vec<usize>]) {
        let mut hits = ReadHits::new();
        let mut parcels = Vec::new();
        for fillers in fillers {
            let made: Vec<_> = fillers.iter().map(|&filler| hit(self.made(), filler)).collect();
            parcels.push(parcel(&made));
            hits.extend(made.into_iter().map(Some));
        }
        // The pause after a refusal is time, which the model leaves out.
        self.appender.refused = None;
        if self.appender.append(&parcels).is_ok() {
            self.hits.extend(hits);
            self.unsynced.extend(self.appender.file().cloned());
        }
    }

    fn made(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// What the syncer and the writer do together.
    fn sync(&mut self, fails: bool) {
        if self.must_rewrite {
            let Ok(file) = self.appender.rewrite_unsynced() else { return };
            self.unsynced = file.into_iter().collect();
            self.must_rewrite = false;
        }
        let faults = self.disk.faults();
        self.disk.set(Faults { sync: fails, ..faults });
        self.must_rewrite = std::mem::take(&mut self.unsynced).iter().any(|file| file.sync().is_err());
        self.disk.set(faults);
        if !self.must_rewrite {
            self.synced = self.hits.len();
            self.appender.synced(self.hits.len() as u64);
        }
    }

    /// A kill at this moment loses nothing. Hits whose append failed may follow at the very end, if their bytes could
    /// not be removed yet: no other hits have their numbers.
    fn kill(&self, seq: usize) {
        let left = self.folders.copy();
        let Some(spool) = left.recover_one() else {
            assert!(self.hits.is_empty(), "all hits are gone");
            return;
        };
        let read = read_from(&left, &spool, 0, 7);
        assert_same(&read[..self.hits.len()], &self.hits);
        assert!(read.len() == self.hits.len() || self.appender.torn.is_some(), "a failed append left a trace");
        let seq = seq.min(read.len());
        assert_same(&read_from(&left, &spool, seq as u64, 7), &read[seq..]);
    }

    fn cut_power(self, seq: Index) {
        self.disk.power_cut();
        let Some(spool) = self.folders.recover_one() else {
            assert_eq!(self.synced, 0, "all hits are gone");
            return;
        };
        assert!(spool.published().closed, "nothing is ever appended to it again");
        for from in [0, seq.index(self.synced + 1)] {
            let read = read_from(&self.folders, &spool, from as u64, 7);
            let len = self.synced - from;
            assert_same(&read[..len], &self.hits[from..self.synced]);
            let later = read[len..].iter().zip(&self.hits[self.synced..]);
            assert!(later.into_iter().all(|(read, hit)| read.is_none() || read == hit), "a hit is altered");
            assert!(from + read.len() <= self.hits.len() || self.appender.torn.is_some());
        }
    }
}

/// Like `assert_eq`, but reports where and not what: the hits are long.
fn assert_same(read: &[Option<Vec<u8>>], hits: &[Option<Vec<u8>>]) {
    let differ = read.iter().zip(hits).position(|(read, hit)| read != hit);
    if let Some(at) = differ {
        let kind = if read[at].is_none() { "missing" } else { "another hit" };
        panic!("number {at} of {} is read as {kind}", hits.len());
    }
    assert_eq!(read.len(), hits.len(), "as many are read as there are");
}

/// A disk that tears the next long write and cannot cut it back.
fn tearing(bytes: u64) -> Faults {
    Faults { write_error_after: Some(bytes), truncate: true, ..Faults::default() }
}

#[test]
fn a_torn_write_that_cannot_be_cut_back_never_takes_a_number_of_a_later_hit() {
    let mut world = World::new();
    world.step(Step::Append(vec![vec![1]]));
    // The first frame of the group is whole on disk, the second is torn.
    world.step(Step::Break(tearing(1_200_000)));
    world.step(Step::AppendLarge);
    assert_eq!(world.hits.len(), 1);
    world.step(Step::Break(Faults { truncate: true, ..Faults::default() }));
    world.step(Step::Append(vec![vec![2]]));
    assert_eq!(world.hits.len(), 1, "nothing is recorded before the torn write is gone");
    world.step(Step::Break(Faults::default()));
    world.step(Step::Append(vec![vec![3]]));
    assert_eq!(world.hits.len(), 2);
    world.step(Step::Kill { seq: 0 });
}

#[test]
fn a_rewrite_that_was_torn_hides_no_hit_that_is_there() {
    let mut world = World::new();
    for _ in 0..3 {
        world.step(Step::Append(vec![vec![0]]));
    }
    world.step(Step::Sync { fails: true });
    // The header and the first of three frames.
    world.step(Step::Break(tearing(36 + 85 + 40)));
    world.step(Step::Sync { fails: false });
    assert!(world.appender.torn.is_some());
    world.step(Step::Kill { seq: 0 });
    for seq in 0..3 {
        let left = world.folders.copy();
        let spool = left.recover_one().unwrap();
        assert_same(&read_from(&left, &spool, seq as u64, 9), &world.hits[seq..]);
    }
}

#[test]
fn hits_that_were_written_again_are_found_from_any_number_after_a_power_cut() {
    let mut world = World::new();
    world.step(Step::Append(vec![vec![0]]));
    world.step(Step::Sync { fails: false });
    // Two segments, of which the disk loses all that follows.
    world.step(Step::Append(vec![vec![0], vec![0]]));
    world.step(Step::EndSegment);
    world.step(Step::Append(vec![vec![0]]));
    world.step(Step::Append(vec![vec![0]]));
    world.step(Step::Sync { fails: true });
    world.step(Step::Sync { fails: false });
    world.step(Step::Append(vec![vec![0]]));
    world.step(Step::Sync { fails: false });
    assert_eq!(world.synced, 6);
    world.disk.power_cut();
    let spool = world.folders.recover_one().unwrap();
    for seq in 0..=6 {
        assert_same(&read_from(&world.folders, &spool, seq as u64, 9), &world.hits[seq..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn appended_hits_are_read_once_in_order_whatever_the_disk_does(
        steps in prop::collection::vec(any_step(), 1..40), rows_max in 1u64..50, seq: Index,
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // Once the disk works again, recording resumes without a restart.
        world.disk.set(Faults::default());
        let before = world.hits.len();
        world.append(&[vec![5, 6]]);
        prop_assert_eq!(world.hits.len(), before + 2);
        world.sync(false);
        prop_assert_eq!(world.synced, world.hits.len());
        prop_assert_eq!(world.disk.asked_again(), 0, "a file whose sync failed is asked again");
        world.kill(seq.index(world.hits.len()));
        world.appender.close();
        read_on(&mut world.reader, rows_max, &mut world.read);
        assert_same(&world.read, &world.hits);
        prop_assert!(world.reader.is_at_end());
        world.cut_power(seq);
    }

    #[test]
    fn a_power_cut_at_any_time_takes_only_what_was_not_synced(
        steps in prop::collection::vec(any_step(), 1..40), seq: Index,
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.cut_power(seq);
    }
}
