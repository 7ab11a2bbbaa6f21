//! A clean exit: everybody is asked to drain, and is given a deadline.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What those who drain are told: nothing yet, or the instant by which they must be done.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Option<Instant>>);

/// Asks for the drain.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<Option<Instant>>);

/// A trigger and what it triggers.
#[must_use]
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(None);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Asks everybody to finish what they accepted within `time`. A second call only moves the deadline.
    pub fn ask(&self, time: Duration) {
        self.0.send_replace(Some(Instant::now() + time));
    }
}

impl Drain {
    /// Whether the drain is asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the drain is asked for. A trigger that is gone counts as asking.
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
