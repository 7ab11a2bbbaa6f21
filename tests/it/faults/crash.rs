//! `kill -9` and SIGTERM under load.

use std::time::Duration;

use loadtest::generator::{Pace, Reuse};
use loadtest::ledger::Comparison;
use pixeld_testkit::process::wait_until;

use crate::kit::support::{App, Load, PATIENCE, REST, alone, beside};

/// Kills the server `rounds` times at random moments of a full load, and reconciles all of them at the end.
fn kill_under_load(rounds: u32, durability: &str, reuse: Reuse) {
    let mut app = App::start_with(|settings| settings.with("PIXELD_DURABILITY", durability));
    let mut loads = Vec::new();
    for round in 0..rounds {
        let load = Load::begin(&app.server, app.image, 64, Pace::Closed, reuse);
        load.wait_for(1 + u64::from(round) * 997 % 12_000);
        // Somewhere between two batches, two syncs, two segments; never the same place twice.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 7919 % 50_000));
        app.server.kill().unwrap();
        loads.push(load.end());
        app.restart();
        app.server.metrics().unwrap();
    }
    app.at_rest();
    let sum = loads.iter().map(|load| load.reconcile(&app.url())).fold(Comparison::default(), Comparison::plus);
    println!("{rounds} rounds of kill -9, {durability}:\n{sum}");
    assert!(sum.is_exact(), "\n{sum}");
    assert!(sum.answered > u64::from(rounds) * 1000, "that was no load: {}", sum.answered);
    // Every number of every spool is in exactly one batch, and every batch accounts for each.
    let gaps = "SELECT count(*) FROM (SELECT first_seq, lag(next_seq, 1, 0::bigint) OVER (PARTITION BY spool ORDER BY first_seq) \
                AS expected FROM batches) AS b WHERE first_seq <> expected";
    assert_eq!(app.number(gaps), 0);
    assert_eq!(app.number("SELECT count(*) FROM hits"), app.number("SELECT sum(loaded) FROM batches"));
    assert_eq!(app.number("SELECT sum(missing) FROM batches"), 0);
}

#[test]
fn twenty_rounds_of_kill_9_at_full_load_lose_nothing_and_double_nothing() {
    let _machine = alone();
    kill_under_load(20, "written", Reuse::KeepAlive);
}

#[test]
fn rounds_of_kill_9_lose_nothing_with_synced_answers_and_with_new_connections() {
    let _machine = alone();
    kill_under_load(6, "synced", Reuse::Mixed(30));
}

#[test]
fn a_backlog_of_a_killed_server_is_recovered_while_the_database_is_away() {
    let _machine = alone();
    let mut app = App::start();
    app.postgres.stop().unwrap();
    let mut loads = Vec::new();
    for _ in 0..3 {
        let load = app.load(32, Pace::Closed);
        load.wait_for(10_000);
        app.server.kill().unwrap();
        loads.push(load.end());
        app.restart();
    }
    let metrics = app.server.metrics().unwrap();
    metrics.check_identity().unwrap();
    let waiting = metrics.get("pixeld_hits_recovered");
    assert!(waiting >= 30_000.0, "{waiting}");
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_loaded_total"), metrics.get("pixeld_hits_recovered")), (waiting, waiting));
    for load in loads {
        load.assert_exact(&app.url());
    }
}

#[test]
fn sigterm_under_load_exits_0_with_nothing_lost_and_nothing_left() {
    let _machine = alone();
    // Enough time for the whole backlog, even on a busy machine; other tests check what is left after the drain's time.
    let mut app = App::start_with(|settings| settings.with("PIXELD_DRAIN_SECONDS", "120"));
    for reuse in [Reuse::KeepAlive, Reuse::New] {
        let load = Load::begin(&app.server, app.image, 64, Pace::Closed, reuse);
        load.wait_for(30_000);
        let (status, took) = app.server.terminate().unwrap();
        let load = load.end();
        assert!(status.success(), "{status} after {took:?}: {}", app.server.log());
        // Nothing waits: loading the rest needs no start.
        let comparison = load.assert_exact(&app.url());
        println!("SIGTERM under load: ended in {took:?}\n{comparison}");
        assert_eq!(comparison.rows, comparison.answered + comparison.unanswered_recorded);
        app.restart();
        app.wait_for_image(app.image);
    }
}

#[test]
fn sigterm_without_a_database_exits_in_time_and_the_next_start_loads() {
    let _machine = beside();
    let mut app = App::start();
    app.postgres.stop().unwrap();
    let load = app.load(32, Pace::Open(2000.0));
    load.wait_for(4000);
    let (status, took) = app.server.terminate().unwrap();
    assert!(status.success() && took < PATIENCE, "{status} after {took:?}: {}", app.server.log());
    let load = load.end();
    app.postgres.start_again().unwrap();
    app.restart();
    app.server.at_rest(REST).unwrap();
    load.assert_exact(&app.url());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let _machine = alone();
    let mut app = App::start_with(|settings| settings.with("PIXELD_DRAIN_SECONDS", "600"));
    app.postgres.stop().unwrap();
    let load = app.load(32, Pace::Closed);
    load.wait_for(1000);
    app.server.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    // Two pending signals of the same kind count as one.
    wait_until("the drain", PATIENCE, || app.server.log().contains("a second signal stops pixeld at once")).unwrap();
    let (status, took) = loop {
        app.server.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        if let Ok(ended) = app.server.wait(Duration::from_secs(1)) {
            break ended;
        }
    };
    assert_eq!(status.code(), Some(130), "after {took:?}");
    let load = load.end();
    app.postgres.start_again().unwrap();
    app.restart();
    app.at_rest();
    load.assert_exact(&app.url());
}
