//! The connection to Redis: a task in the background keeps one open.
//!
//! Guarantees: a caller that finds no connection can go on at once. A failure is logged once until Redis has answered
//! again, and counted each time; neither shows the password. The pauses between attempts double up to [`PAUSE_MAX`],
//! but the first attempt after an answer is made at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use rustls::crypto::{CryptoProvider, ring};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::PAUSE_MAX;
use crate::backoff::Backoff;
use crate::config::Secret;
use pixeld_core::metrics::Metrics;

/// How long an attempt to connect may take.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// The first pause between two attempts.
const PAUSE_LEAST: Duration = Duration::from_millis(100);

/// Maximum characters of a reason that are logged: some come from the server.
const REASON_CHARS_MAX: usize = 200;

/// A connection that works as far as is known, and the hash of the script that is loaded there.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub connection: MultiplexedConnection,
    pub script: Arc<str>,
    number: u64,
}

/// Keeps a connection open; ends when dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// The connection, while there is one.
    current: watch::Sender<Option<Ready>>,
    /// Whether the last question was answered.
    is_answering: AtomicBool,
    /// Whether the current trouble was logged.
    is_logged: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Keeper {
    /// Starts to connect.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub(super) fn start(url: &Secret, script: &'static str, metrics: Arc<Metrics>) -> RedisResult<Keeper> {
        // The client uses the process's default; if there are several and none was chosen, it panics.
        if CryptoProvider::get_default().is_none() && ring::default_provider().install_default().is_err() {
            tracing::debug!("another thread chose the cryptography meanwhile");
        }
        let client = Client::open(url.expose())?;
        metrics.redis_up.set(0);
        let (is_answering, is_logged) = (AtomicBool::new(false), AtomicBool::new(false));
        let state = Arc::new(State { current: watch::Sender::new(None), is_answering, is_logged, metrics });
        #[expect(clippy::disallowed_methods, reason = "it ends with the Keeper that owns it")]
        let task = tokio::spawn(keep(client, script, Arc::clone(&state)));
        Ok(Keeper { state, task })
    }

    /// The connection, if there is one now.
    pub(super) fn current(&self) -> Option<Ready> {
        self.state.current.borrow().clone()
    }

    /// The connection, once there is one.
    pub(super) async fn next(&self) -> Ready {
        let mut current = self.state.current.subscribe();
        loop {
            let found = current.wait_for(Option::is_some).await;
            // Its sender lives as long as this.
            match found.ok().and_then(|found| found.clone()) {
                Some(ready) => return ready,
                None => std::future::pending().await,
            }
        }
    }

    /// A question was answered.
    pub(super) fn answered(&self) {
        self.state.is_answering.store(true, Ordering::Relaxed);
        if self.state.is_logged.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis answers again; the throttle is shared");
        }
    }

    /// A connection failed, and must not be used any more.
    pub(super) fn failed(&self, failed: &Ready, reason: &str) {
        self.state.note(reason);
        self.state
            .current
            .send_if_modified(|current| current.take_if(|current| current.number == failed.number).is_some());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn note(&self, reason: &str) {
        self.metrics.redis_up.set(0);
        self.metrics.redis_failures.one();
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
            tracing::warn!(reason, "Redis cannot be used now; this node throttles alone until it can");
        }
    }
}

async fn keep(client: Client, script: &'static str, state: Arc<State>) {
    let mut backoff = Backoff::new(PAUSE_LEAST, PAUSE_MAX);
    for number in 0.. {
        match tokio::time::timeout(CONNECT_WAIT, connect(&client, script)).await {
            Ok(Ok((connection, script))) => {
                let mut current = state.current.subscribe();
                state.metrics.redis_up.set(1);
                state.current.send_replace(Some(Ready { connection, script: script.into(), number }));
                if current.wait_for(Option::is_none).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => state.note(&error.to_string()),
            Err(_) => state.note(&format!("no connection within {CONNECT_WAIT:?}")),
        }
        // A connection alone proves nothing: one that never answers a question in time is not replaced without a pause.
        let answered = state.is_answering.swap(false, Ordering::Relaxed);
        if answered {
            backoff.succeed();
        } else {
            tokio::time::sleep(backoff.fail()).await;
        }
    }
}

async fn connect(client: &Client, script: &str) -> Result<(MultiplexedConnection, String), RedisError> {
    // Our own bounds apply; the client's only need to be at least as long.
    let bounds = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WAIT))
        .set_response_timeout(Some(CONNECT_WAIT));
    let mut connection = client.get_multiplexed_async_connection_with_config(&bounds).await?;
    let hash = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut connection).await?;
    Ok((connection, hash))
}
