//! User agents: which are stored, which are in use, and deleting the others, since one can identify a person.
//!
//! Guarantees: none is deleted that a hit has. Loaders report once in [`TOLD_AFTER`] which ones they use; one that was
//! not used since before the oldest hit is deleted without a search ([`forget_unused`]). One whose hits were erased is
//! doubted, searched for in all hits, and deleted if no hit has it and no loader has used it since
//! ([`forget_doubted`]).

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::{DbError, QUERY_TIMEOUT, locks, partitions, within};

/// How long after a report that a user agent is in use it is reported again.
pub(crate) const TOLD_AFTER: Duration = Duration::from_secs(12 * 3600);

/// User agents that one statement deletes, or that one search covers.
const FORGOTTEN_ROWS: i64 = 1000;

/// User agents that are tried one by one in a batch because PostgreSQL refuses them.
const REFUSED_MAX: usize = 64;

/// Margin before the oldest hit, so that a loader that reports late, or a hit whose clock was ahead, makes no
/// difference.
const UNUSED_MARGIN: Duration = Duration::from_secs(2 * 86_400);

/// Maximum time to search one partition for user agents.
const SCAN_TIMEOUT: Duration = Duration::from_secs(3600);

/// Which user agents are stored already; reports that these are in use.
///
/// One that is due for a report counts as stored only if its row could be locked: it may be in deletion at this moment.
pub(crate) async fn stored(client: &Client, ids: &[i64]) -> Result<Vec<i64>, Error> {
    let select = "WITH found AS (SELECT id, used_at < clock_timestamp() - make_interval(secs => $2) OR doubted_at IS NOT NULL \
                    AS is_due FROM user_agents WHERE id = ANY($1)), \
                  due AS (SELECT id FROM user_agents WHERE id IN (SELECT id FROM found WHERE is_due) ORDER BY id FOR UPDATE), \
                  told AS (UPDATE user_agents AS u SET used_at = clock_timestamp(), doubted_at = NULL FROM due \
                    WHERE u.id = due.id RETURNING u.id) \
                  SELECT id FROM found WHERE NOT is_due UNION ALL SELECT id FROM told";
    Ok(client.query(select, &[&ids, &TOLD_AFTER.as_secs_f64()]).await?.iter().map(|row| row.get(0)).collect())
}

/// Stores user agents, in a transaction of their own and in the order of their ids: two loaders that insert in
/// different orders within their long transactions would deadlock. Returns how many were new.
pub(crate) async fn store(client: &Client, mut agents: Vec<(i64, &str)>) -> Result<u64, Error> {
    agents.sort_unstable();
    let (ids, texts): (Vec<i64>, Vec<&str>) = agents.into_iter().unzip();
    let insert = "INSERT INTO user_agents (id, user_agent) SELECT * FROM unnest($1::bigint[], $2::text[]) AS new (id, ua) \
                  ORDER BY id ON CONFLICT (id) DO UPDATE SET used_at = clock_timestamp(), doubted_at = NULL \
                  RETURNING (xmax = 0)";
    Ok(client.query(insert, &[&ids, &texts]).await?.iter().filter(|row| row.get(0)).count() as u64)
}

/// Stores user agents as [`store`] does, and leaves out those whose text PostgreSQL refuses (an encoding, a custom
/// rule): halves are tried until the one is found. Returns how many were new, and which were left out; after
/// [`REFUSED_MAX`] of those, the rest is left out untried.
///
/// # Errors
/// On a database error other than a refused text.
pub(crate) async fn store_each(client: &Client, agents: Vec<(i64, &str)>) -> Result<(u64, BTreeSet<i64>), Error> {
    let (mut new, mut refused) = (0, BTreeSet::new());
    let mut parts = vec![agents];
    while let Some(part) = parts.pop() {
        if refused.len() >= REFUSED_MAX {
            refused.extend(part.iter().map(|&(id, _)| id));
            continue;
        }
        match store(client, part.clone()).await {
            Ok(stored) => new += stored,
            Err(error) if !is_of_data(&error) => return Err(error),
            Err(error) if part.len() == 1 => {
                // Without the text, which the server's message may quote.
                let (sqlstate, id) =
                    (error.code().map_or("", |code| code.code()), part.first().map_or(0, |&(id, _)| id));
                tracing::warn!(sqlstate, id, "PostgreSQL refuses a user agent; pixeld stores its hits without it");
                refused.insert(id);
            }
            Err(_) => parts.extend(part.chunks(part.len().div_ceil(2)).map(<[_]>::to_vec)),
        }
    }
    Ok((new, refused))
}

/// Whether an error concerns the values: they are wrong (class 22), violate a rule (23, P0 in a trigger) or are too
/// long (54).
fn is_of_data(error: &Error) -> bool {
    let code = error.code().map_or("", |code| code.code());
    ["22", "23", "54", "P0"].iter().any(|class| code.starts_with(class))
}

/// Deletes those that were not used since before `retained_from`, in bounded statements. Returns how many.
pub(crate) async fn forget_unused(client: &Client, retained_from: OffsetDateTime) -> Result<u64, DbError> {
    let delete = "DELETE FROM user_agents WHERE id IN (SELECT id FROM user_agents \
                    WHERE used_at < $1::timestamptz - make_interval(secs => $2) AND id <> 0 ORDER BY used_at LIMIT $3 FOR UPDATE SKIP LOCKED)";
    let margin_s = UNUSED_MARGIN.as_secs_f64();
    let mut forgotten = 0;
    loop {
        let values: [&(dyn ToSql + Sync); 3] = [&retained_from, &margin_s, &FORGOTTEN_ROWS];
        let deleting = client.execute(delete, &values);
        let gone = within(QUERY_TIMEOUT, "forgetting user agents", deleting).await?;
        forgotten += gone;
        if gone < FORGOTTEN_ROWS as u64 {
            return Ok(forgotten);
        }
    }
}

/// Deletes those of erased hits that no other hit has. Does nothing while another node is doing it. Returns how many.
pub(crate) async fn forget_doubted(client: &Client) -> Result<u64, DbError> {
    let any = client.query_one("SELECT EXISTS (SELECT 1 FROM user_agents WHERE doubted_at IS NOT NULL)", &[]);
    if !within(QUERY_TIMEOUT, "looking for doubted user agents", any).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    if !locks::try_lock(client, locks::FORGETTING).await? {
        return Ok(0);
    }
    let mut forgotten = 0;
    loop {
        let (looked_for, gone) = forget_some(client).await?;
        forgotten += gone;
        if looked_for < FORGOTTEN_ROWS as usize {
            break;
        }
    }
    locks::unlock(client, locks::FORGETTING).await?;
    Ok(forgotten)
}

/// Searches for some of them. Returns how many, and how many were deleted.
async fn forget_some(client: &Client) -> Result<(usize, u64), DbError> {
    // From here on a loader of hits has reported again which user agents it uses.
    locks::begin_alone(client).await?;
    let select = "WITH moved AS (UPDATE erasure_state SET version = version + 1) \
                  SELECT id, clock_timestamp() FROM user_agents WHERE doubted_at IS NOT NULL AND id <> 0 ORDER BY id LIMIT $1";
    let rows = within(QUERY_TIMEOUT, "listing user agents", client.query(select, &[&FORGOTTEN_ROWS])).await?;
    within(QUERY_TIMEOUT, "COMMIT", client.batch_execute("COMMIT")).await?;
    let Some(since) = rows.first().map(|row| row.get::<_, OffsetDateTime>(1)) else { return Ok((0, 0)) };
    let mut left: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let looked_for = left.len();
    client.batch_execute("SET statement_timeout = 0").await?;
    // Newest first: common ones are found there at once.
    for day in partitions::since(client, None).await?.iter().rev() {
        if left.is_empty() {
            break;
        }
        let ids: Vec<i64> = left.iter().copied().collect();
        let find = format!("SELECT DISTINCT user_agent FROM {} WHERE user_agent = ANY($1)", day.name);
        let used = within(SCAN_TIMEOUT, "looking for user agents", client.query(&find, &[&ids])).await?;
        used.iter().for_each(|row| {
            left.remove(&row.get::<_, i64>(0));
        });
    }
    client.batch_execute("SET statement_timeout = '60s'").await?;
    let unused: Vec<i64> = left.into_iter().collect();
    let all: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let settle = "WITH gone AS (DELETE FROM user_agents WHERE id = ANY($1) AND doubted_at <= $3 RETURNING id), \
                  kept AS (UPDATE user_agents SET doubted_at = NULL \
                    WHERE id = ANY($2) AND NOT id = ANY($1) AND doubted_at <= $3) \
                  SELECT count(*) FROM gone";
    locks::begin_alone(client).await?;
    let row =
        within(QUERY_TIMEOUT, "forgetting user agents", client.query_one(settle, &[&unused, &all, &since])).await?;
    within(QUERY_TIMEOUT, "COMMIT", client.batch_execute("COMMIT")).await?;
    Ok((looked_for, row.get::<_, i64>(0) as u64))
}
