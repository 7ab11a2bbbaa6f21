//! One batch's transaction: the place where hits become rows exactly once. The loader and `pixeld import` have no other
//! way in.
//!
//! Its order is in the types, and each step consumes the one before:
//!
//! 1. [`BatchTransaction::begin`] takes [`LOADING`] shared, and then locks the mark's row. It goes on only if the mark
//!    is at the batch's first number, and if the batch was prepared with the current list of erasures, which cannot
//!    grow while [`LOADING`] is held.
//! 2. [`with_opt_outs`](BatchTransaction::with_opt_outs) reads who opted out: after the lock, in READ COMMITTED, so
//!    that no opt-out before this moment is missed.
//! 3. [`copy`](BatchTransaction::copy) judges the hits while PostgreSQL copies the rows of earlier ones.
//! 4. [`commit`](BatchTransaction::commit) moves the mark past the batch's last number, records the batch, and sends
//!    COMMIT.
//!
//! Why each hit is in once (`tests/it/faults/batch.rs` tries to break it):
//!
//! 1. A hit has a name that never changes: its spool and its number. The mark is the first number of a spool that is
//!    not loaded yet.
//! 2. Rows, mark and record are one transaction: PostgreSQL keeps all of them or none.
//! 3. Of two transactions with the same numbers, the second waits for the mark's row, finds it moved, and is refused
//!    ([`BatchError::MarkMoved`]). So no hit is in twice.
//! 4. The mark moves from the batch's first number to the number after its last, and only if PostgreSQL copied as many
//!    rows as were judged. The record accounts for each number between (a CHECK of `batches`). So no hit is skipped
//!    silently.
//! 5. COMMIT is sent only after the statement that moves the mark has moved exactly one. In an aborted transaction that
//!    statement fails. So a `commit()` that returns Ok for an aborted transaction (rust-postgres #1334) does no harm.
//! 6. After any other error nothing is assumed: the connection is dropped, and the next claim of the mark, on another
//!    connection, waits for this transaction's end, and then reads what is true.
//!
//! Gives up: retries. The loader and the import know what an error means to them.

use futures_util::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::copy::COPY_HITS;
use super::judge::{Facts, Judged, Judging};
use crate::db::locks::LOADING;
use crate::opt_outs::follow::Reader;
use pixeld_core::clock::micros::Micros;

/// How loading a batch can fail.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The mark is at another number; nothing was written.
    #[error("the mark is at {0}")]
    MarkMoved(u64),
    /// Erasures were added, or user agents deleted, since the batch was prepared; nothing was written.
    #[error("erasures were requested meanwhile")]
    Erasures,
    /// PostgreSQL refused the data itself; the same rows will be refused again.
    #[error("PostgreSQL refuses the data: {0}")]
    Data(Error),
    /// A day has no partition, or no longer has one.
    #[error("a partition is missing: {0}")]
    Partition(Error),
    /// Anything else: whether it was committed is unknown until the mark is read again.
    #[error("{0}")]
    Unclear(#[from] Error),
    /// A count that PostgreSQL returned is not the expected one.
    #[error("{what}: {got} came back, {sent} was sent")]
    Count {
        /// The counted thing.
        what: &'static str,
        /// The expected count.
        sent: u64,
        /// The returned count.
        got: u64,
    },
}

/// What a transaction records about a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchRecord {
    /// The spool's number in `spool_marks`.
    pub spool: i32,
    /// The batch's first number.
    pub first_seq: u64,
    /// The number after its last.
    pub next_seq: u64,
    /// Rows copied.
    pub loaded: u64,
    /// Hits held back by the throttle.
    pub throttled: u64,
    /// Hits of recipients who had opted out.
    pub suppressed: u64,
    /// Hits that PostgreSQL refused.
    pub quarantined: u64,
    /// Hits that were set aside because the database lacks their image; they are included in `quarantined`.
    pub orphans: u64,
    /// Hits older than the retention time.
    pub expired: u64,
    /// Hits of images that do not exist.
    pub unknown_image: u64,
    /// Numbers whose bytes are damaged.
    pub missing: u64,
    /// Hits of people who were erased.
    pub erased: u64,
    /// The times of the earliest and the latest row.
    pub span: Option<(Micros, Micros)>,
    /// The hits come from another program: they are counted, but are not events.
    pub is_imported: bool,
}

/// A step of [`BatchTransaction`]: the mark is locked.
#[derive(Debug)]
pub struct MarkLocked(());

/// A step of [`BatchTransaction`]: the opt-outs are known.
#[derive(Debug)]
pub struct OptOutsRead(());

/// A step of [`BatchTransaction`]: the rows are copied.
#[derive(Debug)]
pub struct RowsCopied(u64);

/// A transaction that loads one batch, at a `Step` of its order. After an error its connection must not be used again,
/// unless the error says that nothing was written; the same applies if it is dropped before its commit.
#[derive(Debug)]
#[must_use = "a batch that is not committed is not loaded"]
pub struct BatchTransaction<'c, Step> {
    client: &'c Client,
    spool: i32,
    first_seq: u64,
    now: Micros,
    step: Step,
}

impl<'c> BatchTransaction<'c, MarkLocked> {
    /// Begins: the mark of `spool` must be at `first_seq`, and `erasures` must be the version of
    /// [`crate::erasure::erased::Erased`] with which the batch was prepared.
    ///
    /// # Errors
    /// [`BatchError::MarkMoved`] and [`BatchError::Erasures`], after which the transaction is rolled back;
    /// [`BatchError::Unclear`].
    pub async fn begin(client: &'c Client, spool: i32, first_seq: u64, erasures: i64) -> Result<Self, BatchError> {
        // Overrides the server's default: at a stricter level, the first statement would decide which opt-outs are
        // visible.
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared({LOADING})");
        client.batch_execute(&begin).await?;
        let lock = "SELECT next_seq, clock_timestamp(), \
                      (SELECT version FROM erasure_state) FROM spool_marks WHERE spool = $1 FOR UPDATE";
        let mark = client.query_one(lock, &[&spool]).await?;
        let next_seq = mark.get::<_, i64>(0) as u64;
        if next_seq != first_seq {
            return Err(undo(client, BatchError::MarkMoved(next_seq)).await);
        }
        if mark.get::<_, i64>(2) != erasures {
            return Err(undo(client, BatchError::Erasures).await);
        }
        Ok(BatchTransaction { client, spool, first_seq, now: mark.get(1), step: MarkLocked(()) })
    }

    /// Reads who opted out; from here on hits are judged by it.
    ///
    /// # Errors
    /// [`BatchError::Unclear`].
    pub async fn with_opt_outs(self, opt_outs: &Reader) -> Result<BatchTransaction<'c, OptOutsRead>, BatchError> {
        opt_outs.catch_up(self.client).await?;
        Ok(self.at(OptOutsRead(())))
    }

    /// Copies nothing: none of the batch's hits becomes a row.
    pub fn without_rows(self) -> BatchTransaction<'c, RowsCopied> {
        self.at(RowsCopied(0))
    }
}

impl<'c> BatchTransaction<'c, OptOutsRead> {
    /// Judges hits and copies their rows. While a slice of them is judged, PostgreSQL works on the previous one.
    /// Without hits it copies nothing.
    ///
    /// # Errors
    /// [`BatchError::Data`] and [`BatchError::Partition`], after which the transaction is rolled back;
    /// [`BatchError::Unclear`].
    pub async fn copy<F: Facts>(
        self,
        mut judging: Judging<'_, F>,
    ) -> Result<(BatchTransaction<'c, RowsCopied>, Judged), BatchError> {
        let rows = match copy_rows(self.client, &mut judging).await.map_err(of_copy) {
            Ok(rows) => rows,
            Err(refusal @ (BatchError::Data(_) | BatchError::Partition(_))) => {
                return Err(undo(self.client, refusal).await);
            }
            Err(error) => return Err(error),
        };
        Ok((self.at(RowsCopied(rows)), judging.finish()))
    }
}

impl<'c> BatchTransaction<'c, RowsCopied> {
    /// The connection, for statements that must commit with the batch.
    pub fn client(&self) -> &'c Client {
        self.client
    }

    /// The database's clock when the mark was locked.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// The record of this batch, which ends before `next_seq`, from the verdicts on its hits.
    pub fn record(&self, next_seq: u64, judged: &Judged) -> BatchRecord {
        BatchRecord {
            spool: self.spool,
            first_seq: self.first_seq,
            next_seq,
            loaded: judged.loaded,
            throttled: judged.throttled,
            suppressed: judged.suppressed,
            expired: judged.expired,
            unknown_image: judged.unknown_image,
            erased: judged.erased,
            span: (judged.loaded > 0).then_some((judged.min_at, judged.max_at)),
            ..BatchRecord::default()
        }
    }

    /// Moves the mark, records the batch, commits.
    ///
    /// # Errors
    /// [`BatchError`]; the mark then says whether it was committed.
    pub async fn commit(self, batch: &BatchRecord) -> Result<(), BatchError> {
        let RowsCopied(rows) = self.step;
        if rows != batch.loaded {
            return Err(BatchError::Count { what: "rows copied", sent: batch.loaded, got: rows });
        }
        let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        let (min_at, max_at) = batch.span.unzip();
        let [loaded, throttled, suppressed, expired, unknown_image, missing, erased, quarantined] = [
            batch.loaded,
            batch.throttled,
            batch.suppressed,
            batch.expired,
            batch.unknown_image,
            batch.missing,
            batch.erased,
            batch.quarantined + batch.orphans,
        ]
        .map(count);
        // Each column beside its value, so that two of them cannot be mixed up.
        let columns: [(&str, &(dyn ToSql + Sync)); 11] = [
            ("loaded", &loaded),
            ("throttled", &throttled),
            ("suppressed", &suppressed),
            ("expired", &expired),
            ("unknown_image", &unknown_image),
            ("missing", &missing),
            ("erased", &erased),
            ("quarantined", &quarantined),
            ("min_at", &min_at),
            ("max_at", &max_at),
            ("imported", &batch.is_imported),
        ];
        let (mut names, mut places) = (String::new(), String::new());
        let (first_seq, next_seq) = (self.first_seq as i64, batch.next_seq as i64);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&self.spool, &first_seq, &next_seq];
        for (name, value) in columns {
            values.push(value);
            names.push_str(&format!(", {name}"));
            places.push_str(&format!(", ${}", values.len()));
        }
        let finish = format!(
            "WITH mark AS (UPDATE spool_marks SET next_seq = $3, updated_at = clock_timestamp() \
                           WHERE spool = $1 AND next_seq = $2 RETURNING spool) \
             INSERT INTO batches (spool, first_seq, next_seq{names}, loaded_at) \
             SELECT spool, $2, $3{places}, clock_timestamp() FROM mark"
        );
        let moved = self.client.execute(&finish, &values).await?;
        if moved != 1 {
            return Err(BatchError::Count { what: "marks moved", sent: 1, got: moved });
        }
        Ok(self.client.batch_execute("COMMIT").await?)
    }
}

impl<'c, Step> BatchTransaction<'c, Step> {
    fn at<Next>(self, step: Next) -> BatchTransaction<'c, Next> {
        let BatchTransaction { client, spool, first_seq, now, .. } = self;
        BatchTransaction { client, spool, first_seq, now, step }
    }
}

/// Rolls a refused transaction back.
async fn undo(client: &Client, refusal: BatchError) -> BatchError {
    match client.batch_execute("ROLLBACK").await {
        Ok(()) => refusal,
        Err(error) => BatchError::Unclear(error),
    }
}

async fn copy_rows<F: Facts>(client: &Client, judging: &mut Judging<'_, F>) -> Result<u64, Error> {
    let mut rows = judging.next_rows();
    if rows.is_none() {
        return Ok(0);
    }
    let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>(COPY_HITS).await?);
    while let Some(part) = rows {
        if let Err(closed) = sink.feed(part.freeze()).await {
            // The server stopped reading; its reason comes with the end.
            return sink.as_mut().finish().await.and(Err(closed));
        }
        rows = judging.next_rows();
    }
    sink.as_mut().finish().await
}

/// What an error of the COPY means. Classes 22 and 23 concern the data, except a missing partition, which is ours to
/// make.
fn of_copy(error: Error) -> BatchError {
    let Some(refusal) = error.as_db_error() else { return BatchError::Unclear(error) };
    let code = refusal.code().code();
    if *refusal.code() == SqlState::CHECK_VIOLATION && refusal.constraint().is_none() {
        BatchError::Partition(error)
    } else if code.starts_with("22") || code.starts_with("23") {
        BatchError::Data(error)
    } else {
        BatchError::Unclear(error)
    }
}
