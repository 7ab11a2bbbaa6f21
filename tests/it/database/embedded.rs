//! The embedded PostgreSQL, for real: found, made, shared, left over, broken and repaired.
// Each of these tests has its own runtime, so that a lock held across an await blocks no other holder.
#![allow(clippy::await_holding_lock)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pixeld::parts::db::{Database, within};
use pixeld_testkit::process::{is_alive, wait_until};

use crate::kit::support::{PATIENCE, beside, open_dir};

fn database(data_dir: &Path) -> Database {
    Database::embedded_in(data_dir, None).unwrap()
}

fn server_pid(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// Waits for the end of a stopped server: it removes its pid file a moment before.
fn has_ended(pid: u32) -> bool {
    wait_until("the server's end", PATIENCE, || !is_alive(pid)).is_ok()
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

async fn answers(database: &Database) -> bool {
    let session = database.connect("test").await.unwrap();
    within(PATIENCE, "SELECT", session.client.query_one("SELECT 1", &[])).await.is_ok()
}

#[tokio::test]
async fn users_share_one_server_and_the_last_one_out_stops_it() {
    let _machine = beside();
    let dir = open_dir();
    let (one, two) = (database(dir.path()), database(dir.path()));
    let (first, second) = tokio::join!(one.start(), two.start());
    let (first, second) = (first.unwrap(), second.unwrap());
    let pid = server_pid(dir.path());
    assert!(answers(&one).await && answers(&two).await);
    first.release().await.unwrap();
    assert!(is_alive(pid) && answers(&two).await);
    second.release().await.unwrap();
    assert!(has_ended(pid) && !dir.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn the_cluster_is_private_and_checks_its_pages() {
    let _machine = beside();
    let dir = open_dir();
    let database = database(dir.path());
    let lease = database.start().await.unwrap();
    let session = database.connect("test").await.unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ] {
        let row = session.client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{setting}");
    }
    assert_eq!(fs::metadata(dir.path().join("postgres")).unwrap().permissions().mode() & 0o777, 0o700);
    let psql =
        Command::new("psql").args([&database.url_for_people(), "-Atc", "SELECT current_database()"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "pixeld", "{psql:?}");
    lease.release().await.unwrap();
}

#[tokio::test]
async fn a_server_left_over_from_a_kill_is_used_again_and_stopped_later() {
    let _machine = beside();
    let dir = open_dir();
    let killed = database(dir.path());
    // To the kernel, and so to us, a killed holder has released its lock.
    drop(killed.start().await.unwrap());
    let pid = server_pid(dir.path());
    assert!(is_alive(pid));
    let next = database(dir.path());
    let lease = next.start().await.unwrap();
    assert_eq!(server_pid(dir.path()), pid);
    assert!(answers(&next).await);
    lease.release().await.unwrap();
    assert!(has_ended(pid));
}

#[tokio::test]
async fn a_server_that_died_is_started_again() {
    let _machine = beside();
    let dir = open_dir();
    let database = database(dir.path());
    let lease = database.start().await.unwrap();
    let session = database.connect("test").await.unwrap();
    session.client.batch_execute("CREATE TABLE kept (a int); INSERT INTO kept VALUES (1)").await.unwrap();
    let pid = server_pid(dir.path());
    database.ensure_running().await.unwrap();
    assert_eq!(server_pid(dir.path()), pid);
    kill("-9", pid);
    assert!(has_ended(pid));
    // A child that it was just starting may answer for it for a moment; serve checks repeatedly, too.
    let deadline = Instant::now() + PATIENCE;
    while server_pid(dir.path()) == pid && Instant::now() < deadline {
        database.ensure_running().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(server_pid(dir.path()), pid);
    let session = database.connect("test").await.unwrap();
    let row = session.client.query_one("SELECT count(*) FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    lease.release().await.unwrap();
}

#[tokio::test]
async fn what_an_interrupted_start_left_is_cleared_and_a_stale_pid_file_too() {
    let _machine = beside();
    let dir = open_dir();
    let half_made = dir.path().join("postgres.new-0123");
    fs::create_dir_all(half_made.join("base")).unwrap();
    let database = database(dir.path());
    database.start().await.unwrap().release().await.unwrap();
    assert!(!half_made.exists());
    // After a reboot the number in a pid file may belong to any process: here, to this test.
    let pid_file = dir.path().join("postgres/postmaster.pid");
    fs::write(&pid_file, format!("{}\n{}\n0\n5432\n", std::process::id(), dir.path().join("postgres").display()))
        .unwrap();
    let lease = database.start().await.unwrap();
    assert!(answers(&database).await);
    lease.release().await.unwrap();
}

#[tokio::test]
async fn odd_and_long_paths_work() {
    let _machine = beside();
    let dir = open_dir();
    for name in ["a b'c\"d$(e)f`g;ü\\h".to_owned(), "a,b".to_owned(), "l".repeat(120)] {
        let data_dir: PathBuf = dir.path().join(name);
        let database = database(&data_dir);
        let lease = database.start().await.unwrap();
        assert!(answers(&database).await);
        let psql = Command::new("psql").args([&database.url_for_people(), "-Atc", "SELECT 1"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "1", "{psql:?}");
        lease.release().await.unwrap();
        if let Some(note) = database.note_for_people() {
            let socket_dir = note.split_whitespace().find(|word| word.starts_with("/tmp/pixeld-")).unwrap();
            fs::remove_dir_all(socket_dir.trim_end_matches(',')).unwrap();
        }
    }
}

#[tokio::test]
async fn a_cluster_of_another_version_is_refused_with_the_steps_of_an_upgrade() {
    let _machine = beside();
    let dir = open_dir();
    let database = database(dir.path());
    database.start().await.unwrap().release().await.unwrap();
    fs::write(dir.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = database.start().await.err().unwrap().to_string();
    assert!(error.contains("made by PostgreSQL 9") && error.contains("pg_upgrade"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_start_is_an_error_with_its_log() {
    let _machine = beside();
    let dir = open_dir();
    let database = database(dir.path());
    database.start().await.unwrap().release().await.unwrap();
    fs::remove_dir_all(dir.path().join("postgres/global")).unwrap();
    let error = database.start().await.err().unwrap().to_string();
    assert!(error.contains("does not start") && error.contains("server.log"), "{error}");
}

#[tokio::test]
async fn notices_arrive_and_end_with_their_connection() {
    let _machine = beside();
    let dir = open_dir();
    let database = database(dir.path());
    let lease = database.start().await.unwrap();
    let (session, mut notices) = database.listen("listener", "odd \"name\"").await.unwrap();
    let client = database.pool().get().await.unwrap();
    client.execute("SELECT pg_notify('odd \"name\"', 'hello')", &[]).await.unwrap();
    let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap();
    assert_eq!(notice.as_deref(), Some("hello"));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'listener'";
    client.execute(end, &[]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap();
    assert_eq!(ended, None);
    drop((session, client));
    lease.release().await.unwrap();
}
