//! The log of hits, requests that were not recorded, and deleting, over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use loadtest::generator::Pace;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::Answer;
use uuid::Uuid;

use crate::kit::holder::Holder;
use crate::kit::rows::Hits;
use crate::kit::support::{App, PATIENCE, add_image, alone, beside, wait_for_opt_outs};
use crate::kit::visitor::{Visitor, form, text};
use crate::opens::recount;

const KEYS: &str = "7:AAECAwQFBgcICQoLDA0ODw==";

const HOSTILE: &str = "\"><script>alert(1)</script>";

/// Hits that [`fill`] makes.
const FILLED: u64 = 45_000;

/// A part of the time that [`fill_from`] fills; the rest stays.
const SOME: &str = "from=2026-03-01T00:00&to=2026-03-02T00:00:30";

/// How many hits [`SOME`] has.
const WANTED: &str = "SELECT count(*) FROM hits WHERE at < '2026-03-02 00:00:30+00'";

fn id(number: u64) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 + u128::from(number))
}

/// Hits around a midnight, ten per time, with their numbers mixed. Every 150th is of recipient 1 and recognisable by
/// its user agent; the five oldest are of recipient 2.
fn fill(app: &App) {
    fill_from(app, "23:59:00", FILLED);
}

/// The same, with `count` hits from this time on.
fn fill_from(app: &App, time: &str, count: u64) {
    app.query(&format!(
        "INSERT INTO user_agents SELECT 1000 + n, 'agent-' || n || '.' FROM generate_series(0, {count} - 1, 150) AS n"
    ));
    let message = &id(0).to_string()[..35];
    let [one, two, other] = [101, 102, 103].map(id);
    Hits::new(count, format!("timestamptz '2026-03-01 {time}+00' + n / 10 * interval '26 ms'"))
        .with("seq", format!("n * 7919 % {count}"))
        .with("user_agent", "CASE WHEN n % 150 = 0 THEN 1000 + n ELSE 0 END")
        .with("message", format!("('{message}'::text || 1 + n % 3)::uuid"))
        .with(
            "recipient",
            format!("CASE WHEN n % 150 = 0 THEN '{one}' WHEN n < 5 THEN '{two}' ELSE '{other}' END::uuid"),
        )
        .id("image", app.image)
        .load(&app.postgres);
    app.wait_for_rollup();
}

/// The numbers of the hits that a page shows.
fn agents(page: &str) -> Vec<String> {
    let parts = page.split("agent-").skip(1);
    parts.map(|part| part.split('.').next().unwrap().to_owned()).collect()
}

/// The link to the next page.
fn next(page: &str) -> Option<String> {
    let front = page.split("\">Show older hits").next().filter(|front| front.len() < page.len())?;
    Some(front.rsplit("href=\"").next().unwrap().replace("&amp;", "&"))
}

fn get(visitor: &Visitor, path: &str) -> String {
    let answer = visitor.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", text(&answer));
    text(&answer)
}

/// All pages of a log, one after the other.
fn walk(visitor: &Visitor, path: &str) -> Vec<String> {
    let mut pages = vec![get(visitor, path)];
    while let Some(path) = next(pages.last().unwrap()) {
        pages.push(get(visitor, &path));
        assert!(pages.len() < 100, "{path}");
    }
    pages
}

#[test]
fn the_log_shows_each_wanted_hit_once_across_days_and_equal_times_in_bounded_looks() {
    let _machine = beside();
    let app = App::start();
    let ann = Visitor::admin(&app);
    assert!(get(&ann, "/hits").contains("No hits yet"));
    fill(&app);
    let wanted = |filter: &str| {
        app.query(&format!(
            "SELECT user_agent - 1000 FROM hits WHERE recipient = '{}' {filter} ORDER BY at DESC, spool DESC, seq DESC",
            id(101)
        ))
    };
    let shown = |path: &str| -> (Vec<String>, usize) {
        let pages = walk(&ann, path);
        (pages.iter().flat_map(|page| agents(page)).collect(), pages.len())
    };
    let (seen, looks) = shown(&format!("/hits?recipient={}", id(101)));
    assert_eq!(seen, wanted(""));
    assert!(seen.len() == 300 && looks == 3, "{looks}");
    // All messages are of a third of the hits; every 150th is of the first.
    let (seen, _) = shown(&format!("/hits?recipient={}&message={}", id(101), id(1)));
    assert_eq!(seen, wanted(&format!("AND message = '{}'", id(1))));
    assert_eq!(seen.len(), 300);
    assert_eq!(shown(&format!("/hits?recipient={}&message={}", id(101), id(2))).0.len(), 0);
    // The viewer's clock, not UTC.
    ann.choose_zone("Asia/Kolkata");
    let (seen, _) = shown(&format!("/hits?recipient={}&from=2026-03-02T05:30&to=2026-03-02T05:30:30", id(101)));
    assert_eq!(seen, wanted("AND at >= '2026-03-02 00:00:00+00' AND at < '2026-03-02 00:00:30+00'"));
    assert!(seen.len() > 50 && seen.len() < 150);

    // The oldest are found by the third look, and the first ones say how far they came.
    let pages = walk(&ann, &format!("/hits?recipient={}", id(102)));
    assert_eq!(pages.len(), 3);
    assert!(pages[0].contains("No match in the 20,000 hits searched"), "{}", pages[0]);
    assert_eq!(pages[2].matches(&format!("/recipients/{}", id(102))).count(), 4);
    assert!(pages[2].contains("End of list: no older hits match"));

    let page = get(&ann, &format!("/hits?image={}", app.image));
    assert!(page.contains("100 hits shown"), "{page}");
    for part in [format!("/messages/{}", id(1)), format!("/images/{}", app.image), ">person</span>".to_owned()] {
        assert!(page.contains(&part), "{part}");
    }
    for nothing in [
        format!("image={}", id(9)),
        format!("message={}", id(9)),
        "message=my-key".to_owned(),
        "to=2026-03-01T00:00".to_owned(),
        format!("message={}&to=2026-03-01T00:00", id(1)),
    ] {
        let page = get(&ann, &format!("/hits?{nothing}"));
        assert!(page.contains("No hits found") && next(&page).is_none(), "{nothing}: {page}");
    }
    for wrong in ["image=x", "from=x", "message=*%7CID%7C*", "from=2026-05-05T00:00&to=2026-05-04T00:00"] {
        let answer = ann.get(&format!("/hits?{wrong}"));
        assert!(answer.status == 422 && text(&answer).contains("role=\"alert\""), "{wrong}");
    }
    assert_eq!(ann.get("/hits?behind=1.2").status, 404);
}

#[test]
fn hits_are_found_by_key_at_once_and_hostile_agents_are_only_text() {
    let _machine = beside();
    let app = App::start();
    let ben = Visitor::viewer(&app);
    let path = format!("/t/{}/may-news/4711.png", app.image);
    app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {HOSTILE}\r\nConnection: close\r\n\r\n"));
    app.at_rest();
    for query in ["message=may-news", "recipient=4711", "message=may-news&recipient=4711"] {
        let page = get(&ben, &format!("/hits?{query}"));
        assert!(page.contains("1 hit shown") && !page.contains("<script"), "{query}: {page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!page.contains("/hits/delete"), "a viewer is offered no deletion");
    }
    assert!(get(&ben, "/hits?recipient=4712").contains("No hits found"));
}

#[test]
fn each_reason_for_not_recording_is_listed_with_what_may_be_kept() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        let settings = settings.with("PIXELD_IP_PRIVACY", "truncated").with("PIXELD_TRUSTED_PROXIES", "127.0.0.1");
        settings.with("PIXELD_SIGNING_KEYS", KEYS).with("PIXELD_REQUIRE_SIGNED", "true")
    });
    let ann = Visitor::admin(&app);
    let signed = signed_path(&app);
    assert_eq!(app.get(&signed).status, 200);
    each_reason_is_listed_without_the_whole_address(&app, &ann, &signed);
    app.exchange("GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
    assert!(get(&ann, "/not-recorded").contains("The request had a body"));
    // Of who opted out nothing is kept, not even here.
    opt_out(&app, &id(77).to_string(), 1.0);
    app.get(&app.pixel(id(1), id(77)));
    assert!(!get(&ann, "/not-recorded").contains(&id(77).to_string()));
    nobody_who_opted_out_is_listed(&app, &ann);
    // What made a hit is in no such list.
    assert!(!get(&ann, "/not-recorded").contains(&format!("GET {signed}")));
    let long = format!("/{}", "ä".repeat(300).bytes().map(|byte| format!("%{byte:02x}")).collect::<String>());
    app.get(&long);
    assert!(get(&ann, "/not-recorded").contains(&format!("GET {}…</code>", &long[..200])));
    // Nor does a scanner push out what a sender looks for.
    let merged = format!("/t/{}/may/{{contactfield=id}}.gif", app.image).replace('{', "%7B").replace('}', "%7D");
    app.get(&merged);
    for _ in 0..150 {
        app.get("/.env");
    }
    let page = get(&ann, "/not-recorded");
    assert!(page.contains(&format!("GET {merged}")) && page.contains("GET /.env"), "{page}");
}

/// The path of a signed link.
fn signed_path(app: &App) -> String {
    let arguments = ["link", "--image", &app.image.to_string(), "--message", "may"];
    let signed = app.server.settings().run(&arguments).unwrap();
    signed.lines().next().unwrap().split_once("/o/").map(|(_, token)| format!("/o/{token}")).unwrap()
}

/// The page's first row is of the request just now, as text, with its address truncated.
fn each_reason_is_listed_without_the_whole_address(app: &App, ann: &Visitor, signed: &str) {
    let image = app.image;
    let deleted = add_image(app.server.settings());
    app.wait_for_image(deleted);
    app.delete_image(deleted);
    for (method, path, sentence) in [
        ("GET", format!("/image/{image}_x.gif"), "is not a valid id"),
        ("GET", format!("/t/{image}/may/*|ID|*.gif"), "merge tag"),
        ("GET", format!("/image/{image}.gif"), "The link is not signed."),
        ("GET", format!("/o/{}.gif", "A".repeat(94)), "signature is wrong"),
        ("GET", "/image/nope.gif".to_owned(), "The link has no image id"),
        ("GET", format!("/image/{}.gif", id(5)), "There is no image with this id."),
        ("GET", format!("/image/{deleted}.gif"), "The image was deleted."),
        ("GET", "/nope\"onload='1'{}".to_owned(), "This path does not exist"),
        ("HEAD", signed.to_owned(), "asked only for the headers"),
        ("POST", "/a".to_owned(), "neither GET nor HEAD"),
    ] {
        app.exchange(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.77\r\nUser-Agent: {HOSTILE}{method}\r\n\
             Connection: close\r\n\r\n"
        ));
        let page = get(ann, "/not-recorded");
        let row = page.split("<tbody><tr>").nth(1).unwrap().split("</tr>").next().unwrap();
        // A quotation mark is not part of a path, and arrives encoded.
        let escaped = path.replace('"', "%22").replace('<', "&lt;").replace('>', "&gt;");
        for part in [sentence, &format!("{method} {escaped}"), "<td>203.0.113.0</td>"] {
            assert!(row.replace('\'', "’").contains(&part.replace('\'', "’")), "{method} {path}: {part}\n{row}");
        }
        assert!(row.contains("&lt;script&gt;") && !page.contains("<script") && !page.contains("203.0.113.77"), "{row}");
    }
}

/// Opts out by the command, and waits until the server knows `count` opt-outs.
fn opt_out(app: &App, recipient: &str, count: f64) {
    app.server.settings().run(&["opt-out", "--recipient", recipient]).unwrap();
    wait_for_opt_outs(&app.server, count);
}

/// Whatever is wrong with a request, it is not listed if its link names somebody who opted out.
fn nobody_who_opted_out_is_listed(app: &App, ann: &Visitor) {
    let (image, out) = (app.image, id(77));
    let key = "jane@example.com";
    opt_out(app, key, 2.0);
    for (method, path) in [
        ("GET", format!("/image/{}_{}_{out}.gif", id(5), id(1))),
        ("GET", format!("/image/nope_{}_{out}.gif", id(1))),
        ("GET", format!("/image/{image}_x_{out}.gif")),
        ("GET", format!("/image/{image}_{}_{out}_{}.gif", id(1), id(2))),
        ("POST", format!("/image/{image}_{}_{out}.gif", id(1))),
        ("HEAD", format!("/image/{image}_{}_{out}.gif", id(1))),
        ("GET", format!("/base/image/{image}_{}_{out}.gif", id(1))),
        ("GET", format!("/t/{image}/*|X|*/{key}.gif")),
        ("GET", format!("/t/nope/may/{key}.gif")),
        ("HEAD", format!("/t/{image}/may/jane%2540example.com")),
        ("DELETE", format!("/t/{image}/may/%20{key}")),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: opted-out\r\nConnection: close\r\n\r\n");
        assert!(app.exchange(&request).status >= 200, "{method} {path}");
        assert!(!get(ann, "/not-recorded").contains("opted-out"), "{method} {path}");
    }
}

#[test]
fn without_addresses_none_is_shown_and_a_flood_keeps_the_last_of_its_reason() {
    let _machine = beside();
    let mut app =
        App::start_with(|settings| settings.with("PIXELD_IP_PRIVACY", "none").with("PIXELD_ADDRESS_RATE", "1/s"));
    let ann = Visitor::admin(&app);
    app.server.kill().unwrap();
    app.restart();
    let page = get(&ann, "/not-recorded");
    assert!(page.contains("All requests so far were counted") && page.contains("/image/test.gif"), "{page}");
    app.wait_for_image(app.image);
    for _ in 0..20 {
        app.get(&app.pixel(id(1), id(2)));
    }
    app.at_rest();
    let page = get(&ann, "/not-recorded");
    assert!(
        page.contains("Too many requests came from this address.") && page.contains("PIXELD_ADDRESS_RATE"),
        "{page}"
    );
    assert!(page.contains("not kept") && !page.contains("<td>127.0.0.1</td>"));
    assert!(page.contains("Received, but not counted") && page.contains("<td class=\"number\">"), "{page}");

    let mut stream = TcpStream::connect(app.server.public()).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        answers.read_to_end(&mut bytes).unwrap();
        bytes.windows(12).filter(|window| window == b"HTTP/1.1 404").count()
    });
    for n in 0..10_000 {
        let last = if n == 9_999 { "Connection: close\r\n" } else { "" };
        stream.write_all(format!("GET /flood-{n} HTTP/1.1\r\nHost: x\r\n{last}\r\n").as_bytes()).unwrap();
    }
    assert_eq!(reader.join().unwrap(), 10_000);
    let page = get(&ann, "/not-recorded");
    assert_eq!(page.matches("<code>GET /flood-").count(), 30);
    assert!(page.contains("Too many requests came from this address."), "the flood pushes out no other reason");
    assert!(page.contains("came too fast to be listed"), "{page}");
}

#[test]
fn a_pasted_link_shows_what_it_would_record() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings
            .with("PIXELD_SIGNING_KEYS", KEYS)
            .with("PIXELD_BASE_URL", "https://px.example.com")
            .with("PIXELD_THROTTLE", "1h")
    });
    let ben = Visitor::viewer(&app);
    let settings = app.server.settings();
    settings.run(&["message", "set", "may", "--name", "May <News>"]).unwrap();
    let image = app.image.to_string();
    let link =
        ["link", "--image", &image, "--message", "may", "--recipient", "4711", "--sent-at", "2026-05-04T09:00:00Z"];
    let signed = settings.run(&link).unwrap().lines().next().unwrap().to_owned();
    a_link_that_records_is_shown_with_its_ids(&app, &ben, &signed);
    a_link_that_records_nothing_is_explained(&app, &ben, &signed);
    settings.run(&["opt-out", "--recipient", "4711"]).unwrap();
    let page = tested(&ben, &signed);
    assert!(page.contains("This link records nothing. </strong>Its recipient opted out."), "{page}");
    // The page's answer must match what a fetch does.
    app.get(&format!("/t/{image}/may/4711.gif"));
    app.get(&format!("/t/{image}/may/{{contactfield=id}}.gif").replace('{', "%7B").replace('}', "%7D"));
    app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 0, "asking records nothing");
}

/// The page's answer about a link.
fn tested(visitor: &Visitor, link: &str) -> String {
    get(visitor, &format!("/not-recorded?{}", form(&[("link", link)])))
}

fn assert_tested(visitor: &Visitor, link: &str, parts: &[&str]) {
    let page = tested(visitor, link);
    for part in parts {
        assert!(page.replace('\'', "’").contains(&part.replace('\'', "’")), "{link}: {part}\n{page}");
    }
    assert!(!page.contains("<script") && !page.contains("<News>"), "{page}");
}

fn a_link_that_records_is_shown_with_its_ids(app: &App, ben: &Visitor, signed: &str) {
    let image = app.image;
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap();
    let of_key = Uuid::new_v5(&namespace, b"4711").to_string();
    let named = ["May &lt;News&gt;", &of_key];
    let keyed = ["May &lt;News&gt;", &of_key, "the key <code>4711</code>"];
    for (link, parts) in [
        (signed.to_owned(), &[named[0], named[1], "by key 7", "4 May 2026, 09:00"][..]),
        (format!("<img src=\"https://px.example.com/image/{image}_{}.png\">", id(3)), &[&id(3).to_string(), "none"]),
        (format!("/t/{image}/may/4711.gif?x=1"), &named),
        (format!("http://old.example/image/{image}.gif"), &["old.example", "PIXELD_BASE_URL"]),
        (
            format!("<img src=3D\"https://px.example.com/t/{image}/m=\r\nay/47=\r\n11.gif\"\r\n width=3D\"1\">"),
            &[keyed[0], keyed[1], keyed[2], "at most once in 1 hour"],
        ),
        (format!("<IMG alt='' SRC='https://px.example.com/t/{image}/may/%2534711&#32;.gif?a&amp;b'>"), &keyed),
        (format!("//T/{image}/may/jane@example.com"), &["<code>jane@example.com</code>"]),
        (format!("/image/{image}_{}.gif&utm=1", id(3)), &["as nobody’s open", "Each fetch counts"]),
        (format!("/image/{image}.gif"), &["only for the image"]),
    ] {
        assert_tested(ben, &link, &[&["This link works"], parts].concat());
    }
}

fn a_link_that_records_nothing_is_explained(app: &App, ben: &Visitor, signed: &str) {
    let image = app.image;
    let deleted = add_image(app.server.settings());
    app.delete_image(deleted);
    for (link, parts) in [
        (format!("/image/{deleted}.gif"), &["The image was deleted."][..]),
        (format!("/image/{}.gif", id(4)), &["There is no image with this id."]),
        (format!("/image/{image}_x.gif"), &["is not a valid id", "not readable"]),
        (format!("/t/{image}/may/{{{{ID}}}}.gif"), &["merge tag"]),
        (signed.replace("/o/A", "/o/B"), &["signature is wrong"]),
        ("/image/x.gif".to_owned(), &["no image id"]),
        (format!("https://evil.example/{HOSTILE}"), &["This path does not exist"]),
        (format!("https://px.example.com/t/{image}/may/{{contactfield=id}}.gif"), &["merge tag"]),
        (format!("https://px.example.com/t/{image}/may/{{{{ .Subscriber.UUID }}}}"), &["merge tag"]),
        (format!("/t/{image}/may/undefined.gif"), &["a word like null"]),
        (format!("/t/{image}/may.gif"), &["is not a valid id"]),
        (format!("https://px.example.com/opt-out/{}", "A".repeat(46)), &["opts out"]),
    ] {
        assert_tested(ben, &link, &[&["records nothing"], parts].concat());
    }
}

#[test]
fn the_link_check_knows_base_paths_and_required_signatures() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings
            .with("PIXELD_SIGNING_KEYS", KEYS)
            .with("PIXELD_REQUIRE_SIGNED", "true")
            .with("PIXELD_BASE_URL", "https://example.com/px")
            .with("PIXELD_THROTTLE", "off")
    });
    let ben = Visitor::viewer(&app);
    let image = app.image.to_string();
    let signed =
        app.server.settings().run(&["link", "--image", &image, "--message", "may", "--recipient", "4711"]).unwrap();
    let signed = signed.lines().next().unwrap().to_owned();
    for (link, parts, other) in [
        (signed.clone(), &["This link works", "Each fetch counts"][..], "does not begin with"),
        (signed.replace("/px/", "/"), &["This link works", "does not begin with PIXELD_BASE_URL"], "records nothing"),
        (
            format!("https://example.com/px/image/{image}.gif"),
            &["records nothing", "The link is not signed."],
            "link works",
        ),
    ] {
        let page = get(&ben, &format!("/not-recorded?{}", form(&[("link", &link)])));
        let said =
            page.split("Check the link</button></form>").nth(1).unwrap().split("Recent requests").next().unwrap();
        assert!(parts.iter().all(|part| said.contains(part)) && !said.contains(other), "{link}: {said}");
    }
}

/// The receipt of a deletion, once it is no longer running.
fn receipt(visitor: &Visitor, path: &str) -> String {
    let is_running = || get(visitor, path).contains("The deletion is running.");
    wait_until("the deletion", Duration::from_secs(60), || !is_running()).unwrap();
    get(visitor, path)
}

/// Starts a deletion from its own page, like a browser without scripts.
fn delete(visitor: &Visitor, query: &str) -> Answer {
    let page = get(visitor, &format!("/hits/delete?{query}"));
    let form_of = page.split("action=\"/hits/delete\">").nth(1).unwrap().split("</form>").next().unwrap();
    let value = |part: &str| {
        let (name, value) = part.split_once("\" value=\"").unwrap();
        (name.to_owned(), value.split('"').next().unwrap().to_owned())
    };
    let fields: Vec<(String, String)> = form_of.split("type=\"hidden\" name=\"").skip(1).map(value).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    visitor.post("/hits/delete", &form(&fields))
}

#[test]
fn a_message_is_deleted_under_load_with_a_receipt_and_counts_stay_right() {
    let _machine = alone();
    let app = App::start();
    recount::prepare(&app.postgres);
    let (ann, ben) = (Visitor::admin(&app), Visitor::viewer(&app));
    for n in 0..60 {
        app.get(&app.pixel(id(1), id(n % 30 + 100)));
        app.get(&app.pixel(id(2), id(n % 30 + 100)));
    }
    app.at_rest();
    let load = app.load(2, Pace::Open(400.0));
    load.wait_for(400);
    let query = format!("message={}", id(1));
    wait_until("the counts", PATIENCE, || get(&ann, &format!("/hits/delete?{query}")).contains("60 hits")).unwrap();
    for answer in [ben.get(&format!("/hits/delete?{query}")), ben.post("/hits/delete", &query), ben.get("/jobs/1")] {
        assert!(answer.status == 403 && text(&answer).contains("Only an admin"), "{}", text(&answer));
    }
    let began = delete(&ann, &query);
    assert_eq!(began.status, 303, "{}", text(&began));
    let path = began.header("location").unwrap().to_owned();
    let page = receipt(&ann, &path);
    assert!(
        page.contains("The deletion is finished.")
            && page.contains("60 hits and 30 opens")
            && page.contains("<dd>ann</dd>"),
        "{page}"
    );
    assert!(page.contains(&format!("All hits of message {}", id(1))));
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE message = '{}'", id(1))), 0);

    // No receipt names a recipient whose hits were deleted.
    let query = format!("recipient={}", id(100));
    assert!(get(&ann, &format!("/hits/delete?{query}")).contains("2 hits"));
    let page = receipt(&ann, delete(&ann, &query).header("location").unwrap());
    assert!(page.contains("2 hits and 1 open<") && page.contains("All hits of one recipient"), "{page}");
    let page = receipt(&ann, delete(&ann, &format!("{query}&message={}", id(2))).header("location").unwrap());
    assert!(page.contains("0 hits and 0 opens"), "{page}");
    assert_eq!(app.number(&format!("SELECT count(*) FROM audit a WHERE a::text LIKE '%{}%'", id(100))), 0);
    let actions = app.query("SELECT actor || ' ' || action FROM audit WHERE actor = 'ann' ORDER BY id");
    assert_eq!(actions, ["ann began to delete hits", "ann deleted hits"].repeat(3));
    let list = get(&ann, &format!("/hits/delete?message={}", id(2)));
    assert!(list.contains("one recipient, of message") && list.matches("finished").count() == 3, "{list}");

    drop(load.end());
    app.at_rest();
    app.wait_for_rollup();
    recount::assert_same(&app.postgres, "after deletions under load");
    for wrong in ["", "image=4", &format!("message={}&from=2026-01-01T00:00", id(1)), "from=2026-01-01T00:00"] {
        let answer = ann.post("/hits/delete", wrong);
        assert!(answer.status == 422 && text(&answer).contains("Nothing was deleted."), "{wrong}");
        assert_eq!(ann.get(&format!("/hits/delete?{wrong}")).status, 422, "{wrong}");
    }
    assert_eq!(ann.get("/jobs/1").status, 404, "an entry of the audit that is no deletion");
    assert_eq!(ann.get("/jobs/x").status, 404);
}

#[test]
fn a_deletion_that_a_restart_interrupts_says_so_and_another_one_does_the_rest() {
    let _machine = alone();
    let (mut app, filled) = (App::start(), 100_000);
    recount::prepare(&app.postgres);
    let ann = Visitor::admin(&app);
    // The deletion needs more than one transaction.
    fill_from(&app, "23:57:30", filled);
    let hits = |app: &App| app.number("SELECT count(*) FROM hits");
    let wanted = app.number(WANTED);
    assert!(wanted > 60_000 && wanted < filled, "{wanted}");
    assert!(get(&ann, &format!("/hits/delete?{SOME}")).contains("more than 20,000 hits"));
    end_while_a_deletion_waits(&mut app, &ann);
    kill_amid_a_deletion(&mut app, &ann, filled);
    let left = app.number(WANTED);
    assert!(left > 0 && left < wanted, "{left}");
    recount::assert_same(&app.postgres, "between two deletions");
    let page = receipt(&ann, delete(&ann, SOME).header("location").unwrap());
    assert!(
        page.contains("The deletion is finished.")
            && page.contains(&format!("{},{:03} hits", left / 1000, left % 1000)),
        "{page}"
    );
    recount::assert_same(&app.postgres, "after the second deletion");
    assert_eq!(hits(&app), filled - wanted);

    // PostgreSQL refuses.
    app.query("CREATE TRIGGER fail BEFORE DELETE ON hits_20260302 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()");
    let page = receipt(&ann, delete(&ann, "from=2026-03-01T00:00&to=2026-03-03T00:00").header("location").unwrap());
    assert!(page.contains("The deletion failed before it was done.") && page.contains("0 hits and 0 opens"), "{page}");
    assert_eq!(hits(&app), filled - wanted);
}

/// A job that waits for a lock, and a second one that has to wait for its end. The server ends during that, and starts
/// again.
fn end_while_a_deletion_waits(app: &mut App, ann: &Visitor) {
    let holder = Holder::take(&app.postgres, "SELECT FROM rollup_state FOR UPDATE");
    let began = delete(ann, SOME);
    let first = began.header("location").unwrap().to_owned();
    assert!(get(ann, &first).contains("The deletion is running."));
    let second = delete(ann, SOME);
    assert!(second.status == 409 && text(&second).contains("Another deletion is running."), "{}", text(&second));
    // The drain waits for no deletion.
    let (status, took) = app.server.terminate().unwrap();
    assert!(status.success(), "{status} {took:?}");
    holder.let_go();
    app.restart();
    let page = get(ann, &first);
    assert!(page.contains("The deletion was interrupted") && page.contains("Start the same deletion again"), "{page}");
}

/// Killed when a part of it is done, and restarted.
fn kill_amid_a_deletion(app: &mut App, ann: &Visitor, filled: u64) {
    // An index that is being made CONCURRENTLY and a new trigger wait for each other.
    let indexed = "SELECT count(*) FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class n ON n.oid = i.indexrelid \
                   WHERE t.relname IN ('hits_20260301', 'hits_20260302') AND n.relname LIKE '%recipient%' AND i.indisvalid";
    wait_until("the indexes of closed days", PATIENCE, || app.number(indexed) == 2).unwrap();
    app.query(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END'",
    );
    app.query("CREATE TRIGGER wait BEFORE DELETE ON hits_20260302 FOR EACH ROW EXECUTE FUNCTION wait()");
    let path = delete(ann, SOME).header("location").unwrap().to_owned();
    wait_until("the first chunk", PATIENCE, || app.number("SELECT count(*) FROM hits") < filled).unwrap();
    // The page learns of a chunk a moment after it is committed.
    wait_until("what is done so far", PATIENCE, || {
        let page = get(ann, &path);
        assert!(page.contains("The deletion is running.") && page.contains("so far"), "{page}");
        !page.contains("<dd>0 hits")
    })
    .unwrap();
    app.server.kill().unwrap();
    // Its statement goes on for a while if nobody reads the answer, and keeps its locks.
    app.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    app.query("DROP TRIGGER wait ON hits_20260302");
    app.restart();
    assert!(get(ann, &path).contains("The deletion was interrupted"));
}
