//! A key means the same recipient wherever it is read, and an unfilled one means nobody.

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::exchange;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, beside, wait_for_opt_outs};
use crate::kit::visitor::{Visitor, form, text};

/// Keys, and their other spellings as parts of a path.
const SPELLINGS: [(&str, &[&str]); 4] = [
    (
        "4711",
        &[
            "4711.gif",
            "%204711%20.png",
            "%2534711",
            "4711%C2%A0.gif",
            "%EF%BB%BF4711%0D%0A.JPG",
            "47%E2%80%8B11.webp",
            "4711%2Egif",
            "4711%2e%67%69%66",
            "4711.gif%E2%80%9D",
        ],
    ),
    (
        "jane@example.com",
        &["jane@example.com", "jane%40example.com.gif", "jane%2540example.com.gif", "jane%2540example.com"],
    ),
    ("jane@example.org", &["jane@example.org", "jane%40example.org.png"]),
    ("4711.50", &["4711.50", "4711.50.gif"]),
];

/// The same keys, typed or in lists.
const TYPED: [(&str, &[&str]); 4] = [
    ("4711", &["4711", "4711 ", " 4711", "4711\u{a0}", "\u{feff}4711", "47\u{200b}11", "\t4711\u{200d}", "%204711"]),
    ("jane@example.com", &["jane@example.com", "jane%40example.com", "jane%2540example.com", " jane@example.com"]),
    ("jane@example.org", &["jane@example.org\u{200b}"]),
    ("4711.50", &["4711.50", " 4711.50"]),
];

fn id_of(app: &App, key: &str) -> Uuid {
    app.server.settings().run(&["namespace", key]).unwrap().trim().parse().unwrap()
}

fn opens(app: &App) -> Vec<String> {
    app.query("SELECT recipient || ' ' || hits FROM opens ORDER BY 1")
}

#[test]
fn a_key_is_the_same_recipient_in_link_list_page_and_command() {
    let _machine = beside();
    let app = App::start();
    for (_, spellings) in SPELLINGS {
        for spelling in spellings {
            let path = format!("/t/{}/%20May/{spelling}", app.image);
            assert_eq!(app.get(&path).status, 200, "{path}");
        }
    }
    app.at_rest();
    let mut expected: Vec<String> =
        SPELLINGS.iter().map(|(key, spellings)| format!("{} {}", id_of(&app, key), spellings.len())).collect();
    expected.sort();
    wait_until("the opens", PATIENCE, || opens(&app).len() >= expected.len()).unwrap();
    assert_eq!(opens(&app), expected);

    let ann = Visitor::admin(&app);
    let message = id_of(&app, "May\u{a0}");
    for (key, spellings) in TYPED {
        let id = id_of(&app, key);
        for typed in spellings {
            assert_eq!(id_of(&app, typed), id, "the command namespace, {typed:?}");
            let found = ann.get(&format!("/recipients?{}", form(&[("q", typed)])));
            assert_eq!(found.header("location"), Some(&format!("/recipients/{id}")[..]), "the page, {typed:?}");
            let page = ann.get(&format!("/messages/{message}?{}", form(&[("recipient", typed)])));
            assert!(text(&page).contains(&id.to_string()), "the message's page, {typed:?}");
            let made =
                app.server.settings().run(&["link", "--image", &app.image.to_string(), "--recipient", typed]).unwrap();
            let clean =
                app.server.settings().run(&["link", "--image", &app.image.to_string(), "--recipient", key]).unwrap();
            assert_eq!(made, clean, "the command link, {typed:?}");
        }
    }
    let list = format!(
        "recipient\n{}\n",
        // A tab in a list of one column may be a separator, so the page asks.
        TYPED
            .iter()
            .flat_map(|(_, typed)| *typed)
            .filter(|typed| !typed.contains('\t'))
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    );
    let answer = who_opened(&ann, &format!("/messages/{message}/who-opened"), &list);
    let rows = answer.lines().skip(1).count();
    let known = answer.lines().skip(1).filter(|row| row.contains(",possible,") || row.contains(",opened,")).count();
    assert_eq!((rows, known), (14, 14), "{answer}");
}

/// Uploads a list, and returns the answer.
fn who_opened(visitor: &Visitor, path: &str, list: &str) -> String {
    let body = format!(
        "--XxX\r\nContent-Disposition: form-data; name=\"column\"\r\n\r\nrecipient\r\n\
         --XxX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"list.csv\"\r\nContent-Type: text/csv\r\n\r\n{list}\r\n--XxX--\r\n"
    );
    let Visitor { host, cookie, .. } = visitor;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: multipart/form-data; boundary=XxX\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(visitor.address, request.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", text(&answer));
    text(&answer)
}

#[test]
fn an_opt_out_is_of_the_right_person_however_it_is_typed() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let opt_out = |typed: &str| {
        let output = settings.command(&["opt-out", "--recipient", typed]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, receipt, said) = opt_out("4711 ");
    assert!(
        done && receipt.contains("opted out since") && said.contains("the recipient is read as \"4711\""),
        "{receipt}{said}"
    );
    let (done, receipt, said) = opt_out("4711");
    assert!(done && receipt.contains("already opted out") && !said.contains("read as"), "{receipt}{said}");
    for empty in [" ", "\u{a0}\u{200b}", "%20"] {
        let (done, receipt, said) = opt_out(empty);
        assert!(!done && receipt.is_empty() && said.contains("it is empty"), "{empty:?}: {receipt}{said}");
    }
    wait_for_opt_outs(&app.server, 1.0);
    app.get(&format!("/t/{}/May/4711%C2%A0.gif", app.image));
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_hits_dropped_total{reason=\"suppressed\"}"), 1.0);
    for command in [&["erase", "--recipient", "47\u{200b}11"][..], &["export", "--recipient", " 4711"]] {
        let output = settings.command(command).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("read as \"4711\""), "{command:?}: {said}");
    }
    assert_eq!(app.number("SELECT count(DISTINCT recipient_hash) FROM erasures"), 1);
}

#[test]
fn an_opt_out_under_a_former_reading_of_a_key_stays() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let namespace: Uuid = settings.run(&["namespace"]).unwrap().trim().parse().unwrap();
    for former in ["4711 ", "jane%40example.com"] {
        let id = Uuid::new_v5(&namespace, former.as_bytes()).to_string();
        settings.run(&["opt-out", "--recipient", &id]).unwrap();
    }
    wait_for_opt_outs(&app.server, 2.0);
    for recipient in ["4711%20.gif", "jane%2540example.com.gif"] {
        app.get(&format!("/t/{}/May/{recipient}", app.image));
    }
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_hits_dropped_total{reason=\"suppressed\"}"), 2.0);
    app.get(&format!("/t/{}/May/4711.gif", app.image));
    app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 1);
}

#[test]
fn what_was_not_filled_in_is_served_counted_and_no_recipient() {
    let _machine = beside();
    let app = App::start();
    let tags = [
        "{contactfield=id}",
        "::subscriber.uuid::",
        "${id}",
        "%ID%",
        "%ACCOUNT%",
        "@@ID@@",
        "{{id}",
        "{{id",
        "id}}",
        "[[id]]",
        "<%= id %>",
        "{$id}",
        "#{id}",
        "*|X",
        "%recipient.id%",
        "{{{id}}}",
        "[ID]",
        "-customerID-",
        "__THIRDPARTY_ID__",
        "$[UID]$",
        "undefined",
        "null",
        "NULL",
        "None",
        "NaN",
        "nil",
        "(null)",
        "[object Object]",
        "<<First name>>",
        "&lt;%= id %&gt;",
        "\"undefined\"",
        "#BEZUG!",
        "\\N",
    ];
    let mut asked = 0;
    for tag in tags {
        let encoded: String = tag.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for part in [encoded.clone(), encoded.replace('%', "%25"), format!("%20{encoded}")] {
            for path in [format!("May/{part}.gif"), format!("May/{part}"), format!("{part}/4711.gif")] {
                assert_eq!(app.get(&format!("/t/{}/{path}", app.image)).status, 200, "{tag}: {path}");
                asked += 1;
            }
        }
    }
    for key in ["100%25", "a@@b", "x$1", "c2VjcmV0IQ==", "none", "tenant::user::42", "%5B4711%5D"] {
        assert_eq!(app.get(&format!("/t/{}/May/{key}.gif", app.image)).status, 200, "{key}");
    }
    let metrics = app.at_rest();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"unmerged\"}"), f64::from(asked));
    assert_eq!(app.number("SELECT count(DISTINCT recipient) FROM hits"), 7);
}

/// Fetches a path from an address, with a program's name.
fn fetch(app: &App, path: &str, n: u8, agent: &str) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.{n}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(app.exchange(&request).status, 200, "{path}");
}

#[test]
fn a_message_whose_hits_nearly_all_name_one_recipient_from_many_addresses_says_so() {
    let _machine = beside();
    for privacy in ["full", "none"] {
        let app = App::start_with(|settings| {
            settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.1/32").with("PIXELD_IP_PRIVACY", privacy)
        });
        let ben = Visitor::viewer(&app);
        for n in 0..60 {
            let agent = format!("Reader/{}", n % 20);
            // What no grammar can distinguish from a key; four links are filled in.
            let tag = if n % 15 == 0 { n.to_string() } else { ":id".to_owned() };
            fetch(&app, &format!("/t/{}/left-in/{tag}.gif", app.image), n, &agent);
            fetch(&app, &format!("/t/{}/filled-in/{n}.gif", app.image), n, &agent);
            fetch(&app, &format!("/t/{}/one-reader/4711.gif", app.image), 7, "Reader/1");
        }
        app.at_rest();
        let page = |message: &str| text(&ben.get(&format!("/messages/{}", id_of(&app, message))));
        for message in ["left-in", "filled-in", "one-reader"] {
            wait_until("the counts", PATIENCE, || page(message).contains("60 fetches")).unwrap();
        }
        let warned = page("left-in");
        let places = if privacy == "full" { "at least 56 addresses" } else { "at least 20 mail programs" };
        assert!(
            warned.contains("Nearly all fetches name one recipient") && warned.contains(places),
            "{privacy}: {warned}"
        );
        assert!(warned.contains(&id_of(&app, ":id").to_string()), "{privacy}: {warned}");
        for message in ["filled-in", "one-reader"] {
            assert!(!page(message).contains("Nearly all fetches"), "{privacy}: {message}");
        }
    }
}
