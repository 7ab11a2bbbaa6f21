//! pixeld behind the nginx of nginx/: what readers get through it, what is recorded, and what nginx does not log.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pixeld::parts::admin::UPLOAD_BYTES_MAX;
use pixeld_edge::images::TRANSPARENT_GIF;
use pixeld_testkit::process::{free_port, wait_until};
use uuid::Uuid;

use crate::edge::forgiven::{changed, links, send_to};
use crate::kit::support::{App, PATIENCE, alone, beside};
use crate::kit::visitor::{PASSWORD, add_user, form};
use crate::privacy::opt_out::KEYS;
use crate::privacy::opt_out_page::footer;
use crate::ship::edge_nginx::{ADMIN, Fetched, Nginx, PUBLIC, installed};

/// A reader's address that is not nginx's.
const READER: &str = "127.0.0.5";

struct Site {
    nginx: Nginx,
    app: App,
}

impl Site {
    fn start() -> Site {
        let [http, https] = [(); 2].map(|()| free_port().unwrap());
        let app = App::start_with(|settings| {
            settings
                .with("PIXELD_BASE_URL", format!("https://{PUBLIC}"))
                // With a port that browsers send: they leave out 80 and 443.
                .with("PIXELD_ADMIN_BASE_URL", format!("https://{ADMIN}:{https}"))
                // nginx, and no other address of this machine.
                .with("PIXELD_TRUSTED_PROXIES", "127.0.0.1")
                .with("PIXELD_SIGNING_KEYS", KEYS)
        });
        installed(app.dir.path());
        let (public, admin) = (app.server.settings().public(), app.server.settings().admin());
        let nginx = Nginx::start_at(
            [http, https],
            app.dir.path(),
            [("127.0.0.1:8080", public), ("127.0.0.1:8081", admin)],
            &[],
        );
        Site { nginx, app }
    }

    fn pixel(&self) -> (String, Uuid) {
        let recipient = Uuid::new_v4();
        (self.app.pixel(Uuid::new_v4(), recipient), recipient)
    }

    fn address_of(&self, recipient: Uuid) -> Vec<String> {
        self.app.at_rest();
        self.app.query(&format!("SELECT host(ip) FROM hits WHERE recipient = '{recipient}'"))
    }

    /// Nothing of a request is in any file that nginx has written.
    fn assert_nothing_written(&self, private: &[&str]) {
        let written = self.nginx.written();
        for private in ["/image/", "/t/", "/o/", "/opt-out/", READER, "GET ", "client:"].iter().chain(private) {
            assert!(!written.contains(private), "{private} in {written}");
        }
    }
}

#[test]
fn pixels_come_in_every_version_of_http_as_pixeld_made_them_with_the_readers_own_address() {
    let _machine = beside();
    let site = Site::start();
    let png = fs::read("src/app/sample.png").unwrap();
    let spoofed = ["--header", "X-Forwarded-For: 203.0.113.9", "--header", "X-Real-IP: 203.0.113.9"];
    let mut private = Vec::new();
    for (origin, option, version) in [
        (format!("https://{PUBLIC}"), "--http2", "2"),
        (format!("https://{PUBLIC}"), "--http1.1", "1.1"),
        (format!("http://{PUBLIC}"), "--http1.1", "1.1"),
    ] {
        let (path, recipient) = site.pixel();
        let arguments = [&["--interface", READER, option, "--user-agent", "Thunderbird"], &spoofed[..]].concat();
        let fetched = site.nginx.fetch(&format!("{origin}{path}"), &arguments);
        assert_eq!((fetched.status, &*fetched.version, &fetched.body), (200, version, &png), "{}", fetched.head);
        let direct = site.app.get(&path);
        for name in [
            "content-type",
            "content-length",
            "etag",
            "cache-control",
            "x-content-type-options",
            "content-security-policy",
            "cross-origin-resource-policy",
        ] {
            assert_eq!(fetched.header(name), direct.header(name), "{name} over {option}");
        }
        assert_eq!(fetched.header("server"), Some("nginx"), "no version");
        assert!(fetched.header("set-cookie").is_none() && fetched.header("x-cache").is_none());
        assert_eq!(site.address_of(recipient), [READER, "127.0.0.1"], "the second is the direct one");
        let etag = format!("If-None-Match: {}", fetched.header("etag").unwrap());
        let again = site.nginx.fetch(&format!("{origin}{path}"), &[option, "--header", &etag]);
        assert_eq!((again.status, again.body.len()), (304, 0));
        let head = site.nginx.fetch(&format!("{origin}{path}"), &[option, "--head"]);
        assert_eq!((head.status, head.header("content-length")), (200, direct.header("content-length")));
        private.push(recipient.to_string());
    }
    // A name from an old email, a link as mailing programs make it, and a name that does not exist.
    let (path, recipient) = site.pixel();
    assert_eq!(site.nginx.fetch(&format!("http://old-name.example.com{path}"), &[]).status, 200);
    assert_eq!(site.address_of(recipient).len(), 1);
    let key = format!("https://{PUBLIC}/t/{}/may%2Fnews/jane%40example.com.png?utm=1", site.app.image);
    assert_eq!(site.nginx.fetch(&key, &[]).body, png);
    assert_eq!(site.app.at_rest().get("pixeld_requests_total{outcome=\"malformed\"}"), 0.0);
    let nothing = site.nginx.fetch(&format!("https://{PUBLIC}/image/{}.png", Uuid::new_v4()), &[]);
    assert_eq!((nothing.status, &*nothing.body), (404, &TRANSPARENT_GIF[..]));
    let refused = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &["--request", "POST"]);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    let with_body = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &["--request", "GET", "--data", "body"]);
    assert_eq!(with_body.status, 413);
    assert!(!with_body.text().contains("nginx/"), "{}", with_body.text());
    if Path::new("/proc/net/if_inet6").exists() {
        let (path, recipient) = site.pixel();
        let url = format!("http://[::1]:{}{path}", site.nginx.http);
        assert!(site.nginx.curl(&["--header", "X-Forwarded-For: 2001:db8::1", &url]).status.success());
        assert_eq!(site.address_of(recipient), ["::1"]);
    }
    let private: Vec<&str> = private.iter().map(String::as_str).collect();
    site.assert_nothing_written(&private);
    // The oldest clients send no host.
    let (path, recipient) = site.pixel();
    let nameless = ["--interface", READER, "--http1.0", "--header", "Host:"];
    let fetched = site.nginx.fetch(&format!("http://{PUBLIC}{path}"), &nameless);
    assert_eq!((fetched.status, &fetched.body), (200, &png), "{}", fetched.head);
    assert_eq!(site.address_of(recipient), [READER]);
}

#[test]
fn a_slightly_changed_link_is_recorded_through_nginx_too() {
    let _machine = beside();
    let site = Site::start();
    let (message, png) = (Uuid::new_v4(), fs::read("src/app/sample.png").unwrap());
    let links = links(&site.app, message);
    for link in &links {
        for path in changed(link) {
            let fetched = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &["--interface", READER]);
            assert!(fetched.status == 200 && fetched.body == png, "{path}: {}", fetched.head);
        }
        assert_eq!(site.address_of(link.recipient), vec![READER; changed(link).len()], "{}", link.prefix);
    }
    // Bytes that HTTP forbids, and that nginx passes on.
    let raw = Uuid::new_v4();
    let path = format!("/image/{}_{message}_{raw}.gif", site.app.image);
    let plain = SocketAddr::from(([127, 0, 0, 1], site.nginx.http));
    for query in [&b"name=m\xfcller"[..], b"id=<4711>", b"x=\"`y`\""] {
        let rest = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let request = [b"GET ", path.as_bytes(), b"?", query, rest].concat();
        assert_eq!(send_to(plain, &[&request]).body, png, "{}", query.escape_ascii());
    }
    assert_eq!(site.address_of(raw).len(), 3);
    let token = footer(site.app.server.settings(), site.app.image, "jane@example.com")["/opt-out/".len()..].to_owned();
    for path in [
        format!("/OPT-OUT/{token}"),
        format!("//Opt-Out//{token}."),
        format!("//opt-out/{token})"),
        format!("/opt-out/{}%0D%0A%20{}", &token[..20], &token[20..]),
        format!("/OPT-OUT/{}%0D%0A%20{}%3Fx", &token[..20], &token[20..]),
    ] {
        let looked = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &[]);
        assert!(looked.status == 200 && looked.text().contains("Do not record me"), "{path}: {}", looked.text());
        let plain = site.nginx.fetch(&format!("http://{PUBLIC}{path}"), &[]);
        assert_eq!((plain.status, plain.header("location")), (308, Some(&*format!("https://{PUBLIC}{path}"))));
    }
    let sent =
        site.nginx.fetch(&format!("https://{PUBLIC}/OPT-OUT/{token}."), &["--data", "List-Unsubscribe=One-Click"]);
    assert!(sent.status == 200 && sent.text().contains("no longer recorded"), "{}", sent.text());
    site.assert_nothing_written(&[&token]);
}

#[test]
fn what_nginx_refuses_itself_shows_the_gif() {
    let _machine = beside();
    let site = Site::start();
    let (path, recipient) = site.pixel();
    let keyed = format!("/t/{}/%%jobid%%/%%subscriberid%%.gif", site.app.image);
    for option in ["--http2", "--http1.1"] {
        for url in [
            format!("https://{PUBLIC}{keyed}"),
            format!("https://{PUBLIC}{path}?x=1%00"),
            format!("https://{PUBLIC}{path}%zz"),
            format!("https://{PUBLIC}{path}%00"),
        ] {
            let fetched = site.nginx.fetch(&url, &[option]);
            if url.contains('?') {
                assert_eq!(fetched.status, 200, "a query is nobody's business: {url}");
                continue;
            }
            assert!(fetched.status == 400 && fetched.is_nginx_gif(), "{url}: {}", fetched.head);
            assert_eq!(fetched.header("content-type"), Some("image/gif"));
            assert_eq!(fetched.header("cache-control"), Some("private, no-store"));
            assert!(
                fetched.header("last-modified").is_none() && fetched.header("server") == Some("nginx"),
                "{}",
                fetched.head
            );
        }
    }
    let [plain, tls] = [site.nginx.http, site.nginx.https].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let long = "a".repeat(40_000);
    for (address, status, request) in [
        (plain, 400, format!("GET {keyed} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (plain, 400, format!("GET {path}%20a b.gif HTTP/1.1\r\nHost: x\r\n\r\n")),
        (plain, 400, format!("GET {path} HTTP/1.1\r\nHost: a b\r\n\r\n")),
        (plain, 400, format!("GET {path} HTTP/1.1\r\n\r\n")),
        (plain, 400, format!("GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {long}\r\n\r\n")),
        (plain, 414, format!("GET {path}?{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        (tls, 400, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
    ] {
        let answer = send_to(address, &[request.as_bytes()]);
        assert_eq!(answer.status, status, "{request:.200}");
        assert_eq!(
            (answer.header("content-type"), answer.body.len()),
            (Some("image/gif"), TRANSPARENT_GIF.len()),
            "{request:.200}"
        );
    }
    assert_eq!(site.address_of(recipient).len(), 2, "only those with a query");
    site.assert_nothing_written(&[&recipient.to_string()]);
}

/// The number before a word in h2load's output.
fn said(text: &str, line: &str, word: &str) -> u64 {
    let line = text.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|found| *found == word).unwrap_or_else(|| panic!("no {word} in {line}"));
    words[at - 1].parse().unwrap()
}

fn h2load(site: &Site, requests: u64, arguments: &[&str]) -> String {
    let list = site.app.dir.path().join("urls");
    let mut file = fs::File::create(&list).unwrap();
    let message = Uuid::new_v4();
    for _ in 0..2000 {
        let path = site.app.pixel(message, Uuid::new_v4());
        writeln!(file, "https://127.0.0.1:{}{path}", site.nginx.https).unwrap();
    }
    let output = Command::new("h2load")
        .args(["--requests", &requests.to_string(), "--input-file", list.to_str().unwrap()])
        .args(arguments)
        .output()
        .expect("h2load, which scripts/install-test-tools.sh installs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn under_load_pixeld_nginx_and_the_client_count_the_same() {
    let _machine = alone();
    let site = Site::start();
    for (option, requests) in [(&["--max-concurrent-streams", "8"][..], 20_000), (&["--h1"], 20_000)] {
        let (rows, before) = (site.app.number("SELECT count(*) FROM hits"), site.nginx.requests());
        let text = h2load(&site, requests, &[&["--clients", "32"], option].concat());
        assert_eq!(said(&text, "status codes:", "2xx"), requests, "{text}");
        assert_eq!(said(&text, "requests:", "succeeded"), requests, "{text}");
        // One more for the number itself.
        assert_eq!(site.nginx.requests() - before, requests + 1);
        let metrics = site.app.at_rest();
        assert_eq!(site.app.number("SELECT count(*) FROM hits") - rows, requests, "{}", metrics.0);
        println!("{}", text.lines().find(|line| line.starts_with("finished")).unwrap());
    }
    assert_eq!(site.app.at_rest().get("pixeld_hits_accepted_total"), 40_000.0);
    site.assert_nothing_written(&[]);
}

#[test]
fn a_pixeld_that_hangs_breaks_no_email_and_fills_nginx_with_no_requests() {
    let _machine = beside();
    let site = Site::start();
    site.app.server.signal(Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    // More than one address may have at a time: the rest is answered at once, the others after the time-out.
    let text = h2load(&site, 1500, &["--clients", "15", "--max-concurrent-streams", "100"]);
    let took = began.elapsed();
    site.app.server.signal(Signal::SIGCONT).unwrap();
    assert_eq!(said(&text, "status codes:", "2xx"), 1500, "{text}");
    assert!((Duration::from_secs(4)..PATIENCE).contains(&took), "{took:?}");
    let (path, recipient) = site.pixel();
    assert_eq!(site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &[]).header("content-type"), Some("image/png"));
    assert_eq!(site.address_of(recipient).len(), 1);
    site.assert_nothing_written(&[]);
}

#[test]
fn while_pixeld_is_away_an_email_gets_the_gif_and_monitoring_the_truth() {
    let _machine = beside();
    let mut site = Site::start();
    let (path, recipient) = site.pixel();
    site.app.server.kill().unwrap();
    for option in ["--http2", "--http1.1"] {
        let fetched = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &[option]);
        assert!(fetched.status == 200 && fetched.is_nginx_gif(), "{}", fetched.head);
        assert_eq!(fetched.header("content-type"), Some("image/gif"));
        assert_eq!(fetched.header("cache-control"), Some("private, no-store"));
        assert_eq!(fetched.header("content-security-policy"), Some("default-src 'none'; sandbox"));
        assert!(fetched.header("etag").is_none() && fetched.header("last-modified").is_none(), "{}", fetched.head);
        let head = site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &[option, "--head"]);
        assert_eq!((head.status, head.body.len()), (200, head.head.len()), "curl writes the head there");
        let held = ["--header", "If-None-Match: \"x\"", "--header", "If-Modified-Since: Mon, 28 Sep 1970 06:00:00 GMT"];
        assert_eq!(site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &held).status, 200);
    }
    for url in [
        format!("https://{PUBLIC}/healthz"),
        format!("https://{PUBLIC}/opt-out/x"),
        format!("https://{ADMIN}/"),
        format!("http://{PUBLIC}/healthz"),
    ] {
        let fetched = site.nginx.fetch(&url, &[]);
        assert_eq!(fetched.status, 502, "{url}");
        assert!(fetched.header("server") == Some("nginx") && !fetched.text().contains("nginx/"), "{}", fetched.text());
    }
    site.app.restart();
    wait_until("the image", PATIENCE, || {
        site.nginx.fetch(&format!("https://{PUBLIC}{path}"), &[]).header("content-type") == Some("image/png")
    })
    .unwrap();
    assert_eq!(site.nginx.fetch(&format!("https://{PUBLIC}/healthz"), &[]).status, 200);
    assert!(!site.address_of(recipient).is_empty());
    site.assert_nothing_written(&[&recipient.to_string()]);
}

#[test]
fn under_the_public_name_the_private_listener_has_the_opt_out_page_and_nothing_else() {
    let _machine = beside();
    let site = Site::start();
    let page = footer(site.app.server.settings(), site.app.image, "jane@example.com");
    let url = format!("https://{PUBLIC}{page}");
    let looked = site.nginx.fetch(&url, &["--interface", READER]);
    assert!(looked.status == 200 && looked.text().contains("Do not record me"), "{}", looked.text());
    let sent = site.nginx.fetch(&url, &["--interface", READER, "--data", "List-Unsubscribe=One-Click"]);
    assert!(sent.status == 200 && sent.text().contains("no longer recorded"), "{}", sent.text());
    assert_eq!(site.app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1);
    let (_, style) =
        looked.text().split_once("rel=\"stylesheet\" href=\"").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let style = format!("https://{PUBLIC}/opt-out/{}", style.split_once('"').unwrap().0);
    assert_eq!(site.nginx.fetch(&style, &[]).header("content-type"), Some("text/css; charset=utf-8"));
    let plain = site.nginx.fetch(&format!("http://{PUBLIC}{page}"), &[]);
    assert_eq!((plain.status, plain.header("location")), (308, Some(&*format!("https://{PUBLIC}{page}"))));
    let large = "a".repeat(70_000);
    assert_eq!(site.nginx.fetch(&url, &["--data", &large]).status, 413);

    let mut reached = Vec::new();
    for path in [
        "/",
        "/sign-in",
        "/settings",
        "/messages",
        "/metrics",
        "/readyz",
        "/nginx-status",
        "/opt-out",
        "/opt-out/",
        "/opt-out/../sign-in",
        "/opt-out/../metrics",
        "/opt-out/%2e%2e/sign-in",
        "/opt-out/%2E%2E/metrics",
        "/opt-out/..%2fsign-in",
        "/opt-out/..%2Fmetrics",
        "/opt-out/%252e%252e/sign-in",
        "/opt-out/..%252fsign-in",
        "/opt-out/%2e%2e%2fsign-in",
        "/opt-out/x/../../sign-in",
        "/opt-out/x/%2e%2e/%2e%2e/metrics",
        "/opt-out/./../metrics",
        "/opt-out//../sign-in",
        "/opt-out//../../metrics",
        "/opt-out/..;/sign-in",
        "/opt-out/..\\sign-in",
        "/opt-out/%5c..%5csign-in",
        "/opt-out/%00/../sign-in",
        "//opt-out/../metrics",
        "/image/../sign-in",
        "/image/..%2f..%2fmetrics",
        "/OPT-OUT/../sign-in",
        "/opt-out/sign-in?/../metrics",
        "/.well-known/acme-challenge/../../sign-in",
    ] {
        for scheme in ["https", "http"] {
            // Without encryption there is one server for all names.
            let host = format!("Host: {ADMIN}");
            let arguments: &[&str] = if scheme == "http" { &["--header", &host] } else { &["--http1.1"] };
            let answer = site.nginx.fetch(&format!("{scheme}://{PUBLIC}{path}"), arguments);
            let text = answer.text();
            let private = ["Sign in", "assword", "pixeld_", "Active connections", "nginx/"];
            if ![301, 308, 400, 404].contains(&answer.status) || private.iter().any(|private| text.contains(private)) {
                reached.push(format!("{scheme} {path}: {} {text}", answer.status));
            }
        }
    }
    assert!(reached.is_empty(), "{reached:#?}");
    site.assert_nothing_written(&["jane", &page[9..]]);
}

/// The URL of one of the admin page's paths.
fn admin_url(path: &str) -> String {
    format!("https://{ADMIN}{path}")
}

/// What a signed-in user does.
impl Site {
    /// Signs in, and returns the session's headers.
    fn sign_in(&self, name: &str) -> [String; 2] {
        let fields = form(&[("name", name), ("password", PASSWORD), ("next", "/")]);
        let origin = format!("Origin: https://{ADMIN}:{}", self.nginx.https);
        let signed_in = self.nginx.fetch(&admin_url("/sign-in"), &["--data", &fields, "--header", &origin]);
        assert_eq!(signed_in.status, 303, "{}", signed_in.text());
        let cookie = signed_in.header("set-cookie").unwrap();
        assert!(cookie.contains("Secure"), "{cookie}");
        [format!("Cookie: {}", cookie.split(';').next().unwrap()), origin]
    }

    /// Sends a form with these fields, with the session's headers.
    fn send(&self, [cookie, origin]: &[String; 2], path: &str, fields: &[&str]) -> Fetched {
        let mut arguments = vec!["--header", cookie, "--header", origin];
        arguments.extend(fields.iter().flat_map(|field| ["--form", field]));
        self.nginx.fetch(&admin_url(path), &arguments)
    }

    /// Returns its id.
    fn takes_the_largest_picture_and_serves_it_to_a_slow_reader(&self, headers: &[String; 2]) -> String {
        let mut picture = fs::read("src/app/sample.png").unwrap();
        picture.resize(1 << 20, 0);
        let file = self.app.dir.path().join("large.png");
        fs::write(&file, &picture).unwrap();
        let file = format!("file=@{};type=image/png", file.display());
        let added = self.send(headers, "/images", &["title=large", &file]);
        let to = added.header("location").unwrap_or_else(|| panic!("{} {}", added.status, added.text())).to_owned();
        let id = to.strip_prefix("/images/").unwrap().strip_suffix("?done=added").unwrap();
        let large = format!("https://{PUBLIC}/image/{id}.png");
        wait_until("the picture", PATIENCE, || self.nginx.fetch(&large, &[]).body.len() == picture.len()).unwrap();
        for option in ["--http1.1", "--http2"] {
            let slow = self.nginx.fetch(&large, &[option, "--limit-rate", "1M"]);
            assert!(slow.status == 200 && slow.body == picture, "{option}: {} bytes", slow.body.len());
        }
        id.to_owned()
    }

    /// A list, larger than all buffers; its answer comes while it is still sent.
    fn takes_a_list_while_it_answers(&self, headers: &[String; 2]) {
        let mut list = "recipient\n".to_owned();
        for n in 0..200_000 {
            list.push_str(&format!("{n}@example.com\n"));
        }
        let path = self.app.dir.path().join("list.csv");
        fs::write(&path, &list).unwrap();
        let message = Uuid::new_v4();
        self.app.server.settings().run(&["message", "set", &message.to_string(), "--name", "May"]).unwrap();
        let file = format!("file=@{};type=text/csv", path.display());
        let image = format!("image={}", self.app.image);
        let made = self.send(headers, &format!("/messages/{message}/links"), &[&image, &file]);
        assert!(made.status == 200 && made.text().lines().count() >= 200_000, "{} {:.300}", made.status, made.text());
    }

    /// nginx's limit is pixeld's own, to the byte. A larger request is refused by its length, before it is sent.
    fn refuses_what_pixeld_would_to_the_byte(&self) {
        assert_eq!(UPLOAD_BYTES_MAX, 1 << 30);
        let head = |length: u64| {
            let length = format!("Content-Length: {length}");
            let arguments = ["--http1.1", "--header", "Expect:", "--header", &length, "--request", "POST"];
            self.nginx.fetch(&admin_url("/images"), &arguments).status
        };
        assert_eq!(head(UPLOAD_BYTES_MAX + 1), 413);
        assert_ne!(head(UPLOAD_BYTES_MAX), 413);
    }
}

#[test]
fn the_admin_page_is_limited_to_allowed_clients_and_accepts_what_pixeld_accepts() {
    let _machine = beside();
    let site = Site::start();
    add_user(&site.app, "ann", "admin");
    site.nginx.forbid_files();
    for path in ["/", "/sign-in", "/healthz", "/opt-out/x"] {
        let refused = site.nginx.fetch(&admin_url(path), &["--interface", READER]);
        assert_eq!(refused.status, 403, "{path}");
        assert!(!refused.text().contains("nginx/"));
    }
    for path in ["/metrics", "/readyz"] {
        assert_eq!(site.nginx.fetch(&admin_url(path), &[]).status, 403, "{path}");
    }
    let page = site.nginx.fetch(&admin_url("/sign-in"), &[]);
    for option in ["--http1.1", "--http2"] {
        let page = site.nginx.fetch(&admin_url("/sign-in"), &[option]);
        assert!(page.status == 200 && page.text().contains("Sign in"), "{option}: {}", page.text());
    }
    let other = ["--http1.1", "--header", &format!("Host: {ADMIN}")];
    assert_eq!(site.nginx.fetch(&admin_url("/sign-in"), &other).status, 421, "the port belongs to the name");
    assert!(page.header("strict-transport-security").is_some() && page.header("server") == Some("nginx"));
    let headers = site.sign_in("ann");
    let id = site.takes_the_largest_picture_and_serves_it_to_a_slow_reader(&headers);
    site.takes_a_list_while_it_answers(&headers);
    site.refuses_what_pixeld_would_to_the_byte();
    site.assert_nothing_written(&[&id, "example.com"]);
}

#[test]
fn a_base_url_with_a_path_works_for_every_link_through_a_proxy_that_takes_the_path_off() {
    let _machine = beside();
    let [http, https] = [(); 2].map(|()| free_port().unwrap());
    let origin = format!("https://{PUBLIC}");
    let app = App::start_with(|settings| {
        settings.with("PIXELD_BASE_URL", format!("{origin}/px/")).with("PIXELD_TRUSTED_PROXIES", "127.0.0.1")
    });
    let settings = app.server.settings();
    let (public, admin) = (settings.public(), settings.admin());
    // As in docs/deploy.md, in the server of another site.
    let conf = installed(app.dir.path());
    let page = fs::read_to_string("docs/deploy.md").unwrap();
    let (_, rest) = page.split_once("<!-- run: path -->\n```nginx\n").unwrap();
    let locations = rest.split_once("```").unwrap().0;
    let locations =
        locations.replace("127.0.0.1:8080", &public.to_string()).replace("127.0.0.1:8081", &admin.to_string());
    let file = conf.join("public.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("include pixels.conf;", &format!("include pixels.conf;\n{locations}"), 1)).unwrap();
    let upstreams = [("127.0.0.1:8080", public), ("127.0.0.1:8081", admin)];
    let nginx = Nginx::start_at([http, https], app.dir.path(), upstreams, &[]);
    let image = app.image.to_string();
    let message = Uuid::new_v4().to_string();
    let signing = settings.clone().with("PIXELD_SIGNING_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    // Links with ids, and with keys that contain what a path would resolve.
    for recipient in [Uuid::new_v4().to_string(), "a/b c%d?e".to_owned()] {
        let made = settings.run(&["link", "--image", &image, "--message", &message, "--recipient", &recipient]);
        let made = made.unwrap();
        let url = made.lines().next().unwrap();
        assert!(url.starts_with(&format!("{origin}/px/")) && !url.contains("px//"), "{url}");
        let fetched = nginx.fetch(url, &["--interface", READER]);
        assert_eq!((fetched.status, fetched.header("content-type")), (200, Some("image/png")), "{url}");
        app.at_rest();
        let id = settings.run(&["namespace", &recipient]).unwrap();
        let rows = app.query(&format!("SELECT host(ip) FROM hits WHERE recipient = '{}'", id.trim()));
        assert_eq!(rows, [READER], "{url}");
    }
    // With different keys than the running pixeld's no link is made, with a path or without.
    assert!(!signing.command(&["link", "--image", &image]).output().unwrap().status.success());
    // The link of the footer, its page, its style and its button.
    let made = settings.run(&["link", "--image", &image, "--recipient", "4711", "--opt-out"]).unwrap();
    let footer = made.lines().nth(2).unwrap();
    assert!(footer.starts_with(&format!("{origin}/px/opt-out/")), "{footer}");
    let page = nginx.fetch(footer, &[]).text();
    let (_, style) = page.split_once("rel=\"stylesheet\" href=\"").unwrap();
    let style = nginx.fetch(&format!("{origin}/px/opt-out/{}", style.split_once('"').unwrap().0), &[]);
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert_eq!(nginx.fetch(footer, &["--data", ""]).status, 200);
    assert_eq!(app.number("SELECT count(*) FROM suppressions"), 1);
    // Nothing else of the private listener is reachable there.
    assert!(!nginx.fetch(&format!("{origin}/px/sign-in"), &[]).text().contains("Sign in"));
}
