//! Adds loaded hits to opens and counts: one transaction for several batches and exactly their hits.
//!
//! Guarantees: a batch is rolled up once, in the transaction that gives it its `published` number. Numbers have no
//! gaps, and `events_before` is the sum of `next_seq - first_seq` over all batches published before. Rows are compared
//! with `batches.loaded`, batch by batch: a batch that is visible before its hits (in a distributed PostgreSQL) is left
//! for later. Gives up: missing rows. If a batch still lacks some after [`MISMATCH_PATIENCE`] (somebody deleted rows by
//! hand), this is logged and counted, and the existing rows are rolled up; waiting forever would stop all counts.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::statement::statement;
use super::tally::{self, State, Tally, TallyError, same};
use crate::db::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::clock::micros::Micros;

/// Maximum hits that one transaction rolls up, unless a single batch has more.
pub const CHUNK_HITS_MAX: u64 = 100_000;

/// Maximum batches that one transaction rolls up.
pub const CHUNK_BATCHES_MAX: usize = 1000;

/// How long the same mismatch is waited for.
pub const MISMATCH_PATIENCE: Duration = Duration::from_secs(60);

/// Maximum time that the hits of one transaction cover, unless a single batch covers more: each day in between is
/// a partition to search and lock, and an import covers years.
const CHUNK_SPAN_MAX: Duration = Duration::from_hours(32 * 24);

const PICK: &str =
    "SELECT id, next_seq - first_seq, loaded, min_at, max_at FROM batches WHERE published IS NULL ORDER BY id LIMIT $1";

const READ: &str = include_str!("turn/read_hits.sql");

static ADD_HITS: LazyLock<String> = LazyLock::new(|| statement(include_str!("turn/add_hits.sql")));

static ADD_PAIRS: LazyLock<String> = LazyLock::new(|| statement(include_str!("turn/add_pairs.sql")));

const PUBLISH: &str = "UPDATE batches AS b SET published = p.published, events_before = p.events \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS p (id, published, events) \
     WHERE b.id = p.id AND b.published IS NULL";

/// The result of one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rolled {
    /// Batches published.
    pub batches: u64,
    /// Hits rolled up.
    pub hits: u64,
    /// Batches among them whose hits are not all there.
    pub mismatches: u64,
    /// Whether batches are left.
    pub more: bool,
}

/// The result of [`roll_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Success; nothing is committed yet.
    Rolled(Rolled),
    /// A batch and its hits do not match yet: roll back, and try again later.
    Mismatch,
}

/// Batches whose hits were not all there, and since when.
#[derive(Debug)]
pub struct Mismatches {
    patience: Duration,
    seen: HashMap<i64, (u64, Instant)>,
}

impl Mismatches {
    /// None so far; waits for the same one as long as `patience`.
    pub fn new(patience: Duration) -> Mismatches {
        Mismatches { patience, seen: HashMap::new() }
    }

    /// Whether a batch with `rows` rows has been waited for long enough.
    fn is_old(&mut self, batch: i64, rows: u64) -> bool {
        let now = Instant::now();
        let (seen_rows, since) = self.seen.entry(batch).or_insert((rows, now));
        if *seen_rows != rows {
            (*seen_rows, *since) = (rows, now);
        }
        now - *since >= self.patience
    }
}

struct Batch {
    id: i64,
    events: i64,
    loaded: u64,
}

/// Rolls up pending batches, the oldest first, up to `hits_max` hits, in the transaction that holds the lock. Advances
/// `state`.
///
/// # Errors
/// Drop the tally then.
pub async fn roll_up(
    tally: &Tally,
    state: &mut State,
    hits_max: u64,
    mismatches: &mut Mismatches,
) -> Result<Outcome, TallyError> {
    let (batches, more) = pick(tally, hits_max).await?;
    if batches.is_empty() {
        return Ok(Outcome::Rolled(Rolled::default()));
    }
    let mut rolled = Rolled { batches: batches.len() as u64, more, ..Rolled::default() };
    if batches.iter().any(|batch| batch.loaded > 0) {
        rolled.hits = read(tally, &batches).await?;
        let lacking = compare(tally, &batches).await?;
        let old = lacking.iter().filter(|(batch, rows)| mismatches.is_old(batch.id, *rows)).count();
        if old < lacking.len() {
            return Ok(Outcome::Mismatch);
        }
        for (batch, rows) in &lacking {
            tracing::error!(
                batch = batch.id,
                loaded = batch.loaded,
                rows,
                "some hits of a batch are missing; rolling up the others"
            );
        }
        rolled.mismatches = lacking.len() as u64;
        tally.execute("adding hits up", &ADD_HITS, &[]).await?;
        let pairs = tally.execute("adding opens up", &ADD_PAIRS, &[]).await?;
        tally.apply(pairs).await?;
    }
    publish(tally, state, &batches).await?;
    mismatches.seen.clear();
    Ok(Outcome::Rolled(rolled))
}

async fn pick(tally: &Tally, hits_max: u64) -> Result<(Vec<Batch>, bool), TallyError> {
    let limit = CHUNK_BATCHES_MAX as i64 + 1;
    let rows = within(QUERY_TIMEOUT, "looking for batches", tally.client().query(PICK, &[&limit])).await?;
    let mut hits = 0;
    let (mut from, mut to) = (Micros::MAX, Micros::MIN);
    let mut batches = Vec::new();
    for row in &rows {
        let loaded = row.get::<_, i32>(2) as u64;
        // A batch without rows has no times.
        let (earlier, later) =
            (row.get::<_, Option<Micros>>(3).unwrap_or(from), row.get::<_, Option<Micros>>(4).unwrap_or(to));
        (from, to) = (from.min(earlier), to.max(later));
        let is_too_much =
            hits + loaded > hits_max || batches.len() == CHUNK_BATCHES_MAX || to.since(from) > CHUNK_SPAN_MAX;
        if !batches.is_empty() && is_too_much {
            return Ok((batches, true));
        }
        hits += loaded;
        batches.push(Batch { id: row.get(0), events: row.get(1), loaded });
    }
    Ok((batches, false))
}

/// Copies the batches' hits into `work_hits`; returns how many.
async fn read(tally: &Tally, batches: &[Batch]) -> Result<u64, TallyError> {
    let ids: Vec<i64> = batches.iter().map(|batch| batch.id).collect();
    let span = "SELECT min(min_at), max(max_at) FROM batches WHERE id = ANY($1)";
    let span = tally.row("looking at batches", span, &[&ids]).await?;
    // Known when the query is planned, so that the other days' partitions cost nothing.
    let (from, to): (Option<Micros>, Option<Micros>) = (span.get(0), span.get(1));
    tally.run("SET", "SET LOCAL enable_seqscan = off").await?;
    let rows = tally.execute("reading hits of batches", READ, &[&ids, &from, &to]).await?;
    tally.run("SET", "SET LOCAL enable_seqscan = on").await?;
    Ok(rows)
}

/// The batches whose number of hits differs from the loaded one, with their number.
async fn compare<'a>(tally: &Tally, batches: &'a [Batch]) -> Result<Vec<(&'a Batch, u64)>, TallyError> {
    let count = tally.client().query("SELECT n, count(*) FROM work_hits GROUP BY n", &[]);
    let rows = within(tally::STATEMENT_TIMEOUT, "counting hits of batches", count).await?;
    let counts: HashMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let found = |(number, batch)| (batch, counts.get(&number).map_or(0, |&rows| rows as u64));
    Ok((1..).zip(batches).map(found).filter(|(batch, rows)| *rows != batch.loaded).collect())
}

/// Gives the batches their numbers.
async fn publish(tally: &Tally, state: &mut State, batches: &[Batch]) -> Result<(), TallyError> {
    let (mut ids, mut numbers, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        state.published += 1;
        ids.push(batch.id);
        numbers.push(state.published);
        events.push(state.events);
        state.events += batch.events;
    }
    let written = tally.execute("publishing batches", PUBLISH, &[&ids, &numbers, &events]).await?;
    same("batches published", ids.len() as u64, written)?;
    let write = "UPDATE rollup_state SET published = $1, events = $2";
    let written = tally.execute("writing rollup_state", write, &[&state.published, &state.events]).await?;
    same("rollup_state", 1, written)
}

/// What waits to be rolled up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backlog {
    /// Batches that are pending; counted up to a hundred thousand.
    pub batches: i64,
    /// Seconds since the oldest of them was loaded.
    pub age_seconds: f64,
}

/// Reads the backlog.
pub async fn backlog(tally: &Tally) -> Result<Backlog, DbError> {
    let select = "SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp() - min(loaded_at)), 0)::float8 \
                  FROM (SELECT loaded_at FROM batches WHERE published IS NULL ORDER BY id LIMIT 100000) AS b";
    let row = within(QUERY_TIMEOUT, "looking at the backlog", tally.client().query_one(select, &[])).await?;
    Ok(Backlog { batches: row.get(0), age_seconds: row.get(1) })
}
