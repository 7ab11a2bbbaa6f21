//! Deletions of hits that run in this process, as [`Jobs`].
//!
//! Guarantees: one deletion at a time; each has an entry in the audit before it begins, and one when it ends. Gives up:
//! going on after a restart. A receipt without an end says so, and the same deletion can be started again, however far
//! the first one got.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Client;

use super::jobs::Jobs;
use crate::db::{Database, DbError, QUERY_TIMEOUT, within};
use crate::rollup::change::{Changes, Deleted, Target};
use crate::rollup::deletions;

/// Attempts to record the end.
const END_TRIES: u32 = 30;

/// Wait between two attempts.
const END_PAUSE: Duration = Duration::from_secs(2);

/// The deletions of this process.
pub(crate) struct Deletions {
    db: Database,
    jobs: Jobs,
    /// The progress of the one that started last.
    progress: Mutex<Arc<Progress>>,
}

#[derive(Default)]
struct Progress {
    hits: AtomicU64,
    opens: AtomicU64,
}

impl Progress {
    fn set(&self, deleted: Deleted) {
        self.hits.store(deleted.hits, Ordering::Relaxed);
        self.opens.store(deleted.opens, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Deleted {
        Deleted { hits: self.hits.load(Ordering::Relaxed), opens: self.opens.load(Ordering::Relaxed) }
    }
}

impl Deletions {
    /// No deletion runs yet.
    pub(crate) fn new(db: Database) -> Deletions {
        Deletions { db, jobs: Jobs::new(1), progress: Mutex::default() }
    }

    /// Starts one and returns its number; `None` if another one runs. `subject` describes in words what is deleted.
    ///
    /// # Errors
    /// On a database error; then nothing was started.
    pub(crate) async fn begin(
        &self,
        client: &Client,
        actor: &str,
        target: Target,
        subject: &str,
    ) -> Result<Option<i64>, DbError> {
        let Some(place) = self.jobs.place() else { return Ok(None) };
        let beginning = deletions::begin(client, actor, subject);
        let job = within(QUERY_TIMEOUT, "recording a deletion", beginning).await?;
        let progress = Arc::<Progress>::default();
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&progress);
        let db = self.db.clone();
        self.jobs.start(place, job, async move { run(&db, job, target, &progress).await });
        Ok(Some(job))
    }

    /// What a deletion has deleted so far, while it runs here.
    pub(crate) fn progress(&self, job: i64) -> Option<Deleted> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        self.jobs.is_running(job).then(|| progress.snapshot())
    }

    /// Ends the one that runs, and starts no new ones.
    pub(crate) fn end(&self) {
        for job in self.jobs.end() {
            tracing::warn!(job, "a deletion was interrupted; start it again after pixeld has started");
        }
    }
}

async fn run(db: &Database, job: i64, target: Target, progress: &Progress) {
    let deleting = async {
        let mut changes = Changes::open(db).await?;
        anyhow::Ok(changes.delete_hits_reporting(target, |deleted| progress.set(deleted)).await?)
    };
    let why = match deleting.await {
        Ok(deleted) => {
            tracing::info!(job, hits = deleted.hits, opens = deleted.opens, "hits were deleted");
            None
        }
        Err(error) => {
            let why = crate::db::describe(&error);
            let error = why.lines().next();
            tracing::error!(
                job,
                error,
                "a deletion failed; the hits deleted until then are gone, and you can start it again"
            );
            Some(why)
        }
    };
    for _ in 0..END_TRIES {
        match write_end(db, job, progress.snapshot(), why.as_deref()).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(job, error = error.for_log(), "the receipt of a deletion could not be written yet")
            }
        }
        tokio::time::sleep(END_PAUSE).await;
    }
}

async fn write_end(db: &Database, job: i64, deleted: Deleted, why: Option<&str>) -> Result<(), DbError> {
    let session = db.connect("pixeld deletion").await?;
    within(QUERY_TIMEOUT, "writing a receipt", deletions::end(&session.client, job, deleted, why)).await
}
