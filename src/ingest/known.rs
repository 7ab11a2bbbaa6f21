//! What the loader remembers of PostgreSQL's contents, so that it need not ask for every hit: user agents, images, and
//! send times.
//!
//! Bounded: when a memory is full it is emptied, and the next batches ask again. At least the [`SENT_MAX`] send times
//! that were set last are remembered. A new send time takes effect within about a second.

mod agent_budget;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use tokio_postgres::{Client, Error};

use self::agent_budget::AgentBudget;
use super::judge::{Facts, ImageThen, UserAgent};
use crate::db::{images, messages, user_agents};
use pixeld_core::clock::micros::Micros;
use pixeld_core::digest;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::opens::agent::Agent;
use pixeld_edge::images::ImageCache;
use pixeld_edge::suppressed::Suppressed;

/// Maximum user agents that are remembered (about 5 MB).
const USER_AGENTS_MAX: usize = 20_000;

/// Maximum images that are remembered.
const IMAGES_MAX: usize = 100_000;

/// Maximum messages whose send time is read at once; twice as many are remembered.
const SENT_MAX: usize = 100_000;

/// Interval between checks for new send times.
const SENT_PAUSE: Duration = Duration::from_secs(1);

/// How long user agents are remembered. After that, their use is recorded in PostgreSQL again.
const USER_AGENTS_AGE_MAX: Duration = Duration::from_secs(6 * 3600);

/// User agents and images that PostgreSQL is known to have.
#[derive(Debug)]
pub struct Known {
    user_agents: HashMap<Box<str>, UserAgent, RandomState>,
    user_agents_since: Instant,
    /// When each was deleted; the maximum if it was not.
    images: HashMap<ImageId, Micros, RandomState>,
    /// When each message was sent, in s since 1970, if its sender has set it.
    sent: HashMap<MessageId, u32, RandomState>,
    /// The time up to which these are known, by the database's clock, and when they were read.
    sent_till: Option<(Micros, Instant)>,
    hour: Instant,
    budget: AgentBudget,
    /// Those of the user agents above that PostgreSQL refuses.
    refused: HashSet<i64, RandomState>,
    /// Every image counts as existing.
    all_images: bool,
    /// What this node itself knows about images.
    own_images: Option<Arc<ImageCache>>,
    /// The opt-outs, which the loader keeps in step.
    suppressed: Arc<Suppressed>,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            user_agents: HashMap::default(),
            user_agents_since: Instant::now(),
            images: HashMap::default(),
            sent: HashMap::default(),
            sent_till: None,
            hour: Instant::now(),
            budget: AgentBudget::new(),
            refused: HashSet::default(),
            all_images: false,
            own_images: None,
            suppressed: Arc::default(),
        }
    }
}

impl Known {
    /// For hits that no stranger can make up: every user agent is stored, and a missing image does not drop its hits.
    pub fn of_import() -> Known {
        Known { budget: AgentBudget::unbounded(), all_images: true, ..Known::default() }
    }

    /// From now on answers from these opt-outs, which another task keeps in step.
    pub fn use_opt_outs(&mut self, suppressed: &Arc<Suppressed>) {
        self.suppressed = Arc::clone(suppressed);
    }

    /// From now on distinguishes images that the database lost from those that this node never knew.
    pub fn compare_images(&mut self, own: Arc<ImageCache>) {
        self.own_images = Some(own);
    }

    /// Whether the database has an image, as of [`Known::learn`]; also true for a deleted one.
    pub fn has_image(&self, image: ImageId) -> bool {
        self.images.contains_key(&image)
    }

    /// Forgets which images exist: this may be another database.
    pub fn forget_images(&mut self) {
        self.images.clear();
    }

    /// Makes sure that the user agents of `hits` are stored and that their images were looked up.
    pub async fn learn(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        self.learn_images(client, hits).await?;
        self.learn_sent(client).await?;
        self.learn_user_agents(client, hits).await
    }

    /// Forgets which user agents are stored: some may be deleted.
    pub fn forget_user_agents(&mut self) {
        self.user_agents.clear();
        self.refused.clear();
        self.user_agents_since = Instant::now();
    }

    async fn learn_sent(&mut self, client: &Client) -> Result<(), Error> {
        if self.sent_till.is_some_and(|(_, asked)| asked.elapsed() < SENT_PAUSE) {
            return Ok(());
        }
        // Twice as many, so that beyond the bound not every check reads all of them again.
        if self.sent.len() > 2 * SENT_MAX {
            self.sent.clear();
            self.sent_till = None;
        }
        let asked = Instant::now();
        let since = self.sent_till.map(|(till, _)| till);
        let changed = messages::sent_since(client, since, SENT_MAX as i64).await?;
        for (message, sent_at_s) in changed.messages {
            match sent_at_s {
                0 => self.sent.remove(&message),
                _ => self.sent.insert(message, sent_at_s),
            };
        }
        self.sent_till = Some((changed.now, asked));
        Ok(())
    }

    async fn learn_images(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        let mut last = ImageId::NONE;
        let mut new = HashSet::new();
        for hit in hits.iter().filter(|hit| !hit.is_erased) {
            // One message's hits come together; most have the image of the hit before.
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
            new.extend(hits.iter().filter(|hit| !hit.is_erased).map(|hit| hit.image));
        }
        let new: Vec<ImageId> = new.into_iter().collect();
        let existing = images::existing(client, &new).await?;
        self.images.extend(existing.into_iter().map(|(image, deleted_at)| (image, deleted_at.unwrap_or(Micros::MAX))));
        Ok(())
    }

    async fn learn_user_agents(&mut self, client: &Client, hits: &[Hit<'_>]) -> Result<(), Error> {
        if self.user_agents.len() > USER_AGENTS_MAX || self.user_agents_since.elapsed() > USER_AGENTS_AGE_MAX {
            self.forget_user_agents();
        }
        if self.hour.elapsed() > Duration::from_secs(3600) {
            self.hour = Instant::now();
            self.budget.renew();
        }
        let new: HashMap<&str, i64> = hits
            .iter()
            .filter(|hit| !hit.is_erased && self.is_to_be_learnt(hit))
            .map(|hit| (hit.user_agent, id_of(hit.user_agent)))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = new.values().copied().collect();
        let mut stored: HashSet<i64> = user_agents::stored(client, &ids).await?.into_iter().collect();
        // In the order of the hits, so that each counts for the budget of a network that it came from. It is counted
        // once it is stored: a failed statement is tried again.
        let mut budget = self.budget.clone();
        let mut fresh: HashMap<i64, &str> = HashMap::new();
        for hit in hits.iter().filter(|hit| !hit.is_erased) {
            if fresh.len() + stored.len() == new.len() {
                break;
            }
            let Some((&text, &id)) = new.get_key_value(hit.user_agent) else { continue };
            if !stored.contains(&id) && !fresh.contains_key(&id) && budget.take(hit.address) {
                fresh.insert(id, text);
            }
        }
        if !fresh.is_empty() {
            stored.extend(fresh.keys());
            let (_, refused) = user_agents::store_each(client, fresh.into_iter().collect()).await?;
            stored.retain(|id| !refused.contains(id));
            self.refused.extend(refused);
            self.budget = budget;
        }
        for (text, own) in new {
            let stored = if stored.contains(&own) { own } else { 0 };
            self.user_agents.insert(text.into(), UserAgent { own, stored, agent: Agent::read(text) });
        }
        Ok(())
    }

    /// Whether a hit's user agent is new here, or was left out by a full budget while this hit's network still has
    /// room: what one network could not store must not be lost to all others.
    fn is_to_be_learnt(&self, hit: &Hit<'_>) -> bool {
        match self.user_agents.get(hit.user_agent) {
            None => true,
            Some(known) => {
                known.stored != known.own && !self.refused.contains(&known.own) && self.budget.has_room(hit.address)
            }
        }
    }
}

impl Facts for Known {
    /// As of [`Known::learn`]. An image that was deleted while its hits waited in the spool existed when they were
    /// answered.
    fn image(&self, image: ImageId, at: Micros) -> ImageThen {
        match self.images.get(&image) {
            _ if self.all_images => ImageThen::There,
            Some(&deleted_at) if at < deleted_at => ImageThen::There,
            Some(_) => ImageThen::Unknown,
            None if self.own_images.as_ref().is_some_and(|own| own.knows(image)) => ImageThen::Lost,
            None => ImageThen::Unknown,
        }
    }

    fn user_agent(&self, text: &str) -> UserAgent {
        let unknown = || UserAgent { own: id_of(text), stored: 0, agent: Agent::read(text) };
        self.user_agents.get(text).copied().unwrap_or_else(unknown)
    }

    fn sent_at_s(&self, message: MessageId) -> u32 {
        if self.sent.is_empty() { 0 } else { self.sent.get(&message).copied().unwrap_or(0) }
    }

    fn had_opted_out(&self, recipient: RecipientId, at: Micros) -> bool {
        self.suppressed.was_out(recipient, at)
    }
}

/// A user agent's id: the first 8 bytes of its SHA-256.
pub fn id_of(user_agent: &str) -> i64 {
    i64::from_be_bytes(digest::prefix(&[user_agent.as_bytes()]))
}
