//! Lists of recipients are uploaded to the admin page as CSV, and returned with added columns.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, exchange, parse};
use uuid::Uuid;

use crate::kit::rows::Rows;
use crate::kit::support::{App, PATIENCE, Postgres, alone, beside};
use crate::kit::visitor::{Visitor, text};

const MESSAGE: &str = "11111111-1111-4111-8111-111111111111";
const KEYS: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SITE: &str = "https://pixels.example";

const THUNDERBIRD: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.0";

fn start(change: impl FnOnce(pixeld_testkit::server::Settings) -> pixeld_testkit::server::Settings) -> (App, Visitor) {
    let app = App::start_with(|settings| change(settings.with("PIXELD_BASE_URL", SITE)));
    let ben = Visitor::viewer(&app);
    (app, ben)
}

fn path(page: &str) -> String {
    format!("/messages/{MESSAGE}/{page}")
}

/// A form up to its file's bytes, and the bytes that end it.
fn form(fields: &[(&str, &str)]) -> (Vec<u8>, &'static [u8]) {
    let field = |(name, value): &(&str, &str)| {
        format!("--XxX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let mut form: String = fields.iter().map(field).collect();
    form.push_str("--XxX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"list.csv\"\r\n");
    form.push_str("Content-Type: text/csv\r\n\r\n");
    (form.into_bytes(), b"\r\n--XxX--\r\n")
}

fn head(visitor: &Visitor, path: &str, length: &str) -> Vec<u8> {
    let Visitor { host, cookie, .. } = visitor;
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: multipart/form-data; boundary=XxX\r\n{length}\r\n\r\n"
    )
    .into_bytes()
}

/// Sends a form's body unchanged.
fn post(visitor: &Visitor, path: &str, body: &[u8]) -> Answer {
    let mut request = head(visitor, path, &format!("Content-Length: {}", body.len()));
    request.extend_from_slice(body);
    exchange(visitor.address, &request).unwrap()
}

fn send(visitor: &Visitor, page: &str, fields: &[(&str, &str)], list: &[u8]) -> Answer {
    let (mut body, end) = form(fields);
    body.extend_from_slice(list);
    body.extend_from_slice(end);
    post(visitor, &path(page), &body)
}

/// The returned list.
fn answered(visitor: &Visitor, page: &str, fields: &[(&str, &str)], list: impl AsRef<[u8]>) -> String {
    let answer = send(visitor, page, fields, list.as_ref());
    assert_eq!(answer.status, 200, "{}", text(&answer));
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(
        (answer.header("cache-control"), answer.header("x-content-type-options")),
        (Some("no-store"), Some("nosniff"))
    );
    let name = if page == "links" { "links" } else { "who-opened" };
    let begin = format!("attachment; filename=\"{name}-{MESSAGE}-");
    let disposition = answer.header("content-disposition").unwrap();
    assert!(disposition.starts_with(&begin) && disposition.ends_with(".csv\""), "{disposition}");
    text(&answer)
}

/// Reads CSV with commas.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut is_quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = csv.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, is_quoted) {
            ('"', true) if chars.peek() == Some(&'"') => cell.extend(chars.next()),
            ('"', _) => is_quoted = !is_quoted,
            (',', false) => row.push(std::mem::take(&mut cell)),
            ('\n', false) => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(c),
        }
    }
    rows
}

fn fetch(app: &App, path: &str, user_agent: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: {user_agent}\r\n\r\n");
    assert_eq!(app.exchange(&request).status, 200, "{path}");
}

fn wait_for_opens(app: &App) {
    app.at_rest();
    app.wait_for_rollup();
}

/// Unnamed files that the server has open in its data directory.
fn nameless(app: &App) -> usize {
    let folder = format!("{}/", fs::canonicalize(app.server.data_dir()).unwrap().display());
    let links = fs::read_dir(format!("/proc/{}/fd", app.server.pid())).unwrap().flatten();
    let names = links.filter_map(|link| fs::read_link(link.path()).ok()).map(|name| name.display().to_string());
    names.filter(|name| name.starts_with(&folder) && name.ends_with(" (deleted)")).count()
}

/// Names in the data directory.
fn names(app: &App) -> Vec<String> {
    let entries = fs::read_dir(app.server.data_dir()).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_list_comes_back_with_who_opened() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let ids: Vec<String> = (0..4).map(|_| Uuid::new_v4().to_string()).collect();
    let image = app.image;
    for (recipient, user_agent) in [
        (&*ids[0], THUNDERBIRD),
        (&ids[1], "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"),
        (&ids[2], "Mozilla/5.0"),
        (&ids[3], "curl/8.5.0"),
        ("jane%40example.com", "curl/8.5.0"),
        ("jane%40example.com", THUNDERBIRD),
        ("%2B49%2030", THUNDERBIRD),
    ] {
        fetch(&app, &format!("/t/{image}/{MESSAGE}/{recipient}.png"), user_agent);
        // Of another message.
        fetch(&app, &format!("/t/{image}/other/nobody.png"), user_agent);
    }
    wait_for_opens(&app);
    let at = |key: &str, column: &str| {
        let id = app.server.settings().run(&["namespace", key]).unwrap();
        app.query(&format!(
            "SELECT to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM opens \
             WHERE message = '{MESSAGE}' AND recipient = '{}'",
            id.trim()
        ))
        .remove(0)
    };
    let upper = ids[0].to_uppercase();
    let list = format!(
        "e-mail,Id\na@example.com,{upper}\nb,{}\nc,{}\nd,{}\ne, jane@example.com \nf,+49 30\nf,'+49 30\ng,nobody\nh,\ni,*|UNIQID|*\n,\n",
        ids[1], ids[2], ids[3]
    );
    let answer = rows(&answered(&ben, "who-opened", &[("column", "")], &list));
    assert_eq!(answer[0], ["e-mail", "Id", "pixeld_opened", "pixeld_first_at", "pixeld_class"]);
    let dated = |row: &[String], at: String| {
        assert!(row[3].starts_with(&at) && row[3].ends_with('Z'), "{row:?} {at}");
        format!("{}|{}", row[2], row[4])
    };
    assert_eq!(answer[1][..2], ["a@example.com".to_owned(), upper]);
    assert_eq!(dated(&answer[1], at(&ids[0], "confirmed_first_at")), "opened|human");
    assert_eq!(dated(&answer[2], at(&ids[1], "confirmed_first_at")), "opened|proxied");
    assert_eq!(dated(&answer[3], at(&ids[2], "first_at")), "possible|unknown");
    assert_eq!(answer[4][2..], ["not opened", "", "bot"]);
    assert_eq!(dated(&answer[5], at("jane@example.com", "confirmed_first_at")), "opened|human");
    for row in &answer[6..8] {
        assert_eq!((&*row[1], dated(row, at("+49 30", "first_at"))), ("'+49 30", "opened|human".to_owned()));
    }
    assert_eq!(answer[8][2..], ["not opened", "", ""]);
    for (row, why) in answer[9..12].iter().zip(["no id", "no id", "an empty row"]) {
        assert_eq!(row[2..], ["not measured", "", why]);
    }
    assert_eq!(answer.len(), 12);

    // Another format comes back in that format; and an answer may be uploaded again.
    let other = format!("\u{feff}x;\"Recip;ient\"\r\n\"a\n;b\";{};\r\n\r\nz;;", ids[3]);
    let again = answered(&ben, "who-opened", &[("column", "recip;IENT")], &other);
    let expected = format!(
        "\u{feff}x;\"Recip;ient\";pixeld_opened;pixeld_first_at;pixeld_class\r\n\"a\n;b\";{};not opened;;bot\r\n\
         z;;not measured;;no id\r\n",
        ids[3]
    );
    assert_eq!(again, expected);
    assert_eq!(answered(&ben, "who-opened", &[("column", "Recip;ient")], &again), expected);
    assert_eq!(answered(&ben, "who-opened", &[], "id\n"), "id,pixeld_opened,pixeld_first_at,pixeld_class\n");
    let page = text(&ben.get(&path("who-opened")));
    assert!(page.contains(&format!("<a href=\"/messages/{MESSAGE}\">")), "{page}");
}

/// Fetches each link of an answer; the first three name a recipient. Returns the recipients that their hits must have.
fn fetch_each_link(app: &App, answer: &[Vec<String>], is_signed: bool) -> Vec<String> {
    let mut expected = Vec::new();
    for row in &answer[1..] {
        let path = row[2].strip_prefix(SITE).unwrap();
        assert_eq!(path.starts_with("/o/"), is_signed, "{path}");
        let size = row[3].strip_prefix(&format!("<img src=\"{}\" width=\"", row[2])).unwrap();
        assert!(size.ends_with("\" alt=\"\">"), "{row:?}");
        fetch(app, path, THUNDERBIRD);
        let is_named = expected.len() < 3;
        assert_eq!(row[4], if is_named { "yes" } else { "no" });
        let key = row[1].strip_prefix('\'').unwrap_or(&row[1]);
        expected.push(match is_named {
            true => app.server.settings().run(&["namespace", key]).unwrap().trim().to_owned(),
            false => "nobody".to_owned(),
        });
    }
    expected
}

/// Wrong choices are refused with an explanation.
fn wrong_choices_are_refused(app: &App, ben: &Visitor, is_signed: bool) {
    let image = app.image.to_string();
    for (fields, words) in [
        (&[("image", "x")][..], "not the id of an image"),
        (&[], "Choose an image"),
        (&[("image", MESSAGE)], "There is no image with this id"),
        (&[("image", &image), ("consent", "may")], "no column \"may\""),
        (
            &[("image", &image), ("sent-at", "soon")],
            if is_signed { "from 1970 to 2106" } else { "PIXELD_SIGNING_KEYS" },
        ),
    ] {
        let answer = send(ben, "links", fields, b"id\n1\n");
        let page = text(&answer).replace("&quot;", "\"");
        assert!(
            answer.status == 422 && (page.contains(words) || page.contains(&words.replace("&#39;", "'"))),
            "{words}: {page}"
        );
    }
    let answer = send(ben, "links", &[("image", &image), ("consent", "ok?")], b"id,ok?\n1,yes\n2,nope\n");
    assert!(answer.status == 422 && text(&answer).contains("Row 3: consent is"), "{}", text(&answer));
    app.delete_image(app.image);
    let answer = send(ben, "links", &[("image", &image)], b"id\n1\n");
    assert!(answer.status == 422 && text(&answer).contains("deleted"));
    assert!(text(&ben.get(&path("links"))).contains("No images yet"));
}

#[test]
fn each_link_of_a_list_records_its_own_recipient_or_nobody() {
    let _machine = beside();
    for keys in [None, Some(KEYS)] {
        let (app, ben) = start(|settings| match keys {
            Some(keys) => settings.with("PIXELD_SIGNING_KEYS", keys),
            None => settings,
        });
        ben.choose_zone("Europe/Berlin");
        let page = text(&ben.get(&path("links")));
        assert_eq!(
            (page.contains("name=\"sent-at\""), page.contains("Time zone: Europe/Berlin.")),
            (keys.is_some(), keys.is_some())
        );
        let (image, id) = (app.image.to_string(), Uuid::new_v4().to_string());
        let sent_at = if keys.is_some() { "2026-05-04T11:00" } else { "" };
        let fields =
            [("image", &*image), ("image-id", ""), ("column", "key"), ("consent", "OK?"), ("sent-at", sent_at)];
        let list = format!("ok?,key\nyes,{id}\nyes,jane@example.com\n1,=4711\nNein,no-1\n0,no-2\n,no-3\nyes,\n");
        let answer = rows(&answered(&ben, "links", &fields, &list));
        let names = ["ok?", "key", "pixeld_link", "pixeld_img", "pixeld_recipient_in_link", "pixeld_note"];
        assert_eq!(answer[0], names);
        assert_eq!(answer.len(), 8);
        let expected = fetch_each_link(&app, &answer, keys.is_some());
        app.at_rest();
        let hits = "SELECT coalesce(recipient::text, 'nobody') FROM hits_readable ORDER BY at, seq";
        assert_eq!(app.query(hits), expected);
        let time = if keys.is_some() { "'2026-05-04 09:00:00+00'" } else { "NULL" };
        let right = format!("message = '{MESSAGE}' AND image = '{image}' AND sent_at IS NOT DISTINCT FROM {time}");
        assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE {right}")), 7);

        // Without a column of consents, everybody is named. The image may also be given by its id.
        let answer = answered(&ben, "links", &[("image-id", &image)], "recipient,ok?\na,no\n");
        assert!(answer.ends_with(",yes,\n"), "{answer}");
        wrong_choices_are_refused(&app, &ben, keys.is_some());
    }
}

#[test]
fn a_column_called_consent_is_used_and_reported() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let image = app.image.to_string();
    // As Excel saves it.
    let list = "\u{feff}sep=;\r\nid;Opt-In;name\r\n4711;Ja;Jane\r\n4712;Nein;Max\r\n4713;;Eva\r\n;;\r\n";
    let answer = send(&ben, "links", &[("image", &image)], list.as_bytes());
    assert_eq!(answer.status, 200, "{}", text(&answer));
    let name = format!("attachment; filename=\"links-{MESSAGE}-3-rows-1-named.csv\"");
    assert_eq!(answer.header("content-disposition"), Some(&*name));
    let list = text(&answer);
    let (nobody, base) = (format!("{MESSAGE}.png"), format!("{SITE}/image/{image}_"));
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(
        lines[..2],
        ["\u{feff}sep=;", "id;Opt-In;name;pixeld_link;pixeld_img;pixeld_recipient_in_link;pixeld_note"]
    );
    assert!(lines[2].starts_with(&format!("4711;Ja;Jane;{SITE}/t/{image}/{MESSAGE}/4711.png;")), "{}", lines[2]);
    assert!(lines[2].ends_with(";yes;"), "{}", lines[2]);
    for line in &lines[3..5] {
        assert!(line.contains(&format!(";{base}{nobody};")) && line.ends_with(";no;no consent"), "{line}");
    }
    assert_eq!(lines[5..], [";;;;;;an empty row"]);
    // A name that only sounds like consent makes the page ask, and so does its opposite; once the column is named, it
    // is used.
    for (list, words) in [
        (
            "id,Einwilligung erteilt\n1,nein\n",
            "Name the consent column: perhaps \"Einwilligung erteilt\". Or confirm that everybody has agreed.",
        ),
        ("id,DOUBLE_OPT-IN\n1,no\n", "perhaps \"DOUBLE_OPT-IN\""),
        ("id,\"Consent\n(yes/no)\"\n1,no\n", "perhaps \"Consent (yes/no)\""),
        ("id,Unsubscribed from all email\n1,true\n", "may say who must not be recorded"),
        ("id,consent,unsubscribed\n1,yes,yes\n", "The column \"unsubscribed\" may say who must not be recorded"),
    ] {
        let answer = send(&ben, "links", &[("image", &image)], list.as_bytes());
        let page = text(&answer).replace("&quot;", "\"");
        assert!(answer.status == 422 && page.contains(words), "{list}: {page}");
    }
    let named = [("image", &*image), ("consent", "consent (YES/no)")];
    let list = answered(&ben, "links", &named, "id,\"Consent\n(yes/no)\"\n1,no\n");
    assert!(list.ends_with(",no,no consent\n"), "{list}");
    // An answer without its column of consents names nobody who was not named before.
    let list = answered(&ben, "links", &[("image", &image)], "id,pixeld_recipient_in_link\n1,yes\n2,no\n");
    assert!(list.contains(",yes,\n2,") && list.ends_with(",no,no consent\n"), "{list}");
    // Only if the sender says that everybody agreed, this is ignored.
    let list = answered(&ben, "links", &[("image", &image), ("all-consent", "yes")], "id,consent\n1,no\n");
    assert!(list.ends_with(",yes,\n"), "{list}");
}

#[test]
fn unmeasured_recipients_are_never_not_opened() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let image = app.image;
    for recipient in ["reader", "left"] {
        fetch(&app, &format!("/t/{image}/{MESSAGE}/{recipient}.png"), THUNDERBIRD);
    }
    wait_for_opens(&app);
    for recipient in ["out", "left"] {
        app.server.settings().run(&["opt-out", "--recipient", recipient]).unwrap();
    }
    let list = "id,consent,pixeld_recipient_in_link\nreader,yes,yes\nleft,yes,yes\nout,yes,yes\nsilent,yes,yes\n\
                agreed-not,no,no\nunlinked,yes,no\n,yes,no\n";
    let answer = rows(&answered(&ben, "who-opened", &[], list));
    let said: Vec<String> = answer[1..].iter().map(|row| format!("{}|{}|{}", row[0], row[3], row[5])).collect();
    let expected = [
        "reader|opened|human",
        "left|opened|human",
        "out|not measured|opted out",
        "silent|not opened|",
        "agreed-not|not measured|no consent",
        "unlinked|not measured|link without recipient",
        "|not measured|no id",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_doubtful_column_is_accepted_once_the_sender_confirms() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let names: String = (0..20)
        .map(|n| {
            format!(
                "key-{n},name-{n},Jane Doe {n},2026-05-{:02},x,47{}.0,<a{n}@example.com>,4.{n:03}E+12,{}\n",
                n + 1,
                n + 11,
                if n == 0 { "---".to_owned() } else { n.to_string() }
            )
        })
        .collect();
    let list = format!("id,name,full name,date,same,shown,address,rounded,total\n{names}");
    // Before anybody has opened it, nobody can be known.
    assert!(answered(&ben, "who-opened", &[("column", "name")], &list).contains("not opened"));
    fetch(&app, &format!("/t/{}/{MESSAGE}/key-7.png", app.image), THUNDERBIRD);
    wait_for_opens(&app);
    assert!(answered(&ben, "who-opened", &[("column", "id")], &list).contains("opened,"));
    let image = app.image.to_string();
    for (page, column, words) in [
        (
            "who-opened",
            "name",
            "None of these 20 recipients is known, but others opened this message. Is \"name\" the right column?",
        ),
        ("links", "full name", "Most recipients look like names or texts, such as \"Jane Doe 0\""),
        ("links", "date", "Most recipients look like dates"),
        ("links", "same", "All 20 rows name the same recipient, \"x\""),
        ("links", "shown", "Most recipients look like numbers that a program reformatted, such as \"4711.0\""),
        ("links", "address", "Most cells hold more than one plain recipient, such as \"&lt;a0@example.com&gt;\""),
        ("links", "rounded", "Row 2: the recipient \"4.000E+12\" looks like a number that a spreadsheet rounded"),
        ("links", "total", "Row 2: the recipient \"---\" looks like a line or a sign"),
    ] {
        let fields = [("image", &*image), ("column", column)];
        let answer = send(&ben, page, &fields, list.as_bytes());
        let asked = text(&answer).replace("&quot;", "\"");
        assert!(answer.status == 422 && asked.contains(words) && asked.contains("name=\"sure\""), "{asked}");
        answered(&ben, page, &[&fields[..], &[("sure", "yes")]].concat(), &list);
    }
    assert!(!text(&ben.get(&path("links"))).contains("name=\"sure\""), "nobody is asked before there is a doubt");
}

#[test]
fn no_cell_of_an_answer_is_a_formula() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let hostile = ["=1+1", "+49", "-5", "@SUM(A1)", "\"\t=1\"", "\"\r=1\"", "\"\n=1\"", "x;=1+1;y"];
    let image = app.image.to_string();
    for (page, fields) in [("who-opened", &[][..]), ("links", &[("image", &*image)])] {
        let mut list = format!("id,{}\n", hostile.join(","));
        for cell in hostile {
            list.push_str(&format!("{cell},{}\n", hostile.join(",")));
        }
        let answer = rows(&answered(&ben, page, fields, &list));
        assert_eq!(answer.len(), 9);
        for (at, row) in answer.iter().enumerate() {
            assert_eq!(row.len(), if page == "links" { 13 } else { 12 }, "{at}");
            for part in row.iter().flat_map(|cell| cell.split([',', ';', '|', '\t', '\n', '\r'])) {
                assert!(!part.trim_start_matches('"').starts_with(['=', '+', '-', '@']), "{part:?}");
            }
            assert_eq!(row[1..9].iter().filter(|cell| cell.contains('\'')).count(), 8, "{row:?}");
        }
    }
}

#[test]
fn a_file_that_is_no_list_is_refused_with_an_explanation() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let long = format!("id\n1\n\"{}", "x".repeat(70_000));
    let wide = format!("id\n{}\n", ",".repeat(5000));
    let blank = "\n".repeat(70_000);
    for (fields, list, words) in [
        (&[][..], &b""[..], "The file is empty."),
        (&[], b"\xef\xbb\xbf\r\n\n", "The file is empty."),
        (&[], b" , \n1,2\n", "names no columns"),
        (&[], b"1,jane@example.com\n", "The first line contains \"jane@example.com\", so it is not a header"),
        (&[], b"Mail,Name\njane@example.com,Jane\n", "No column is called recipient or id"),
        (&[], b"id,name\n1,Doe, Jane\n", "Row 2 has 3 cells, the header has 2"),
        (&[], b"id,name\n1,\"Jane\n2,Max\n", "Row 2 begins a cell with a quotation mark that is never closed"),
        (&[], b"id,name\n1,\"Jane \\\"JD\\\" Doe\"\n", "Row 2 has text after a closing quotation mark"),
        (&[], b"id,name\n1,Jane\n2,j\xfcrgen\n", "Row 3: \"j\u{fffd}rgen\" is not UTF-8"),
        (&[], b"id,id\n1,2\n", "Two columns are called \"id\""),
        (&[], b"a;b,c\n1;2,3\n", "The header has equally many ',' and ';'"),
        (&[], b"id,Opt-Out\n1,\n", "The column \"Opt-Out\" may say who must not be recorded"),
        (&[("consent", "x"), ("all-consent", "yes")], b"id,x\n1,\n", "not both"),
        (&[("column", "mail")], b"id,<b>\n1,2\n", "There is no column \"mail\". The file has \"id\", \"&lt;b&gt;\"."),
        (&[], b"id,Email consent\n1,no\n", "Name the consent column: perhaps \"Email consent\"."),
        (&[], b"id,consent,UNSUB_TIME\n1,yes,\n", "The column \"UNSUB_TIME\" may say who must not be recorded"),
        (&[], b"id,n\n1,a\n\xef\xbb\xbfid,n\n2,b\n", "Row 3 is the header again"),
        (&[], b"id,n\n1;a\n", "Row 2 is a single cell"),
        (
            &[("column", "kunden nr")],
            b"\"Kunden\nNo\",x\n1,a\n",
            "There is no column \"kunden nr\". The file has \"Kunden No\"",
        ),
        (&[], b"\x1f\x8b\x08\x00xxxx", "a compressed file, not CSV"),
        (&[], b"%PDF-1.7\n", "a PDF, not CSV"),
        (&[], long.as_bytes(), "Row 3 is too long"),
        (&[], wide.as_bytes(), "Row 2 is too long"),
        (&[], blank.as_bytes(), "Row 1 is too long"),
        (&[], b"PK\x03\x04xxxx", "a workbook, not CSV"),
        (&[], b"i\0d\0\n\0", "Row 1 is not text"),
    ] {
        let answer = send(&ben, "who-opened", fields, list);
        let page = text(&answer).replace("&quot;", "\"").replace("&#39;", "'");
        assert!(answer.status == 422 && page.contains(words) && page.contains("type=\"file\""), "{words}: {page}");
    }
    let page = text(&send(&ben, "who-opened", &[("column", "mail")], b"id\n"));
    assert!(page.contains("value=\"mail\""), "what was filled in stays: {page}");

    let (begun, end) = form(&[("column", "")]);
    let unfinished = [&begun[..], b"id\n1\n"].concat();
    let late = b"\r\n--XxX\r\nContent-Disposition: form-data; name=\"column\"\r\n\r\nid";
    let late = [&begun[..], b"id\n1\n", late, end].concat();
    let none = "--XxX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\"\r\n\r\n\r\n--XxX--\r\n";
    let many = "--XxX\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n".repeat(20);
    for (body, status, words) in [
        (&unfinished[..], 422, "the connection was lost"),
        (&late, 422, "fields of this form must come before its file"),
        (none.as_bytes(), 422, "Choose a file"),
        (b"--XxX--\r\n", 422, "Choose a file"),
        (many.as_bytes(), 415, "could not read the form"),
    ] {
        let answer = post(&ben, &path("who-opened"), body);
        assert!(answer.status == status && text(&answer).contains(words), "{words}: {}", text(&answer));
    }
    for page in ["who-opened", "links"] {
        for message in ["x", "00000000-0000-0000-0000-000000000000"] {
            let path = format!("/messages/{message}/{page}");
            assert_eq!((ben.get(&path).status, post(&ben, &path, &late).status), (404, 404), "{path}");
        }
    }
    assert_eq!(nameless(&app), 0);
}

/// Sends a list of `count` rows in chunks, and reads the answer: its rows, the rows with this ending, and the largest
/// number of unnamed files seen.
fn long_list(app: &App, ben: &Visitor, page: &str, fields: &[(&str, &str)], count: usize, ending: &str) -> [usize; 3] {
    let mut stream = TcpStream::connect(ben.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(&head(ben, &path(page), "Transfer-Encoding: chunked")).unwrap();
    let (begin, end) = form(fields);
    let mut send = |bytes: &[u8]| {
        stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.write_all(b"\r\n").unwrap();
    };
    send(&begin);
    send(b"name,id,e-mail,city\n");
    let mut seen = 0;
    for first in (0..count).step_by(1000) {
        let row = |n: usize| format!("Jane Doe {n},key-{n},jane.doe.{n}@example.com,\"Berlin, Germany\"\n");
        send((first..first + 1000).map(row).collect::<String>().as_bytes());
        seen = seen.max(nameless(app));
    }
    send(end);
    stream.write_all(b"0\r\n\r\n").unwrap();
    let (mut bytes, mut rows, mut ended) = (Vec::new(), 0, 0);
    let mut block = vec![0; 1 << 16];
    let mut head = None;
    loop {
        let read = stream.read(&mut block).unwrap();
        bytes.extend_from_slice(&block[..read]);
        if head.is_none() && bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let answer = parse(&bytes).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.head);
            bytes = answer.body;
            head = Some(answer.head);
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes.drain(..whole).collect::<Vec<u8>>().split_inclusive(|byte| *byte == b'\n') {
            rows += 1;
            ended += usize::from(line.strip_suffix(b"\n").is_some_and(|line| line.ends_with(ending.as_bytes())));
        }
        if read == 0 {
            assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
            return [rows, ended, seen];
        }
    }
}

#[test]
fn a_long_list_needs_little_memory_and_leaves_nothing() {
    let _machine = alone();
    let (app, ben) = start(|settings| settings.with("PIXELD_SIGNING_KEYS", KEYS));
    let count = 300_000;
    // A third of them opened it.
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap();
    let id = |n: usize| Uuid::new_v5(&namespace, format!("key-{n}").as_bytes());
    for first in (0..count).step_by(30_000) {
        let ids: Vec<String> = (first..first + 30_000).step_by(3).map(|n| id(n).to_string()).collect();
        Rows::opens(ids.len() as u64)
            .with("message", format!("'{MESSAGE}'::uuid"))
            .with("recipient", format!("('{{{}}}'::uuid[])[n + 1]", ids.join(",")))
            .with("confirmed_first_at", "now()")
            .with("confirmed_hits", "1")
            .with("best", "1")
            .with("first_class", "1")
            .with("confirmed_first_class", "1")
            .add(&app.postgres);
    }
    let most = || {
        let status = fs::read_to_string(format!("/proc/{}/status", app.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap()
    };
    // Things that every list needs exist before.
    answered(&ben, "who-opened", &[], "id\n1\n");
    let (before, names_before) = (most(), names(&app));
    let began = std::time::Instant::now();
    assert_eq!(long_list(&app, &ben, "who-opened", &[("column", "id")], count, ",human"), [count + 1, count / 3, 1]);
    let opened_took = began.elapsed();
    let image = app.image.to_string();
    let fields = [("column", "id"), ("image", &*image)];
    assert_eq!(long_list(&app, &ben, "links", &fields, count, ",yes,"), [count + 1, count, 1]);
    let after = most();
    println!(
        "{count} rows: who opened {opened_took:?}, both {:?}; memory {before} kB, then {after} kB",
        began.elapsed()
    );
    assert!(after < before + (24 << 10), "{before} kB, then {after} kB");
    wait_until("the file's end", PATIENCE, || nameless(&app) == 0).unwrap();
    assert_eq!(names(&app), names_before);
}

#[test]
fn two_lists_are_accepted_at_once_and_a_third_must_wait() {
    let _machine = beside();
    let (app, ben) = start(|settings| settings);
    let (begin, end) = form(&[]);
    let begun = || {
        let mut stream = TcpStream::connect(ben.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let rest = begin.len() + 5 + end.len();
        stream.write_all(&head(&ben, &path("who-opened"), &format!("Content-Length: {rest}"))).unwrap();
        stream.write_all(&begin).unwrap();
        stream.write_all(b"id\n").unwrap();
        stream
    };
    let (mut first, second) = (begun(), begun());
    let files = |count: usize| wait_until("files", PATIENCE, || nameless(&app) == count).unwrap();
    files(2);
    let names_then = names(&app);
    for page in ["who-opened", "links"] {
        let answer = send(&ben, page, &[], b"id\n1\n");
        assert!(answer.status == 503 && text(&answer).contains("Too many people"), "{}", text(&answer));
    }
    // Other pages are shown at the same time: no upload holds a connection to the database.
    assert_eq!((ben.get("/").status, ben.get(&path("links")).status), (200, 200));
    first.write_all(&[b"1\n", end].concat()).unwrap();
    let mut answer = Vec::new();
    first.read_to_end(&mut answer).unwrap();
    assert_eq!(text(&parse(&answer).unwrap()), "id,pixeld_opened,pixeld_first_at,pixeld_class\n1,not opened,,\n");
    // An aborted upload frees its place and its file, too.
    drop(second);
    files(0);
    assert_eq!(names(&app), names_then);
    let others = [begun(), begun()];
    files(2);
    drop(others);
    files(0);
}

#[test]
fn a_list_does_not_take_the_room_that_hits_need() {
    let _machine = beside();
    let app = App::start_on(Postgres::start().unwrap(), |_, mut settings| {
        fs::create_dir_all(&settings.data_dir).unwrap();
        let mount = format!("mount -t tmpfs -o size=64m tmpfs {} && exec \"$@\"", settings.data_dir.display());
        // A mount of its own: root may make one directly, other users in a user namespace.
        let as_user = (!nix::unistd::geteuid().is_root()).then_some("--map-root-user");
        let words = ["unshare", "--mount"].into_iter().chain(as_user).chain(["sh", "-c", &mount, "sh"]);
        settings.wrapper = words.map(str::to_owned).collect();
        settings
    });
    let answer = send(&Visitor::viewer(&app), "who-opened", &[], b"id\n1\n");
    assert!(answer.status == 507 && text(&answer).contains("too little room"), "{}", text(&answer));
}
