//! A clean exit: all tasks are asked to drain, with a deadline.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The drain's state for tasks: not requested yet, or the instant by which they must be done.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Option<Instant>>);

/// Requests the drain.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<Option<Instant>>);

/// A trigger and its drain.
#[must_use]
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(None);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Asks all tasks to finish what they accepted within `time`. A second call only moves the deadline.
    pub fn ask(&self, time: Duration) {
        self.0.send_replace(Some(Instant::now() + time));
    }
}

impl Drain {
    /// Whether the drain was requested.
    pub fn is_asked(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the drain is requested. A dropped trigger counts as a request.
    pub async fn asked(&mut self) {
        drop(self.0.wait_for(Option::is_some).await);
    }

    /// Waits until the deadline has passed.
    pub async fn deadline(&mut self) {
        loop {
            self.asked().await;
            let until = *self.0.borrow();
            let Some(until) = until else { return };
            tokio::time::sleep_until(until).await;
            if self.0.borrow().is_none_or(|deadline| deadline <= Instant::now()) {
                return;
            }
        }
    }
}
