use std::cell::Cell;

use tokio::task::{JoinHandle, LocalSet};

use super::*;
use pixeld_core::hit::fixture::carrying;

/// An end of a queue that no writer empties, with its carrier running.
struct Core {
    outbox: Rc<Outbox>,
    carrier: JoinHandle<std::convert::Infallible>,
}

impl Core {
    fn start(number: usize, queue: &Queue) -> Core {
        let outbox = Outbox::new(number, queue.clone(), std::thread::current());
        let carrier = tokio::task::spawn_local(Rc::clone(&outbox).carry());
        Core { outbox, carrier }
    }

    fn record(&self) -> Result<Receipt, QueueFull> {
        self.outbox.record(&carrying(1, "x"))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

/// Lets every task that was woken run.
async fn turn() {
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

/// Runs `test` with a queue for two cores.
async fn with_queue(test: impl AsyncFnOnce(Queue, Intake, Arc<Metrics>)) {
    let metrics = Metrics::new(2);
    let (queue, intake) = queue(2, &metrics);
    LocalSet::new().run_until(test(queue, intake, metrics)).await;
}

#[tokio::test(start_paused = true)]
async fn hits_of_one_turn_go_as_one_parcel_and_their_receipts_come_with_it() {
    with_queue(async |queue, intake, metrics| {
        let core = Core::start(0, &queue);
        turn().await;
        let receipts: Vec<_> = (0..3).map(|_| core.record().unwrap()).collect();
        turn().await;
        let parcel = intake.parcels.try_recv().unwrap();
        assert_eq!((parcel.core, parcel.number, parcel.count), (0, 1, 3));
        assert!(intake.parcels.try_recv().is_err());
        assert_eq!(metrics.queued.get(), 3);
        acknowledge(&intake.receipts, [(0, 1)].into_iter());
        for receipt in receipts {
            assert_eq!(receipt.await, Received::Written);
        }
        turn().await;
        assert!(core.outbox.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn receipts_come_in_turn_and_wake_all_that_wait() {
    with_queue(async |queue, intake, _| {
        let core = Core::start(0, &queue);
        let done = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        for _ in 0..10 {
            turn().await;
            for _ in 0..50 {
                let (receipt, done) = (core.record().unwrap(), Rc::clone(&done));
                tasks.push(tokio::task::spawn_local(async move {
                    assert_eq!(receipt.await, Received::Written);
                    done.set(done.get() + 1);
                }));
            }
            turn().await;
        }
        assert_eq!(done.get(), 0, "nobody is told before the writer is done");
        for number in [1, 2, 3, 7, 10] {
            acknowledge(&intake.receipts, [(0, number)].into_iter());
            turn().await;
            assert_eq!(done.get(), number * 50, "a number stands for all before it and for none behind it");
        }
        for task in tasks {
            task.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_writer_is_waited_for_once() {
    with_queue(async |queue, intake, _| {
        let core = Core::start(0, &queue);
        let started = Instant::now();
        assert_eq!(core.record().unwrap().await, Received::Unwritten);
        assert!((RECEIPT_WAIT..RECEIPT_WAIT * 2).contains(&started.elapsed()), "{:?}", started.elapsed());

        let stalled = Instant::now();
        assert_eq!(core.record().unwrap().await, Received::Unwritten);
        assert_eq!(stalled.elapsed(), Duration::ZERO, "nobody waits for a disk that is known to stall");

        turn().await;
        assert_eq!(intake.parcels.len(), 2, "both hits are on their way all the same");
        acknowledge(&intake.receipts, [(0, 2)].into_iter());
        turn().await;
        let receipt = core.record().unwrap();
        turn().await;
        acknowledge(&intake.receipts, [(0, 3)].into_iter());
        assert_eq!(receipt.await, Received::Written, "the writer is back");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once_and_takes_hits_again_when_there_is_room() {
    with_queue(async |queue, intake, metrics| {
        let core = Core::start(0, &queue);
        turn().await;
        let mut taken = 0;
        while core.record().is_ok() {
            taken += 1;
            if taken % 100 == 0 {
                turn().await;
            }
        }
        assert_eq!(taken, QUEUE_HITS_MAX);
        let mut came = 0;
        for parcel in intake.parcels.try_iter() {
            came += i64::from(parcel.count);
            metrics.queued.add(-i64::from(parcel.count));
        }
        assert!(core.record().is_ok());
        turn().await;
        came += i64::from(intake.parcels.try_iter().map(|parcel| parcel.count).sum::<u32>());
        assert_eq!(came, taken + 1, "every hit that was taken goes to the writer");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_receipt_waits_longer_where_another_core_has_filled_the_channel() {
    with_queue(async |queue, intake, _| {
        let (busy, quiet) = (Core::start(0, &queue), Core::start(1, &queue));
        turn().await;
        for _ in 0..QUEUE_PARCELS_MAX {
            drop(busy.record().unwrap());
            turn().await;
        }
        assert_eq!(intake.parcels.len(), QUEUE_PARCELS_MAX);

        let started = Instant::now();
        let receipts: Vec<_> = (0..3).map(|_| quiet.record().unwrap()).collect();
        for receipt in receipts {
            let received = tokio::time::timeout(RECEIPT_WAIT * 3, receipt).await;
            assert_eq!(received, Ok(Received::Unwritten));
        }
        assert!(started.elapsed() < RECEIPT_WAIT * 2, "{:?}", started.elapsed());

        // The writer is back, and does not know the quiet core yet.
        assert_eq!(intake.parcels.try_iter().count(), QUEUE_PARCELS_MAX);
        tokio::time::sleep(RECEIPT_WAIT * 2).await;
        let parcel = intake.parcels.try_recv().unwrap();
        assert_eq!((parcel.core, parcel.number, parcel.count), (1, 1, 3));
        acknowledge(&intake.receipts, [(1, 1)].into_iter());
        turn().await;
        assert!(quiet.outbox.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_receipt_waits_longer_if_the_writer_is_gone() {
    with_queue(async |queue, intake, metrics| {
        drop(intake);
        let core = Core::start(0, &queue);
        turn().await;
        let receipt = core.record().unwrap();
        assert_eq!(tokio::time::timeout(RECEIPT_WAIT * 3, receipt).await, Ok(Received::Unwritten));
        let refused = (0..10_000).find(|_| core.record().is_err());
        assert!(refused.is_some(), "what nobody takes stays bounded");
        assert_eq!(metrics.queued.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_turn_is_handed_over_in_pieces() {
    with_queue(async |queue, intake, _| {
        let core = Core::start(0, &queue);
        turn().await;
        let user_agent = "x".repeat(512);
        let receipts: Vec<_> = (0..1000).map(|n| core.outbox.record(&carrying(n, &user_agent)).unwrap()).collect();
        turn().await;
        let parcels: Vec<_> = intake.parcels.try_iter().collect();
        assert!(parcels.len() > 1);
        assert!(parcels.iter().all(|parcel| parcel.bytes.len() <= PARCEL_BYTES_MAX + ENCODED_BYTES_MAX));
        assert!(parcels.iter().map(|parcel| parcel.number).eq(1..=parcels.len() as u64), "in order, without a hole");
        assert_eq!(parcels.iter().map(|parcel| parcel.count).sum::<u32>(), 1000);
        acknowledge(&intake.receipts, [(0, parcels.len() as u64)].into_iter());
        for receipt in receipts {
            assert_eq!(receipt.await, Received::Written);
        }
    })
    .await;
}
