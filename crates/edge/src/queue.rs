//! The queue: hits in memory between an edge core and the writer, and the receipts that come back.
//!
//! Guarantees: a receipt is `Written` only if the hit's bytes are as durable as `PIXELD_DURABILITY` promises, or if the
//! hit was dropped and counted. No receipt takes longer than [`RECEIPT_WAIT`]. The queue is bounded by
//! [`QUEUE_HITS_MAX`]: when it is full, a hit is refused at once and the caller drops and counts it. Gives up:
//! durability. A hit here dies with the process, so no request is answered before its receipt.
//!
//! A core fills its own parcel and hands it over once a turn of its event loop, however many requests that turn served.
//! So the channel, the writer's wake-up and the way back cost once per turn and not once per hit. One writer takes
//! parcels in order, so one number per core, "acknowledged up to", carries all receipts back.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use futures_util::task::AtomicWaker;
use tokio::time::{Instant, Sleep};

use pixeld_core::hit::{ENCODED_BYTES_MAX, Hit, Parcel};
use pixeld_core::metrics::Metrics;

/// Maximum hits in memory on the way to the spool, over all cores (about 12 MB).
pub const QUEUE_HITS_MAX: i64 = 65_536;

/// Maximum parcels in the channel; more than the hits could ever need while parcels hold more than a few.
const QUEUE_PARCELS_MAX: usize = 8_192;

/// Encoded bytes after which a parcel is handed over before its turn ends.
pub const PARCEL_BYTES_MAX: usize = 128 << 10;

/// The longest wait for a receipt: a stalled disk must not stall an email.
pub const RECEIPT_WAIT: Duration = Duration::from_secs(1);

/// Time after which a parcel that found the channel full is offered again. Perhaps no other event ever comes to this
/// core.
const HAND_OVER_RETRY: Duration = Duration::from_millis(10);

/// What the writer has acknowledged to one core. It has its own cache lines, like everything that two threads share
/// here.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreReceipts {
    acknowledged: AtomicU64,
    waker: AtomicWaker,
}

impl CoreReceipts {
    /// All parcels of this core up to `number` are finished.
    pub fn acknowledge(&self, number: u64) {
        self.acknowledged.store(number, Ordering::Release);
        self.waker.wake();
    }
}

/// Sends receipts: one per core, for its highest parcel.
pub fn acknowledge(receipts: &[CoreReceipts], parcels: impl Iterator<Item = (usize, u64)>) {
    let mut highest = vec![0; receipts.len()];
    for (core, number) in parcels {
        highest[core] = number.max(highest[core]);
    }
    for (core, number) in highest.into_iter().enumerate().filter(|&(_, number)| number > 0) {
        receipts[core].acknowledge(number);
    }
}

/// The sending half of the queue, one for each core.
#[derive(Debug, Clone)]
pub struct Queue {
    parcels: Sender<Parcel>,
    receipts: Arc<[CoreReceipts]>,
    metrics: Arc<Metrics>,
}

/// The receiving half, for the writer.
#[derive(Debug)]
pub struct Intake {
    /// The parcels, in the order in which the writer must number them.
    pub parcels: Receiver<Parcel>,
    /// The writer's acknowledgements, one per core.
    pub receipts: Arc<[CoreReceipts]>,
}

/// A queue for `cores` cores.
pub fn queue(cores: usize, metrics: &Arc<Metrics>) -> (Queue, Intake) {
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE_PARCELS_MAX);
    let receipts: Arc<[CoreReceipts]> = (0..cores).map(|_| CoreReceipts::default()).collect();
    let queue = Queue { parcels: sender, receipts: Arc::clone(&receipts), metrics: Arc::clone(metrics) };
    (queue, Intake { parcels: receiver, receipts })
}

/// The kind of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The writer has finished the hit: written, or dropped and counted.
    Written,
    /// The writer was too slow; the hit is still on its way.
    Unwritten,
}

/// The queue is full; the hit was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

/// One core's end of the queue. Lives on its core's thread.
#[derive(Debug)]
pub struct Outbox {
    core: usize,
    queue: Queue,
    writer: Thread,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    filling: Vec<u8>,
    filling_count: u32,
    filling_waiters: Vec<Waker>,
    /// When the channel was first full for this parcel.
    held: Option<Instant>,
    /// The number that the parcel being filled will have.
    number: u64,
    in_flight: VecDeque<InFlight>,
    /// Parcels up to this one were answered without an acknowledgement.
    given_up: u64,
    /// The writer is late by more than [`RECEIPT_WAIT`]; new hits are not waited for until it is back.
    stalled: bool,
    carrier: Option<Waker>,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    since: Instant,
    waiters: Vec<Waker>,
}

impl Outbox {
    /// The end of `queue` for `core`; `writer` is the thread to wake when there is something to write.
    pub fn new(core: usize, queue: Queue, writer: Thread) -> Rc<Outbox> {
        let state = State {
            filling: Vec::new(),
            filling_count: 0,
            filling_waiters: Vec::new(),
            held: None,
            number: 1,
            in_flight: VecDeque::new(),
            given_up: 0,
            stalled: false,
            carrier: None,
        };
        Rc::new(Outbox { core, queue, writer, state: RefCell::new(state) })
    }

    /// Accepts a hit. Await the receipt before answering.
    ///
    /// # Errors
    /// [`QueueFull`] if the bound is reached; the caller drops the hit and counts it.
    pub fn record(self: &Rc<Outbox>, hit: &Hit<'_>) -> Result<Receipt, QueueFull> {
        let mut state = self.state.borrow_mut();
        let queued = self.queue.metrics.queued.get() + i64::from(state.filling_count);
        if queued >= QUEUE_HITS_MAX || state.filling.len() + ENCODED_BYTES_MAX > PARCEL_BYTES_MAX * 2 {
            return Err(QueueFull);
        }
        hit.encode(&mut state.filling);
        state.filling_count += 1;
        let number = state.number;
        if state.filling_count == 1
            && let Some(carrier) = &state.carrier
        {
            carrier.wake_by_ref();
        } else if state.filling.len() >= PARCEL_BYTES_MAX {
            self.hand_over(&mut state);
        }
        Ok(Receipt { outbox: Rc::clone(self), number })
    }

    /// Hands over what is filled. If the channel is full, the parcel stays, and is offered again after
    /// [`HAND_OVER_RETRY`].
    fn hand_over(&self, state: &mut State) {
        if state.filling_count == 0 {
            return;
        }
        let count = state.filling_count;
        let parcel = Parcel { core: self.core, number: state.number, count, bytes: std::mem::take(&mut state.filling) };
        let capacity = parcel.bytes.len();
        // Counted before it is sent: the writer subtracts it again, and the gauge must not drop below zero.
        self.queue.metrics.queued.add(i64::from(count));
        match self.queue.parcels.try_send(parcel) {
            Ok(()) => {}
            Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) => {
                self.queue.metrics.queued.add(-i64::from(count));
                state.filling = parcel.bytes;
                state.held.get_or_insert_with(Instant::now);
                return;
            }
        }
        state.held = None;
        self.writer.unpark();
        state.filling = Vec::with_capacity(capacity);
        state.filling_count = 0;
        let waiters = std::mem::take(&mut state.filling_waiters);
        let number = state.number;
        state.in_flight.push_back(InFlight { number, since: Instant::now(), waiters });
        state.number += 1;
    }

    /// Wakes all whose parcel is acknowledged, and gives up on those that are too old. Returns when to check again.
    fn settle(&self, state: &mut State) -> Option<Instant> {
        let acknowledged = self.queue.receipts[self.core].acknowledged.load(Ordering::Acquire);
        while state.in_flight.front().is_some_and(|parcel| parcel.number <= acknowledged) {
            state.in_flight.pop_front().into_iter().flat_map(|parcel| parcel.waiters).for_each(Waker::wake);
            state.stalled = false;
        }
        let now = Instant::now();
        // Held for as long as a receipt may take: the writer is stalled, whichever core's parcels it is writing.
        state.stalled |= state.held.is_some_and(|since| now >= since + RECEIPT_WAIT);
        let retry = state.held.map(|_| now + HAND_OVER_RETRY);
        for parcel in &mut state.in_flight {
            if now < parcel.since + RECEIPT_WAIT {
                break;
            }
            state.stalled = true;
            state.given_up = state.given_up.max(parcel.number);
            parcel.waiters.drain(..).for_each(Waker::wake);
        }
        if state.stalled {
            // No request waits for a disk that is known to stall.
            state.given_up = if state.held.is_some() { state.number } else { state.number - 1 };
            state.in_flight.iter_mut().flat_map(|parcel| parcel.waiters.drain(..)).for_each(Waker::wake);
            state.filling_waiters.drain(..).for_each(Waker::wake);
            return retry.or(state.in_flight.front().map(|_| now + RECEIPT_WAIT));
        }
        let late = state.in_flight.front().map(|parcel| parcel.since + RECEIPT_WAIT);
        retry.into_iter().chain(late).min()
    }

    /// Carries parcels to the writer and receipts back, for as long as it is polled. Run one on each core.
    pub fn carry(self: Rc<Outbox>) -> Carrier {
        Carrier { outbox: self, late: Box::pin(tokio::time::sleep(RECEIPT_WAIT)), armed: false }
    }

    /// Whether no parcel is on its way.
    pub fn is_empty(&self) -> bool {
        let state = self.state.borrow();
        state.filling_count == 0 && state.in_flight.is_empty()
    }
}

/// The task of [`Outbox::carry`]; never ends.
#[derive(Debug)]
pub struct Carrier {
    outbox: Rc<Outbox>,
    /// One timer for all receipts: it is set for the oldest parcel and left alone until it fires.
    late: Pin<Box<Sleep>>,
    armed: bool,
}

impl Future for Carrier {
    type Output = std::convert::Infallible;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.outbox.state.borrow_mut();
        if !state.carrier.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.carrier = Some(context.waker().clone());
        }
        this.outbox.queue.receipts[this.outbox.core].waker.register(context.waker());
        loop {
            this.outbox.hand_over(&mut state);
            let look_again = this.outbox.settle(&mut state);
            let Some(at) = look_again else { return Poll::Pending };
            if !this.armed || at < this.late.deadline() {
                this.late.as_mut().reset(at);
                this.armed = true;
            }
            if this.late.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.armed = false;
        }
    }
}

/// Resolves when the writer has finished a hit.
#[derive(Debug)]
pub struct Receipt {
    outbox: Rc<Outbox>,
    number: u64,
}

impl Future for Receipt {
    type Output = Received;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Received> {
        let mut state = self.outbox.state.borrow_mut();
        if self.outbox.queue.receipts[self.outbox.core].acknowledged.load(Ordering::Acquire) >= self.number {
            return Poll::Ready(Received::Written);
        }
        if state.given_up >= self.number {
            return Poll::Ready(Received::Unwritten);
        }
        if state.stalled {
            return Poll::Ready(Received::Unwritten);
        }
        // Each poll stores its waker: a superfluous one costs a needless wake, a missing one a stuck image.
        if self.number == state.number {
            state.filling_waiters.push(context.waker().clone());
        } else if let Some(parcel) = state.in_flight.iter_mut().find(|parcel| parcel.number == self.number) {
            parcel.waiters.push(context.waker().clone());
        } else {
            return Poll::Ready(Received::Written);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
