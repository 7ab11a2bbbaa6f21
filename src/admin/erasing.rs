//! Erasures that were requested on the admin page, as [`Jobs`].
//!
//! Guarantees: every erasure is recorded before its page is answered, however many there are; from then on it is
//! certain. At most [`ERASURES_MAX`] delete from the database here at a time. A node's eraser takes over within a
//! minute those beyond that number, those that fail and those that the drain interrupts, so nobody has to request one
//! again. No log line names the recipient.

use super::gate::Gate;
use super::jobs::Jobs;
use super::refusal::Refusal;
use crate::db::Database;
use crate::erasure::request;
use pixeld_core::ids::RecipientId;
use pixeld_core::privacy::RecipientHash;

/// Erasures that delete from the database at a time. Each has two connections, and all of them wait for one lock.
pub(crate) const ERASURES_MAX: usize = 2;

/// Erasures that are recorded at a time: each holds a connection until then.
pub(crate) const NOTED_MAX: usize = 2;

/// The erasures of this process.
pub(crate) struct Erasing {
    db: Database,
    jobs: Jobs,
    noting: Gate,
}

impl Erasing {
    /// No erasure runs yet.
    pub(crate) fn new(db: Database) -> Erasing {
        Erasing { db, jobs: Jobs::new(ERASURES_MAX), noting: Gate::new(NOTED_MAX) }
    }

    /// Records an erasure request and, `with_opt_out`, the recipient's opt-out; then starts to delete. Returns the
    /// erasure's number.
    ///
    /// # Errors
    /// If others are being recorded now, or on a database error. Then nothing was recorded, unless the answer to COMMIT
    /// was lost.
    pub(crate) async fn begin(
        &self,
        actor: &str,
        recipient: RecipientId,
        hash: RecipientHash,
        with_opt_out: bool,
    ) -> Result<i64, Refusal> {
        let noting = self.noting.enter().ok_or(Refusal::Busy)?;
        // A connection of its own, so that all that it holds ends with it if the client is gone.
        let session = self.db.connect("pixeld erasure").await?;
        let erasure = request::request(&session.client, actor, hash, with_opt_out).await?;
        drop((session, noting));
        let Some(place) = self.jobs.place() else {
            tracing::info!(
                erasure,
                "an erasure is recorded; a node carries it out in the database because other erasures are running here"
            );
            return Ok(erasure);
        };
        let db = self.db.clone();
        self.jobs.start(place, erasure, async move {
            match request::delete(&db, erasure, recipient).await {
                Ok(()) => tracing::info!(erasure, "a recipient was erased from the database"),
                Err(error) => {
                    tracing::warn!(
                        erasure,
                        error = crate::db::describe(&error),
                        "an erasure stopped in the database; a node continues it within a minute"
                    );
                }
            }
        });
        Ok(erasure)
    }

    /// Ends those that run, and starts no new ones.
    pub(crate) fn end(&self) {
        for erasure in self.jobs.end() {
            tracing::warn!(
                erasure,
                "an erasure was interrupted in the database; another node continues it, or this one after its next start"
            );
        }
    }
}
