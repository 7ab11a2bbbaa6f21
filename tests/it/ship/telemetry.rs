//! What is logged and what leaves the machine: lines with their context, errors to Sentry, and nothing personal in
//! either.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, beside};
use crate::kit::visitor::Visitor;

/// Receives reports like Sentry, and passes on their bytes.
fn sentry() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("http://0123456789abcdef@{}/1", listener.local_addr().unwrap());
    let (reports, received) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut bytes = Vec::new();
            // Until the client waits for its answer.
            while let Ok(1..) = Read::by_ref(&mut stream).take(64 << 10).read_to_end(&mut bytes) {}
            let answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            if answered.is_err() || reports.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                return;
            }
        }
    });
    (dsn, received)
}

#[test]
fn an_error_is_reported_to_sentry_without_anything_personal() {
    let _machine = beside();
    let (dsn, reports) = sentry();
    let app =
        App::start_with(|settings| settings.with("SENTRY_DSN", dsn).with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8"));
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    // PostgreSQL refuses the row, and quotes it in the details of its error.
    app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (recipient <> '{recipient}')"));
    let path = app.pixel(message, recipient);
    app.exchange(&format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.77\r\nUser-Agent: Secret/1\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(app.at_rest().dropped("quarantined"), 1.0);
    let report = loop {
        let report = reports.recv_timeout(PATIENCE).expect("a report");
        if report.contains("PostgreSQL refuses a hit") {
            break report;
        }
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let data_dir = app.server.data_dir().display().to_string();
    for secret in
        [&message.to_string(), &recipient.to_string(), "192.0.2.77", "Secret/1", "pixeld@/", data_dir.as_str()]
    {
        assert!(!report.contains(secret), "{secret} is in {report}");
    }
    let named = format!("\"server_name\":\"{}\"", host.trim());
    assert!(!report.contains(&named), "{report}");
}

#[test]
fn a_line_says_which_spool_batch_request_or_turn_it_is_about_and_names_nobody() {
    let _machine = beside();
    // Even if only warnings and errors are logged.
    let app = App::start_with(|settings| settings.with("PIXELD_LOG", "warn"));
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    app.query(&format!("ALTER TABLE hits ADD CONSTRAINT refused CHECK (recipient <> '{recipient}')"));
    assert_eq!(app.get(&app.pixel(message, recipient)).status, 200);
    assert_eq!(app.at_rest().dropped("quarantined"), 1.0);
    let spool = &app.query("SELECT spool_uuid::text FROM spool_marks")[0];
    let line = |words: &str| {
        let found = || app.server.log().lines().find(|line| line.contains(words)).map(str::to_owned);
        wait_until("a line of the log", PATIENCE, || found().is_some()).unwrap();
        found().unwrap()
    };
    let refused = line("PostgreSQL refuses a hit");
    assert!(refused.contains(&format!(" spool{{uuid={spool}}}:batch{{first_seq=0 hits=1}}: ")), "{refused}");
    assert_eq!(refused.matches(spool.as_str()).count(), 1, "said once: {refused}");

    // A table that a page and the rollup read is gone.
    let ann = Visitor::admin(&app);
    app.query("ALTER TABLE opens RENAME TO gone");
    assert_eq!(ann.get(&format!("/recipients/{recipient}")).status, 500);
    let page = line("a page could not be shown");
    assert!(page.contains(" request{method=\"GET\" path=\"/recipients/{recipient}\"}: "), "{page}");
    assert_eq!(app.get(&app.pixel(message, Uuid::new_v4())).status, 200);
    let rollup = line("opens and counts cannot be updated now");
    assert!(rollup.contains(" rollup{hits_max="), "{rollup}");
    let log = app.server.log();
    for personal in [&message.to_string(), &recipient.to_string(), &ann.cookie] {
        assert!(!log.contains(personal), "{personal} is in {log}");
    }
}

#[test]
fn without_a_dsn_nothing_is_reported_and_a_wrong_one_is_refused() {
    let _machine = beside();
    let app = App::start();
    let mut settings = app.server.settings().clone();
    settings.data_dir = app.dir.path().join("other");
    let refused = settings.with("SENTRY_DSN", "not a dsn").command(&["serve"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(64) && said.contains("SENTRY_DSN") && !said.contains("not a dsn"), "{said}");
}
