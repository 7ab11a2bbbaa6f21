//! The throttle and the address rate: what they drop, and what they must not drop.

use uuid::Uuid;

use crate::kit::support::{App, beside};
use pixeld_core::ids::ImageId;

const GMAIL_PREFETCH: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0";
const GMAIL_PROXY: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";
const SCANNER: &str = "Mozilla/5.0 (compatible; SafeLinks)";
const OUTLOOK: &str = "Mozilla/4.0 (compatible; ms-office; MSOffice 16)";

/// A server with the default throttle, behind a proxy that reports the clients.
fn throttled() -> App {
    App::start_with(|settings| {
        settings.with("PIXELD_THROTTLE", "1h").with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8").with("PIXELD_THREADS", "1")
    })
}

fn fetch(app: &App, path: &str, address: &str, user_agent: &str, more: &str) {
    let answer = app.exchange(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nUser-Agent: {user_agent}\r\n{more}Connection: close\r\n\r\n"
    ));
    assert_eq!(answer.status, 200);
}

fn rows(app: &App, message: Uuid) -> u64 {
    app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}'"))
}

#[test]
fn all_gmail_readers_behind_one_proxy_address_are_recorded_once_each() {
    let _machine = beside();
    let app = throttled();
    let message = Uuid::new_v4();
    let paths: Vec<String> = (0..200).map(|_| app.pixel(message, Uuid::new_v4())).collect();
    for path in paths.iter().chain(&paths) {
        fetch(&app, path, "66.249.84.1", GMAIL_PROXY, "");
    }
    let metrics = app.at_rest();
    assert_eq!((rows(&app, message), metrics.dropped("throttled")), (200, 200.0));
    assert_eq!(app.number("SELECT sum(throttled) FROM batches"), 200);
}

#[test]
fn one_classes_fetch_never_suppresses_anothers() {
    let _machine = beside();
    let app = throttled();
    let (gmail, corporate, prefetched) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(gmail, Uuid::new_v4());
    fetch(&app, &path, "66.249.84.1", GMAIL_PREFETCH, "");
    fetch(&app, &path, "66.249.84.1", GMAIL_PROXY, "");
    let path = app.pixel(corporate, Uuid::new_v4());
    fetch(&app, &path, "192.0.2.1", SCANNER, "");
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    let path = app.pixel(prefetched, Uuid::new_v4());
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "Sec-Purpose: prefetch;prerender\r\n");
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    app.at_rest();
    assert_eq!([gmail, corporate, prefetched].map(|message| rows(&app, message)), [2, 2, 2]);
    // The same fetches again: all are held back.
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "Purpose: prefetch\r\n");
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    assert_eq!((app.at_rest().dropped("throttled"), rows(&app, prefetched)), (2.0, 2));
}

#[test]
fn readers_without_a_recipient_are_all_recorded() {
    let _machine = beside();
    let app = throttled();
    let message = Uuid::new_v4();
    for _ in 0..50 {
        fetch(&app, &format!("/image/{}_{message}.png", app.image), "66.249.84.1", GMAIL_PROXY, "");
    }
    assert_eq!((app.at_rest().dropped_all(), rows(&app, message)), (0.0, 50));
}

#[test]
fn a_hit_that_was_dropped_later_spends_no_token() {
    let _machine = beside();
    let mut app = throttled();
    let (message, recipient, image) = (Uuid::new_v4(), Uuid::new_v4(), ImageId::random());
    // Recorded for an image that PostgreSQL does not know: dropped by the loader.
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    std::fs::remove_dir_all(app.server.data_dir().join("images")).unwrap();
    app.restart();
    let path = format!("/image/{image}_{message}_{recipient}.png");
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    app.postgres.start_again().unwrap();
    assert_eq!((app.at_rest().dropped("unknown_image"), rows(&app, message)), (1.0, 0));
    // Then it is added, and the same fetch is repeated within the hour.
    app.server.settings().run(&["image", "add", "src/app/sample.png", "--id", &image.to_string()]).unwrap();
    app.wait_for_image(image);
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    assert_eq!((app.at_rest().dropped("throttled"), rows(&app, message)), (0.0, 1));
}

#[test]
fn a_batch_that_postgresql_refused_spends_no_token() {
    let _machine = beside();
    let app = throttled();
    let (message, path) = (Uuid::new_v4(), app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    // This refuses every row, so that the hits are quarantined.
    app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (message <> '{message}')"));
    let refused = app.pixel(message, Uuid::new_v4());
    fetch(&app, &refused, "192.0.2.1", OUTLOOK, "");
    fetch(&app, &path, "192.0.2.1", OUTLOOK, "");
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("quarantined"), metrics.get("pixeld_hits_loaded_total")), (1.0, 1.0));
    app.query("ALTER TABLE hits DROP CONSTRAINT refused");
    fetch(&app, &refused, "192.0.2.1", OUTLOOK, "");
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("throttled"), rows(&app, message)), (0.0, 1));
    let kept: Vec<_> = std::fs::read_dir(app.server.data_dir().join("quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1, "the refused hit is kept aside");
}

#[test]
fn one_bad_row_among_many_is_kept_aside_and_the_rest_is_loaded() {
    let _machine = beside();
    let mut app = App::start();
    let (message, bad) = (Uuid::new_v4(), Uuid::new_v4());
    app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (recipient <> '{bad}')"));
    app.postgres.stop().unwrap();
    for n in 0..500 {
        let recipient = if n % 100 == 37 { bad } else { Uuid::new_v4() };
        assert_eq!(app.get(&app.pixel(message, recipient)).status, 200);
    }
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("quarantined"), metrics.get("pixeld_hits_loaded_total")), (5.0, 495.0));
    assert_eq!(rows(&app, message), 495);
    assert_eq!(app.number("SELECT sum(quarantined) FROM batches"), 5);
}

#[test]
fn an_address_beyond_its_rate_is_served_and_its_hits_are_dropped_and_counted() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings.with("PIXELD_ADDRESS_RATE", "10/s").with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8")
    });
    let (flood, other, gmail) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    for _ in 0..300 {
        fetch(&app, &app.pixel(flood, Uuid::new_v4()), "192.0.2.1", OUTLOOK, "");
    }
    fetch(&app, &app.pixel(other, Uuid::new_v4()), "192.0.2.2", OUTLOOK, "");
    // Mail providers' proxies are exempt: very many readers share one address there.
    for _ in 0..100 {
        fetch(&app, &app.pixel(gmail, Uuid::new_v4()), "66.249.84.1", GMAIL_PROXY, "");
    }
    let metrics = app.at_rest();
    let dropped = metrics.dropped("address_rate");
    assert!((200.0..=290.0).contains(&dropped), "{dropped}");
    assert_eq!([flood, other, gmail].map(|message| rows(&app, message)), [300 - dropped as u64, 1, 100]);
}

#[test]
fn an_address_is_cut_or_left_out_before_it_reaches_the_disk() {
    let _machine = beside();
    for (privacy, expected) in [("truncated", "192.0.2.0/32"), ("none", "NULL")] {
        let app = App::start_with(|settings| {
            settings.with("PIXELD_IP_PRIVACY", privacy).with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8")
        });
        let message = Uuid::new_v4();
        fetch(&app, &app.pixel(message, Uuid::new_v4()), "192.0.2.77", OUTLOOK, "");
        app.at_rest();
        assert_eq!(app.query(&format!("SELECT ip::text FROM hits WHERE message = '{message}'")), [expected]);
        let folders = std::fs::read_dir(app.server.data_dir().join("spool")).unwrap().flatten();
        let segments = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
        for segment in segments.filter(|file| file.path().extension().is_some_and(|extension| extension == "seg")) {
            let bytes = std::fs::read(segment.path()).unwrap();
            assert!(!bytes.windows(4).any(|window| window == [192, 0, 2, 77]), "the address is in {segment:?}");
        }
    }
}

#[test]
fn a_forwarded_address_is_believed_from_trusted_peers_only() {
    let _machine = beside();
    let app = App::start();
    let message = Uuid::new_v4();
    for _ in 0..3 {
        fetch(&app, &app.pixel(message, Uuid::new_v4()), "192.0.2.1", OUTLOOK, "");
    }
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_forwarded_untrusted_total"), 3.0);
    let addresses = format!("SELECT DISTINCT host(ip) FROM hits WHERE message = '{message}'");
    assert_eq!(app.query(&addresses), ["127.0.0.1"]);
    assert_eq!(app.server.log().matches("PIXELD_TRUSTED_PROXIES").count(), 1, "said once");
}

/// GETs of a pixel over one connection, each with its own user agent, from addresses of one network.
fn flood(app: &App, network: &str, agents: std::ops::Range<usize>) {
    let mut stream = std::net::TcpStream::connect(app.server.public()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let numbers: Vec<usize> = agents.collect();
    for some in numbers.chunks(100) {
        let requests: String = some
            .iter()
            .map(|n| {
                let (path, address) = (app.pixel(Uuid::from_u128(1), Uuid::new_v4()), n % 250);
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {network}{address}\r\nUser-Agent: Made up {network}{n}\r\nIf-None-Match: *\r\n\r\n")
            })
            .collect();
        std::io::Write::write_all(&mut stream, requests.as_bytes()).unwrap();
        let (mut answers, mut buffer, mut text) = (0, [0; 65_536], Vec::new());
        while answers < some.len() {
            let length = std::io::Read::read(&mut stream, &mut buffer).unwrap();
            assert!(length > 0, "the connection ended");
            text.extend_from_slice(&buffer[..length]);
            answers = text.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
        }
    }
}

#[test]
fn a_flood_of_made_up_user_agents_from_one_network_leaves_room_for_everybody_elses() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8"));
    // More than the budget of new ones per hour.
    flood(&app, "203.0.113.", 0..10_100);
    flood(&app, "2001:db8:1::", 0..600);
    app.at_rest();
    let stored =
        |like: &str| app.number(&format!("SELECT count(*) FROM user_agents WHERE user_agent LIKE 'Made up {like}%'"));
    assert_eq!((stored("203"), stored("2001")), (500, 500));
    assert_eq!(app.server.metrics().unwrap().get("pixeld_user_agents_capped_total"), 9_700.0);
    let fetch = |address: &str, agent: &str| {
        let recipient = Uuid::new_v4();
        let path = app.pixel(Uuid::from_u128(1), recipient);
        let head = format!("X-Forwarded-For: {address}\r\nUser-Agent: {agent}\r\nConnection: close");
        assert_eq!(app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n")).status, 200);
        app.at_rest();
        app.query(&format!("SELECT user_agent FROM hits_readable WHERE recipient = '{recipient}'")).remove(0)
    };
    assert_eq!(fetch("198.51.100.7", "A reader's own"), "A reader's own");
    // What the flood could not store is not lost to others.
    let real = "Made up 203.0.113.10099";
    assert!(fetch("203.0.113.7", real).starts_with("(not recorded"));
    assert_eq!(fetch("198.51.100.8", real), real);
    assert_eq!(fetch("203.0.113.7", real), real);
}
