//! An image whose bytes a request waits for; the loader reports the result.
//!
//! Guarantees: an image is loaded once, however many requests wait for it. However the load ends, the next request may
//! start another.

use std::sync::Arc;

use tokio::sync::watch;

use super::ImageCache;
use crate::images::Image;
use pixeld_core::ids::ImageId;

/// The result of fetching an image.
#[derive(Debug, Clone)]
pub enum Fetched {
    /// Here it is.
    Cached(Arc<Image>),
    /// It was deleted.
    Deleted,
    /// There is no such image.
    Unknown,
    /// It was not loaded in time.
    TimedOut,
}

/// A requested image, and the way to report the result.
#[derive(Debug)]
pub struct Wanted {
    /// The image.
    pub id: ImageId,
    pub(super) answer: watch::Sender<Option<Fetched>>,
    pub(super) cache: Arc<ImageCache>,
}

impl Wanted {
    /// Reports the result to all that wait.
    pub fn answer(self, fetched: Fetched) {
        self.answer.send_replace(Some(fetched));
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // However the load ended, the next request may start another.
        self.cache.loading.remove(&self.id);
    }
}
