//! The PostgreSQL that pixeld runs itself when there is no `DATABASE_URL`.
//!
//! Guarantees: a private cluster, reached only over a private Unix socket, with fsync on. However many pixeld processes
//! use it (`serve` and commands), it is started once, and the last to leave stops it. A server left over from a `kill
//! -9` is found and used again. Ctrl-C in a terminal does not reach it. Gives up: stopping a server whose last user was
//! killed; it keeps running until the next user leaves.
//!
//! Two lock files beside the cluster (flock, so the kernel releases them when a process dies):
//! - `postgres.lock`: each user holds it shared; that is its lease.
//! - `postgres.gate`: held exclusively by a process that checks, starts or stops the server. One file for both is not
//!   enough: going from exclusive to shared is not atomic, and the last user could stop the server in between.
//!
//! Below both is PostgreSQL's own interlock (`postmaster.pid` and shared memory): it never runs twice on a cluster.

mod cluster;
mod place;
mod programs;
mod server_log;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use cluster::{Cluster, Postmaster};

/// How long a server may take until it answers; after a crash it replays up to 2 GB of its log first.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long to wait for another pixeld process that starts or stops the server.
const GATE_WAIT_MAX: Duration = Duration::from_secs(180);
const GATE_POLL: Duration = Duration::from_millis(50);

/// How long a running server may fail to answer on our socket before it is stopped and restarted.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const PROBE_POLL: Duration = Duration::from_millis(100);

/// Maximum attempts to start: children of a killed postmaster keep its memory for several seconds.
const START_TRIES: usize = 5;
const START_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Approximate maximum bytes of the server's log (WAL) between checkpoints, on a disk of `disk_bytes`.
pub(crate) fn wal_bytes_max(disk_bytes: u64) -> u64 {
    (disk_bytes / 10).clamp(64 << 20, 2 << 30)
}

/// The role and the database that pixeld uses; both belong to it alone.
const ROLE: &str = "pixeld";
const DATABASE: &str = "pixeld";

/// Why the embedded PostgreSQL cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// PostgreSQL's programs are missing or too old.
    #[error("{0}")]
    Programs(String),
    /// The programs have another version than the cluster; the text has the steps of an upgrade.
    #[error("{0}")]
    Version(String),
    /// No directory can be used for the cluster, its socket or its locks.
    #[error("{0}")]
    Place(String),
    /// A file or directory could not be created or read.
    #[error("{what} {}: {source}{}", path.display(), hint(source))]
    File {
        /// The action.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// Another pixeld process has been starting or stopping the server for too long.
    #[error("another pixeld process has been starting or stopping PostgreSQL in {} for more than {waited:?}", place.display())]
    Busy {
        /// The cluster.
        place: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The server could not be created, started or stopped; with the end of its log.
    #[error("{0}")]
    Server(String),
}

impl EmbeddedError {
    fn file(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        EmbeddedError::File { what, path: path.to_owned(), source }
    }
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            " (another user's: run pixeld as the user who ran it first, or use another data directory)"
        }
        _ => "",
    }
}

/// Where the embedded PostgreSQL is and how to run it.
pub(super) struct Embedded(Arc<Cluster>);

/// A share in the running server.
pub(super) struct EmbeddedLease {
    cluster: Arc<Cluster>,
    shared: File,
}

enum Probe {
    Up,
    /// It exists and reports that it is starting or stopping.
    Busy(String),
    Silent(String),
}

impl Embedded {
    /// Chooses the cluster's place; see [`place`].
    pub(super) fn new(data_dir: &Path, pg_bin: Option<PathBuf>) -> Result<Self, EmbeddedError> {
        let path = std::env::var_os("PATH");
        Ok(Embedded(Arc::new(Cluster { place: place::choose(data_dir)?, pg_bin, path })))
    }

    pub(super) fn is_made(&self) -> bool {
        let looked = std::fs::metadata(self.0.place.cluster.join("PG_VERSION"));
        // A directory that cannot be read counts as existing.
        !looked.is_err_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        })
    }

    pub(super) fn cluster(&self) -> &Path {
        &self.0.place.cluster
    }

    pub(super) fn target(&self) -> tokio_postgres::Config {
        target(&self.0, DATABASE)
    }

    pub(super) fn place(&self) -> &Path {
        &self.0.place.cluster
    }

    pub(super) fn url_for_people(&self) -> String {
        let socket_dir = place::percent_encoded(&self.0.place.socket_dir);
        format!("postgresql://{ROLE}@/{DATABASE}?host={socket_dir}")
    }

    pub(super) fn note_for_people(&self) -> Option<String> {
        self.0.place.note.clone()
    }

    pub(super) async fn lease(&self) -> Result<EmbeddedLease, EmbeddedError> {
        if let Some(note) = &self.0.place.note {
            tracing::warn!("{note}");
        }
        let gate = self.0.gate(GATE_WAIT_MAX).await?;
        bring_up(&self.0).await?;
        create_database(&self.0).await?;
        let shared = blocking(&self.0, Cluster::share).await?;
        drop(gate);
        Ok(EmbeddedLease { cluster: self.0.clone(), shared })
    }

    pub(super) async fn ensure_running(&self) -> Result<(), EmbeddedError> {
        blocking(&self.0, Cluster::bound_log).await?;
        if is_listening(&self.0).await {
            return Ok(());
        }
        let _gate = self.0.gate(GATE_WAIT_MAX).await?;
        tracing::warn!("the embedded PostgreSQL no longer listens; starting it again");
        bring_up(&self.0).await
    }
}

impl EmbeddedLease {
    pub(super) async fn release(self) -> Result<(), EmbeddedError> {
        let EmbeddedLease { cluster, shared } = self;
        let _gate = cluster.gate(GATE_WAIT_MAX).await?;
        // Unlock explicitly: closing it would leave the lock to a child of another thread that is between fork and
        // exec.
        let unlocked = shared.unlock();
        unlocked.map_err(|source| EmbeddedError::file("cannot unlock beside", &cluster.place.cluster, source))?;
        let last = blocking(&cluster, Cluster::nobody_shares).await?;
        // Held until the stop is finished, so that the answer stays true.
        let Some(_exclusive) = last else { return Ok(()) };
        blocking(&cluster, Cluster::stop).await
    }
}

/// Runs blocking work (programs, files) outside the runtime's own thread.
async fn blocking<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    work: impl FnOnce(&Cluster) -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    let cluster = cluster.clone();
    match tokio::task::spawn_blocking(move || work(&cluster)).await {
        Ok(done) => done,
        Err(error) => Err(EmbeddedError::Server(format!("work on the embedded PostgreSQL failed: {error}"))),
    }
}

impl Cluster {
    async fn gate(self: &Arc<Self>, wait_max: Duration) -> Result<File, EmbeddedError> {
        let file = blocking(self, Cluster::open_gate).await?;
        let give_up_at = Instant::now() + wait_max;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < give_up_at => {
                    tokio::time::sleep(GATE_POLL).await;
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(EmbeddedError::Busy { place: self.place.cluster.clone(), waited: wait_max });
                }
                Err(std::fs::TryLockError::Error(source)) => {
                    return Err(EmbeddedError::file("cannot lock beside", &self.place.cluster, source));
                }
            }
        }
    }
}

/// Makes the server answer on our socket, whatever state it was left in. Only while holding the gate.
async fn bring_up(cluster: &Arc<Cluster>) -> Result<(), EmbeddedError> {
    let give_up_at = Instant::now() + START_TIMEOUT;
    let mut silent_since = Instant::now();
    let mut failed_starts = 0;
    loop {
        let mut said = match probe(cluster).await? {
            Probe::Up => return Ok(()),
            Probe::Busy(said) => {
                silent_since = Instant::now();
                said
            }
            Probe::Silent(said) => match blocking(cluster, Cluster::postmaster).await? {
                Postmaster::Ours if silent_since.elapsed() > SILENCE_MAX => {
                    tracing::warn!(
                        said,
                        "a PostgreSQL from an earlier start does not answer on our socket; stopping it"
                    );
                    blocking(cluster, Cluster::stop).await?;
                    said
                }
                Postmaster::Ours => said,
                stale @ (Postmaster::Stranger { .. } | Postmaster::Zombie { .. }) => {
                    blocking(cluster, move |cluster| cluster.forget_pid(stale)).await?;
                    said
                }
                Postmaster::Gone => {
                    let programs = blocking(cluster, Cluster::prepare).await?;
                    let started =
                        blocking(cluster, move |cluster| Ok(cluster.start(&programs, give_up_at).err())).await?;
                    silent_since = Instant::now();
                    match started {
                        None => continue,
                        Some(error) => {
                            failed_starts += 1;
                            error.to_string()
                        }
                    }
                }
            },
        };
        if failed_starts >= START_TRIES || Instant::now() >= give_up_at {
            said.push('\n');
            said.push_str(&blocking(cluster, |cluster| Ok(cluster.log_tail())).await?);
            let place = cluster.place.cluster.display();
            return Err(EmbeddedError::Server(format!("PostgreSQL in {place} does not start: {said}")));
        }
        tokio::time::sleep(if failed_starts > 0 { START_RETRY_DELAY } else { PROBE_POLL }).await;
    }
}

fn target(cluster: &Cluster, database: &str) -> tokio_postgres::Config {
    let mut target = tokio_postgres::Config::new();
    target.host_path(&cluster.place.socket_dir).port(place::PORT).user(ROLE).dbname(database);
    target
}

/// Connects through our socket, and checks that the answer comes from our cluster.
async fn probe(cluster: &Arc<Cluster>) -> Result<Probe, EmbeddedError> {
    let asking = async {
        let (client, connection) = target(cluster, "postgres").connect(NoTls).await?;
        let connection = super::AbortOnDrop::spawn(async move {
            // The query below gets its error as well.
            connection.await.ok();
        });
        let row = client.query_one("SHOW data_directory", &[]).await?;
        drop(connection);
        Ok::<String, tokio_postgres::Error>(row.get(0))
    };
    let error = match tokio::time::timeout(PROBE_TIMEOUT, asking).await {
        Ok(Ok(data_directory)) if Path::new(&data_directory) == cluster.place.cluster => return Ok(Probe::Up),
        Ok(Ok(data_directory)) => {
            return Err(EmbeddedError::Server(format!(
                "the PostgreSQL that answers in {} is not ours: its data are in {data_directory}",
                cluster.place.socket_dir.display()
            )));
        }
        Ok(Err(error)) => error,
        Err(_) => return Ok(Probe::Silent(format!("no answer for {PROBE_TIMEOUT:?}"))),
    };
    let said = super::reason::reason(&error);
    match error.code() {
        Some(&SqlState::CANNOT_CONNECT_NOW) => Ok(Probe::Busy(said)),
        // All connections are in use, so it is alive.
        Some(&SqlState::TOO_MANY_CONNECTIONS) => Ok(Probe::Up),
        _ => Ok(Probe::Silent(said)),
    }
}

/// Whether the postmaster has its socket open. A frozen or overloaded one counts: a restart would not help.
async fn is_listening(cluster: &Cluster) -> bool {
    let connecting = tokio::net::UnixStream::connect(cluster.place.socket_path());
    match tokio::time::timeout(PROBE_TIMEOUT, connecting).await {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// A crash between initdb and this leaves a cluster without our database, so each start checks for it.
async fn create_database(cluster: &Arc<Cluster>) -> Result<(), EmbeddedError> {
    let creating = async {
        let (client, connection) = target(cluster, "postgres").connect(NoTls).await?;
        let _connection = super::AbortOnDrop::spawn(async move {
            connection.await.ok();
        });
        let there = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE]).await?;
        if there.is_none() {
            client.batch_execute(&format!("CREATE DATABASE {DATABASE} TEMPLATE template0")).await?;
        }
        Ok(())
    };
    let failed = |reason: String| EmbeddedError::Server(format!("cannot make the database {DATABASE}: {reason}"));
    match tokio::time::timeout(START_TIMEOUT, creating).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let error: tokio_postgres::Error = error;
            Err(failed(super::reason::reason(&error)))
        }
        Err(_) => Err(failed(format!("no answer for {START_TIMEOUT:?}"))),
    }
}
