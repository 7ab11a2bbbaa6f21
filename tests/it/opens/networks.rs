//! Lists of networks: fetched, refused, followed; and how hits are judged with them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pixeld_testkit::process::{free_port, wait_until};
use pixeld_testkit::server::Settings;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, PIXELD, REST, beside, open_dir};

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

/// Answers GETs on its own port with these bodies, until the test's process ends; other paths are never answered.
fn publish(bodies: BTreeMap<&'static str, String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let answer = match bodies.get(path.as_str()) {
                Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_owned(),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn google(prefixes: &[&str]) -> String {
    let entry = |prefix: &&str| {
        let kind = if prefix.contains(':') { "ipv6Prefix" } else { "ipv4Prefix" };
        format!("{{\"{kind}\": \"{prefix}\"}}")
    };
    let entries: Vec<String> = prefixes.iter().map(entry).collect();
    format!("{{\"syncToken\": \"1\", \"prefixes\": [{}]}}", entries.join(", "))
}

/// GET of a pixel from this address, with this user agent. Returns its recipient.
fn fetch(app: &App, message: &str, address: &str, user_agent: &str) -> Uuid {
    let recipient = Uuid::new_v4();
    let answer = app.exchange(&format!(
        "GET /t/{}/{message}/{recipient}.png HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nUser-Agent: {user_agent}\r\nConnection: close\r\n\r\n",
        app.image
    ));
    assert_eq!(answer.status, 200);
    recipient
}

/// Class, rule, network and the stored address.
fn judged(app: &App, recipient: Uuid) -> String {
    let row = format!(
        "SELECT concat_ws(' ', class, rule, network, coalesce(host(ip), 'no address')) FROM hits_readable WHERE recipient = '{recipient}'"
    );
    wait_until("the row", PATIENCE, || !app.query(&row).is_empty()).unwrap();
    app.query(&row).remove(0)
}

fn start(privacy: &str) -> App {
    App::start_with(|settings| {
        settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8").with("PIXELD_IP_PRIVACY", privacy)
    })
}

#[test]
fn a_hit_is_judged_by_the_network_of_the_address_that_is_not_kept() {
    let _machine = beside();
    let app = start("none");
    let gmail = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";
    for (address, user_agent, expected) in [
        ("66.249.84.7", gmail, "proxied gmail_proxy google no address"),
        ("192.0.2.1", gmail, "proxied gmail_proxy_elsewhere none known no address"),
        ("17.58.1.2", "Mozilla/5.0", "privacy_prefetch apple_privacy apple no address"),
        ("192.0.2.1", "Mozilla/5.0", "unknown bare_mozilla none known no address"),
        ("192.0.2.1", CHROME, "human browser none known no address"),
        ("192.0.2.1", "curl/8.5.0", "bot bot none known no address"),
        (
            "192.0.2.1",
            "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
            "proxied mail_proxy none known no address",
        ),
    ] {
        let recipient = fetch(&app, "May", address, user_agent);
        assert_eq!(judged(&app, recipient), expected, "{user_agent}");
    }
}

#[test]
fn a_message_that_was_just_sent_is_not_read_at_once() {
    let _machine = beside();
    let app = start("full");
    let earlier = fetch(&app, "May", "192.0.2.1", CHROME);
    assert_eq!(judged(&app, earlier), "human browser none known 192.0.2.1");
    app.server.settings().run(&["message", "set", "May", "--name", "News of May", "--sent-at", "now"]).unwrap();
    // The loader checks once a second, with the next hits that arrive.
    std::thread::sleep(Duration::from_millis(1100));
    let at_once = fetch(&app, "May", "192.0.2.1", CHROME);
    assert_eq!(judged(&app, at_once), "unknown browser_at_once none known 192.0.2.1");
    let months_ago = "2026-01-01T00:00:00Z";
    app.server.settings().run(&["message", "set", "May", "--sent-at", months_ago, "--sent-count", "3"]).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let later = fetch(&app, "May", "192.0.2.1", CHROME);
    assert_eq!(judged(&app, later), "human browser none known 192.0.2.1");
    let told =
        "SELECT concat_ws('|', name, sent_at = '2026-01-01 00:00:00+00', sent_count) FROM messages WHERE name <> ''";
    assert_eq!(app.query(told), ["News of May|t|3"]);
}

/// What providers publish, good and bad: the server's address.
fn published() -> String {
    let amazon = "{\"prefixes\": [{\"ip_prefix\": \"198.51.100.0/24\"}], \"ipv6_prefixes\": [{\"ipv6_prefix\": \"2001:db8:a::/48\"}]}";
    let address = publish(BTreeMap::from([
        (
            "/apple.csv",
            "203.0.113.0/25,GB,GB-EN,London,\n203.0.113.128/25,GB,GB-EN,London,\n2001:db8:1::/64,US,US-CA,,\n"
                .to_owned(),
        ),
        ("/google.json", google(&["192.0.2.0/24", "2001:db8:2::/48"])),
        ("/cloud.json", google(&["192.0.2.128/25"])),
        ("/amazon.json", amazon.to_owned()),
        ("/bad.csv", "203.0.113.0/25,GB,GB-EN,London,\n<html>sorry</html>\n".to_owned()),
        ("/wide.json", google(&["192.0.2.0/24", "0.0.0.0/0"])),
    ]));
    format!("http://{address}")
}

/// `pixeld networks update` with these files as Apple's and Google's: its status, and its output.
fn update(app: &App, published: &str, apple: &str, google: &str) -> (i32, String) {
    let url = |path: &str| format!("{published}/{path}");
    let arguments = [
        ("--apple-url", url(apple)),
        ("--google-url", url(google)),
        ("--google-cloud-url", url("cloud.json")),
        ("--amazon-url", url("amazon.json")),
    ];
    let mut command = app.server.settings().command(&["networks", "update"]);
    command.args(arguments.iter().flat_map(|(option, url)| [option.to_string(), url.clone()]));
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// The network of a fetch from this address.
fn network_of(app: &App, address: &str) -> String {
    let recipient = fetch(app, "May", address, CHROME);
    judged(app, recipient).split(' ').nth(2).unwrap().to_owned()
}

#[test]
fn lists_are_fetched_followed_and_where_one_is_bad_the_old_one_stays() {
    let _machine = beside();
    let app = start("full");
    let folder = app.server.data_dir().join("networks");
    let published = published();
    let (status, text) = update(&app, &published, "apple.csv", "google.json");
    assert!(status == 0 && text.contains("apple: 2 ranges") && text.contains("google_cloud: 1 ranges"), "{text}");
    wait_until("the lists", PATIENCE, || app.server.log().contains("lists of networks changed")).unwrap();
    for (address, expected) in [
        ("203.0.113.200", "apple"),
        ("2001:db8:1::9", "apple"),
        ("192.0.2.1", "google"),
        ("192.0.2.200", "google_cloud"),
        ("198.51.100.1", "amazon"),
        ("2001:db8:a::1", "amazon"),
    ] {
        assert_eq!(network_of(&app, address), expected, "{address}");
    }
    let before = fs::read_to_string(folder.join("apple.txt")).unwrap();
    let (status, text) = update(&app, &published, "bad.csv", "wide.json");
    assert!(
        status == 1 && text.contains("line 2") && text.contains("too wide") && text.contains("2 lists were not"),
        "{text}"
    );
    let (status, text) = update(&app, &published, "missing.csv", "google.json");
    assert!(status == 1 && text.contains("404"), "{text}");
    assert_eq!(fs::read_to_string(folder.join("apple.txt")).unwrap(), before);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(files.iter().all(|name| name.to_str().unwrap().ends_with(".txt")) && files.len() == 4, "{files:?}");
    a_list_with_a_mistake_is_refused_until_it_is_mended(&app, &folder.join("scanners.txt"));
}

/// An operator's own list with a mistake: refused with its line.
fn a_list_with_a_mistake_is_refused_until_it_is_mended(app: &App, list: &Path) {
    let settings = app.server.settings();
    fs::write(list, "198.51.100.77\nnonsense\n").unwrap();
    wait_until("the refusal", PATIENCE, || app.server.log().contains("scanners.txt, line 2")).unwrap();
    assert_eq!(app.server.metrics().unwrap().get("pixeld_networks_refused_total"), 1.0);
    let status = settings.command(&["networks", "status"]).output().unwrap();
    let said = String::from_utf8([status.stdout, status.stderr].concat()).unwrap();
    assert!(
        status.status.code() == Some(1) && said.contains("scanners.txt, line 2") && said.contains("apple"),
        "{said}"
    );
    fs::write(list, "198.51.100.77\n").unwrap();
    wait_until("the mended list", PATIENCE, || network_of(app, "198.51.100.77") == "scanners").unwrap();
    assert_eq!(network_of(app, "198.51.100.78"), "amazon");
    assert!(settings.run(&["networks", "status"]).unwrap().contains("scanners"));
}

/// `openssl s_server`, which serves the files of a directory over HTTPS; ended when dropped.
struct Https(Child);

impl Drop for Https {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn lists_are_fetched_from_behind_an_authority_that_ssl_cert_file_names() {
    let _machine = beside();
    let dir = open_dir();
    let openssl = |line: &str| {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=Authority");
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost");
    fs::write(dir.path().join("ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.crt -extfile ext");
    let amazon = "{\"prefixes\": [{\"ip_prefix\": \"198.51.100.0/24\"}], \"ipv6_prefixes\": []}";
    let lists = [
        ("--apple-url", "apple.csv", "203.0.113.0/25,GB,GB-EN,London,\n".to_owned()),
        ("--google-url", "google.json", google(&["192.0.2.0/24"])),
        ("--google-cloud-url", "cloud.json", google(&["192.0.2.128/25"])),
        ("--amazon-url", "amazon.json", amazon.to_owned()),
    ];
    for (_, name, body) in &lists {
        fs::write(dir.path().join(name), body).unwrap();
    }
    let port = free_port().unwrap();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-WWW", "-quiet", "-cert", "server.crt", "-key", "server.key"]);
    server.args(["-accept", &port.to_string()]);
    server.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Https(server.spawn().unwrap());
    wait_until("openssl", REST, || std::net::TcpStream::connect(("localhost", port)).is_ok()).unwrap();

    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
    fs::create_dir(&settings.data_dir).unwrap();
    let update = |certificates: Option<&str>| {
        let mut command = settings.command(&["networks", "update"]);
        for (option, name, _) in &lists {
            command.args([option, &*format!("https://localhost:{port}/{name}")]);
        }
        command.env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        command.envs(certificates.map(|name| ("SSL_CERT_FILE", dir.path().join(name))));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (status, text) = update(None);
    assert!(status == 1 && text.contains("certificate in SSL_CERT_FILE"), "{text}");
    let (status, text) = update(Some("missing.crt"));
    assert!(status == 1 && text.contains("SSL_CERT_FILE or SSL_CERT_DIR is set") && text.contains("missing"), "{text}");
    let (status, text) = update(Some("ca.crt"));
    assert!(status == 0 && text.contains("apple: 1 ranges") && text.contains("amazon: 1 ranges"), "{text}");
}
