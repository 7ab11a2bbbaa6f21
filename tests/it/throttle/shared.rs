//! Two nodes, one PostgreSQL, one Redis: the same fetch is recorded once, and whatever happens to Redis, nothing is
//! lost and no answer waits. `throttle/script.rs` tests the script itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::generator::{Pace, Reuse};
use loadtest::pixels::Pixels;
use pixeld_core::clock::micros::Micros;
use pixeld_core::clock::now_micros;
use pixeld_core::hit::Hit;
use pixeld_core::hit::Parcel;
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};
use pixeld_core::metrics::Metrics;
use pixeld_spool::appender::Appender;
use pixeld_spool::disk::RealDisk;
use pixeld_spool::{Published, Spool, SpoolRoom};
use pixeld_testkit::process::wait_until;
use pixeld_testkit::redis::Redis;
use pixeld_testkit::server::{Server, Settings, exchange};
use uuid::Uuid;

use crate::kit::proxy::Proxy;
use crate::kit::support::{
    App, END_BACKENDS_AMID_COPY, Load, PATIENCE, PIXELD, Postgres, REST, alone, beside, wait_for_image,
};

/// How long a node may take to reconnect to Redis: the longest pause, and an attempt that hangs.
const BACK: Duration = PATIENCE;

/// A second node beside the one of an app.
struct Nodes {
    app: App,
    other: Server,
}

fn throttled(settings: Settings, redis: Option<&str>) -> Settings {
    let settings = settings.with("PIXELD_THROTTLE", "1h").with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8");
    match redis {
        Some(url) => settings.with("REDIS_URL", url),
        None => settings,
    }
}

impl Nodes {
    fn start(redis: Option<&str>) -> Nodes {
        Nodes::start_on(Postgres::start().unwrap(), redis, |_, settings| settings)
    }

    /// `change` receives the first node's settings; the second one connects to PostgreSQL directly.
    fn start_on(
        postgres: Postgres,
        redis: Option<&str>,
        change: impl FnOnce(&Postgres, Settings) -> Settings,
    ) -> Nodes {
        let app = App::start_on(postgres, |postgres, settings| throttled(change(postgres, settings), redis));
        let other = Settings::new(PIXELD, app.dir.path().join("other")).unwrap();
        let other = throttled(other.with("DATABASE_URL", app.url()), redis).start().unwrap();
        wait_for_image(&other, app.image);
        let nodes = Nodes { app, other };
        if redis.is_some() {
            nodes.wait_for_redis();
        }
        nodes
    }

    fn both(&self) -> [&Server; 2] {
        [&self.app.server, &self.other]
    }

    fn wait_for_redis(&self) {
        for server in self.both() {
            let is_up = || server.metrics().unwrap().get("pixeld_redis_up") == 1.0;
            wait_until("Redis", BACK, is_up).unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
        }
    }

    /// The same fetch on both, the second once the first is loaded. Returns its number of rows.
    fn fetch_on_both(&self) -> u64 {
        let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
        for server in self.both() {
            fetch(server, &self.app.pixel(message, recipient));
            server.at_rest(REST).unwrap();
        }
        self.app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"))
    }

    fn at_rest(&self) {
        for server in self.both() {
            server.at_rest(REST).unwrap();
        }
    }

    /// The sum of a metric over both.
    fn sum(&self, metric: &str) -> f64 {
        self.both().map(|server| server.metrics().unwrap().get(metric)).into_iter().sum()
    }
}

fn fetch(server: &Server, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: Thunderbird\r\nConnection: close\r\n\r\n");
    assert_eq!(exchange(server.public(), request.as_bytes()).unwrap().status, 200);
}

#[test]
fn the_same_recipient_on_two_nodes_is_one_row_with_redis_and_two_without() {
    let _machine = beside();
    let alone = Nodes::start(None);
    assert_eq!(alone.fetch_on_both(), 2);
    assert_eq!((alone.sum("pixeld_redis_up"), alone.sum("pixeld_throttle_alone_total")), (-2.0, 0.0));
    let redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    assert_eq!([nodes.fetch_on_both(), nodes.fetch_on_both()], [1, 1]);
    let metrics = nodes.other.metrics().unwrap();
    assert_eq!((metrics.dropped("throttled"), metrics.get("pixeld_throttled_elsewhere_total")), (2.0, 2.0));
    assert_eq!(nodes.app.number("SELECT sum(throttled) FROM batches"), 2);
    assert_eq!((nodes.sum("pixeld_throttle_shared_total"), nodes.sum("pixeld_redis_failures_total")), (4.0, 0.0));
    assert_eq!(redis.ask::<u64>("DBSIZE").unwrap(), 2);
}

#[test]
fn readers_without_a_recipient_are_recorded_on_each_node_and_redis_is_not_asked() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    let message = Uuid::new_v4();
    for server in nodes.both() {
        for _ in 0..20 {
            fetch(server, &format!("/image/{}_{message}.png", nodes.app.image));
        }
        assert_eq!(server.at_rest(REST).unwrap().dropped_all(), 0.0);
    }
    assert_eq!(nodes.app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 40);
    assert_eq!((redis.ask::<u64>("DBSIZE").unwrap(), nodes.sum("pixeld_throttle_shared_total")), (0, 0.0));
}

/// A node's spool on disk after an outage: hits of one recipient, at these times.
fn leave_spool(data: &Path, image: ImageId, recipient: RecipientId, times: &[Micros]) {
    let spool = Spool::new(&data.join("spool"), SpoolId::random(), Published::default());
    std::fs::create_dir_all(&spool.folder).unwrap();
    let room = Arc::new(SpoolRoom::new(0, u64::MAX));
    let mut appender = Appender::new(spool, room, Arc::new(RealDisk), Metrics::new(1));
    let mut bytes = Vec::new();
    for &at in times {
        let hit = Hit {
            at,
            sent_at_s: 0,
            image,
            message: MessageId::from_u128(7),
            recipient,
            network: 0,
            prefetch: false,
            address: Some([192, 0, 2, 1].into()),
            keys: None,
            is_erased: false,
            user_agent: "Thunderbird",
        };
        hit.encode(&mut bytes);
    }
    appender.append(&[Parcel { core: 0, number: 1, count: times.len() as u32, bytes }]).unwrap();
    appender.synced(u64::MAX);
    appender.close();
}

#[test]
fn after_an_outage_hits_two_hours_apart_stay_two_and_those_near_them_are_held_back() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let mut nodes = Nodes::start(Some(&redis.url()));
    nodes.app.server.terminate().unwrap();
    nodes.other.terminate().unwrap();
    // If a busy machine makes Redis answer too late, a node decides alone, which is not the outage's fault: try again.
    let both_asked = (0..10).any(|_| after_an_outage(&mut nodes, &redis));
    assert!(both_asked, "Redis never answers in time");
}

/// Returns whether Redis answered both nodes in time.
fn after_an_outage(nodes: &mut Nodes, redis: &Redis) -> bool {
    let (now, minute) = (now_micros(), Duration::from_mins(1));
    let recipient = RecipientId::random();
    // The later one first: neither node has them in their order.
    leave_spool(nodes.app.server.data_dir(), nodes.app.image, recipient, &[now - 60 * minute, now - 180 * minute]);
    leave_spool(nodes.other.data_dir(), nodes.app.image, recipient, &[now - 40 * minute, now - 210 * minute]);
    let keys: u64 = redis.ask("DBSIZE").unwrap();
    // One is retired, the other continues.
    nodes.app.server.settings().run(&["spool", "drain"]).unwrap();
    let rows = format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'");
    assert_eq!(nodes.app.number(&rows), 2);
    let throttled = nodes.app.number("SELECT sum(throttled) FROM batches");
    let is_known = redis.ask::<u64>("DBSIZE").unwrap() > keys;
    nodes.other = nodes.other.settings().clone().start().unwrap();
    let metrics = nodes.other.at_rest(REST).unwrap();
    let both_asked = is_known && metrics.get("pixeld_throttle_alone_total") == 0.0;
    if both_asked {
        assert_eq!((nodes.app.number(&rows), metrics.get("pixeld_throttled_elsewhere_total")), (2, 2.0));
        assert_eq!(nodes.app.number("SELECT sum(throttled) FROM batches"), throttled + 2);
    }
    nodes.other.terminate().unwrap();
    both_asked
}

#[test]
fn a_redis_that_was_killed_costs_a_row_a_node_and_a_new_empty_one_is_found() {
    let _machine = beside();
    let mut redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    assert_eq!(nodes.fetch_on_both(), 1);
    redis.kill().unwrap();
    assert_eq!(nodes.fetch_on_both(), 2);
    assert_eq!(nodes.sum("pixeld_redis_up"), 0.0);
    assert_eq!(nodes.sum("pixeld_throttle_alone_total"), 2.0);
    assert!(nodes.sum("pixeld_redis_failures_total") >= 2.0);
    // What this node recorded itself, it drops without Redis.
    let path = nodes.app.pixel(Uuid::new_v4(), Uuid::new_v4());
    (0..3).for_each(|_| fetch(&nodes.other, &path));
    assert_eq!(nodes.other.at_rest(REST).unwrap().dropped("throttled"), 3.0);
    redis.start_again().unwrap();
    nodes.wait_for_redis();
    assert_eq!([nodes.fetch_on_both(), nodes.fetch_on_both()], [1, 1]);
    let log = nodes.other.log();
    assert_eq!(log.matches("Redis cannot be used now").count(), 1, "{log}");
    assert_eq!(log.matches("Redis answers again").count(), 1, "{log}");
}

#[test]
fn a_redis_that_restarts_between_two_batches_or_forgets_its_scripts_is_not_even_noticed() {
    let _machine = alone();
    let mut redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    assert_eq!(nodes.fetch_on_both(), 1);
    redis.kill().unwrap();
    redis.start_again().unwrap();
    assert_eq!(nodes.fetch_on_both(), 1);
    assert_eq!(redis.ask::<String>("SCRIPT FLUSH").unwrap(), "OK");
    assert_eq!(nodes.fetch_on_both(), 1);
    assert_eq!(nodes.sum("pixeld_throttle_alone_total"), 0.0);
}

/// Rows per number of a load.
fn rows_of(nodes: &Nodes, pixels: &Pixels) -> HashMap<u64, usize> {
    let mut rows = HashMap::new();
    let messages: Vec<String> = pixels.messages().iter().map(|message| format!("'{message}'")).collect();
    let select = format!("SELECT recipient FROM hits WHERE message IN ({})", messages.join(", "));
    for recipient in nodes.app.query(&select) {
        *rows.entry(pixels.number(recipient.parse().unwrap()).unwrap()).or_default() += 1;
    }
    rows
}

#[test]
fn a_frozen_redis_under_load_changes_no_answer_and_costs_at_worst_a_row_a_node() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    // The same pixels on both, at a rate that leaves the machine room: the test checks latencies.
    let pixels = Pixels::of(nodes.app.image).with_forwarded_addresses();
    let begin = || nodes.both().map(|server| Load::of(server, pixels.clone(), 8, Pace::Open(1500.0), Reuse::KeepAlive));
    let calm = begin();
    calm[0].wait_for(6000);
    let calm = calm.map(Load::end);
    nodes.at_rest();
    let alone_before = nodes.sum("pixeld_throttle_alone_total");
    let pixels_in_calm = rows_of(&nodes, &pixels);
    let doubled = pixels_in_calm.values().filter(|rows| **rows > 1).count();
    println!("calm: {} recipients, {doubled} of them twice, {alone_before} hits alone", pixels_in_calm.len());
    assert!(doubled as f64 <= alone_before, "{doubled} twice, {alone_before} alone");

    let pixels = Pixels::of(nodes.app.image).with_forwarded_addresses();
    let begin = || nodes.both().map(|server| Load::of(server, pixels.clone(), 8, Pace::Open(1500.0), Reuse::KeepAlive));
    redis.freeze().unwrap();
    let frozen = Instant::now();
    let loads = begin();
    loads[0].wait_for(9000);
    let loads = loads.map(Load::end);
    for server in nodes.both() {
        // The loader keeps up: it waits for Redis once, not with each batch.
        server.at_rest(REST).unwrap();
        assert_eq!(server.metrics().unwrap().get("pixeld_redis_up"), 0.0);
    }
    println!("frozen for {:?}", frozen.elapsed());
    let rows = rows_of(&nodes, &pixels);
    assert!(rows.values().all(|rows| *rows <= 2), "at worst a row a node");
    for (calm, load) in calm.iter().zip(&loads) {
        assert_eq!((load.outcome.refused, load.outcome.broken, load.outcome.timed_out), (0, 0, 0));
        assert_eq!(load.reconcile(&nodes.app.url()).lost, 0);
        let [calm, frozen] = [calm, load].map(|load| load.outcome.latency.value_at_quantile(0.99) as f64 / 1e6);
        println!("99 % of answers within {calm:.2} ms with Redis, {frozen:.2} ms with a frozen one");
        // An answer that waited for Redis would wait as long as Redis is frozen.
        assert!(frozen < 1000.0, "{frozen:.2} ms, with Redis {calm:.2} ms");
    }
    let asked_alone = nodes.sum("pixeld_throttle_alone_total") - alone_before;
    let answered: f64 = loads.iter().map(|load| load.outcome.answered as f64).sum();
    assert!(asked_alone >= answered * 0.95, "{asked_alone} of {answered} were decided alone");

    redis.thaw().unwrap();
    nodes.wait_for_redis();
    assert_eq!([nodes.fetch_on_both(), nodes.fetch_on_both()], [1, 1]);
}

#[test]
fn batches_that_are_brought_again_lose_no_hit() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let postgres = Postgres::start().unwrap();
    let proxy = Proxy::start(postgres.socket());
    let nodes = Nodes::start_on(postgres, Some(&redis.url()), |_, settings| settings.with("DATABASE_URL", proxy.url()));
    let pixels = Pixels::of(nodes.app.image).with_forwarded_addresses();
    let loads = nodes.both().map(|server| Load::of(server, pixels.clone(), 8, Pace::Open(2000.0), Reuse::KeepAlive));
    loads[0].wait_for(2000);
    // On the first node each second COMMIT is cut off after it was sent; on both, backends are ended amid COPY.
    proxy.cut_each_commit(2);
    let ended = nodes.app.number(END_BACKENDS_AMID_COPY);
    wait_until("cuts", Duration::from_secs(60), || proxy.cuts() >= 5).unwrap();
    proxy.cut_each_commit(0);
    loads.iter().for_each(|load| load.wait_for(1000));
    let loads = loads.map(Load::end);
    nodes.at_rest();
    let alone = nodes.sum("pixeld_throttle_alone_total");
    let rows = rows_of(&nodes, &pixels);
    let doubled = rows.values().filter(|rows| **rows > 1).count();
    println!(
        "{ended} backends ended in COPY, {} commits cut, {} recipients, {doubled} twice, {alone} hits alone",
        proxy.cuts(),
        rows.len()
    );
    for load in &loads {
        let comparison = load.reconcile(&nodes.app.url());
        assert_eq!(comparison.lost, 0, "\n{comparison}");
    }
    assert!(rows.values().all(|rows| *rows <= 2) && doubled as f64 <= alone, "{doubled} twice, {alone} alone");
    assert!(ended >= 5, "{ended}");
    let throttled = nodes.both().map(|server| server.metrics().unwrap().dropped("throttled")).iter().sum::<f64>();
    assert_eq!(nodes.app.number("SELECT sum(throttled) FROM batches") as f64, throttled, "counted once each");
    assert!(throttled > 1000.0, "{throttled}");
}

#[test]
fn a_batch_whose_copy_failed_finds_its_own_name_and_goes_before_a_later_hit_of_another_node() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    // Makes the day's partition.
    assert_eq!(nodes.fetch_on_both(), 1);
    let recipient = Uuid::new_v4();
    let path = nodes.app.pixel(Uuid::new_v4(), recipient);
    let locked =
        "SELECT count(*) FROM pg_locks WHERE relation = 'hits'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    let ended = std::thread::scope(|scope| {
        let (nodes, first, path) = (&nodes, &nodes.app.server, path.as_str());
        scope.spawn(move || {
            wait_until("the lock", PATIENCE, || nodes.app.number(locked) == 1).unwrap();
            fetch(first, path);
        });
        // COPY waits for the table, and its backend is ended there: after Redis was asked, before anything is a row.
        nodes.app.number(
            "SET statement_timeout = 0; BEGIN; LOCK TABLE hits IN ACCESS EXCLUSIVE MODE; CREATE TEMP TABLE ended (pid int); \
             DO $$ BEGIN \
               WHILE clock_timestamp() < now() + interval '1 minute' LOOP \
                 PERFORM pg_stat_clear_snapshot(); \
                 INSERT INTO ended SELECT pid FROM pg_stat_activity WHERE application_name = 'pixeld-loader' \
                   AND wait_event_type = 'Lock' AND query LIKE 'COPY hits%' AND pg_terminate_backend(pid); \
                 EXIT WHEN FOUND; \
                 PERFORM pg_sleep(0.001); \
               END LOOP; \
             END $$; COMMIT; SELECT count(*) FROM ended",
        )
    });
    assert_eq!((ended, redis.ask::<u64>("DBSIZE").unwrap()), (1, 2));
    fetch(&nodes.other, &path);
    let (first, other) = (nodes.app.at_rest(), nodes.other.at_rest(REST).unwrap());
    assert_eq!(nodes.app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'")), 1);
    assert!(first.get("pixeld_load_retries_total") >= 1.0);
    assert_eq!((first.dropped_all(), first.get("pixeld_hits_loaded_total")), (0.0, 2.0), "the first node's is the row");
    assert_eq!(other.get("pixeld_throttled_elsewhere_total"), 2.0);
    // A connection that is just being ended may cost one more attempt.
    assert!(first.get("pixeld_throttle_shared_total") >= 3.0, "it asked again");
}

#[test]
fn a_hit_that_postgresql_refuses_holds_nothing_back_on_another_node() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let nodes = Nodes::start(Some(&redis.url()));
    let message = Uuid::new_v4();
    nodes.app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (message <> '{message}')"));
    let refused = nodes.app.pixel(message, Uuid::new_v4());
    // Among others, so that the batch is halved down to the refused one.
    for n in 0..20 {
        let other = nodes.app.pixel(Uuid::new_v4(), Uuid::new_v4());
        fetch(&nodes.app.server, if n == 7 { &refused } else { &other });
    }
    let metrics = nodes.app.at_rest();
    assert_eq!((metrics.dropped("quarantined"), metrics.get("pixeld_hits_loaded_total")), (1.0, 19.0));
    assert_eq!(redis.ask::<u64>("DBSIZE").unwrap(), 19, "the refused one gave its place back");
    nodes.app.query("ALTER TABLE hits DROP CONSTRAINT refused");
    fetch(&nodes.other, &refused);
    assert_eq!(nodes.other.at_rest(REST).unwrap().dropped_all(), 0.0);
    assert_eq!(nodes.app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 1);
}

#[test]
fn a_redis_that_refuses_is_logged_once_and_each_node_throttles_alone() {
    let _machine = beside();
    let redis = Redis::start_with(Some("the-right-one")).unwrap();
    let app = App::start_with(|settings| throttled(settings, Some(&redis.url_with(Some("hunter2-is-wrong")))));
    let path = app.pixel(Uuid::new_v4(), Uuid::new_v4());
    for _ in 0..3 {
        fetch(&app.server, &path);
        app.at_rest();
    }
    wait_until("more than one attempt", BACK, || {
        app.server.metrics().unwrap().get("pixeld_redis_failures_total") >= 3.0
    })
    .unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_loaded_total"), metrics.dropped("throttled")), (1.0, 2.0));
    assert_eq!((metrics.get("pixeld_redis_up"), metrics.get("pixeld_throttle_alone_total")), (0.0, 1.0));
    let log = app.server.log();
    assert_eq!(log.matches("Redis cannot be used now").count(), 1, "{log}");
    assert!(log.to_lowercase().contains("password"), "the reason is told: {log}");
    assert!(!log.contains("hunter2") && !log.contains("the-right-one"), "{log}");
    // The same server, with the right URL.
    let app = App::start_with(|settings| throttled(settings, Some(&redis.url())));
    wait_until("Redis", BACK, || app.server.metrics().unwrap().get("pixeld_redis_up") == 1.0).unwrap();
    fetch(&app.server, &app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    assert_eq!(app.at_rest().get("pixeld_throttle_shared_total"), 1.0);
}

#[test]
fn a_user_with_only_the_documented_rights_is_enough() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let readme = std::fs::read_to_string("README.md").unwrap();
    let (_, may) = readme.split_once("`~pixeld:throttle:*").unwrap();
    let may = may.split_once('`').unwrap().0;
    redis.ask::<String>(&format!("ACL SETUSER pixeld on >secret ~pixeld:throttle:*{may}")).unwrap();
    let url = redis.url().replace("redis://", "redis://pixeld:secret@");
    let nodes = Nodes::start(Some(&url));
    assert_eq!(nodes.fetch_on_both(), 1);
    let message = Uuid::new_v4();
    nodes.app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (message <> '{message}')"));
    fetch(&nodes.other, &nodes.app.pixel(message, Uuid::new_v4()));
    assert_eq!(nodes.other.at_rest(REST).unwrap().dropped("quarantined"), 1.0);
    assert_eq!(redis.ask::<u64>("DBSIZE").unwrap(), 1, "it may also give a place back");
    redis.ask::<String>("SCRIPT FLUSH").unwrap();
    assert_eq!(nodes.fetch_on_both(), 1);
    assert_eq!((nodes.sum("pixeld_throttle_alone_total"), nodes.sum("pixeld_redis_failures_total")), (0.0, 0.0));
}

#[test]
fn over_tls_the_certificate_is_checked() {
    let _machine = beside();
    let (_redis, url, certificate) = Redis::start_with_tls().unwrap();
    let known = certificate.to_str().unwrap();
    let app = App::start_with(|settings| throttled(settings, Some(&url)).with("SSL_CERT_FILE", known));
    wait_until("Redis", BACK, || app.server.metrics().unwrap().get("pixeld_redis_up") == 1.0)
        .unwrap_or_else(|error| panic!("{error}\n{}", app.server.log()));
    fetch(&app.server, &app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    assert_eq!(app.at_rest().get("pixeld_throttle_shared_total"), 1.0);
    // The same server, with a certificate that no authority signed.
    let app = App::start_with(|settings| throttled(settings, Some(&url)));
    fetch(&app.server, &app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_redis_up"), metrics.get("pixeld_throttle_alone_total")), (0.0, 1.0));
    assert!(app.server.log().contains("certificate"), "{}", app.server.log());
}

#[test]
fn a_bad_url_ends_the_start_with_64_and_does_not_show_it() {
    let _machine = beside();
    let dir = crate::kit::support::open_dir();
    for bad in ["hunter2", "http://hunter2@h", "redis://:hunter2@h/x", "rediss://:hunter2@h#insecure"] {
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap().with("REDIS_URL", bad);
        let output = settings.command(&["serve"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("REDIS_URL") && said.contains("redis://:password@host:6379/0"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
