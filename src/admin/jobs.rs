//! Work that goes on after its page was answered.
//!
//! Guarantees: a bounded number of jobs of a kind at a time. The drain ends all of them at once, between two steps or
//! with one rolled back, and none starts after it; nothing waits for them. Gives up: going on after a restart. Each
//! kind says what becomes of its work then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::gate::{Gate, Place};

/// Jobs of one kind, of this process.
pub(crate) struct Jobs {
    gate: Gate,
    running: Mutex<Vec<(i64, AbortHandle)>>,
}

impl Jobs {
    /// No job runs yet; at most `max` run at a time.
    pub(crate) fn new(max: usize) -> Jobs {
        Jobs { gate: Gate::new(max), running: Mutex::default() }
    }

    /// A place, to be taken before the job is recorded, so that a recorded job never waits; `None` if all are taken, or
    /// this process ends.
    #[must_use]
    pub(crate) fn place(&self) -> Option<Place> {
        self.gate.enter()
    }

    /// Starts the job with this number.
    pub(crate) fn start(&self, place: Place, job: i64, work: impl Future<Output = ()> + Send + 'static) {
        #[expect(
            clippy::disallowed_methods,
            reason = "a job outlives the request that began it; the drain ends all of them"
        )]
        let task = tokio::spawn(async move {
            work.await;
            drop(place);
        });
        let task = task.abort_handle();
        let mut running = self.lock();
        // The drain may have happened in between; it closed the gate.
        if self.gate.is_closed() {
            task.abort();
        }
        running.retain(|(_, task)| !task.is_finished());
        running.push((job, task));
    }

    /// Whether the job with this number runs here.
    pub(crate) fn is_running(&self, job: i64) -> bool {
        self.lock().iter().any(|(known, task)| *known == job && !task.is_finished())
    }

    /// Ends those that run, and starts no new ones. Returns the numbers of the interrupted ones.
    pub(crate) fn end(&self) -> Vec<i64> {
        self.gate.close();
        let mut running = self.lock();
        running.retain(|(_, task)| !task.is_finished());
        running
            .drain(..)
            .map(|(job, task)| {
                task.abort();
                job
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(i64, AbortHandle)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bounded_number_runs_and_none_after_the_end() {
        let jobs = Jobs::new(2);
        let (first, second) = (jobs.place().unwrap(), jobs.place().unwrap());
        assert!(jobs.place().is_none(), "both are taken");
        jobs.start(first, 1, async {});
        while jobs.is_running(1) {
            tokio::task::yield_now().await;
        }
        let third = jobs.place().unwrap();
        jobs.start(second, 2, std::future::pending());
        assert!(jobs.is_running(2) && !jobs.is_running(3));
        assert_eq!(jobs.end(), [2]);
        assert!(jobs.place().is_none());
        // One that had its place before the end.
        jobs.start(third, 3, std::future::pending());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!jobs.is_running(2) && !jobs.is_running(3));
        assert_eq!(jobs.end(), [0; 0]);
    }
}
