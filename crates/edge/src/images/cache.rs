//! The image cache: what the edge knows about images.
//!
//! Guarantees: whether an image exists is known without a query, even while the database is down. An image's bytes are
//! loaded once, however many requests wait for them, and no request waits longer than [`IMAGE_LOAD_WAIT`]. Cached bytes
//! stay within a bound; the least recently used go first. Gives up: an image added within the last moment may need a
//! look-up, and there are at most [`UNKNOWN_LOOKUPS_PER_SECOND`] of them.

mod wanted;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{mpsc, watch};

pub use self::wanted::{Fetched, Wanted};
use super::Image;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::ImageId;

/// The longest time that a request waits for an image that is not cached.
pub const IMAGE_LOAD_WAIT: Duration = Duration::from_millis(500);

/// Look-ups a second for ids that are not in the list: the image may have been added this second.
pub const UNKNOWN_LOOKUPS_PER_SECOND: u32 = 20;

/// Maximum lost images that are remembered; a further one counts as never known.
const LOST_MAX: usize = 100_000;

/// Loads that may wait to start; beyond that a request is answered with the GIF at once.
const WANTED_MAX: usize = 256;

/// Which images exist, and the bytes of those that were requested.
#[derive(Debug)]
pub struct ImageCache {
    slots: DashMap<ImageId, Slot, RandomState>,
    loading: DashMap<ImageId, watch::Receiver<Option<Fetched>>>,
    wanted: mpsc::Sender<Wanted>,
    unknown: DefaultDirectRateLimiter,
    has_list: AtomicBool,
    is_down: AtomicBool,
    bytes: AtomicUsize,
    bytes_max: usize,
    lost: AtomicUsize,
    /// Seconds since the start, counted by [`ImageCache::tick`]: which image was used last need not be exact, so no
    /// request has to read a clock.
    second: AtomicU32,
}

/// When an image's row last changed, by PostgreSQL's clock.
pub type Version = Micros;

#[derive(Debug)]
struct Slot {
    version: Version,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    Nothing,
    Image { image: Arc<Image>, used: AtomicU32 },
    Deleted,
    Lost,
}

/// What a node knows about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// The database has it.
    There,
    /// Somebody deleted it.
    Deleted,
    /// The database had it and no longer has it, though nobody deleted it: the database was restored to an earlier
    /// state, or is another one.
    Lost,
}

/// What is known about an image without a query.
#[derive(Debug)]
pub enum Lookup {
    /// Here it is.
    Cached(Arc<Image>),
    /// It exists; its bytes must be fetched.
    NotCached,
    /// It was deleted.
    Deleted,
    /// It was in the list and no longer is, though nobody deleted it.
    Lost,
    /// It is not in the list.
    Unknown,
    /// It is not known, and no list was ever read.
    NoList,
}

impl ImageCache {
    /// A cache of at most `bytes_max` bytes of images, and the receiver of the images that it requests.
    pub fn new(bytes_max: usize) -> (Arc<ImageCache>, mpsc::Receiver<Wanted>) {
        let (wanted, receiver) = mpsc::channel(WANTED_MAX);
        let quota = Quota::per_second(NonZeroU32::new(UNKNOWN_LOOKUPS_PER_SECOND).unwrap_or(NonZeroU32::MIN));
        let cache = ImageCache {
            slots: DashMap::with_hasher(RandomState::default()),
            loading: DashMap::new(),
            wanted,
            unknown: RateLimiter::direct(quota),
            has_list: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            bytes_max,
            lost: AtomicUsize::new(0),
            second: AtomicU32::new(0),
        };
        (Arc::new(cache), receiver)
    }

    /// What is known about an image without a query.
    pub fn lookup(&self, id: ImageId) -> Lookup {
        match self.slots.get(&id).as_deref().map(|slot| &slot.holds) {
            Some(Holds::Image { image, used }) => {
                let second = self.second();
                // Written only if it changes: all cores share the cache line.
                if used.load(Ordering::Relaxed) != second {
                    used.store(second, Ordering::Relaxed);
                }
                Lookup::Cached(Arc::clone(image))
            }
            Some(Holds::Nothing) => Lookup::NotCached,
            Some(Holds::Deleted) => Lookup::Deleted,
            Some(Holds::Lost) => Lookup::Lost,
            None if self.has_list.load(Ordering::Relaxed) => Lookup::Unknown,
            None => Lookup::NoList,
        }
    }

    /// Fetches an image, together with all requests that wait for it now. May be called from any thread and runtime.
    pub async fn fetch(self: &Arc<ImageCache>, id: ImageId) -> Fetched {
        match self.lookup(id) {
            Lookup::Cached(image) => return Fetched::Cached(image),
            Lookup::Deleted => return Fetched::Deleted,
            // The database is known to be down: waiting for it would only slow the image.
            _ if self.is_down.load(Ordering::Relaxed) => return self.without_database(id),
            lookup @ (Lookup::Unknown | Lookup::Lost) if self.unknown.check().is_err() => {
                return if matches!(lookup, Lookup::Lost) { Fetched::TimedOut } else { Fetched::Unknown };
            }
            Lookup::Unknown | Lookup::Lost | Lookup::NotCached | Lookup::NoList => {}
        }
        let Some(mut answer) = self.want(id) else { return self.without_database(id) };
        let answered = tokio::time::timeout(IMAGE_LOAD_WAIT, answer.wait_for(Option::is_some)).await;
        match answered {
            // Its readers are recorded: their hits wait until the image exists again.
            Ok(Ok(fetched)) if matches!(*fetched, Some(Fetched::Unknown)) && self.knows(id) => Fetched::TimedOut,
            Ok(Ok(fetched)) => fetched.clone().unwrap_or(Fetched::TimedOut),
            _ => self.without_database(id),
        }
    }

    /// The answer for an image that is not cached, without the database.
    fn without_database(&self, id: ImageId) -> Fetched {
        match self.lookup(id) {
            Lookup::Unknown => Fetched::Unknown,
            _ => Fetched::TimedOut,
        }
    }

    /// Joins the load of an image, or starts it. `None` if too many are waiting.
    fn want(self: &Arc<ImageCache>, id: ImageId) -> Option<watch::Receiver<Option<Fetched>>> {
        let (sender, receiver) = watch::channel(None);
        match self.loading.entry(id) {
            Entry::Occupied(there) => return Some(there.get().clone()),
            Entry::Vacant(free) => drop(free.insert(receiver.clone())),
        }
        // Sent without holding a lock: if it is refused, dropping it removes the entry.
        self.wanted.try_send(Wanted { id, answer: sender, cache: Arc::clone(self) }).ok().map(|()| receiver)
    }

    /// Puts an image into the cache, and makes room for it. Does nothing if the image was read before a change that is
    /// already noted. Returns whether it is news that this image exists.
    pub fn put(&self, id: ImageId, version: Version, image: Arc<Image>) -> bool {
        let memory = image.memory();
        if memory > self.bytes_max || self.slots.get(&id).is_some_and(|slot| slot.version > version) {
            return false;
        }
        let is_news = self.slots.get(&id).is_none_or(|slot| matches!(slot.holds, Holds::Deleted | Holds::Lost));
        self.bytes.fetch_add(memory, Ordering::Relaxed);
        self.set(id, Slot { version, holds: Holds::Image { image, used: AtomicU32::new(self.second()) } });
        if self.bytes() > self.bytes_max {
            self.evict();
        }
        is_news
    }

    /// Notes that an image exists in this version. Cached bytes of another version are dropped. Returns whether it is
    /// news.
    pub fn note_known(&self, id: ImageId, version: Version) -> bool {
        let is_old = |slot: &Slot| slot.version == version && !matches!(slot.holds, Holds::Deleted | Holds::Lost);
        let is_news = !self.slots.get(&id).is_some_and(|slot| is_old(&slot));
        if is_news {
            self.set(id, Slot { version, holds: Holds::Nothing });
        }
        is_news
    }

    /// Notes that an image was deleted. Returns whether it is news.
    pub fn note_deleted(&self, id: ImageId, version: Version) -> bool {
        let is_news = !self.slots.get(&id).is_some_and(|slot| matches!(slot.holds, Holds::Deleted));
        self.set(id, Slot { version, holds: Holds::Deleted });
        is_news
    }

    /// Notes that there is no such row. An image that this node knew is then lost. Returns whether it is news.
    pub fn note_missing(&self, id: ImageId) -> bool {
        let is_news = self.slots.get(&id).is_some_and(|slot| !matches!(slot.holds, Holds::Lost));
        if is_news {
            self.note_lost(id);
        }
        is_news
    }

    /// Notes that an image which this node knew is no longer in the database.
    pub fn note_lost(&self, id: ImageId) {
        if self.lost.load(Ordering::Relaxed) < LOST_MAX {
            // No version is older, so that everything PostgreSQL says about it later is newer.
            self.set(id, Slot { version: Version::MIN, holds: Holds::Lost });
        } else if let Some((_, old)) = self.slots.remove(&id) {
            self.give_back(&old);
        }
    }

    /// Whether this node knows the image, even if it was deleted or lost.
    pub fn knows(&self, id: ImageId) -> bool {
        self.slots.contains_key(&id)
    }

    fn set(&self, id: ImageId, slot: Slot) {
        if matches!(slot.holds, Holds::Lost) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(old) = self.slots.insert(id, slot) {
            self.give_back(&old);
        }
    }

    fn give_back(&self, slot: &Slot) {
        match &slot.holds {
            Holds::Image { image, .. } => self.bytes.fetch_sub(image.memory(), Ordering::Relaxed),
            Holds::Lost => self.lost.fetch_sub(1, Ordering::Relaxed),
            Holds::Nothing | Holds::Deleted => 0,
        };
    }

    /// Drops the least recently used ones until a tenth of the bound is free, so that this does not run for each image.
    fn evict(&self) {
        let mut cached: Vec<(u32, ImageId, Version)> = self
            .slots
            .iter()
            .filter_map(|slot| match &slot.holds {
                Holds::Image { used, .. } => Some((used.load(Ordering::Relaxed), *slot.key(), slot.version)),
                _ => None,
            })
            .collect();
        cached.sort_unstable();
        for (_, id, version) in cached {
            if self.bytes() <= self.bytes_max / 10 * 9 {
                break;
            }
            self.set(id, Slot { version, holds: Holds::Nothing });
        }
    }

    /// Notes that the list of all images was read: an image that is not in it does not exist.
    pub fn note_list(&self) {
        self.has_list.store(true, Ordering::Relaxed);
    }

    /// Whether the list of all images was ever read.
    pub fn has_list(&self) -> bool {
        self.has_list.load(Ordering::Relaxed)
    }

    /// Notes whether the database is down.
    pub fn note_database(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// All ids, with what is known about each.
    pub fn ids(&self) -> Vec<(ImageId, Knowledge)> {
        let knowledge = |slot: &Slot| match slot.holds {
            Holds::Nothing | Holds::Image { .. } => Knowledge::There,
            Holds::Deleted => Knowledge::Deleted,
            Holds::Lost => Knowledge::Lost,
        };
        self.slots.iter().map(|slot| (*slot.key(), knowledge(&slot))).collect()
    }

    /// Bytes of cached images.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A second has passed.
    pub fn tick(&self) {
        self.second.fetch_add(1, Ordering::Relaxed);
    }

    fn second(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start what is on the other side")]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn image(bytes: usize) -> Arc<Image> {
        Arc::new(Image::new(Bytes::from(vec![0; bytes]), "image/gif"))
    }

    #[tokio::test]
    async fn a_thousand_requests_for_one_image_are_one_load() {
        let (cache, mut wanted) = ImageCache::new(1 << 20);
        let id = ImageId::from_u128(1);
        cache.note_known(id, Micros(1));
        let requests: Vec<_> = (0..1000)
            .map(|_| {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move { cache.fetch(id).await })
            })
            .collect();
        let load = wanted.recv().await.unwrap();
        tokio::task::yield_now().await;
        cache.put(id, Micros(1), image(10));
        load.answer(Fetched::Cached(image(10)));
        for request in requests {
            assert!(matches!(request.await.unwrap(), Fetched::Cached(_)));
        }
        assert!(wanted.try_recv().is_err() && cache.loading.is_empty());
    }

    #[tokio::test]
    async fn a_load_that_is_given_up_leaves_nothing_stuck() {
        let (cache, mut wanted) = ImageCache::new(1 << 20);
        let id = ImageId::from_u128(1);
        let (fetched, ()) = tokio::join!(cache.fetch(id), async { drop(wanted.recv().await) });
        assert!(matches!(fetched, Fetched::TimedOut));
        assert!(cache.loading.is_empty());
        let (fetched, ()) = tokio::join!(cache.fetch(id), async {
            wanted.recv().await.unwrap().answer(Fetched::Unknown);
        });
        assert!(matches!(fetched, Fetched::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound() {
        let (cache, _wanted) = ImageCache::new(1 << 20);
        let before = tokio::time::Instant::now();
        assert!(matches!(cache.fetch(ImageId::from_u128(1)).await, Fetched::TimedOut));
        assert_eq!(before.elapsed(), IMAGE_LOAD_WAIT);
        cache.note_database(true);
        assert!(matches!(cache.fetch(ImageId::from_u128(2)).await, Fetched::TimedOut));
        assert_eq!(before.elapsed(), IMAGE_LOAD_WAIT, "a database that is down is not waited for");
    }

    #[tokio::test]
    async fn unknown_ids_cost_a_bounded_number_of_lookups() {
        let (cache, mut wanted) = ImageCache::new(1 << 20);
        cache.note_list();
        let counting = tokio::spawn(async move {
            let mut loads = 0;
            while let Some(load) = wanted.recv().await {
                loads += 1;
                load.answer(Fetched::Unknown);
            }
            loads
        });
        for id in 1..=1000 {
            assert!(matches!(cache.fetch(ImageId::from_u128(id)).await, Fetched::Unknown));
        }
        drop(cache);
        let loads: u32 = counting.await.unwrap();
        assert!((1..=2 * UNKNOWN_LOOKUPS_PER_SECOND).contains(&loads), "{loads}");
    }

    #[test]
    fn bytes_that_were_read_before_a_change_are_not_taken() {
        let (cache, _wanted) = ImageCache::new(1 << 20);
        let id = ImageId::from_u128(1);
        assert!(cache.note_known(id, Micros(1)) && !cache.note_known(id, Micros(1)));
        cache.put(id, Micros(1), image(10));
        assert!(!cache.note_known(id, Micros(1)), "the same version again is no news");
        assert!(matches!(cache.lookup(id), Lookup::Cached(_)));
        assert!(cache.note_known(id, Micros(2)));
        cache.put(id, Micros(1), image(10));
        assert!(matches!(cache.lookup(id), Lookup::NotCached));
        cache.put(id, Micros(2), image(10));
        assert!(cache.note_deleted(id, Micros(3)) && matches!(cache.lookup(id), Lookup::Deleted));
        cache.put(id, Micros(2), image(10));
        assert!(matches!(cache.lookup(id), Lookup::Deleted));
    }

    #[test]
    fn cached_bytes_stay_under_the_bound_and_are_counted_exactly() {
        let one = image(10_000).memory();
        let (cache, _wanted) = ImageCache::new(10 * one);
        for id in 1..=100 {
            cache.put(ImageId::from_u128(id), Micros(1), image(10_000));
            assert!(cache.bytes() <= 10 * one);
        }
        assert!(cache.ids().len() == 100, "what is let go is still known");
        cache.put(ImageId::from_u128(100), Micros(1), image(10_000));
        (1..=100).for_each(|id| assert!(cache.note_missing(ImageId::from_u128(id))));
        assert_eq!(cache.bytes(), 0);
    }

    #[tokio::test]
    async fn an_image_that_the_database_lost_is_still_recorded_and_one_that_it_never_had_is_not() {
        let (cache, mut wanted) = ImageCache::new(1 << 20);
        cache.note_list();
        let [lost, never] = [1, 2].map(ImageId::from_u128);
        cache.note_known(lost, Micros(7));
        assert!(cache.note_missing(lost) && !cache.note_missing(lost) && !cache.note_missing(never));
        tokio::spawn(async move {
            while let Some(load) = wanted.recv().await {
                load.answer(Fetched::Unknown);
            }
        });
        for _ in 0..2 * UNKNOWN_LOOKUPS_PER_SECOND {
            assert!(matches!(cache.fetch(lost).await, Fetched::TimedOut));
            assert!(matches!(cache.fetch(never).await, Fetched::Unknown));
        }
        assert_eq!(cache.ids(), [(lost, Knowledge::Lost)]);
        assert!(cache.knows(lost) && !cache.knows(never));
        assert!(cache.note_known(lost, Micros(7)), "that it is there again is news");
        assert_eq!((cache.ids(), cache.lost.load(Ordering::Relaxed)), (vec![(lost, Knowledge::There)], 0));
    }
}
