//! The admin page in a real Chromium: what a person does, and screenshots of every page for people to check.

use std::path::PathBuf;

use uuid::Uuid;

use crate::kit::rows::Rows;
use crate::kit::support::{App, beside};
use crate::kit::visitor::{PASSWORD, add_user};
use crate::kit::webdriver::Browser;

/// The folder of the screenshots.
fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Fills in the sign-in form.
pub fn sign_in(browser: &Browser, name: &str) {
    browser.write("#name", name);
    browser.write("#password", PASSWORD);
    browser.click("main button");
}

/// Takes screenshots of a page in light and dark mode and at a phone's width, where it must not be wider than the
/// screen; axe-core must find no serious fault in any of them.
pub fn take(browser: &Browser, name: &str) {
    for (how, width, is_dark) in
        [("light", 1180, false), ("dark", 1180, true), ("phone", 390, false), ("phone-dark", 390, true)]
    {
        browser.look(width, is_dark);
        let wide = browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap();
        assert!(wide <= u64::from(width), "{name} is {wide} wide on a screen of {width}");
        let faults = browser.faults();
        assert!(faults.is_empty(), "{name}, {how}:\n{}", faults.join("\n"));
        browser.screenshot(&pictures().join(format!("{name}-{how}.png")));
    }
    browser.look(1180, false);
}

/// Rows like those of a busy site, so that the screenshots look real.
fn fill(app: &App) {
    app.query(
        "INSERT INTO site_hours SELECT date_trunc('hour', now()) - n * interval '1 hour', c, \
             (400 * (c + 1)) / (n + 1) + 20, 300 / (n + 1) + 9 * (c + 1), CASE WHEN c IN (1, 2) THEN 260 / (n + 1) + 7 ELSE 0 END \
         FROM generate_series(0, 700) n, generate_series(0, 6) c",
    );
    let month = "to_char(now() - n * interval '7 days', 'FMMonth YYYY')";
    Rows::messages(10)
        .with("name", format!("CASE WHEN n % 4 = 3 THEN '' ELSE 'Newsletter ' || {month} END"))
        .with("sent_at", "now() - n * interval '7 days'")
        .with("sent_count", "CASE WHEN n % 3 = 0 THEN NULL ELSE 12000 - n * 731 END")
        .with("last_at", "now() - n * interval '5 hours'")
        .with("opens", "9000 - n * 600")
        .with("confirmed_opens", "5200 - n * 411")
        .with("possible_opens", "2100 - n * 97")
        .with("hits", "20000")
        .add(&app.postgres);
}

#[test]
fn a_person_signs_in_looks_around_adds_a_colleague_and_signs_out() {
    let _machine = beside();
    let app = App::start();
    let base = format!("http://{}", app.server.settings().admin());
    let browser = Browser::start();
    browser.open(&format!("{base}/settings"));
    browser.wait_for("No users yet");
    take(&browser, "1-no-user");
    add_user(&app, "ann@example.com", "admin");
    browser.open(&format!("{base}/settings"));
    take(&browser, "2-sign-in");
    assert_eq!(browser.evaluate("document.activeElement.name"), "name");
    browser.write("#name", "ann@example.com");
    browser.write("#password", "not the password");
    browser.click("main button");
    browser.wait_for("Wrong name or password");
    take(&browser, "3-sign-in-wrong");
    // The only complaint allowed: Chromium logs a 401 as a failed load.
    assert!(browser.complaints().iter().all(|complaint| complaint.contains("401")));
    browser.write("#password", PASSWORD);
    browser.click("main button");
    browser.wait_for("Running settings");
    assert_eq!(browser.path(), "/settings", "back to where it was going");
    assert_eq!(browser.evaluate("document.cookie"), "", "no script sees the cookie");

    browser.click("nav a[href='/']");
    browser.wait_for("No opens yet");
    take(&browser, "4-overview-empty");
    fill(&app);
    browser.open(&format!("{base}/"));
    browser.wait_for("All is well");
    take(&browser, "5-overview");

    browser.click("nav a[href='/settings']");
    browser.wait_for("Running settings");
    assert_eq!(browser.evaluate("document.querySelector('nav [aria-current]').textContent"), "Settings");
    browser.write("#name", "Ben <ben@example.com>");
    browser.write("#new-password", PASSWORD);
    browser.click("form.panel button");
    browser.wait_for("The user was added");
    take(&browser, "6-settings");
    browser.open(&format!("{base}/nowhere"));
    take(&browser, "7-not-found");
    assert!(browser.complaints().iter().all(|complaint| complaint.contains("404")));

    browser.open(&format!("http://localhost.:{}/", app.server.settings().admin().port()));
    browser.wait_for("ssh -N -L");
    take(&browser, "8-other-name");
    browser.open(&format!("{base}/"));
    browser.click("button.quiet");
    browser.wait_for("You are signed out");
    assert_eq!(browser.path(), "/sign-in");
    browser.open(&format!("{base}/"));
    assert_eq!(browser.path(), "/sign-in");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("421")), "{complaints:?}");
}

/// A message after a campaign, with its hours, rules, mail clients and opens.
fn fill_message(app: &App) {
    let message = Uuid::from_u128(7);
    Rows::messages(1)
        .id("id", message)
        .with("name", "'Spring news, with a name that is rather long'")
        .with("sent_at", "now() - interval '3 days'")
        .with("sent_count", "12000")
        .with("first_at", "now() - interval '3 days'")
        .with("last_at", "now()")
        .with("opens", "7000")
        .with("confirmed_opens", "5200")
        .with("possible_opens", "1300")
        .with("hits", "21000")
        .add(&app.postgres);
    app.query(&format!(
        "INSERT INTO message_hours SELECT '{message}', date_trunc('hour', now()) - n * interval '1 hour', c, \
             900, (n + 3) * 2, CASE WHEN c IN (1, 2) THEN n * n / 30 + 7 ELSE 0 END \
         FROM generate_series(0, 71) n, generate_series(0, 6) c; \
         INSERT INTO message_facets SELECT '{message}', 1, number, 4000 - number * 50 FROM words WHERE kind = 'rule'; \
         INSERT INTO message_facets SELECT '{message}', 2, number, 4000 - number * 90 FROM words WHERE kind = 'client'"
    ));
    Rows::opens(70)
        .id("message", message)
        .with("recipient", "lpad(to_hex((n + 1) * 7919), 32, 'abcd')::uuid")
        .with("first_at", "now() - (n + 1) * interval '1 hour'")
        .with("confirmed_first_at", "CASE WHEN n % 7 IN (0, 1) THEN now() - interval '1 hour' END")
        .with("hits", "n + 1")
        .with("best", "(n + 1) % 7")
        .with("first_class", "0")
        .add(&app.postgres);
}

#[test]
fn a_person_finds_a_message_names_it_and_sees_who_opened_it() {
    let _machine = beside();
    let app = App::start();
    let base = format!("http://{}", app.server.settings().admin());
    add_user(&app, "ann", "admin");
    let browser = Browser::start();
    browser.open(&format!("{base}/messages"));
    sign_in(&browser, "ann");
    browser.wait_for("No messages yet");
    take(&browser, "messages-1-empty");
    fill(&app);
    fill_message(&app);
    browser.open(&format!("{base}/messages"));
    browser.wait_for("Spring news");
    take(&browser, "messages-2-list");
    browser.click("details.in-place summary");
    take(&browser, "messages-3-edit");
    browser.write("details.in-place input[name=name]", "Spring news");
    browser.click("details.in-place form button");
    browser.wait_for("Spring news");
    assert_eq!(
        (browser.path(), app.number("SELECT count(*) FROM messages WHERE name = 'Spring news'")),
        ("/messages".to_owned(), 1)
    );
    browser.write("#q", "spring");
    browser.click(".search button");
    browser.wait_for("Show all messages");
    browser.click("tbody th a");
    browser.wait_for("Why we think so");
    take(&browser, "message-1");
    browser.click("tbody th a[href^='/recipients/']");
    browser.wait_for("Show the hits of this recipient");
    take(&browser, "recipient-1");
    browser.click("nav a[href='/recipients']");
    browser.wait_for("Search for a recipient");
    take(&browser, "recipient-2-search");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

/// Receipts in every state, of two nodes; one of them is down.
fn fill_erasures(app: &App) {
    app.query(
        "INSERT INTO nodes (node, name, seen_at, erased_to) VALUES (gen_random_uuid(), 'mail-2.example.com', now() - interval '3 hours', 2); \
         INSERT INTO erasures (recipient_hash, requested_at, hits, opens, deleted_at) \
         SELECT substring(sha256(int4send(n)) FOR 16), now() - n * interval '20 days', n * 311, n * 7, now() - n * interval '20 days' \
         FROM generate_series(3, 1, -1) n; \
         INSERT INTO erasure_nodes (erasure, node, name, segments, hits, files) \
         SELECT e.id, n.node, n.name, e.id, e.id * 3, 0 FROM erasures e, nodes n WHERE n.erased_to >= e.id; \
         INSERT INTO audit (actor, action, subject, detail) \
         SELECT 'ann', 'recipient erased', encode(recipient_hash, 'hex'), jsonb_build_object('erasure', id) FROM erasures",
    );
}

#[test]
fn a_person_is_opted_out_and_erased_and_the_receipt_is_looked_at() {
    let _machine = beside();
    let app = App::start();
    let base = format!("http://{}", app.server.settings().admin());
    add_user(&app, "ann", "admin");
    let (recipient, other) = (Uuid::from_u128(0xabcd_abcd_abcd_4bcd_8bcd_abcd_abcd_abcd), Uuid::from_u128(7));
    for message in 1..=4 {
        for recipient in [recipient, other] {
            assert_eq!(app.get(&app.pixel(Uuid::from_u128(message), recipient)).status, 200);
        }
    }
    app.at_rest();
    app.wait_for_rollup();
    app.query("UPDATE messages SET name = 'Newsletter ' || right(id::text, 1)");
    let browser = Browser::start();
    browser.open(&format!("{base}/erasures"));
    sign_in(&browser, "ann");
    browser.wait_for("No erasures yet");
    take(&browser, "person-1-no-erasures");
    fill_erasures(&app);
    browser.open(&format!("{base}/recipients/{recipient}"));
    take(&browser, "person-2");
    browser.click("form[action='/recipients/opt-out'] button");
    browser.wait_for("opted out since");
    take(&browser, "person-3-opted-out");
    browser.click("form[action='/recipients/record-again'] button");
    browser.wait_for("again since");
    browser.click("form[action='/recipients/erase'] button");
    browser.wait_for("Opt this recipient out, too");
    take(&browser, "person-4-erase");
    browser.click("button.danger");
    browser.wait_for("If a node stays outstanding");
    assert!(browser.path().starts_with("/erasures/"), "{}", browser.path());
    take(&browser, "person-5-receipt-outstanding");
    app.query("DELETE FROM nodes WHERE name LIKE 'mail-2%'");
    pixeld_testkit::process::wait_until("a final receipt", crate::kit::support::PATIENCE, || {
        app.number("SELECT count(*) FROM erasures e WHERE id = 4 AND deleted_at IS NOT NULL AND id <= (SELECT min(erased_to) FROM nodes)") == 1
    })
    .unwrap();
    browser.open(&format!("{base}/erasures/4"));
    browser.wait_for("This receipt is final");
    take(&browser, "person-6-receipt");
    browser.open(&format!("{base}/erasures"));
    take(&browser, "person-7-erasures");
    browser.open(&format!("{base}/audit"));
    take(&browser, "person-8-audit");
    let known =
        app.query("SELECT count(*) || ' ' || (SELECT count(*) FROM suppressions WHERE until IS NULL) FROM opens");
    assert_eq!(known, ["4 1"]);
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[test]
fn a_reader_opts_out_and_in_again_without_a_session_and_under_a_foreign_name() {
    let _machine = beside();
    let app = App::start();
    let (settings, image) = (app.server.settings(), app.image.to_string());
    let printed = settings.run(&["link", "--image", &image, "--recipient", "4711", "--opt-out"]).unwrap();
    let token = printed.trim().rsplit('/').next().unwrap().to_owned();
    let browser = Browser::start();
    // With a dot at its end it is not one of our names.
    browser.open(&format!("http://localhost.:{}/opt-out/{token}", settings.admin().port()));
    browser.wait_for("Open your emails without being recorded");
    take(&browser, "opt-out-1-ask");
    browser.click("button");
    browser.wait_for("You are no longer recorded");
    take(&browser, "opt-out-2-out");
    let count = || app.number("SELECT count(*) FROM suppressions WHERE until IS NULL");
    assert_eq!(count(), 1);
    browser.click("button");
    browser.wait_for("You are recorded again");
    take(&browser, "opt-out-3-in");
    assert_eq!((count(), browser.path()), (0, format!("/opt-out/{token}")));
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.open(&format!("http://localhost.:{}/opt-out/{token}x", settings.admin().port()));
    browser.wait_for("This link is not valid");
    take(&browser, "opt-out-4-not-valid");
}
