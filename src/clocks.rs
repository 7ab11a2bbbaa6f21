//! Checks whether the clocks can be trusted, before anything is deleted or dropped because of its age.
//!
//! Guarantees: while this machine's clock and the database's are more than [`APART_MAX`] apart, or either has jumped by
//! more since they were first compared, nothing is deleted or expired because of its age. Gives up: clocks that were
//! wrong in the same way before the first comparison; nothing here could notice.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use pixeld_core::clock::micros::Micros;
use pixeld_core::clock::now_micros;
use pixeld_core::metrics::Metrics;

/// How far apart clocks may be. A wrong time zone or a clock without NTP stays below; retention counts days.
pub(crate) const APART_MAX: Duration = Duration::from_secs(86_400);

/// Three clocks, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// This machine's.
    pub node: Micros,
    /// The database's.
    pub database: Micros,
    /// µs since this machine was started, including sleep; it cannot jump.
    pub up_us: i64,
}

impl Reading {
    /// The clocks now; `database` was read a moment ago.
    pub fn now(database: Micros) -> Reading {
        let up = clock_gettime(ClockId::Boottime);
        let up_us = up.tv_sec.saturating_mul(1_000_000).saturating_add(up.tv_nsec / 1000);
        Reading { node: now_micros(), database, up_us }
    }

    /// How far this machine's clock is ahead of the database's, in s.
    pub fn ahead_s(&self) -> i64 {
        self.node.us_after(self.database) / 1_000_000
    }
}

/// Why nothing may be deleted because of its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Disbelief {
    /// The two clocks disagree.
    #[error(
        "this machine's clock is {0} s ahead of the database's (negative: behind it), more than a day; nothing is \
         deleted or expired for its age until they agree"
    )]
    Apart(i64),
    /// A clock moved by a different time than has passed.
    #[error(
        "the clocks jumped by {0} s while pixeld ran, more than a day; nothing is deleted or expired for its age until they are back. \
         If they are right now, restart pixeld"
    )]
    Jumped(i64),
}

/// Compares readings with each other and with the first one. One for the whole process.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    first: Option<Reading>,
    disbelief: Option<Disbelief>,
}

impl Clocks {
    /// Takes a reading; returns whether the clocks can be trusted. A change is logged once.
    pub fn believes(&self, reading: Reading, metrics: &Metrics) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let disbelief = state.judge(reading).err();
        match (state.disbelief.is_some(), &disbelief) {
            (false, Some(why)) => tracing::error!("{why}"),
            (true, None) => tracing::info!("the clocks agree again; what is old is deleted again"),
            _ => {}
        }
        state.disbelief = disbelief;
        metrics.clock_ahead_s.set(reading.ahead_s());
        metrics.clocks_disbelieved.set(i64::from(disbelief.is_some()));
        disbelief.is_none()
    }
}

impl State {
    fn judge(&mut self, reading: Reading) -> Result<(), Disbelief> {
        let is_far = |s: i64| s.unsigned_abs() > APART_MAX.as_secs();
        if is_far(reading.ahead_s()) {
            return Err(Disbelief::Apart(reading.ahead_s()));
        }
        let first = *self.first.get_or_insert(reading);
        let passed_us = reading.up_us.saturating_sub(first.up_us);
        for (then, now) in [(first.node, reading.node), (first.database, reading.database)] {
            let jumped_s = now.us_after(then).saturating_sub(passed_us) / 1_000_000;
            if is_far(jumped_s) {
                return Err(Disbelief::Jumped(jumped_s));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;
    const AT: Micros = Micros(20_000 * DAY_US);
    const NOON: Reading = Reading { node: AT, database: AT, up_us: 5 };

    fn moved(at: Micros, us: i64) -> Micros {
        Micros(at.0 + us)
    }

    #[test]
    fn clocks_that_agree_within_a_day_are_believed_however_long_it_runs() {
        let (clocks, metrics) = (Clocks::default(), Metrics::new(0));
        for days in [0, 1, 400] {
            let passed_us = days * DAY_US;
            let reading = Reading {
                node: moved(AT, passed_us + DAY_US / 2),
                database: moved(AT, passed_us),
                up_us: NOON.up_us + passed_us,
            };
            assert!(clocks.believes(reading, &metrics), "{days}");
        }
    }

    #[test]
    fn either_clock_more_than_a_day_off_is_not_believed_until_it_is_back() {
        for off_us in [400 * DAY_US, -400 * DAY_US, DAY_US + 1_000_000, -DAY_US - 1_000_000] {
            for reading in
                [Reading { node: moved(AT, off_us), ..NOON }, Reading { database: moved(AT, off_us), ..NOON }]
            {
                let (clocks, metrics) = (Clocks::default(), Metrics::new(0));
                assert!(!clocks.believes(reading, &metrics));
                assert!(
                    clocks.believes(NOON, &metrics)
                        && !clocks.believes(reading, &metrics)
                        && clocks.believes(NOON, &metrics)
                );
            }
        }
    }

    #[test]
    fn clocks_that_jump_together_are_not_trusted() {
        let jumped = |us| Reading { node: moved(AT, us), database: moved(AT, us), up_us: NOON.up_us + 7 };
        let (clocks, metrics) = (Clocks::default(), Metrics::new(0));
        assert!(!clocks.believes(Reading { node: Micros(0), ..NOON }, &metrics));
        assert!(clocks.believes(NOON, &metrics));
        assert!(!clocks.believes(jumped(400 * DAY_US), &metrics));
        assert_eq!((metrics.clock_ahead_s.get(), metrics.clocks_disbelieved.get()), (0, 1));
        assert!(!clocks.believes(jumped(-400 * DAY_US), &metrics));
        assert!(clocks.believes(jumped(3_600_000_000), &metrics));
    }
}
