//! The shared throttle: `PIXELD_THROTTLE` over all nodes that load into one PostgreSQL, through a Redis.
//!
//! The loader asks once per batch about the hits that this node's own throttle lets through and that nothing else drops
//! ([`super::judge::questions`]). Under each fingerprint Redis keeps the hits that were let through: their own time,
//! and their name (from the spool's UUID, and the hit's number; a restored database reuses its own numbers of spools
//! for other spools). One script reads and writes at once, so that two nodes never both win. Keys are the
//! installation's keyed fingerprints: Redis never sees an address, an id or a user agent.
//!
//! Guarantees: two hits are compared by their own times in both directions, whenever and in whatever order they are
//! loaded. A hit that asks again finds its own name and is let through again, so that nothing is lost when a batch is
//! tried again (after a failed COPY, a lost COMMIT, a restart, in halves), or when hits are loaded again because the
//! database was restored from a backup or failed over. A hit that PostgreSQL refuses gives its place back. A batch
//! waits at most [`ANSWER_WAIT`] for Redis, and after a failure none waits until Redis has answered a connection again;
//! then the node's own throttle decides alone, counted (`throttle_alone`). Connections are opened in the background,
//! with pauses up to [`PAUSE_MAX`]. Only the loader uses Redis: an answer to a mail client never waits for it.
//!
//! Gives up: while Redis is down, or has lost its data, a repeated hit is recorded once per node. Names are written
//! before COMMIT, so a hit may be held back in favour of one that another node has not loaded yet. That one is loaded
//! in the end, since its spool is durable, unless that node's disk is lost, or the hit is dropped for another reason
//! when it is judged again (its age, its image), or it was refused and Redis could not be informed. Entries live for
//! twice the window, and at least [`LATENESS_MIN`] longer than it: a node that loads later than that records the hit
//! again. For one fingerprint, the [`ENTRIES_MAX`] latest are kept. A hit that PostgreSQL lost, and that no spool has
//! any more, holds repeated ones back as long as its entry lives.

mod connection;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::time::{Instant, timeout_at};

use self::connection::{Keeper, Ready};
use super::judge::Question;
use crate::config::Secret;
use pixeld_core::ids::SpoolId;
use pixeld_core::metrics::Metrics;

/// The longest that a batch waits for Redis, connecting included.
pub const ANSWER_WAIT: Duration = Duration::from_millis(50);

/// Maximum hits in one question: Redis does nothing else in the meantime (about 2 µs each), and must finish well within
/// [`ANSWER_WAIT`].
pub const QUESTION_HITS_MAX: usize = 2_000;

/// The longest pause between two attempts to connect.
pub const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How much later than another node a node may load at least, with its hits still compared.
pub const LATENESS_MIN: Duration = Duration::from_secs(600);

/// Maximum entries of one fingerprint.
pub const ENTRIES_MAX: usize = 32;

/// The prefix of our keys.
///
/// The 2: entries in an older format, which identified spools by their numbers, have no 2, and must not be found by
/// their hits.
pub const KEY_PREFIX: &str = "pixeld:throttle:2:";

/// Used by each batch, and therefore loaded with each connection.
const TAKE: &str = include_str!("shared_throttle/take.lua");

/// For the rare hit that PostgreSQL refuses.
const RELEASE: &str = include_str!("shared_throttle/release.lua");

/// The loader's end of the shared throttle.
#[derive(Debug)]
pub struct SharedThrottle {
    window: Duration,
    keeper: Keeper,
    metrics: Arc<Metrics>,
    /// Whether to wait for a missing connection: not after a failure.
    is_patient: bool,
}

/// A script, and whether it is loaded with each connection.
#[derive(Clone, Copy)]
struct Script {
    text: &'static str,
    is_loaded: bool,
}

impl SharedThrottle {
    /// Starts to connect to the Redis at `url`, within the current runtime. `None` if that is not a URL, which the
    /// check of the settings rules out.
    pub fn start(url: &Secret, window: Duration, metrics: &Arc<Metrics>) -> Option<SharedThrottle> {
        match Keeper::start(url, TAKE, Arc::clone(metrics)) {
            Ok(keeper) => {
                let metrics = Arc::clone(metrics);
                Some(SharedThrottle { window, keeper, metrics, is_patient: true })
            }
            Err(error) => {
                tracing::error!(error = error.category(), "REDIS_URL cannot be used; this node throttles alone");
                None
            }
        }
    }

    /// The numbers of those hits of `spool` that are held back, in ascending order; none if Redis does not answer
    /// within [`ANSWER_WAIT`].
    pub async fn ask(&mut self, spool: SpoolId, questions: &[Question]) -> Vec<u64> {
        if questions.is_empty() {
            return Vec::new();
        }
        let window = self.window;
        let expiry = window + window.max(LATENESS_MIN);
        let fill = |command: &mut Cmd| {
            command.arg(questions.len());
            for question in questions {
                command.arg(key(question));
            }
            command.arg(window.as_micros() as u64).arg(expiry.as_millis() as u64).arg(ENTRIES_MAX);
            for question in questions {
                command.arg(question.token.at().0).arg(name(spool, question));
            }
        };
        let is_whole = |answer: &[u8]| answer.len() == questions.len();
        let take = Script { text: TAKE, is_loaded: true };
        let count = questions.len() as u64;
        let Some(answer) = self.run(take, fill, is_whole).await else {
            self.metrics.throttle_alone.add(count);
            return Vec::new();
        };
        self.metrics.throttle_shared.add(count);
        questions.iter().zip(answer).filter(|(_, letter)| *letter == b'0').map(|(question, _)| question.seq).collect()
    }

    /// Gives back the place of a hit that did not become a row. If Redis does not answer, the place stays taken until
    /// it expires.
    pub async fn release(&mut self, spool: SpoolId, question: Question) {
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(key(&question)).arg(name(spool, &question));
        };
        let release = Script { text: RELEASE, is_loaded: false };
        if self.run(release, fill, |_| true).await.is_none() {
            tracing::warn!(%spool, seq = question.seq, "a refused hit keeps its place in the shared throttle");
        }
    }

    /// Runs a script within [`ANSWER_WAIT`]; `None` if there is no answer by then.
    async fn run(
        &mut self,
        script: Script,
        fill: impl Fn(&mut Cmd),
        is_whole: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        if !self.is_patient && self.keeper.current().is_none() {
            return None;
        }
        self.is_patient = false;
        let deadline = Instant::now() + ANSWER_WAIT;
        let Ok(outcome) = timeout_at(deadline, self.exchange(script, fill)).await else {
            if let Some(asked) = self.keeper.current() {
                self.keeper.failed(&asked, &format!("no answer within {ANSWER_WAIT:?}"));
            }
            return None;
        };
        match outcome {
            (_, Ok(answer)) if is_whole(&answer) => {
                self.keeper.answered();
                self.is_patient = true;
                Some(answer)
            }
            (asked, Ok(_)) => {
                self.keeper.failed(&asked, "an unexpected answer");
                None
            }
            (asked, Err(error)) => {
                self.keeper.failed(&asked, &error.to_string());
                None
            }
        }
    }

    /// Asks. If the connection was lost, as after a restart of Redis, asks over the next one, too: a repeated question
    /// finds its own names.
    async fn exchange(&self, script: Script, fill: impl Fn(&mut Cmd)) -> (Ready, RedisResult<Vec<u8>>) {
        let first = self.keeper.next().await;
        match call(&first, script, &fill).await {
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                self.keeper.failed(&first, &error.to_string());
                let second = self.keeper.next().await;
                let answer = call(&second, script, &fill).await;
                (second, answer)
            }
            answer => (first, answer),
        }
    }
}

/// Runs a script by its hash if it is loaded; otherwise, or if Redis has forgotten it, by its text.
async fn call(ready: &Ready, script: Script, fill: &impl Fn(&mut Cmd)) -> Result<Vec<u8>, RedisError> {
    let mut connection = ready.connection.clone();
    let command = |word: &str, script: &str| {
        let mut command = redis::cmd(word);
        fill(command.arg(script));
        command
    };
    if script.is_loaded {
        match command("EVALSHA", &ready.script).query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            answer => return answer,
        }
    }
    command("EVAL", script.text).query_async(&mut connection).await
}

fn key(question: &Question) -> String {
    format!("{KEY_PREFIX}{:016x}", question.token.fingerprint())
}

/// A hit's name in Redis: the same whenever it is loaded again, into whatever state of the database. Half of the UUID
/// is enough: two spools with the same half are not to be expected, and an entry is a third shorter.
fn name(spool: SpoolId, question: &Question) -> String {
    format!("{:016x}:{}", spool.as_uuid().as_u64_pair().0, question.seq)
}
