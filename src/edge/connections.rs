//! The open connections of one core: what each is doing, since when, and which must go.
//!
//! Guarantees: a connection that sends half a request, takes no answer, or is idle for too long is cut, and when there are
//! too many, the longest idle one makes room. One sweep a second looks after all of them, so that a request sets no timer.
//! Gives up: time-outs are as exact as the sweep.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;
use tokio::task::AbortHandle;

use crate::metrics::CoreCounts;

/// Seconds that a request's head may take from its first byte.
pub const HEAD_SECONDS_MAX: u32 = 10;

/// Seconds that a connection may be idle; longer than a proxy in front keeps its side open (nginx: 60 s).
pub const IDLE_SECONDS_MAX: u32 = 75;

/// Seconds that a peer may leave an answer untaken.
pub const WRITE_SECONDS_MAX: u32 = 10;

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
    /// A request is being answered: however long that takes, it is ours.
    busy: Cell<bool>,
    /// Something was received that no request took, or that was refused.
    unread: Cell<bool>,
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

    /// The request has a body that nobody will read.
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
    second: Cell<u32>,
    draining: Cell<bool>,
}

#[derive(Debug)]
struct Open {
    state: Rc<ConnectionState>,
    task: Option<AbortHandle>,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Rc<Connections>,
    number: usize,
    /// The connection's state.
    pub state: Rc<ConnectionState>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.borrow_mut();
        // One that was cut is off the list, and its number may be another's.
        if open.get(self.number).is_some_and(|open| Rc::ptr_eq(&open.state, &self.state)) {
            open.remove(self.number);
        }
    }
}

impl Connections {
    /// A place for a new connection.
    #[must_use]
    pub fn enter(self: &Rc<Connections>) -> Place {
        let state = Rc::new(ConnectionState {
            doing: Cell::new(Doing::Idle),
            since: Cell::new(self.second.get()),
            busy: Cell::new(false),
            unread: Cell::new(false),
            waker: RefCell::new(None),
        });
        let number = self.open.borrow_mut().insert(Open { state: Rc::clone(&state), task: None });
        Place { connections: Rc::clone(self), number, state }
    }

    /// Names the task that serves the connection with this number, so that it can be cut.
    pub fn serve(&self, number: usize, task: AbortHandle) {
        if let Some(open) = self.open.borrow_mut().get_mut(number) {
            open.task = Some(task);
        }
    }

    /// How many are open.
    #[must_use]
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

    /// Cuts the connections that are idle for longest, to make room: one in a hundred, so that the search for them is not
    /// made for each new connection. Says whether there was one.
    pub fn cut_idlest(&self, counts: &CoreCounts) -> bool {
        let mut open = self.open.borrow_mut();
        let is_idle = |open: &Open| open.state.doing.get() == Doing::Idle && !open.state.busy.get();
        let idle = open.iter().filter(|(_, open)| is_idle(open) && open.task.is_some());
        let mut idle: Vec<(u32, usize)> = idle.map(|(number, open)| (open.state.since.get(), number)).collect();
        if idle.is_empty() {
            return false;
        }
        let victims = idle.len().min(open.len() / 100 + 1);
        idle.select_nth_unstable(victims - 1);
        for (_, number) in &idle[..victims] {
            // Off the list at once: the task ends a turn later, and must not be cut a second time till then.
            if let Some(task) = open.remove(*number).task {
                counts.connections_cut.one();
                task.abort();
            }
        }
        true
    }

    /// Asks all connections to close after the request that they are at.
    pub fn drain(&self) {
        self.draining.set(true);
        for (_, open) in self.open.borrow().iter() {
            if let Some(waker) = &*open.state.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether connections are asked to close.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

impl Place {
    /// The connection's number, for [`Connections::serve`].
    #[must_use]
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

    /// A request's answer went out: the connection waits for the next one from now on.
    pub fn sent(&self) {
        self.state.doing.set(Doing::Idle);
        self.state.since.set(self.connections.second.get());
    }

    /// Whether something was received that no request took, or that was refused.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.state.unread.get()
    }
}
