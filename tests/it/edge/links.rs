//! Keyed and signed links, from `pixeld link` to the row, and what is not recorded.
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::token::{SigningKeys, Token};
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Metrics, Settings, get};
use std::process::Command;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, add_image, beside, open_dir};

const DOCS: &str = include_str!("../../../docs/links.md");
const KEYS: &str = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The cells of a table in the docs, row by row; the number of columns identifies the table.
fn table(columns: usize, is_row: impl Fn(&[String]) -> bool) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows = DOCS.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|row| row.len() == columns && is_row(row)).collect()
}

fn vectors() -> Vec<Vec<String>> {
    let vectors = table(6, |row| row[0].parse::<u8>().is_ok());
    assert_eq!(vectors.len(), 3);
    vectors
}

fn namespace() -> Namespace {
    let (_, rest) = DOCS.split_once("under the namespace `").unwrap();
    Namespace(rest[..36].parse().unwrap())
}

fn key_vectors() -> Vec<Vec<String>> {
    let vectors = table(2, |row| row[1].parse::<Uuid>().is_ok());
    assert_eq!(vectors.len(), 6);
    vectors
}

const PYTHON: &str = include_str!("../../../docs/snippets/links.py");
const NODE: &str = include_str!("../../../docs/snippets/links.js");
const PHP: &str = include_str!("../../../docs/snippets/links.php");

fn run(interpreter: &str, flag: &str, code: &str) -> Vec<String> {
    let output = Command::new(interpreter).args([flag, code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn expected() -> Vec<String> {
    let tokens = vectors().into_iter().map(|row| row[5].clone());
    tokens.chain(key_vectors().into_iter().map(|row| row[1].clone())).collect()
}

#[test]
fn the_docs_vectors_are_what_rust_makes_and_reads() {
    assert!(DOCS.contains(&format!("PIXELD_SIGNING_KEYS={KEYS}")));
    for row in vectors() {
        let id = |column: usize| row[column].parse::<Uuid>().unwrap();
        let token = Token {
            sent_at_s: row[1].parse().unwrap(),
            image: id(2).into(),
            message: id(3).into(),
            recipient: id(4).into(),
        };
        let entry = KEYS.split(',').find(|entry| entry.starts_with(&format!("{}:", row[0]))).unwrap();
        assert_eq!(SigningKeys::parse(entry).unwrap().sign(&token).unwrap(), row[5]);
        assert_eq!(SigningKeys::parse(KEYS).unwrap().verify(&row[5]), Ok(token));
    }
    for row in key_vectors() {
        assert_eq!(namespace().id_of::<RecipientId>(&Key::typed(&row[0]).unwrap()).to_string(), row[1]);
    }
}

#[test]
fn the_docs_vectors_are_what_pythons_standard_library_makes() {
    let mut calls = String::new();
    for row in vectors() {
        let key = if row[0] == "1" { "range(32)" } else { "range(32, 64)" };
        let ids = row[2..5].iter().map(|id| format!("uuid.UUID('{id}')")).collect::<Vec<_>>().join(", ");
        calls.push_str(&format!("print(token({}, bytes({key}), {}, {ids}))\n", row[0], row[1]));
    }
    for row in key_vectors() {
        calls.push_str(&format!("print(key_id_of(uuid.UUID('{}'), '{}'))\n", namespace().0, row[0]));
    }
    assert_eq!(run("python3", "-c", &format!("{PYTHON}\n{calls}")), expected());
}

#[test]
fn the_docs_vectors_are_what_nodes_standard_library_makes() {
    let mut calls = String::new();
    for row in vectors() {
        let first = if row[0] == "1" { 0 } else { 32 };
        let key = format!("Buffer.from([...Array(32).keys()].map((n) => n + {first}))");
        calls.push_str(&format!(
            "console.log(token({}, {key}, {}, '{}', '{}', '{}'));\n",
            row[0], row[1], row[2], row[3], row[4]
        ));
    }
    for row in key_vectors() {
        calls.push_str(&format!("console.log(keyIdOf('{}', '{}'));\n", namespace().0, row[0]));
    }
    assert_eq!(run("node", "-e", &format!("{NODE}\n{calls}")), expected());
}

#[test]
fn the_docs_vectors_are_what_php_makes() {
    let mut calls = String::new();
    for row in vectors() {
        let last = if row[0] == "1" { 31 } else { 63 };
        let key = format!("implode(array_map('chr', range({}, {last})))", last - 31);
        calls.push_str(&format!(
            "echo token({}, {key}, {}, '{}', '{}', '{}'), \"\\n\";\n",
            row[0], row[1], row[2], row[3], row[4]
        ));
    }
    for row in key_vectors() {
        calls.push_str(&format!("echo key_id_of('{}', '{}'), \"\\n\";\n", namespace().0, row[0]));
    }
    // The code is passed without the tag that begins PHP files.
    assert_eq!(run("php", "-r", &format!("{}\n{calls}", PHP.strip_prefix("<?php").unwrap())), expected());
}

fn outcome(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(&format!("pixeld_requests_total{{outcome=\"{name}\"}}"))
}

/// The transparent GIF under this status.
fn is_gif(answer: &Answer, status: u16) -> bool {
    answer.status == status && answer.body == pixeld_edge::images::TRANSPARENT_GIF
}

/// URL and tag, as `pixeld link` prints them; the URL as a path.
fn link(settings: &Settings, image: ImageId, arguments: &[&str]) -> (String, String) {
    let image = image.to_string();
    let all = [&["link", "--image", &image], arguments].concat();
    let printed = settings.run(&all).unwrap();
    let (url, tag) = printed.trim().split_once('\n').unwrap();
    (url.strip_prefix("http://pixels.example.com").unwrap().to_owned(), tag.to_owned())
}

#[test]
fn a_key_is_one_recipient_in_every_spelling_and_the_namespace_command_names_it() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_BASE_URL", "http://pixels.example.com"));
    let settings = app.server.settings();
    let (path, tag) = link(settings, app.image, &["--message", "May", "--recipient", "jane@example.com"]);
    assert_eq!(path, format!("/t/{}/May/jane%40example.com.png", app.image));
    assert_eq!(tag, format!("<img src=\"http://pixels.example.com{path}\" width=\"32\" height=\"32\" alt=\"\">"));
    let id = Uuid::new_v4();
    for path in [
        path.clone(),
        format!("/t/{}/%4day/jane@example.com.gif", app.image.as_uuid().simple()),
        format!("/t/{}/May/{id}.gif", app.image),
        format!("/t/{}/May/{}.gif", app.image, id.simple().to_string().to_uppercase()),
    ] {
        assert_eq!(app.get(&path).status, 200, "{path}");
    }
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_hits_loaded_total"), 4.0);
    let ids = settings.run(&["namespace", "May", "jane@example.com"]).unwrap();
    let (message, recipient) = ids.trim().split_once('\n').unwrap();
    let namespace: Uuid = settings.run(&["namespace"]).unwrap().trim().parse().unwrap();
    assert_eq!(Namespace(namespace).id_of::<MessageId>(&Key::typed("May").unwrap()).to_string(), message);
    for recipient in [recipient, &id.to_string()] {
        let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}'");
        assert_eq!(app.number(&rows), 2, "{recipient}");
    }
    // A data directory that belonged to another database before makes no difference.
    let mut moved = settings.clone();
    moved.data_dir = app.dir.path().join("moved");
    std::fs::create_dir(&moved.data_dir).unwrap();
    std::fs::write(moved.data_dir.join("namespace"), format!("{} 0123456789abcdef\n", Uuid::new_v4())).unwrap();
    assert_eq!(moved.run(&["namespace"]).unwrap().trim(), namespace.to_string());
    assert_eq!(moved.run(&["message", "set", "May", "--name", "News"]).unwrap().trim(), message);
}

#[test]
fn a_merge_tag_that_was_left_in_a_link_records_nothing_and_is_counted() {
    let _machine = beside();
    let app = App::start();
    let sample = app.get(&format!("/image/{}.png", app.image)).body;
    for path in
        ["May/*|UNIQID|*", "May/*%7CUNIQID%7C*", "%7B%7B%20.Campaign.UUID%20%7D%7D/4711", "%%ID%%/4711", "May/[UNIQID]"]
    {
        let answer = app.get(&format!("/t/{}/{path}.gif", app.image));
        assert_eq!((answer.status, &answer.body), (200, &sample), "{path}");
    }
    assert_eq!(app.get(&format!("/t/{}/May/.gif", app.image)).status, 200);
    assert!(is_gif(&app.get("/t/x/May/4711.gif"), 404));
    let metrics = app.at_rest();
    assert_eq!((outcome(&metrics, "unmerged"), outcome(&metrics, "malformed")), (5.0, 1.0));
    // The hit that fetched the sample.
    assert_eq!(app.number("SELECT count(*) FROM hits"), 1);
}

#[test]
fn a_signed_link_is_recorded_with_its_time_and_a_forged_one_is_not() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings.with("PIXELD_BASE_URL", "http://pixels.example.com").with("PIXELD_SIGNING_KEYS", KEYS)
    });
    let settings = app.server.settings();
    let arguments = ["--message", "May", "--recipient", "4711", "--sent-at", "2026-05-04T09:00:00Z"];
    let (path, _) = link(settings, app.image, &arguments);
    let token = path.strip_prefix("/o/").unwrap().strip_suffix(".png").unwrap();
    let older = settings.clone().with("PIXELD_SIGNING_KEYS", KEYS.split_once(',').unwrap().1);
    let (of_older_key, _) = link(&older, app.image, &arguments);
    // If the same data directory has other keys, no link is made.
    let mut stranger = settings.clone().with("PIXELD_SIGNING_KEYS", "1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=");
    stranger.data_dir = app.dir.path().join("stranger");
    let (of_a_stranger, _) = link(&stranger, app.image, &arguments);
    for path in [&path, &of_older_key] {
        assert_eq!(app.get(path).header("content-type"), Some("image/png"), "{path}");
    }
    let flipped = |at: usize| {
        let mut text = token.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        format!("/o/{}.png", String::from_utf8(text).unwrap())
    };
    let mut forged: Vec<String> = (0..token.len()).step_by(7).map(flipped).collect();
    forged.extend([
        of_a_stranger,
        format!("/o/{token}==.png"),
        format!("/o/{}.png", &token[..93]),
        format!("/o/{token}A"),
        "/o/.png".to_owned(),
    ]);
    for path in &forged {
        assert!(is_gif(&app.get(path), 404), "{path}");
    }
    let head = app.exchange(&format!("HEAD {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", forged[0]));
    assert_eq!(head.status, 404);
    let metrics = app.at_rest();
    assert_eq!(outcome(&metrics, "forged"), forged.len() as f64 + 1.0);
    let ids = settings.run(&["namespace", "May", "4711"]).unwrap();
    let (message, recipient) = ids.trim().split_once('\n').unwrap();
    let signed = format!(
        "SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}' AND sent_at = '2026-05-04 09:00:00+00'"
    );
    assert_eq!(app.number(&signed), 2);
    assert_eq!(app.number("SELECT count(*) FROM hits"), 2);
}

#[test]
fn where_signatures_are_required_all_else_is_answered_and_not_recorded() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        let settings = settings.with("PIXELD_BASE_URL", "http://pixels.example.com");
        settings.with("PIXELD_SIGNING_KEYS", KEYS).with("PIXELD_REQUIRE_SIGNED", "true")
    });
    // The wait for the image used HEAD.
    let before = outcome(&app.at_rest(), "unsigned");
    let unsigned = [app.pixel(Uuid::new_v4(), Uuid::new_v4()), format!("/t/{}/May/4711.png", app.image)];
    for path in &unsigned {
        let answer = app.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    }
    let (signed, _) = link(app.server.settings(), app.image, &["--message", "May"]);
    assert_eq!(app.get(&signed).status, 200);
    let metrics = app.at_rest();
    assert_eq!((outcome(&metrics, "unsigned") - before, metrics.get("pixeld_hits_loaded_total")), (2.0, 1.0));
}

#[test]
fn what_cannot_be_a_link_is_reported() {
    let _machine = beside();
    let app = App::start();
    let said = |arguments: &[&str]| {
        let output = app.server.settings().command(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (image, other) = (app.image.to_string(), Uuid::new_v4().to_string());
    for (arguments, expected) in [
        (&["link", "--image", &image, "--sent-at", "now"][..], "PIXELD_SIGNING_KEYS"),
        (&["link", "--image", &image, "--recipient", "*|UNIQID|*"], "merge tag"),
        (&["link", "--image", &image, "--message", ""], "1 to 128 bytes"),
        (&["link", "--image", &other], "no image"),
        (&["namespace", "[ID]"], "merge tag"),
    ] {
        let (status, text) = said(arguments);
        assert!(status == 1 && text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn a_node_that_never_saw_the_database_records_keys_and_the_loader_makes_ids_of_them() {
    let _machine = beside();
    let mut postgres = Postgres::start().unwrap();
    let url = postgres.url();
    let dir = open_dir();
    let settings = Settings::new(PIXELD, dir.path().join("first")).unwrap().with("DATABASE_URL", url.clone());
    let image = add_image(&settings);
    let ids = settings.run(&["namespace", "May", "4711"]).unwrap();
    let (message, recipient) = ids.trim().split_once('\n').unwrap();
    postgres.stop().unwrap();
    // It has neither a list of images nor the namespace.
    let settings = Settings::new(PIXELD, dir.path().join("second")).unwrap().with("DATABASE_URL", url);
    let mut server = settings.start().unwrap();
    let id = Uuid::new_v4();
    for path in [format!("/t/{image}/May/4711.gif"), format!("/t/{image}/May/{id}.gif")] {
        assert!(is_gif(&get(server.public(), &path).unwrap(), 200));
    }
    server.kill().unwrap();
    let settings = server.settings().clone();
    postgres.start_again().unwrap();
    let server = settings.start().unwrap();
    wait_until("the hits", PATIENCE, || {
        postgres.query("SELECT count(*)::text FROM hits").is_ok_and(|rows| rows == ["2"])
    })
    .unwrap();
    for recipient in [recipient, &id.to_string()] {
        let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}'");
        assert_eq!(postgres.number(&rows).unwrap(), 1.0, "{recipient}");
    }
    // And now it keeps the namespace.
    let kept = dir.path().join("second").join("namespace");
    wait_until("the namespace", PATIENCE, || kept.exists()).unwrap();
    drop(server);
}
