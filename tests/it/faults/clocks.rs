//! Impossible clocks, of pixeld, of PostgreSQL or of both: nothing is deleted because of its age.
//!
//! libfaketime changes the clock of one program, by the offset in a file at each moment; elapsed time stays real.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Settings, get};
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, Postgres, beside, open_dir};

/// A clock whose offset is in a file.
struct FakeClock {
    dir: tempfile::TempDir,
}

impl FakeClock {
    /// `+0d` is right, `+400d` far ahead.
    fn set_to(offset: &str) -> FakeClock {
        let clock = FakeClock { dir: open_dir() };
        clock.jump_to(offset);
        clock
    }

    fn jump_to(&self, offset: &str) {
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, format!("{offset}\n")).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(fresh, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// The command prefix for a program with this clock.
    fn words(&self) -> Vec<String> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library} is missing: run scripts/install-test-tools.sh");
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file().display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// A PostgreSQL with this clock.
    fn postgres(&self) -> Postgres {
        let bin =
            Command::new("sh").args(["-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1"]).output().unwrap();
        let bin = PathBuf::from(String::from_utf8(bin.stdout).unwrap().trim());
        let programs = self.dir.path().join("bin");
        fs::create_dir(&programs).unwrap();
        for entry in fs::read_dir(&bin).unwrap().flatten() {
            if entry.file_name() != "postgres" && entry.file_name() != "pg_ctl" {
                symlink(entry.path(), programs.join(entry.file_name())).unwrap();
            }
        }
        // By itself pg_ctl would start the server program beside it.
        let script = |name: &str, line: String| {
            let path = programs.join(name);
            fs::write(&path, format!("#!/bin/sh\nexec {line} \"$@\"\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let words: Vec<String> = self.words().iter().map(|word| format!("'{word}'")).collect();
        script("postgres", format!("{} '{}/postgres'", words.join(" "), bin.display()));
        script("pg_ctl", format!("'{}/pg_ctl' -p '{}/postgres'", bin.display(), programs.display()));
        Postgres::start_with(Some(programs)).unwrap()
    }
}

fn keeping_30_days(settings: Settings) -> Settings {
    settings.with("PIXELD_RETENTION_DAYS", "30")
}

fn fetch(app: &App) {
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200);
}

fn disbelieves(app: &App) -> bool {
    app.server.metrics().is_ok_and(|metrics| metrics.get("pixeld_clocks_disbelieved") == 1.0)
}

/// Restarts pixeld, and waits until its retention has run.
fn restart_and_look(app: &mut App) {
    app.server.terminate().unwrap();
    app.restart();
    let is_waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pixeld%retention%'";
    wait_until("pixeld", PATIENCE, || {
        app.server.metrics().is_ok_and(|metrics| metrics.get("pixeld_database_up") == 1.0)
    })
    .unwrap();
    wait_until("the retention's end", PATIENCE, || app.number(is_waiting) == 0).unwrap();
}

#[test]
fn while_the_databases_clock_is_400_days_ahead_nothing_is_expired_or_deleted_and_it_says_so() {
    let _machine = beside();
    let clock = FakeClock::set_to("+400d");
    let mut app = App::start_on(clock.postgres(), |_, settings| keeping_30_days(settings));
    let days: f64 = app.query("SELECT extract(epoch FROM now())::bigint")[0].parse().unwrap();
    let real = pixeld_core::clock::now_micros().0 as f64 / 1e6;
    assert!(days > real + 399.0 * 86_400.0, "PostgreSQL's clock is right");
    for _ in 0..10 {
        fetch(&app);
    }
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("expired"), metrics.get("pixeld_hits_loaded_total")), (0.0, 10.0));
    assert!(metrics.get("pixeld_clock_ahead_seconds") < -399.0 * 86_400.0);
    assert!(disbelieves(&app));
    restart_and_look(&mut app);
    wait_until("the look", PATIENCE, || disbelieves(&app)).unwrap();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 10);
    assert!(
        app.server.log().contains("nothing is deleted or expired for its age until they agree"),
        "{}",
        app.server.log()
    );
    // Right again: new hits stay, and the warning ends.
    clock.jump_to("+0d");
    wait_until("a hit", PATIENCE, || {
        fetch(&app);
        std::thread::sleep(Duration::from_millis(300));
        !disbelieves(&app)
    })
    .unwrap();
    assert_eq!(app.at_rest().dropped("expired"), 0.0);
}

#[test]
fn a_node_whose_clock_is_400_days_late_loses_no_hit() {
    let _machine = beside();
    let clock = FakeClock::set_to("-400d");
    let app = App::start_with(|settings| {
        let mut settings = keeping_30_days(settings);
        settings.wrapper = clock.words();
        settings
    });
    for _ in 0..10 {
        fetch(&app);
    }
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("expired"), metrics.get("pixeld_hits_loaded_total")), (0.0, 10.0));
    assert!(disbelieves(&app));
}

#[test]
fn clocks_that_jump_together_while_it_runs_delete_nothing() {
    let _machine = beside();
    let clock = FakeClock::set_to("+0d");
    let app = App::start_on(clock.postgres(), |_, settings| {
        let mut settings = keeping_30_days(settings);
        settings.wrapper = clock.words();
        settings
    });
    for _ in 0..10 {
        fetch(&app);
    }
    app.at_rest();
    assert!(!disbelieves(&app));
    // Hits that wait on disk with the right time, and a connection that reads the database's clock after the jump.
    app.query("ALTER TABLE spool_marks RENAME TO away");
    for _ in 0..10 {
        fetch(&app);
    }
    clock.jump_to("+400d");
    app.query(
        "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name LIKE 'pixeld%loader'",
    );
    app.query("ALTER TABLE away RENAME TO spool_marks");
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("expired"), metrics.get("pixeld_hits_loaded_total")), (0.0, 20.0));
    assert!(disbelieves(&app) && metrics.get("pixeld_clock_ahead_seconds").abs() < 3600.0);
    let ready: Answer = get(app.server.settings().admin(), "/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", String::from_utf8_lossy(&ready.body));
    assert_eq!(app.number("SELECT count(*) FROM hits"), 20);
}
