//! Follows the changes of a table: by notifications, by a heartbeat, and by a full list now and then.
//!
//! Guarantees: a change arrives within about a second: by its notification, or by the heartbeat, which reads the
//! changes each second and so also notices a half-open connection. A change that both miss is found by the full list
//! within a minute. A lost connection is opened again. Gives up: how often a row changed; a notification says only that
//! something did.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;

use super::{Database, DbError, within};
use crate::backoff::Backoff;

/// Interval between reads of the changes.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the answer may take before the connection counts as lost.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(2);

/// Interval between full lists.
const FULL_LIST: Duration = Duration::from_secs(60);

/// The shortest and the longest wait before a lost connection is opened again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A table, and what a node keeps of it.
pub(crate) trait Table: Send {
    /// The connection's name in PostgreSQL.
    const APPLICATION_NAME: &'static str;
    /// The channel of notifications.
    const CHANNEL: &'static str;
    /// The heartbeat's name, for the error if no answer comes.
    const HEARTBEAT: &'static str;

    /// Reads all rows.
    fn list(&mut self, client: &Client) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Reads what changed since the last read.
    fn look(&mut self, client: &Client) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Reads what these notifications announce, within the heartbeat's time.
    fn read_announced(
        &mut self,
        client: &Client,
        notices: &[String],
    ) -> impl Future<Output = Result<(), DbError>> + Send;

    /// The table cannot be followed now. `is_first`: the last attempt before this one succeeded, so log this one.
    fn lost(&mut self, error: &DbError, is_first: bool);
}

/// Follows forever.
pub(crate) async fn follow(db: &Database, table: &mut impl Table) {
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

/// Reads the changes, within the heartbeat's time.
///
/// # Errors
/// [`DbError::Timeout`], or the error of the read.
pub(crate) async fn look_in_time<T: Table>(table: &mut T, client: &Client) -> Result<(), DbError> {
    within(HEARTBEAT_WAIT, T::HEARTBEAT, table.look(client)).await
}

/// Follows on one connection until it is lost.
async fn follow_once<T: Table>(db: &Database, table: &mut T, backoff: &mut Backoff) -> Result<(), DbError> {
    // Listen before listing: changes in between then arrive twice instead of never.
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
