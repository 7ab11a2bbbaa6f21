//! Keeps the image cache in step with PostgreSQL, and loads the images that it requests.
//!
//! Guarantees: a change takes effect within about a second ([`crate::db::follow`]); the full list finds rows that
//! vanished. While the database is down, cached images are served as before. Gives up: a change whose transaction was
//! open for longer than [`OVERLAP`] and whose notification was lost takes effect with the next full list.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::known;
use crate::db::follow::{Table, follow};
use crate::db::images::{self as queries, ImageState};
use crate::db::{Database, DbError};
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::ImageId;
use pixeld_edge::images::cache::Wanted;
use pixeld_edge::images::{Fetched, Image, ImageCache, Knowledge};

/// How far before the latest known change each heartbeat reads: transactions commit later than they begin.
const OVERLAP: Duration = Duration::from_secs(5);

/// Loads that run at once.
const LOADS_MAX: usize = 4;

/// What the sync works on.
#[derive(Clone)]
struct Sync {
    cache: Arc<ImageCache>,
    db: Database,
    known_path: PathBuf,
    keeping: Arc<Keeping>,
}

/// The table of images, as far as it was read.
struct Images {
    sync: Sync,
    /// The latest version read.
    latest: Micros,
}

/// Fills the cache with the ids on disk. Call once, before the first request.
pub(crate) fn recall(cache: &ImageCache, known_path: &std::path::Path) {
    // Until the sync has connected, do not assume that the database is down.
    cache.note_database(true);
    let Some(ids) = known::read(known_path) else { return };
    for (id, knowledge) in ids {
        // No version is older, so that everything PostgreSQL returns is newer.
        match knowledge {
            Knowledge::There => drop(cache.note_known(id, Micros::MIN)),
            Knowledge::Deleted => drop(cache.note_deleted(id, Micros::MIN)),
            Knowledge::Lost => cache.note_lost(id),
        }
    }
    cache.note_list();
}

/// Runs forever: serves only "not now" until `ready`, then keeps in step.
pub(crate) async fn run(
    cache: Arc<ImageCache>,
    wanted: &mut mpsc::Receiver<Wanted>,
    db: Database,
    known_path: PathBuf,
    ready: impl Future<Output = ()>,
) {
    let sync = Sync { cache, db, known_path, keeping: Arc::default() };
    ready.await;
    let mut images = Images { sync: sync.clone(), latest: Micros::default() };
    let loads = async {
        let mut running = JoinSet::new();
        while let Some(want) = wanted.recv().await {
            while running.len() >= LOADS_MAX {
                running.join_next().await;
            }
            running.spawn(load(sync.clone(), want));
        }
    };
    tokio::join!(loads, follow(&sync.db, &mut images));
}

/// A change that seems to come from the future (a clock was set) must not hide those that come before it.
fn version_till_now(state: &ImageState) -> Micros {
    state.version.min(pixeld_core::clock::now_micros())
}

/// Loads one image into the cache.
async fn load(sync: Sync, want: Wanted) {
    let fetched = match queries::load(&sync.db, want.id).await {
        Ok(Some(found)) if found.state.is_deleted => {
            sync.keep(sync.cache.note_deleted(want.id, found.state.version));
            Fetched::Deleted
        }
        Ok(Some(found)) => {
            let image = Arc::new(Image::new(Bytes::from(found.bytes), &found.media_type));
            // Its notification is not new after this.
            sync.keep(sync.cache.put(want.id, found.state.version, Arc::clone(&image)));
            Fetched::Cached(image)
        }
        Ok(None) => {
            sync.keep(sync.cache.note_missing(want.id));
            Fetched::Unknown
        }
        Err(error) => {
            tracing::warn!(error = error.for_log(), "an image cannot be loaded now; pixeld tries again");
            Fetched::TimedOut
        }
    };
    want.answer(fetched);
}

impl Table for Images {
    const APPLICATION_NAME: &'static str = "pixeld-images";
    const CHANNEL: &'static str = queries::CHANNEL;
    const HEARTBEAT: &'static str = "the heartbeat of images";

    async fn list(&mut self, client: &Client) -> Result<(), DbError> {
        let states = queries::all_states(client).await?;
        let cache = &self.sync.cache;
        let mut news = !cache.has_list();
        let listed: HashSet<ImageId> = states.iter().map(|state| state.id).collect();
        for (id, _) in cache.ids() {
            if !listed.contains(&id) {
                news |= cache.note_missing(id);
            }
        }
        for state in &states {
            news |= self.sync.note(state);
        }
        cache.note_list();
        self.sync.keep(news);
        cache.note_database(false);
        self.latest = states.iter().map(version_till_now).max().unwrap_or_default();
        Ok(())
    }

    async fn look(&mut self, client: &Client) -> Result<(), DbError> {
        let changed = queries::states_since(client, self.latest - OVERLAP).await?;
        let news = changed.iter().filter(|state| self.sync.note(state)).count();
        self.latest = changed.iter().map(version_till_now).fold(self.latest, Micros::max);
        self.sync.keep(news > 0);
        Ok(())
    }

    async fn read_announced(&mut self, client: &Client, notices: &[String]) -> Result<(), DbError> {
        for id in notices.iter().filter_map(|notice| notice.parse::<ImageId>().ok()) {
            match queries::state_of(client, id).await? {
                Some(state) => self.sync.keep(self.sync.note(&state)),
                None => self.sync.keep(self.sync.cache.note_missing(id)),
            }
        }
        Ok(())
    }

    fn lost(&mut self, error: &DbError, is_first: bool) {
        self.sync.cache.note_database(true);
        if is_first {
            tracing::warn!(error = error.for_log(), "changes of images cannot be followed now; pixeld tries again");
        }
    }
}

impl Sync {
    fn note(&self, state: &ImageState) -> bool {
        if state.is_deleted {
            self.cache.note_deleted(state.id, state.version)
        } else {
            self.cache.note_known(state.id, state.version)
        }
    }

    /// Has the ids written to disk, if they changed: at once, even if this node is about to end, and on a separate
    /// thread, since a disk that stalls must delay neither the changes of images nor anything else that runs here.
    fn keep(&self, news: bool) {
        if !news || self.keeping.is_waiting.swap(true, Ordering::AcqRel) {
            // A task that waits to write will include this change.
            return;
        }
        let sync = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = sync.keeping.turn.lock().unwrap_or_else(PoisonError::into_inner);
            sync.keeping.is_waiting.store(false, Ordering::Release);
            if let Err(error) = known::write(&sync.known_path, &sync.cache.ids()) {
                tracing::warn!(%error, "the list of images could not be saved to disk");
            }
        });
    }
}

/// Writes the list of images: one writer at a time, and at most one more waits.
#[derive(Default)]
struct Keeping {
    turn: Mutex<()>,
    is_waiting: AtomicBool,
}
