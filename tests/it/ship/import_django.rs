//! Moving over from the Django app: every picture and every log row of a real one (tests/fixtures/django-app), once,
//! whatever happens during the import.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loadtest::generator::Pace;
use nix::sys::signal::Signal;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::Settings;

use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, alone, beside, open_dir};
use crate::opens::classes::assert_judged;
use crate::opens::recount::{self, assert_same};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/django-app");

/// The pictures of the dump that can be imported: id, file, media type.
const PICTURES: [(&str, &str, &str); 6] = [
    ("6513270e-269e-4d37-b2a7-4de452e6b438", "pixel.gif", "image/gif"),
    ("d23f0824-128b-4f33-8c5c-7fd0a6a3a450", "banner.png", "image/png"),
    ("9531985d-5d9d-49f8-9818-e811892f902b", "logo.jpeg", "image/jpeg"),
    ("36f675cc-81e7-4ef5-a8e2-5d940ed90475", "footer.gif", "image/gif"),
    ("6b0d549b-6f03-475a-9600-a35a099950d8", "untitled.png", "image/png"),
    ("a170b338-3926-4059-b28c-105d1fb17c23", "hero.webp", "image/webp"),
];

/// The two that cannot.
const BROKEN: [&str; 2] = ["8d116ece-1738-47d9-bd9c-172411e20b8f", "90c192cf-d3ac-44af-8f21-ddb66cad4a26"];

/// Log rows of the dump.
const ROWS: usize = 272;

/// The Django app's database, in a PostgreSQL that it shares with pixeld, and its media directory.
struct Django {
    url: String,
    media: PathBuf,
    _dir: tempfile::TempDir,
}

impl Django {
    fn load(postgres: &Postgres) -> Django {
        Django::load_as(postgres, "django")
    }

    fn load_as(postgres: &Postgres, name: &str) -> Django {
        Django::load_in(postgres, name, "UTF8")
    }

    fn load_in(postgres: &Postgres, name: &str, encoding: &str) -> Django {
        let kind = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        postgres.query(&format!("CREATE DATABASE {name} {kind}")).unwrap();
        let dir = open_dir();
        let media = dir.path().join("media");
        fs::create_dir_all(media.join("pictures")).unwrap();
        for entry in fs::read_dir(Path::new(FIXTURES).join("media/pictures")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), media.join("pictures").join(entry.file_name())).unwrap();
        }
        let django = Django { url: postgres.url().replace("/pixeld?", &format!("/{name}?")), media, _dir: dir };
        let mut dump = fs::read_to_string(format!("{FIXTURES}/dump.sql")).unwrap();
        if !["UTF8", "SQL_ASCII"].contains(&encoding) {
            dump = dump.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        }
        let file = django._dir.path().join("dump.sql");
        fs::write(&file, dump).unwrap();
        django.psql(&["-f", file.to_str().unwrap()]);
        django
    }

    fn psql(&self, arguments: &[&str]) -> Vec<String> {
        let psql =
            Command::new("psql").args([&self.url, "-XAtq", "-v", "ON_ERROR_STOP=1"]).args(arguments).output().unwrap();
        assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
        String::from_utf8(psql.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Adds a row of its log.
    fn add_row(&self, id: u64, values: &str) {
        self.sql(&format!(
            "INSERT INTO images_userinfo (id, user_agent, ip, time, message_id, user_id, picture_id) VALUES ({id}, {values})"
        ));
    }

    fn sql(&self, statements: &str) -> Vec<String> {
        self.psql(&["-c", statements])
    }

    /// Removes the pictures without a usable file from the dump.
    fn mend(&self) {
        self.sql("DELETE FROM images_picture WHERE id IN (7, 8)");
    }

    /// Log rows in the expected form: time in µs, picture, message, recipient, address, user agent.
    fn log(&self) -> Vec<String> {
        let mut log = self.sql(
            "SELECT concat_ws('|', (extract(epoch FROM u.time) * 1000000)::bigint, p.uuid, \
               COALESCE(u.message_id::uuid, '00000000-0000-0000-0000-000000000000'), \
               COALESCE(u.user_id::uuid, '00000000-0000-0000-0000-000000000000'), \
               CASE WHEN u.ip ~ '^[0-9a-f.:]+$' THEN host(replace(u.ip, '::ffff:', '')::inet) ELSE '' END, u.user_agent) \
             FROM images_userinfo u JOIN images_picture p ON p.id = u.picture_id WHERE isfinite(u.time)",
        );
        log.sort_unstable();
        log
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["import", "django", "--media", self.media.to_str().unwrap()];
        words.into_iter().chain(more.iter().copied()).collect()
    }

    /// Runs an import with these settings; its exit status, and all its output.
    fn import(&self, settings: &Settings, more: &[&str]) -> (i32, String) {
        said(settings.clone().with("DJANGO_DATABASE_URL", &self.url).command(&self.arguments(more)))
    }

    fn begin_import(&self, settings: &Settings, more: &[&str]) -> Child {
        let settings = settings.clone().with("DJANGO_DATABASE_URL", &self.url);
        let mut command = settings.command(&self.arguments(more));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

fn said(mut command: Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Hits of imports, in the form of [`Django::log`].
fn imported(postgres: &Postgres) -> Vec<String> {
    let select = "SELECT concat_ws('|', (extract(epoch FROM h.at) * 1000000)::bigint, h.image, h.message, h.recipient, \
             COALESCE(host(h.ip), ''), u.user_agent) \
           FROM hits h JOIN user_agents u ON u.id = h.user_agent WHERE h.spool IN (SELECT spool FROM imports)";
    let mut hits = postgres.query(select).unwrap();
    hits.sort_unstable();
    hits
}

/// Without a flood of lines if they differ.
fn assert_each_row_once(django: &Django, postgres: &Postgres) {
    let (expected, found) = (django.log(), imported(postgres));
    if expected != found {
        let at = expected.iter().zip(&found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
        panic!("{} rows, {} hits, first {:?} and {:?}", expected.len(), found.len(), expected.get(at), found.get(at));
    }
}

/// Waits until all batches are rolled up, and computes opens and counts independently.
fn assert_counted(app: &App, when: &str) {
    app.wait_for_rollup();
    assert_same(&app.postgres, when);
}

/// Every number of every spool is in one batch, and only those of an import are marked so.
fn assert_accounted(postgres: &Postgres) {
    let gaps = "SELECT count(*) FROM (SELECT first_seq, lag(next_seq, 1, 0::bigint) OVER (PARTITION BY spool ORDER BY first_seq) \
                AS expected FROM batches) AS b WHERE first_seq <> expected";
    assert_eq!(postgres.number(gaps).unwrap(), 0.0);
    let wrong = "SELECT count(*) FROM batches WHERE imported <> (spool IN (SELECT spool FROM imports))";
    assert_eq!(postgres.number(wrong).unwrap(), 0.0);
}

fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn every_picture_is_served_at_its_old_links_and_every_log_row_is_a_hit_once() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    recount::prepare(&app.postgres);
    let django = Django::load(&app.postgres);
    assert_eq!(django.log().len(), ROWS);

    let (code, text) = django.import(settings, &["--dry-run"]);
    assert_eq!(code, 3, "{text}");
    assert_holds(
        &text,
        &["images: 6 to be added", "log rows: 272 to be imported", "nothing changed", "2 not imported"],
    );
    assert_eq!((app.number("SELECT count(*) FROM images"), app.number("SELECT count(*) FROM spool_marks")), (1, 0));

    let (code, text) = django.import(settings, &[]);
    println!("{text}");
    assert_eq!(code, 3, "{text}");
    assert_holds(
        &text,
        &[
            "images: 6 added, 0 already here",
            "2 not imported",
            "8d116ece-1738-47d9-bd9c-172411e20b8f \"broken upload\" (pictures/notes.jpg): the file is",
            "90c192cf-d3ac-44af-8f21-ddb66cad4a26 \"lost file\" (pictures/lost.png): its file is missing",
            "pixeld image add FILE --id 90c192cf-d3ac-44af-8f21-ddb66cad4a26",
            "log rows: 272 imported",
            "6 have no address",
            "all runs: 272 log rows imported, 0 left out, 0 not imported",
            // Plain lines without a terminal.
            "images: 8 of 8",
            "log rows: 272 of 272",
        ],
    );
    assert_each_row_once(&django, &app.postgres);

    let (code, again) = django.import(settings, &[]);
    assert_eq!(code, 3, "{again}");
    assert_holds(
        &again,
        &["images: 0 added, 6 already here", "log rows: 0 imported", "all runs: 272 log rows imported"],
    );
    assert_each_row_once(&django, &app.postgres);
    assert_counted(&app, "after the import");
    assert_eq!(app.number("SELECT sum(hits) FROM site_hours"), ROWS as u64);
    assert_eq!(assert_judged(&app), ROWS as u64);
    let listed = settings.run(&["image", "list"]).unwrap();
    assert_holds(&listed, &["Spring banner", "Logo — société"]);

    pictures_are_served_at_their_old_links(&app, &django);
    app.at_rest();
    assert_counted(&app, "with hits of today");
    assert_accounted(&app.postgres);
}

/// As in old emails: the file's name is long gone, the ending is arbitrary.
fn pictures_are_served_at_their_old_links(app: &App, django: &Django) {
    let (message, user) = ("2fa91425-cb00-4853-9d2c-67eda13ffe79", "027385c9-421e-4a60-b108-e02236971e1b");
    for (id, file, media_type) in PICTURES {
        let bytes = fs::read(django.media.join("pictures").join(file)).unwrap();
        wait_until("the picture", PATIENCE, || app.get(&format!("/image/{id}.png")).status == 200).unwrap();
        for path in [
            format!("/image/{id}.png"),
            format!("/image/{id}_{message}.jpg"),
            format!("/image/{id}_{message}_{user}.gif"),
            format!("/image/{id}_not-an-id.gif"),
        ] {
            let answer = app.get(&path);
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{path}");
            assert_eq!(answer.body, bytes, "{path}");
        }
    }
    for id in BROKEN {
        assert_eq!(app.get(&format!("/image/{id}.png")).status, 404);
    }
}

/// A row's columns after its id, up to the picture's.
const NOW: &str = "'curl/8.5.0', '198.51.100.7', now(), '2fa91425-cb00-4853-9d2c-67eda13ffe79', NULL";

#[test]
fn the_next_run_takes_what_is_new_also_rows_that_were_committed_late() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    recount::prepare(&app.postgres);
    let django = Django::load(&app.postgres);
    // 3403 and 3404 are being written by others while 3405 exists already.
    django.add_row(3405, &format!("{NOW}, 3"));
    assert_holds(&django.import(settings, &[]).1, &["log rows: 273 imported"]);
    django.add_row(3403, &format!("{NOW}, 2"));
    django.add_row(3407, &format!("{NOW}, 4"));
    let (_, text) = django.import(settings, &["--dry-run"]);
    assert_holds(&text, &["log rows: 2 to be imported", "all runs: 273 log rows imported"]);
    assert_holds(&django.import(settings, &[]).1, &["log rows: 2 imported"]);
    django.add_row(3404, &format!("{NOW}, 2"));
    assert_holds(&django.import(settings, &[]).1, &["log rows: 1 imported"]);
    assert_holds(&django.import(settings, &[]).1, &["log rows: 0 imported"]);
    assert_each_row_once(&django, &app.postgres);

    pictures_and_rows_that_are_odd(&app, &django);
    rows_that_cannot_be_read_are_reported(&app, &django);
    let ids = settings.run(&["namespace", "may-news", "4711"]).unwrap();
    let mut ids = ids.lines();
    let keyed = format!(
        "SELECT count(*) FROM hits WHERE message = '{}' AND recipient = '{}'",
        ids.next().unwrap(),
        ids.next().unwrap()
    );
    assert_eq!(app.number(&keyed), 1, "an id that is no UUID is what a keyed link makes of it");
    assert_counted(&app, "after all runs");
    assert_accounted(&app.postgres);
}

/// A new picture, one whose file changed, one that is deleted here, two that are too large; odd rows.
fn pictures_and_rows_that_are_odd(app: &App, django: &Django) {
    let small = fs::read(django.media.join("pictures/footer.gif")).unwrap();
    let mut large = small.clone();
    large.resize((1 << 20) + 1, 0);
    let mut wide = fs::read(django.media.join("pictures/banner.png")).unwrap();
    wide[16..20].copy_from_slice(&4097_u32.to_be_bytes());
    for (file, bytes) in [("new.gif", &small), ("large.gif", &large), ("wide.png", &wide), ("logo.jpeg", &small)] {
        fs::write(django.media.join("pictures").join(file), bytes).unwrap();
    }
    app.query("UPDATE images SET deleted_at = now(), updated_at = now() WHERE title = 'pixel'");
    django.sql(
        "INSERT INTO images_picture VALUES (10, '11111111-0000-4000-8000-000000000010', 'pictures/new.gif', 'new', 'gif'), \
           (11, '11111111-0000-4000-8000-000000000011', 'pictures/large.gif', 'large', 'gif'), \
           (12, '11111111-0000-4000-8000-000000000012', 'pictures/wide.png', 'wide', 'png'), \
           (13, '11111111-0000-4000-8000-000000000013', '../../etc/passwd', 'outside', 'gif')",
    );
    // A picture without a file still has opens; a time long ago and a wrong one stay unchanged.
    django.add_row(3410, &format!("{NOW}, 8"));
    django.add_row(3411, "repeat('ü', 256), 'evil<b>', '2014-02-03 04:05:06.789+00', NULL, NULL, 10");
    django.add_row(3412, "'', '::ffff:192.0.2.7', now() + interval '100 days', NULL, NULL, 10");
    let (code, text) = django.import(app.server.settings(), &[]);
    assert_eq!(code, 3, "{text}");
    assert_holds(
        &text,
        &[
            "images: 1 added, 4 already here",
            "1 deleted here; they stay deleted",
            "6 not imported",
            "(pictures/large.gif): the file is larger than 1048576 bytes (1 MiB); make a smaller one, and add it with: pixeld image add",
            "(pictures/wide.png): the image has 4097 x",
            "(pictures/logo.jpeg): another image already has its id here and stays",
            "(../../etc/passwd): its file is outside the media directory",
            "log rows: 3 imported",
        ],
    );
    assert_each_row_once(django, &app.postgres);
}

/// Rows that cannot be imported: reported by this run, and in the totals of the next.
fn rows_that_cannot_be_read_are_reported(app: &App, django: &Django) {
    django.add_row(3420, "'', '', now(), '{{ message }}', NULL, 3");
    django.add_row(3421, "'', '', 'infinity', NULL, NULL, 3");
    django.add_row(3422, "'', '', now(), 'may-news', '4711', 3");
    let (code, text) = django.import(app.server.settings(), &[]);
    assert_eq!(code, 3, "{text}");
    assert_holds(
        &text,
        &[
            "log rows: 1 imported",
            "2 not imported because they cannot be read",
            "row 3420 of images_userinfo: its message_id is not an id",
            "row 3421 of images_userinfo: its time is not between 1970 and a year from now",
        ],
    );
    assert_holds(
        &django.import(app.server.settings(), &[]).1,
        &["log rows: 0 imported", "all runs: 280 log rows imported, 0 left out, 2 not imported"],
    );
}

#[test]
fn an_import_that_is_killed_half_way_beside_a_load_takes_each_row_once() {
    let _machine = alone();
    let app = App::start();
    let settings = app.server.settings();
    recount::prepare(&app.postgres);
    let django = Django::load(&app.postgres);
    // Five months of rows, hours and seconds apart; each user agent several times, and more of them than a stranger may
    // add in an hour.
    django.sql(
        "INSERT INTO images_userinfo SELECT n, 'Mail/' || n % 12000, '198.51.' || n / 256 % 256 || '.' || n % 256, \
           '2021-03-01 00:00:00+00'::timestamptz + n / 200 * interval '17 hours' + n % 7 * interval '1 second', \
           md5((n % 5)::text)::uuid, CASE WHEN n % 3 > 0 THEN md5((n % 4000)::text)::uuid END, 2 + n % 5 \
         FROM generate_series(10000, 49999) AS n",
    );
    let load = app.load(4, Pace::Open(500.0));
    let mut kills = 0;
    let mut taken = 0;
    for _ in 0..60 {
        let mut import = django.begin_import(settings, &["--batch-rows", "200"]);
        let until = taken + 4000 + kills * 137;
        let mut is_over = false;
        wait_until("some rows", Duration::from_secs(120), || {
            is_over = import.try_wait().unwrap().is_some();
            is_over || app.number("SELECT COALESCE(sum(loaded), 0) FROM batches WHERE imported") >= until
        })
        .unwrap();
        if is_over {
            break;
        }
        import.kill().unwrap();
        import.wait().unwrap();
        kills += 1;
        taken = app.number("SELECT COALESCE(sum(loaded), 0) FROM batches WHERE imported");
    }
    assert!(kills >= 5, "it was killed {kills} times only");
    let (code, text) = django.import(settings, &[]);
    println!("killed {kills} times\n{text}");
    assert_eq!(code, 3, "{text}");
    assert_holds(&text, &["all runs: 40272 log rows imported, 0 left out, 0 not imported"]);
    let load = load.end();
    app.at_rest();
    load.assert_exact(&app.url());
    assert_each_row_once(&django, &app.postgres);
    assert_counted(&app, "after the last run");
    assert_accounted(&app.postgres);
    let metrics = app.server.metrics().unwrap();
    assert_eq!(metrics.get("pixeld_rollup_retries_total"), 0.0, "{}", app.server.log());
}

#[test]
fn what_settings_leave_out_is_counted_and_no_failure() {
    let _machine = beside();
    let app = App::start();
    let django = Django::load(&app.postgres);
    django.mend();
    let old = "UPDATE images_userinfo SET time = now() - interval '31 days' WHERE id % 4 = 0";
    django.sql("UPDATE images_userinfo SET time = now() - interval '1 day'");
    django.sql(old);
    let settings =
        app.server.settings().clone().with("PIXELD_RETENTION_DAYS", "30").with("PIXELD_IP_PRIVACY", "truncated");
    // Another role of the app's database, which may only read, named in a file.
    django.sql("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    let file = app.dir.path().join("url");
    fs::write(&file, format!("{}&user=reader\n", django.url)).unwrap();
    let (code, text) = said(settings.command(&django.arguments(&["--database-url-file", file.to_str().unwrap()])));
    assert_eq!(code, 0, "{text}");
    assert_holds(
        &text,
        &["images: 6 added", "log rows: 204 imported", "68 left out: they are older than PIXELD_RETENTION_DAYS"],
    );
    assert_eq!(app.number("SELECT count(*) FROM hits WHERE at < now() - interval '2 days'"), 0);
    let whole = "SELECT count(*) FROM hits \
                 WHERE host(ip) <> host(network(set_masklen(ip, CASE family(ip) WHEN 4 THEN 24 ELSE 48 END)))";
    assert_eq!(app.number(whole), 0, "an address is kept whole");
    assert!(app.number("SELECT count(*) FROM hits WHERE ip IS NOT NULL") > 190);
    // Verdicts from the whole address stay: it identified Google's proxies.
    assert!(app.number("SELECT count(*) FROM hits WHERE network = 1") > 0);
    let (code, text) = django.import(&settings, &[]);
    assert_eq!(code, 0, "{text}");
    assert_holds(&text, &["all runs: 204 log rows imported, 68 left out, 0 not imported"]);
}

#[test]
fn a_copy_of_the_database_is_known_again_and_one_that_went_its_own_way_is_refused() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let django = Django::load(&app.postgres);
    django.import(settings, &[]);
    let copy = Django::load_as(&app.postgres, "copy");
    let (_, text) = copy.import(settings, &[]);
    assert_holds(
        &text,
        &["images: 0 added, 6 already here", "log rows: 0 imported", "all runs: 272 log rows imported"],
    );
    copy.sql("UPDATE images_userinfo SET time = time + interval '1 minute' WHERE id = 3402");
    let (code, text) = copy.import(settings, &[]);
    assert_eq!(code, 1, "{text}");
    assert_holds(&text, &["row 3402", "\"copy\"", "rows of its own"]);
    // Another app has other pictures, and its own numbers.
    copy.sql("UPDATE images_picture SET uuid = md5(uuid::text)::uuid");
    let (_, text) = copy.import(settings, &[]);
    assert_holds(&text, &["images: 6 added", "log rows: 272 imported"]);
    assert_eq!(app.number("SELECT count(*) FROM imports"), 2);
    assert_eq!(app.number("SELECT count(*) FROM hits"), 2 * ROWS as u64);
    // And one with pictures of both is refused.
    copy.sql("UPDATE images_picture SET uuid = '6513270e-269e-4d37-b2a7-4de452e6b438' WHERE id = 2");
    let (code, text) = copy.import(settings, &[]);
    assert_eq!(code, 1, "{text}");
    assert_holds(&text, &["were imported from 2 databases"]);
}

#[test]
fn a_second_import_waits_and_then_says_why_it_does_not_begin() {
    let _machine = beside();
    let app = App::start();
    let django = Django::load(&app.postgres);
    let holder = "SELECT pg_advisory_lock(x'706978656c640010'::bigint), pg_sleep(15)";
    let url = app.url();
    let mut held = Command::new("psql").args([&url, "-c", holder]).stdout(Stdio::null()).spawn().unwrap();
    let waiting =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = x'6c640010'::bigint::oid";
    wait_until("the lock", PATIENCE, || app.number(waiting) == 1).unwrap();
    let (code, text) = django.import(app.server.settings(), &[]);
    held.kill().unwrap();
    held.wait().unwrap();
    assert_eq!(code, 1, "{text}");
    assert_holds(&text, &["another import is running"]);
    assert_eq!(app.number("SELECT count(*) FROM images"), 1);
}

#[test]
fn a_source_that_cannot_be_used_is_named_and_nothing_is_taken() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let django = Django::load(&app.postgres);
    let media = django.media.to_str().unwrap();
    let pixelds_own = app.url();
    let no_database = django.url.replace("/django?", "/nowhere?");
    app.postgres.query("CREATE DATABASE half").unwrap();
    let half = Django { url: django.url.replace("/django?", "/half?"), media: media.into(), _dir: open_dir() };
    half.sql("CREATE TABLE images_picture (id bigint, uuid uuid, image text, title text)");
    let half_url = half.url.clone();
    let no_right = format!("{}&user=stranger", django.url);
    django.sql("CREATE ROLE stranger LOGIN");
    let import = |more: &[&str], media: &str| {
        let words: Vec<&str> = ["import", "django", "--media", media].into_iter().chain(more.iter().copied()).collect();
        said(settings.command(&words))
    };
    for (arguments, media, parts) in [
        (&[][..], media, &["DJANGO_DATABASE_URL", "--database-url-file"][..]),
        (
            &["--database-url", "mysql://u:geheim@db/x"],
            media,
            &["--database-url is the URL of another kind of database"],
        ),
        (&["--database-url", "postgresql://u:geheim@/x"], media, &["--database-url names no host"]),
        (
            &["--database-url-file", "/nowhere/url"],
            media,
            &["--database-url-file names \"/nowhere/url\", which cannot be read"],
        ),
        (
            &["--database-url", "postgresql://u:geheim@127.0.0.1:1/app"],
            media,
            &["the Django app's database", "127.0.0.1 port 1, database app"],
        ),
        (&["--database-url", &no_database], media, &["the Django app's database", "\"nowhere\" does not exist"]),
        (
            &["--database-url", &pixelds_own],
            media,
            &["\"pixeld\" has no table images_picture", "is it the Django app's?"],
        ),
        (&["--database-url", &half_url], media, &["\"half\" has no table images_userinfo"]),
        (&["--database-url", &no_right], media, &["permission denied", "images_picture"]),
        (&["--database-url", &django.url], "/nowhere/media", &["--media /nowhere/media cannot be read", "MEDIA_ROOT"]),
    ] {
        let (code, text) = import(arguments, media);
        assert_eq!(code, 1, "{arguments:?}: {text}");
        assert_holds(&text, parts);
        assert!(!text.contains("geheim"), "{text}");
    }
    half.sql("CREATE TABLE images_userinfo (id bigint, user_agent text, ip text, picture_id bigint, user_id text)");
    let (code, text) = import(&["--database-url", &half_url], media);
    assert_eq!(code, 1, "{text}");
    assert_holds(&text, &["the table images_userinfo of the database \"half\" has no column time, message_id"]);
    let bad = settings.clone().with("DJANGO_DATABASE_URL", "mysql://u:geheim@db/x");
    let (code, text) = said(bad.command(&django.arguments(&[])));
    assert!(code == 64 && text.contains("DJANGO_DATABASE_URL") && !text.contains("geheim"), "{code} {text}");
    assert_eq!((app.number("SELECT count(*) FROM images"), app.number("SELECT count(*) FROM imports")), (1, 0));
    // An app that nobody has used yet.
    django.sql("DELETE FROM images_userinfo; DELETE FROM images_picture");
    let (code, text) = django.import(settings, &[]);
    assert_eq!(code, 0, "{text}");
    assert_holds(&text, &["images: 0 added", "log rows: 0 imported"]);
}

#[test]
fn an_import_into_a_database_that_goes_away_says_so_and_goes_on_later() {
    let _machine = beside();
    let mut app = App::start();
    let settings = app.server.settings().clone();
    // The source in a PostgreSQL of its own.
    let theirs = Postgres::start().unwrap();
    let django = Django::load(&theirs);
    django.sql(
        "INSERT INTO images_userinfo SELECT n, 'Mail', '', '2025-03-01 00:00:00+00', NULL, NULL, 2 FROM generate_series(10000, 29999) n",
    );
    let with_source = settings.clone().with("DJANGO_DATABASE_URL", &django.url);
    let mut import = with_source.command(&django.arguments(&["--batch-rows", "50"]));
    let import = import.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("some rows", Duration::from_secs(60), || app.number("SELECT count(*) FROM batches WHERE imported") > 20)
        .unwrap();
    app.postgres.stop().unwrap();
    let output = import.wait_with_output().unwrap();
    let text = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    app.postgres.start_again().unwrap();
    let taken = app.number("SELECT sum(loaded) FROM batches WHERE imported");
    assert!((1000..20_000).contains(&taken), "{taken}");
    assert_eq!(django.import(&settings, &[]).0, 3);
    assert_each_row_once(&django, &app.postgres);
    assert_accounted(&app.postgres);
}

#[test]
fn an_import_that_is_stopped_or_disturbed_says_so_and_makes_a_lost_day_again() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap().with("DATABASE_URL", postgres.url());
    settings.run(&["migrate"]).unwrap();
    let django = Django::load(&postgres);
    django.sql(
        "INSERT INTO images_userinfo SELECT n, 'Mail', '', '2025-03-01 00:00:00+00', NULL, NULL, 2 FROM generate_series(10000, 59999) n",
    );
    let begin = || {
        let with_source = settings.clone().with("DJANGO_DATABASE_URL", &django.url);
        let mut import = with_source.command(&django.arguments(&["--batch-rows", "20"]));
        let import = import.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let before = postgres.number("SELECT count(*) FROM batches").unwrap();
        let has_more = |more: f64| postgres.number("SELECT count(*) FROM batches").unwrap() >= before + more;
        wait_until("some batches", Duration::from_secs(60), || has_more(50.0)).unwrap();
        import
    };
    let end = |import: Child| {
        let output = import.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap())
    };
    let import = begin();
    // Like a retention, but for a day that is still to be imported.
    postgres.query("ALTER TABLE hits DETACH PARTITION hits_20250301; DROP TABLE hits_20250301").unwrap();
    let day = "SELECT count(*) FROM pg_inherits WHERE inhrelid = to_regclass('hits_20250301')";
    wait_until("the day", PATIENCE, || postgres.number(day).unwrap() == 1.0).unwrap();
    pixeld_testkit::process::signal(import.id(), Signal::SIGTERM).unwrap();
    let (code, text) = end(import);
    assert_eq!(code, Some(1), "{text}");
    assert_holds(&text, &["stopped by", "run the same command to continue"]);
    let import = begin();
    postgres.query("UPDATE spool_marks SET next_seq = next_seq + 1").unwrap();
    let (code, text) = end(import);
    assert_eq!(code, Some(1), "{text}");
    assert_holds(&text, &["another import ran at the same time"]);
}

#[test]
fn the_django_apps_settings_are_listed_with_their_new_names() {
    let _machine = beside();
    let dir = open_dir();
    let postgres = Postgres::start().unwrap();
    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap().with("DATABASE_URL", postgres.url());
    let settings = settings
        .with("DATABASE_NAME", "app")
        .with("DATABASE_PASSWORD", "geheim")
        .with("LOCATION", "redis://127.0.0.1:6379/1")
        .with("DSN", "https://geheim@sentry.example.com/1");
    let server = settings.start().unwrap();
    let log = server.log();
    assert_holds(
        &log,
        &["WARN", "DATABASE_NAME, DATABASE_PASSWORD", "LOCATION", "DSN: now SENTRY_DSN", "docs/moving-from-django.md"],
    );
    assert!(!log.contains("geheim"), "{log}");
    assert!(server.is_healthy());
}

#[test]
fn rows_after_an_opt_out_are_left_out_and_counted() {
    let _machine = beside();
    let app = App::start();
    let django = Django::load(&app.postgres);
    django.mend();
    recount::prepare(&app.postgres);
    let busiest = "SELECT user_id || ' ' || count(*) || ' ' || max(time) FROM images_userinfo WHERE user_id IS NOT NULL \
                   AND isfinite(time) AND picture_id NOT IN (7, 8) GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1";
    let busiest = django.sql(busiest)[0].clone();
    let [recipient, count, latest] = busiest.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{busiest}") };
    app.server.settings().run(&["opt-out", "--recipient", recipient]).unwrap();
    // As if that had been just before the latest of them.
    app.query(&format!("UPDATE suppressions SET since = '{latest}', change = nextval('suppressions_change')"));
    for dry_run in [&["--dry-run"][..], &[]] {
        let (_, said) = django.import(app.server.settings(), dry_run);
        assert!(said.contains("1 left out: they belong to people who opted out"), "{said}");
    }
    let kept = format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'");
    assert_eq!(app.number(&kept), count.parse::<u64>().unwrap() - 1);
    assert_eq!(app.number("SELECT sum(suppressed) FROM batches WHERE imported"), 1);
    assert_counted(&app, "after an import that left a row out");
}

#[test]
fn rows_of_erased_people_are_left_out_and_counted() {
    let _machine = beside();
    let app = App::start();
    let django = Django::load(&app.postgres);
    django.mend();
    recount::prepare(&app.postgres);
    let busiest = "SELECT user_id || ' ' || count(*) FROM images_userinfo WHERE user_id IS NOT NULL \
                   AND isfinite(time) AND picture_id NOT IN (7, 8) GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 1";
    let busiest = django.sql(busiest)[0].clone();
    let (recipient, count) = busiest.split_once(' ').unwrap();
    app.server.settings().run(&["erase", "--recipient", recipient]).unwrap();
    for dry_run in [&["--dry-run"][..], &[]] {
        let (_, said) = django.import(app.server.settings(), dry_run);
        assert!(said.contains(&format!("{count} left out: they belong to people who were erased")), "{said}");
    }
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'")), 0);
    assert_eq!(app.number("SELECT sum(erased) FROM batches WHERE imported"), count.parse::<u64>().unwrap());
    assert_counted(&app, "after an import that left an erased recipient out");
}

#[test]
fn a_byte_of_another_encoding_costs_its_own_row_which_is_named_and_the_import_goes_on() {
    let _machine = beside();
    // What a database in WIN1252 has no character for, and latin-1 bytes in a database that checks nothing.
    for (encoding, byte) in [("SQL_ASCII", 233), ("WIN1252", 129)] {
        let app = App::start();
        let django = Django::load_in(&app.postgres, "django", encoding);
        django.sql(&format!(
            "UPDATE images_userinfo SET user_agent = 'Mozilla ' || chr({byte}) WHERE id IN (3149, 3190); \
             UPDATE images_userinfo SET message_id = chr({byte}) WHERE id = (SELECT max(id) FROM images_userinfo); \
             UPDATE images_picture SET title = chr({byte}) WHERE id = 4"
        ));
        let last: u64 = django.sql("SELECT max(id) FROM images_userinfo")[0].parse().unwrap();
        let settings = app.server.settings();
        let before: u64 = {
            let (_, report) = django.import(settings, &["--dry-run"]);
            assert!(report.contains("row 3149 of images_userinfo: its text has bytes"), "{encoding}: {report}");
            assert!(report.contains("row 3190 of images_userinfo: its text has bytes"), "{encoding}: {report}");
            assert!(
                report.contains(&format!("row {last} of images_userinfo: its text has bytes")),
                "{encoding}: {report}"
            );
            app.number("SELECT count(*) FROM hits")
        };
        assert_eq!(before, 0);
        let (status, report) = django.import(settings, &["--batch-rows", "100"]);
        assert_eq!(status, 3, "{encoding}: {report}");
        let taken = format!(
            "SELECT count(*) FROM images_userinfo u JOIN images_picture p ON p.id = u.picture_id \
             WHERE isfinite(u.time) AND u.id NOT IN (3149, 3190, {last})"
        );
        let taken: u64 = django.sql(&taken)[0].parse().unwrap();
        assert_eq!(app.number("SELECT count(*) FROM hits"), taken, "{encoding}: {report}");
        let picture = "SELECT title FROM images WHERE id = '9531985d-5d9d-49f8-9818-e811892f902b'";
        assert_eq!(app.query(picture), [""], "only its title cannot be read");
        // Nothing twice.
        let (_, report) = django.import(settings, &[]);
        assert!(report.contains("log rows: 0 imported"), "{encoding}: {report}");
        assert_eq!(app.number("SELECT count(*) FROM hits"), taken);
    }
}
