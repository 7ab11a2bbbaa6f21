//! The one place where opens and counts are changed.
//!
//! Whoever changes them (the rollup, a reclassification, a deletion) opens a [`Tally`], locks, fills `delta_hits` with hits that
//! came or went and `pairs` with opens as they were and as they are to be, and calls [`Tally::apply`]. Everything else
//! follows from those two temporary tables, so that no two callers can count differently.
//!
//! Guarantees: each statement is bounded in time; each count of rows that could betray a lost update is compared. After any
//! error the connection must be dropped: what the transaction left behind is not known. Gives up: where opens or hits are
//! distributed over several servers, rows cannot be found by their `ctid`, and this must find them by their key.
//!
//! # Definitions
//! Each number is a function of `hits` alone, pending batches left out. The nil UUID is an absent message or recipient.
//! - The **slot** of a time is its quarter of an hour: all zones are quarters apart, so every day and every hour of every zone is
//!   made of whole slots. Before `counting.quarters_from`, which never changes, it is its hour (UTC). Columns called `hour` hold
//!   the time at which a slot begins.
//! - A hit feeds an **open** if it has a message and a recipient. `image`, `first_at`, `first_spool`, `first_seq` and
//!   `first_class` are those of the earliest hit by (at, spool, seq); `last_at` is the latest time; `confirmed_first_at` and
//!   `confirmed_first_class` the least (at, class) of hits that are human or proxied; `best` the class of the least rank.
//! - **message_hours**: hits of a message by slot and class. `first_opens`: opens whose `first_at` lies in the slot, under
//!   `first_class`; `first_confirmed_opens` the same by `confirmed_first_at` and `confirmed_first_class`.
//! - **site_hours**: the sums of those, and hits without a message besides. **image_hours**: all hits of an image.
//! - **message_facets**: hits of a message by rule (1) and by client (2).
//! - **messages**: `hits`, `machine_hits` (prefetch, scanner, bot), `first_at` and `last_at` of all its hits; `opens` the rows
//!   of opens, `confirmed_opens` those with a confirmed hit, `possible_opens` those whose best is unknown or privacy_prefetch.
//! - A row of counts that are all zero does not exist, but for `messages`, which keeps what the sender said.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::db::{Database, DbError, Session, within};

/// Longest time for one statement of a tally; the server gives up later.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(50);

/// What a tally's connection starts with. `work_mem` holds a chunk of hits twice over; `temp_buffers` the temporary tables. A
/// chunk is planned in a millisecond and run in some hundred, so compiling its queries first never pays.
const SETTINGS: &str = "SET temp_buffers = '48MB'; SET work_mem = '64MB'; SET jit = off; \
     SET max_parallel_workers_per_gather = 0";

/// - `work_hits`: the hits at hand. `n` is the batch's or the hit's own number, `tid` the row in its partition; both and what
///   only judging needs are empty where nobody asks.
/// - `verdicts`: new judgements of hits by `n`.
/// - `touched`: opens that must be computed again, as they are. `whole`: no hit beyond those at hand is to be looked for.
/// - `pair_hits`: the hits that those are computed from.
/// - `pairs`: opens as they were (`was_…`, empty for a new one) and as they are to be (empty for one that goes).
/// - `edges`: messages that may have lost their first or last hit, and the first and last slot that still has hits.
/// - `delta_hits`, `delta_hours`: what is added to the counts, or taken with a negative number.
const TABLES: &str = "\
     CREATE TEMP TABLE IF NOT EXISTS work_hits ( \
       at timestamptz NOT NULL, seq bigint NOT NULL, message uuid NOT NULL, recipient uuid NOT NULL, image uuid NOT NULL, \
       spool int NOT NULL, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL, n int, tid tid, \
       network smallint, prefetch bool, user_agent bigint, sent_at timestamptz) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS verdicts ( \
       n int NOT NULL, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL, tid tid NOT NULL \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS touched ( \
       message uuid NOT NULL, recipient uuid NOT NULL, was_first_at timestamptz NOT NULL, was_last_at timestamptz NOT NULL, \
       was_confirmed_first_at timestamptz, tid tid NOT NULL, was_first_class smallint NOT NULL, \
       was_confirmed_first_class smallint, was_best smallint NOT NULL, whole bool NOT NULL) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS pair_hits ( \
       at timestamptz NOT NULL, seq bigint NOT NULL, message uuid NOT NULL, recipient uuid NOT NULL, image uuid NOT NULL, \
       spool int NOT NULL, class smallint NOT NULL) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS pairs ( \
       message uuid NOT NULL, recipient uuid NOT NULL, image uuid, first_at timestamptz, last_at timestamptz, \
       confirmed_first_at timestamptz, hits bigint, confirmed_hits bigint, first_seq bigint, \
       was_first_at timestamptz, was_confirmed_first_at timestamptz, first_spool int, tid tid, \
       best smallint, first_class smallint, confirmed_first_class smallint, \
       was_best smallint, was_first_class smallint, was_confirmed_first_class smallint) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS edges ( \
       message uuid NOT NULL, first_at timestamptz, last_at timestamptz, first_hour timestamptz, last_hour timestamptz \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS delta_hits ( \
       message uuid NOT NULL, image uuid NOT NULL, hour timestamptz NOT NULL, hits bigint NOT NULL, \
       first_at timestamptz, last_at timestamptz, class smallint NOT NULL, rule smallint NOT NULL, client smallint NOT NULL \
     ) ON COMMIT DELETE ROWS; \
     CREATE TEMP TABLE IF NOT EXISTS delta_hours ( \
       message uuid NOT NULL, hour timestamptz NOT NULL, hits bigint NOT NULL, first_opens bigint NOT NULL, \
       first_confirmed_opens bigint NOT NULL, class smallint NOT NULL) ON COMMIT DELETE ROWS";

/// Empties all of them within a transaction.
const CLEAR: &str = "DELETE FROM work_hits; DELETE FROM verdicts; DELETE FROM touched; DELETE FROM pair_hits; \
     DELETE FROM pairs; DELETE FROM edges; DELETE FROM delta_hits; DELETE FROM delta_hours";

/// The nil UUID in SQL.
macro_rules! nil {
    () => {
        "'00000000-0000-0000-0000-000000000000'::uuid"
    };
}

/// When the slot of a time begins. The query in it is run once a statement; `date_trunc` with a zone's name would cost four times as
/// much for each row.
macro_rules! slot {
    ($at:literal) => {
        concat!(
            "date_bin(CASE WHEN ",
            $at,
            " >= (SELECT quarters_from FROM counting) THEN interval '15 minutes' ELSE interval '1 hour' END, ",
            $at,
            ", '2000-01-01 00:00:00+00')"
        )
    };
}

/// What an open is, computed from the hits of the table `$from` that have a message and a recipient.
///
/// The hits are numbered in their order once (they nearly stand in it), so that each pair's earliest is one more hash aggregate
/// and not a sort by four columns.
macro_rules! opens_of {
    ($from:literal) => {
        concat!(
            "WITH h AS MATERIALIZED ( \
               SELECT row_number() OVER (ORDER BY at, spool, seq) AS n, message, recipient, at, seq, image, spool, class \
               FROM ",
            $from,
            " WHERE message <> ",
            super::tally::nil!(),
            " AND recipient <> ",
            super::tally::nil!(),
            "), a AS ( \
               SELECT message, recipient, min(n) AS n, max(at) AS last_at, count(*) AS hits, \
                 count(*) FILTER (WHERE class IN (1, 2)) AS confirmed_hits, \
                 min(at) FILTER (WHERE class = 1) AS human_at, min(at) FILTER (WHERE class = 2) AS proxied_at, \
                 min(COALESCE(class_rank(class), 2::smallint)) AS rank \
               FROM h GROUP BY message, recipient) \
             SELECT a.message, a.recipient, h.image, h.at AS first_at, a.last_at, \
               LEAST(human_at, proxied_at) AS confirmed_first_at, hits, confirmed_hits, h.seq AS first_seq, \
               h.spool AS first_spool, rank, h.class AS first_class, \
               (CASE WHEN human_at <= COALESCE(proxied_at, 'infinity') THEN 1 WHEN confirmed_hits > 0 THEN 2 END)::smallint \
                 AS confirmed_first_class \
             FROM a JOIN h ON h.n = a.n ORDER BY a.message, a.recipient"
        )
    };
}
pub(super) use {nil, opens_of, slot};

/// Writes `pairs` into opens, then both tables into the counts. Joins are nested loops throughout: without statistics of the
/// temporary tables the planner would read all of opens now and then.
const APPLY: &str = concat!(
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; ",
    "INSERT INTO opens (message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, \
       first_spool, best, first_class, confirmed_first_class) \
     SELECT message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, first_spool, \
       best, first_class, confirmed_first_class FROM pairs WHERE tid IS NULL; ",
    "UPDATE opens o SET image = p.image, first_at = p.first_at, last_at = p.last_at, \
       confirmed_first_at = p.confirmed_first_at, hits = p.hits, confirmed_hits = p.confirmed_hits, \
       first_seq = p.first_seq, first_spool = p.first_spool, best = p.best, first_class = p.first_class, \
       confirmed_first_class = p.confirmed_first_class \
     FROM pairs p WHERE o.ctid = p.tid AND p.first_at IS NOT NULL; ",
    "DELETE FROM opens o USING pairs p WHERE o.ctid = p.tid AND p.first_at IS NULL; ",
    "INSERT INTO delta_hours (message, hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT message, hour, class, sum(hits), sum(firsts), sum(confirmed) FROM ( \
       SELECT message, hour, class, hits, 0 AS firsts, 0 AS confirmed FROM delta_hits \
       UNION ALL SELECT message, ",
    slot!("first_at"),
    ", first_class, 0, 1, 0 FROM pairs WHERE first_at IS NOT NULL \
         AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class) \
       UNION ALL SELECT message, ",
    slot!("was_first_at"),
    ", was_first_class, 0, -1, 0 FROM pairs WHERE was_first_at IS NOT NULL \
         AND (first_at, first_class) IS DISTINCT FROM (was_first_at, was_first_class) \
       UNION ALL SELECT message, ",
    slot!("confirmed_first_at"),
    ", confirmed_first_class, 0, 0, 1 FROM pairs WHERE confirmed_first_at IS NOT NULL \
         AND (confirmed_first_at, confirmed_first_class) \
             IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class) \
       UNION ALL SELECT message, ",
    slot!("was_confirmed_first_at"),
    ", was_confirmed_first_class, 0, 0, -1 FROM pairs WHERE was_confirmed_first_at IS NOT NULL \
         AND (confirmed_first_at, confirmed_first_class) \
             IS DISTINCT FROM (was_confirmed_first_at, was_confirmed_first_class) \
     ) AS d GROUP BY message, hour, class HAVING sum(hits) <> 0 OR sum(firsts) <> 0 OR sum(confirmed) <> 0; ",
    "INSERT INTO message_hours AS t (message, hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT message, hour, class, hits, first_opens, first_confirmed_opens FROM delta_hours WHERE message <> ",
    nil!(),
    " ORDER BY message, hour, class \
     ON CONFLICT (message, hour, class) DO UPDATE SET hits = t.hits + excluded.hits, \
       first_opens = t.first_opens + excluded.first_opens, \
       first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens; ",
    "DELETE FROM message_hours t USING delta_hours d \
     WHERE (d.hits < 0 OR d.first_opens < 0 OR d.first_confirmed_opens < 0) \
       AND t.message = d.message AND t.hour = d.hour AND t.class = d.class \
       AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0; ",
    "INSERT INTO site_hours AS t (hour, class, hits, first_opens, first_confirmed_opens) \
     SELECT hour, class, sum(hits), sum(first_opens), sum(first_confirmed_opens) FROM delta_hours GROUP BY hour, class \
     HAVING sum(hits) <> 0 OR sum(first_opens) <> 0 OR sum(first_confirmed_opens) <> 0 ORDER BY hour, class \
     ON CONFLICT (hour, class) DO UPDATE SET hits = t.hits + excluded.hits, \
       first_opens = t.first_opens + excluded.first_opens, \
       first_confirmed_opens = t.first_confirmed_opens + excluded.first_confirmed_opens; ",
    "DELETE FROM site_hours t USING (SELECT DISTINCT hour, class FROM delta_hours \
       WHERE hits < 0 OR first_opens < 0 OR first_confirmed_opens < 0) AS d \
     WHERE t.hour = d.hour AND t.class = d.class AND t.hits = 0 AND t.first_opens = 0 AND t.first_confirmed_opens = 0; ",
    "INSERT INTO image_hours AS t (image, hour, hits) \
     SELECT image, hour, sum(hits) FROM delta_hits GROUP BY image, hour HAVING sum(hits) <> 0 ORDER BY image, hour \
     ON CONFLICT (image, hour) DO UPDATE SET hits = t.hits + excluded.hits; ",
    "DELETE FROM image_hours t USING (SELECT DISTINCT image, hour FROM delta_hits WHERE hits < 0) AS d \
     WHERE t.image = d.image AND t.hour = d.hour AND t.hits = 0; ",
    "INSERT INTO message_facets AS t (message, facet, value, hits) \
     SELECT message, facet, value, sum(hits) FROM ( \
       SELECT message, 1 AS facet, rule AS value, hits FROM delta_hits \
       UNION ALL SELECT message, 2, client, hits FROM delta_hits) AS d \
     WHERE message <> ",
    nil!(),
    " GROUP BY message, facet, value HAVING sum(hits) <> 0 ORDER BY message, facet, value \
     ON CONFLICT (message, facet, value) DO UPDATE SET hits = t.hits + excluded.hits; ",
    "DELETE FROM message_facets t USING ( \
       SELECT DISTINCT message, 1 AS facet, rule AS value FROM delta_hits WHERE hits < 0 \
       UNION ALL SELECT DISTINCT message, 2, client FROM delta_hits WHERE hits < 0) AS d \
     WHERE t.message = d.message AND t.facet = d.facet AND t.value = d.value AND t.hits = 0; ",
    "INSERT INTO messages AS t \
       (id, first_at, last_at, hits, machine_hits, opens, confirmed_opens, possible_opens, created_at) \
     SELECT message, min(first_at), max(last_at), sum(hits), sum(machine), sum(opens), sum(confirmed), sum(possible), \
       clock_timestamp() \
     FROM ( \
       SELECT message, first_at, last_at, hits, CASE WHEN class IN (4, 5, 6) THEN hits ELSE 0 END AS machine, \
         0 AS opens, 0 AS confirmed, 0 AS possible \
       FROM delta_hits WHERE message <> ",
    nil!(),
    " UNION ALL SELECT message, NULL, NULL, 0, 0, \
         (first_at IS NOT NULL)::int - (was_first_at IS NOT NULL)::int, \
         COALESCE(best IN (1, 2), false)::int - COALESCE(was_best IN (1, 2), false)::int, \
         COALESCE(best IN (0, 3), false)::int - COALESCE(was_best IN (0, 3), false)::int \
       FROM pairs \
     ) AS d GROUP BY message ORDER BY message \
     ON CONFLICT (id) DO UPDATE SET first_at = LEAST(t.first_at, excluded.first_at), \
       last_at = GREATEST(t.last_at, excluded.last_at), hits = t.hits + excluded.hits, \
       machine_hits = t.machine_hits + excluded.machine_hits, opens = t.opens + excluded.opens, \
       confirmed_opens = t.confirmed_opens + excluded.confirmed_opens, \
       possible_opens = t.possible_opens + excluded.possible_opens; ",
    "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on",
);

/// Where in [`APPLY`] opens are written.
const OPENS_WRITTEN: std::ops::Range<usize> = 2..5;

/// Why opens and counts could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    /// As PostgreSQL says.
    #[error("{0}")]
    Db(#[from] DbError),
    /// A statement changed another number of rows than it must.
    #[error("{what}: {got} rows, {expected} were expected")]
    Count {
        /// Of what.
        what: &'static str,
        /// What must have been.
        expected: u64,
        /// What was.
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

/// How to come by the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Only if nobody has it.
    Try,
    /// After whoever has it, within the session's `lock_timeout`.
    Wait,
}

/// A connection with the temporary tables.
pub struct Tally {
    session: Session,
}

impl Tally {
    /// Connects and makes the tables.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn open(db: &Database, application_name: &str) -> Result<Tally, DbError> {
        let session = db.connect(application_name).await?;
        for part in [SETTINGS, TABLES] {
            within(STATEMENT_TIMEOUT, "preparing a tally", session.client.batch_execute(part)).await?;
        }
        Ok(Tally { session })
    }

    /// Where statements go.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.session.client
    }

    /// Begins a transaction that holds the lock; none where somebody else keeps it. The lock is a statement of its own, so
    /// that those after it see what its last holder did.
    ///
    /// # Errors
    /// As PostgreSQL says.
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

    /// Writes `pairs` and `delta_hits` into opens and counts. `pairs` is how many rows the table has.
    ///
    /// # Errors
    /// As PostgreSQL says, or where an open that was there is not found.
    pub async fn apply(&self, pairs: u64) -> Result<(), TallyError> {
        let counts = self.run("changing opens and counts", APPLY).await?;
        let written = counts.get(OPENS_WRITTEN).unwrap_or_default().iter().sum();
        same("opens written", pairs, written)
    }

    /// Empties the temporary tables for another use in the same transaction.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn clear(&self) -> Result<(), TallyError> {
        self.run("emptying temporary tables", CLEAR).await.map(|_| ())
    }

    /// Ends the transaction. Every statement before it has been checked, so that it cannot be an aborted one, for which
    /// PostgreSQL answers COMMIT with a rollback and no error.
    ///
    /// # Errors
    /// As PostgreSQL says; whether it was committed is not known then.
    pub async fn commit(&self) -> Result<(), TallyError> {
        self.run("COMMIT", "COMMIT").await.map(|_| ())
    }

    /// Undoes the transaction.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn rollback(&self) -> Result<(), TallyError> {
        self.run("ROLLBACK", "ROLLBACK").await.map(|_| ())
    }

    /// Runs one statement; returns its number of rows.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn execute(
        &self,
        what: &'static str,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, TallyError> {
        Ok(within(STATEMENT_TIMEOUT, what, self.client().execute(statement, values)).await?)
    }

    /// The one row of a query.
    ///
    /// # Errors
    /// As PostgreSQL says.
    pub async fn row(
        &self,
        what: &'static str,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, TallyError> {
        Ok(within(STATEMENT_TIMEOUT, what, self.client().query_one(query, values)).await?)
    }

    /// Runs statements in one exchange; returns how many rows each changed.
    ///
    /// # Errors
    /// As PostgreSQL says.
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
/// Where they differ.
pub fn same(what: &'static str, expected: u64, got: u64) -> Result<(), TallyError> {
    if expected == got { Ok(()) } else { Err(TallyError::Count { what, expected, got }) }
}
