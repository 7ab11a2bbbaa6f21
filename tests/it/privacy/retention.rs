//! What is beyond the retention goes: days of hits, opens, user agents; under load, and while somebody reads.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use loadtest::generator::Pace;
use loadtest::process::wait_until;
use pixeld::db::{Database, migrate};
use pixeld::rollup::change::Changes;
use pixeld::rollup::retention_day::{Dropped, drop_day, overdue};

use crate::kit::support::{App, Postgres, alone, beside};
use crate::opens::recount;

/// Days of hits, today included, but for one.
const DAYS: u32 = 40;

/// Hits are kept for so many days.
const KEPT: u32 = 30;

/// Days ago of the one day without hits: it goes beyond the retention at 01:00 (UTC), which may come in the middle of a test.
const BORDER: u32 = KEPT + 1;

/// The days of hits that are wholly beyond the retention, at any hour.
const OVERDUE: u64 = (DAYS - BORDER - 1) as u64;

/// How long the task may take.
const DONE: Duration = Duration::from_secs(60);

/// Tables of counts, which stay.
const COUNTS: [&str; 5] = ["message_hours", "site_hours", "image_hours", "message_facets", "messages"];

/// SQL that makes a partition of each of the last days and loads 60 hits into it, as the loader does. Of recipient 0 in each message there
/// is a hit each day; all others come on one day only.
fn days_of_hits() -> String {
    format!(
        "DO $$ DECLARE day date; name text; BEGIN \
           FOR n IN 0..{DAYS} - 1 LOOP \
             CONTINUE WHEN n = {BORDER}; \
             day := (now() AT TIME ZONE 'UTC')::date - n; name := 'hits_' || to_char(day, 'YYYYMMDD'); \
             IF to_regclass(name) IS NULL THEN \
               EXECUTE format('CREATE TABLE %I (LIKE hits INCLUDING ALL)', name); \
               EXECUTE format('ALTER TABLE hits ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, \
                 day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00'); \
             END IF; \
             INSERT INTO hits (at, seq, user_agent, message, recipient, image, spool, class, rule, network, prefetch, client) \
             SELECT (day || ' 00:00:01+00')::timestamptz + k * interval '1 second', n * 60 + k, 7, \
               ('aaaaaaaa-0000-0000-0000-00000000000' || k % 3)::uuid, \
               ('bbbbbbbb-0000-0000-0000-' || lpad((CASE WHEN k < 3 THEN 0 ELSE 1 + n * 60 + k END)::text, 12, '0'))::uuid, \
               'cccccccc-0000-0000-0000-000000000001', 9000, k % 7, k % 4, 0, false, k % 3 \
             FROM generate_series(0, 59) AS k; \
             INSERT INTO batches (spool, first_seq, next_seq, loaded, min_at, max_at) \
             SELECT 9000, n * 60, n * 60 + 60, 60, min(at), max(at) FROM hits WHERE spool = 9000 AND seq / 60 = n; \
           END LOOP; END $$"
    )
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
    app.query(&days_of_hits());
    app.wait_for_rollup();
    recount::assert_same(&app.postgres, "before");
    app
}

fn restart_keeping(app: &mut App) {
    app.server.terminate().unwrap();
    let settings = app.server.settings().clone().with("PIXELD_RETENTION_DAYS", KEPT.to_string());
    app.server = settings.start().unwrap();
}

/// What each count says, in the hours and messages of the old hits.
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
    // Recipient 0 of each message came back each day: its open is frozen, and there.
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
    let reader = app.postgres.client("psql", &[]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut reader = reader.unwrap();
    let mut input = reader.stdin.take().unwrap();
    writeln!(input, "BEGIN; SELECT count(*) FROM hits;").unwrap();
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
                WHERE c.relname = 'hits' AND l.mode = 'AccessShareLock' AND l.granted AND l.pid <> pg_backend_pid()";
    wait_until("the reader", DONE, || app.number(held) > 0).unwrap();
    restart_keeping(&mut app);
    let load = app.load(16, Pace::Open(500.0));
    load.wait_for(1000);
    // Each of its tries holds loads up for a moment, and none for good.
    let loaded = || app.server.metrics().unwrap().get("pixeld_hits_loaded_total");
    let (started, before) = (Instant::now(), loaded());
    wait_until("loads", DONE, || loaded() > before + 2000.0 && started.elapsed() > Duration::from_secs(7)).unwrap();
    assert_eq!(app.server.metrics().unwrap().get("pixeld_retention_days_overdue"), OVERDUE as f64);
    drop(input);
    reader.wait().unwrap();
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
    runtime.block_on(async {
        migrate::run(&database).await.unwrap();
        let session = database.connect("test").await.unwrap();
        session.client.batch_execute(&days_of_hits()).await.unwrap();
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
        // Its recipients' opens but the frozen ones.
        assert_eq!(changes.forget_opens().await.unwrap(), 57);
        assert_eq!(changes.forget_opens().await.unwrap(), 0);
        // A later time does not go back.
        changes.retain_from(days[0].from).await.unwrap();
    });
    assert_eq!(postgres.number("SELECT count(*) FROM batches WHERE published IS NULL").unwrap(), 0.0);
}
