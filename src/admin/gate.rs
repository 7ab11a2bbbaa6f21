//! A gate that lets only some through at a time.
//!
//! Guarantees: at most as many places are held as the gate has; a place is free again when it is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out places. Clones share them.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

/// A place that is held.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate with this many places, all of them free.
    #[must_use]
    pub fn new(places: usize) -> Gate {
        Gate(Arc::new(Semaphore::new(places)))
    }

    /// A place; nothing if all are taken, or the gate is closed.
    #[must_use]
    pub fn enter(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// The same, once one is free.
    pub async fn wait(&self) -> Option<Place> {
        Arc::clone(&self.0).acquire_owned().await.ok().map(|permit| Place { _permit: permit })
    }

    /// Lets nobody through any more.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_enter_as_there_are_places_and_nobody_once_it_is_closed() {
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
