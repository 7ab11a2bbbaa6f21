//! A node belongs to one installation: on another database, or an empty one, it serves and spools, and says so.

use std::path::Path;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings, get};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, REST, beside, open_dir};

const OURS: &str = "this node belongs to";

fn fetch(server: &Server, path: &str, count: usize) {
    for _ in 0..count {
        assert_eq!(get(server.public(), path).unwrap().status, 200, "{path}");
    }
}

fn readyz(server: &Server) -> (u16, String) {
    let answer = get(server.settings().admin(), "/readyz").unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// Waits until `/readyz` says that the database is not this node's, with this sentence.
fn wait_for_refusal(server: &Server, sentence: &str) {
    wait_until(sentence, PATIENCE, || {
        let (status, said) = readyz(server);
        status == 503 && [said, server.log()].iter().all(|said| said.contains(OURS) && said.contains(sentence))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}\n{}", readyz(server).1, server.log()));
}

fn wait_for_ready(server: &Server) {
    wait_until("/readyz", PATIENCE, || readyz(server).0 == 200)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", readyz(server).1, server.log()));
}

fn run_client(postgres: &Postgres, program: &str, arguments: &[&str]) {
    let output = postgres.client(program, arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";

#[test]
fn a_node_that_knows_its_installation_loads_nothing_into_another_or_an_empty_database() {
    let _machine = beside();
    let mut app = App::start();
    let message = Uuid::new_v4();
    app.server.settings().run(&["opt-out", "--recipient", &Uuid::new_v4().to_string()]).unwrap();
    let kept = app.server.data_dir().join("opt-outs");
    wait_until("the list of opt-outs", PATIENCE, || std::fs::metadata(&kept).is_ok_and(|file| file.len() > 60))
        .unwrap();
    fetch(&app.server, &app.pixel(message, Uuid::nil()), 5);
    app.at_rest();
    let foreign = Postgres::start().unwrap();
    let empty = Postgres::start().unwrap();
    // Another installation, with its own hits.
    let other = Settings::new(PIXELD, app.dir.path().join("other")).unwrap().with("DATABASE_URL", foreign.url());
    let image = crate::kit::support::add_image(&other);
    let mut other = other.start().unwrap();
    wait_until("the other's image", PATIENCE, || {
        get(other.public(), &format!("/image/{image}.png")).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    other.at_rest(REST).unwrap();
    other.terminate().unwrap();
    let foreign_hits = foreign.number("SELECT count(*) FROM hits").unwrap();

    app.server.terminate().unwrap();
    let right = app.server.settings().clone();
    let mut waiting = 0;
    for (wrong, sentence) in [(&foreign, "the database is the installation"), (&empty, "has no tables of pixeld")] {
        app.server = right.clone().with("DATABASE_URL", wrong.url()).start().unwrap();
        wait_for_refusal(&app.server, sentence);
        fetch(&app.server, &app.pixel(message, Uuid::nil()), 10);
        waiting += 10;
        let metrics = app.server.metrics().unwrap();
        assert_eq!((metrics.get("pixeld_hits_spooled"), metrics.dropped_all()), (f64::from(waiting), 0.0));
        let output = app.server.settings().command(&["migrate"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(OURS) && said.contains("--new-installation"), "{said}");
        app.server.terminate().unwrap();
    }
    assert_eq!(empty.number(TABLES).unwrap(), 0.0, "no tables are made");
    assert_eq!(foreign.number("SELECT count(*) FROM hits").unwrap(), foreign_hits);
    assert_eq!(foreign.number("SELECT count(*) FROM suppressions").unwrap(), 0.0, "no opt-outs are put there");
    assert_eq!(foreign.number("SELECT count(*) FROM nodes").unwrap(), 1.0);

    app.server = right.start().unwrap();
    wait_for_ready(&app.server);
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 25);
    app.server.terminate().unwrap();

    // Permanently, by a command that says so.
    let accepting = app.server.settings().clone().with("DATABASE_URL", empty.url());
    accepting.run(&["migrate", "--new-installation"]).unwrap();
    app.server = accepting.start().unwrap();
    wait_for_ready(&app.server);
}

#[test]
fn tables_that_are_dropped_while_pixeld_runs_are_missed_and_not_made_again_until_they_are_restored() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    fetch(&app.server, &app.pixel(message, Uuid::nil()), 5);
    app.at_rest();
    let dump = app.dir.path().join("dump").to_str().unwrap().to_owned();
    run_client(&app.postgres, "pg_dump", &["--format=custom", "--file", &dump]);
    fetch(&app.server, &app.pixel(message, Uuid::nil()), 5);
    app.at_rest();
    wait_for_ready(&app.server);

    drop_tables(&app);
    assert_eq!(readyz(&app.server).0, 503, "at once");
    wait_for_refusal(&app.server, "has no tables of pixeld");
    fetch(&app.server, &app.pixel(message, Uuid::nil()), 5);
    assert_eq!(app.number(TABLES), 0);
    assert_eq!(app.server.metrics().unwrap().dropped_all(), 0.0);

    run_client(&app.postgres, "pg_restore", &["--exit-on-error", "--no-owner", &dump, "--dbname"]);
    wait_for_ready(&app.server);
    app.at_rest().check_identity().unwrap();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 15);
}

/// Drops all tables while pixeld uses them. PostgreSQL may find that each waits for a lock of the other, and then ends one of them: if that
/// was the drop, it is tried again.
fn drop_tables(app: &App) {
    let drop = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    let is_deadlock = |error: &anyhow::Error| {
        let error = error.downcast_ref::<tokio_postgres::Error>();
        error.and_then(tokio_postgres::Error::code) == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    };
    wait_until("the drop", PATIENCE, || match app.postgres.query(drop) {
        Ok(_) => true,
        Err(error) if is_deadlock(&error) => false,
        Err(error) => panic!("{error:#}"),
    })
    .unwrap();
}

#[test]
fn a_private_postgresql_whose_directory_was_lost_is_no_new_installation_by_itself() {
    let _machine = beside();
    let dir = open_dir();
    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
    let image = crate::kit::support::add_image(&settings);
    let mut server = settings.clone().start().unwrap();
    wait_for_ready(&server);
    let path = format!("/image/{image}.png");
    wait_until("the image", PATIENCE, || {
        get(server.public(), &path).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    server.at_rest(REST).unwrap();
    server.terminate().unwrap();
    let cluster = Path::new(&settings.data_dir).join("postgres");
    assert!(cluster.join("PG_VERSION").exists() || cluster.is_dir());
    std::fs::rename(&cluster, dir.path().join("lost")).unwrap();

    server = settings.clone().start().unwrap();
    wait_for_refusal(&server, "has no tables of pixeld");
    fetch(&server, &path, 1);
    server.terminate().unwrap();
    // A cluster that was only moved away returns.
    std::fs::remove_dir_all(&cluster).unwrap();
    std::fs::rename(dir.path().join("lost"), &cluster).unwrap();
    server = settings.start().unwrap();
    wait_for_ready(&server);
    server.at_rest(REST).unwrap();
    server.terminate().unwrap();
}
