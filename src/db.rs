//! PostgreSQL: one way to reach it, whether it is the sender's own or the one that pixeld runs itself.
//!
//! Guarantees: every connect, and every statement sent over what this module hands out, ends within a named time: on
//! the server's side by [`SESSION_SETTINGS`] and on ours by [`within`] (a frozen server keeps no time-outs). A client
//! that vanished loses its locks within about half a minute. Gives up: retries; the caller knows whether one is safe.
//!
//! Everything here, and all else that runs statements, fails if PostgreSQL refuses or the connection breaks. A function's
//! `# Errors` is there only if it can fail for another reason, or if its caller must do something then.
//!
//! `DATABASE_URL` must reach PostgreSQL itself or a pooler in session mode; this is checked before anything else
//! ([`pooler`]). For TLS see `db/tls.rs`.

pub(crate) mod audit;
mod connector;
pub(crate) mod counts;
mod driver;
pub(crate) mod embedded;
mod error;
pub mod export;
pub(crate) mod fitness;
pub(crate) mod follow;
pub(crate) mod guard;
pub mod images;
pub(crate) mod installation;
pub mod locks;
pub mod log;
pub(crate) mod messages;
pub mod migrate;
pub(crate) mod opens;
pub mod partitions;
mod pooler;
mod reason;
pub(crate) mod sessions;
mod target;
mod tls;
pub(crate) mod user_agents;
pub(crate) mod users;
pub(crate) mod words;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::{CertificateCheck, Config, DatabaseUrl};
use connector::Connector;
use driver::{AbortOnDrop, drive};
use embedded::{Embedded, EmbeddedLease};
pub use error::DbError;
pub(crate) use error::{describe, problem, refused_with};
use fitness::Unfit;
use guard::Guard;
use pooler::Pooling;
use target::{bound_in_time, make_pool, shown};

/// Maximum time until a connection is ready for its first query: name look-up, TLS, log-in and session settings.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A sensible limit for [`within`] around a short query. The server's limit is longer ([`SESSION_SETTINGS`]), so that
/// our side, which also notices a frozen server, decides.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum connections of [`Database::pool`].
pub(crate) const POOL_CONNECTIONS_MAX: usize = 4;

/// Maximum notifications that wait in the receiver of [`Database::listen`]; further ones are dropped.
pub(crate) const NOTICES_MAX: usize = 1024;

/// The settings that each session starts with.
pub(crate) const SESSION_SETTINGS: &str = include_str!("db/session_settings.sql");

/// How to reach PostgreSQL. Cloning is cheap, and all clones share one pool.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    target: tokio_postgres::Config,
    connector: Connector,
    pooling: Arc<Pooling>,
    pool: Pool,
    url_for_people: String,
    embedded: Option<Embedded>,
    guard: Arc<Guard>,
}

/// A connection of its own. Its task is ended when this is dropped, and the connection with it.
pub struct Session {
    /// The client for statements.
    pub client: Client,
    _connection: AbortOnDrop,
}

/// Keeps an embedded PostgreSQL running until [`Lease::release`]; does nothing for an external one.
#[must_use = "the embedded PostgreSQL is stopped by Lease::release"]
pub struct Lease(Option<EmbeddedLease>);

impl Database {
    /// Chooses where PostgreSQL is, without connecting: `DATABASE_URL`, or else the directory of the embedded one.
    ///
    /// # Errors
    /// [`DbError::Url`] for a URL that cannot work with any server; [`DbError::Embedded`] if no place for the embedded
    /// one can be chosen.
    pub fn new(config: &Config) -> Result<Self, DbError> {
        let guard = Guard::of(&config.storage.data_dir);
        match &config.storage.database_url {
            Some(url) => Database::settle_external(url.expose(), guard),
            None => Database::settle_embedded(&config.storage.data_dir, config.storage.pg_bin.clone(), guard),
        }
    }

    /// The PostgreSQL that a URL names.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn external(url: &str) -> Result<Self, DbError> {
        Database::settle_external(url, Guard::default())
    }

    fn settle_external(url: &str, guard: Guard) -> Result<Self, DbError> {
        let DatabaseUrl { target, check } =
            DatabaseUrl::parse(url).map_err(|wrong| DbError::Url(format!("it {wrong}")))?;
        Database::settle(target, &check, url.to_owned(), None, guard)
    }

    /// The embedded PostgreSQL of an absolute data directory, with the programs in `pg_bin` or those that pixeld finds.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn embedded_in(data_dir: &Path, pg_bin: Option<PathBuf>) -> Result<Self, DbError> {
        Database::settle_embedded(data_dir, pg_bin, Guard::default())
    }

    fn settle_embedded(data_dir: &Path, pg_bin: Option<PathBuf>, guard: Guard) -> Result<Self, DbError> {
        let embedded = Embedded::new(data_dir, pg_bin)?;
        Database::settle(
            embedded.target(),
            &CertificateCheck::Nothing,
            embedded.url_for_people(),
            Some(embedded),
            guard,
        )
    }

    fn settle(
        mut target: tokio_postgres::Config,
        check: &CertificateCheck,
        url_for_people: String,
        embedded: Option<Embedded>,
        guard: Guard,
    ) -> Result<Self, DbError> {
        bound_in_time(&mut target);
        let guard = Arc::new(guard);
        let connector = Connector::new(tls::connector(&mut target, check).map_err(DbError::Url)?);
        let pooling = Arc::new(Pooling::of(&target, &connector, embedded.is_some()));
        let pool = make_pool(&target, &connector, &pooling, &guard)?;
        Ok(Database(Arc::new(Inner { target, connector, pooling, pool, url_for_people, embedded, guard })))
    }

    /// What this node remembers of its installation. Every connection is checked against it.
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// Whether pixeld runs PostgreSQL itself.
    pub fn is_embedded(&self) -> bool {
        self.0.embedded.is_some()
    }

    /// A URL for `psql`, including the password of `DATABASE_URL` if it has one: show it only to the user who asked.
    pub fn url_for_people(&self) -> String {
        self.0.url_for_people.clone()
    }

    /// Its address in words for people, without credentials.
    pub fn whereabouts(&self) -> String {
        match &self.0.embedded {
            Some(embedded) => format!("the private PostgreSQL in {}", embedded.cluster().display()),
            None => format!("the PostgreSQL at {}", self.place()),
        }
    }

    /// Whether the embedded PostgreSQL was ever created; true for an external one, which is not ours to create.
    pub fn is_made(&self) -> bool {
        self.0.embedded.as_ref().is_none_or(Embedded::is_made)
    }

    /// Its hosts, ports and name, without credentials: stays the same when a password changes.
    pub fn place(&self) -> String {
        shown(&self.0.target)
    }

    /// The directory of the embedded PostgreSQL; `None` for an external one.
    pub fn embedded_place(&self) -> Option<&Path> {
        self.0.embedded.as_ref().map(Embedded::place)
    }

    /// A sentence for people if the embedded PostgreSQL or its socket is not in the data directory.
    pub fn note_for_people(&self) -> Option<String> {
        self.0.embedded.as_ref().and_then(Embedded::note_for_people)
    }

    /// Finds or starts the embedded PostgreSQL and holds a lease on it; nothing to do for an external one.
    ///
    /// After a crash this can take up to [`embedded::START_TIMEOUT`]. Let it end, then release the lease: a call that
    /// is dropped half way may leave a server running (the next start finds it).
    ///
    /// # Errors
    /// [`DbError::Embedded`], with the end of the server's log if it did not start.
    pub async fn start(&self) -> Result<Lease, DbError> {
        match &self.0.embedded {
            Some(embedded) => Ok(Lease(Some(embedded.lease().await?))),
            None => Ok(Lease(None)),
        }
    }

    /// Restarts the embedded PostgreSQL if it died. Call it every few seconds while a [`Lease`] is held; it costs one
    /// connect to the socket while all is well.
    ///
    /// # Errors
    /// As [`Database::start`].
    pub async fn ensure_running(&self) -> Result<(), DbError> {
        match &self.0.embedded {
            Some(embedded) => Ok(embedded.ensure_running().await?),
            None => Ok(()),
        }
    }

    /// Opens a connection with [`SESSION_SETTINGS`].
    ///
    /// # Errors
    /// [`DbError::Connect`], or [`DbError::Timeout`] after [`CONNECT_TIMEOUT`].
    pub async fn connect(&self, application_name: &str) -> Result<Session, DbError> {
        self.guarded(self.open(application_name, None).await?).await
    }

    /// The same to any installation, or none: for code that finds out which one it is.
    pub(crate) async fn connect_unguarded(&self, application_name: &str) -> Result<Session, DbError> {
        self.open(application_name, None).await
    }

    async fn guarded(&self, session: Session) -> Result<Session, DbError> {
        within(QUERY_TIMEOUT, "looking at the installation", self.0.guard.check(&session.client)).await??;
        Ok(session)
    }

    /// Opens a connection that listens on `channel` and forwards the payloads of its notifications.
    ///
    /// The receiver ends with the connection. It holds [`NOTICES_MAX`] payloads and drops further ones, so the caller
    /// must read everything now and then, as it must after a lost connection anyway.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub async fn listen(
        &self,
        application_name: &str,
        channel: &str,
    ) -> Result<(Session, mpsc::Receiver<String>), DbError> {
        let (sender, receiver) = mpsc::channel(NOTICES_MAX);
        let session = self.guarded(self.open(application_name, Some(sender)).await?).await?;
        let listen = format!("LISTEN \"{}\"", channel.replace('"', "\"\""));
        match within(CONNECT_TIMEOUT, "LISTEN", session.client.batch_execute(&listen)).await {
            // A standby sends no notifications; the caller reads everything now and then anyway.
            Err(error) if error.sql_state() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {}
            listening => listening?,
        }
        Ok((session, receiver))
    }

    /// Up to [`POOL_CONNECTIONS_MAX`] shared connections for look-ups, opened on first use. A connection lives on the
    /// runtime whose task opened it, so use the pool from one runtime.
    pub fn pool(&self) -> Pool {
        self.0.pool.clone()
    }

    async fn open(&self, application_name: &str, notices: Option<mpsc::Sender<String>>) -> Result<Session, DbError> {
        let mut target = self.0.target.clone();
        target.application_name(application_name);
        let opening = async {
            let failed =
                |cause| DbError::Connect { to: shown(&self.0.target), grant: target::grant(&self.0.target), cause };
            let (client, connection) = self.0.connector.open(&target).await.map_err(failed)?;
            let driven = AbortOnDrop::spawn(drive(connection, application_name.to_owned(), notices));
            let session = Session { client, _connection: driven };
            if !self.0.pooling.keeps_session(&session.client).await.map_err(failed)? {
                return Err(Unfit::Pooler { to: shown(&self.0.target) }.into());
            }
            session.client.batch_execute(SESSION_SETTINGS).await.map_err(failed)?;
            Ok(session)
        };
        let late = DbError::Timeout { what: "connecting", limit: CONNECT_TIMEOUT };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or(Err(late));
        if opened.is_err() && !self.is_embedded() {
            self.0.pooling.forget();
        }
        opened
    }
}

impl Lease {
    /// Releases the lease. The last one stops the embedded PostgreSQL; a lease that is only dropped (or whose process
    /// is killed) leaves it running for the next start to find.
    ///
    /// # Errors
    /// [`DbError::Embedded`] if it does not stop; no data is lost by that.
    pub async fn release(self) -> Result<(), DbError> {
        match self.0 {
            Some(lease) => Ok(lease.release().await?),
            None => Ok(()),
        }
    }
}

/// Waits for `work` for at most `limit`. After a time-out drop the session: its state is unknown.
///
/// # Errors
/// [`DbError::Timeout`] naming `what`, or the work's own error.
pub async fn within<T, E>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, DbError>
where
    DbError: From<E>,
{
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(DbError::Timeout { what, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_no_server_could_make_work_is_refused_without_its_password() {
        for url in
            ["nonsense", "postgresql:///nohost", "postgresql://u:geheim@h:x/d", "postgresql://u:geheim@h/d?sslmode=x"]
        {
            let error = Database::external(url).err().unwrap().to_string();
            assert!(error.starts_with("DATABASE_URL: ") && !error.contains("geheim"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_named_without_its_password() {
        let database = Database::external("postgresql://u:geheim@127.0.0.1:1/d").unwrap();
        assert!(database.url_for_people().contains("geheim"));
        let error = database.connect("test").await.err().unwrap().to_string();
        assert!(error.contains("127.0.0.1 port 1, database d") && !error.contains("geheim"), "{error}");
    }
}
