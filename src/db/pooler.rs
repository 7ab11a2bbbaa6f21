//! Detects whether a connection keeps its session, or a pooler lends it another one for each transaction or statement.
//!
//! Settings, LISTEN, advisory locks and prepared statements belong to a session: over such a pooler they are set for
//! other clients and missing when they are needed. Guarantees: the check uses plain statements that leave nothing
//! behind, before anything else is done with a connection. Gives up: certainty. It runs once, and again after a failed
//! connect; and it needs a second connection, without which nothing is decided.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connector::Connector;
use super::driver::AbortOnDrop;

/// How long the second connection and its answers may take.
const SECOND_WAIT: Duration = Duration::from_secs(3);

/// How often each is asked: what other clients do at the same moment may hide a pooler's behaviour once, but hardly
/// each time.
const ROUNDS: usize = 3;

/// What is known about a target.
pub(super) struct Pooling {
    target: tokio_postgres::Config,
    connector: Connector,
    keeps_sessions: AtomicBool,
    /// One check at a time, so that our own connects do not disturb each other.
    asking: Mutex<()>,
}

impl Pooling {
    pub(super) fn of(target: &tokio_postgres::Config, connector: &Connector, is_ours: bool) -> Pooling {
        Pooling {
            target: target.clone(),
            connector: connector.clone(),
            keeps_sessions: AtomicBool::new(is_ours),
            asking: Mutex::default(),
        }
    }

    /// Whether `client`, which was just opened, keeps its session.
    ///
    /// Each session has its own server process as long as it lives. So two clients never see the same process, and one
    /// never sees two: a pooler that lends the process it used last fails the first test, one that rotates fails the
    /// second.
    pub(super) async fn keeps_session(&self, client: &Client) -> Result<bool, Error> {
        let _asking = self.asking.lock().await;
        if self.keeps_sessions.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let first = process(client).await?;
        match tokio::time::timeout(SECOND_WAIT, self.is_alone(client, &first)).await {
            Ok(Ok(keeps)) => {
                self.keeps_sessions.store(keeps, Ordering::Relaxed);
                Ok(keeps)
            }
            // No second connection, or too late: nothing is known.
            _ => Ok(true),
        }
    }

    /// The next connect may reach another server, or a pooler before it.
    pub(super) fn forget(&self) {
        self.keeps_sessions.store(false, Ordering::Relaxed);
    }

    /// Whether `client` stays with the process `first`, and no other client gets it.
    async fn is_alone(&self, client: &Client, first: &str) -> Result<bool, Error> {
        let mut target = self.target.clone();
        target.application_name("pixeld-check");
        let (second, connection) = self.connector.open(&target).await?;
        let _connection = AbortOnDrop::spawn(async move {
            // The query gets its error as well.
            connection.await.ok();
        });
        for _ in 0..ROUNDS {
            let same = process(&second).await? == first;
            if same || process(client).await? != first || process(client).await? != first {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Uses the simple protocol, which prepares nothing.
async fn process(client: &Client) -> Result<String, Error> {
    let answers = client.simple_query("SELECT pg_backend_pid()").await?;
    let pid = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(pid.unwrap_or_default().to_owned())
}
