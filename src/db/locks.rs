//! Every advisory lock, and the order in which they may be held.
//!
//! | lock | held by | for how long | may be held already | may be taken while it is held |
//! |---|---|---|---|---|
//! | [`MIGRATING`] | `pixeld migrate`, the first connection of `serve` | its connection | nothing | nothing |
//! | [`IMPORTING`] | `pixeld import` | its connection | nothing | all that a loader takes |
//! | [`RETAINING`] | retention, on one node | its connection | nothing | a day of `hits`, then `hits` itself |
//! | [`INDEXING`] | a node that builds the indexes of closed days | its connection | nothing | nothing |
//! | [`FORGETTING`] | a node that deletes user agents that an erasure left without hits | its connection | nothing | [`LOADING`], alone |
//! | [`DELETING`] | a session that deletes the rows of one erasure | its connection | nothing | on another connection: the row of `rollup_state` |
//! | [`PARTITIONING`] | a loader that needs a new day | a transaction of its own | nothing | `hits`, to attach the day |
//! | [`LOADING`] | shared: a transaction that loads hits; alone: one that records an erasure | its transaction | [`IMPORTING`], [`FORGETTING`] | the row of `spool_marks`, [`OPTING`] |
//! | [`OPTING`] | shared: a change of opt-outs; alone: a reader of changes, and a node that puts lost ones back | its transaction; a reader's statement | [`LOADING`] | nothing |
//!
//! So the order is: a lock of a connection, then [`LOADING`], then the row of `spool_marks`, then [`OPTING`], then
//! other rows. A holder of a later one never requests an earlier one. [`PARTITIONING`] is separate: its transaction
//! holds no other. Rollup, reclassification and deletions exclude each other by the row of `rollup_state`
//! (`rollup/tally.rs`); none of the locks above is requested while it is held.
//!
//! Guarantees: [`begin_alone`] delays loaders by at most half a second at a time. Gives up: changing the numbers, since
//! nodes of different versions use the same database.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::{DbError, QUERY_TIMEOUT, within};

/// Held while migrations run: "pixeld" in ASCII, then 1.
pub const MIGRATING: i64 = 0x0070_6978_656c_6401;

/// Held while a partition is made, so that one node at a time does it.
pub const PARTITIONING: i64 = 0x7069_7865_6c64_0002;

/// Held while an index is made, so that one node at a time does it.
pub const INDEXING: i64 = 0x7069_7865_6c64_0003;

/// Held, shared, by a change of opt-outs until it is committed; taken alone, and released at once, by a reader of
/// changes.
pub const OPTING: i64 = 0x7069_7865_6c64_0006;

/// Held while an import runs.
pub const IMPORTING: i64 = 0x7069_7865_6c64_0010;

/// Held shared by each transaction that loads hits, and alone while an erasure is recorded.
pub const LOADING: i64 = 0x7069_7865_6c64_0071;

/// The first half of the lock that is held while an erasure's rows are deleted; the second half is the erasure's number.
pub const DELETING: i32 = 0x7078_0072;

/// Held while user agents that no hit may have any more are deleted.
pub const FORGETTING: i64 = 0x7069_7865_6c64_0073;

/// Held by the node that drops old days.
pub const RETAINING: i64 = 0x7069_7865_6c64_0074;

/// How long [`begin_alone`] waits for transactions that load hits, each time; during that time new ones wait behind it.
const ALONE_WAIT: &str = "500ms";

/// Maximum attempts, and the pause between two attempts.
const ALONE_TRIES: u32 = 120;
const ALONE_PAUSE: Duration = Duration::from_millis(250);

/// Takes a lock for as long as the connection lives, or until [`unlock`]. Returns whether it was free.
pub async fn try_lock(client: &Client, lock: i64) -> Result<bool, DbError> {
    let values: [&(dyn ToSql + Sync); 1] = [&lock];
    let asking = client.query_one("SELECT pg_try_advisory_lock($1)", &values);
    Ok(within(QUERY_TIMEOUT, "pg_try_advisory_lock", asking).await?.get(0))
}

/// Releases a lock of [`try_lock`].
pub async fn unlock(client: &Client, lock: i64) -> Result<(), DbError> {
    let values: [&(dyn ToSql + Sync); 1] = [&lock];
    let giving = client.execute("SELECT pg_advisory_unlock($1)", &values);
    within(QUERY_TIMEOUT, "pg_advisory_unlock", giving).await?;
    Ok(())
}

/// Begins a transaction that holds [`LOADING`] alone: no transaction that loads hits runs at the same time.
pub async fn begin_alone(client: &Client) -> Result<(), DbError> {
    let lock = format!(
        "BEGIN; SET LOCAL lock_timeout = '{ALONE_WAIT}'; SELECT pg_advisory_xact_lock({LOADING}); \
         SET LOCAL lock_timeout = '10s'"
    );
    for left in (0..ALONE_TRIES).rev() {
        match within(QUERY_TIMEOUT, "locking out loaders", client.batch_execute(&lock)).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                within(QUERY_TIMEOUT, "ROLLBACK", client.batch_execute("ROLLBACK")).await?;
                if left == 0 || error.sql_state() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
                    return Err(error);
                }
                tokio::time::sleep(ALONE_PAUSE).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_locks_are_one() {
        let mut locks = [MIGRATING, PARTITIONING, INDEXING, OPTING, IMPORTING, LOADING, FORGETTING, RETAINING];
        locks.sort_unstable();
        assert!(locks.windows(2).all(|pair| pair[0] != pair[1]), "{locks:x?}");
    }
}
