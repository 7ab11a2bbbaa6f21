//! The load: each thread has an event loop and its share of the connections.
//!
//! A closed loop sends the next request when an answer has arrived: it finds the peak. An open loop sends at a set rate
//! whatever the server does, and measures latency from when the request was due, not from when it could be sent. So a
//! server that stalls for a second has stalled all requests of that second (no coordinated omission). A kernel timer
//! wakes it when the next request is due, since the event loop itself has a resolution of whole milliseconds.

mod plan;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::connection::{Connection, Progress};
use crate::ledger::Ledger;

use self::plan::LATENCY_MAX;
pub use self::plan::{Control, Outcome, Pace, Plan, Reuse};

/// Maximum wait for an answer.
pub const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Maximum wait for connections before the first request.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// How long a connection rests after it was refused.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Runs a load to its end.
///
/// # Errors
/// Never because of the server: its refusals are part of the outcome.
pub fn run(plan: &Plan, ledger: &Ledger, control: &Control) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let threads = plan.threads.clamp(1, plan.connections.max(1));
    let outcomes: Vec<anyhow::Result<Outcome>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let connections = plan.connections / threads + usize::from(thread < plan.connections % threads);
                    Thread::new(plan, ledger, control, connections, thread, threads)?.run(started)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked"))).collect()
    });
    let mut sum = Outcome::new()?;
    for outcome in outcomes {
        let outcome = outcome?;
        sum.latency.add(&outcome.latency)?;
        sum.answered += outcome.answered;
        sum.refused += outcome.refused;
        sum.broken += outcome.broken;
        sum.timed_out += outcome.timed_out;
        sum.not_connected += outcome.not_connected;
        sum.elapsed = sum.elapsed.max(outcome.elapsed);
    }
    Ok(sum)
}

struct Slot {
    connection: Option<Connection>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection until then.
    Resting(Instant),
    Connecting,
    Idle,
    /// A request was sent; since when it was due.
    Waiting {
        number: u64,
        since: Instant,
        closes: bool,
    },
}

struct Thread<'a> {
    plan: &'a Plan,
    ledger: &'a Ledger,
    control: &'a Control,
    poll: Poll,
    slots: Vec<Slot>,
    /// Slots that may send; some of them may no longer be able to.
    idle: Vec<usize>,
    outcome: Outcome,
    /// Requests that this thread has started; in an open loop the next one is due at their number divided by the rate.
    begun: u64,
    rate: Option<f64>,
    connects: u64,
    sending: bool,
    timer: TimerFd,
    /// The time to which the timer is set.
    armed: Option<Instant>,
}

/// The timer's name in the event loop.
const TIMER: Token = Token(usize::MAX);

impl<'a> Thread<'a> {
    fn new(
        plan: &'a Plan,
        ledger: &'a Ledger,
        control: &'a Control,
        connections: usize,
        thread: usize,
        threads: usize,
    ) -> anyhow::Result<Thread<'a>> {
        let poll = Poll::new().context("no event loop")?;
        let now = Instant::now();
        let slots = (0..connections).map(|_| Slot { connection: None, state: State::Resting(now) }).collect();
        let rate = match plan.pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some(rate / threads as f64),
        };
        let outcome = Outcome::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let connects = thread as u64 * 7919;
        Ok(Thread {
            plan,
            ledger,
            control,
            poll,
            slots,
            idle: Vec::new(),
            outcome,
            begun: 0,
            rate,
            connects,
            sending: true,
            timer,
            armed: None,
        })
    }

    fn run(mut self, started: Instant) -> anyhow::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        self.connect_all(&mut events)?;
        // The schedule begins when there is a connection.
        let started = started.max(Instant::now());
        let mut looked = started;
        loop {
            let now = Instant::now();
            self.sending &= !self.control.stop.load(Ordering::Relaxed) && now - started < self.plan.duration;
            let due = self.send_due(started, now);
            if now - looked >= Duration::from_millis(10) {
                looked = now;
                self.look_after(now);
            }
            if !self.sending && !self.slots.iter().any(|slot| matches!(slot.state, State::Waiting { .. })) {
                break;
            }
            if let Some(due) = due
                && self.armed != Some(due)
            {
                let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
                let once = Expiration::OneShot(TimeSpec::from_duration(wait));
                self.timer.set(once, TimerSetTimeFlags::empty())?;
                self.armed = Some(due);
            }
            match self.poll.poll(&mut events, Some(Duration::from_millis(10))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.react(event.token().0, event.is_readable() || event.is_read_closed() || event.is_error());
            }
        }
        self.outcome.elapsed = started.elapsed();
        Ok(self.outcome)
    }

    /// Opens the connections, and waits a moment for them: a server may refuse some.
    fn connect_all(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.look_after(begun);
        // A connection that is ready would send at once in a closed loop.
        let sending = std::mem::replace(&mut self.sending, false);
        while begun.elapsed() < CONNECT_WAIT && self.slots.iter().any(|slot| slot.state == State::Connecting) {
            match self.poll.poll(events, Some(Duration::from_millis(10))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.react(event.token().0, event.is_readable() || event.is_read_closed() || event.is_error());
            }
        }
        self.sending = sending;
        Ok(())
    }

    /// Sends what is due; returns when the next request is due.
    fn send_due(&mut self, started: Instant, now: Instant) -> Option<Instant> {
        loop {
            let due = self.rate.map(|rate| started + Duration::from_secs_f64(self.begun as f64 / rate));
            if !self.sending {
                return None;
            }
            if due.is_some_and(|due| due > now) {
                return due;
            }
            let at = self.idle.pop()?;
            if self.slots[at].state == State::Idle {
                self.send(at, due.unwrap_or_else(Instant::now));
            }
        }
    }

    fn send(&mut self, at: usize, since: Instant) {
        let Some(number) = self.ledger.take() else {
            self.sending = false;
            return;
        };
        let slot = &mut self.slots[at];
        let Some(connection) = &mut slot.connection else { return };
        self.begun += 1;
        let closes = self.plan.reuse.closes(number);
        self.ledger.sent(number);
        slot.state = State::Waiting { number, since, closes };
        if connection.send(|out| self.plan.pixels.put_request(out, number, closes)).is_err() {
            self.outcome.broken += 1;
            self.rest(at);
        }
    }

    /// Something happened on a connection.
    fn react(&mut self, at: usize, readable: bool) {
        let slot = &mut self.slots[at];
        let Some(connection) = &mut slot.connection else { return };
        match slot.state {
            State::Resting(_) => {}
            State::Connecting => match connection.is_connected() {
                Ok(true) => self.ready(at),
                Ok(false) => {}
                Err(_) => {
                    self.outcome.not_connected += 1;
                    self.rest(at);
                }
            },
            // The server closed an idle connection.
            State::Idle if readable => self.rest(at),
            State::Idle => {}
            State::Waiting { number, since, closes } => {
                let progress = connection.flush().and_then(|()| connection.read());
                match progress {
                    Ok(Progress::Pending) => {}
                    Ok(Progress::Answered { status, closes: server_closes }) => {
                        let latency = since.elapsed().min(LATENCY_MAX).as_nanos() as u64;
                        self.outcome.latency.saturating_record(latency);
                        if status == 200 || status == 304 {
                            self.ledger.answered(number);
                            self.outcome.answered += 1;
                            self.control.answered.fetch_add(1, Ordering::Relaxed);
                        } else {
                            self.outcome.refused += 1;
                        }
                        if closes || server_closes { self.reconnect(at) } else { self.ready(at) }
                    }
                    Err(_) => {
                        self.outcome.broken += 1;
                        self.rest(at);
                    }
                }
            }
        }
    }

    /// The connection may send. A closed loop does so at once.
    fn ready(&mut self, at: usize) {
        self.slots[at].state = State::Idle;
        if self.rate.is_none() && self.sending {
            self.send(at, Instant::now());
        } else {
            self.idle.push(at);
        }
    }

    fn rest(&mut self, at: usize) {
        self.close(at);
        self.slots[at].state = State::Resting(Instant::now() + RECONNECT_PAUSE);
    }

    fn reconnect(&mut self, at: usize) {
        self.close(at);
        if self.sending {
            self.connect(at);
        } else {
            self.slots[at].state = State::Resting(Instant::now());
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(mut connection) = self.slots[at].connection.take() {
            // A connection that the kernel has already forgotten need not be removed.
            connection.leave(self.poll.registry()).unwrap_or_default();
        }
    }

    fn connect(&mut self, at: usize) {
        self.connects += 1;
        match Connection::connect(self.plan.target, self.connects, self.poll.registry(), Token(at)) {
            Ok(connection) => {
                self.slots[at] = Slot { connection: Some(connection), state: State::Connecting };
            }
            Err(_) => {
                self.outcome.not_connected += 1;
                self.rest(at);
            }
        }
    }

    /// Reconnects those that have rested, and gives up on answers that take too long.
    fn look_after(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            match self.slots[at].state {
                State::Resting(until) if until <= now && self.sending => self.connect(at),
                State::Waiting { since, .. } if now.saturating_duration_since(since) > ANSWER_WAIT => {
                    self.outcome.timed_out += 1;
                    self.rest(at);
                }
                _ => {}
            }
        }
    }
}
