//! What the loader remembers of PostgreSQL, so that it need not ask for every hit: user agents and images.
//!
//! Bounded: when a memory is full it is emptied, and the next batches ask again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::judge::UserAgentId;
use crate::db::hits as queries;
use crate::hit::Hit;

/// User agents remembered at most (about 5 MB).
const USER_AGENTS_MAX: usize = 20_000;

/// Images remembered at most.
const IMAGES_MAX: usize = 100_000;

/// New user agents stored in an hour at most: a stranger can make one up for every hit, and each is a row for ever.
pub const NEW_USER_AGENTS_PER_HOUR: u64 = 10_000;

/// User agents and images that PostgreSQL is known to have.
#[derive(Debug)]
pub struct Known {
    user_agents: HashMap<Box<str>, UserAgentId, RandomState>,
    /// When each was deleted, in µs since 1970; the end of time where it was not.
    images: HashMap<Uuid, i64, RandomState>,
    hour: Instant,
    new_this_hour: u64,
}

impl Default for Known {
    fn default() -> Known {
        Known { user_agents: HashMap::default(), images: HashMap::default(), hour: Instant::now(), new_this_hour: 0 }
    }
}

impl Known {
    /// Makes sure that the user agents of `hits` are stored and that their images were asked for.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn learn(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        self.learn_images(client, hits).await?;
        self.learn_user_agents(client, hits).await
    }

    /// Whether an image existed at a time, as of [`Known::learn`]. One that was deleted while its hits waited in the spool
    /// was there when they were answered.
    #[must_use]
    pub fn had_image(&self, image: Uuid, at_us: i64) -> bool {
        self.images.get(&image).is_some_and(|&deleted_us| at_us < deleted_us)
    }

    /// The id of a user agent that was learnt.
    #[must_use]
    pub fn user_agent(&self, text: &str) -> UserAgentId {
        self.user_agents.get(text).copied().unwrap_or_else(|| UserAgentId { own: id_of(text), stored: 0 })
    }

    async fn learn_images(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        let mut last = Uuid::nil();
        let mut new = HashSet::new();
        for hit in hits {
            // One message's hits come together; most ask for the image of the hit before.
            if hit.image != last && !self.images.contains_key(&hit.image) {
                new.insert(hit.image);
            }
            last = hit.image;
        }
        if new.is_empty() {
            return Ok(());
        }
        if self.images.len() > IMAGES_MAX {
            self.images.clear();
            new.extend(hits.iter().map(|hit| hit.image));
        }
        let new: Vec<Uuid> = new.into_iter().collect();
        let existing = queries::existing_images(client, &new).await?;
        self.images.extend(existing.into_iter().map(|(image, deleted_us)| (image, deleted_us.unwrap_or(i64::MAX))));
        Ok(())
    }

    async fn learn_user_agents(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        if self.user_agents.len() > USER_AGENTS_MAX {
            self.user_agents.clear();
        }
        let new: HashMap<&str, i64> = hits
            .iter()
            .filter(|hit| !self.user_agents.contains_key(hit.user_agent))
            .map(|hit| (hit.user_agent, id_of(hit.user_agent)))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        if self.hour.elapsed() > Duration::from_secs(3600) {
            self.hour = Instant::now();
            self.new_this_hour = 0;
            // What was refused in the last hour may be stored in this one.
            self.user_agents.retain(|_, id| id.own == id.stored);
        }
        let ids: Vec<i64> = new.values().copied().collect();
        let mut stored: HashSet<i64> = queries::stored_user_agents(client, &ids).await?.into_iter().collect();
        let room = NEW_USER_AGENTS_PER_HOUR.saturating_sub(self.new_this_hour) as usize;
        let fresh: HashMap<i64, &str> =
            new.iter().filter(|(_, id)| !stored.contains(id)).map(|(&text, &id)| (id, text)).take(room).collect();
        if !fresh.is_empty() {
            stored.extend(fresh.keys());
            self.new_this_hour += queries::store_user_agents(client, fresh.into_iter().collect()).await?;
        }
        for (text, own) in new {
            let id = UserAgentId { own, stored: if stored.contains(&own) { own } else { 0 } };
            self.user_agents.insert(text.into(), id);
        }
        Ok(())
    }
}

/// A user agent's id: the first 8 bytes of its SHA-256.
#[must_use]
pub fn id_of(user_agent: &str) -> i64 {
    let digest = Sha256::digest(user_agent.as_bytes());
    let mut first = [0; 8];
    first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    i64::from_be_bytes(first)
}
