//! Opt-outs: from the command and from the link in an email's footer to what is no longer recorded, on every node.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadtest::generator::{Pace, Reuse};
use loadtest::process::wait_until;
use loadtest::server::{Answer, Server, Settings, exchange, get};
use pixeld::link::opt_out::OptOutKeys;
use pixeld::link::token::{SigningKeys, Token};
use uuid::Uuid;

use crate::support::{App, Load, PIXELD, REST, alone, beside};

const DOCS: &str = include_str!("../../docs/opt-out.md");
const KEYS: &str = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Another node of the same installation.
fn second(app: &App, name: &str) -> Settings {
    Settings::new(PIXELD, app.dir.path().join(name)).unwrap().with("DATABASE_URL", app.url())
}

fn rows(app: &App, recipient: Uuid) -> u64 {
    app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"))
}

fn suppressed_by_loaders(app: &App) -> f64 {
    app.number("SELECT coalesce(sum(suppressed), 0) FROM batches") as f64
}

/// `pixeld opt-out`: what it printed.
fn opt_out(settings: &Settings, recipient: &str, more: &[&str]) -> String {
    settings.run(&[&["opt-out", "--recipient", recipient], more].concat()).unwrap()
}

/// Waits until a node knows that so many are out.
fn wait_for_count(server: &Server, count: f64) {
    wait_until("the opt-outs", Duration::from_secs(5), || {
        server.metrics().is_ok_and(|metrics| metrics.get("pixeld_opted_out_recipients") == count)
    })
    .unwrap();
}

#[test]
fn an_opt_out_under_load_stops_recording_on_a_second_node_within_two_seconds_and_after_restarts_without_the_database() {
    let _machine = alone();
    let mut app = App::start();
    let mut other = second(&app, "other").start().unwrap();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(message, recipient);
    wait_until("the image", Duration::from_secs(20), || {
        get(other.public(), &path).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    let load = Load::begin(&other, app.image, 16, Pace::Open(2000.0), Reuse::KeepAlive);
    load.wait_for(2000);

    // The reader opens the email over and over, on the other node.
    let (stop, is_late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (sent, sent_late) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let reader = std::thread::spawn({
        let (public, path) = (other.public(), path.clone());
        let (stop, is_late) = (Arc::clone(&stop), Arc::clone(&is_late));
        let (sent, sent_late) = (Arc::clone(&sent), Arc::clone(&sent_late));
        move || {
            while !stop.load(Ordering::SeqCst) {
                let late = is_late.load(Ordering::SeqCst);
                let answer = get(public, &path).unwrap();
                assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
                sent.fetch_add(1, Ordering::SeqCst);
                sent_late.fetch_add(u64::from(late), Ordering::SeqCst);
            }
        }
    });
    wait_until("some opens", Duration::from_secs(20), || sent.load(Ordering::SeqCst) > 100).unwrap();
    let receipt = opt_out(app.server.settings(), &recipient.to_string(), &[]);
    std::thread::sleep(Duration::from_secs(2));
    is_late.store(true, Ordering::SeqCst);
    let from = sent_late.load(Ordering::SeqCst);
    wait_until("more opens", Duration::from_secs(20), || sent_late.load(Ordering::SeqCst) > from + 200).unwrap();
    stop.store(true, Ordering::SeqCst);
    reader.join().unwrap();
    let load = load.end();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0);

    let metrics = other.at_rest(REST).unwrap();
    let (slipped, dropped) = (suppressed_by_loaders(&app), metrics.dropped("suppressed"));
    let late = sent_late.load(Ordering::SeqCst) as f64;
    println!("{receipt}{dropped} dropped, of which {slipped} by the loader; {late} were sent 2 s later or after that");
    assert!(dropped - slipped >= late, "the edge itself drops all that came after two seconds");
    let since = "SELECT count(*) FROM hits JOIN suppressions ON at >= since";
    assert_eq!(app.number(&format!("{since} WHERE recipient = '{recipient}'")), 0);
    // The wait for the image made a hit or more.
    let kept = rows(&app, recipient) as f64;
    assert!(kept >= 100.0 && kept + dropped >= sent.load(Ordering::SeqCst) as f64, "{kept} {dropped}");
    load.assert_exact(&app.url());
    assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1);
    let made = app.number("SELECT count(DISTINCT (message, recipient)) FROM hits");
    wait_until("all opens", Duration::from_secs(20), || app.number("SELECT count(*) FROM opens") == made).unwrap();

    // Both start again while the database is down.
    let someone = app.pixel(message, Uuid::new_v4());
    app.server.terminate().unwrap();
    other.kill().unwrap();
    app.postgres.stop().unwrap();
    app.restart();
    other = other.settings().clone().start().unwrap();
    for server in [&app.server, &other] {
        for path in [&path, &path, &path, &someone] {
            assert_eq!(get(server.public(), path).unwrap().status, 200);
        }
        let metrics = server.metrics().unwrap();
        assert_eq!(metrics.dropped("suppressed"), 3.0);
        metrics.check_identity().unwrap();
    }
    app.postgres.start_again().unwrap();
    for server in [&app.server, &other] {
        let metrics = server.at_rest(REST).unwrap();
        assert_eq!(metrics.dropped("suppressed"), 3.0, "the edge did, and nothing reached the spool");
    }
    assert_eq!((rows(&app, recipient) as f64, suppressed_by_loaders(&app)), (kept, slipped));
    assert_eq!(
        app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient <> '{recipient}'")),
        2
    );
}

#[test]
fn a_node_that_never_had_the_list_records_and_the_loader_drops_what_came_after_the_opt_out_and_keeps_what_came_before()
{
    let _machine = beside();
    let mut app = App::start();
    let settings = app.server.settings().clone();
    let (id, key) = (Uuid::new_v4(), "jane@example.com");
    let of_key: Uuid = settings.run(&["namespace", key]).unwrap().trim().parse().unwrap();
    let (plain, keyed) = (app.pixel(Uuid::new_v4(), id), format!("/t/{}/may/jane%40example.com.png", app.image));
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    // It has no namespace either, so the keys are in its spool.
    let fresh = second(&app, "fresh");
    let mut node = fresh.clone().start().unwrap();
    for path in [&plain, &plain, &keyed] {
        assert_eq!(get(node.public(), path).unwrap().status, 200);
    }
    node.kill().unwrap();
    app.postgres.start_again().unwrap();
    for recipient in [&id.to_string(), key] {
        assert!(opt_out(&settings, recipient, &[]).contains("opted out since"), "{recipient}");
    }
    app.postgres.stop().unwrap();
    node = fresh.start().unwrap();
    for path in [&plain, &keyed, &keyed, &app.pixel(Uuid::new_v4(), Uuid::new_v4())] {
        assert_eq!(get(node.public(), path).unwrap().status, 200);
    }
    let metrics = node.metrics().unwrap();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_spooled")), (0.0, 7.0));
    app.postgres.start_again().unwrap();
    let metrics = node.at_rest(REST).unwrap();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_loaded_total")), (3.0, 4.0));
    assert_eq!((rows(&app, id), rows(&app, of_key), suppressed_by_loaders(&app)), (2, 1, 3.0));
    assert_eq!(app.number("SELECT count(*) FROM hits"), 4);
    // And now it has the list, for itself only.
    wait_for_count(&node, 2.0);
    let kept = node.data_dir().join("opt-outs");
    wait_until("the file", Duration::from_secs(5), || kept.exists()).unwrap();
    let bytes = std::fs::read(&kept).unwrap();
    for recipient in [id, of_key] {
        assert!(!bytes.windows(16).any(|window| window == recipient.as_bytes()), "the list names nobody");
    }
}

#[test]
fn an_opt_out_taken_back_is_recorded_again_and_every_step_has_its_receipt() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let (path, typed) = (app.pixel(message, recipient), recipient.simple().to_string().to_uppercase());
    assert!(opt_out(settings, &typed, &["--undo"]).contains("never was opted out; nothing changed"));
    assert_eq!(app.get(&path).status, 200);
    let first = opt_out(settings, &typed, &[]);
    assert!(first.contains("opted out since 20") && !first.contains(&recipient.to_string()), "{first}");
    assert!(opt_out(settings, &typed, &[]).contains("was opted out already, since"));
    wait_for_count(&app.server, 1.0);
    for _ in 0..3 {
        let answer = app.get(&path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert!(answer.header("set-cookie").is_none() && answer.header("etag").is_some());
    }
    let back = opt_out(settings, &typed, &["--undo"]);
    assert!(back.contains("recorded again since 20"), "{back}");
    assert!(opt_out(settings, &typed, &["--undo"]).contains("recorded again already"));
    wait_for_count(&app.server, 0.0);
    for _ in 0..2 {
        assert_eq!(app.get(&path).status, 200);
    }
    let metrics = app.at_rest();
    assert_eq!((rows(&app, recipient), metrics.dropped("suppressed"), metrics.dropped_all()), (3, 3.0, 3.0));
    let hash = first.split_whitespace().nth(1).unwrap();
    let noted = app.query("SELECT action || ' ' || subject || ' ' || actor || detail FROM audit ORDER BY id");
    let expected = ["opted out", "opted in again"].map(|action| format!("{action} {hash} command line{{}}"));
    assert_eq!(noted, expected);
    // Somebody removes the row by hand.
    opt_out(settings, &typed, &[]);
    wait_for_count(&app.server, 1.0);
    for (recipient, said) in [("", "1 to 128 bytes"), ("*|UNIQID|*", "merge tag"), (&Uuid::nil().to_string(), "nil")] {
        let output = settings.command(&["opt-out", "--recipient", recipient]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(said), "{text}");
    }
}

#[test]
fn a_lost_connection_or_notice_delays_an_opt_out_and_does_not_lose_it() {
    let _machine = beside();
    let app = App::start();
    let recipient = Uuid::new_v4();
    // Nobody is told of this one.
    let add = format!(
        "INSERT INTO suppressions (hash, since, change) SELECT substring(sha256(secret || uuid_send('{recipient}')) FOR 16), \
         clock_timestamp(), nextval('suppressions_change') FROM installation WHERE name = 'privacy_key'"
    );
    app.query(&add);
    wait_for_count(&app.server, 1.0);
    for _ in 0..3 {
        let end =
            "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'pixeld-opt-outs'";
        app.query(end);
        opt_out(app.server.settings(), &Uuid::new_v4().to_string(), &[]);
    }
    wait_for_count(&app.server, 4.0);
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), recipient)).status, 200);
    assert_eq!(app.at_rest().dropped("suppressed"), 1.0);
    // Removed by hand: a new connection lists all there are.
    app.query("DELETE FROM suppressions; SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'pixeld-opt-outs'");
    wait_for_count(&app.server, 0.0);
}

/// A reader's browser at the opt-out page, through a proxy that gives it any name.
struct Reader {
    address: SocketAddr,
    path: String,
}

impl Reader {
    fn ask(&self, method: &str, headers: &str, body: &str) -> Answer {
        let (path, length) = (&self.path, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: pixels.example.com\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n{body}"
        );
        exchange(self.address, request.as_bytes()).unwrap()
    }

    fn look(&self) -> Answer {
        self.ask("GET", "", "")
    }

    fn post(&self, body: &str) -> Answer {
        // As a browser says it that comes from a webmail page.
        let headers =
            "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: cross-site\r\nOrigin: null\r\n";
        self.ask("POST", headers, body)
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

/// What `pixeld link --opt-out` prints for a recipient.
fn footer(settings: &Settings, image: Uuid, recipient: &str) -> String {
    let image = image.to_string();
    let printed = settings.run(&["link", "--image", &image, "--message", "may", "--recipient", recipient, "--opt-out"]);
    let printed = printed.unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    lines[2].strip_prefix("https://pixels.example.com").unwrap().to_owned()
}

fn page_app() -> App {
    App::start_with(|settings| settings.with("PIXELD_BASE_URL", "https://pixels.example.com"))
}

#[test]
fn a_reader_opts_out_and_in_again_by_the_footers_link_and_looking_changes_nothing() {
    let _machine = beside();
    let app = page_app();
    let settings = app.server.settings();
    let reader = Reader { address: settings.admin(), path: footer(settings, app.image, "jane@example.com") };
    assert_eq!(reader.path.len(), "/opt-out/".len() + 46);
    let count = || app.number("SELECT count(*) FROM suppressions WHERE until IS NULL");
    for method in ["GET", "HEAD", "GET", "PUT", "DELETE", "OPTIONS"] {
        let answer = reader.ask(method, "", "");
        assert_eq!(answer.status, if ["GET", "HEAD"].contains(&method) { 200 } else { 404 }, "{method}");
    }
    assert_eq!((count(), app.number("SELECT count(*) FROM audit")), (0, 0), "scanners follow links");
    let looked = text(&reader.look());
    assert!(looked.contains("Do not record me") && looked.matches("<button").count() == 1, "{looked}");
    let out = reader.post("");
    assert!(out.status == 200 && text(&out).contains("You are no longer recorded"), "{}", text(&out));
    assert!(text(&out).contains("Undo") && text(&reader.look()).contains("Undo"));
    wait_for_count(&app.server, 1.0);
    assert_eq!(app.get(&format!("/t/{}/may/jane%40example.com.png", app.image)).status, 200);
    assert_eq!(app.at_rest().dropped("suppressed"), 1.0);
    assert!(text(&reader.post("")).contains("no longer recorded"), "once more changes nothing");
    assert!(text(&reader.post("undo=yes")).contains("recorded again"));
    assert!(count() == 0 && text(&reader.look()).contains("Do not record me"));
    // What mail programs send, in both forms of RFC 8058, and what nobody sends.
    let multipart = "Content-Type: multipart/form-data; boundary=x\r\n";
    for (headers, body) in [
        ("Content-Type: application/x-www-form-urlencoded\r\n", "List-Unsubscribe=One-Click"),
        (multipart, "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n"),
        ("Content-Type: text/plain\r\n", "undo=yes"),
    ] {
        assert_eq!(reader.ask("POST", headers, body).status, 200);
        assert_eq!(count(), 1, "{body}");
        reader.post("undo=yes");
    }
    assert_eq!(app.number("SELECT count(DISTINCT actor || subject) FROM audit WHERE actor = 'opt-out page'"), 1);
    let logged = app.server.log();
    assert!(!logged.contains("jane") && !logged.contains(&reader.path[9..]), "{logged}");
}

#[test]
fn the_page_is_for_everybody_and_shows_and_keeps_nothing_private() {
    let _machine = beside();
    let app = page_app();
    let settings = app.server.settings();
    let path = footer(settings, app.image, "4711");
    let reader = |path: &str| Reader { address: settings.admin(), path: path.to_owned() };
    let port = settings.admin().port().to_string();
    for (path, method, status) in [
        (&*path, "GET", 200),
        (&path, "POST", 200),
        (&path, "PUT", 404),
        ("/opt-out/x", "GET", 404),
        ("/opt-out/x", "POST", 404),
        ("/opt-out/", "GET", 404),
        ("/opt-out/a/b", "POST", 404),
        ("/opt-out/../settings", "GET", 404),
        ("/opt-out/%2e%2e/settings", "GET", 404),
    ] {
        let answer = reader(path).ask(method, "Cookie: pixeld=x\r\n", "");
        let page = text(&answer);
        assert_eq!(answer.status, status, "{method} {path}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("content-language", "en"),
            ("x-robots-tag", "noindex"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", answer.head);
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(answer.header("set-cookie").is_none() && !page.contains("<script"), "{page}");
        for private in ["4711", "pixeld", "sign-in", "href=\"/", "ssh", &port, "127.0.0.1"] {
            assert!(!page.contains(private), "{private} in {page}");
        }
    }
    // The stylesheet beside it, by the address that the page names.
    let page = text(&reader(&path).look());
    let (_, style) = page.split_once("rel=\"stylesheet\" href=\"").unwrap();
    let style = format!("/opt-out/{}", style.split_once('"').unwrap().0);
    assert_eq!(reader(&style).look().header("content-type"), Some("text/css; charset=utf-8"));
    // All else is still answered under its own name only.
    for path in ["/", "/settings", "/sign-in", "/opt-out"] {
        assert_eq!(reader(path).look().status, 421, "{path}");
    }
    let large = reader(&path).post(&"x".repeat((64 << 10) + 1));
    assert_eq!(large.status, 404);
}

#[test]
fn what_is_forged_altered_or_meant_for_a_pixel_opts_nobody_out() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings.with("PIXELD_BASE_URL", "https://pixels.example.com").with("PIXELD_SIGNING_KEYS", KEYS)
    });
    let settings = app.server.settings();
    let path = footer(settings, app.image, "4711");
    let token = path.strip_prefix("/opt-out/").unwrap();
    let recipient: Uuid = settings.run(&["namespace", "4711"]).unwrap().trim().parse().unwrap();
    let strange = "1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    let mut forged: Vec<String> = (0..token.len())
        .map(|at| {
            let mut text = token.as_bytes().to_vec();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(text).unwrap()
        })
        .collect();
    forged.extend((1..token.len()).map(|length| token[..length].to_owned()));
    let link = SigningKeys::parse(KEYS).unwrap();
    let link = link.sign(&Token { sent_at_s: 0, image: app.image, message: Uuid::nil(), recipient }).unwrap();
    forged.extend([
        format!("{token}=="),
        format!("{token}A"),
        format!("{token}/"),
        format!("{token}.png"),
        link.clone(),
        link[..46].to_owned(),
        OptOutKeys::new(SigningKeys::parse(strange).unwrap(), [0; 32]).sign(recipient),
        OptOutKeys::new(SigningKeys::default(), [0; 32]).sign(recipient),
        OptOutKeys::new(SigningKeys::parse(KEYS).unwrap(), [0; 32]).sign(Uuid::nil()),
    ]);
    for text in &forged {
        let reader = Reader { address: settings.admin(), path: format!("/opt-out/{text}") };
        let mut answer = reader.post("");
        if answer.status == 429 {
            std::thread::sleep(Duration::from_millis(100));
            answer = reader.post("");
        }
        assert_eq!(answer.status, 404, "{text}");
    }
    assert_eq!(app.number("SELECT count(*) FROM suppressions"), 0);
    // And no pixel is served for one.
    for text in [token.to_owned(), format!("{token}{token}AA")] {
        let answer = app.get(&format!("/o/{text}.png"));
        assert_eq!((answer.status, answer.body), (404, pixeld::images::TRANSPARENT_GIF.to_vec()));
    }
    // Links that were made before there were signing keys, or by the older of them, stay good; a removed key's do not.
    let own = app.query("SELECT encode(secret, 'hex') FROM installation WHERE name = 'opt_out_key'")[0].clone();
    let byte = |at: usize| u8::from_str_radix(&own[2 * at..2 * at + 2], 16).unwrap();
    let own: [u8; 32] = std::array::from_fn(byte);
    for keys in [SigningKeys::default(), SigningKeys::parse(KEYS.split_once(',').unwrap().1).unwrap()] {
        let path = format!("/opt-out/{}", OptOutKeys::new(keys, own).sign(recipient));
        assert_eq!(Reader { address: settings.admin(), path }.look().status, 200);
    }
    assert_eq!(Reader { address: settings.admin(), path }.post("").status, 200);
    assert_eq!(app.number("SELECT count(*) FROM suppressions"), 1);
}

#[test]
fn the_page_speaks_the_readers_language_whatever_the_header_holds() {
    let _machine = beside();
    let app = page_app();
    let settings = app.server.settings();
    let reader = Reader { address: settings.admin(), path: footer(settings, app.image, "4711") };
    for (accepted, tag, words) in [
        ("de-AT,de;q=0.9,en;q=0.8", "de", "Mich nicht erfassen"),
        ("pt,fr;q=0.5", "fr", "Ne pas enregistrer"),
        ("it", "it", "Non registrare"),
        ("es-MX", "es", "No registrar"),
        ("zh-CN", "en", "Do not record me"),
        ("en;q=0.1,<script>alert(1)</script>;q=1", "en", "Do not record me"),
        ("de;q=nan,de;q=1e999,es;q=0.2", "es", "No registrar"),
        (&",".repeat(4000), "en", "Do not record me"),
        (&"de;q=0.00001,".repeat(700), "de", "Mich nicht erfassen"),
        ("\u{e4}\u{f6}", "en", "Do not record me"),
    ] {
        let answer = reader.ask("GET", &format!("Accept-Language: {accepted}\r\n"), "");
        let page = text(&answer);
        assert_eq!((answer.status, answer.header("content-language")), (200, Some(tag)), "{accepted}");
        assert!(page.contains(&format!("<html lang=\"{tag}\">")) && page.contains(words), "{accepted}: {page}");
        assert!(!page.contains("alert"), "{page}");
    }
    let wrong = Reader { address: settings.admin(), path: "/opt-out/x".to_owned() };
    let page = text(&wrong.ask("GET", "Accept-Language: de\r\n", ""));
    assert!(page.contains("Dieser Link ist nicht gültig"), "{page}");
}

#[test]
fn who_asks_too_often_is_told_to_wait_and_a_database_that_is_away_is_said() {
    let _machine = beside();
    let mut app = page_app();
    let settings = app.server.settings().clone();
    let reader = Reader { address: settings.admin(), path: footer(&settings, app.image, "4711") };
    let answers: Vec<Answer> = (0..12).map(|n| reader.post(if n % 2 == 0 { "" } else { "undo=yes" })).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 2]].concat());
    let wait: u64 = answers[11].header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31).contains(&wait) && text(&answers[11]).contains("Nothing was changed"), "{wait}");
    assert_eq!(app.number("SELECT count(*) FROM audit"), 10);
    // Somebody else's link still works, also for who had that one.
    let other = Reader { address: settings.admin(), path: footer(&settings, app.image, "4712") };
    assert_eq!(other.post("").status, 200);
    let began = Instant::now();
    let refused = (0..2000).filter(|_| other.look().status == 429).count();
    assert!(refused > 0 || began.elapsed() > Duration::from_secs(90), "an address has its bound, too");
    std::thread::sleep(Duration::from_secs(1));
    app.postgres.stop().unwrap();
    for answer in [other.look(), other.post("")] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("61")), "{}", text(&answer));
        assert!(text(&answer).contains("not possible at the moment"));
    }
    assert_eq!(Reader { address: settings.admin(), path: "/opt-out/x".to_owned() }.look().status, 404);
    app.postgres.start_again().unwrap();
    wait_until("the page", Duration::from_secs(20), || other.post("").status == 200).unwrap();
}

#[test]
fn links_of_a_whole_list_leave_out_who_has_not_consented() {
    let _machine = beside();
    let app = page_app();
    let settings = app.server.settings();
    let (image, id) = (app.image.to_string(), Uuid::new_v4());
    let table = format!(
        "email,recipient,Consent\n\"Doe, Jane <j@example.com>\",4711,yes\nb@example.com,{id},no\nc@example.com,4713,\n"
    );
    let run = |arguments: &[&str], input: &str| {
        let mut command = settings.command(&[&["link", "--image", &image][..], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code().unwrap(), said)
    };
    let (code, [printed, said]) = run(&["--message", "may", "--opt-out", "--csv", "-"], &table);
    assert_eq!((code, &*said), (0, ""));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "email,recipient,Consent,link,tag,opt_out");
    let base = "https://pixels.example.com";
    let nobody = Uuid::nil();
    assert!(
        lines[1]
            .starts_with(&format!("\"Doe, Jane <j@example.com>\",4711,yes,{base}/t/{image}/may/4711.png,\"<img src="))
    );
    assert!(lines[2].starts_with(&format!("b@example.com,{id},no,{base}/t/{image}/may/{nobody}.png,")), "{}", lines[2]);
    assert!(lines[3].starts_with(&format!("c@example.com,4713,,{base}/t/{image}/may/{nobody}.png,")), "{}", lines[3]);
    for (line, recipient) in lines[1..].iter().zip(["4711", &id.to_string(), "4713"]) {
        let (_, token) = line.rsplit_once(&format!(",{base}")).unwrap();
        assert_eq!(token, footer(settings, app.image, recipient));
        assert!(!line.contains(&format!("may/{id}")), "{line}");
    }
    // A file, with a message of each row's own, and no footer.
    let file = app.dir.path().join("list.csv");
    std::fs::write(&file, "recipient,message\n4711,june\n").unwrap();
    let printed = settings.run(&["link", "--image", &image, "--csv", file.to_str().unwrap()]).unwrap();
    assert!(printed.starts_with(&format!("recipient,message,link,tag\n4711,june,{base}/t/{image}/june/4711.png,")));
    for (arguments, input, expected) in [
        (&["--csv", "-"][..], "recipient,consent\n1,yes\n2,maybe\n", "line 3: consent is \"maybe\""),
        (&["--csv", "-"], "recipient\n*|UNIQID|*\n", "line 2: the recipient \"*|UNIQID|*\" cannot be a key"),
        (&["--csv", "-"], "email\na\n", "no column named recipient"),
        (&["--csv", "/nowhere.csv"], "", "cannot open /nowhere.csv"),
        (&["--opt-out"], "", "--opt-out needs a recipient"),
    ] {
        let (code, [_, said]) = run(arguments, input);
        assert!(code == 1 && said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Rows of the docs' table of test vectors: kind, key, recipient, token.
fn vectors() -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    let rows = DOCS.lines().filter(|line| line.starts_with('|')).map(cells);
    let vectors: Vec<Vec<String>> = rows.filter(|row: &Vec<String>| row.len() == 4 && row[3].len() == 46).collect();
    assert_eq!(vectors.len(), 3);
    vectors
}

#[test]
fn the_docs_vectors_are_what_rust_and_pythons_standard_library_make() {
    assert!(DOCS.contains(&format!("PIXELD_SIGNING_KEYS={KEYS}")));
    let mut calls = String::new();
    for row in vectors() {
        let recipient: Uuid = row[2].parse().unwrap();
        let own: [u8; 32] = std::array::from_fn(|n| 64 + n as u8);
        let shared = match &*row[1] {
            "own" => SigningKeys::default(),
            id => SigningKeys::parse(KEYS.split(',').find(|entry| entry.starts_with(id)).unwrap()).unwrap(),
        };
        assert_eq!(OptOutKeys::new(shared, own).sign(recipient), row[3]);
        assert_eq!(OptOutKeys::new(SigningKeys::parse(KEYS).unwrap(), own).verify(&row[3]), Ok(recipient));
        let (id, key) = match &*row[1] {
            "own" => continue,
            "1" => (1, "range(32)"),
            _ => (2, "range(32, 64)"),
        };
        calls.push_str(&format!("print(opt_out_token({id}, bytes({key}), uuid.UUID('{recipient}')))\n"));
    }
    let (_, code) = DOCS.split_once("```python\n").unwrap();
    let code = format!("{}\n{calls}", code.split_once("```").unwrap().0);
    let output = Command::new("python3").args(["-c", &code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let expected: Vec<String> = vectors().into_iter().filter(|row| row[1] != "own").map(|row| row[3].clone()).collect();
    assert_eq!(made, expected);
}
