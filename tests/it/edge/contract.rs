//! The answer to each request, and what is recorded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use pixeld_testkit::server::{Answer, parse};
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, beside};

/// Sends all requests over one connection, each after the answer to the one before, and returns the statuses.
fn over_one_connection(app: &App, requests: impl Iterator<Item = String>, has_body: bool) -> Vec<u16> {
    let mut stream = TcpStream::connect(app.server.public()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut statuses = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    for request in requests {
        stream.write_all(request.as_bytes()).unwrap();
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "the connection ended after {request:?}");
            filled += read;
            let Ok(answer) = parse(&buffer[..filled]) else { continue };
            let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            if !has_body || answer.status == 304 || answer.body.len() == length {
                statuses.push(answer.status);
                break;
            }
        }
    }
    statuses
}

#[test]
fn a_thousand_gets_are_a_thousand_rows_and_a_thousand_heads_none() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    let paths: Vec<String> = (0..1000).map(|_| app.pixel(message, Uuid::new_v4())).collect();
    let request = |method: &str, path: &String| format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let heads = over_one_connection(&app, paths.iter().map(|path| request("HEAD", path)), false);
    assert_eq!(heads, [200; 1000]);
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_accepted_total"), metrics.get("pixeld_hits_loaded_total")), (0.0, 0.0));
    let gets = over_one_connection(&app, paths.iter().map(|path| request("GET", path)), true);
    assert_eq!(gets, [200; 1000]);
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_accepted_total"), metrics.get("pixeld_hits_loaded_total")), (1000.0, 1000.0));
    let rows = format!("SELECT count(*) FROM hits WHERE message = '{message}'");
    assert_eq!(app.number(&rows), 1000);
    let distinct = format!("SELECT count(DISTINCT recipient) FROM hits WHERE message = '{message}'");
    assert_eq!(app.number(&distinct), 1000);
}

#[test]
fn a_hit_is_a_row_soon_with_all_that_is_known_of_it() {
    let _machine = beside();
    let app = App::start();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(message, recipient);
    let before = Instant::now();
    app.exchange(&format!(
        "GET {path}?utm=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: Thunderbird \u{2603}\r\nSec-Purpose: prefetch\r\nConnection: close\r\n\r\n"
    ));
    let row = format!(
        "SELECT concat_ws('|', image, message, recipient, class, rule, prefetch, host(ip), user_agent, sent_at IS NULL, \
         at BETWEEN now() - interval '1 minute' AND now() + interval '1 minute') FROM hits_readable WHERE recipient = '{recipient}'"
    );
    let expected =
        format!("{}|{message}|{recipient}|prefetch|prefetch_header|t|127.0.0.1|Thunderbird \u{2603}|t|t", app.image);
    while app.query(&row) != [expected.as_str()] {
        assert!(before.elapsed() < PATIENCE, "{:?}", app.query(&row));
    }
}

#[test]
fn a_client_that_has_the_image_gets_304_and_a_row() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8").with("PIXELD_THROTTLE", "1h")
    });
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(message, recipient);
    let ask = |address: &str, etag: &str| {
        app.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nIf-None-Match: {etag}\r\nConnection: close\r\n\r\n"
        ))
    };
    let first = ask("192.0.2.1", "\"another\"");
    let etag = first.header("etag").unwrap().to_owned();
    assert_eq!((first.status, first.body.len() as u64), (200, std::fs::metadata("src/app/sample.png").unwrap().len()));
    for held in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let again = ask("192.0.2.2", &held);
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag.as_str())), "{held}");
    }
    app.at_rest();
    let rows = format!("SELECT host(ip) FROM hits WHERE recipient = '{recipient}' ORDER BY at");
    // Of the four from the second address, the throttle let one through.
    assert_eq!(app.query(&rows), ["192.0.2.1", "192.0.2.2"]);
}

/// The headers of whatever a pixel is answered with.
fn assert_headers(answer: &Answer, media_type: &str, path: &str) {
    let length = answer.body.len().to_string();
    for (header, value) in [
        ("content-type", media_type),
        ("content-length", length.as_str()),
        ("cache-control", "private, no-cache, max-age=0, must-revalidate"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cross-origin-resource-policy", "cross-origin"),
    ] {
        assert_eq!(answer.header(header), Some(value), "{path}: {}", answer.head);
    }
    assert!(answer.header("etag").is_some() && answer.header("set-cookie").is_none(), "{path}: {}", answer.head);
}

/// HEAD is answered like GET, without a body.
fn assert_head_is_the_same(app: &App, answer: &Answer, path: &str) {
    let head = app.exchange(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let undated = |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
    assert_eq!((undated(&head.head), head.body.len()), (undated(&answer.head), 0), "{path}");
}

/// The status, whether it is the stored image, and how the request is counted.
#[test]
fn each_request_is_answered_and_recorded_as_the_contract_says() {
    let _machine = beside();
    let app = App::start();
    let png = std::fs::read("src/app/sample.png").unwrap();
    let gif = pixeld_edge::images::TRANSPARENT_GIF.as_slice();
    let (image, id) = (app.image, Uuid::new_v4());
    let deleted = crate::kit::support::add_image(app.server.settings());
    app.wait_for_image(deleted);
    app.delete_image(deleted);
    let before = app.at_rest();
    let upper = image.to_string().to_uppercase();
    let simple = image.as_uuid().simple();
    let mut hits = 0.0;
    for (path, status, is_image, is_hit, outcome) in [
        (format!("/image/{image}.png"), 200, true, true, "image"),
        (format!("/image/{image}.x"), 200, true, true, "image"),
        (format!("/image/{upper}_{id}.jpeg"), 200, true, true, "image"),
        (format!("/image/{simple}_{}_{}.gif", id.simple(), id), 200, true, true, "image"),
        (format!("/image/{simple}_{}_{}.gif?a=/b.c", Uuid::nil(), id), 200, true, true, "image"),
        (format!("/image/{image}_{id}x_{id}.gif"), 200, true, false, "malformed"),
        (format!("/image/{image}_{id}_{id}_{id}.gif"), 200, true, false, "malformed"),
        (format!("/image/{image}_*|UNIQID|*.gif"), 200, true, false, "malformed"),
        (format!("/image/{image}.toolong"), 404, false, false, "unknown_image"),
        (format!("/image/{image}"), 404, false, false, "unknown_image"),
        (format!("/image/{}_{id}_{id}.gif", Uuid::new_v4()), 404, false, false, "unknown_image"),
        (format!("/image/{}.gif", Uuid::nil()), 404, false, false, "unknown_image"),
        ("/image/not-an-id.gif".to_owned(), 404, false, false, "unknown_image"),
        (format!("/image/{deleted}_{id}_{id}.gif"), 200, false, false, "deleted"),
        ("/".to_owned(), 404, false, false, "not_found"),
        (format!("/t/{image}/May/4711.gif"), 200, true, true, "image"),
        (format!("/t/{image}/{id}/{id}.gif"), 200, true, true, "image"),
        (format!("/t/{image}/May/*|UNIQID|*.gif"), 200, true, false, "unmerged"),
        (format!("/t/{image}/May.gif"), 200, true, false, "malformed"),
        (format!("/t/{deleted}/May/4711.gif"), 200, false, false, "deleted"),
        (format!("/t/{}/May/4711.gif", Uuid::new_v4()), 404, false, false, "unknown_image"),
        ("/t/x/May/4711.gif".to_owned(), 404, false, false, "unknown_image"),
        ("/o/x.gif".to_owned(), 404, false, false, "forged"),
    ] {
        let counted = format!("pixeld_requests_total{{outcome=\"{outcome}\"}}");
        let count = app.server.metrics().unwrap().get(&counted);
        let answer = app.get(&path);
        let (body, media_type) = if is_image { (png.as_slice(), "image/png") } else { (gif, "image/gif") };
        assert_eq!((answer.status, answer.body.as_slice()), (status, body), "{path}");
        assert_headers(&answer, media_type, &path);
        assert_eq!(app.server.metrics().unwrap().get(&counted), count + 1.0, "{path}");
        hits += f64::from(u8::from(is_hit));
        assert_head_is_the_same(&app, &answer, &path);
    }
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_hits_accepted_total") - before.get("pixeld_hits_accepted_total"), hits);
    assert_eq!(app.number("SELECT count(*) FROM hits") as f64, metrics.get("pixeld_hits_loaded_total"));
    assert_eq!(metrics.dropped_all(), before.dropped_all());
}

#[test]
fn other_methods_are_refused_and_health_is_answered() {
    let _machine = beside();
    let app = App::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND"] {
        let path = app.pixel(Uuid::new_v4(), Uuid::new_v4());
        let answer = app.exchange(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(app.get("/healthz").status, 200);
    let admin = app.server.settings().admin();
    assert_eq!(pixeld_testkit::server::get(admin, "/healthz").unwrap().status, 200);
    let ready = pixeld_testkit::server::get(admin, "/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", String::from_utf8_lossy(&ready.body));
    assert_eq!(app.at_rest().get("pixeld_hits_accepted_total"), 0.0);
}

#[test]
fn an_answer_does_not_wait_for_the_one_before_and_comes_in_turn() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    let request = |n: usize| match n % 3 {
        0 => format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", app.pixel(message, Uuid::new_v4())),
        1 => "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        _ => "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    };
    let mut stream = TcpStream::connect(app.server.public()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all: String = (0..300).map(request).collect();
    all.push_str("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(all.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    for n in 0..301 {
        let answer = parse(rest).unwrap();
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        let expected = if n == 300 { 200 } else { [200, 200, 404][n % 3] };
        assert_eq!(answer.status, expected, "answer {n}");
        rest = &rest[answer.head.len() + length..];
    }
    assert!(rest.is_empty());
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 100);
}

#[test]
fn the_connection_ends_after_each_last_answer_and_is_kept_after_every_other() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    let pixel = || app.pixel(message, Uuid::new_v4());
    let paths = [pixel(), "/nothing".to_owned(), "/healthz".to_owned()];
    for path in &paths {
        // The kernel holds such an answer until the connection ends.
        for (version, lines) in [
            ("1.1", "Connection: close\r\n"),
            ("1.1", "Connection: TE, Close\r\n"),
            ("1.0", ""),
            ("1.0", "Connection: close\r\n"),
        ] {
            let answer = app.exchange(&format!("GET {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n"));
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            assert!(answer.body.len() == length && length > 0, "{path} {version} {lines}: {answer:?}");
        }
        let status = if path == "/nothing" { 404 } else { 200 };
        for (version, lines) in [("1.1", ""), ("1.1", "Connection: closed\r\n"), ("1.0", "Connection: keep-alive\r\n")]
        {
            let request = format!("GET {path} HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
            let twice = std::iter::repeat_n(request, 2);
            assert_eq!(over_one_connection(&app, twice, true), [status; 2], "{path}");
        }
    }
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'")), 10);
}
