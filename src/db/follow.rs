//! Follows what changes in a table: by its notices, by a heartbeat, and by a full list now and then.
//!
//! Guarantees: a change shows within about a second: by its notice, or by the heartbeat, which asks each second what changed and so
//! notices a half-open connection too; a change that both miss is found by the full list a minute later. A lost connection is
//! opened again. Gives up: telling how often a row changed; a notice says only that something did.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;

use super::{Database, DbError, within};
use crate::backoff::Backoff;

/// How often it is asked what changed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the answer may take before the connection counts as lost.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(2);

/// How often all rows are listed.
const FULL_LIST: Duration = Duration::from_secs(60);

/// The shortest and the longest wait before a lost connection is opened again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A table, and what a node keeps of it.
pub trait Table: Send {
    /// Who connects, as PostgreSQL shows it.
    const APPLICATION_NAME: &'static str;
    /// Where changes are announced.
    const CHANNEL: &'static str;
    /// The heartbeat, for the error if no answer comes.
    const HEARTBEAT: &'static str;

    /// Reads all rows.
    fn list(&mut self, client: &Client) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Reads what changed since the last look.
    fn look(&mut self, client: &Client) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Reads what these notices announce, in time.
    fn read_announced(
        &mut self,
        client: &Client,
        notices: &[String],
    ) -> impl Future<Output = Result<(), DbError>> + Send;

    /// The table cannot be followed now. `is_first`: the last attempt before this one succeeded, so this one is worth a line of the log.
    fn lost(&mut self, error: &DbError, is_first: bool);
}

/// Follows for ever.
pub async fn follow(db: &Database, table: &mut impl Table) {
    let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
    loop {
        let pause = match follow_once(db, table, &mut backoff).await {
            Ok(()) => RECONNECT.0,
            Err(error) => {
                table.lost(&error, !backoff.is_failing());
                backoff.fail()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks, within the heartbeat's time.
///
/// # Errors
/// [`DbError::Timeout`], or as the look.
pub async fn look_in_time<T: Table>(table: &mut T, client: &Client) -> Result<(), DbError> {
    within(HEARTBEAT_WAIT, T::HEARTBEAT, table.look(client)).await
}

/// Follows on one connection until it is lost.
async fn follow_once<T: Table>(db: &Database, table: &mut T, backoff: &mut Backoff) -> Result<(), DbError> {
    // Listened to before it is listed: what changes in between is announced twice rather than never.
    let (session, mut notices) = db.listen(T::APPLICATION_NAME, T::CHANNEL).await?;
    table.list(&session.client).await?;
    backoff.succeed();
    let mut listed = Instant::now();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => {
                let Some(notice) = notice else { return Ok(()) };
                let mut all = vec![notice];
                while let Ok(notice) = notices.try_recv() {
                    all.push(notice);
                }
                table.read_announced(&session.client, &all).await?;
            }
            _ = heartbeat.tick() => {
                if listed.elapsed() > FULL_LIST {
                    table.list(&session.client).await?;
                    listed = Instant::now();
                } else {
                    look_in_time(table, &session.client).await?;
                }
            }
        }
    }
}
