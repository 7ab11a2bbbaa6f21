//! What is older than the retention is deleted: days of hits, opens, user agents; under load, and during long queries.

use std::time::{Duration, Instant};

use loadtest::generator::Pace;
use pixeld::parts::db::{Database, migrate};
use pixeld::parts::rollup::change::Changes;
use pixeld::parts::rollup::retention_day::{Dropped, drop_day, overdue};
use pixeld_testkit::process::wait_until;

use crate::kit::holder::Holder;
use crate::kit::rows::Hits;
use crate::kit::support::{App, Postgres, alone, beside};
use crate::opens::recount;

/// Days of hits, including today, except one.
const DAYS: u32 = 40;

/// Hits are kept for this many days.
const KEPT: u32 = 30;

/// Age in days of the one day without hits: it passes the retention at 01:00 (UTC), which may be in the middle of a
/// test.
const BORDER: u32 = KEPT + 1;

/// The days of hits that are completely older than the retention, at any hour.
const OVERDUE: u64 = (DAYS - BORDER - 1) as u64;

/// How long the task may take.
const DONE: Duration = Duration::from_secs(60);

/// Tables of counts, which stay.
const COUNTS: [&str; 5] = ["message_hours", "site_hours", "image_hours", "message_facets", "messages"];

/// Loads 60 hits of each of the last days, and makes their partitions. Recipient 0 of each message has a hit each day;
/// all others have hits on one day only.
fn load_days(postgres: &Postgres) {
    let days = format!(
        "SELECT ((now() AT TIME ZONE 'UTC')::date - n)::text FROM generate_series(0, {DAYS} - 1) AS n ORDER BY n"
    );
    for (ago, day) in (0..).zip(postgres.query(&days).unwrap()).filter(|(ago, _)| *ago != BORDER) {
        let first_seq = 60 * u64::from(ago);
        let recipient = format!("CASE WHEN n < 3 THEN 0 ELSE 1 + {first_seq} + n END");
        Hits::new(60, format!("timestamptz '{day} 00:00:01+00' + n * interval '1 second'"))
            .of_spool(9000, first_seq)
            .with("user_agent", "7")
            .with("message", "('aaaaaaaa-0000-0000-0000-00000000000' || n % 3)::uuid")
            .with("recipient", format!("('bbbbbbbb-0000-0000-0000-' || lpad(({recipient})::text, 12, '0'))::uuid"))
            .with("class", "n % 7")
            .with("rule", "n % 4")
            .with("client", "n % 3")
            .load(postgres);
    }
}

/// Partitions of days that have hits of ours.
fn partitions(app: &App) -> u64 {
    app.number("SELECT count(DISTINCT tableoid) FROM hits WHERE spool = 9000")
}

fn with_days() -> App {
    let app = App::start();
    recount::prepare(&app.postgres);
    app.query(
        "INSERT INTO user_agents (id, user_agent, used_at) \
         VALUES (7, 'still used', now()), (8, 'used long ago', now() - interval '50 days')",
    );
    load_days(&app.postgres);
    app.wait_for_rollup();
    recount::assert_same(&app.postgres, "before");
    app
}

fn restart_keeping(app: &mut App) {
    app.server.terminate().unwrap();
    let settings = app.server.settings().clone().with("PIXELD_RETENTION_DAYS", KEPT.to_string());
    app.server = settings.start().unwrap();
}

/// The counts of the hours and messages of the old hits.
fn counts(app: &App) -> Vec<String> {
    COUNTS
        .iter()
        .flat_map(|table| {
            let of = match *table {
                "site_hours" => "hour < now() - interval '2 days'",
                "image_hours" => "image = 'cccccccc-0000-0000-0000-000000000001'",
                "messages" => "id::text LIKE 'aaaaaaaa%'",
                _ => "message::text LIKE 'aaaaaaaa%'",
            };
            app.query(&format!("SELECT t::text FROM {table} t WHERE {of} ORDER BY 1"))
        })
        .collect()
}

#[test]
fn days_beyond_the_retention_go_under_load_and_counts_stay() {
    let _machine = alone();
    let mut app = with_days();
    let before = counts(&app);
    app.server.terminate().unwrap();
    let settings = app.server.settings().clone().with("PIXELD_RETENTION_DAYS", KEPT.to_string());
    app.server = settings.start().unwrap();
    let load = app.load(32, Pace::Open(5000.0));
    wait_until("old days to go", DONE, || {
        app.server.metrics().is_ok_and(|metrics| metrics.get("pixeld_retention_days_deleted_total") == OVERDUE as f64)
    })
    .unwrap();
    load.wait_for(5000);
    let load = load.end();
    app.at_rest();
    load.assert_exact(&app.url());
    app.wait_for_rollup();
    let left = u64::from(DAYS) - 1 - OVERDUE;
    assert_eq!(partitions(&app), left);
    assert_eq!(app.server.metrics().unwrap().get("pixeld_retention_days_overdue"), 0.0);
    assert_eq!(app.number("SELECT count(*) FROM hits WHERE spool = 9000"), left * 60);
    wait_until("old opens to go", DONE, || {
        app.number("SELECT count(*) FROM opens, rollup_state WHERE last_at < retained_from") == 0
    })
    .unwrap();
    // Recipient 0 of each message came back each day: its open is frozen, and stays.
    assert_eq!(app.number("SELECT count(*) FROM opens, rollup_state WHERE first_at < retained_from"), 3);
    assert_eq!(app.number("SELECT count(*) FROM opens WHERE recipient::text LIKE 'bbbbbbbb%'"), 3 + left * 57);
    assert_eq!(counts(&app), before, "counts name nobody, and stay");
    wait_until("the old user agent to go", DONE, || app.number("SELECT count(*) FROM user_agents WHERE id = 8") == 0)
        .unwrap();
    assert_eq!(app.number("SELECT count(*) FROM user_agents WHERE id = 7"), 1);
    // Whatever is not frozen still follows from the hits.
    let differ = "SELECT count(*) FROM (SELECT message, recipient, image, first_at, last_at, hits, best FROM opens, rollup_state \
                    WHERE first_at >= retained_from \
                  EXCEPT ALL SELECT s.message, s.recipient, s.image, s.first_at, s.last_at, s.hits, s.best \
                    FROM should_opens s JOIN opens o USING (message, recipient), rollup_state WHERE o.first_at >= retained_from) AS d";
    assert_eq!(app.number(differ), 0);
    // A frozen open can be erased.
    let shown =
        app.server.settings().run(&["erase", "--recipient", "bbbbbbbb-0000-0000-0000-000000000000", "--wait"]).unwrap();
    assert!(shown.contains(&format!("{} hits and 3 opens", left * 3)), "{shown}");
}

#[test]
fn a_long_query_only_delays_it_and_loads_run_on() {
    let _machine = beside();
    let mut app = with_days();
    let reader = Holder::take(&app.postgres, "SELECT count(*) FROM hits");
    restart_keeping(&mut app);
    let load = app.load(16, Pace::Open(500.0));
    load.wait_for(1000);
    // Each of its attempts delays loads for a moment, and none permanently.
    let loaded = || app.server.metrics().unwrap().get("pixeld_hits_loaded_total");
    let (started, before) = (Instant::now(), loaded());
    wait_until("loads", DONE, || loaded() > before + 2000.0 && started.elapsed() > Duration::from_secs(7)).unwrap();
    assert_eq!(app.server.metrics().unwrap().get("pixeld_retention_days_overdue"), OVERDUE as f64);
    reader.let_go();
    wait_until("old days to go", DONE, || {
        app.server.metrics().is_ok_and(|metrics| metrics.get("pixeld_retention_days_overdue") == 0.0)
    })
    .unwrap();
    let load = load.end();
    app.at_rest();
    load.assert_exact(&app.url());
}

#[test]
fn a_day_with_hits_that_are_not_counted_yet_stays_until_they_are() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let database = Database::external(&postgres.url()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(migrate::run(&database)).unwrap();
    load_days(&postgres);
    runtime.block_on(async {
        let session = database.connect("test").await.unwrap();
        let days = overdue(&session.client, KEPT).await.unwrap();
        assert!(days.len() as u64 == OVERDUE && days.windows(2).all(|pair| pair[0].to == pair[1].from));
        let wait = Duration::from_millis(300);
        assert_eq!(drop_day(&session.client, &days[0], wait).await.unwrap(), Dropped::Pending);
        let mut changes = Changes::open(&database).await.unwrap();
        changes.retain_from(days[0].to).await.unwrap();

        let reader = database.connect("reader").await.unwrap();
        reader.client.batch_execute("BEGIN; SELECT count(*) FROM hits").await.unwrap();
        let started = Instant::now();
        assert_eq!(drop_day(&session.client, &days[0], wait).await.unwrap(), Dropped::Busy);
        assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
        reader.client.batch_execute("COMMIT").await.unwrap();

        let gone = drop_day(&session.client, &days[0], wait).await.unwrap();
        let Dropped::Gone { waited, held } = gone else { panic!("{gone:?}") };
        println!("a day of 60 hits: waited {waited:?}, held {held:?}");
        assert_eq!(overdue(&session.client, KEPT).await.unwrap(), days[1..]);
        // The opens of its recipients, except the frozen ones.
        assert_eq!(changes.forget_opens().await.unwrap(), 57);
        assert_eq!(changes.forget_opens().await.unwrap(), 0);
        // A later time does not move back.
        changes.retain_from(days[0].from).await.unwrap();
    });
    assert_eq!(postgres.number("SELECT count(*) FROM batches WHERE published IS NULL").unwrap(), 0.0);
}
