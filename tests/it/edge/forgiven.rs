//! Links that were changed on the way: answered with the image, and recorded like the original.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pixeld_core::link::token::{SigningKeys, Token};
use pixeld_edge::images::TRANSPARENT_GIF;
use pixeld_testkit::server::{Answer, exchange, parse};
use uuid::Uuid;

use crate::kit::support::{App, beside, wait_for_opt_outs};
use crate::kit::visitor::{Visitor, text};
use crate::privacy::opt_out::KEYS;
use crate::privacy::opt_out_page::{footer, page_app};

/// A link's path before its keys or ids, the keys or ids, and the ending.
pub struct Link {
    pub prefix: &'static str,
    pub ids: String,
    pub recipient: Uuid,
}

/// A link of each kind to recipients of their own.
pub fn links(app: &App, message: Uuid) -> [Link; 3] {
    let [plain, keyed, signed] = [(); 3].map(|()| Uuid::new_v4());
    let token = Token { sent_at_s: 0, image: app.image, message: message.into(), recipient: signed.into() };
    let token = SigningKeys::parse(KEYS).unwrap().sign(&token).unwrap();
    [
        Link { prefix: "image", ids: format!("{}_{message}_{plain}", app.image), recipient: plain },
        Link { prefix: "t", ids: format!("{}/{message}/{keyed}", app.image), recipient: keyed },
        Link { prefix: "o", ids: token, recipient: signed },
    ]
}

/// Changes that do not change the meaning of a link of any kind.
pub fn changed(link: &Link) -> Vec<String> {
    let Link { prefix, ids, .. } = link;
    let upper = prefix.to_uppercase();
    let mut changed = vec![
        format!("//{prefix}/{ids}.gif"),
        format!("/{prefix}//{ids}.gif"),
        format!("/{upper}/{ids}.GIF"),
        format!("/./{prefix}/./{ids}.gif"),
        format!("/https://pixels.example.com/{prefix}/{ids}.gif"),
        format!("/%3Chttps://pixels.example.com/{prefix}/{ids}.gif%3E"),
        format!("/%20/{prefix}/{ids}.gif"),
        format!("%5C/{prefix}%5C/{}.gif", ids.replace('/', "%5C/")).replacen("%5C", "/%5C", 1),
        format!("/{prefix}/{ids}%2e%67%69%66"),
    ];
    let junk = [
        "&utm=1",
        "&amp;utm=1",
        "%20",
        ".",
        "%22",
        "'",
        ")",
        ";jsessionid=1",
        "/",
        "%3E",
        ",",
        "=",
        "%3Futm=1",
        "%0D%0A",
        "%E2%80%8B",
        "%20style=%22width:1px%22",
        "%20=200x",
        "%5D",
        "**",
        "%7Chere",
        "%5Cn",
        "%E2%80%9D",
        "%E3%80%82",
        "%3Cbr%3E",
    ];
    changed.extend(junk.map(|junk| format!("/{prefix}/{ids}.gif{junk}")));
    if *prefix != "t" {
        changed.extend([
            format!("/{prefix}/{}.gif", ids.replace('_', "%5F").replace('-', "%2d")),
            format!("/{prefix}/{}%0D%0A%20{}.gif", &ids[..50], &ids[50..]),
            format!("/{prefix}/{}=%0D%0A{}.gif", &ids[..50], &ids[50..]),
            format!("/{prefix}/3D{ids}.gif"),
            format!("/{prefix}/{ids}"),
        ]);
    }
    changed
}

#[test]
fn a_slightly_changed_link_shows_the_image_and_is_recorded_unchanged() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_SIGNING_KEYS", KEYS));
    let (message, png) = (Uuid::new_v4(), std::fs::read("src/app/sample.png").unwrap());
    let links = links(&app, message);
    for path in links.iter().flat_map(changed) {
        let answer = app.get(&path);
        assert!(answer.status == 200 && answer.body == png, "{path}: {}", answer.status);
    }
    app.at_rest();
    for link in &links {
        let rows = app.number(&format!(
            "SELECT count(*) FROM hits WHERE image = '{}' AND message = '{message}' AND recipient = '{}'",
            app.image, link.recipient
        ));
        assert_eq!(rows, changed(link).len() as u64, "{}", link.prefix);
    }
    let metrics = app.server.metrics().unwrap();
    let all: usize = links.iter().map(|link| changed(link).len()).sum();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"image\"}"), all as f64 + 1.0, "and one HEAD at the start");
}

#[test]
fn a_slightly_changed_link_to_the_opt_out_page_leads_there() {
    let _machine = beside();
    let app = page_app();
    let path = footer(app.server.settings(), app.image, "jane@example.com");
    let token = &path["/opt-out/".len()..];
    let ask = |method: &str, path: &str| {
        let body = "List-Unsubscribe=One-Click";
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(app.server.settings().admin(), request.as_bytes()).unwrap()
    };
    for changed in [
        format!("/opt-out/{token}."),
        format!("/opt-out/{token})"),
        format!("/OPT-OUT/{token}"),
        format!("//opt-out/{token}"),
        format!("/opt-out/{}%0D%0A%20{}", &token[..20], &token[20..]),
        format!("/opt-out/3D{token}&utm=1"),
    ] {
        assert_eq!(ask("GET", &changed).status, 200, "{changed}");
    }
    assert_eq!(ask("POST", &format!("//Opt-Out/{token}.")).status, 200);
    assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1);
    for other in [format!("/opt-out/{}", &token[1..]), format!("/opt-out/{token}="), "/OPT-OUT/../sign-in".to_owned()] {
        assert_ne!(ask("GET", &other).status, 200, "{other}");
    }
}

fn send(app: &App, pieces: &[&[u8]]) -> Answer {
    send_to(app.server.public(), pieces)
}

/// Sends pieces one after the other and reads to the connection's end.
pub fn send_to(address: SocketAddr, pieces: &[&[u8]]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for piece in pieces {
        // It may be answered before everything is sent.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    parse(&answer).unwrap()
}

#[test]
fn a_link_with_bytes_that_http_forbids_shows_the_picture_and_is_recorded() {
    let _machine = beside();
    let app = App::start();
    let (image, png) = (app.image, std::fs::read("src/app/sample.png").unwrap());
    let ids = app.server.settings().run(&["namespace", "m\u{fc}ller", "<4711>", "a b", "x`y"]).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    let message = Uuid::new_v4();
    let rest = b" HTTP/1.1\r\nHost: x\r\nUser-Agent: raw\r\nConnection: close\r\n\r\n";
    let recipient = Uuid::new_v4();
    let plain = format!("/image/{image}_{message}_{recipient}.gif");
    let mut asked = 0;
    for (target, recipient) in [
        (format!("/t/{image}/{message}/m\u{fc}ller.gif").into_bytes(), ids[0].to_owned()),
        (format!("/t/{image}/{message}/<4711>.gif").into_bytes(), ids[1].to_owned()),
        (format!("/t/{image}/{message}/a b.gif").into_bytes(), ids[2].to_owned()),
        (format!("/t/{image}/{message}/x`y.gif").into_bytes(), ids[3].to_owned()),
        ([plain.as_bytes(), b"?name=m\xfcller&x=\"<4711>\"`"].concat(), recipient.to_string()),
        ([plain.as_bytes(), b"\xff"].concat(), recipient.to_string()),
        ([plain.as_bytes(), b"\x01#x"].concat(), recipient.to_string()),
        (format!("{}\t {}", &plain[..60], &plain[60..]).into_bytes(), recipient.to_string()),
        (plain.as_bytes()[1..].to_vec(), recipient.to_string()),
        (format!("https://pixels example.com{plain}").into_bytes(), recipient.to_string()),
    ] {
        let rows = || {
            let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient = '{recipient}'");
            app.number(&rows)
        };
        let before = rows();
        let request = [b"GET ", &target[..], rest].concat();
        // At once, byte by byte, and cut in the middle of the line.
        let bytes: Vec<&[u8]> = request.chunks(1).collect();
        let (front, behind) = request.split_at(70);
        for pieces in [&[&request[..]][..], &bytes, &[front, behind]] {
            let answer = send(&app, pieces);
            assert!(answer.status == 200 && answer.body == png, "{}: {}", target.escape_ascii(), answer.head);
            asked += 1;
        }
        app.at_rest();
        assert_eq!(rows() - before, 3, "{}", target.escape_ascii());
    }
    assert_eq!(app.number("SELECT count(*) FROM hits_readable WHERE user_agent = 'raw'"), asked);
    let metrics = app.server.metrics().unwrap();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"unreadable\"}"), 0.0);
    // A key in Latin-1 is a different key than in UTF-8, and is recorded, too.
    let latin = [format!("GET /t/{image}/{message}/m").as_bytes(), b"\xfcller.gif", rest].concat();
    assert_eq!(send(&app, &[&latin]).status, 200);
    app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits_readable WHERE user_agent = 'raw'"), asked + 1);
}

#[test]
fn the_connection_goes_on_after_a_mended_request() {
    let _machine = beside();
    let app = App::start();
    let mut stream = TcpStream::connect(app.server.public()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let message = Uuid::new_v4();
    for n in 0..20 {
        let odd = if n % 2 == 0 { "?x=<>" } else { "" };
        let path = app.pixel(message, Uuid::new_v4());
        stream.write_all(format!("GET {path}{odd} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
        loop {
            filled += stream.read(&mut buffer[filled..]).unwrap();
            let Ok(answer) = parse(&buffer[..filled]) else { continue };
            if answer.header("content-length").unwrap().parse() == Ok(answer.body.len()) {
                assert_eq!(answer.status, 200, "{n}");
                break;
            }
        }
    }
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 20);
}

#[test]
fn a_request_that_is_not_http_gets_a_picture_where_a_path_was_seen_and_is_counted_and_noted() {
    let _machine = beside();
    let app = App::start();
    let ann = Visitor::admin(&app);
    let path = |n: u128| app.pixel(Uuid::nil(), Uuid::from_u128(n));
    let long = "a".repeat(40_000);
    let requests = [
        (400, format!("GET {} HTTP/1.1\r\nHost: x\r\nUser-Agent: odd\r\nX y: z\r\n\r\n", path(1))),
        (400, format!("GET {} HTTP/1.1\r\nHost: x\r\nX: a\u{0}b\r\n\r\n", path(2))),
        (400, format!("GET {} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", path(3))),
        (400, format!("GET {}\r\n Host: x\r\n\r\n", path(4))),
        (400, format!("GET {} HTTP/3.9\r\nHost: x\r\n\r\n", path(5))),
        (431, format!("GET {} HTTP/1.1\r\nHost: x\r\nCookie: {long}\r\n\r\n", path(6))),
        (431, format!("GET {}?{long} HTTP/1.1\r\nHost: x\r\n\r\n", path(7))),
    ];
    for (status, request) in &requests {
        let answer = send(&app, &[request.as_bytes()]);
        assert_eq!((answer.status, &answer.body[..]), (*status, &TRANSPARENT_GIF[..]), "{request:.200}");
        assert_eq!(answer.header("content-type"), Some("image/gif"));
        assert_eq!((answer.header("connection"), answer.header("cache-control").is_some()), (Some("close"), true));
    }
    let head = send(&app, &[format!("HEAD {} HTTP/1.1\r\nX y: z\r\n\r\n", path(8)).as_bytes()]);
    assert_eq!((head.status, head.body.len()), (400, 0));
    let nothing = send(&app, &[b"\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n"]);
    assert_eq!((nothing.status, nothing.body.len()), (400, 0));
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"unreadable\"}"), 7.0);
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"too_large\"}"), 2.0);
    assert_eq!(metrics.get("pixeld_hits_accepted_total"), 0.0);
    let page = text(&ann.get("/not-recorded"));
    for n in 1..=8 {
        assert!(page.contains(&format!("{}", Uuid::from_u128(n))), "{n}: {page}");
    }
    assert_eq!(page.matches("The request is not valid HTTP").count(), 6, "{page}");
    assert_eq!(page.matches("longer than 16 KiB").count(), 2, "{page}");
    // Nothing is noted about recipients who opted out.
    let out = Uuid::from_u128(9);
    app.server.settings().run(&["opt-out", "--recipient", &out.to_string()]).unwrap();
    wait_for_opt_outs(&app.server, 1.0);
    assert_eq!(send(&app, &[format!("GET {} HTTP/1.1\r\nX y: z\r\n\r\n", path(9)).as_bytes()]).status, 400);
    assert!(!text(&ann.get("/not-recorded")).contains(&out.to_string()));
}
