//! Keeps the edge's networks in step with the lists on disk, and the lists with what their providers publish.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::files::Lists;
use super::{Networks, update};
use crate::metrics::Metrics;

/// How often the lists on disk are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// How old a published list may become before it is fetched again.
const UPDATE_AGE: Duration = Duration::from_secs(86_400);

/// The least wait between two tries to fetch.
const UPDATE_PAUSE: Duration = Duration::from_secs(3600);

/// The lists of one folder.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    daily: bool,
    metrics: Arc<Metrics>,
    lists: Lists,
}

impl Follower {
    /// Reads the folder's lists for the first time. A list that is refused is said in the log, and left out.
    #[must_use]
    pub fn new(folder: PathBuf, daily: bool, metrics: Arc<Metrics>) -> (Follower, Networks) {
        let mut follower = Follower { folder, daily, metrics, lists: Lists::default() };
        follower.read_changes();
        let networks = follower.networks();
        (follower, networks)
    }

    fn read_changes(&mut self) -> bool {
        let (changed, errors) = self.lists.read_changes(&self.folder);
        for error in errors {
            self.metrics.networks_refused.one();
            tracing::warn!("a list of networks is refused, the one before stays: {error}");
        }
        changed
    }

    fn networks(&self) -> Networks {
        let networks = self.lists.networks();
        self.metrics.network_ranges.set(networks.len() as i64);
        networks
    }

    /// Follows for ever, and hands each new state to `put`.
    pub async fn run(mut self, put: impl Fn(Networks)) {
        let mut tried: Option<Instant> = None;
        loop {
            let is_due = self.daily && tried.is_none_or(|at| at.elapsed() > UPDATE_PAUSE);
            if is_due {
                tried = Some(Instant::now());
            }
            // Reading, fetching and building take up to seconds, on a thread that may block.
            let turn = tokio::task::spawn_blocking(move || {
                if is_due {
                    self.update_old_ones();
                }
                let networks = self.read_changes().then(|| self.networks());
                (self, networks)
            });
            let Ok((follower, networks)) = turn.await else {
                tracing::error!("lists of networks are not followed any longer");
                return;
            };
            self = follower;
            if let Some(networks) = networks {
                tracing::info!(ranges = networks.len(), "lists of networks changed");
                put(networks);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn update_old_ones(&self) {
        let status = self.lists.status();
        for list in update::published() {
            let age = status
                .iter()
                .find(|known| known.network == list.network)
                .map(|known| SystemTime::now().duration_since(known.written).unwrap_or_default());
            if age.is_none_or(|age| age > UPDATE_AGE) {
                match update::update(&self.folder, &list) {
                    Ok(ranges) => tracing::info!(network = list.network.name(), ranges, "list of networks fetched"),
                    Err(error) => {
                        tracing::warn!("a list of networks cannot be fetched now, the one before stays: {error:#}");
                    }
                }
            }
        }
    }
}
