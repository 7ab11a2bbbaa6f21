//! PostgreSQL stops, freezes, closes connections and loses the answers to commits, all under load.

use std::time::{Duration, Instant};

use loadtest::generator::Pace;

use crate::kit::proxy::Proxy;
use crate::kit::support::{App, END_BACKENDS_AMID_COPY, PATIENCE, Postgres, alone, beside};

#[test]
fn an_outage_of_postgresql_at_full_load_loses_nothing_and_is_caught_up() {
    let _machine = alone();
    let mut app = App::start();
    let load = app.load(64, Pace::Closed);
    load.wait_for(1000);
    app.postgres.stop().unwrap();
    let down = Instant::now();
    let before = load.answered();
    // Several times the longest pause between two attempts to connect.
    while down.elapsed() < Duration::from_secs(8) || load.answered() < before + 40_000 {
        load.wait_for(1000);
        app.server.metrics().unwrap();
    }
    let came = load.answered() - before;
    let rate = came as f64 / down.elapsed().as_secs_f64();
    let load = load.end();
    assert_eq!((load.outcome.refused, load.outcome.broken, load.outcome.timed_out), (0, 0, 0), "all answers are 200");
    // What was just accepted may still be on its way to the spool.
    let adds_up = || app.server.metrics().is_ok_and(|metrics| metrics.check_identity().is_ok());
    pixeld_testkit::process::wait_until("the sum", PATIENCE, adds_up).unwrap();
    let backlog = app.server.metrics().unwrap();
    app.postgres.start_again().unwrap();
    let up = Instant::now();
    app.server.at_rest(Duration::from_secs(180)).unwrap();
    let drained = up.elapsed();
    let comparison = load.assert_exact(&app.url());
    let drain_rate = backlog.get("pixeld_hits_spooled") / drained.as_secs_f64();
    println!("without PostgreSQL {rate:.0} hits/s came, {drain_rate:.0} hits/s were loaded after it\n{comparison}");
}

#[test]
fn postgresql_that_stops_and_starts_again_and_again_loses_nothing() {
    let _machine = alone();
    let mut app = App::start();
    let load = app.load(32, Pace::Open(8000.0));
    for round in 0..3 {
        load.wait_for(3000 + 2000 * (round % 2));
        app.postgres.stop().unwrap();
        load.wait_for(2000);
        app.postgres.start_again().unwrap();
    }
    let load = load.end();
    app.at_rest();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0);
    load.assert_exact(&app.url());
    // Each outage is one line of the log, not one per attempt.
    let log = app.server.log();
    for line in ["changes of images cannot be followed now", "opt-outs cannot be followed now"] {
        assert!((1..=3).contains(&log.matches(line).count()), "{line}: {log}");
    }
}

#[test]
fn backends_ended_in_the_middle_of_copy_lose_nothing_and_double_nothing() {
    let _machine = alone();
    let app = App::start();
    let load = app.load(32, Pace::Open(10_000.0));
    load.wait_for(5000);

    let ended = app.number(END_BACKENDS_AMID_COPY);
    let load = load.end();
    let metrics = app.at_rest();
    println!("{ended} backends of the loader were ended in the middle of COPY");
    // One that is only being ended may be counted twice.
    let retries = metrics.get("pixeld_load_retries_total");
    assert!(ended >= 10 && retries >= 5.0, "{ended} ended, {retries} retries");
    load.assert_exact(&app.url());
}

#[test]
fn commits_whose_answer_is_lost_are_neither_lost_nor_doubled() {
    let _machine = alone();
    let postgres = Postgres::start().unwrap();
    let proxy = Proxy::start(postgres.socket());
    let app = App::start_on(postgres, |_, settings| settings.with("DATABASE_URL", proxy.url()));
    let load = app.load(32, Pace::Open(10_000.0));
    load.wait_for(5000);
    proxy.cut_each_commit(2);
    pixeld_testkit::process::wait_until("cuts", Duration::from_secs(90), || proxy.cuts() >= 10).unwrap();
    proxy.cut_each_commit(0);
    let load = load.end();
    app.at_rest();
    println!("{} connections were cut right after COMMIT was sent", proxy.cuts());
    load.assert_exact(&app.url());
}

#[test]
fn a_frozen_postgresql_is_waited_for_and_nothing_is_lost() {
    let _machine = beside();
    let app = App::start();
    let load = app.load(32, Pace::Open(1000.0));
    load.wait_for(1000);
    for seconds in [3, 14] {
        app.postgres.freeze();
        let frozen = Instant::now();
        // Longer than the loader's time limit the second time: it drops its connection, and the backend holds the mark.
        while frozen.elapsed() < Duration::from_secs(seconds) {
            load.wait_for(400);
        }
        app.postgres.thaw();
        load.wait_for(2000);
    }
    let load = load.end();
    app.at_rest();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0);
    load.assert_exact(&app.url());
}

#[test]
fn a_vanished_predecessor_that_holds_the_mark_is_ended() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let proxy = Proxy::start(postgres.socket());
    let app = App::start_on(postgres, |_, settings| settings.with("DATABASE_URL", proxy.url()));
    let load = app.load(16, Pace::Open(1000.0));
    load.wait_for(1000);
    // Connections go silent without a close, as after a cut cable; in some of the rounds inside a transaction.
    for _ in 0..4 {
        proxy.freeze_open_connections();
        load.wait_for(2000);
    }
    let load = load.end();
    app.server.at_rest(Duration::from_secs(120)).unwrap();
    load.assert_exact(&app.url());
}
