//! Five years of days on a PostgreSQL with room for few locks; and, in `publications`, days whose changes are
//! published.

mod publications;

use std::io;

use bytes::Bytes;
use pixeld::parts::db::export::{Export, Sink};
use pixeld::parts::db::log::{self, Wanted};
use pixeld::parts::db::{Database, migrate};
use pixeld::parts::rollup::change::{Changes, StoredHit, Target, Verdict, count_to_delete};
use pixeld::parts::rollup::retention_day::{Dropped, drop_day, overdue};
use pixeld_core::ids::{MessageId, RecipientId};
use pixeld_core::privacy::RecipientHash;
use pixeld_testkit::postgres::Postgres;
use pixeld_testkit::process::wait_until;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::kit::support::{PATIENCE, beside};
use crate::opens::recount;

/// All of them are closed, and have their index.
const DAYS: u32 = 1800;

/// Days of one batch.
const BATCH_DAYS: u32 = 30;

/// Numbers of hits of one day; most of them are not loaded.
const SEQS: u32 = 10;

/// Fetched the same message every day.
const DAILY: RecipientId = RecipientId::from_u128(0xdada);
const DAILY_MESSAGE: MessageId = MessageId::from_u128(0xdade);

/// Has four hits on four days, one of them without a message.
const RARE: RecipientId = RecipientId::from_u128(0x4a4e);
const RARE_MESSAGE: MessageId = MessageId::from_u128(0x4a4f);

/// Was fetched on the first and on the last day.
const LONG_MESSAGE: MessageId = MessageId::from_u128(0x1009);

/// Half of PostgreSQL's own default; with pixeld's 40 connections that is room for about 2,000 locks, while three per
/// day would be 5,400. (By default it would be 4,000, and more if other parts of the shared memory leave some.)
const FEW_LOCKS: &str = "max_locks_per_transaction=32";

struct Books {
    postgres: Postgres,
    database: Database,
    runtime: Runtime,
}

impl Books {
    fn open() -> Books {
        let postgres = Postgres::start().unwrap();
        let database = Database::external(&postgres.url()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(migrate::run(&database)).unwrap();
        // Planning a query over all days takes long, and recounting runs twenty of them.
        postgres.query("CREATE TABLE copied (LIKE hits)").unwrap();
        recount::prepare_from(&postgres, "copied");
        Books { postgres, database, runtime }
    }

    /// All days, the oldest more than five years ago, with their hits, all rolled up.
    fn fill(&self) {
        let nil = Uuid::nil();
        for first in (0..DAYS).step_by(BATCH_DAYS as usize) {
            let (next, seqs) = (first + BATCH_DAYS, BATCH_DAYS * SEQS);
            self.query(&format!(
                "DO $$ DECLARE day date; name text; BEGIN FOR n IN {first}..{next} - 1 LOOP \
                   day := '2020-01-01'::date + n; name := 'hits_' || to_char(day, 'YYYYMMDD'); \
                   EXECUTE format('CREATE TABLE %I (LIKE hits INCLUDING ALL)', name); \
                   EXECUTE format('ALTER TABLE hits ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, \
                     day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00'); \
                   EXECUTE format('CREATE INDEX ON %I (recipient)', name); \
                 END LOOP; END $$"
            ));
            self.query(&format!(
                "WITH day AS (SELECT n, '2020-01-01 12:00:00+00'::timestamptz + n * interval '1 day' AS at \
                     FROM generate_series({first}, {next} - 1) AS n), \
                   fetched (n, at, k, message, recipient) AS ( \
                     SELECT n, at, 0, '{DAILY_MESSAGE}'::uuid, '{DAILY}'::uuid FROM day \
                     UNION ALL SELECT n, at, 1, ('aaaaaaaa-0000-0000-0000-00000000000' || n % 5)::uuid, \
                       ('bbbbbbbb-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid FROM day \
                     UNION ALL SELECT n, at, 2, '{RARE_MESSAGE}', '{RARE}' FROM day WHERE n IN (10, 900, 1790) \
                     UNION ALL SELECT n, at, 2, '{nil}', '{RARE}' FROM day WHERE n = 905 \
                     UNION ALL SELECT n, at, 3, '{LONG_MESSAGE}', ('cccccccc-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid \
                       FROM day WHERE n IN (0, {DAYS} - 1)), \
                   added AS (INSERT INTO hits (at, seq, user_agent, message, recipient, image, spool, class, rule, network, \
                       prefetch, client) \
                     SELECT at + k * interval '1 minute', n * {SEQS} + k, 7, message, recipient, gen_random_uuid(), 9000, \
                       (n + k) % 7, k, 0, false, k FROM fetched RETURNING at) \
                 INSERT INTO batches (spool, first_seq, next_seq, loaded, throttled, min_at, max_at) \
                 SELECT 9000, {first} * {SEQS}, {next} * {SEQS}, count(*), {seqs} - count(*), min(at), max(at) FROM added"
            ));
        }
        self.change(async |changes| changes.delete_hits(Target::Recipient(RecipientId::from_u128(1))).await.unwrap());
        assert_eq!(self.number("SELECT count(*) FROM batches WHERE published IS NULL"), 0);
    }

    /// Changes hits over a new connection. Returns the result, and the number of transactions.
    fn change<T>(&self, change: impl AsyncFnOnce(&mut Changes) -> T) -> (T, i64) {
        let count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        let before = self.number(count);
        let done = self.runtime.block_on(async {
            let mut changes = Changes::open(&self.database).await.unwrap();
            change(&mut changes).await
        });
        // A session reports its statistics before it is gone.
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pixeld-change'";
        wait_until("a session's end", PATIENCE, || {
            // Its task must run to its end.
            self.runtime.block_on(tokio::task::yield_now());
            self.number(gone) == 0
        })
        .unwrap();
        (done, self.number(count) - before)
    }

    fn query(&self, sql: &str) -> Vec<String> {
        self.postgres.query(sql).unwrap()
    }

    fn number(&self, sql: &str) -> i64 {
        self.postgres.number(sql).unwrap() as i64
    }

    fn restart_with(&mut self, settings: &[&str]) {
        self.postgres.restart_with(settings).unwrap();
    }

    /// Opens and counts match the hits. There must be room for all locks.
    fn assert_same(&self, when: &str) {
        self.query("TRUNCATE copied; INSERT INTO copied SELECT * FROM hits");
        recount::assert_same(&self.postgres, when);
    }

    /// All data in a recipient's export.
    fn exported(&self, recipient: RecipientId) -> String {
        struct Text(String);
        impl Sink for Text {
            async fn take(&mut self, part: Bytes) -> io::Result<()> {
                self.0.push_str(std::str::from_utf8(&part).unwrap());
                Ok(())
            }
        }
        let mut text = Text(String::new());
        self.runtime.block_on(async {
            let session = self.database.connect("test").await.unwrap();
            let export = Export::begin(&session.client, "test", recipient, RecipientHash([7; 16])).await.unwrap();
            export.write(&session.client, &mut text).await.unwrap();
        });
        text.0
    }

    /// Every hit that searches in the log find, one after the other.
    fn seen(&self, recipient: Option<RecipientId>, rows_max: i64) -> usize {
        let mut wanted = Wanted { recipient, rows_max, found_max: 100, ..Wanted::default() };
        self.runtime.block_on(async {
            let session = self.database.connect("test").await.unwrap();
            let mut seen = 0;
            loop {
                let look = log::look(&session.client, &wanted).await.unwrap();
                assert!(look.read <= rows_max && look.hits.windows(2).all(|two| two[0].place.at > two[1].place.at));
                seen += look.hits.len();
                wanted.behind = look.next;
                if look.next.is_none() {
                    return seen;
                }
            }
        })
    }
}

#[test]
fn five_years_of_days_need_few_locks_and_time_follows_hits() {
    let _machine = beside();
    let mut books = Books::open();
    // 1,800 days are 5,400 files.
    books.restart_with(&["fsync=off"]);
    books.fill();
    books.restart_with(&[FEW_LOCKS]);
    let all = (2 * DAYS + 6) as usize;
    assert!(
        books.postgres.query("SELECT count(*) FROM hits").is_err(),
        "there must be room for fewer locks than days have"
    );
    // PostgreSQL answers before it releases the locks.
    let locks = "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()";
    wait_until("the refused query gives its locks back", PATIENCE, || {
        books.postgres.number(locks).is_ok_and(|held| held < 100.0)
    })
    .unwrap();

    assert_eq!(books.exported(DAILY).matches("\"rule_says\"").count(), DAYS as usize);
    assert_eq!(books.exported(RARE).matches("\"rule_says\"").count(), 4);
    assert_eq!(books.seen(None, 1000), all);
    assert_eq!(books.seen(Some(RARE), 20_000), 4);
    let (from, to) = (time::macros::datetime!(2019-01-01 0:00 UTC), time::macros::datetime!(2030-01-01 0:00 UTC));
    let counted = books.runtime.block_on(async {
        let session = books.database.connect("test").await.unwrap();
        count_to_delete(&session.client, Target::Period { from, to }, 10_000).await.unwrap()
    });
    assert_eq!(counted as usize, all);

    let (deleted, transactions) =
        books.change(async |changes| changes.delete_hits(Target::Recipient(RARE)).await.unwrap());
    assert_eq!((deleted.hits, deleted.opens), (4, 1));
    assert!(transactions < 300, "{transactions} transactions for four hits");
    let (deleted, transactions) =
        books.change(async |changes| changes.delete_hits(Target::Message(LONG_MESSAGE)).await.unwrap());
    assert_eq!((deleted.hits, deleted.opens), (2, 2));
    assert!(transactions < 100, "{transactions} transactions for two hits");
    // One day's hit of an open that covers all of them is deleted.
    let from = time::macros::datetime!(2022-01-01 0:00 UTC);
    let one_day = Target::Period { from, to: from + time::Duration::DAY };
    let (deleted, _) = books.change(async |changes| changes.delete_hits(one_day).await.unwrap());
    assert_eq!((deleted.hits, deleted.opens), (2, 1));
    // Each day's hit is reclassified, and the open with it.
    books.change(async |changes| {
        for day in changes.partitions(Some(time::macros::datetime!(2024-12-01 0:00 UTC))).await.unwrap() {
            changes.reclassify_chunk(&day, None, judged_human).await.unwrap();
        }
    });
    assert_eq!(books.number(&format!("SELECT hits FROM opens WHERE recipient = '{DAILY}' AND best = 1")), 1799);

    books.restart_with(&["max_locks_per_transaction=1024"]);
    books.assert_same("after deletions");
    books.restart_with(&[FEW_LOCKS]);
    let (deleted, _) = books.change(async |changes| changes.delete_hits(Target::Recipient(DAILY)).await.unwrap());
    assert_eq!((deleted.hits, deleted.opens), (1799, 1));
    books.runtime.block_on(async {
        let mut changes = Changes::open(&books.database).await.unwrap();
        let session = books.database.connect("test").await.unwrap();
        let days = overdue(&session.client, 30).await.unwrap();
        changes.retain_from(days[9].to).await.unwrap();
        for day in &days[..10] {
            let dropped = drop_day(&session.client, day, PATIENCE).await.unwrap();
            assert!(matches!(dropped, Dropped::Gone { .. }), "{dropped:?}");
        }
    });
    books.restart_with(&["max_locks_per_transaction=1024"]);
    assert_eq!(books.number("SELECT count(*) FROM hits") as usize, all - 4 - 2 - 2 - 1799 - 10);
}

fn judged_human(hit: &StoredHit<'_>) -> Verdict {
    Verdict { class: 1, ..hit.judged }
}
