//! Keeps the edge's networks in step with the lists on disk, and the lists with those that providers publish.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::files::Lists;
use super::update::{self, Published};
use pixeld_core::metrics::Metrics;
use pixeld_core::networks::Networks;

/// Interval between checks of the lists on disk.
const LOOK: Duration = Duration::from_secs(10);

/// Age of a published list at which it is fetched again.
const UPDATE_AGE: Duration = Duration::from_secs(86_400);

/// Minimum wait between two attempts to fetch.
const UPDATE_PAUSE: Duration = Duration::from_secs(3600);

/// The lists of one folder.
#[derive(Debug)]
pub(crate) struct Follower {
    folder: PathBuf,
    /// Published lists that are fetched again when the copies here are old.
    daily: Vec<Published>,
    metrics: Arc<Metrics>,
    lists: Lists,
}

impl Follower {
    /// Reads the folder's lists for the first time. A refused list is logged and left out.
    pub(crate) fn new(folder: PathBuf, daily: Vec<Published>, metrics: Arc<Metrics>) -> (Follower, Networks) {
        let mut follower = Follower { folder, daily, metrics, lists: Lists::default() };
        follower.read_changes();
        let networks = follower.networks();
        (follower, networks)
    }

    fn read_changes(&mut self) -> bool {
        let (changed, errors) = self.lists.read_changes(&self.folder);
        for error in errors {
            self.metrics.networks_refused.one();
            tracing::warn!("a list of networks is refused; the old list stays: {error}");
        }
        self.note_age();
        changed
    }

    /// Operator-written lists have no age; only published lists go stale.
    fn note_age(&self) {
        let status = self.lists.status();
        let written = |list: Published| {
            let known = status.iter().find(|known| known.network == list.network)?;
            Some(known.written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64)
        };
        let written: Vec<Option<i64>> = update::published().into_iter().map(written).collect();
        self.metrics.networks_missing.set(written.iter().filter(|at| at.is_none()).count() as i64);
        self.metrics.networks_oldest_s.set(written.into_iter().flatten().min().unwrap_or(0));
    }

    fn networks(&self) -> Networks {
        let networks = self.lists.networks();
        self.metrics.network_ranges.set(networks.known_ranges() as i64);
        networks
    }

    /// Follows forever, and passes each new state to `put`.
    pub(crate) async fn run(mut self, put: impl Fn(Networks)) {
        let mut tried: Option<Instant> = None;
        loop {
            let is_due = !self.daily.is_empty() && tried.is_none_or(|at| at.elapsed() > UPDATE_PAUSE);
            if is_due {
                tried = Some(Instant::now());
            }
            // Reading, fetching and building take up to seconds, so they run on a thread that may block.
            let turn = tokio::task::spawn_blocking(move || {
                if is_due {
                    self.update_old_ones();
                }
                let networks = self.read_changes().then(|| self.networks());
                (self, networks)
            });
            let Ok((follower, networks)) = turn.await else {
                tracing::error!("lists of networks are no longer followed");
                return;
            };
            self = follower;
            if let Some(networks) = networks {
                tracing::info!(ranges = networks.known_ranges(), "lists of networks changed");
                put(networks);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn update_old_ones(&self) {
        let status = self.lists.status();
        for list in &self.daily {
            let age = status
                .iter()
                .find(|known| known.network == list.network)
                .map(|known| pixeld_core::clock::now().duration_since(known.written).unwrap_or_default());
            if age.is_none_or(|age| age > UPDATE_AGE) {
                match update::update(&self.folder, list) {
                    Ok(ranges) => {
                        tracing::info!(network = list.network.name(), ranges, "a list of networks was downloaded")
                    }
                    Err(error) => {
                        tracing::warn!("a list of networks cannot be downloaded now; the old list stays: {error:#}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start what is on the other side")]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Mutex;

    use super::*;
    use pixeld_core::networks::Network;

    /// Answers each GET with a list in Apple's format; returns its URL and the number of requests.
    fn publish() -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/list.csv", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _read = stream.read(&mut [0; 4096]);
                *count.lock().unwrap() += 1;
                let _written = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n192.0.2.0/24,US,,,\n");
            }
        });
        (url, asked)
    }

    #[test]
    fn a_list_is_fetched_when_it_is_missing_or_older_than_a_day_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = publish();
        let mut apple = update::published().remove(0);
        assert_eq!(apple.network, Network::Apple);
        apple.url = url;
        let (mut follower, _) = Follower::new(folder.path().to_owned(), vec![apple], Metrics::new(1));
        let file = folder.path().join("apple.txt");
        for (age_hours, expected) in [(None, 1), (Some(23), 1), (Some(25), 2)] {
            if let Some(hours) = age_hours {
                let then = pixeld_core::clock::now() - Duration::from_secs(hours * 3600);
                File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
            }
            follower.read_changes();
            follower.update_old_ones();
            assert_eq!(*asked.lock().unwrap(), expected, "{age_hours:?}");
        }
        assert!(fs::read_to_string(&file).unwrap().contains("192.0.2.0/24"));
        assert!(follower.read_changes());
        assert_eq!(follower.networks().of("192.0.2.1".parse().unwrap()), Some(Network::Apple));
        let now_s = pixeld_core::clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!((now_s - 60..=now_s).contains(&follower.metrics.networks_oldest_s.get()));
        assert_eq!(follower.metrics.networks_missing.get(), 3);
    }
}
