//! The one place where opens and counts are changed.
//!
//! Every change (the rollup, a reclassification, a deletion) opens a [`Tally`], locks, fills `delta_hits` with added or
//! removed hits and `pairs` with the old and new state of opens, and calls [`Tally::apply`]. Everything else follows
//! from those two temporary tables, so that no two callers can count differently.
//!
//! Guarantees: each statement is bounded in time; each count of rows that could reveal a lost update is compared. After
//! any error the connection must be dropped: the state of its transaction is unknown. Gives up: opens or hits that are
//! distributed over several servers. There rows cannot be found by their `ctid`, and this code would have to find them
//! by their key.
//!
//! # Definitions
//! Each number is a function of `hits` alone, without pending batches. The nil UUID is an absent message or recipient.
//! - The **slot** of a time is its quarter of an hour: all zones differ by multiples of a quarter, so every day and
//!   every hour of every zone consists of whole slots. Before `counting.quarters_from`, which never changes, it is its
//!   hour (UTC). Columns called `hour` contain the time at which a slot begins.
//! - A hit contributes to an **open** if it has a message and a recipient. `image`, `first_at`, `first_spool`,
//!   `first_seq` and `first_class` are those of the earliest hit by (at, spool, seq); `last_at` is the latest time;
//!   `confirmed_first_at` and `confirmed_first_class` the least (at, class) of hits that are human or proxied; `best`
//!   the class of the least rank.
//! - **message_hours**: hits of a message by slot and class. `first_opens`: opens whose `first_at` is in the slot,
//!   under `first_class`; `first_confirmed_opens` the same by `confirmed_first_at` and `confirmed_first_class`.
//! - **site_hours**: the sums of those, plus hits without a message. **image_hours**: all hits of an image.
//! - **message_facets**: hits of a message by rule (1) and by client (2).
//! - **messages**: `hits`, `machine_hits` (prefetch, scanner, bot), `first_at` and `last_at` of all its hits; `opens` the rows
//!   of opens, `confirmed_opens` those with a confirmed hit, `possible_opens` those whose best is unknown or privacy_prefetch.
//! - A row of counts that are all zero does not exist, except in `messages`, which keeps what the sender set.

use std::sync::LazyLock;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::statement::statement;
use crate::db::{Database, DbError, Session, within};

/// Maximum time for one statement of a tally; the server's own limit is longer.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(50);

/// The settings of a tally's connection. `work_mem` holds a chunk of hits twice over; `temp_buffers` the temporary
/// tables. A chunk is planned in a millisecond and run in a few hundred, so compiling its queries first never pays.
const SETTINGS: &str = "SET temp_buffers = '48MB'; SET work_mem = '64MB'; SET jit = off; \
     SET max_parallel_workers_per_gather = 0";

const TABLES: &str = include_str!("tally/temporary_tables.sql");

/// Empties all of them within a transaction.
const CLEAR: &str = "DELETE FROM work_hits; DELETE FROM verdicts; DELETE FROM touched; DELETE FROM pair_hits; \
     DELETE FROM pairs; DELETE FROM edges; DELETE FROM delta_hits; DELETE FROM delta_hours";

/// Writes `pairs` into opens, then both tables into the counts. All joins are nested loops: without statistics of the
/// temporary tables the planner would sometimes read all of opens.
static APPLY: LazyLock<String> = LazyLock::new(|| {
    let opens = include_str!("tally/write_opens.sql");
    let counts = statement(include_str!("tally/write_counts.sql"));
    format!("{NESTED_LOOPS};\n{opens}\n{counts}\n{ANY_JOIN}")
});

/// Which of the statements of [`APPLY`] write opens: the three after the two of [`NESTED_LOOPS`].
const OPENS_WRITTEN: std::ops::Range<usize> = 2..5;

/// From here on the transaction joins by nested loops only.
pub(super) const NESTED_LOOPS: &str = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// Undoes [`NESTED_LOOPS`].
pub(super) const ANY_JOIN: &str = "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on";

/// Why opens and counts could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    /// PostgreSQL failed.
    #[error("{0}")]
    Db(#[from] DbError),
    /// A statement changed an unexpected number of rows.
    #[error("{what}: {got} rows, {expected} were expected")]
    Count {
        /// The rows.
        what: &'static str,
        /// The expected number.
        expected: u64,
        /// The actual number.
        got: u64,
    },
}

impl From<tokio_postgres::Error> for TallyError {
    fn from(error: tokio_postgres::Error) -> TallyError {
        TallyError::Db(error.into())
    }
}

/// What is published so far; read under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The number of the batch published last.
    pub published: i64,
    /// Events before the next batch.
    pub events: i64,
}

/// How to get the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Only if it is free.
    Try,
    /// After its current holder, within the session's `lock_timeout`.
    Wait,
}

/// A connection with the temporary tables.
pub struct Tally {
    session: Session,
}

impl Tally {
    /// Connects and makes the tables.
    pub async fn open(db: &Database, application_name: &str) -> Result<Tally, DbError> {
        let session = db.connect(application_name).await?;
        for part in [SETTINGS, TABLES] {
            within(STATEMENT_TIMEOUT, "preparing a tally", session.client.batch_execute(part)).await?;
        }
        Ok(Tally { session })
    }

    /// The connection for statements.
    pub fn client(&self) -> &Client {
        &self.session.client
    }

    /// Begins a transaction that holds the lock; `None` if another session keeps it. The lock is a statement of its
    /// own, so that later statements see what its last holder did.
    pub async fn begin(&self, lock: Lock) -> Result<Option<State>, TallyError> {
        let client = self.client();
        let select = match lock {
            Lock::Try => "SELECT published, events FROM rollup_state FOR UPDATE SKIP LOCKED",
            Lock::Wait => "SELECT published, events FROM rollup_state FOR UPDATE",
        };
        within(STATEMENT_TIMEOUT, "BEGIN", client.batch_execute("BEGIN")).await?;
        let row = match within(STATEMENT_TIMEOUT, "locking rollup_state", client.query_opt(select, &[])).await {
            Ok(row) => row,
            Err(error) if error.sql_state() == Some(&SqlState::LOCK_NOT_AVAILABLE) => None,
            Err(error) => return Err(error.into()),
        };
        if row.is_none() {
            self.rollback().await?;
        }
        Ok(row.map(|row| State { published: row.get(0), events: row.get(1) }))
    }

    /// Writes `pairs` and `delta_hits` into opens and counts. `pairs` is the table's number of rows.
    ///
    /// # Errors
    /// On a database error, or if an existing open is not found.
    pub async fn apply(&self, pairs: u64) -> Result<(), TallyError> {
        let counts = self.run("changing opens and counts", &APPLY).await?;
        let written = counts.get(OPENS_WRITTEN).unwrap_or_default().iter().sum();
        same("opens written", pairs, written)
    }

    /// Empties the temporary tables for another use in the same transaction.
    pub async fn clear(&self) -> Result<(), TallyError> {
        self.run("emptying temporary tables", CLEAR).await.map(|_| ())
    }

    /// Ends the transaction. Every statement before it has been checked, so that it cannot be an aborted one, for which
    /// PostgreSQL answers COMMIT with a rollback and no error.
    ///
    /// # Errors
    /// On a database error; whether it was committed is then unknown.
    pub async fn commit(&self) -> Result<(), TallyError> {
        self.run("COMMIT", "COMMIT").await.map(|_| ())
    }

    /// Rolls the transaction back.
    pub async fn rollback(&self) -> Result<(), TallyError> {
        self.run("ROLLBACK", "ROLLBACK").await.map(|_| ())
    }

    /// Runs one statement; returns its number of rows.
    pub async fn execute(
        &self,
        what: &'static str,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, TallyError> {
        Ok(within(STATEMENT_TIMEOUT, what, self.client().execute(statement, values)).await?)
    }

    /// The one row of a query.
    pub async fn row(
        &self,
        what: &'static str,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, TallyError> {
        Ok(within(STATEMENT_TIMEOUT, what, self.client().query_one(query, values)).await?)
    }

    /// Runs statements in one round trip; returns how many rows each changed.
    pub async fn run(&self, what: &'static str, statements: &str) -> Result<Vec<u64>, TallyError> {
        let messages = within(STATEMENT_TIMEOUT, what, self.client().simple_query(statements)).await?;
        let counts = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        Ok(counts.collect())
    }
}

/// Compares two counts.
///
/// # Errors
/// If they differ.
pub fn same(what: &'static str, expected: u64, got: u64) -> Result<(), TallyError> {
    if expected == got { Ok(()) } else { Err(TallyError::Count { what, expected, got }) }
}
