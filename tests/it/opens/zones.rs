//! Days and hours of people's zones: the admin page must match what PostgreSQL counts from the hits with its own rules
//! of zones; and counts by quarter of an hour stay right on both sides of the time from which they exist.

use pixeld::parts::db::{Database, migrate};
use pixeld::parts::rollup::change::{Changes, StoredHit, Target, Verdict};
use pixeld_testkit::postgres::Postgres;
use time::macros::datetime;
use tokio::runtime::Runtime;

use crate::kit::rows::Hits;
use crate::kit::support::{App, beside};
use crate::kit::visitor::{Visitor, text};
use crate::opens::recount::{self, assert_same};
use pixeld_core::ids::{ImageId, MessageId, RecipientId};

/// Offsets of half hours and quarters, half an hour of summer time, half an hour behind UTC, and whole hours.
const ZONES: [&str; 5] = ["Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Europe/Berlin"];

/// Messages: opened over twelve days, over a hundred hours, and in the night in which clocks are put back in Berlin.
const DAYS: MessageId = MessageId::from_u128(0xda15);
const HOURS: MessageId = MessageId::from_u128(0x4013);
const NIGHT: MessageId = MessageId::from_u128(0x0c7);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Loads a hit every five minutes, each of another recipient and of any class, as a batch of its own spool.
fn load(postgres: &Postgres, spool: u32, image: ImageId, message: MessageId, first: &str, hits: u64) {
    Hits::new(hits, format!("timestamptz '{first}' + n * interval '5 minutes'"))
        .of_spool(spool, 0)
        .id("message", message)
        .with("recipient", format!("('{spool:08x}-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid"))
        .id("image", image)
        .with("class", "n % 7")
        .with("rule", "0")
        .load(postgres);
}

/// The texts of a chart's bars, without empty ones.
fn bars(page: &str) -> Vec<String> {
    let titles = page.split("<title>").skip(1).filter_map(|rest| rest.split_once("</title>")).map(|(title, _)| title);
    let is_some =
        |title: &&str| title.rsplit_once(": ").is_some_and(|(_, said)| said.split(", ").any(|n| !n.starts_with("0 ")));
    titles.filter(is_some).map(ToOwned::to_owned).collect()
}

/// The numbers of a card of the overview: confirmed, possible, machine, hits.
fn card(page: &str, label: &str) -> Vec<u64> {
    let card = page.split_once(&format!("<h2>{label}</h2>")).unwrap().1.split_once("</section>").unwrap().0;
    let numbers = card.replace(',', "");
    numbers.split(['<', '>', ' ']).filter_map(|part| part.parse().ok()).collect()
}

/// SQL of three counts by certainty, in the form of a bar's text.
const CERTAINTIES: &str = "count(*) FILTER (WHERE class IN (1, 2)) || ' confirmed, ' || count(*) FILTER (WHERE class IN (0, 3)) \
     || ' possible, ' || count(*) FILTER (WHERE class > 3) || ' machine '";

/// A viewer in a zone, and what PostgreSQL counts there.
struct Viewer<'a> {
    app: &'a App,
    visitor: &'a Visitor,
    zone: &'a str,
}

impl Viewer<'_> {
    /// The overview, the image's page, and today's date: once more if a day ends in between.
    fn overview_and_image(&self) -> (String, String, String) {
        let today = || self.app.query(&format!("SELECT (now() AT TIME ZONE '{}')::date::text", self.zone));
        loop {
            let before = today();
            let pages =
                ["/".to_owned(), format!("/images/{}", self.app.image)].map(|path| text(&self.visitor.get(&path)));
            if before == today() {
                let [overview, image] = pages;
                return (overview, image, before[0].clone());
            }
        }
    }

    /// The text of each day's bar, for hits with this condition.
    fn by_day(&self, of: &str, what: &str) -> Vec<String> {
        self.app.query(&format!(
            "SELECT to_char(day, 'FMDD Mon YYYY') || ': ' || {what} FROM ( \
               SELECT (at AT TIME ZONE '{}')::date AS day, class FROM hits WHERE {of}) AS h GROUP BY day ORDER BY day",
            self.zone
        ))
    }

    /// The text of each hour's bar, for hits of a message.
    fn by_hour(&self, message: MessageId) -> Vec<String> {
        self.app.query(&format!(
            "SELECT to_char(hour, 'FMDD Mon YYYY, HH24:MI') || ': ' || {CERTAINTIES} || 'opens' FROM ( \
               SELECT date_trunc('hour', at AT TIME ZONE '{}') AS hour, class FROM hits WHERE message = '{message}') AS h \
             GROUP BY hour ORDER BY hour",
            self.zone
        ))
    }

    fn days_are_theirs(&self) {
        let zone = self.zone;
        let (overview, image, day) = self.overview_and_image();
        let midnight = |back: u32| format!("(('{day}'::date - {back})::timestamp AT TIME ZONE '{zone}')");
        for (label, back) in [("Today", 0), ("Last 7 days", 6), ("Last 30 days", 29)] {
            let hits = self.app.number(&format!("SELECT count(*) FROM hits WHERE at >= {}", midnight(back)));
            // These hits open nothing.
            assert_eq!(card(&overview, label), [0, 0, 0, hits], "{label} in {zone}");
        }
        let lately = format!("at >= {}", midnight(29));
        let fetches = self.by_day(&lately, &format!("{CERTAINTIES} || 'fetches'"));
        assert_eq!(bars(&overview), fetches, "fetches by day in {zone}");
        let fetches = self.by_day(&lately, "count(*) || ' fetches'");
        assert_eq!(bars(&image), fetches, "fetches of an image by day in {zone}");
        let message = text(&self.visitor.get(&format!("/messages/{DAYS}")));
        let expected = self.by_day(&format!("message = '{DAYS}'"), &format!("{CERTAINTIES} || 'opens'"));
        assert_eq!(bars(&message), expected, "opens by day in {zone}");
        assert!(expected.len() >= 12 && message.contains("Opens by day"), "{expected:?}");
    }

    fn hours_are_theirs(&self) {
        let message = text(&self.visitor.get(&format!("/messages/{HOURS}")));
        let expected = self.by_hour(HOURS);
        assert_eq!(bars(&message), expected, "opens by hour in {}", self.zone);
        assert!(expected.len() >= 100 && message.contains("Opens by hour"), "{expected:?}");
    }
}

#[test]
fn days_and_hours_of_every_zone_are_what_the_hits_say_there() {
    let _machine = beside();
    let app = App::start();
    let load = |spool, image, message, first: &str, hits| load(&app.postgres, spool, image, message, first, hits);
    // Until now, without a message: ten minutes past midnight among them, in every zone.
    let lately = "SELECT date_bin('5 minutes', now() - interval '40 days', '2000-01-01 00:00:00+00')::text";
    load(9000, app.image, MessageId::NONE, &app.query(lately)[0], 40 * 288);
    load(9001, ImageId::from_u128(1), DAYS, "2025-05-04 07:00:00+00", 12 * 288);
    load(9002, ImageId::from_u128(1), HOURS, "2025-05-04 07:20:00+00", 1200);
    load(9003, ImageId::from_u128(1), NIGHT, "2025-10-25 22:00:00+00", 60);
    app.wait_for_rollup();
    let ben = Visitor::viewer(&app);
    for zone in ZONES {
        ben.choose_zone(zone);
        let viewer = Viewer { app: &app, visitor: &ben, zone };
        viewer.days_are_theirs();
        viewer.hours_are_theirs();
    }
    the_repeated_hour_is_unambiguous(&ben);
}

/// The viewer is in Berlin, the last zone.
fn the_repeated_hour_is_unambiguous(ben: &Visitor) {
    let night = text(&ben.get(&format!("/messages/{NIGHT}")));
    let names: Vec<String> = bars(&night).iter().map(|bar| bar.split_once(": ").unwrap().0.to_owned()).collect();
    let shown = ["00:00", "01:00", "02:00 UTC+2", "02:00 UTC+1", "03:00"].map(|hour| format!("26 Oct 2025, {hour}"));
    assert_eq!(names, shown);
    let hits = text(&ben.get(&format!("/hits?message={NIGHT}&from=2025-10-26T02:00&to=2025-10-26T03:00")));
    for minute in (0..60).step_by(5) {
        for offset in [1, 2] {
            assert_eq!(
                hits.matches(&format!(">26 Oct 2025, 02:{minute:02} UTC+{offset}</time>")).count(),
                1 + usize::from(minute == 0 && offset == 2),
                "{hits}"
            );
        }
    }
    assert!(!hits.contains(", 01:55") && !hits.contains(", 03:00</time>"), "{hits}");
}

/// Deletes or reclassifies hits. Returns how many; opens and counts must match the rest.
fn change(database: &Database, postgres: &Postgres, runtime: &Runtime, what: &str, target: Option<Target>) -> u64 {
    let changed = runtime.block_on(async {
        let mut changes = Changes::open(database).await.unwrap();
        let Some(target) = target else { return judge_again(&mut changes).await };
        changes.delete_hits(target).await.unwrap().hits
    });
    assert_same(postgres, what);
    changed
}

/// Each hit gets the next class.
async fn judge_again(changes: &mut Changes) -> u64 {
    let mut changed = 0;
    for day in changes.partitions(None).await.unwrap() {
        let judge = |hit: &StoredHit<'_>| Verdict { class: (hit.judged.class + 1) % 7, ..hit.judged };
        changed += changes.reclassify_chunk(&day, None, judge).await.unwrap().changed;
    }
    changed
}

#[test]
fn judgements_and_deletions_across_the_time_from_which_quarters_count_leave_what_the_hits_say() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let database = Database::external(&postgres.url()).unwrap();
    let runtime = runtime();
    runtime.block_on(migrate::run(&database)).unwrap();
    assert_eq!(
        postgres.query("SELECT extract(epoch FROM quarters_from)::bigint FROM counting").unwrap(),
        ["0"],
        "a new database"
    );
    postgres.query("UPDATE counting SET quarters_from = '2026-03-02 00:00:00+00'").unwrap();
    recount::prepare(&postgres);
    let messages = [0xa1, 0xa2, 0xa3].map(MessageId::from_u128);
    for (spool, message) in (1..).zip(messages) {
        load(&postgres, spool, ImageId::from_u128(u128::from(spool)), message, "2026-03-01 20:02:00+00", 96);
    }
    // Few recipients, whose opens cover that time.
    postgres.query("UPDATE hits SET recipient = ('bbbbbbbb-0000-0000-0000-00000000000' || seq % 8)::uuid").unwrap();
    let change = |what: &str, target| change(&database, &postgres, &runtime, what, target);
    assert_eq!(change("judged again", None), 3 * 96);
    let slots = |of: &str| {
        postgres
            .query(&format!("SELECT DISTINCT extract(minute FROM hour)::int FROM site_hours WHERE {of} ORDER BY 1"))
            .unwrap()
    };
    assert_eq!(slots("hour < '2026-03-02 00:00:00+00'"), ["0"]);
    assert_eq!(slots("hour >= '2026-03-02 00:00:00+00'"), ["0", "15", "30", "45"]);
    let recipient = |n: u128| RecipientId::from_u128(0xbbbb_bbbb_0000_0000_0000_0000_0000_0000 + n);
    let pair = Target::Pair { message: messages[0], recipient: recipient(1) };
    assert_eq!(change("a pair deleted", Some(pair)), 12);
    let time = Target::Period { from: datetime!(2026-03-01 23:20 UTC), to: datetime!(2026-03-02 00:40 UTC) };
    assert_eq!(change("a time deleted", Some(time)), 16 * 3 - 2);
    let time = Target::Period { from: datetime!(2026-03-02 03:52 UTC), to: datetime!(2026-03-03 00:00 UTC) };
    assert!(change("the last slot deleted", Some(time)) > 0);
    assert!(change("a recipient deleted", Some(Target::Recipient(recipient(2)))) > 0);
    assert_eq!(change("judged once more", None), postgres.number("SELECT count(*) FROM hits").unwrap() as u64);
    for message in messages {
        assert!(change("a message deleted", Some(Target::Message(message))) > 0);
    }
    for table in ["hits", "opens", "message_hours", "site_hours", "image_hours"] {
        assert_eq!(postgres.number(&format!("SELECT count(*) FROM {table}")).unwrap(), 0.0, "{table}");
    }
}

#[test]
fn what_a_former_node_counts_by_hour_all_the_same_leaves_every_whole_hour_right() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let database = Database::external(&postgres.url()).unwrap();
    let runtime = runtime();
    runtime.block_on(migrate::run(&database)).unwrap();
    let delete = |target| {
        runtime.block_on(async { Changes::open(&database).await.unwrap().delete_hits(target).await.unwrap().hits })
    };
    let message = MessageId::from_u128(0xa1);
    let count_from =
        |from: &str| drop(postgres.query(&format!("UPDATE counting SET quarters_from = '{from}'")).unwrap());
    let mut wrong = Vec::new();
    // A former node, a new one, the former one again; each deletes what the one before has counted.
    for (spool, from) in [(1, "2100-01-01 00:00:00+00"), (2, "1970-01-01 00:00:00+00"), (3, "2100-01-01 00:00:00+00")] {
        count_from(from);
        let first = format!("2026-03-01 20:0{spool}:00+00");
        load(&postgres, spool, ImageId::from_u128(7), message, &first, 96);
        let from = datetime!(2026-03-01 20:00 UTC) + time::Duration::minutes(i64::from(spool) * 50);
        let deleted = delete(Target::Period { from, to: from + time::Duration::minutes(40) });
        assert!(deleted > 0);
        for (table, key, class) in
            [("message_hours", "message", ", class"), ("site_hours", "1", ", class"), ("image_hours", "image", "")]
        {
            let differences = format!(
                "SELECT '{table} ' || h FROM ( \
                   SELECT date_trunc('hour', hour, 'UTC') AS h, {key} AS k, sum(hits) AS s{class} FROM {table} \
                   GROUP BY 1, 2{class} HAVING sum(hits) <> 0) AS counted \
                 FULL JOIN (SELECT date_trunc('hour', at, 'UTC') AS h, {key} AS k, count(*) AS s{class} FROM hits \
                   GROUP BY 1, 2{class}) AS stored USING (h, k{class}) WHERE counted.s IS DISTINCT FROM stored.s"
            );
            wrong.extend(postgres.query(&differences).unwrap());
        }
        let ends = "SELECT count(*) FROM messages WHERE (first_at, last_at) = (SELECT min(at), max(at) FROM hits)";
        assert_eq!(postgres.number(ends).unwrap(), 1.0);
    }
    assert_eq!(wrong, Vec::<String>::new());
    count_from("1970-01-01 00:00:00+00");
    assert!(delete(Target::Message(message)) > 0);
    assert_eq!(postgres.number("SELECT count(*) FROM hits").unwrap(), 0.0);
    let left = "SELECT count(*) FROM (SELECT FROM site_hours GROUP BY date_trunc('hour', hour, 'UTC'), class \
                HAVING sum(hits) <> 0 OR sum(first_opens) <> 0 OR sum(first_confirmed_opens) <> 0) AS h";
    assert_eq!(postgres.number(left).unwrap(), 0.0);
}
