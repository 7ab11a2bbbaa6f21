//! A gate that lets a limited number through at a time.
//!
//! Guarantees: at most as many places are taken as the gate has; dropping a place frees it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out places. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

/// A place that is taken.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate with `places` free places.
    pub(crate) fn new(places: usize) -> Gate {
        Gate(Arc::new(Semaphore::new(places)))
    }

    /// A place; `None` if all are taken, or the gate is closed.
    #[must_use]
    pub(crate) fn enter(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// A place, as soon as one is free; `None` if the gate is closed.
    pub(crate) async fn wait(&self) -> Option<Place> {
        Arc::clone(&self.0).acquire_owned().await.ok().map(|permit| Place { _permit: permit })
    }

    /// Lets no one through any more.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_enter_as_there_are_places_and_none_after_the_close() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none(), "both are taken");
        let (entered, ()) = tokio::join!(gate.wait(), async { drop(first) });
        assert!(entered.is_some());
        gate.close();
        drop(second);
        assert!(gate.is_closed() && gate.enter().is_none() && gate.wait().await.is_none());
    }
}
