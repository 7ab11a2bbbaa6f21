//! How long loads wait while days older than the retention are dropped: a month of a year of hits, under a running
//! pixeld.
//!
//! `RETENTION_ROWS=100000000 cargo bench --bench retention` (1,000,000 rows if it is not set; 100 million need about 20
//! GB of disk and ten minutes to fill in). Prints the longest wait for `hits` and the longest time it was held, and how
//! late hits reached PostgreSQL at the same time, measured from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use loadtest::generator::{self, Control, Pace, Plan, Reuse};
use loadtest::ledger::Ledger;
use loadtest::pixels::Pixels;
use pixeld::parts::db::Database;
use pixeld::parts::rollup::change::Changes;
use pixeld::parts::rollup::retention::LOCK_WAITS;
use pixeld::parts::rollup::retention_day::{Dropped, drop_day, overdue};
use pixeld_testkit::postgres::{Postgres, open_dir};
use pixeld_testkit::server::{Server, Settings};

/// Days of hits.
const DAYS: u64 = 365;

/// Days that are kept: a month is dropped.
const KEPT: u32 = 335;

/// Hits a second during the drop.
const RATE: f64 = 3000.0;

fn main() {
    // `cargo test --benches` only checks that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rows: u64 = std::env::var("RETENTION_ROWS").map_or(1_000_000, |rows| rows.parse().expect("a number"));
    let postgres = Postgres::start().expect("PostgreSQL");
    let database = Database::external(&postgres.url()).expect("its URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dir = open_dir().expect("a directory");
    let program = env!("CARGO_BIN_EXE_pixeld");
    let settings = Settings::new(program, dir.path().join("data")).expect("ports").with("DATABASE_URL", postgres.url());
    settings.run(&["migrate"]).expect("migrations");
    let started = Instant::now();
    for day in 0..DAYS {
        postgres.query(&day_of_hits(day, rows / DAYS)).expect("hits");
    }
    println!("{rows} hits in {DAYS} days, indexed as closed days are, made in {:.0?}", started.elapsed());

    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    let image = settings.run(&["image", "add", picture]).expect("an image").trim().parse().expect("its id");
    let server = settings.start().expect("pixeld");
    let (ledger, control) = (Arc::new(Ledger::new(20_000_000)), Arc::new(Control::default()));
    let pixels = Pixels::of(image);
    let plan = Plan {
        target: server.public(),
        pixels: pixels.clone(),
        pace: Pace::Open(RATE),
        reuse: Reuse::KeepAlive,
        connections: 16,
        threads: 1,
        duration: Duration::from_secs(3600),
    };
    let (ledger_too, control_too) = (Arc::clone(&ledger), Arc::clone(&control));
    #[expect(clippy::disallowed_methods, reason = "it is joined below")]
    let load = std::thread::spawn(move || generator::run(&plan, &ledger_too, &control_too));
    std::thread::sleep(Duration::from_secs(5));

    let is_going = AtomicBool::new(true);
    let mut worst = (0.0_f64, 0.0_f64);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| worst_lag(&server, &is_going));
        // A quiet stretch of the same load, to compare with.
        std::thread::sleep(Duration::from_secs(5));
        is_going.store(false, Ordering::Relaxed);
        worst.0 = watching.join().expect("the lag");
        is_going.store(true, Ordering::Relaxed);
        let watching = scope.spawn(|| worst_lag(&server, &is_going));
        runtime.block_on(drop_month(&database));
        is_going.store(false, Ordering::Relaxed);
        worst.1 = watching.join().expect("the lag");
    });
    println!("hits were at most {:.2} s late before, {:.2} s while the month went", worst.0, worst.1);
    control.stop.store(true, Ordering::Relaxed);
    load.join().expect("the load").expect("the load");
    server.at_rest(Duration::from_secs(60)).expect("everything loaded");
    let comparison = loadtest::reconcile::reconcile(&postgres.url(), &pixels, &ledger).expect("the rows");
    println!("{comparison}");
    assert!(comparison.is_exact(), "every answered hit is a row");
}

/// The maximum delay of hits during the drop.
fn worst_lag(server: &Server, is_going: &AtomicBool) -> f64 {
    let mut worst = 0.0_f64;
    while is_going.load(Ordering::Relaxed) {
        worst = worst.max(server.metrics().map_or(0.0, |metrics| metrics.get("pixeld_load_lag_seconds")));
        std::thread::sleep(Duration::from_millis(10));
    }
    worst
}

/// SQL that makes a day with `hits` hits.
fn day_of_hits(day: u64, hits: u64) -> String {
    format!(
        "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {day}; name text := 'hits_' || to_char(day, 'YYYYMMDD'); BEGIN \
           EXECUTE format('CREATE TABLE %I (LIKE hits INCLUDING ALL)', name); \
           EXECUTE format('INSERT INTO %I (at, seq, user_agent, message, recipient, image, spool, class, rule, network, prefetch, ip) \
             SELECT %L::timestamptz + (86399.0 * n / {hits}) * interval ''1 second'', n, 0, ''00000000-0000-0000-0000-0000000000aa'', \
               gen_random_uuid(), ''00000000-0000-0000-0000-0000000000bb'', 9000, 1, 1, 0, false, ''192.0.2.1'' \
             FROM generate_series(0, {hits} - 1) AS n', name, day || ' 00:00:00+00'); \
           EXECUTE format('CREATE INDEX ON %I (recipient)', name); \
           EXECUTE format('ALTER TABLE hits ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, \
             day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00'); \
         END $$"
    )
}

/// What the task does, without its pauses while `hits` is in use.
async fn drop_month(database: &Database) {
    let session = database.connect("bench").await.expect("a connection");
    let days = overdue(&session.client, KEPT).await.expect("days");
    let last = days.last().expect("a month");
    Changes::open(database).await.expect("a connection").retain_from(last.to).await.expect("the lock");
    let (mut busy, mut longest, mut total) = (0, (Duration::ZERO, Duration::ZERO), (Duration::ZERO, Duration::ZERO));
    for day in &days {
        let mut waits = LOCK_WAITS.iter().cycle();
        loop {
            match drop_day(&session.client, day, *waits.next().expect("a wait")).await.expect("a day") {
                Dropped::Gone { waited, held } => {
                    longest = (longest.0.max(waited), longest.1.max(held));
                    total = (total.0 + waited, total.1 + held);
                    break;
                }
                Dropped::Busy => busy += 1,
                Dropped::Pending => panic!("nothing of it is pending"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    println!(
        "{} days gone: waited for hits at most {:.1?}, {:.1?} in all, and held it at most {:.1?}, {:.1?} in all; {busy} tries found it busy",
        days.len(),
        longest.0,
        total.0,
        longest.1,
        total.1
    );
}
