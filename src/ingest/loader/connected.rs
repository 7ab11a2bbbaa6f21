//! What exists only with a connection: the session, the database's clock, and the namespace of keys. Also the time
//! limits for all that is done over it.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::Loader;
use crate::db::{Session, installation, within};
use crate::ingest::marks;
use crate::ingest::source::Source;
use crate::ingest::throttle::{Throttle, ThrottleKey};
use pixeld_core::clock::micros::Micros;
use pixeld_core::link::key::Namespace;

/// The server reports a lock that is not granted before our own time limit, so that its holder can be found.
const LOADER_SETTINGS: &str = "SET lock_timeout = '4s'";

/// How long a batch may take before its connection is dropped; doubled after each time-out, up to the second value.
pub(super) const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// A connection, and what was read over it.
pub(super) struct Connected {
    session: Session,
    /// Set by each claim of a mark, and so before the first hit is judged.
    pub(super) clock: Clock,
    /// The namespace that turns keys into ids.
    pub(super) namespace: Namespace,
}

impl Connected {
    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }
}

/// The database's clock, read now and then; in between, our own monotonic clock advances it, which cannot jump.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    database: Micros,
    read: Instant,
}

impl Clock {
    /// A clock that shows `database` now.
    pub(super) fn at(database: Micros) -> Clock {
        Clock { database, read: Instant::now() }
    }

    pub(super) fn now(self) -> Micros {
        self.database + self.read.elapsed()
    }
}

impl Loader {
    /// Takes the connection, or opens one.
    pub(super) async fn take_connection(&mut self) -> anyhow::Result<Connected> {
        match self.connected.take() {
            Some(connected) if !connected.client().is_closed() => Ok(connected),
            _ => self.connect().await,
        }
    }

    async fn connect(&mut self) -> anyhow::Result<Connected> {
        let session = self.db.connect("pixeld-loader").await?;
        let client = &session.client;
        within(self.patience, "setting the loader's session up", client.batch_execute(LOADER_SETTINGS)).await?;
        if self.memory.throttle.is_none()
            && let Some(window) = self.options.limits.throttle
        {
            let reading = installation::throttle_key(client);
            let key: ThrottleKey = within(self.patience, "reading the throttle's key", reading).await?;
            self.memory.throttle = Some(Throttle::new(window, key));
        }
        let namespace = match self.namespace {
            Some(namespace) => namespace,
            None => within(self.patience, "reading the namespace", installation::namespace(client)).await?,
        };
        self.namespace = Some(namespace);
        within(self.patience, "listing opt-outs", self.memory.opt_outs.list(client)).await?;
        // For all spools, before the first hit is judged: one of them may be loaded again before another's mark is
        // read.
        let spools = self.memory.throttle.as_ref().map(Throttle::spools).unwrap_or_default();
        for (spool, mark) in within(self.patience, "reading marks", marks::loaded_to(client, &spools)).await? {
            self.forget_lost(spool, mark);
        }
        self.metrics.database_up.set(1);
        // It may be another database, restored from a backup.
        self.memory.forget_database();
        self.aside.forget();
        // Marks are read again on every connection: the last one may have left an unclear outcome.
        self.sources.iter_mut().for_each(Source::forget_mark);
        Ok(Connected { session, clock: Clock::at(pixeld_core::clock::now_micros()), namespace })
    }
}

/// Waits for a part of a batch within the loader's time limit, which grows when it was too short: with a fixed limit, a
/// slow server would be sent the same batch forever. COPY ignores statement_timeout, and a frozen server answers
/// nothing at all.
pub(super) async fn patiently<T>(patience: &mut Duration, part: impl Future<Output = T>) -> anyhow::Result<T> {
    let waited = *patience;
    tokio::time::timeout(waited, part).await.map_err(|_| {
        *patience = (waited * 2).min(PATIENCE.1);
        anyhow::anyhow!("a part of a batch took longer than {waited:?}")
    })
}
