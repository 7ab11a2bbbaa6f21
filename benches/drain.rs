//! Drains a spool into a real PostgreSQL that belongs to this bench.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pixeld::parts::config::Config;
use pixeld::parts::db::{Database, migrate};
use pixeld::parts::ingest::loader::{Loader, LoaderOptions};
use pixeld_core::clock::now_micros;
use pixeld_core::drain;
use pixeld_core::hit::{Hit, Parcel};
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};
use pixeld_core::metrics::Metrics;
use pixeld_spool::appender::Appender;
use pixeld_spool::disk::RealDisk;
use pixeld_spool::orphans::Orphans;
use pixeld_spool::{Published, Spool, SpoolRoom};
use pixeld_testkit::postgres::Postgres;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGE: ImageId = ImageId::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_0009);

/// Hits of one drain.
const HITS: u64 = 100_000;

/// A spool of [`HITS`] hits, completely written.
fn written(folder: &std::path::Path, metrics: &Arc<Metrics>) -> Arc<Spool> {
    let spool = Spool::new(folder, SpoolId::random(), Published::default());
    let room = Arc::new(SpoolRoom::new(0, u64::MAX));
    let mut appender = Appender::new(Arc::clone(&spool), room, Arc::new(RealDisk), Arc::clone(metrics));
    for first in (0..HITS).step_by(100) {
        let mut bytes = Vec::new();
        for number in first..first + 100 {
            let hit = Hit {
                at: now_micros(),
                sent_at_s: 0,
                image: IMAGE,
                message: MessageId::from_u128(7),
                recipient: RecipientId::random(),
                network: 0,
                prefetch: false,
                address: Some(std::net::IpAddr::from([66, 249, 84, number as u8])),
                keys: None,
                is_erased: false,
                user_agent: "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
            };
            hit.encode(&mut bytes);
        }
        appender.append(&[Parcel { core: 0, number: first, count: 100, bytes }]).expect("the disk has room");
        appender.synced(u64::MAX);
    }
    appender.close();
    spool
}

/// The time in which the loader loads a spool.
fn drain(runtime: &tokio::runtime::Runtime, database: &Database) -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let metrics = Metrics::new(0);
    let spool = written(dir.path(), &metrics);
    let orphans = Arc::new(Orphans::find(dir.path().join("quarantine")));
    let Config { limits, privacy, storage, .. } = Config::from_vars([]).expect("the defaults");
    let (spools, node) = (dir.path().to_owned(), "bench".to_owned());
    let options = LoaderOptions { spools, node, limits, privacy, keep: storage.spool_keep };
    let loader = Loader::new(options, database.clone(), Arc::clone(&metrics), vec![spool], None, orphans);
    let (trigger, drain) = drain::drain();
    trigger.ask(Duration::from_secs(60));
    let started = Instant::now();
    let left = runtime.block_on(loader.run(std::future::ready(()), drain));
    assert_eq!((left, metrics.loaded.get()), (0, HITS));
    started.elapsed()
}

fn drains(criterion: &mut Criterion) {
    let postgres = Postgres::start().expect("PostgreSQL");
    let database = Database::external(&postgres.url()).expect("its URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(migrate::run(&database)).expect("migrations");
    let image = format!(
        "INSERT INTO images (id, media_type, width, height, bytes, sha256) VALUES ('{IMAGE}', 'image/gif', 1, 1, 'x', sha256('x'))"
    );
    postgres.query(&image).expect("an image");
    let mut group = criterion.benchmark_group("drain into PostgreSQL");
    group.throughput(Throughput::Elements(HITS)).sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("100,000 hits", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| drain(&runtime, &database)).sum());
    });
    group.finish();
}

criterion_group!(benches, drains);
criterion_main!(benches);
