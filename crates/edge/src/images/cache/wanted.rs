//! An image whose bytes a request waits for: who loads it says what came of it.
//!
//! Guarantees: an image is loaded once, however many requests wait for it; whatever becomes of the load, the next request may begin another.

use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::ImageCache;
use crate::images::Image;

/// What came of fetching an image.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// Here it is.
    Cached(Arc<Image>),
    /// It was deleted.
    Deleted,
    /// There is no such image.
    Unknown,
    /// Nobody could say in time.
    TimedOut,
}

/// An image that is wanted, and where to say what came of it.
#[derive(Debug)]
pub struct Wanted {
    /// The image.
    pub id: Uuid,
    pub(super) answer: watch::Sender<Option<Fetched>>,
    pub(super) cache: Arc<ImageCache>,
}

impl Wanted {
    /// Says what came of it, to all who wait.
    pub fn answer(self, fetched: Fetched) {
        self.answer.send_replace(Some(fetched));
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // Whatever became of the load, the next request may begin another.
        self.cache.loading.remove(&self.id);
    }
}
