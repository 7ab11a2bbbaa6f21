//! The commands, as an operator runs them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use loadtest::generator::Pace;
use pixeld::parts::cli::Cli;
use pixeld_testkit::server::Settings;
use uuid::Uuid;

use crate::kit::snapshot::assert_accepted;
use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, alone, beside, open_dir};

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn images_of_four_kinds_are_taken_by_their_bytes_and_listed_and_served_as_they_came() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let png = fs::read("src/app/sample.png").unwrap();
    let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9";
    let mut webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0".to_vec();
    webp.resize(34, 0);
    let gif = pixeld_edge::images::TRANSPARENT_GIF.to_vec();
    let mut listed = Vec::new();
    for (media_type, bytes) in
        [("image/png", png), ("image/jpeg", jpeg.to_vec()), ("image/webp", webp), ("image/gif", gif)]
    {
        // Its name suggests another type.
        let file = app.dir.path().join("picture.txt");
        fs::write(&file, &bytes).unwrap();
        let id = settings.run(&["image", "add", file.to_str().unwrap(), "--title", media_type]).unwrap();
        let id = id.trim().to_owned();
        pixeld_testkit::process::wait_until("it", crate::kit::support::PATIENCE, || {
            app.get(&format!("/image/{id}.gif")).status == 200
        })
        .unwrap();
        let answer = app.get(&format!("/image/{id}.gif"));
        assert_eq!((answer.header("content-type"), &answer.body), (Some(media_type), &bytes));
        listed.push((id, media_type));
    }
    let list = settings.run(&["image", "list"]).unwrap();
    for (id, media_type) in listed {
        let line = list.lines().find(|line| line.starts_with(&id)).unwrap();
        assert_eq!(line.matches(media_type).count(), 2, "{line}");
    }
    let id = Uuid::new_v4().to_string();
    let chosen = settings.run(&["image", "add", "src/app/sample.png", "--id", &id]).unwrap();
    assert_eq!(chosen.trim(), id);
    let again = said(&settings.command(&["image", "add", "src/app/sample.png", "--id", &id]).output().unwrap());
    assert!(again.0 == 1 && again.1.contains("exists already"), "{again:?}");
}

#[test]
fn a_file_that_is_not_a_picture_is_refused_with_the_reason() {
    let _machine = beside();
    let dir = open_dir();
    // Refused before the database is used: there is none.
    let settings =
        Settings::new(PIXELD, dir.path().join("data")).unwrap().with("DATABASE_URL", "postgresql://x@127.0.0.1:1/x");
    let mut large = fs::read("src/app/sample.png").unwrap();
    large.resize((1 << 20) + 1, 0);
    let mut wide = fs::read("src/app/sample.png").unwrap();
    wide[16..20].copy_from_slice(&4097_u32.to_be_bytes());
    for (bytes, reason) in [
        (Vec::new(), "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "use GIF, PNG, JPEG or WebP"),
        (b"%PDF-1.4".to_vec(), "application/pdf"),
        (large, "larger than 1048576 bytes"),
        (wide, "4097 x 32 pixels"),
    ] {
        let file = dir.path().join("logo.png");
        fs::write(&file, bytes).unwrap();
        let (code, text) = said(&settings.command(&["image", "add", file.to_str().unwrap()]).output().unwrap());
        assert!(code == 1 && text.contains(reason) && text.contains("logo.png"), "{code} {text}");
    }
    let (code, text) = said(&settings.command(&["image", "add", "/nowhere.gif"]).output().unwrap());
    assert!(code == 1 && text.contains("/nowhere.gif"), "{code} {text}");
}

#[test]
fn bad_settings_end_every_command_with_64_before_a_port_is_bound() {
    let _machine = beside();
    let dir = open_dir();
    for arguments in [&["serve"][..], &["migrate"], &["image", "list"], &["spool", "status"], &["healthcheck"]] {
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
        let taken = TcpListener::bind(settings.public()).unwrap();
        let settings = settings.with("PIXELD_THROTTLE", "1 hour").with("PIXELD_DURABILTY", "synced");
        let (code, text) = said(&settings.command(arguments).output().unwrap());
        // The port is taken, but the error is about something else.
        assert_eq!(code, 64, "{text}");
        for part in ["PIXELD_THROTTLE", "1 hour", "30m", "PIXELD_DURABILTY", "PIXELD_DURABILITY"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        drop(taken);
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn a_second_process_on_the_data_directory_or_the_port_is_refused() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let second = Settings::new(PIXELD, app.server.data_dir()).unwrap().with("DATABASE_URL", app.url());
    for arguments in [&["serve"][..], &["spool", "drain"]] {
        let (code, text) = said(&second.command(arguments).output().unwrap());
        assert!(code == 1 && text.contains("another pixeld is using"), "{code} {text}");
    }
    let mut elsewhere = settings.clone();
    elsewhere.data_dir = app.dir.path().join("elsewhere");
    let (code, text) = said(&elsewhere.command(&["serve"]).output().unwrap());
    assert!(code == 1 && text.contains("PIXELD_LISTEN") && text.contains("in use"), "{code} {text}");
    assert_eq!(app.get("/healthz").status, 200);
}

#[test]
fn healthcheck_checks_whether_pixels_are_served() {
    let _machine = beside();
    let mut app = App::start();
    let settings = app.server.settings().clone();
    assert_eq!(settings.run(&["healthcheck"]).unwrap(), "ok\n");
    app.server.kill().unwrap();
    let (code, text) = said(&settings.command(&["healthcheck"]).output().unwrap());
    assert!(code == 1 && text.contains("no answer"), "{code} {text}");
}

#[test]
fn healthcheck_gives_up_after_two_seconds_whatever_the_server_does() {
    let _machine = beside();
    let dir = open_dir();
    for trickles in [false, true] {
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
        let hung = TcpListener::bind(settings.public()).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = hung.accept().unwrap();
            // A server that sends a byte now and then is as dead as a silent one.
            while !trickles || stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
                if !trickles && stream.read(&mut [0; 512]).is_ok_and(|length| length == 0) {
                    break;
                }
            }
        });
        let began = Instant::now();
        let (code, text) = said(&settings.command(&["healthcheck"]).output().unwrap());
        let took = began.elapsed();
        assert!(code == 1 && text.contains("no answer") && text.contains("not within 2 s"), "{code} {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!((Duration::from_secs(2)..PATIENCE).contains(&took), "{took:?}");
        serving.join().unwrap();
    }
}

#[test]
fn where_a_database_must_be_given_no_command_runs_one_of_its_own() {
    let _machine = beside();
    let dir = open_dir();
    for arguments in [&["serve"][..], &["migrate"], &["image", "list"], &["spool", "drain"], &["user", "list"]] {
        let settings =
            Settings::new(PIXELD, dir.path().join("data")).unwrap().with("PIXELD_REQUIRE_DATABASE_URL", "true");
        let (code, text) = said(&settings.command(arguments).output().unwrap());
        assert_eq!(code, 64, "{text}");
        for part in ["DATABASE_URL is not set", "postgresql://", "DATABASE_URL_FILE"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn migrate_brings_an_empty_database_up_and_changes_nothing_after_that() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap().with("DATABASE_URL", postgres.url());
    settings.run(&["migrate"]).unwrap();
    let history = "SELECT string_agg(applied_on, ',' ORDER BY version) FROM refinery_schema_history";
    let first = postgres.query(history).unwrap();
    settings.run(&["migrate"]).unwrap();
    assert_eq!(postgres.query(history).unwrap(), first);
    assert_eq!(settings.run(&["database-url"]).unwrap().trim(), postgres.url());
}

#[test]
fn what_a_dead_node_left_is_shown_and_drained() {
    let _machine = alone();
    let mut app = App::start();
    let settings = app.server.settings().clone();
    app.postgres.stop().unwrap();
    let load = app.load(16, Pace::Closed);
    load.wait_for(20_000);
    app.server.kill().unwrap();
    let load = load.end();
    let status = settings.run(&["spool", "status"]).unwrap();
    assert!(status.lines().nth(1).unwrap().ends_with('?'), "without a database nobody knows what waits: {status}");
    let (code, text) =
        said(&settings.clone().with("PIXELD_LOG", "off").command(&["spool", "status"]).output().unwrap());
    assert!(code == 0 && text.contains("cannot ask the database"), "{text}");
    app.postgres.start_again().unwrap();
    let waiting =
        |status: &str| status.lines().nth(1).unwrap().split_whitespace().last().unwrap().parse::<u64>().unwrap();
    let before = settings.run(&["spool", "status"]).unwrap();
    assert!(waiting(&before) >= 20_000, "{before}");
    let drained = settings.run(&["spool", "drain"]).unwrap();
    assert!(drained.contains(&format!("loaded {} hits, dropped 0, left 0", waiting(&before))), "{drained}");
    let after = settings.run(&["spool", "status"]).unwrap();
    assert_eq!(after.lines().nth(1).map_or(0, |_| waiting(&after)), 0, "{after}");
    load.assert_exact(&app.url());
    // Once is enough.
    assert!(settings.run(&["spool", "drain"]).unwrap().contains("loaded 0 hits, dropped 0, left 0"));
    load.assert_exact(&app.url());
}

/// The help of a command and of each below it, one after the other.
fn help(called: &[&str], command: &clap::Command) -> String {
    let output = Command::new(PIXELD).args(called).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let words: String = called.iter().flat_map(|word| [word, " "]).collect();
    let mut all = format!("$ pixeld {words}--help\n{}\n", String::from_utf8(output.stdout).unwrap());
    for inner in command.get_subcommands() {
        all.push_str(&help(&[called, &[inner.get_name()]].concat(), inner));
    }
    all
}

#[test]
fn the_help_of_every_command_is_as_it_was_accepted() {
    assert_accepted("help", &help(&[], &Cli::command()));
}
