//! The writer and its syncer in real threads, on a disk that fails.

use std::rc::Rc;

use super::*;
use pixeld_core::hit::fixture::carrying;
use pixeld_core::metrics::DropReason;
use pixeld_edge::queue::{Outbox, Received, queue};
use pixeld_spool::fake_disk::{FakeDisk, Faults};
use pixeld_spool::fixture::{Folders, ReadHits, hit, read_from};

const FULL: Faults = Faults {
    room: Some(0),
    write_error_after: None,
    write_panics: false,
    sync_panics: false,
    create: false,
    truncate: false,
    remove: false,
    sync: false,
    steps: None,
};

/// A running writer and one core's end of its queue.
struct Running {
    folders: Folders,
    disk: FakeDisk,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    outbox: Rc<Outbox>,
    carrier: tokio::task::JoinHandle<std::convert::Infallible>,
    writer: Writer,
}

impl Running {
    fn start(durability: Durability) -> Running {
        let (folders, disk, metrics) = (Folders::make(), FakeDisk::default(), Metrics::new(1));
        let spool = folders.begin(7);
        let room = Arc::new(SpoolRoom::new(0, 1 << 30));
        let target = Target { spool: Arc::clone(&spool), room, disk: Arc::new(disk.clone()), durability };
        let (queue, intake) = queue(1, &metrics);
        let writer =
            Writer::start(target, intake, Arc::clone(&metrics), |body| std::thread::Builder::new().spawn(body))
                .unwrap();
        let outbox = Outbox::new(0, queue, writer.thread.clone());
        let carrier = tokio::task::spawn_local(Rc::clone(&outbox).carry());
        Running { folders, disk, spool, metrics, outbox, carrier, writer }
    }

    /// Records hit number `n` and waits for its receipt.
    async fn record(&self, n: u64) -> Received {
        self.outbox.record(&carrying(n, "xxx")).unwrap().await
    }

    /// Waits for the end of a writer that panics.
    async fn writer_ends(&self) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !self.writer.join.is_finished() {
            assert!(std::time::Instant::now() < end, "the writer's end is not seen");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Hits that were counted as dropped because of the disk.
    fn dropped(&self) -> u64 {
        self.metrics.dropped(DropReason::DiskFull) + self.metrics.dropped(DropReason::DiskError)
    }

    /// Ends the edge's part, then the writer's, in the program's order.
    async fn end(self) -> Ended {
        self.carrier.abort();
        assert!(self.carrier.await.unwrap_err().is_cancelled());
        drop(self.outbox);
        self.writer.finish();
        assert_eq!(self.disk.asked_again(), 0, "a file whose sync failed is asked again");
        Ended { folders: self.folders, spool: self.spool, metrics: self.metrics }
    }
}

/// What a writer left.
struct Ended {
    folders: Folders,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
}

impl Ended {
    /// All that is in the spool.
    fn read(&self) -> ReadHits {
        assert_eq!(self.metrics.queued.get(), 0);
        read_from(&self.folders, &self.spool, 0, 100)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn hits(numbers: impl IntoIterator<Item = u64>) -> ReadHits {
    numbers.into_iter().map(|n| Some(hit(n, 3))).collect()
}

#[test]
fn a_receipt_means_that_a_kill_takes_nothing() {
    run(async {
        let running = Running::start(Durability::Written);
        for n in 0..20 {
            assert_eq!(running.record(n).await, Received::Written);
            let left = running.folders.copy();
            assert_eq!(read_from(&left, &left.recover_one().unwrap(), 0, 100), hits(0..=n));
        }
        assert_eq!(running.end().await.read(), hits(0..20));
    });
}

#[test]
fn a_synced_receipt_means_that_a_power_cut_takes_nothing() {
    run(async {
        let running = Running::start(Durability::Synced);
        for n in 0..20 {
            assert_eq!(running.record(n).await, Received::Written);
        }
        running.disk.power_cut();
        assert_eq!(read_from(&running.folders, &running.folders.recover_one().unwrap(), 0, 100), hits(0..20));
        running.end().await;
    });
}

#[test]
fn a_synced_receipt_waits_until_the_hits_of_a_failed_sync_are_synced_elsewhere() {
    run(async {
        let running = Running::start(Durability::Synced);
        assert_eq!(running.record(0).await, Received::Written);
        running.disk.set(Faults { sync: true, ..Faults::default() });
        let waiting = async {
            assert_eq!(running.record(1).await, Received::Written);
            assert!(!running.disk.faults().sync, "a receipt is given although nothing could be synced");
        };
        let healing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(running.metrics.sync_failures.get() >= 1);
            running.disk.set(Faults::default());
        };
        tokio::join!(waiting, healing);
        running.disk.power_cut();
        assert_eq!(read_from(&running.folders, &running.folders.recover_one().unwrap(), 0, 100), hits(0..2));
        running.end().await;
    });
}

#[test]
fn a_disk_that_fails_every_sync_is_not_filled_with_copies() {
    run(async {
        let running = Running::start(Durability::Synced);
        running.disk.set(Faults { sync: true, ..Faults::default() });
        assert_eq!(running.record(0).await, Received::Unwritten, "the image is answered all the same");
        let rewrites = running.spool.published().segments.len() as u64;
        assert!((2..10).contains(&rewrites), "{rewrites} segments in a second");
        running.disk.set(Faults::default());
        tokio::time::sleep(REWRITE_PAUSE * 2).await;
        assert_eq!(running.record(1).await, Received::Written);
        assert_eq!(running.end().await.read(), hits(0..2));
    });
}

#[test]
fn a_sync_that_fails_while_the_writer_ends_is_made_up_for() {
    for durability in [Durability::Written, Durability::Synced] {
        run(async move {
            let running = Running::start(durability);
            assert_eq!(running.record(0).await, Received::Written);
            let disk = running.disk.clone();
            disk.fail_next_sync();
            drop(running.outbox.record(&carrying(1, "xxx")).unwrap());
            // The carrier's turn, which hands the hit over.
            tokio::task::yield_now().await;
            let Ended { folders, .. } = running.end().await;
            disk.power_cut();
            let recovered = folders.recover_one().unwrap();
            assert_eq!(read_from(&folders, &recovered, 0, 100), hits(0..2), "{durability:?}");
        });
    }
}

#[test]
fn a_full_disk_drops_what_it_counts_and_recording_resumes_when_there_is_room() {
    for durability in [Durability::Written, Durability::Synced] {
        run(async move {
            let running = Running::start(durability);
            let mut expected = ReadHits::new();
            for round in 0..3 {
                running.disk.set(Faults::default());
                // The writer does not at once try a disk again that has just refused.
                tokio::time::sleep(Duration::from_millis(110)).await;
                for n in round * 100..round * 100 + 5 {
                    assert_eq!(running.record(n).await, Received::Written);
                    expected.extend(hits([n]));
                }
                running.disk.set(Faults { room: Some(30), ..FULL });
                let dropped = running.dropped();
                for n in 0..5 {
                    assert_eq!(running.record(1000 + n).await, Received::Written, "a drop is answered like a hit");
                }
                assert_eq!(running.dropped(), dropped + 5);
            }
            let ended = running.end().await;
            assert_eq!(ended.read(), expected);
            assert_eq!(ended.metrics.spooled.get(), 15);
            assert_eq!(ended.metrics.dropped(DropReason::DiskFull), 15);
        });
    }
}

#[test]
fn every_hit_is_written_or_dropped_whatever_the_disk_does() {
    run(async {
        let running = Running::start(Durability::Synced);
        let mut faults = [Faults::default(), Faults { sync: true, ..Faults::default() }, FULL].into_iter().cycle();
        let mut receipts = Vec::new();
        for n in 0..600 {
            if n % 50 == 0 {
                running.disk.set(faults.next().unwrap());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            receipts.push(running.outbox.record(&carrying(n, "xxx")).unwrap());
            tokio::task::yield_now().await;
        }
        running.disk.set(Faults::default());
        for receipt in receipts {
            receipt.await;
        }
        let ended = running.end().await;
        let metrics = &ended.metrics;
        let dropped = metrics.dropped(DropReason::DiskFull) + metrics.dropped(DropReason::DiskError);
        let read = ended.read();
        assert_eq!(read.len() as i64, metrics.spooled.get());
        assert_eq!(read.len() as u64 + dropped, 600);
        let at = |bytes: &Option<Vec<u8>>| pixeld_core::hit::Hit::decode(bytes.as_ref().unwrap()).unwrap().0.at;
        assert!(read.iter().map(at).is_sorted_by(|a, b| a < b), "in order, each once, none missing");
    });
}

#[test]
fn a_writer_that_panics_is_seen_to_have_ended() {
    run(async {
        let running = Running::start(Durability::Written);
        assert_eq!(running.record(0).await, Received::Written);
        running.disk.set(Faults { write_panics: true, ..Faults::default() });
        assert_eq!(running.record(1).await, Received::Unwritten);
        // The last receipt comes while the thread unwinds. Its end is noticed, so that the program can end and be
        // restarted.
        running.writer_ends().await;
        assert_eq!(running.record(2).await, Received::Unwritten);
        running.end().await;
    });
}

#[test]
fn a_writer_whose_syncer_panics_ends_too() {
    run(async {
        let running = Running::start(Durability::Synced);
        running.disk.set(Faults { sync_panics: true, ..Faults::default() });
        assert_eq!(running.record(0).await, Received::Unwritten);
        // Nothing would be synced or acknowledged any more.
        running.writer_ends().await;
        running.end().await;
    });
}
