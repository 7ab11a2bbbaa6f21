//! How fast loaded hits become opens and counts, in a real PostgreSQL of this bench with its default settings.
//!
//! `cargo bench --bench rollup`. First a backlog of few recipients, then a batch of twenty hits, each with all steps of
//! a transaction. The last bench fills opens with as many new recipients as hits, so the table and its key grow from
//! run to run, as in a running campaign; `ROLLUP_OPENS` sets the initial rows of opens (1,000,000 if it is not set).

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pixeld::parts::db::{Database, migrate, partitions};
use pixeld::parts::rollup::tally::{Lock, Tally};
use pixeld::parts::rollup::turn::{CHUNK_HITS_MAX, Mismatches, Outcome, Rolled, roll_up};
use pixeld_testkit::postgres::Postgres;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hits of one backlog, in batches of half a chunk.
const HITS: u64 = 500_000;
const BATCH: u64 = CHUNK_HITS_MAX / 2;

/// Hits of a second with little to do.
const TRICKLE: u64 = 20;

/// The day of all hits.
const DAY: time::Date = time::macros::date!(2026 - 03 - 02);

struct Bench {
    postgres: Postgres,
    database: Database,
    runtime: Runtime,
    next_seq: u64,
}

impl Bench {
    fn new() -> Bench {
        let postgres = Postgres::start().expect("PostgreSQL");
        let database = Database::external(&postgres.url()).expect("its URL");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            migrate::run(&database).await.expect("migrations");
            let session = database.connect("bench").await.expect("a connection");
            partitions::make(&session.client, DAY).await.expect("a partition");
        });
        Bench { postgres, database, runtime, next_seq: 0 }
    }

    /// Loads `count` hits of three messages; `recipient` is SQL over `n`.
    fn load(&mut self, count: u64, recipient: &str) {
        let batch = BATCH.min(count);
        for _ in 0..count / batch {
            let (first, next) = (self.next_seq, self.next_seq + batch);
            self.next_seq = next;
            let load = format!(
                "BEGIN; \
                 INSERT INTO hits (at, seq, user_agent, message, recipient, image, spool, class, rule, network, prefetch, client) \
                 SELECT '2026-03-02 00:00:00+00'::timestamptz + (n % 80000000) * interval '1 millisecond', n, 0, \
                   ('00000000-0000-0000-0000-00000000000' || (1 + n % 3))::uuid, {recipient}, \
                   '00000000-0000-0000-0000-0000000000aa', 1, n % 4, n % 9, 0, false, n % 5 \
                 FROM generate_series({first}::bigint, {next} - 1) AS n; \
                 INSERT INTO batches (spool, first_seq, next_seq, loaded, min_at, max_at) \
                 SELECT 1, {first}, {next}, {batch}, \
                   '2026-03-02 00:00:00+00'::timestamptz + ({first} % 80000000) * interval '1 millisecond', \
                   '2026-03-02 00:00:00+00'::timestamptz + (({next} - 1) % 80000000) * interval '1 millisecond'; COMMIT"
            );
            self.postgres.query(&load).expect("hits");
        }
    }

    /// Rolls up everything; returns the time.
    fn roll_up(&self) -> Duration {
        self.runtime.block_on(async {
            let tally = Tally::open(&self.database, "pixeld-rollup").await.expect("a connection");
            let mut mismatches = Mismatches::new(Duration::from_secs(60));
            let started = Instant::now();
            loop {
                let mut state = tally.begin(Lock::Try).await.expect("BEGIN").expect("the lock");
                let outcome = roll_up(&tally, &mut state, CHUNK_HITS_MAX, &mut mismatches).await.expect("a rollup");
                tally.commit().await.expect("COMMIT");
                match outcome {
                    Outcome::Rolled(Rolled { more: true, .. }) => {}
                    Outcome::Rolled(_) => return started.elapsed(),
                    Outcome::Mismatch => panic!("hits are missing"),
                }
            }
        })
    }

    fn measure(&mut self, runs: u64, hits: u64, recipient: &str) -> Duration {
        let run = |_| {
            self.load(hits, recipient);
            self.roll_up()
        };
        (0..runs).map(run).sum()
    }
}

/// A thousand recipients who open again and again.
const FEW: &str = "('00000000-0000-0000-0000-0000000' || (10000 + n % 1000))::uuid";
const NEW: &str = "gen_random_uuid()";

fn rollups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rollup");
    group.throughput(Throughput::Elements(HITS)).sample_size(10).measurement_time(Duration::from_secs(30));
    let mut bench = Bench::new();
    group.bench_function("few recipients", |bencher| bencher.iter_custom(|runs| bench.measure(runs, HITS, FEW)));
    group.throughput(Throughput::Elements(TRICKLE));
    group.bench_function("a trickle", |bencher| bencher.iter_custom(|runs| bench.measure(runs, TRICKLE, FEW)));
    group.throughput(Throughput::Elements(HITS));
    let opens = std::env::var("ROLLUP_OPENS").map_or(1_000_000, |text| text.parse().expect("ROLLUP_OPENS is a number"));
    let mut bench = Bench::new();
    bench.load(opens, NEW);
    let took = bench.roll_up();
    println!("the first {opens} recipients: {:.2} us a hit", took.as_secs_f64() * 1e6 / opens as f64);
    group.bench_function("new recipients", |bencher| bencher.iter_custom(|runs| bench.measure(runs, HITS, NEW)));
    group.finish();
}

criterion_group!(benches, rollups);
criterion_main!(benches);
