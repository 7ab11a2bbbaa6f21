//! Pauses between failing attempts: each is twice the one before, up to a longest one.
//!
//! Guarantees: [`Backoff::is_failing`] tells the first failure from later ones, so that an outage is logged once. Pure:
//! the caller waits. Gives up: random jitter. Nodes that lost a database at the same moment also return at the same
//! moment; each has only a few connections to open.

use std::time::Duration;

/// The pauses of one kind of attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
}

impl Backoff {
    /// No attempt has failed yet.
    pub(crate) const fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, last: Duration::ZERO }
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        !self.last.is_zero()
    }

    /// An attempt failed: the pause before the next one.
    pub(crate) fn fail(&mut self) -> Duration {
        self.last = (self.last * 2).clamp(self.shortest, self.longest);
        self.last
    }

    /// A task that should have gone on ended after it ran for `ran`: the pause before its restart. It succeeded if it
    /// ran for longer than the longest pause.
    pub(crate) fn end(&mut self, ran: Duration) -> Duration {
        if ran > self.longest {
            self.succeed();
        }
        self.fail()
    }

    /// An attempt succeeded.
    pub(crate) fn succeed(&mut self) {
        self.last = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_until_an_attempt_succeeds() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(500));
        for pauses in 0..2 {
            assert!(!backoff.is_failing(), "{pauses}");
            assert_eq!([1, 2, 3, 4, 5].map(|_| backoff.fail()), [100, 200, 400, 500, 500].map(ms));
            assert!(backoff.is_failing());
            backoff.succeed();
        }
    }

    #[test]
    fn pauses_begin_again_after_a_run_that_outlasts_the_longest() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60));
        let ends = [1; 9].map(|ran| backoff.end(seconds(ran)).as_secs());
        assert_eq!(ends, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.end(seconds(60)), seconds(60));
        assert_eq!(backoff.end(seconds(61)), seconds(1));
    }
}
