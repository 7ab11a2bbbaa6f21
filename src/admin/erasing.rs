//! Erasures that were asked for on the admin page, as [`Jobs`].
//!
//! Guarantees: an erasure is noted before its page is answered, and always is, however many there are; from then on it is certain. At most
//! [`ERASURES_MAX`] are deleted from the database here at a time. Those beyond that, those that fail and those that the drain
//! interrupts are taken up by a node within a minute (the eraser), so nobody has to begin one again. No log line names whom one is of.

use uuid::Uuid;

use super::gate::Gate;
use super::jobs::Jobs;
use super::refusal::Refusal;
use crate::db::Database;
use crate::erasure::request;
use pixeld_core::privacy::RecipientHash;

/// Erasures that delete from the database at a time. Each has two connections, and all of them wait for one lock.
pub const ERASURES_MAX: usize = 2;

/// Erasures that are noted at a time: each has a connection meanwhile.
pub const NOTED_MAX: usize = 2;

/// Those of this process.
pub struct Erasing {
    db: Database,
    jobs: Jobs,
    noting: Gate,
}

impl Erasing {
    /// None runs yet.
    #[must_use]
    pub fn new(db: Database) -> Erasing {
        Erasing { db, jobs: Jobs::new(ERASURES_MAX), noting: Gate::new(NOTED_MAX) }
    }

    /// Notes that a recipient is to be forgotten, and, `with_opt_out`, not to be recorded from now on; then begins to delete. Returns the
    /// erasure's number.
    ///
    /// # Errors
    /// Where others are noted now; or as the database says. Then nothing was noted, unless it was lost in the moment of its COMMIT.
    pub async fn begin(
        &self,
        actor: &str,
        recipient: Uuid,
        hash: RecipientHash,
        with_opt_out: bool,
    ) -> Result<i64, Refusal> {
        let noting = self.noting.enter().ok_or(Refusal::Busy)?;
        // Of its own, so that it ends with all that it holds if nobody waits any more.
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
                        error = crate::db::told(&error),
                        "an erasure stopped in the database; a node continues it within a minute"
                    );
                }
            }
        });
        Ok(erasure)
    }

    /// Ends what runs, and lets none begin.
    pub fn end(&self) {
        for erasure in self.jobs.end() {
            tracing::warn!(
                erasure,
                "an erasure was interrupted in the database; another node continues it, or this one after its next start"
            );
        }
    }
}
