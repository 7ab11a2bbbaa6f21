//! Which hits the loader must not load, because their recipients were erased.
//!
//! Guarantees: what was recorded before an erasure request is never loaded after it: the list is compared within the
//! batch's transaction, and erasures wait for that. Hits that were recorded later are new facts; a recipient who does
//! not want them opts out. Hits have the node's time and requests the database's, so a minute ([`CLOCK_MARGIN`]) and
//! this node's lead over the database's clock are added: it is better to lose a new hit than to bring back an old one.
//! Gives up: a clock that was ahead when the hit was recorded and is right when it is loaded.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::request::{self, ErasureState};
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::ids::RecipientId;
use pixeld_core::privacy::{PrivacyKey, RecipientHash};

/// Hits that come up to this long after an erasure request still count as earlier ones.
pub(crate) const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// What the loader knows about erasures.
#[derive(Default)]
pub struct Erased {
    known: Option<(PrivacyKey, ErasureState)>,
}

impl Erased {
    /// Forgets what is known: the version has changed.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Reads the state if it is not known. Returns whether it did.
    pub async fn learn(&mut self, client: &Client) -> Result<bool, Error> {
        if self.known.is_some() {
            return Ok(false);
        }
        // The state first: an erasure between the two changes the version.
        let state = request::state(client).await?;
        self.known = Some((crate::db::installation::privacy_key(client).await?, state));
        Ok(true)
    }

    /// The version by which batches are prepared.
    pub fn version(&self) -> i64 {
        self.known.as_ref().map_or(-1, |(_, state)| state.version)
    }

    /// Replaces hits that must not be loaded by tombstones. `ahead` is how far this node's clock is ahead of the
    /// database's. Costs one comparison per hit unless some are older than the latest erasure.
    pub async fn mark(&self, client: &Client, hits: &mut [Hit<'_>], ahead: Duration) -> Result<(), Error> {
        let Some((key, ErasureState { latest_at: Some(latest_at), .. })) = &self.known else { return Ok(()) };
        let margin = CLOCK_MARGIN.saturating_add(ahead);
        let is_old = |hit: &Hit<'_>| hit.at < *latest_at + margin && !hit.recipient.is_nil();
        let mut hashes: HashMap<RecipientId, RecipientHash> = HashMap::new();
        for hit in hits.iter().filter(|hit| is_old(hit)) {
            hashes.entry(hit.recipient).or_insert_with(|| key.hash(hit.recipient));
        }
        if hashes.is_empty() {
            return Ok(());
        }
        let asked: Vec<RecipientHash> = hashes.values().copied().collect();
        let erased: HashMap<RecipientHash, Micros> = request::erased_among(client, &asked).await?.into_iter().collect();
        if erased.is_empty() {
            return Ok(());
        }
        for hit in hits.iter_mut() {
            let asked_at = hashes.get(&hit.recipient).and_then(|hash| erased.get(hash));
            if asked_at.is_some_and(|&asked_at| hit.at < asked_at + margin) {
                hit.erase();
            }
        }
        Ok(())
    }
}
