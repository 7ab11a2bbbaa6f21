//! The page behind the link in an email's footer: what readers, mail programs, scanners and forgers get from it.
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::opt_out::OptOutKeys;
use pixeld_core::link::token::{SigningKeys, Token};
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Settings, exchange};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::support::{App, PATIENCE, beside, wait_for_opt_outs};
use crate::privacy::opt_out::KEYS;

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
        // The headers of a browser that comes from a webmail page.
        let headers =
            "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: cross-site\r\nOrigin: null\r\n";
        self.ask("POST", headers, body)
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

/// The output of `pixeld link --opt-out` for a recipient.
pub fn footer(settings: &Settings, image: ImageId, recipient: &str) -> String {
    let image = image.to_string();
    let printed = settings.run(&["link", "--image", &image, "--message", "may", "--recipient", recipient, "--opt-out"]);
    let printed = printed.unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    lines[2].strip_prefix("https://pixels.example.com").unwrap().to_owned()
}

pub fn page_app() -> App {
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
    assert_eq!(
        (count(), app.number("SELECT count(*) FROM audit WHERE action LIKE 'opted %'")),
        (0, 0),
        "scanners follow links"
    );
    let looked = text(&reader.look());
    assert!(looked.contains("Do not record me") && looked.matches("<button").count() == 1, "{looked}");
    let out = reader.post("");
    assert!(out.status == 200 && text(&out).contains("You are no longer recorded"), "{}", text(&out));
    assert!(text(&out).contains("Undo") && text(&reader.look()).contains("Undo"));
    wait_for_opt_outs(&app.server, 1.0);
    assert_eq!(app.get(&format!("/t/{}/may/jane%40example.com.png", app.image)).status, 200);
    assert_eq!(app.at_rest().dropped("suppressed"), 1.0);
    assert!(text(&reader.post("")).contains("no longer recorded"), "once more changes nothing");
    assert!(text(&reader.post("undo=yes")).contains("recorded again"));
    assert!(count() == 0 && text(&reader.look()).contains("Do not record me"));
    // What mail programs send, in both forms of RFC 8058, and what no program sends.
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
    // The stylesheet beside it, at the address in the page.
    let page = text(&reader(&path).look());
    let (_, style) = page.split_once("rel=\"stylesheet\" href=\"").unwrap();
    let style = format!("/opt-out/{}", style.split_once('"').unwrap().0);
    assert_eq!(reader(&style).look().header("content-type"), Some("text/css; charset=utf-8"));
    // All other paths are still answered only under their own name.
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
    let recipient: RecipientId = settings.run(&["namespace", "4711"]).unwrap().trim().parse().unwrap();
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
    let link = link.sign(&Token { sent_at_s: 0, image: app.image, message: MessageId::NONE, recipient }).unwrap();
    forged.extend([
        format!("{token}=="),
        format!("{token}A"),
        format!("{token}=/"),
        format!("{token}A.png"),
        link.clone(),
        link[..46].to_owned(),
        OptOutKeys::new(SigningKeys::parse(strange).unwrap(), [0; 32]).sign(recipient),
        OptOutKeys::new(SigningKeys::default(), [0; 32]).sign(recipient),
        OptOutKeys::new(SigningKeys::parse(KEYS).unwrap(), [0; 32]).sign(RecipientId::NONE),
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
    // And no pixel is served for it.
    for text in [token.to_owned(), format!("{token}{token}AA")] {
        let answer = app.get(&format!("/o/{text}.png"));
        assert_eq!((answer.status, answer.body), (404, pixeld_edge::images::TRANSPARENT_GIF.to_vec()));
    }
    // Links from before there were signing keys, or signed by the older key, stay valid; those of a removed key do not.
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
fn the_page_uses_the_readers_language_for_any_header() {
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
fn too_many_requests_and_a_missing_database_are_answered_with_a_wait() {
    let _machine = beside();
    let mut app = page_app();
    let settings = app.server.settings().clone();
    let reader = Reader { address: settings.admin(), path: footer(&settings, app.image, "4711") };
    let answers: Vec<Answer> = (0..12).map(|n| reader.post(if n % 2 == 0 { "" } else { "undo=yes" })).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 2]].concat());
    let wait: u64 = answers[11].header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31).contains(&wait) && text(&answers[11]).contains("Nothing was changed"), "{wait}");
    assert_eq!(app.number("SELECT count(*) FROM audit WHERE action LIKE 'opted %'"), 10);
    // Another person's link still works, even for a reader who had this one.
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
    wait_until("the page", PATIENCE, || other.post("").status == 200).unwrap();
}
