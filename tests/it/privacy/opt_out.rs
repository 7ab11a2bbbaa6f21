//! Opt-outs: from the command to what is no longer recorded, on every node; and consent when links are made.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use loadtest::generator::{Pace, Reuse};
use pixeld::parts::db::locks::OPTING;
use pixeld_core::ids::RecipientId;
use pixeld_core::link::opt_out::OptOutKeys;
use pixeld_core::link::token::SigningKeys;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings, get};
use uuid::Uuid;

use crate::kit::support::{App, Load, PATIENCE, PIXELD, REST, alone, beside, wait_for_opt_outs};
use crate::privacy::opt_out_page::{footer, page_app};

const DOCS: &str = include_str!("../../../docs/opt-out.md");
pub const KEYS: &str = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Another node of the same installation.
fn second(app: &App, name: &str) -> Settings {
    Settings::new(PIXELD, app.dir.path().join(name)).unwrap().with("DATABASE_URL", app.url())
}

fn rows(app: &App, recipient: Uuid) -> u64 {
    app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"))
}

fn suppressed_by_loaders(app: &App) -> f64 {
    app.number("SELECT coalesce(sum(suppressed), 0) FROM batches") as f64
}

/// The output of `pixeld opt-out`.
fn opt_out(settings: &Settings, recipient: &str, more: &[&str]) -> String {
    settings.run(&[&["opt-out", "--recipient", recipient], more].concat()).unwrap()
}

/// A reader who opens an email over and over.
struct Reader {
    is_over: Arc<AtomicBool>,
    /// Set once the node knows the opt-out.
    is_late: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sent_late: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

impl Reader {
    /// The reader always gets the image.
    fn begin(public: SocketAddr, path: String) -> Reader {
        let (is_over, is_late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (sent, sent_late) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let running = std::thread::spawn({
            let (is_over, is_late) = (Arc::clone(&is_over), Arc::clone(&is_late));
            let (sent, sent_late) = (Arc::clone(&sent), Arc::clone(&sent_late));
            move || {
                while !is_over.load(Ordering::SeqCst) {
                    let late = is_late.load(Ordering::SeqCst);
                    let answer = get(public, &path).unwrap();
                    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
                    sent.fetch_add(1, Ordering::SeqCst);
                    sent_late.fetch_add(u64::from(late), Ordering::SeqCst);
                }
            }
        });
        wait_until("some opens", PATIENCE, || sent.load(Ordering::SeqCst) > 100).unwrap();
        Reader { is_over, is_late, sent, sent_late, running }
    }

    /// Goes on for a while after the node knows. Returns how many opens there were, and how many of them came after
    /// that.
    fn end_late(self) -> (f64, f64) {
        self.is_late.store(true, Ordering::SeqCst);
        let from = self.sent_late.load(Ordering::SeqCst);
        wait_until("more opens", PATIENCE, || self.sent_late.load(Ordering::SeqCst) > from + 200).unwrap();
        self.is_over.store(true, Ordering::SeqCst);
        self.running.join().unwrap();
        (self.sent.load(Ordering::SeqCst) as f64, self.sent_late.load(Ordering::SeqCst) as f64)
    }
}

#[test]
fn an_opt_out_under_load_stops_recording_on_a_second_node_and_after_restarts_without_the_database() {
    let _machine = alone();
    let mut app = App::start();
    let other = second(&app, "other").start().unwrap();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(message, recipient);
    wait_until("the image", PATIENCE, || {
        get(other.public(), &path).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    let load = Load::begin(&other, app.image, 16, Pace::Open(2000.0), Reuse::KeepAlive);
    load.wait_for(2000);

    // The reader uses the other node.
    let reader = Reader::begin(other.public(), path.clone());
    let receipt = opt_out(app.server.settings(), &recipient.to_string(), &[]);
    let took = wait_for_opt_outs(&other, 1.0);
    let (sent, late) = reader.end_late();
    let load = load.end();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0);

    let metrics = other.at_rest(REST).unwrap();
    let (slipped, dropped) = (suppressed_by_loaders(&app), metrics.dropped("suppressed"));
    println!(
        "{receipt}the other node knew it {took:?} later; {dropped} dropped, of which {slipped} by the loader; {late} were sent after that"
    );
    assert!(dropped - slipped >= late, "the edge itself drops all that came once it knew");
    let since = "SELECT count(*) FROM hits JOIN suppressions ON at >= since";
    assert_eq!(app.number(&format!("{since} WHERE recipient = '{recipient}'")), 0);
    // The wait for the image made at least one hit.
    let kept = rows(&app, recipient) as f64;
    assert!(kept >= 100.0 && kept + dropped >= sent, "{kept} {dropped}");
    load.assert_exact(&app.url());
    assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1);
    let made = app.number("SELECT count(DISTINCT (message, recipient)) FROM hits");
    wait_until("all opens", PATIENCE, || app.number("SELECT count(*) FROM opens") == made).unwrap();

    both_start_without_the_database_and_drop(&mut app, other, message, &path);
    assert_eq!((rows(&app, recipient) as f64, suppressed_by_loaders(&app)), (kept, slipped));
    assert_eq!(
        app.number(&format!("SELECT count(*) FROM hits WHERE message = '{message}' AND recipient <> '{recipient}'")),
        2
    );
}

/// Both nodes restart while the database is down. They drop three opens of the recipient who opted out, and record one
/// of somebody else.
fn both_start_without_the_database_and_drop(app: &mut App, mut other: Server, message: Uuid, path: &str) {
    let someone = app.pixel(message, Uuid::new_v4());
    app.server.terminate().unwrap();
    other.kill().unwrap();
    app.postgres.stop().unwrap();
    app.restart();
    other = other.settings().clone().start().unwrap();
    for server in [&app.server, &other] {
        for path in [path, path, path, &someone] {
            assert_eq!(get(server.public(), path).unwrap().status, 200);
        }
        assert_eq!(server.metrics().unwrap().dropped("suppressed"), 3.0);
        // The recorded one may still be on its way to the spool.
        let adds_up = || server.metrics().is_ok_and(|metrics| metrics.check_identity().is_ok());
        wait_until("the sum", PATIENCE, adds_up).unwrap();
    }
    app.postgres.start_again().unwrap();
    for server in [&app.server, &other] {
        let metrics = server.at_rest(REST).unwrap();
        assert_eq!(metrics.dropped("suppressed"), 3.0, "the edge did, and nothing reached the spool");
    }
}

#[test]
fn a_node_that_never_had_the_list_records_and_the_loader_drops_what_came_after_the_opt_out_and_keeps_what_came_before()
{
    let _machine = beside();
    let mut app = App::start();
    let settings = app.server.settings().clone();
    let (id, key) = (Uuid::new_v4(), "jane@example.com");
    let of_key: Uuid = settings.run(&["namespace", key]).unwrap().trim().parse().unwrap();
    let (plain, keyed) = (app.pixel(Uuid::new_v4(), id), format!("/t/{}/may/jane%40example.com.png", app.image));
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    // It has no namespace either, so the keys are in its spool.
    let fresh = second(&app, "fresh");
    let mut node = fresh.clone().start().unwrap();
    for path in [&plain, &plain, &keyed] {
        assert_eq!(get(node.public(), path).unwrap().status, 200);
    }
    node.kill().unwrap();
    app.postgres.start_again().unwrap();
    for recipient in [&id.to_string(), key] {
        assert!(opt_out(&settings, recipient, &[]).contains("opted out since"), "{recipient}");
    }
    app.postgres.stop().unwrap();
    node = fresh.start().unwrap();
    for path in [&plain, &keyed, &keyed, &app.pixel(Uuid::new_v4(), Uuid::new_v4())] {
        assert_eq!(get(node.public(), path).unwrap().status, 200);
    }
    let metrics = node.metrics().unwrap();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_spooled")), (0.0, 7.0));
    app.postgres.start_again().unwrap();
    let metrics = node.at_rest(REST).unwrap();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_loaded_total")), (3.0, 4.0));
    assert_eq!((rows(&app, id), rows(&app, of_key), suppressed_by_loaders(&app)), (2, 1, 3.0));
    assert_eq!(app.number("SELECT count(*) FROM hits"), 4);
    // And now it has the list, for itself only.
    wait_for_opt_outs(&node, 2.0);
    let kept = node.data_dir().join("opt-outs");
    wait_until("the file", PATIENCE, || kept.exists()).unwrap();
    let bytes = std::fs::read(&kept).unwrap();
    for recipient in [id, of_key] {
        assert!(!bytes.windows(16).any(|window| window == recipient.as_bytes()), "the list names nobody");
    }
}

#[test]
fn an_opt_out_taken_back_is_recorded_again_and_every_step_has_its_receipt() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let (path, typed) = (app.pixel(message, recipient), recipient.simple().to_string().to_uppercase());
    assert!(opt_out(settings, &typed, &["--undo"]).contains("was never opted out; nothing changed"));
    assert_eq!(app.get(&path).status, 200);
    let first = opt_out(settings, &typed, &[]);
    assert!(first.contains("opted out since 20") && !first.contains(&recipient.to_string()), "{first}");
    assert!(opt_out(settings, &typed, &[]).contains("already opted out since"));
    wait_for_opt_outs(&app.server, 1.0);
    for _ in 0..3 {
        let answer = app.get(&path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert!(answer.header("set-cookie").is_none() && answer.header("etag").is_some());
    }
    let back = opt_out(settings, &typed, &["--undo"]);
    assert!(back.contains("recorded again since 20"), "{back}");
    assert!(opt_out(settings, &typed, &["--undo"]).contains("already recorded again"));
    wait_for_opt_outs(&app.server, 0.0);
    for _ in 0..2 {
        assert_eq!(app.get(&path).status, 200);
    }
    let metrics = app.at_rest();
    assert_eq!((rows(&app, recipient), metrics.dropped("suppressed"), metrics.dropped_all()), (3, 3.0, 3.0));
    let hash = first.split_whitespace().nth(1).unwrap();
    let noted = app.query(
        "SELECT action || ' ' || subject || ' ' || actor || detail FROM audit WHERE action LIKE 'opted %' ORDER BY id",
    );
    let expected = ["opted out", "opted in again"].map(|action| format!("{action} {hash} command line{{}}"));
    assert_eq!(noted, expected);
    // An operator deletes the row by hand.
    opt_out(settings, &typed, &[]);
    wait_for_opt_outs(&app.server, 1.0);
    for (recipient, said) in [("", "1 to 128 bytes"), ("*|UNIQID|*", "merge tag"), (&Uuid::nil().to_string(), "nil")] {
        let output = settings.command(&["opt-out", "--recipient", recipient]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(said), "{text}");
    }
}

#[test]
fn a_lost_connection_or_notice_delays_an_opt_out_and_does_not_lose_it() {
    let _machine = beside();
    let app = App::start();
    let recipient = Uuid::new_v4();
    // No node is notified of this one. It holds the lock of a change, as every writer must: else the node may read past its
    // number before it is committed, and only the full list finds it.
    let add = format!(
        "WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({OPTING})) \
         INSERT INTO suppressions (hash, since, change) SELECT substring(sha256(secret || uuid_send('{recipient}')) FOR 16), \
         clock_timestamp(), nextval('suppressions_change') FROM held, installation WHERE name = 'privacy_key'"
    );
    app.query(&add);
    wait_for_opt_outs(&app.server, 1.0);
    for _ in 0..3 {
        let end =
            "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'pixeld-opt-outs'";
        app.query(end);
        opt_out(app.server.settings(), &Uuid::new_v4().to_string(), &[]);
    }
    wait_for_opt_outs(&app.server, 4.0);
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), recipient)).status, 200);
    assert_eq!(app.at_rest().dropped("suppressed"), 1.0);
    // Deleted by hand, they are put back with their times, as after a restored backup: only the command undoes an
    // opt-out.
    let times = || app.query("SELECT since::text FROM suppressions ORDER BY since");
    let before = times();
    app.query("DELETE FROM suppressions; SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'pixeld-opt-outs'");
    wait_until("the rows", PATIENCE, || times() == before).unwrap();
    assert_eq!(app.query("SELECT detail FROM audit WHERE action = 'opt-outs put back'"), ["{\"count\": 4}"]);
    wait_for_opt_outs(&app.server, 4.0);
}

/// `pixeld link` with a list on standard input: its status, its standard output, and its standard error.
fn link(app: &App, arguments: &[&str], input: &str) -> (i32, [String; 2]) {
    let image = app.image.to_string();
    let mut command = app.server.settings().command(&[&["link", "--image", &image][..], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), said)
}

#[test]
fn links_of_a_whole_list_leave_out_recipients_without_consent() {
    let _machine = beside();
    let app = page_app();
    let settings = app.server.settings();
    let (image, id) = (app.image.to_string(), Uuid::new_v4());
    let table = format!(
        "email,recipient,Consent\n\"Doe, Jane <j@example.com>\",4711,yes\nb@example.com,{id},no\nc@example.com,4713,\n"
    );
    let run = |arguments: &[&str], input: &str| link(&app, arguments, input);
    let (code, [printed, said]) = run(&["--message", "may", "--opt-out", "--csv", "-"], &table);
    let told =
        "3 rows read and printed: 1 links name their recipient, 2 do not (no consent in the column \"Consent\")\n";
    assert_eq!((code, &*said), (0, told));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "email,recipient,Consent,link,tag,opt_out");
    let base = "https://pixels.example.com";
    let nobody = Uuid::nil();
    assert!(
        lines[1]
            .starts_with(&format!("\"Doe, Jane <j@example.com>\",4711,yes,{base}/t/{image}/may/4711.png,\"<img src="))
    );
    assert!(lines[2].starts_with(&format!("b@example.com,{id},no,{base}/t/{image}/may/{nobody}.png,")), "{}", lines[2]);
    assert!(lines[3].starts_with(&format!("c@example.com,4713,,{base}/t/{image}/may/{nobody}.png,")), "{}", lines[3]);
    for (line, recipient) in lines[1..].iter().zip(["4711", &id.to_string(), "4713"]) {
        let (_, token) = line.rsplit_once(&format!(",{base}")).unwrap();
        assert_eq!(token, footer(settings, app.image, recipient));
        assert!(!line.contains(&format!("may/{id}")), "{line}");
    }
    // A file, with a message in each row, and no footer.
    let file = app.dir.path().join("list.csv");
    std::fs::write(&file, "recipient,message\n4711,june\n").unwrap();
    let printed = settings.run(&["link", "--image", &image, "--csv", file.to_str().unwrap()]).unwrap();
    assert!(printed.starts_with(&format!("recipient,message,link,tag\n4711,june,{base}/t/{image}/june/4711.png,")));
    wrong_lists_are_refused_in_words(&app);
    // As Excel writes it, with its own first line; if a row is refused nothing is printed, not even the rows before it.
    let excel = "\u{feff}sep=;\r\nE-Mail;Einwilligung\r\na@example.com;Ja\r\nb@example.com;\r\n;\r\n";
    let (code, [printed, said]) = run(&["--csv", "-", "--column", "e-mail"], excel);
    assert_eq!(code, 0, "{said}");
    assert!(
        printed.starts_with("\u{feff}sep=;\r\nE-Mail;Einwilligung;link;tag\r\na@example.com;Ja;https://"),
        "{printed}"
    );
    assert_eq!(printed.lines().count(), 5);
    assert!(said.contains("3 rows read and printed: 1 links name their recipient, 1 do not (no consent in the column \"Einwilligung\"), 1 rows are empty"), "{said}");
    // A formula that keeps the zeros, and the page's own answer without its column of consents.
    for (list, expected) in [
        ("id,n\n=\"0042\",a\n", format!("{base}/t/{image}/may/0042.png,")),
        ("id,pixeld_recipient_in_link\n4711,no\n", format!("4711,no,{base}/t/{image}/may/{nobody}.png,")),
    ] {
        let (code, [printed, said]) = run(&["--message", "may", "--csv", "-"], list);
        assert!(code == 0 && printed.contains(&expected), "{printed}{said}");
    }
    let (code, [printed, _]) = run(&["--csv", "-"], "recipient,x\n1,a\n2,b,c\n");
    assert_eq!((code, &*printed), (1, ""));
}

/// With the row if that is known.
fn wrong_lists_are_refused_in_words(app: &App) {
    for (arguments, input, expected) in [
        (&["--csv", "-"][..], "recipient,consent\n1,yes\n2,maybe\n", "Row 3: consent is \"maybe\""),
        (&["--csv", "-"], "recipient\n*|UNIQID|*\n", "Row 2: the recipient \"*|UNIQID|*\" cannot be a key"),
        (&["--csv", "-"], "email\na\n", "No column is called recipient"),
        (&["--csv", "-"], "recipient\n1\n\"2\n3\n", "Row 3 begins a cell with a quotation mark that is never closed"),
        (&["--csv", "-"], "recipient\n7\n7\n7\n", "add --sure"),
        (&["--csv", "-"], "id,Email consent\n1,no\n", "Name the consent column: perhaps \"Email consent\"."),
        (&["--csv", "-"], "id,consent,Unsubscribed\n1,yes,yes\n", "The column \"Unsubscribed\" may say who must not"),
        (
            &["--csv", "-"],
            " id | n\n----+---\n  1 | a\n(1 row)\n",
            "Row 2: the recipient \"----+---\" looks like a line",
        ),
        (&["--csv", "-"], "id;n\n4711;a\n4,71E+12;b\n", "Row 3: the recipient \"4,71E+12\" looks like a number that"),
        (&["--csv", "-"], "id,n\n1,a\nid,n\n2,b\n", "Row 3 is the header again"),
        (&["--csv", "-"], "id,n\n1;a\n", "Row 2 is a single cell"),
        (&["--csv", "/nowhere.csv"], "", "cannot open /nowhere.csv"),
        (&["--opt-out"], "", "--opt-out needs a recipient"),
    ] {
        let (code, [_, said]) = link(app, arguments, input);
        assert!(code == 1 && said.contains(expected), "{arguments:?}: {said}");
    }
}

/// Rows of the docs' table of test vectors: kind, key, recipient, token.
fn vectors() -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    let rows = DOCS.lines().filter(|line| line.starts_with('|')).map(cells);
    let vectors: Vec<Vec<String>> = rows.filter(|row: &Vec<String>| row.len() == 4 && row[3].len() == 46).collect();
    assert_eq!(vectors.len(), 3);
    vectors
}

#[test]
fn the_docs_vectors_are_what_rust_and_pythons_standard_library_make() {
    assert!(DOCS.contains(&format!("PIXELD_SIGNING_KEYS={KEYS}")));
    let mut calls = String::new();
    for row in vectors() {
        let recipient: RecipientId = row[2].parse().unwrap();
        let own: [u8; 32] = std::array::from_fn(|n| 64 + n as u8);
        let shared = match &*row[1] {
            "own" => SigningKeys::default(),
            id => SigningKeys::parse(KEYS.split(',').find(|entry| entry.starts_with(id)).unwrap()).unwrap(),
        };
        assert_eq!(OptOutKeys::new(shared, own).sign(recipient), row[3]);
        assert_eq!(OptOutKeys::new(SigningKeys::parse(KEYS).unwrap(), own).verify(&row[3]), Ok(recipient));
        let (id, key) = match &*row[1] {
            "own" => continue,
            "1" => (1, "range(32)"),
            _ => (2, "range(32, 64)"),
        };
        calls.push_str(&format!("print(opt_out_token({id}, bytes({key}), uuid.UUID('{recipient}')))\n"));
    }
    let (_, code) = DOCS.split_once("```python\n").unwrap();
    let code = format!("{}\n{calls}", code.split_once("```").unwrap().0);
    let output = Command::new("python3").args(["-c", &code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let expected: Vec<String> = vectors().into_iter().filter(|row| row[1] != "own").map(|row| row[3].clone()).collect();
    assert_eq!(made, expected);
}
