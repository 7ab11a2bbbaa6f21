//! A restored database with the default throttle: hits that it lacks are loaded again, and none is dropped because of
//! itself.

use loadtest::generator::{Pace, Reuse};
use loadtest::pixels::Pixels;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::redis::Redis;
use pixeld_testkit::server::{Server, Settings};
use uuid::Uuid;

use crate::database::backup::{UP_TO_DATE, URLS, assert_up_to_date, fetch, follow, of};
use crate::kit::support::{App, Load, PIXELD, REST, alone, beside, wait_for_image};

/// The default throttle; the load's addresses are trusted, so that a fetch can be repeated from the same one.
fn throttled(settings: Settings) -> Settings {
    settings.with("PIXELD_THROTTLE", "1h").with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8")
}

#[test]
fn hits_that_a_restored_database_lacks_are_not_throttled_by_themselves() {
    let _machine = alone();
    let app = App::start_with(throttled);
    let (settings, backup) = (app.server.settings().clone(), app.dir.path().join("backup"));
    let [message, before, after, without] = [(); 4].map(|()| Uuid::new_v4());
    let pixels = Pixels::of(app.image).with_forwarded_addresses();
    let load_at = |rate| Load::of(&app.server, pixels.clone(), 8, Pace::Open(rate), Reuse::KeepAlive);
    // The second repeats the fetches of the first: of each pair one is throttled, whenever it is judged.
    let (load, again) = (load_at(4000.0), load_at(2000.0));
    fetch(&app.server, &app.pixel(message, before), 2);
    again.wait_for(500);
    wait_until("the first", REST, || of(&app, before) == 1).unwrap();
    follow(&settings, &backup, &["dump"]);
    // Near one that the dump has; near each other; and two that are never throttled.
    fetch(&app.server, &app.pixel(message, before), 2);
    fetch(&app.server, &app.pixel(message, after), 3);
    fetch(&app.server, &format!("/image/{}_{without}.png", app.image), 2);
    again.wait_for(1000);
    wait_until("the second", REST, || of(&app, after) == 1).unwrap();
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    again.wait_for(1000);
    // Once more: what was restored may be lost again.
    wait_until("the second after it was lost", UP_TO_DATE, || of(&app, after) == 1).unwrap();
    app.query("DROP DATABASE pixeld_before");
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    again.wait_for(500);
    let again = again.end();
    let taken = again.ledger.taken();
    wait_until("the load to be ahead", REST, || load.ledger.taken() > taken).unwrap();
    let load = load.end();
    assert_up_to_date(&app, &load, "put back twice while it served");
    let again = again.reconcile(&app.url());
    assert_eq!((again.lost, again.duplicated), (0, 0), "\n{again}");
    assert_eq!([before, after].map(|recipient| of(&app, recipient)), [1, 1]);
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{without}'")), 2);
    let metrics = app.at_rest();
    assert!(
        metrics.dropped("throttled") >= again.answered as f64,
        "{} throttled\n{again}",
        metrics.dropped("throttled")
    );
    metrics.check_identity().unwrap();
}

#[test]
fn under_load_nodes_that_share_their_throttle_load_again_what_a_restored_database_lacks() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let shared = |settings: Settings| throttled(settings).with("REDIS_URL", redis.url());
    let app = App::start_with(shared);
    let (settings, backup) = (app.server.settings().clone(), app.dir.path().join("backup"));
    let other = Settings::new(PIXELD, app.dir.path().join("other")).unwrap().with("DATABASE_URL", app.url());
    let other = shared(other).start().unwrap();
    let both = [&app.server, &other];
    wait_until("Redis", REST, || both.iter().all(|server| server.metrics().unwrap().get("pixeld_redis_up") == 1.0))
        .unwrap();
    wait_for_image(&other, app.image);
    // The same fetches on both.
    let pixels = Pixels::of(app.image).with_forwarded_addresses();
    let loads = both.map(|server| Load::of(server, pixels.clone(), 8, Pace::Open(1500.0), Reuse::KeepAlive));
    loads.iter().for_each(|load| load.wait_for(1000));
    follow(&settings, &backup, &["dump"]);
    loads.iter().for_each(|load| load.wait_for(1000));
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    loads.iter().for_each(|load| load.wait_for(1000));
    let loads = loads.map(Load::end);
    let were_put_back = || {
        both.iter().all(|server| {
            server.log().contains("the database was restored to an earlier state: pixeld loads the missing hits again")
        })
    };
    wait_until("both to see it", UP_TO_DATE, were_put_back).unwrap();
    let [one, two] = both.map(|server| server.at_rest(UP_TO_DATE).unwrap());
    let sum = |name: &str| one.get(name) + two.get(name);
    for load in &loads {
        let comparison = load.reconcile(&app.url());
        assert_eq!(comparison.lost, 0, "\n{comparison}");
    }
    // What a node judged while Redis was too slow may exist once per node.
    let rows = "SELECT count(*) AS rows FROM hits GROUP BY recipient";
    assert!(app.number(&format!("SELECT max(rows) FROM ({rows}) AS r")) <= 2);
    let doubled = app.number(&format!("SELECT count(*) FROM ({rows}) AS r WHERE rows = 2")) as f64;
    let by_themselves = sum("pixeld_throttle_alone_total");
    println!("{doubled} twice, {by_themselves} hits alone");
    assert!(doubled <= by_themselves, "{doubled} twice, {by_themselves} alone");
    assert!(sum("pixeld_throttled_elsewhere_total") > 0.0);
}

#[test]
fn nodes_that_share_their_throttle_load_again_what_a_restored_database_lacks_also_after_a_kill() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let shared = |settings: Settings| throttled(settings).with("REDIS_URL", redis.url());
    let mut app = App::start_with(shared);
    let (settings, backup) = (app.server.settings().clone(), app.dir.path().join("backup"));
    // The dump knows no spool yet, so that the restored database reuses their numbers.
    follow(&settings, &backup, &["dump"]);
    let other = Settings::new(PIXELD, app.dir.path().join("other")).unwrap().with("DATABASE_URL", app.url());
    let mut other = shared(other).start().unwrap();
    let is_shared = |server: &Server| server.metrics().unwrap().get("pixeld_redis_up") == 1.0;
    wait_until("Redis", REST, || is_shared(&app.server) && is_shared(&other)).unwrap();
    let message = Uuid::new_v4();
    let [on_one, on_other, on_both] =
        [30, 20, 10].map(|count| (0..count).map(|_| Uuid::new_v4()).collect::<Vec<Uuid>>());
    let fetch_each = |server: &Server, recipients: &[Uuid]| {
        recipients.iter().for_each(|&recipient| fetch(server, &app.pixel(message, recipient), 1));
        server.at_rest(REST).unwrap();
    };
    fetch_each(&app.server, &on_one);
    fetch_each(&app.server, &on_both);
    wait_for_image(&other, app.image);
    fetch_each(&other, &on_both);
    fetch_each(&other, &on_other);
    let counted = |app: &App| {
        let count = |of: &str| app.number(&format!("SELECT count({of}) FROM hits"));
        (count("*"), count("DISTINCT recipient"))
    };
    assert_eq!(counted(&app), (60, 60));
    let keys = redis.ask::<u64>("DBSIZE").unwrap();
    assert_eq!(keys, 60, "Redis was asked about all of them");

    app.server.kill().unwrap();
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    // The other node comes first, and gets the number that this one's spool had.
    wait_until("the other's hits", UP_TO_DATE, || {
        counted(&app).0 == 20 || other.metrics().unwrap().dropped("throttled") > 30.0
    })
    .unwrap_or_else(|error| panic!("{error}\n{:?}\n{}", counted(&app), other.log()));
    app.restart();
    wait_until("all hits", UP_TO_DATE, || counted(&app) == (60, 60))
        .unwrap_or_else(|error| panic!("{error}\n{:?}\n{}{}", counted(&app), other.log(), app.server.log()));
    assert_eq!(redis.ask::<u64>("DBSIZE").unwrap(), keys, "the same hits have the same names");
    for server in [&app.server, &other] {
        server.at_rest(REST).unwrap().check_identity().unwrap();
    }
    assert_eq!(counted(&app), (60, 60));
    other.terminate().unwrap();
}
