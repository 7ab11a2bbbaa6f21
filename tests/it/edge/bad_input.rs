//! Hostile bytes: nothing panics, nothing stalls, and each answer follows the contract.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Settings, parse};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use socket2::{Domain, Socket, Type};
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, beside};

/// Sends bytes and closes our side; returns what arrives within two seconds.
fn throw(app: &App, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(app.server.public()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The server may close the connection in the middle.
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("it stalls: {error} ({sent:?}) at {:?}", String::from_utf8_lossy(bytes)),
    }
    answer
}

fn still_serves(app: &App) {
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200);
    let log = app.server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn any_bytes_as_a_request_leave_the_server_as_it_was() {
    let _machine = beside();
    let app = App::start();
    let valid =
        format!("GET {} HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\n\r\n", app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    let bytes = prop::collection::vec(any::<u8>(), 0..600);
    let line =
        bytes.clone().prop_map(|path| [b"GET /image/".as_slice(), &path, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    let header = (bytes.clone(), bytes.clone())
        .prop_map(|(name, value)| [b"GET / HTTP/1.1\r\n".as_slice(), &name, b": ", &value, b"\r\n\r\n"].concat());
    let changed = (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut bytes = valid.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let requests = prop_oneof![bytes, line, header, changed];
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&requests, |bytes| {
        let answer = throw(&app, &bytes);
        prop_assert!(answer.is_empty() || parse(&answer).is_ok(), "{:?}", String::from_utf8_lossy(&answer));
        Ok(())
    });
    outcome.unwrap();
    still_serves(&app);
    app.at_rest();
}

#[test]
fn a_head_of_more_than_16_kib_is_refused() {
    let _machine = beside();
    let app = App::start();
    for request in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(64 << 10)),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: a\r\n".repeat(2000)),
    ] {
        let answer = throw(&app, request.as_bytes());
        // Unread bytes may reset the connection before the answer arrives.
        if !answer.is_empty() {
            let status = parse(&answer).unwrap().status;
            assert!((400..=431).contains(&status), "{status}");
        }
    }
    // A large head that is allowed.
    let path = app.pixel(Uuid::new_v4(), Uuid::new_v4());
    let answer = app.exchange(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\nConnection: close\r\n\r\n",
        "a".repeat(12 << 10)
    ));
    assert_eq!(answer.status, 200);
    still_serves(&app);
}

#[test]
fn a_body_is_refused_and_the_connection_ends() {
    let _machine = beside();
    let app = App::start();
    let path = app.pixel(Uuid::new_v4(), Uuid::new_v4());
    let refused = |head: &str, body: &str| -> Answer {
        parse(&throw(&app, format!("{head}{body}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())).unwrap()
    };
    for (head, body) in [
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"), "hello"),
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), "5\r\nhello\r\n0\r\n\r\n"),
        (format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"), "hello"),
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), "hello"),
        (format!("GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"), ""),
    ] {
        let answer = refused(&head, body);
        assert!(answer.status == 413 || answer.status == 400, "{head}: {}", answer.status);
        assert_eq!(answer.header("connection"), Some("close"), "{head}: {}", answer.head);
    }
    let post = refused(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"), "hello");
    assert_eq!((post.status, post.header("connection")), (405, Some("close")));
    // No body is no body, in every form.
    let none =
        app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    assert_eq!(none.status, 200);
    still_serves(&app);
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_hits_accepted_total"), 2.0);
}

#[test]
fn a_user_agent_of_any_bytes_is_recorded_safely() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    let agents: Vec<Vec<u8>> = vec![
        b"plain".to_vec(),
        b"\xff\xfe\xc3\x28 invalid".to_vec(),
        "é".repeat(400).into_bytes(),
        b"x".repeat(5000),
        Vec::new(),
        b"'; DROP TABLE hits; --".to_vec(),
    ];
    for agent in &agents {
        let path = app.pixel(message, Uuid::new_v4());
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: ");
        let answer = throw(&app, &[head.as_bytes(), agent, b"\r\n\r\n"].concat());
        assert_eq!(parse(&answer).unwrap().status, 200, "{:?}", String::from_utf8_lossy(agent));
    }
    app.at_rest();
    let stored = app.query(&format!("SELECT user_agent FROM hits_readable WHERE message = '{message}' ORDER BY seq"));
    let expected = [
        "plain",
        "\u{fffd}\u{fffd}\u{fffd}( invalid",
        &"é".repeat(256),
        &"x".repeat(512),
        "",
        "'; DROP TABLE hits; --",
    ];
    assert_eq!(stored, expected);
}

#[test]
fn a_slow_client_is_cut_and_delays_no_other() {
    let _machine = beside();
    let app = App::start();
    // A silent connection is only idle; one that stops within a head is cut after ten seconds.
    let idle = TcpStream::connect(app.server.public()).unwrap();
    let mut slow = TcpStream::connect(app.server.public()).unwrap();
    slow.write_all(b"GET /image/").unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let started = Instant::now();
    loop {
        // A byte now and then must not extend the time.
        if slow.write_all(b"a").is_err() {
            break;
        }
        match slow.read(&mut [0; 512]) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            _ => {}
        }
        let waited = started.elapsed();
        assert!(waited < PATIENCE, "a slow head was not cut within {waited:?}");
        let asked = Instant::now();
        assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200);
        assert!(asked.elapsed() < Duration::from_secs(8), "another client waited {:?}", asked.elapsed());
    }
    assert!(started.elapsed() > Duration::from_secs(8), "cut after {:?}", started.elapsed());
    idle.set_nonblocking(true).unwrap();
    assert_eq!((&idle).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock, "an idle connection was cut");
    assert_eq!(app.server.metrics().unwrap().get("pixeld_connections_cut_total"), 1.0);
}

#[test]
fn a_client_that_takes_no_answers_is_cut() {
    let _machine = beside();
    let app = App::start();
    let mut greedy = TcpStream::connect(app.server.public()).unwrap();
    greedy.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    let requests = request.repeat(100);
    let started = Instant::now();
    // Until the buffers of both sides are full, then until the connection is cut.
    loop {
        match greedy.write(requests.as_bytes()) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(_) => {}
        }
        assert!(started.elapsed() < 2 * PATIENCE, "it was not cut");
    }
    still_serves(&app);
    app.at_rest();
}

#[test]
fn beyond_the_connections_the_idlest_makes_room() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_CONNECTIONS_MAX", "20").with("PIXELD_THREADS", "1"));
    let held: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(app.server.public()).unwrap()).collect();
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200);
    let metrics = app.server.metrics().unwrap();
    assert!(metrics.get("pixeld_connections") <= 20.0, "{}", metrics.get("pixeld_connections"));
    assert!(metrics.get("pixeld_connections_cut_total") >= 80.0);
    drop(held);
    still_serves(&app);
}

/// A connection from this address, over which half a head was sent.
fn half_sent(app: &App, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&app.server.public().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    // It may be cut at once.
    drop(stream.write_all(b"GET /image/"));
    stream
}

/// How many of these the server has not closed.
fn still_open(connections: &[TcpStream]) -> usize {
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        (&mut &**stream).read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    connections.iter().filter(is_open).count()
}

#[test]
fn half_sent_heads_from_many_addresses_refuse_no_reader() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_CONNECTIONS_MAX", "64").with("PIXELD_THREADS", "1"));
    let mut held = Vec::new();
    for n in 0..200_u8 {
        held.push(half_sent(&app, [127, 0, 1, n]));
        if n % 10 == 9 {
            assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200, "after {n} half heads");
        }
    }
    let metrics = app.server.metrics().unwrap();
    assert!(metrics.get("pixeld_connections") <= 64.0, "{}", metrics.get("pixeld_connections"));
    assert!(still_open(&held) >= 40, "only as many as are needed are cut");
    still_serves(&app);
    app.at_rest();
}

#[test]
fn one_address_takes_only_its_share_of_the_connections_from_others() {
    let _machine = beside();
    let settings = |settings: Settings| settings.with("PIXELD_CONNECTIONS_MAX", "200").with("PIXELD_THREADS", "1");
    let fill = |app: &App, heads: usize| {
        let readers: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(app.server.public()).unwrap()).collect();
        let heads: Vec<TcpStream> = (0..heads).map(|_| half_sent(app, [127, 0, 0, 2])).collect();
        wait_until("all to be accepted", PATIENCE, || {
            app.server.metrics().unwrap().get("pixeld_connections_opened_total") >= (readers.len() + heads.len()) as f64
        })
        .unwrap();
        (readers, heads)
    };
    let app = App::start_with(settings);
    let (readers, heads) = fill(&app, 300);
    wait_until("the share", PATIENCE, || still_open(&heads) <= 50).unwrap();
    assert_eq!((still_open(&readers), still_open(&heads)), (40, 50));
    still_serves(&app);
    // Behind a proxy are all readers.
    let app = App::start_with(|proxied| settings(proxied).with("PIXELD_TRUSTED_PROXIES", "127.0.0.2"));
    let (readers, heads) = fill(&app, 150);
    assert_eq!((still_open(&readers), still_open(&heads)), (40, 150));
    still_serves(&app);
}

#[test]
fn too_many_open_files_stop_accepting_for_a_moment_only() {
    let _machine = beside();
    let app = App::start_with(|mut settings| {
        settings.wrapper = ["prlimit", "--nofile=120:120"].map(str::to_owned).to_vec();
        settings
    });
    let held: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(app.server.public()).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    // The longest idle connections make room, so that new ones are always served.
    still_serves(&app);
    drop(held);
    still_serves(&app);
    app.at_rest();
}
