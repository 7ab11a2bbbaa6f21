//! Messages and recipients on the admin page: the pages must match what the pixels did.

use std::collections::HashSet;
use std::time::Duration;

use pixeld_core::link::key::{Key, Namespace};
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::Answer;
use uuid::Uuid;

use crate::kit::rows::Rows;
use crate::kit::support::{App, beside};
use crate::kit::visitor::{PASSWORD, Visitor, form, text};

const THUNDERBIRD: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.2.0";

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";

/// The id of a key in this installation.
fn id_of(app: &App, key: &str) -> Uuid {
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap();
    Namespace(namespace).id_of(&Key::typed(key).unwrap())
}

/// Fetches a pixel as this program.
fn fetch(app: &App, path: &str, user_agent: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: {user_agent}\r\n\r\n");
    assert_eq!(app.exchange(&request).status, 200, "{path}");
}

fn wait_for_hits(app: &App, hits: u64) {
    let counted = || app.number("SELECT coalesce(sum(hits), 0) FROM messages") == hits;
    wait_until("hits to be counted", Duration::from_secs(60), counted).unwrap();
}

/// The visible text, cell by cell, of the first row with these words.
fn row(page: &str, words: &str) -> Vec<String> {
    let row = page.split("<tr>").find(|row| row.contains(words)).unwrap_or_else(|| panic!("{words} in {page}"));
    let row = row.split("</tr>").next().unwrap();
    row.split("</t").map(shown).filter(|cell| !cell.is_empty()).collect()
}

/// Text without its tags.
fn shown(markup: &str) -> String {
    let mut parts = markup.split('<');
    let first = parts.next().unwrap().split_once('>').map_or("", |(_, text)| text).to_owned();
    let text = first + &parts.filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect::<String>();
    text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
}

/// The target of the first link with these words.
fn link_to(page: &str, words: &str) -> Option<String> {
    let before = &page[..page.find(&format!(">{words}</a>"))?];
    let path = before.rsplit_once("href=\"")?.1.split('"').next()?;
    Some(path.replace("&amp;", "&").split('#').next()?.to_owned())
}

/// The ids of a page's rows, which lead to other pages.
fn listed(page: &str, folder: &str) -> Vec<Uuid> {
    let start = format!("scope=\"row\"><a href=\"/{folder}/");
    page.split(&start).skip(1).map(|rest| rest[..36].parse().unwrap()).collect()
}

/// The numbers in the cards on a message's page.
fn cards(page: &str) -> Vec<String> {
    page.split("<p class=\"main\">")
        .skip(1)
        .map(|rest| shown(&format!(">{}", rest.split("</p>").next().unwrap())))
        .collect()
}

/// The chart's numbers, added up over its bars: confirmed, possible, machine.
fn charted(page: &str) -> [i64; 3] {
    let titles = page.split("<title>").skip(1).filter_map(|rest| rest.split_once("</title>")).map(|(title, _)| title);
    let bars = titles.filter_map(|title| title.rsplit_once(": ")).map(|(_, numbers)| numbers.split(", "));
    bars.fold([0; 3], |mut sums, numbers| {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number.split(' ').next().unwrap().parse::<i64>().unwrap();
        }
        sums
    })
}

fn page(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", text(answer));
    text(answer)
}

/// A message that four recipients fetched; one of them also fetched another message.
struct MayNews {
    app: App,
    ben: Visitor,
    id: Uuid,
    other: Uuid,
    /// Jane, who has both.
    reader: Uuid,
}

impl MayNews {
    fn fetched() -> MayNews {
        let app = App::start();
        let ben = Visitor::viewer(&app);
        assert!(page(&ben.get("/messages")).contains("No messages yet"));
        for (recipient, user_agent) in [
            ("jane@example.com", THUNDERBIRD),
            ("jane@example.com", THUNDERBIRD),
            ("4711", "Mozilla/5.0"),
            ("4712", "curl/8.5.0"),
            ("4713", "curl/8.5.0"),
            ("4713", THUNDERBIRD),
        ] {
            fetch(&app, &format!("/t/{}/may-news/{recipient}.png", app.image), user_agent);
        }
        let (other, reader) = (Uuid::from_u128(7), id_of(&app, "jane@example.com"));
        fetch(&app, &app.pixel(other, reader), "Mozilla/5.0");
        wait_for_hits(&app, 7);
        let id = id_of(&app, "may-news");
        MayNews { app, ben, id, other, reader }
    }

    /// Before and after it has a name.
    fn is_counted_in_the_list(&self) {
        let MayNews { app, ben, id, other, .. } = self;
        let list = page(&ben.get("/messages"));
        assert_eq!(row(&list, &id.to_string())[..5], [&id.to_string(), "2", "1", "1", "–"]);
        assert_eq!(row(&list, &other.to_string())[..5], [&other.to_string(), "0", "1", "0", "–"]);
        app.server.settings().run(&["message", "set", "may-news", "--name", "May news", "--sent-count", "8"]).unwrap();
        let cells = row(&page(&ben.get("/messages")), "May news");
        assert_eq!(cells[..5], ["May newsto 8 recipients", "2", "1", "1", "25.0%"]);
        assert!(page(&ben.get("/")).contains(&format!("<a href=\"/messages/{id}\">May news</a>")));
    }

    fn is_counted_on_its_page(&self) {
        let MayNews { app, ben, id, reader, .. } = self;
        let message = page(&ben.get(&format!("/messages/{id}")));
        assert!(message.contains("<h1>May news</h1>") && message.contains("Opens by hour"), "{message}");
        assert_eq!(cards(&message), ["2", "1", "1", "25.0%"]);
        assert_eq!(row(&message, "class=\"mark confirmed\">person"), ["person", "3"]);
        assert_eq!(row(&message, "A crawler, monitor or script, by its user agent.")[1..], ["bot", "2"]);
        assert_eq!(row(&message, "Looks like Apple")[1..], ["not known", "1"]);
        assert_eq!(row(&message, ">Thunderbird<"), ["Thunderbird", "3"]);
        // A recipient who was fetched by a machine first and read later is in both.
        assert_eq!(charted(&message), [2, 1, 2]);
        assert_eq!(listed(&message, "recipients").len(), 4);
        let cells = row(&message, &reader.to_string());
        assert_eq!((&*cells[1], &*cells[5]), ("person", "2"));
        let machine = row(&message, &id_of(app, "4712").to_string());
        assert_eq!((&*machine[1], &*machine[3], &*machine[5]), ("bot", "no", "1"));
        for path in ["who-opened", "links"] {
            assert!(message.contains(&format!("href=\"/messages/{id}/{path}\"")));
        }
    }

    /// By class, and one recipient by key and id.
    fn recipients_are_filtered(&self) {
        let MayNews { ben, id, reader, .. } = self;
        for (only, count) in [("confirmed", 2), ("possible", 1), ("machine", 1), ("", 4), ("x", 4)] {
            let page = page(&ben.get(&format!("/messages/{id}?only={only}")));
            assert_eq!(listed(&page, "recipients").len(), count, "{only}");
        }
        for typed in ["jane%40example.com", &reader.to_string()] {
            let page = page(&ben.get(&format!("/messages/{id}?recipient={typed}")));
            assert_eq!(listed(&page, "recipients"), [*reader]);
            let found = ben.get(&format!("/recipients?q={typed}"));
            assert_eq!(found.header("location"), Some(&*format!("/recipients/{reader}")));
        }
        for typed in ["4714", "%00", "%7B%7Bid%7D%7D"] {
            let page = page(&ben.get(&format!("/messages/{id}?recipient={typed}")));
            assert!(page.contains("No opens recorded for"), "{typed}");
        }
    }

    fn is_on_its_readers_page(&self) {
        let MayNews { ben, id, other, reader, .. } = self;
        let recipient = page(&ben.get(&format!("/recipients/{reader}")));
        assert_eq!(listed(&recipient, "messages"), [*other, *id], "the latest first");
        assert_eq!(row(&recipient, "May news")[1], "person");
        assert!(recipient.contains(&format!("href=\"/hits?recipient={reader}\"")));
    }

    fn missing_columns_are_reported(&self) {
        let MayNews { ben, other, .. } = self;
        for (path, status, words) in [
            (format!("/recipients/{other}"), 200, "No opens recorded for this recipient"),
            ("/recipients/x".to_owned(), 404, "does not exist"),
            ("/recipients".to_owned(), 200, "Search for a recipient"),
            ("/recipients?q=%7B%7Bid%7D%7D".to_owned(), 422, "merge tag that was not replaced"),
            (format!("/recipients?q={}", "x".repeat(129)), 422, "1 to 128 bytes"),
            (format!("/recipients?q={}", Uuid::nil()), 422, "nil UUID"),
            (format!("/messages/{}", Uuid::from_u128(8)), 404, "There is no message with this id"),
            ("/messages/may-news".to_owned(), 404, "There is no message with this id"),
        ] {
            let answer = ben.get(&path);
            assert!(
                answer.status == status && text(&answer).contains(words),
                "{path}: {} {}",
                answer.status,
                text(&answer)
            );
        }
    }
}

#[test]
fn a_messages_numbers_are_those_of_its_pixels() {
    let _machine = beside();
    let message = MayNews::fetched();
    message.is_counted_in_the_list();
    message.is_counted_on_its_page();
    message.recipients_are_filtered();
    message.is_on_its_readers_page();
    message.missing_columns_are_reported();
}

#[test]
fn a_message_is_found_by_id_key_and_part_of_its_name() {
    let _machine = beside();
    let app = App::start();
    let ben = Visitor::viewer(&app);
    for (key, name) in [
        ("k1", "100% off"),
        ("k2", "a_b"),
        ("k3", "axb"),
        ("k4", "back\\slash"),
        ("k5", "Spring News"),
        ("k6", HOSTILE),
        ("k7", "k1"),
    ] {
        app.server.settings().run(&["message", "set", key, "--name", name]).unwrap();
    }
    let found = |words: &str| {
        let page = page(&ben.get(&format!("/messages?{}", form(&[("q", words)]))));
        assert!(!page.contains("<script") && !page.contains("<img src=x"), "{page}");
        listed(&page, "messages")
    };
    let ids = |keys: &[&str]| keys.iter().map(|key| id_of(&app, key)).collect::<Vec<_>>();
    for (words, keys) in [
        ("%", &["k1"][..]),
        ("_", &["k2"]),
        ("a_b", &["k2"]),
        ("\\", &["k4"]),
        ("\\s", &["k4"]),
        ("sPRING n", &["k5"]),
        (" news ", &["k5"]),
        ("<script>", &["k6"]),
        ("k5", &["k5"]),
        ("k1", &["k1", "k7"]),
        ("nothing like it", &[]),
        ("a\0b", &[]),
        ("'; DROP TABLE messages; --", &[]),
    ] {
        assert_eq!(found(words), ids(keys), "{words}");
    }
    let id = id_of(&app, "k3");
    assert_eq!(found(&id.to_string()), [id]);
    assert_eq!(found(&id.simple().to_string().to_uppercase()), [id]);
    assert_eq!(found("").len(), 7);
    let all = page(&ben.get("/messages"));
    assert!(!all.contains("<script") && all.contains("&lt;script&gt;") && !all.contains("<form class=\"edit\""));

    // A search does not read all messages, and says so. An id or key is found however old its message is.
    let flood = Rows::messages(20_000).with("name", "'Flood ' || n").with("last_at", "now() + interval '1 hour'");
    flood.add(&app.postgres);
    let answer = page(&ben.get("/messages?q=spring"));
    assert!(
        answer.contains("No message") && answer.contains("Searched the 20,000 most recently opened messages"),
        "{answer}"
    );
    let further = link_to(&answer, "Search further back").unwrap();
    let answer = page(&ben.get(&further));
    assert_eq!(listed(&answer, "messages"), [id_of(&app, "k5")]);
    assert!(!answer.contains("Search further back"));
    assert_eq!(found("k5"), ids(&["k5"]));
    // Pages of the results.
    let (mut seen, mut path) = (HashSet::new(), Some("/messages?q=flood+1".to_owned()));
    while let Some(here) = path {
        let page = page(&ben.get(&here));
        seen.extend(listed(&page, "messages"));
        path = if seen.len() < 500 { link_to(&page, "Older") } else { None };
    }
    assert_eq!(seen.len(), 500);
}

#[test]
fn paging_meets_each_message_once_while_new_ones_come() {
    let _machine = beside();
    let app = App::start();
    let ben = Visitor::viewer(&app);
    // Many with the same time, and some without a hit.
    let some_time = "now() - n / 40 * interval '1 hour'";
    Rows::messages(230)
        .with("name", "'old'")
        .with("last_at", format!("CASE WHEN n % 5 > 0 THEN {some_time} END"))
        .with("created_at", some_time)
        .add(&app.postgres);
    let new = Rows::messages(30).with("name", "'new'").with("last_at", "now() + interval '1 minute'");
    let expected: HashSet<String> = app.query("SELECT id FROM messages").into_iter().collect();
    let (mut seen, mut path, mut last) = (Vec::new(), "/messages".to_owned(), String::new());
    loop {
        let here = page(&ben.get(&path));
        seen.extend(listed(&here, "messages").iter().map(Uuid::to_string));
        new.add(&app.postgres);
        last.clone_from(&path);
        match link_to(&here, "Older") {
            Some(older) => path = older,
            None => break,
        }
    }
    assert_eq!(seen.len(), 230, "each once");
    assert_eq!(seen.iter().cloned().collect::<HashSet<_>>(), expected);
    // And back again to the first page.
    let mut back = Vec::new();
    let mut path = Some(last);
    while let Some(here) = path {
        let here = page(&ben.get(&here));
        let ids = listed(&here, "messages");
        path = link_to(&here, "Newer");
        assert!(ids.len() == 50 || back.is_empty(), "{}", ids.len());
        back.extend(ids);
    }
    assert_eq!(back.iter().collect::<HashSet<_>>().len() as u64, app.number("SELECT count(*) FROM messages"));
    for wrong in
        ["before=x", "before=1_x", "after=_", "before=99999999999999999_0", "after=-99999999999999999_0", "before=%00"]
    {
        assert_eq!(listed(&page(&ben.get(&format!("/messages?{wrong}"))), "messages").len(), 50, "{wrong}");
    }
}

/// A message whose name, send time and count an admin in Kolkata sets, and a viewer in UTC reads.
struct EditedMessage {
    app: App,
    ann: Visitor,
    ben: Visitor,
    id: Uuid,
    path: String,
}

/// The form of the message.
fn fields(name: &str, at: &str, count: &str) -> String {
    form(&[("message", "may"), ("name", name), ("sent_at", at), ("sent_count", count), ("next", "/messages?q=M%25")])
}

impl EditedMessage {
    fn begin() -> EditedMessage {
        let app = App::start();
        let (ann, ben) = (Visitor::admin(&app), Visitor::viewer(&app));
        ann.choose_zone("Asia/Kolkata");
        let id = id_of(&app, "may");
        EditedMessage { app, ann, ben, id, path: format!("/messages/{id}") }
    }

    fn stored(&self) -> Vec<String> {
        self.app.query("SELECT concat_ws('|', name, sent_at AT TIME ZONE 'UTC', sent_count) FROM messages")
    }

    fn audit(&self) -> u64 {
        self.app.number("SELECT count(*) FROM audit")
    }

    /// Added before its first hit, by its key; once.
    fn is_added_once(&self) {
        let EditedMessage { ann, ben, path, .. } = self;
        assert_eq!(ben.post("/messages", &fields("May", "", "")).status, 403);
        let added = ann.post("/messages", &fields("May", "2026-05-04T14:31", ""));
        assert_eq!(added.header("location"), Some(&*format!("{path}?done=added")), "{}", text(&added));
        let known = ann.post("/messages", &fields("June", "", ""));
        assert_eq!(known.header("location"), Some(&*format!("{path}?done=known")));
        assert!(page(&ann.get(&format!("{path}?done=known"))).contains("already existed"));
        assert_eq!(self.stored(), ["May|2026-05-04 09:01:00"]);
        for (key, words) in [("", "1 to 128 bytes"), ("{{id}}", "merge tag"), (&*Uuid::nil().to_string(), "nil UUID")] {
            let answer = ann.post("/messages", &form(&[("message", key)]));
            assert!(answer.status == 422 && text(&answer).contains(words), "{key}: {}", text(&answer));
        }
        let wrong = ann.post("/messages", &form(&[("message", "other"), ("sent_count", "many")]));
        assert!(
            wrong.status == 422 && text(&wrong).contains("whole number") && text(&wrong).contains("value=\"many\"")
        );
    }

    /// Each user sees it in their own zone, with the exact time on hover.
    fn is_shown_in_each_zone(&self) {
        let EditedMessage { ann, ben, path, .. } = self;
        let time = "<time datetime=\"2026-05-04T09:01:00Z\" title=\"2026-05-04T09:01:00Z\">";
        for path in ["/messages", path] {
            assert!(page(&ann.get(path)).contains(&format!("{time}4 May 2026, 14:31<")), "{path}");
            assert!(page(&ben.get(path)).contains(&format!("{time}4 May 2026, 09:01<")), "{path}");
            assert!(page(&ann.get(path)).contains("value=\"2026-05-04T14:31\""), "{path}");
            assert!(!page(&ben.get(path)).contains("method=\"post\" action=\"/messages"), "{path}");
        }
    }

    /// Viewers change nothing; wrong values are reported, stay in the form, and change nothing.
    fn refuses_what_is_wrong(&self) {
        let EditedMessage { ann, ben, path, .. } = self;
        assert_eq!(ben.post(path, &fields("x", "", "")).status, 403);
        let before = self.audit();
        for (name, at, count, words) in [
            ("a\nb", "", "", "200 characters"),
            (&*"x".repeat(201), "", "", "200 characters"),
            ("x", "tomorrow", "", "like 2026-05-04T09:30"),
            ("x", "1960-01-01T00:00", "", "from 1970 to 2105"),
            ("x", "", "-1", "from 0 to"),
            ("x", "", "1.5", "from 0 to"),
            (HOSTILE, "", "x", "from 0 to"),
        ] {
            let answer = ann.post(path, &fields(name, at, count));
            let page = text(&answer);
            assert!(
                answer.status == 422 && page.contains(words) && !page.contains("<script"),
                "{name} {at} {count}: {page}"
            );
            assert!(page.contains("value=\"/messages?q=M%25\""), "it still knows the way back");
        }
        assert_eq!((self.stored(), self.audit()), (vec!["May|2026-05-04 09:01:00".to_owned()], before));
        assert_eq!(ann.post(&format!("/messages/{}", Uuid::from_u128(8)), &fields("x", "", "")).status, 404);
    }

    /// The answer returns to the page that has the form.
    fn is_changed(&self) {
        let EditedMessage { app, ann, id, path, .. } = self;
        let changed = ann.post(path, &fields(HOSTILE, "2026-05-04T14:32", "12,000"));
        assert_eq!(changed.header("location"), Some("/messages?q=M%25"), "{}", text(&changed));
        assert_eq!(self.stored(), [format!("{HOSTILE}|2026-05-04 09:02:00|12000")]);
        for place in ["/messages", path, "/", "/settings"] {
            let page = page(&ann.get(place));
            assert!(!page.contains("<script") && !page.contains("<img src=x"), "{place}");
        }
        let noted = app.query(
            "SELECT concat_ws('|', actor, action, subject, detail->>'sent_count') FROM audit ORDER BY id DESC LIMIT 1",
        );
        assert_eq!(noted, [format!("ann|message changed|{id}|12000")]);
        for next in ["//evil.example/", "https://evil.example/", "/sign-out", ""] {
            let answer = ann.post(path, &form(&[("name", "May"), ("next", next)]));
            assert_eq!(answer.header("location"), Some(path.as_str()), "{next}");
        }
    }

    fn times_stay_and_are_taken_back(&self) {
        let EditedMessage { app, ann, path, .. } = self;
        // A field that was not sent, and a time that is sent back as shown, stay unchanged to the second.
        app.query("UPDATE messages SET sent_at = '2026-05-04T09:02:37Z', sent_changed_at = '2026-05-04T10:00:00Z'");
        ann.post(path, &fields("May", "2026-05-04T14:32", ""));
        assert_eq!(self.stored(), ["May|2026-05-04 09:02:37"]);
        let told_at = "SELECT count(*) FROM messages WHERE sent_changed_at = '2026-05-04T10:00:00Z'";
        assert_eq!(app.number(told_at), 1, "loaders need not ask again");
        // Cleared: loaders must learn that, too.
        ann.post(path, &fields("", "", ""));
        assert_eq!((self.stored(), app.number(told_at)), (vec![String::new()], 0));
        // No change, no entry.
        let before = self.audit();
        assert_eq!(ann.post(path, &fields("", "", "")).status, 303);
        assert_eq!(self.audit(), before);
    }
}

#[test]
fn name_time_and_count_are_set_in_the_viewers_zone_and_cleared() {
    let _machine = beside();
    let message = EditedMessage::begin();
    message.is_added_once();
    message.is_shown_in_each_zone();
    message.refuses_what_is_wrong();
    message.is_changed();
    message.times_stay_and_are_taken_back();
    let EditedMessage { app, path, .. } = message;
    assert!(Visitor::of(&app).sign_in("ann", PASSWORD, &path).header("location") == Some(&path));
}

#[test]
fn recipients_are_paged_and_a_filter_that_finds_little_offers_to_go_on() {
    let _machine = beside();
    let app = App::start();
    let ben = Visitor::viewer(&app);
    let message = Uuid::from_u128(7);
    let counted = Rows::messages(1).id("id", message).with("opens", "5120").with("hits", "5120");
    counted.with("first_at", "now()").with("last_at", "now()").add(&app.postgres);
    Rows::opens(5120)
        .id("message", message)
        .with("recipient", "lpad(to_hex(n + 1), 32, '0')::uuid")
        .with("confirmed_first_at", "CASE WHEN n >= 5100 THEN now() END")
        .with("best", "CASE WHEN n >= 5100 THEN 1 ELSE 6 END")
        .add(&app.postgres);
    let (mut path, mut seen) = (format!("/messages/{message}"), Vec::new());
    for _ in 0..4 {
        let here = page(&ben.get(&path));
        seen.extend(listed(&here, "recipients"));
        path = link_to(&here, "Next").unwrap();
    }
    assert_eq!(seen, (1..=200).map(Uuid::from_u128).collect::<Vec<_>>());

    let here = page(&ben.get(&format!("/messages/{message}?only=confirmed")));
    assert!(listed(&here, "recipients").is_empty() && here.contains("Searched 5,000 recipients"), "{here}");
    let here = page(&ben.get(&link_to(&here, "Search further").unwrap()));
    assert_eq!(listed(&here, "recipients").len(), 20);
    assert!(link_to(&here, "Search further").is_none() && link_to(&here, "Next").is_none());
    let here = page(&ben.get(&format!("/messages/{message}?only=possible&after={}", Uuid::from_u128(5_000))));
    assert!(here.contains("End of list") && link_to(&here, "First page").is_some());

    // A recipient of very many messages.
    let recipient = Uuid::from_u128(9);
    let opens = Rows::opens(449).id("recipient", recipient);
    opens.with("last_at", "now() - (n + 1) * interval '1 hour'").add(&app.postgres);
    let (mut path, mut seen) = (Some(format!("/recipients/{recipient}")), Vec::new());
    while let Some(here) = path {
        let here = page(&ben.get(&here));
        assert!(here.contains("There are more than 200 messages"));
        seen.extend(listed(&here, "messages"));
        path = link_to(&here, "Next");
    }
    // With the one above.
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (450, 450));
}
