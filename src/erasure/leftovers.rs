//! Finishes what others left unfinished in the database: erasures that were interrupted or put back, and user agents
//! that only erased hits had.
//!
//! Guarantees: it runs beside the eraser's own work, which a search through all hits must not delay. One at a time over
//! all nodes.

use std::time::Duration;

use super::RETRY_PAUSE_MAX;
use super::request;
use crate::backoff::Backoff;
use crate::db::{Database, QUERY_TIMEOUT, installation, user_agents, within};
use pixeld_core::drain::Drain;
use pixeld_core::metrics::Metrics;

/// Interval between checks.
const PERIOD: Duration = Duration::from_secs(10);

/// Finishes them until the drain.
pub(super) async fn run(db: &Database, metrics: &Metrics, mut drain: Drain) {
    let mut backoff = Backoff::new(RETRY_PAUSE_MAX, RETRY_PAUSE_MAX);
    while !drain.is_asked() {
        let finished = tokio::select! {
            finished = finish(db) => finished,
            // The search is abandoned with its connection; the next node that looks starts it again.
            () = drain.asked() => return,
        };
        let wait = match finished {
            Ok(()) => {
                backoff.succeed();
                metrics.stuck.finishing.store(None);
                PERIOD
            }
            Err(error) => {
                metrics.stuck.finishing.store(crate::db::problem(&error));
                if !backoff.is_failing() {
                    tracing::warn!(
                        error = crate::db::describe(&error),
                        "unfinished erasures cannot be finished now; pixeld tries again"
                    );
                }
                backoff.fail()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.asked() => return,
        }
    }
}

/// Finishes what is left now.
///
/// # Errors
/// On a database error; what is left is found again.
pub(super) async fn finish(db: &Database) -> anyhow::Result<()> {
    let session = db.connect("pixeld-leftovers").await?;
    let key = within(QUERY_TIMEOUT, "reading the key", installation::privacy_key(&session.client)).await?;
    let finished = request::finish_all(db, &key).await?;
    if finished > 0 {
        tracing::info!(erasures = finished, "interrupted erasures were finished in the database");
    }
    let forgotten = user_agents::forget_doubted(&session.client).await?;
    if forgotten > 0 {
        tracing::info!(user_agents = forgotten, "user agents of erased hits were deleted");
    }
    Ok(())
}
