//! The opt-outs, by [`RecipientHash`]. Each change notifies all nodes in the same statement ([`CHANNEL`]), and writes
//! it to `audit`, too.
//!
//! Guarantees: a reader of changes ([`changes`]) misses nothing, not even a change that commits a moment later under an
//! earlier time or number: a change holds [`OPTING`] from before its time and number are taken until it is committed,
//! and a reader waits until it is free. So a loader that reads the changes after it has read its hits knows every
//! opt-out that began before that. Gives up: earlier periods; of several periods of one recipient only the last is
//! known.

use std::collections::HashSet;

use time::OffsetDateTime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use crate::db::locks::OPTING;
use crate::db::{DbError, QUERY_TIMEOUT, within};
use pixeld_core::clock::micros::Micros;
use pixeld_core::privacy::{RecipientHash, Suppression};

/// The channel that announces changes of the list; the payload is empty.
pub const CHANNEL: &str = "pixeld_suppressions";

/// Rows that are read at a time.
const PAGE_ROWS: i64 = 50_000;

/// Rows that are put back by one statement.
const PUT_BACK_ROWS: usize = 5000;

/// The result of an opt-out, or of undoing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The start of the current state; `None` if a recipient never opted out.
    pub since: Option<OffsetDateTime>,
    /// Whether this changed something.
    pub is_new: bool,
}

/// Reads what changed since `after`, which is the result of the last call (0 for everything), and passes it in parts to
/// `apply`, in the order of changes. Returns the number up to which nothing is missing.
///
/// # Errors
/// On a database error. What was applied until then stays applied.
pub async fn changes(client: &Client, after: i64, mut apply: impl FnMut(&[Suppression])) -> Result<i64, Error> {
    // One statement, so that a vanished client never keeps the lock. The next one sees all that was committed before
    // it. The number is the last one given before the lock: beyond it, a change may be seen before one with an earlier
    // number.
    let gate = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END, pg_advisory_lock($1), pg_advisory_unlock($1) \
                FROM suppressions_change";
    let complete: i64 = client.query_one(gate, &[&OPTING]).await?.get(0);
    let select = "SELECT hash, since, until, change FROM suppressions WHERE change > $1 ORDER BY change LIMIT $2";
    let mut last = after;
    loop {
        let rows = client.query(select, &[&last, &PAGE_ROWS]).await?;
        let page: Vec<Suppression> = rows.iter().map(suppression).collect();
        apply(&page);
        last = page.last().map_or(last, |row| row.change);
        if (page.len() as i64) < PAGE_ROWS {
            return Ok(complete);
        }
    }
}

/// A recipient's row; `None` if they never opted out.
pub async fn find(client: &Client, hash: RecipientHash) -> Result<Option<Suppression>, Error> {
    let select = "SELECT hash, since, until, change FROM suppressions WHERE hash = $1";
    Ok(client.query_opt(select, &[&&hash.0[..]]).await?.as_ref().map(suppression))
}

/// Which of these recipients are opted out now.
///
/// # Errors
/// On a database error, or after [`QUERY_TIMEOUT`].
pub async fn out_now(client: &Client, hashes: &[RecipientHash]) -> Result<HashSet<RecipientHash>, DbError> {
    let select = "SELECT hash FROM suppressions WHERE hash = ANY($1) AND until IS NULL";
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.0[..]).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&hashes, Type::BYTEA_ARRAY)];
    let asked = client.query_typed(select, &parameters);
    let rows = within(QUERY_TIMEOUT, "looking opt-outs up", asked).await?;
    Ok(rows.iter().map(|row| RecipientHash::of_column(row.get(0))).collect())
}

fn suppression(row: &tokio_postgres::Row) -> Suppression {
    Suppression { hash: RecipientHash::of_column(row.get(0)), since: row.get(1), until: row.get(2), change: row.get(3) }
}

/// Opts a recipient out, from now on. An existing opt-out keeps its start.
pub async fn opt_out(client: &Client, actor: &str, hash: RecipientHash) -> Result<Receipt, Error> {
    let change = "INSERT INTO suppressions AS s (hash, since, change) \
                  SELECT $1, clock_timestamp(), nextval('suppressions_change') FROM held \
                  ON CONFLICT (hash) DO UPDATE \
                    SET since = clock_timestamp(), until = NULL, change = nextval('suppressions_change') \
                    WHERE s.until IS NOT NULL \
                  RETURNING since AS at";
    let current = "SELECT since FROM suppressions WHERE hash = $1 AND until IS NULL";
    change_and_tell(client, change, current, actor, "opted out", hash).await
}

/// Undoes an opt-out, from now on.
pub async fn opt_in(client: &Client, actor: &str, hash: RecipientHash) -> Result<Receipt, Error> {
    let change = "UPDATE suppressions SET until = greatest(since, clock_timestamp()), change = nextval('suppressions_change') \
                  FROM held WHERE hash = $1 AND until IS NULL \
                  RETURNING until AS at";
    let current = "SELECT until FROM suppressions WHERE hash = $1 AND until IS NOT NULL";
    change_and_tell(client, change, current, actor, "opted in again", hash).await
}

/// Puts back what this node remembers and the database lacks, or has in an older state: the database was restored from
/// an older backup. The later time of a recipient wins. Numbers continue after `last_change`, the highest that this
/// node knows, so that none means two things. Returns how many rows were put back.
///
/// # Errors
/// On a database error; the connection must not be used again then. What was put back until then stays.
pub async fn put_back(client: &Client, remembered: &[Suppression], last_change: i64) -> Result<u64, Error> {
    // Alone: a number that another session takes at the same time must not be given twice.
    let move_numbers = format!(
        "BEGIN; SELECT pg_advisory_xact_lock({OPTING}); \
         SELECT setval('suppressions_change', GREATEST(last_value, {last_change})) FROM suppressions_change \
           WHERE {last_change} > 0 AND (last_value < {last_change} OR NOT is_called); COMMIT"
    );
    client.batch_execute(&move_numbers).await?;
    let insert = include_str!("suppressions/put_back.sql").replace("{lock}", &OPTING.to_string());
    let mut put_back = 0;
    for part in remembered.chunks(PUT_BACK_ROWS) {
        let hashes: Vec<&[u8]> = part.iter().map(|row| &row.hash.0[..]).collect();
        let since: Vec<Micros> = part.iter().map(|row| row.since).collect();
        let until: Vec<Option<Micros>> = part.iter().map(|row| row.until).collect();
        let back = client.query_opt(&insert, &[&hashes, &since, &until, &CHANNEL]).await?;
        put_back += back.map_or(0, |row| row.get::<_, i64>(0) as u64);
    }
    Ok(put_back)
}

async fn change_and_tell(
    client: &Client,
    change: &str,
    current: &str,
    actor: &str,
    action: &str,
    hash: RecipientHash,
) -> Result<Receipt, Error> {
    // The lock before everything else: MATERIALIZED, and each computed value needs its row.
    let statement = format!(
        "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({OPTING})), \
         changed AS ({change}), \
         noted AS (INSERT INTO audit (actor, action, subject) SELECT $2, $3, encode($1, 'hex') FROM changed) \
         SELECT at, pg_notify($4, '') FROM changed"
    );
    let hash = &hash.0[..];
    let values: [&(dyn ToSql + Sync); 4] = [&hash, &actor, &action, &CHANNEL];
    if let Some(row) = client.query_opt(&statement, &values).await? {
        return Ok(Receipt { since: Some(row.get(0)), is_new: true });
    }
    let row = client.query_opt(current, &[&hash]).await?;
    Ok(Receipt { since: row.map(|row| row.get(0)), is_new: false })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::db::{Database, migrate};

    const ANN: RecipientHash = RecipientHash([1; 16]);
    const BEN: RecipientHash = RecipientHash([2; 16]);

    async fn start() -> (tempfile::TempDir, Database, crate::db::Lease) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let database = Database::embedded_in(dir.path(), None).unwrap();
        let lease = database.start().await.unwrap();
        migrate::run(&database).await.unwrap();
        (dir, database, lease)
    }

    async fn changed(client: &Client, after: i64) -> (i64, Vec<Suppression>) {
        let mut rows = Vec::new();
        let last = changes(client, after, |page| rows.extend_from_slice(page)).await.unwrap();
        (last, rows)
    }

    #[tokio::test]
    async fn an_opt_out_is_written_once_taken_back_once_and_noted_without_a_name() {
        let (_dir, database, lease) = start().await;
        let (session, mut notices) = database.listen("test", CHANNEL).await.unwrap();
        let client = &session.client;
        assert_eq!(changed(client, 0).await, (0, vec![]));
        let never = opt_in(client, "test", ANN).await.unwrap();
        assert_eq!(never, Receipt { since: None, is_new: false });
        let first = opt_out(client, "test", ANN).await.unwrap();
        assert!(first.is_new && first.since.is_some());
        assert_eq!(opt_out(client, "test", ANN).await.unwrap(), Receipt { is_new: false, ..first });
        let (last, rows) = changed(client, 0).await;
        assert_eq!(changed(client, last).await, (last, vec![]));
        assert_eq!(rows.iter().map(|row| (row.hash, row.until)).collect::<Vec<_>>(), [(ANN, None)]);
        assert_eq!(Some(rows[0].since), first.since.map(Micros::from));
        let back = opt_in(client, "test", ANN).await.unwrap();
        assert!(back.is_new && back.since > first.since);
        assert_eq!(opt_in(client, "test", ANN).await.unwrap(), Receipt { is_new: false, ..back });
        opt_out(client, "test", BEN).await.unwrap();
        let (last, rows) = changed(client, last).await;
        assert_eq!(
            rows.iter().map(|row| (row.hash, row.until.is_some())).collect::<Vec<_>>(),
            [(ANN, true), (BEN, false)]
        );
        let again = opt_out(client, "test", ANN).await.unwrap();
        assert!(again.is_new && again.since > back.since);
        let found = find(client, ANN).await.unwrap().unwrap();
        assert_eq!(changed(client, last).await.1, [found]);
        assert_eq!((found.until, find(client, RecipientHash([3; 16])).await.unwrap()), (None, None));
        for _ in 0..4 {
            assert_eq!(notices.recv().await.as_deref(), Some(""));
        }
        assert!(notices.try_recv().is_err(), "what changed nothing is not told");
        let noted = "SELECT string_agg(action || ' ' || left(subject, 4), ', ' ORDER BY id) FROM audit";
        let noted: String = client.query_one(noted, &[]).await.unwrap().get(0);
        assert_eq!(noted, "opted out 0101, opted in again 0101, opted out 0202, opted out 0101");
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_waits_for_an_uncommitted_opt_out_and_then_sees_it() {
        let (_dir, database, lease) = start().await;
        let (slow, quick, asking) = (
            database.connect("slow").await.unwrap(),
            database.connect("quick").await.unwrap(),
            database.connect("asking").await.unwrap(),
        );
        slow.client.batch_execute("BEGIN").await.unwrap();
        opt_out(&slow.client, "test", ANN).await.unwrap();
        // Others need not wait for it, although their number is a later one.
        opt_out(&quick.client, "test", BEN).await.unwrap();
        asking.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
        let mut asked = Box::pin(changed(&asking.client, 0));
        assert!(tokio::time::timeout(Duration::from_millis(300), asked.as_mut()).await.is_err());
        slow.client.batch_execute("COMMIT").await.unwrap();
        let (last, rows) = asked.await;
        assert_eq!(rows.iter().map(|row| row.hash).collect::<Vec<_>>(), [ANN, BEN]);
        // The lock was released at once, though the reader's transaction is still open.
        let taken = tokio::time::timeout(Duration::from_secs(5), opt_in(&quick.client, "test", ANN));
        assert!(taken.await.unwrap().unwrap().is_new);
        let (last, rows) = changed(&asking.client, last).await;
        assert_eq!(rows.iter().filter(|row| row.hash == ANN && row.until.is_some()).count(), 1);
        assert_eq!(changed(&asking.client, last).await, (last, vec![]));
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn the_later_opt_out_is_put_back_once_under_a_new_number() {
        let (_dir, database, lease) = start().await;
        let session = database.connect("test").await.unwrap();
        let client = &session.client;
        let cleo = RecipientHash([3; 16]);
        opt_out(client, "test", ANN).await.unwrap();
        opt_out(client, "test", BEN).await.unwrap();
        let ben = find(client, BEN).await.unwrap().unwrap();
        // Ann opted in after the backup and Cleo out; what is remembered of Ben is older than the row.
        let ann = Suppression {
            until: Some(ben.since + Duration::from_micros(1)),
            change: 8,
            ..find(client, ANN).await.unwrap().unwrap()
        };
        let remembered = [
            ann,
            Suppression { since: ben.since - Duration::from_micros(5), change: 1, ..ben },
            Suppression { hash: cleo, since: Micros(77), until: None, change: 9 },
        ];
        assert_eq!(put_back(client, &remembered, 9).await.unwrap(), 2);
        assert_eq!(put_back(client, &remembered, 9).await.unwrap(), 0);
        let (complete, rows) = changed(client, 9).await;
        assert_eq!((complete, rows.len(), find(client, BEN).await.unwrap()), (11, 2, Some(ben)));
        let found = find(client, ANN).await.unwrap().unwrap();
        assert_eq!((found.since, found.until), (ann.since, ann.until));
        assert_eq!(find(client, cleo).await.unwrap().map(|row| (row.since, row.until)), Some((Micros(77), None)));
        let noted = "SELECT string_agg(actor || detail, ', ') FROM audit WHERE action = 'opt-outs put back'";
        assert_eq!(client.query_one(noted, &[]).await.unwrap().get::<_, &str>(0), "pixeld{\"count\": 2}");
        lease.release().await.unwrap();
    }

    #[tokio::test]
    async fn a_long_list_is_read_page_by_page() {
        let (_dir, database, lease) = start().await;
        let session = database.connect("test").await.unwrap();
        let fill = "INSERT INTO suppressions (hash, since, change) \
                    SELECT substring(sha256(int4send(n)) FOR 16), now(), nextval('suppressions_change') \
                    FROM generate_series(1, 120000) AS n";
        session.client.batch_execute(fill).await.unwrap();
        let mut pages = Vec::new();
        let last = changes(&session.client, 0, |page| pages.push(page.len())).await.unwrap();
        assert_eq!((pages, last), (vec![50_000, 50_000, 20_000], 120_000));
        lease.release().await.unwrap();
    }
}
