//! The open connections of one core: what each is doing, since when, and which ones are closed.
//!
//! Guarantees: a connection that sends half a request, takes no answer, or is idle for too long is cut. If there are
//! too many, the longest idle ones make room; if none is idle, those that have waited longest for the rest of a head or
//! for the client to take an answer. So half-sent heads never cause refusals. One address holds at most its share
//! ([`share`]); beyond it, it makes room for itself. One sweep a second checks all of them, so that a request sets no
//! timer. Gives up: precision. Time-outs are as exact as the sweep; among connections that began in the same second,
//! any may go first.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;

use foldhash::HashMap;
use slab::Slab;
use tokio::task::AbortHandle;

use super::limits;
use pixeld_core::metrics::CoreCounts;

/// Seconds that a request's head may take from its first byte.
pub const HEAD_SECONDS_MAX: u32 = 10;

/// Seconds that a connection may be idle; longer than a proxy in front keeps its side open (nginx: 60 s).
pub const IDLE_SECONDS_MAX: u32 = 75;

/// Seconds a peer may take to accept a response.
pub const WRITE_SECONDS_MAX: u32 = 10;

/// Seconds after which an idle connection counts as unneeded by its client. One that was opened a moment ago may be a
/// reader's whose request is on its way.
const IDLE_SECONDS: u32 = 2;

/// One in this many of the idle connections, or of an address's, is cut at once, so that the search does not run for
/// each new connection.
const CUT_OF_IDLE: usize = 100;

/// The same for connections that are not idle, which may be readers on slow lines.
const CUT_OF_OTHERS: usize = 1000;

/// Connections that one address may always hold, however low the overall bound is.
const SHARE_LEAST: usize = 16;

/// How many connections of one core an address (IPv6: a /64) may hold, if all together may hold `connections_max`.
pub fn share(connections_max: usize) -> usize {
    (connections_max / 4).max(SHARE_LEAST)
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Waiting for a request.
    Idle,
    /// A request's first bytes are there.
    Head,
    /// The peer does not take the answer.
    Blocked,
}

/// One connection's state, shared by its stream and the sweep.
#[derive(Debug)]
pub struct ConnectionState {
    doing: Cell<Doing>,
    since: Cell<u32>,
    /// A request is being answered; the time that takes is ours, not the client's.
    busy: Cell<bool>,
    /// Bytes were received that no request used, or that were refused.
    unread: Cell<bool>,
    /// The answer being written is the connection's last one.
    last: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionState {
    fn now(&self, doing: Doing, second: u32) {
        if self.doing.replace(doing) != doing {
            self.since.set(second);
        }
    }

    /// A request was read and is being answered, or its answer was handed over.
    pub fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
        self.unread.set(false);
    }

    /// The connection ends after the answer that was handed over.
    pub fn set_last(&self) {
        self.last.set(true);
    }

    /// Whether [`ConnectionState::set_last`] was called.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last.get()
    }

    /// The request has a body that will not be read.
    pub fn leaves_unread(&self) {
        self.unread.set(true);
    }

    /// Remembers how to wake the connection's task; it stays the same for the task's life.
    pub fn remember(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if kept.is_none() {
            *kept = Some(waker.clone());
        }
    }
}

/// All connections of one core.
#[derive(Debug, Default)]
pub struct Connections {
    open: RefCell<Slab<Open>>,
    /// How many of them each address has.
    addresses: RefCell<HashMap<u64, usize>>,
    second: Cell<u32>,
    draining: Cell<bool>,
}

#[derive(Debug)]
struct Open {
    state: Rc<ConnectionState>,
    task: Option<AbortHandle>,
    address: u64,
}

/// A place among the open connections; freed when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Rc<Connections>,
    number: usize,
    /// The connection's state.
    pub state: Rc<ConnectionState>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // A connection that was cut is off the list, and its number may belong to another one.
        let is_ours = |open: &Open| Rc::ptr_eq(&open.state, &self.state);
        if self.connections.open.borrow().get(self.number).is_some_and(is_ours) {
            self.connections.remove(self.number);
        }
    }
}

impl Connections {
    /// A place for a new connection of a peer.
    #[must_use]
    pub fn enter(self: &Rc<Connections>, peer: IpAddr) -> Place {
        let address = limits::key(peer);
        *self.addresses.borrow_mut().entry(address).or_default() += 1;
        let state = Rc::new(ConnectionState {
            doing: Cell::new(Doing::Idle),
            since: Cell::new(self.second.get()),
            busy: Cell::new(false),
            unread: Cell::new(false),
            last: Cell::new(false),
            waker: RefCell::new(None),
        });
        let number = self.open.borrow_mut().insert(Open { state: Rc::clone(&state), task: None, address });
        Place { connections: Rc::clone(self), number, state }
    }

    /// Sets the task that serves the connection with this number, so that it can be cut.
    pub fn serve(&self, number: usize, task: AbortHandle) {
        if let Some(open) = self.open.borrow_mut().get_mut(number) {
            open.task = Some(task);
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// One second has passed: cuts what took too long.
    pub fn sweep(&self, counts: &CoreCounts) {
        let second = self.second.get() + 1;
        self.second.set(second);
        let open = self.open.borrow();
        let late = open.iter().map(|(_, open)| open).filter(|open| {
            let allowed = match open.state.doing.get() {
                Doing::Idle => IDLE_SECONDS_MAX,
                Doing::Head => HEAD_SECONDS_MAX,
                Doing::Blocked => WRITE_SECONDS_MAX,
            };
            !open.state.busy.get() && second - open.state.since.get() > allowed
        });
        for task in late.filter_map(|open| open.task.as_ref()) {
            counts.connections_cut.one();
            task.abort();
        }
    }

    /// How many of them a peer's address has.
    pub fn count_of(&self, peer: IpAddr) -> usize {
        self.addresses.borrow().get(&limits::key(peer)).copied().unwrap_or_default()
    }

    /// Cuts connections to make room for one: the longest idle ones or, if none is idle, those that have waited
    /// longest. Returns whether there were any. A connection whose request is being answered stays.
    pub fn make_room(&self, counts: &CoreCounts) -> bool {
        self.cut(counts, |_| true, |idle, all| 1 + all / if idle { CUT_OF_IDLE } else { CUT_OF_OTHERS })
    }

    /// The same among a peer's own connections.
    pub fn make_room_of(&self, peer: IpAddr, counts: &CoreCounts) -> bool {
        let (address, held) = (limits::key(peer), self.count_of(peer));
        self.cut(counts, |open| open.address == address, |_, _| held / CUT_OF_IDLE + 1)
    }

    fn cut(
        &self,
        counts: &CoreCounts,
        may_go: impl Fn(&Open) -> bool,
        most: impl FnOnce(bool, usize) -> usize,
    ) -> bool {
        let second = self.second.get();
        let is_idle =
            |open: &Open| open.state.doing.get() == Doing::Idle && second - open.state.since.get() >= IDLE_SECONDS;
        let open = self.open.borrow();
        let all = open.len();
        let may_go = open.iter().filter(|(_, open)| open.task.is_some() && !open.state.busy.get() && may_go(open));
        // Those that are not idle come last.
        let mut found: Vec<(bool, u32, usize)> =
            may_go.map(|(number, open)| (!is_idle(open), open.state.since.get(), number)).collect();
        drop(open);
        let idle = found.iter().filter(|(is_waiting, ..)| !is_waiting).count();
        let victims = most(idle > 0, all).min(if idle > 0 { idle } else { found.len() });
        if victims == 0 {
            return false;
        }
        found.select_nth_unstable(victims - 1);
        for (_, _, number) in &found[..victims] {
            // Remove it from the list at once: its task ends a turn later, and must not be cut a second time until
            // then.
            if let Some(task) = self.remove(*number).task {
                counts.connections_cut.one();
                task.abort();
            }
        }
        true
    }

    fn remove(&self, number: usize) -> Open {
        let open = self.open.borrow_mut().remove(number);
        let mut addresses = self.addresses.borrow_mut();
        if let Some(held) = addresses.get_mut(&open.address) {
            *held -= 1;
            if *held == 0 {
                addresses.remove(&open.address);
            }
        }
        open
    }

    /// Asks all connections to close after their current request.
    pub fn drain(&self) {
        self.draining.set(true);
        for (_, open) in self.open.borrow().iter() {
            if let Some(waker) = &*open.state.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether connections were asked to close.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

impl Place {
    /// The connection's number, for [`Connections::serve`].
    pub fn number(&self) -> usize {
        self.number
    }

    /// The connection is doing this now.
    pub fn now(&self, doing: Doing) {
        self.state.now(doing, self.connections.second.get());
    }

    /// Bytes were received.
    pub fn received(&self) {
        self.state.unread.set(true);
        if self.state.doing.get() == Doing::Idle {
            self.now(Doing::Head);
        }
    }

    /// A request's answer was sent: from now on the connection waits for the next request.
    pub fn sent(&self) {
        self.state.doing.set(Doing::Idle);
        self.state.since.set(self.connections.second.get());
    }

    /// Whether bytes were received that no request used, or that were refused.
    pub fn has_unread(&self) -> bool {
        self.state.unread.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::metrics::Metrics;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A connection in this state, with a task that never ends.
    fn open(connections: &Rc<Connections>, peer: IpAddr, doing: Doing) -> (Place, tokio::task::JoinHandle<()>) {
        let place = connections.enter(peer);
        let task = tokio::task::spawn_local(std::future::pending());
        connections.serve(place.number(), task.abort_handle());
        place.now(doing);
        (place, task)
    }

    fn with_connections(test: impl AsyncFnOnce(Rc<Connections>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test(Rc::default()));
    }

    #[test]
    fn the_idle_go_first_then_the_oldest_of_the_rest_and_never_one_that_is_answered() {
        let metrics = Metrics::new(1);
        let counts = &metrics.cores[0];
        with_connections(async |connections| {
            let busy = open(&connections, address(1), Doing::Head);
            busy.0.state.set_busy(true);
            let old_head = open(&connections, address(2), Doing::Head);
            let idle = open(&connections, address(3), Doing::Idle);
            connections.sweep(counts);
            connections.sweep(counts);
            let blocked = open(&connections, address(4), Doing::Blocked);
            let fresh = open(&connections, address(5), Doing::Idle);
            let mut gone = Vec::new();
            while connections.make_room(counts) {
                tokio::task::yield_now().await;
                let all = [&busy, &old_head, &idle, &blocked, &fresh];
                let ended: Vec<usize> = (0..all.len()).filter(|&n| all[n].1.is_finished()).collect();
                gone.extend(ended.into_iter().filter(|n| !gone.contains(n)).collect::<Vec<_>>());
            }
            assert_eq!(gone[..2], [2, 1], "idle for long, then half a head for long");
            gone.sort_unstable();
            assert_eq!((gone, connections.count()), (vec![1, 2, 3, 4], 1));
            assert_eq!(counts.connections_cut.get(), 4);
        });
    }

    #[test]
    fn an_address_makes_room_among_its_own_and_its_count_follows() {
        let metrics = Metrics::new(1);
        let counts = &metrics.cores[0];
        with_connections(async |connections| {
            let _other = open(&connections, address(1), Doing::Idle);
            let ours: Vec<_> = (0..3).map(|_| open(&connections, address(2), Doing::Head)).collect();
            connections.sweep(counts);
            connections.sweep(counts);
            assert!(connections.make_room_of(address(2), counts));
            assert_eq!((connections.count_of(address(1)), connections.count_of(address(2))), (1, 2));
            drop(ours);
            assert_eq!((connections.count_of(address(2)), connections.count()), (0, 1));
            assert!(!connections.make_room_of(address(2), counts));
            assert_eq!(connections.addresses.borrow().len(), 1);
        });
    }

    #[test]
    fn a_share_is_a_quarter_and_a_few_are_always_allowed() {
        assert_eq!([1, 64, 20_000].map(share), [16, 16, 5000]);
    }
}
