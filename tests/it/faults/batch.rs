//! A batch's transaction, step by step: mistakes that a caller cannot make, on a real PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use pixeld::parts::db::{Database, Session, migrate};
use pixeld::parts::ingest::batch::{BatchError, BatchTransaction, RowsCopied};
use pixeld::parts::ingest::judge::{Bounds, Judged, Judging};
use pixeld::parts::ingest::known::Known;
use pixeld::parts::ingest::memory::Memory;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::hit::fixture::carrying;
use pixeld_testkit::postgres::Postgres;
use uuid::Uuid;

/// Noon of a day that has a partition.
const NOON: Micros = Micros::of_seconds(20_000 * 86_400 + 43_200);

struct Setup {
    sessions: [Session; 2],
    /// A second connection that observes.
    beside: Session,
    spool: i32,
}

impl Setup {
    fn run(test: impl AsyncFnOnce(Setup)) {
        let postgres = Postgres::start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let database = Database::external(&postgres.url()).unwrap();
            migrate::run(&database).await.unwrap();
            let sessions = [database.connect("test").await.unwrap(), database.connect("test").await.unwrap()];
            let insert = "INSERT INTO spool_marks (spool_uuid, node) VALUES ($1, 'n') RETURNING spool";
            let spool = sessions[0].client.query_one(insert, &[&Uuid::new_v4()]).await.unwrap().get(0);
            let beside = database.connect("test").await.unwrap();
            test(Setup { sessions, beside, spool }).await;
        });
    }

    /// Two hits from number `first_seq` on, copied on one of the connections.
    async fn copy<'c>(
        &'c self,
        session: usize,
        first_seq: u64,
        memory: &mut Memory,
    ) -> Result<(BatchTransaction<'c, RowsCopied>, Judged), BatchError> {
        let client = &self.sessions[session].client;
        let mut hits = [hit(), hit()];
        let limit = Duration::from_secs(60);
        memory.leave_erased_out(client, &mut hits, Duration::ZERO, limit).await.unwrap();
        memory.learn(client, &hits, limit).await.unwrap();
        let bounds = Bounds { now: NOON, built_at: Micros(0), retention: None };
        memory.partitions.make(client, bounds.days(&hits), limit).await.unwrap();
        let judging = Judging::new(&hits, first_seq, self.spool, bounds, None, &memory.known);
        memory.copy(client, self.spool, first_seq, judging).await
    }

    /// Rows, batches, and the mark.
    async fn state(&self) -> String {
        let select = "SELECT (SELECT count(*) FROM hits) || ' ' || (SELECT count(*) FROM batches) || ' ' || next_seq FROM spool_marks";
        self.beside.client.query_one(select, &[]).await.unwrap().get(0)
    }
}

fn hit() -> Hit<'static> {
    Hit { at: NOON, ..carrying(3, "a mail program") }
}

fn memory() -> Memory {
    // Every image counts as existing.
    Memory::new(Known::of_import(), Arc::default())
}

#[test]
fn of_two_batches_with_the_same_numbers_one_is_loaded() {
    Setup::run(async |setup| {
        let (mut first, mut second) = (memory(), memory());
        let (copied, judged) = setup.copy(0, 0, &mut first).await.unwrap();
        let record = copied.record(2, &judged);
        let (other, committed) = tokio::join!(setup.copy(1, 0, &mut second), async {
            // The other one waits for the mark's row, which this one holds.
            setup.until_one_waits().await;
            copied.commit(&record).await
        });
        committed.unwrap();
        assert!(matches!(other, Err(BatchError::MarkMoved(2))), "{:?}", other.err());
        assert_eq!(setup.state().await, "2 1 2");
        let (copied, judged) = setup.copy(1, 2, &mut second).await.unwrap();
        let record = copied.record(4, &judged);
        copied.commit(&record).await.unwrap();
        assert_eq!(setup.state().await, "4 2 4");
    });
}

#[test]
fn a_batch_is_not_committed_after_an_ignored_failed_statement() {
    Setup::run(async |setup| {
        let (copied, judged) = setup.copy(0, 0, &mut memory()).await.unwrap();
        let record = copied.record(2, &judged);
        copied.client().batch_execute("SELECT 1 / 0").await.unwrap_err();
        let outcome = copied.commit(&record).await;
        assert!(matches!(outcome, Err(BatchError::Unclear(_))), "{outcome:?}");
        assert_eq!(setup.state().await, "0 0 0");
    });
}

#[test]
fn a_batch_is_not_committed_with_another_count_than_postgresql_has() {
    Setup::run(async |setup| {
        let (copied, judged) = setup.copy(0, 0, &mut memory()).await.unwrap();
        let mut record = copied.record(2, &judged);
        record.loaded += 1;
        let outcome = copied.commit(&record).await;
        assert!(matches!(outcome, Err(BatchError::Count { sent: 3, got: 2, .. })), "{outcome:?}");
        assert_eq!(setup.state().await, "0 0 0");
    });
}

#[test]
fn a_batch_is_refused_that_was_prepared_before_the_latest_erasure() {
    Setup::run(async |setup| {
        let mut memory = memory();
        let (copied, judged) = setup.copy(0, 0, &mut memory).await.unwrap();
        let record = copied.record(2, &judged);
        copied.commit(&record).await.unwrap();
        setup.beside.client.execute("UPDATE erasure_state SET version = version + 1", &[]).await.unwrap();
        let refused = setup.copy(0, 2, &mut memory).await;
        assert!(matches!(refused, Err(BatchError::Erasures)), "{:?}", refused.err());
        assert_eq!(setup.state().await, "2 1 2");
        memory.erased.forget();
        let (copied, judged) = setup.copy(0, 2, &mut memory).await.unwrap();
        let record = copied.record(4, &judged);
        copied.commit(&record).await.unwrap();
        assert_eq!(setup.state().await, "4 2 4");
    });
}

impl Setup {
    async fn until_one_waits(&self) {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'test'";
        for _ in 0..600 {
            if self.beside.client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("nobody waits for the mark");
    }
}
