//! A recipient's rights on the admin page: opting out, access, erasure; the receipts, and the audit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Server, Settings, get};
use uuid::Uuid;

use crate::kit::holder::Holder;
use crate::kit::rows::Hits;
use crate::kit::support::{App, PATIENCE, PIXELD, REST, beside, wait_for_opt_outs};
use crate::kit::visitor::{Visitor, add_user, form, run_with, text};
use crate::opens::recount;

/// How long running nodes may take to carry out an erasure.
const DONE: Duration = PATIENCE;

const HOSTILE: &str = "\"><script>alert(1)</script>";

/// A separate recipient for each case.
fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x6be4_a2d8_f315_4a7c_8c8f_0000_0000_0000 + n)
}

fn message(n: u128) -> Uuid {
    Uuid::from_u128(0x1111_2222_3333_4444_5555_0000_0000_0000 + n)
}

fn fetch(server: &Server, path: &str) {
    assert_eq!(get(server.public(), path).unwrap().status, 200, "{path}");
}

fn named(recipient: Uuid) -> String {
    form(&[("recipient", &recipient.to_string())])
}

fn start() -> (App, Visitor) {
    let app = App::start();
    let ann = Visitor::admin(&app);
    (app, ann)
}

fn page(visitor: &Visitor, path: &str) -> String {
    let answer = visitor.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", text(&answer));
    text(&answer)
}

/// The target of a redirect.
fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", text(answer));
    answer.header("location").unwrap().to_owned()
}

/// Presses Erase, and returns the receipt's path.
fn erase(visitor: &Visitor, recipient: Uuid, opt_out: bool) -> String {
    let recipient = recipient.to_string();
    let mut fields = vec![("recipient", recipient.as_str())];
    if opt_out {
        fields.push(("opt-out", "yes"));
    }
    location(&visitor.post("/erasures", &form(&fields)))
}

/// Sends a form, and leaves reading the answer to the caller.
fn begin_post(visitor: &Visitor, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(visitor.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (Visitor { host, cookie, .. }, length) = (visitor, body.len());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn wait_until_final(visitor: &Visitor, receipt: &str) -> String {
    let mut shown = String::new();
    let waited = wait_until("a final receipt", DONE, || {
        std::thread::sleep(Duration::from_millis(200));
        shown = page(visitor, receipt);
        shown.contains("This receipt is final")
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{shown}"));
    shown
}

fn assert_names_nobody(what: &str, recipient: Uuid) {
    for trace in [recipient.to_string(), recipient.simple().to_string()] {
        assert!(!what.to_lowercase().contains(&trace), "{trace} in {what}");
    }
}

#[test]
fn opting_out_on_the_page_stops_recording_and_can_be_taken_back() {
    let _machine = beside();
    let (app, ann) = start();
    let path = format!("/recipients/{}", id(1));
    let shown = page(&ann, &path);
    assert!(shown.contains("No opens recorded for this recipient") && shown.contains("<dd>On</dd>"), "{shown}");
    assert!(!shown.contains("Undo the opt-out") && shown.contains("Opt out"));

    assert_eq!(location(&ann.post("/recipients/opt-out", &named(id(1)))), format!("{path}?done=opted-out"));
    wait_for_opt_outs(&app.server, 1.0);
    for _ in 0..5 {
        fetch(&app.server, &app.pixel(message(0), id(1)));
    }
    fetch(&app.server, &app.pixel(message(0), id(2)));
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_loaded_total")), (5.0, 1.0));
    let shown = page(&ann, &format!("{path}?done=opted-out"));
    for part in ["Opted out. ", "<strong>Off</strong>", "opted out since <time", "Undo the opt-out"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(location(&ann.post("/recipients/opt-out", &named(id(1)))), format!("{path}?done=unchanged"));

    assert_eq!(location(&ann.post("/recipients/record-again", &named(id(1)))), format!("{path}?done=recorded-again"));
    wait_for_opt_outs(&app.server, 0.0);
    fetch(&app.server, &app.pixel(message(0), id(1)));
    assert_eq!(app.at_rest().get("pixeld_hits_loaded_total"), 2.0);
    assert!(page(&ann, &path).contains("On again since <time"));
    assert_eq!(location(&ann.post("/recipients/record-again", &named(id(1)))), format!("{path}?done=unchanged"));
    assert_eq!(
        app.query("SELECT actor || ': ' || action FROM audit WHERE length(subject) = 32 ORDER BY id"),
        ["ann: opted out", "ann: opted in again"]
    );

    // The command, with a key on standard input, and the page mean the same person.
    let said = run_with(app.server.settings(), &["opt-out", "--recipient", "-"], "4711\n");
    assert!(said.status.success() && !String::from_utf8_lossy(&said.stdout).contains("4711"), "{said:?}");
    let found = location(&ann.get("/recipients?q=4711"));
    assert!(page(&ann, &found).contains("opted out since <time"));
    for nobody in ["", "x", "4711", "00000000000000000000000000000000"] {
        for path in ["opt-out", "record-again", "export", "erase"] {
            let answer = ann.post(&format!("/recipients/{path}"), &form(&[("recipient", nobody)]));
            assert_eq!(answer.status, 404, "{path} {nobody}");
        }
        assert_eq!(ann.post("/erasures", &form(&[("recipient", nobody)])).status, 404);
    }
    assert_eq!(ann.get(&format!("/recipients/{}", Uuid::nil())).status, 404);
    assert_eq!(app.number("SELECT count(*) FROM erasures"), 0);
}

/// A second node that recorded as much as the first and is down. Both have six hits of recipients 1 and 2 each, in two
/// messages.
fn a_node_that_is_down(app: &App) -> Settings {
    let far = Settings::new(PIXELD, app.dir.path().join("far")).unwrap().with("DATABASE_URL", app.url());
    let mut far_server = far.clone().start().unwrap();
    for server in [&app.server, &far_server] {
        for n in 0..6 {
            fetch(server, &app.pixel(message(n % 2), id(1)));
            fetch(server, &app.pixel(message(n % 2), id(2)));
        }
        server.at_rest(REST).unwrap();
    }
    wait_until("both nodes", DONE, || app.number("SELECT count(*) FROM nodes") == 2).unwrap();
    far_server.terminate().unwrap();
    far
}

/// Until the other node is back, the receipt is not final; it says what to do if that node never returns.
fn the_receipt_waits_for_the_node_that_is_down(app: &App, ann: &Visitor, receipt: &str) {
    wait_until("the node that runs", DONE, || {
        let shown = page(ann, receipt);
        shown.contains("the database is done; 1 node") && shown.contains(" hits in 1 segment")
    })
    .unwrap();
    let node = app.query("SELECT node FROM nodes WHERE erased_to = 0").remove(0);
    assert!(!page(ann, receipt).contains("DELETE FROM"), "a node that was heard of just now may come back");
    app.query("UPDATE nodes SET seen_at = seen_at - interval '1 hour' WHERE erased_to = 0");
    let shown = page(ann, receipt);
    for part in [
        "12 hits and 2 opens deleted",
        "outstanding",
        "last seen",
        "If a node stays outstanding",
        "spool drain --retire",
        &format!("DELETE FROM nodes WHERE node = '{node}';"),
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(page(ann, "/erasures").contains("waiting for nodes"));
    assert!(page(ann, &format!("/recipients/{}", id(1))).contains("not final yet"));
}

#[test]
fn erasing_on_the_page_leads_to_a_receipt_that_becomes_final_and_names_nobody() {
    let _machine = beside();
    let (app, ann) = start();
    recount::prepare(&app.postgres);
    let far = a_node_that_is_down(&app);
    assert!(page(&ann, "/erasures").contains("No erasures yet"));
    let asked = ann.post("/recipients/erase", &named(id(1)));
    let question = text(&asked);
    assert_eq!((asked.status, app.number("SELECT count(*) FROM erasures")), (200, 0), "asking changes nothing");
    assert!(
        question.contains("Opt this recipient out, too") && question.contains("Erase this recipient"),
        "{question}"
    );
    let receipt = erase(&ann, id(1), true);
    assert_eq!(receipt, "/erasures/1");
    the_receipt_waits_for_the_node_that_is_down(&app, &ann, &receipt);

    let far_server = far.start().unwrap();
    let shown = wait_until_final(&ann, &receipt);
    let hash = app.query("SELECT encode(recipient_hash, 'hex') FROM erasures").remove(0);
    assert!(shown.contains(&hash) && shown.contains("<dd>ann</dd>"), "{shown}");
    let list = page(&ann, "/erasures");
    assert!(list.contains(&hash) && list.contains("<td>ann</td>") && list.contains("2 done"), "{list}");
    let person = page(&ann, &format!("/recipients/{}", id(1)));
    assert!(person.contains("href=\"/erasures/1\">receipt 1</a>") && !person.contains("not final yet"), "{person}");
    assert!(person.contains("opted out since <time"), "{person}");
    let question = text(&ann.post("/recipients/erase", &named(id(1))));
    assert!(question.contains("This recipient opted out") && !question.contains("name=\"opt-out\""), "{question}");
    assert_eq!(app.number("SELECT count(*) FROM hits"), 12);
    recount::assert_same(&app.postgres, "after the erasure");
    assert_eq!(
        app.query("SELECT actor || ': ' || action FROM audit WHERE length(subject) = 32 ORDER BY id"),
        ["ann: opted out", "ann: recipient erased"]
    );
    let audit = page(&ann, "/audit");
    assert!(audit.contains(&hash) && audit.contains("href=\"/erasures/1\">receipt 1</a>"), "{audit}");
    for what in [&shown, &list, &audit, &app.server.log(), &far_server.log()] {
        assert_names_nobody(what, id(1));
    }
    assert!(app.server.log().contains("a recipient was erased from the database"), "the log is looked at");

    // By the command, without an opt-out; both are in one list, the newest first.
    app.server.settings().run(&["erase", "--recipient", &id(2).to_string(), "--wait"]).unwrap();
    let list = page(&ann, "/erasures");
    let (newer, older) = (list.find("<td>command line</td>").unwrap(), list.find("<td>ann</td>").unwrap());
    assert!(newer < older && list.contains("12 hits and 2 opens"), "{list}");
    assert_eq!(app.number("SELECT count(*) FROM suppressions"), 1);
    for nothing in ["/erasures/99", "/erasures/x", "/erasures/-1"] {
        assert_eq!(ann.get(nothing).status, 404, "{nothing}");
    }
}

#[test]
fn what_is_downloaded_is_what_the_command_prints() {
    let _machine = beside();
    let (app, ann) = start();
    let key = "jane \"quoted\" \\ äö@example.com";
    let found = location(&ann.get(&format!("/recipients?{}", form(&[("q", key)]))));
    let recipient: Uuid = found.rsplit('/').next().unwrap().parse().unwrap();
    for n in 0..7 {
        let agent = "User-Agent: Mozilla/5.0 \"quoted\" Thunderbird/140.2.0";
        let path = app.pixel(message(n % 3), recipient);
        app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{agent}\r\nConnection: close\r\n\r\n"));
    }
    app.at_rest();
    app.wait_for_rollup();
    ann.post("/recipients/opt-out", &named(recipient));
    wait_until_final(&ann, &erase(&ann, id(9), false));
    let compare = |recipient: Uuid, typed: &str, hits: usize| {
        let answer = ann.post("/recipients/export", &named(recipient));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let name = answer.header("content-disposition").unwrap();
        assert!(name.starts_with("attachment; filename=\"recipient-20") && name.ends_with(".json\""), "{name}");
        assert_names_nobody(name, recipient);
        assert_eq!(
            (answer.header("cache-control"), answer.header("referrer-policy")),
            (Some("no-store"), Some("same-origin"))
        );
        let printed = app.server.settings().run(&["export", "--recipient", typed]).unwrap();
        let sent = body_of(&answer);
        let timeless = |json: &str| -> Vec<String> {
            json.lines().filter(|line| !line.starts_with("\"exported_at\"")).map(str::to_owned).collect()
        };
        assert_eq!(timeless(&sent), timeless(&printed));
        let json: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!((json["hits"].as_array().unwrap().len(), &json["recipient"]), (hits, &recipient.to_string().into()));
        json
    };
    let json = compare(recipient, key, 7);
    assert_eq!(json["opens"].as_array().unwrap().len(), 3);
    assert!(
        json["opt_out"]["since"].is_string() && json["hits"][0]["user_agent"].as_str().unwrap().contains("\"quoted\"")
    );
    let json = compare(id(9), &id(9).to_string(), 0);
    assert!(json["erasures"][0]["deleted_at"].is_string(), "{json}");
    compare(id(8), &id(8).to_string(), 0);
    assert_eq!(
        app.query(
            "SELECT actor || ' ' || count(*) FROM audit WHERE action = 'recipient exported' GROUP BY actor ORDER BY 1"
        ),
        ["ann 3", "command line 3"]
    );
}

/// A body, joined from its chunks; an incomplete answer fails the test.
fn body_of(answer: &Answer) -> String {
    if answer.header("transfer-encoding") != Some("chunked") {
        return text(answer);
    }
    let (mut rest, mut body) = (&answer.body[..], Vec::new());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let end = end.unwrap_or_else(|| panic!("it broke off: {}", String::from_utf8_lossy(&answer.body)));
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if length == 0 {
            return String::from_utf8(body).unwrap();
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

#[test]
fn an_unread_export_blocks_no_page_and_a_cut_one_looks_incomplete() {
    let _machine = beside();
    let (app, ann) = start();
    // More than the system buffers for a connection.
    Hits::new(100_000, "timestamptz '2026-03-01 01:00:00+00' + n * interval '1 ms'")
        .id("message", message(0))
        .id("recipient", id(1))
        .id("image", app.image)
        .load(&app.postgres);
    let ask = || {
        let mut stream = begin_post(&ann, "/recipients/export", &named(id(1)));
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        stream
    };
    let mut stuck = [ask(), ask()];
    let third = ann.post("/recipients/export", &named(id(2)));
    assert!(third.status == 503 && text(&third).contains("Too many people"), "{} {}", third.status, app.server.log());
    for _ in 0..5 {
        page(&ann, &format!("/recipients/{}", id(1)));
    }
    let ended =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pixeld export'";
    assert_eq!(app.number(ended), 2);
    for stream in &mut stuck {
        let mut all = Vec::new();
        let ending = stream.read_to_end(&mut all);
        let is_whole = ending.is_ok() && all.ends_with(b"0\r\n\r\n");
        assert!(!is_whole && all.len() < 100_000 * 200, "{} bytes", all.len());
    }
    wait_until("a place", PATIENCE, || ann.post("/recipients/export", &named(id(2))).status == 200).unwrap();
    let all = ann.post("/recipients/export", &named(id(1)));
    let json: serde_json::Value = serde_json::from_str(&body_of(&all)).unwrap();
    assert_eq!(json["hits"].as_array().unwrap().len(), 100_000);
    assert!(app.server.log().contains("an export was not sent completely"));
    assert_names_nobody(&app.server.log(), id(1));
}

#[test]
fn a_viewer_sees_the_state_and_can_change_nothing() {
    let _machine = beside();
    let (app, ann) = start();
    let ben = Visitor::viewer(&app);
    wait_until_final(&ann, &erase(&ann, id(1), true));
    let shown = page(&ben, &format!("/recipients/{}", id(1)));
    assert!(shown.contains("opted out since <time") && shown.contains("receipt 1"), "{shown}");
    for part in ["/erasures", "/audit", "action=\"/recipients/", "Erase …", "Undo the opt-out"] {
        assert!(!shown.contains(part), "{part}: {shown}");
    }
    assert!(!page(&ben, "/recipients").contains("/erasures"));
    let before = app.number("SELECT count(*) FROM audit");
    for path in
        ["/recipients/opt-out", "/recipients/record-again", "/recipients/export", "/recipients/erase", "/erasures"]
    {
        let answer = ben.post(path, &named(id(2)));
        assert!(answer.status == 403 && text(&answer).contains("Only an admin"), "{path}");
        // Nor may an admin's browser that another site's page sends here.
        let kind = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: cross-site\r\n";
        assert_eq!(ann.ask("POST", path, kind, &named(id(2))).status, 403, "{path}");
    }
    for path in ["/erasures", "/erasures/1", "/audit"] {
        assert_eq!(ben.get(path).status, 403, "{path}");
    }
    assert_eq!((app.number("SELECT count(*) FROM audit"), app.number("SELECT count(*) FROM erasures")), (before, 1));
}

#[test]
fn an_erasure_that_cannot_be_noted_leaves_nothing_half_done() {
    let _machine = beside();
    let (mut app, ann) = start();
    let left = |app: &App| {
        app.query(
            "SELECT concat_ws(' ', (SELECT count(*) FROM erasures), (SELECT count(*) FROM suppressions), \
             (SELECT count(*) FROM audit WHERE length(subject) = 32))",
        )
    };
    let form = form(&[("recipient", &id(1).to_string()), ("opt-out", "yes")]);
    // It fails after the opt-out.
    app.query("ALTER TABLE erasure_state RENAME TO away");
    let answer = ann.post("/erasures", &form);
    assert!(answer.status == 500 && text(&answer).contains("so nobody was erased"), "{}", text(&answer));
    assert_names_nobody(&text(&answer), id(1));
    app.query("ALTER TABLE away RENAME TO erasure_state");
    assert_eq!(left(&app), ["0 0 0"]);

    // A loading transaction leaves no gap for it.
    let lock = format!("SELECT pg_advisory_xact_lock_shared({})", pixeld::parts::db::locks::LOADING);
    let holder = Holder::take(&app.postgres, &lock);
    let mut asking = begin_post(&ann, "/erasures", &form);
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("took too long"), "{answer}");
    holder.let_go();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(left(&app), ["0 0 0"], "nobody goes on with it later");

    app.postgres.stop().unwrap();
    for (path, form) in
        [("/erasures", &form), ("/recipients/export", &named(id(1))), ("/recipients/opt-out", &named(id(1)))]
    {
        let answer = ann.post(path, form);
        assert!(answer.status == 503 && text(&answer).contains("The database is not answering"), "{path}");
    }
    app.postgres.start_again().unwrap();
    wait_until("the page", PATIENCE, || ann.is_signed_in()).unwrap();
    assert_eq!(left(&app), ["0 0 0"]);
    wait_until_final(&ann, &erase(&ann, id(1), true));
    assert_eq!(left(&app), ["1 1 2"]);
}

#[test]
fn erasures_beyond_the_bound_and_those_that_the_end_interrupts_are_finished_by_a_node() {
    let _machine = beside();
    let (mut app, ann) = start();
    recount::prepare(&app.postgres);
    for n in 0..20 {
        fetch(&app.server, &app.pixel(message(n), id(n % 5)));
    }
    app.at_rest();
    app.wait_for_rollup();
    // They cannot get the rollup's lock, so none has deleted anything.
    let holder = Holder::take(&app.postgres, "SELECT FROM rollup_state FOR UPDATE");
    let receipts: Vec<String> = (0..4).map(|n| erase(&ann, id(n), false)).collect();
    assert_eq!(receipts, ["/erasures/1", "/erasures/2", "/erasures/3", "/erasures/4"]);
    for receipt in &receipts {
        let shown = page(&ann, receipt);
        assert!(
            shown.contains("are being deleted from the database")
                && shown.contains("0 hits and 0 opens deleted so far"),
            "{shown}"
        );
    }
    assert_eq!(app.server.log().matches("other erasures are running here").count(), 2, "{}", app.server.log());
    app.server.terminate().unwrap();
    assert_eq!(app.server.log().matches("an erasure was interrupted").count(), 2, "{}", app.server.log());
    holder.let_go();
    assert_eq!(app.number("SELECT count(*) FROM erasures WHERE deleted_at IS NULL"), 4);
    // Skip the wait of half a minute.
    app.query("UPDATE erasures SET requested_at = requested_at - interval '1 minute'");
    app.restart();
    let ann = Visitor { address: app.server.settings().admin(), ..ann };
    for receipt in &receipts {
        let shown = wait_until_final(&ann, receipt);
        assert!(shown.contains("4 hits and 4 opens deleted"), "{shown}");
    }
    assert_eq!(app.number("SELECT count(*) FROM hits"), 4);
    recount::assert_same(&app.postgres, "after the erasures");
}

/// All pages of a list, by its links to older ones.
fn walk(visitor: &Visitor, path: &str) -> Vec<String> {
    let mut pages = vec![page(visitor, path)];
    while let Some((front, _)) = pages[pages.len() - 1].split_once("\">Older") {
        let next = front.rsplit("href=\"").next().unwrap().to_owned();
        pages.push(page(visitor, &next));
        assert!(pages.len() < 20, "{next}");
    }
    pages
}

/// What [`do_all_that_is_audited`] did: the deletion's page, the recipient, and the recipient's page.
struct Audited {
    job: String,
    recipient: Uuid,
    path: String,
}

/// Everything that commands and the page write into the audit, with hostile texts.
fn do_all_that_is_audited(app: &App, ann: &Visitor) -> Audited {
    let settings = app.server.settings();
    add_user(app, HOSTILE, "viewer");
    let password = run_with(settings, &["user", "password", HOSTILE, "--password-stdin"], "another good password\n");
    assert!(password.status.success(), "{password:?}");
    let new_user = [("name", "carl"), ("new-password", "correct horse battery"), ("role", "viewer")];
    location(&ann.post("/settings/users", &form(&new_user)));
    let carl = app.query("SELECT id FROM users WHERE name = 'carl'").remove(0);
    location(&ann.post(&format!("/settings/users/{carl}/disable"), ""));
    location(&ann.post(&format!("/settings/users/{carl}/enable"), ""));
    settings.run(&["user", "remove", HOSTILE]).unwrap();
    settings.run(&["message", "set", HOSTILE, "--name", HOSTILE, "--sent-count", "7"]).unwrap();
    location(&ann.post(&format!("/images/{}/title", app.image), &form(&[("title", HOSTILE)])));
    location(&ann.post(&format!("/images/{}/delete", app.image), ""));
    location(&ann.post(&format!("/images/{}/restore", app.image), ""));
    let key = format!("{HOSTILE}, a person");
    for command in ["opt-out", "export", "erase"] {
        settings.run(&[command, "--recipient", &key]).unwrap();
    }
    let path = location(&ann.get(&format!("/recipients?{}", form(&[("q", &key)]))));
    let recipient: Uuid = path.rsplit('/').next().unwrap().parse().unwrap();
    for path in ["record-again", "opt-out", "export"] {
        assert!(ann.post(&format!("/recipients/{path}"), &named(recipient)).status < 400, "{path}");
    }
    erase(ann, recipient, false);
    let job = location(&ann.post("/hits/delete", &form(&[("message", HOSTILE)])));
    wait_until("the deletion", DONE, || page(ann, &job).contains("The deletion is finished")).unwrap();
    let far = Settings::new(PIXELD, app.dir.path().join("far")).unwrap().with("DATABASE_URL", app.url());
    let mut server = far.clone().start().unwrap();
    wait_until("the node's row", DONE, || app.number("SELECT count(*) FROM nodes") == 2).unwrap();
    server.terminate().unwrap();
    far.run(&["spool", "drain", "--retire"]).unwrap();
    Audited { job, recipient, path }
}

/// Page by page, each entry once, the newest first.
fn long_lists_have_each_entry_once(app: &App, ann: &Visitor) {
    app.query(
        "INSERT INTO audit (actor, action, subject) SELECT 'x', 'tried', 'try ' || n || '.' FROM generate_series(1, 250) n; \
         INSERT INTO erasures (recipient_hash, deleted_at) \
         SELECT substring(sha256(int4send(n)) FOR 16), clock_timestamp() FROM generate_series(1, 118) n; \
         UPDATE nodes SET erased_to = 120",
    );
    let pages = walk(ann, "/audit");
    let all = pages.concat();
    let tries = |page: &str| -> Vec<u32> {
        page.split("try ").skip(1).map(|part| part.split('.').next().unwrap().parse().unwrap()).collect()
    };
    assert_eq!((pages.len(), tries(&all)), (3, (1..=250).rev().collect::<Vec<_>>()));
    let pages = walk(ann, "/erasures");
    let numbers: Vec<u32> = pages
        .concat()
        .split(" scope=\"row\"><a href=\"/erasures/")
        .skip(1)
        .map(|part| part.split('"').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((pages.len(), numbers), (3, (1..=120).rev().collect::<Vec<_>>()));
    assert!(pages[0].contains("not known") && pages[2].contains("<td>ann</td>"), "who asked, where it is known");
}

#[test]
fn the_audit_has_everything_that_commands_and_pages_did_and_hostile_words_are_only_text() {
    let _machine = beside();
    let (app, ann) = start();
    let Audited { job, recipient, path } = do_all_that_is_audited(&app, &ann);
    let done = app.query("SELECT actor || ': ' || action FROM audit ORDER BY id");
    assert_eq!(
        done,
        [
            "command line: image added",
            "command line: user added",
            "command line: user added",
            "command line: password changed",
            "ann: user added",
            "ann: user disabled",
            "ann: user enabled",
            "command line: user removed",
            "command line: message changed",
            "ann: image titled",
            "ann: image deleted",
            "ann: image restored",
            "command line: opted out",
            "command line: recipient exported",
            "command line: recipient erased",
            "ann: opted in again",
            "ann: opted out",
            "ann: recipient exported",
            "ann: recipient erased",
            "ann: began to delete hits",
            "ann: deleted hits",
            "command line: node retired",
        ]
    );
    let shown = page(&ann, "/audit");
    for entry in &done {
        let (actor, action) = entry.split_once(": ").unwrap();
        assert!(shown.contains(&format!("<td>{actor}</td><td>{action}</td>")), "{entry}: {shown}");
    }
    let hash = app.query("SELECT encode(recipient_hash, 'hex') FROM erasures LIMIT 1").remove(0);
    assert_eq!(shown.matches(&hash).count(), 7, "{shown}");
    assert_names_nobody(&shown, recipient);
    for part in
        ["role viewer", "sent count 7", "title &quot;", &format!("href=\"{job}\""), &format!("/images/{}", app.image)]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let wrong = format!("{HOSTILE}{{{{id}}}}");
    let refused = ann.get(&format!("/recipients?{}", form(&[("q", &wrong)])));
    assert!(refused.status == 422 && text(&refused).contains("merge tag that was not replaced"));
    let pages = [shown, page(&ann, &path), page(&ann, "/erasures"), page(&ann, "/settings"), text(&refused)];
    for page in &pages {
        assert!(!page.contains("<script") && page.contains("<h1>"), "{page}");
    }
    assert!(pages[0].contains("&lt;script&gt;alert(1)&lt;/script&gt;") && pages[4].contains("&lt;script&gt;"));

    long_lists_have_each_entry_once(&app, &ann);
}
