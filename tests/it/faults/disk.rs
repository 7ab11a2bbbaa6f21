//! A full disk, a full spool, damaged segments.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use loadtest::generator::Pace;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::get;

use crate::kit::support::{App, PATIENCE, Postgres, alone, beside};

/// The small file system at a server's data directory, seen from outside its mount namespace.
fn inside(app: &App) -> PathBuf {
    let pid = app.server.pid();
    PathBuf::from(format!("/proc/{pid}/root{}", app.server.data_dir().display()))
}

#[test]
fn on_a_full_file_system_pixels_are_served_drops_are_counted_and_recording_resumes() {
    let _machine = alone();
    let postgres = Postgres::start().unwrap();
    let app = App::start_on(postgres, |_, mut settings| {
        fs::create_dir_all(&settings.data_dir).unwrap();
        let mount = format!("mount -t tmpfs -o size=24m tmpfs {} && exec \"$@\"", settings.data_dir.display());
        // A mount of its own: root may make one directly, other users in a user namespace.
        let as_user = (!nix::unistd::geteuid().is_root()).then_some("--map-root-user");
        let words = ["unshare", "--mount"].into_iter().chain(as_user).chain(["sh", "-c", &mount, "sh"]);
        settings.wrapper = words.map(str::to_owned).collect();
        settings
    });
    let load = app.load(32, Pace::Open(5000.0));
    load.wait_for(5000);
    // Another program fills the disk, including the room that pixeld makes.
    let filler = inside(&app).join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    wait_until("drops", PATIENCE, || {
        while file.write(&[1; 1 << 16]).is_ok_and(|written| written > 0) {}
        app.server.metrics().unwrap().dropped("disk_full") > 10_000.0
    })
    .unwrap();
    drop(file);
    let ready = get(app.server.settings().admin(), "/readyz").unwrap();
    let state = String::from_utf8_lossy(&ready.body);
    assert_eq!(ready.status, 503, "{state}");
    assert!(state.contains("recording: not ok: hits were dropped") && state.contains("(disk_full)"), "{state}");
    let answered = load.answered();
    load.wait_for(5000);
    fs::remove_file(&filler).unwrap();
    let mut last = app.server.metrics().unwrap().dropped("disk_full");
    wait_until("recording", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(500));
        let dropped = app.server.metrics().unwrap().dropped("disk_full");
        std::mem::replace(&mut last, dropped) == dropped
    })
    .unwrap();
    load.wait_for(5000);
    let load = load.end();
    let metrics = app.at_rest();
    assert!(answered > 10_000);
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0, "every pixel is served");
    let comparison = load.reconcile(&app.url());
    println!("a full file system: {} dropped as disk_full\n{comparison}", metrics.dropped("disk_full"));
    assert_eq!(comparison.lost as f64, metrics.dropped("disk_full"), "drops are counted exactly");
    assert_eq!((comparison.duplicated, comparison.never_sent), (0, 0));
    assert_eq!(metrics.dropped_all(), metrics.dropped("disk_full"));
}

#[test]
fn beyond_the_spools_bound_pixels_are_served_and_drops_are_counted() {
    let _machine = alone();
    let mut app = App::start_with(|settings| settings.with("PIXELD_SPOOL_BYTES_MAX", "64MiB"));
    app.postgres.stop().unwrap();
    let load = app.load(64, Pace::Closed);
    wait_until("drops", Duration::from_secs(60), || app.server.metrics().unwrap().dropped("spool_full") > 20_000.0)
        .unwrap();
    let bytes = app.server.metrics().unwrap().get("pixeld_spool_bytes");
    assert!(bytes <= f64::from(64 << 20), "{bytes}");
    app.postgres.start_again().unwrap();
    // Loaded segments make room again.
    let mut last = f64::NAN;
    wait_until("recording", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(300));
        let dropped = app.server.metrics().unwrap().dropped("spool_full");
        std::mem::replace(&mut last, dropped) == dropped
    })
    .unwrap();
    let load = load.end();
    let metrics = app.at_rest();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0, "every pixel is served");
    let comparison = load.reconcile(&app.url());
    println!("a full spool: {} dropped as spool_full\n{comparison}", metrics.dropped("spool_full"));
    assert_eq!(comparison.lost as f64, metrics.dropped("spool_full"));
    assert_eq!((comparison.duplicated, comparison.never_sent), (0, 0));
}

#[test]
fn damage_in_a_dead_nodes_spool_costs_what_is_damaged_and_is_counted() {
    let _machine = beside();
    let mut app = App::start();
    app.postgres.stop().unwrap();
    let load = app.load(8, Pace::Open(5000.0));
    load.wait_for(10_000);
    app.server.kill().unwrap();
    let load = load.end();
    let spools = fs::read_dir(app.server.data_dir().join("spool")).unwrap().flatten();
    let segments = spools.flat_map(|spool| fs::read_dir(spool.path()).unwrap().flatten()).map(|entry| entry.path());
    let segment = segments.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0xa5);
    fs::write(&segment, bytes).unwrap();
    app.restart();
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    let damaged = metrics.dropped("damaged");
    assert!(damaged > 0.0 && metrics.get("pixeld_spool_damages_total") >= 1.0, "{}", app.server.log());
    let comparison = load.reconcile(&app.url());
    assert_eq!((comparison.duplicated, comparison.never_sent), (0, 0));
    assert!(comparison.lost as f64 <= damaged, "{comparison}");
    assert_eq!(app.number("SELECT sum(missing) FROM batches") as f64, damaged);
    assert!(fs::read_dir(app.server.data_dir().join("quarantine")).unwrap().count() >= 1);
    assert!(app.server.log().contains("damaged bytes in the spool are copied to the folder quarantine"));
}

#[test]
fn loaded_segments_go_when_they_need_not_be_kept() {
    let _machine = beside();
    let mut app = App::start_with(|settings| settings.with("PIXELD_SPOOL_KEEP", "0s/0"));
    let load = app.load(8, Pace::Open(2000.0));
    load.wait_for(4000);
    let load = load.end();
    app.at_rest();
    app.server.kill().unwrap();
    app.restart();
    let spools = app.server.data_dir().join("spool");
    // The dead node's spool is loaded to its end and retired; the new one holds nothing.
    wait_until("the old spool's end", PATIENCE, || fs::read_dir(&spools).unwrap().count() == 1).unwrap();
    load.assert_exact(&app.url());
}
