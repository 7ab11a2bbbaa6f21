//! How long the server takes for each page of the admin page, with 10 M hits, 1 M opens and long lists of everything
//! else in a real PostgreSQL of this bench.
//!
//! `cargo bench --bench pages` prints a table; `UPDATE=1` also writes it to docs/page-times.md. `HITS` and `OPENS` set
//! other numbers. Pages are requested over HTTP on this machine, signed in, one after the other; the time is that of
//! the whole request. The first request of a page, for which PostgreSQL may have nothing in memory, is shown
//! separately.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pixeld::parts::db::{Database, migrate, partitions};
use pixeld_core::clock::now_utc;
use pixeld_testkit::postgres::Postgres;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, Server, Settings, exchange};

#[expect(dead_code, clippy::unwrap_used, reason = "the tests' own, of which only the views are used")]
#[path = "../tests/it/opens/recount.rs"]
mod recount;

const PASSWORD: &str = "correct horse battery";

/// Days that have hits.
const DAYS: u32 = 30;

/// Entries of the audit, among them one for each erasure.
const AUDIT: u64 = 200_000;

/// Erasures, each carried out by three nodes.
const ERASURES: u64 = 20_000;

/// Requests of a page, after the first.
const REQUESTS: usize = 20;

/// The goal.
const PAGE_MS_MAX: f64 = 100.0;

const IMAGE: &str = "00000000-0000-4000-8000-0000000000aa";
/// Has half of all opens.
const LARGE: &str = "00000000-0000-4000-8000-000000000000";
/// One of the other 49.
const SMALL: &str = "00000000-0000-4000-8000-000000000007";
const RECIPIENT: &str = "00000000-0000-4000-9000-000000000007";

fn main() {
    let (hits, opens) = (number("HITS", 10_000_000), number("OPENS", 1_000_000));
    let postgres = Postgres::start().expect("PostgreSQL");
    let started = Instant::now();
    fill(&postgres, hits, opens);
    eprintln!("filled in {:.0} s", started.elapsed().as_secs_f64());
    let dir = pixeld_testkit::postgres::open_dir().expect("a directory");
    let settings = Settings::new(env!("CARGO_BIN_EXE_pixeld"), dir.path().join("data")).expect("settings");
    let server = settings.with("DATABASE_URL", postgres.url()).start().expect("pixeld");
    let visitor = Visitor::signed_in(&server);
    wait_for_indexes(&postgres);
    run(&postgres, "VACUUM ANALYZE");
    let day = now_utc().date() - time::Duration::days(15);
    let pages = [
        "/".to_owned(),
        "/messages".to_owned(),
        "/messages?q=Newsletter".to_owned(),
        format!("/messages/{LARGE}"),
        format!("/messages/{LARGE}?only=machine"),
        format!("/messages/{SMALL}"),
        format!("/messages/{LARGE}/who-opened"),
        format!("/messages/{LARGE}/links"),
        format!("/recipients/{RECIPIENT}"),
        "/images".to_owned(),
        format!("/images/{IMAGE}"),
        "/hits".to_owned(),
        format!("/hits?message={SMALL}"),
        format!("/hits?recipient={RECIPIENT}"),
        format!("/hits?image={IMAGE}"),
        format!("/hits?from={day}T10:00&to={day}T11:00"),
        format!("/hits/delete?message={LARGE}"),
        format!("/hits/delete?from={day}T00:00&to={day}T23:00"),
        "/not-recorded".to_owned(),
        "/settings".to_owned(),
        "/audit".to_owned(),
        format!("/audit?before={}", AUDIT / 2),
        "/erasures".to_owned(),
        format!("/erasures/{}", ERASURES / 2),
    ];
    let mut table = format!(
        "{} hits, {} opens\n\n| page | median ms | worst of {REQUESTS} ms | first ms | KiB |\n|---|---:|---:|---:|---:|\n",
        pixeld::parts::admin::number(hits as i64),
        pixeld::parts::admin::number(postgres.number("SELECT count(*) FROM opens").expect("opens") as i64),
    );
    let mut slow = Vec::new();
    for page in &pages {
        let (first, length) = visitor.time(page);
        let mut times: Vec<f64> = (0..REQUESTS).map(|_| visitor.time(page).0).collect();
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[REQUESTS / 2], times[REQUESTS - 1]);
        let shown = page.replace(&format!("{day}"), "DAY");
        writeln!(table, "| `{shown}` | {median:.1} | {worst:.1} | {first:.1} | {} |", length.div_ceil(1024))
            .expect("text");
        if median > PAGE_MS_MAX {
            slow.push(format!("{shown}: {median:.1} ms"));
        }
    }
    println!("{table}");
    if std::env::var_os("UPDATE").is_some() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/page-times.md");
        std::fs::write(place, format!("{HEAD}{table}")).expect("docs/page-times.md");
    }
    assert!(slow.is_empty(), "slower than {PAGE_MS_MAX} ms: {}", slow.join(", "));
}

/// Closed days get an index, which must not be timed.
fn wait_for_indexes(postgres: &Postgres) {
    wait_until("the indexes of closed days", Duration::from_secs(600), || {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND state = 'active'";
        let have = "SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'hits_%' AND indexdef LIKE '%(recipient)%'";
        let number = |query: &str| postgres.number(query).expect("a number");
        number(busy) == 0.0 && number(have) >= f64::from(DAYS) - 2.0
    })
    .expect("indexes");
}

const HEAD: &str = "# How long pages take\n\n\
    `UPDATE=1 cargo bench --bench pages` writes this page. It fills a PostgreSQL of its own with its default settings, and fetches each page as a\n\
    browser does, over HTTP on the same two-core machine. The goal: every page within 100 ms, and none whose time grows with the number of hits.\n\
    `000…000` is the message with half of all opens. The audit has 200,000 entries, 20,000 of them erasures.\n\n";

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Hits of the last days, and what follows from them, by the definitions with which the tests compare.
fn fill(postgres: &Postgres, hits: u64, opens: u64) {
    let database = Database::external(&postgres.url()).expect("its URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let today = now_utc().date();
    runtime.block_on(async {
        migrate::run(&database).await.expect("migrations");
        let session = database.connect("bench").await.expect("a connection");
        for back in 0..=DAYS {
            partitions::make(&session.client, today - time::Duration::days(i64::from(back)))
                .await
                .expect("a partition");
        }
    });
    let span_s = i64::from(DAYS) * 86_400;
    // A pair is a message and a recipient: half of them of one message, the others of 49; a recipient has two messages.
    let load = format!(
        "INSERT INTO user_agents SELECT n, 'Mozilla/5.0 (number ' || n || ')' FROM generate_series(1, 500) n; \
         INSERT INTO images (id, title, media_type, width, height, bytes, sha256) \
           SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(170 + n), 12, '0'))::uuid, 'Picture ' || n, 'image/gif', 1, 1, \
             decode('47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b', 'hex'), \
             sha256('x') FROM generate_series(0, 99) n; \
         INSERT INTO hits (at, seq, user_agent, message, recipient, image, spool, class, rule, network, prefetch, ip, client) \
         SELECT date_trunc('day', now()) + interval '1 hour' - ((n * 7919) % {span_s}) * interval '1 second' + (n % 1000000) * interval '1 microsecond', \
           n, 1 + n % 500, \
           ('00000000-0000-4000-8000-' || lpad(to_hex(CASE WHEN p < {opens} / 2 THEN 0 ELSE 1 + p % 49 END), 12, '0'))::uuid, \
           ('00000000-0000-4000-9000-' || lpad(to_hex(p % ({opens} / 2)), 12, '0'))::uuid, \
           ('00000000-0000-4000-8000-' || lpad(to_hex(170 + p % 100), 12, '0'))::uuid, \
           1, (ARRAY[1, 2, 3, 0, 5, 1, 2])[1 + n % 7], 1 + n % 12, 0, false, '192.0.2.1'::inet + n % 200, n % 9 \
         FROM (SELECT n, n % {opens} AS p FROM generate_series(0::bigint, {hits} - 1) n) AS numbers; \
         INSERT INTO batches (spool, first_seq, next_seq, loaded, min_at, max_at, published, events_before) \
           SELECT 1, 0, {hits}, {hits}, min(at), max(at), 1, 0 FROM hits; \
         UPDATE rollup_state SET published = 1, events = {hits}; \
         INSERT INTO nodes (node, name, erased_to) SELECT gen_random_uuid(), 'node ' || n, {ERASURES} FROM generate_series(1, 3) n; \
         INSERT INTO erasures (recipient_hash, hits, opens, deleted_at) \
           SELECT substring(sha256(n::text::bytea) FOR 16), 7, 2, now() FROM generate_series(1, {ERASURES}) n; \
         INSERT INTO erasure_nodes (erasure, node, name, segments, hits, files) SELECT id, node, name, 1, 7, 0 FROM erasures, nodes; \
         INSERT INTO audit (actor, action, subject, detail) \
           SELECT 'ann', CASE WHEN n % ({AUDIT} / {ERASURES}) = 0 THEN 'recipient erased' ELSE 'opted out' END, md5(n::text), \
             CASE WHEN n % ({AUDIT} / {ERASURES}) = 0 THEN jsonb_build_object('erasure', n / ({AUDIT} / {ERASURES})) ELSE '{{}}' END \
           FROM generate_series(1, {AUDIT}) n; \
         ANALYZE hits"
    );
    run(postgres, &load);
    recount::prepare(postgres);
    for (table, columns) in [
        (
            "opens",
            "message, recipient, image, first_at, last_at, confirmed_first_at, hits, confirmed_hits, first_seq, first_spool, \
                   best, first_class, confirmed_first_class",
        ),
        ("message_hours", "message, hour, class, hits, first_opens, first_confirmed_opens"),
        ("site_hours", "hour, class, hits, first_opens, first_confirmed_opens"),
        ("image_hours", "image, hour, hits"),
        ("message_facets", "message, facet, value, hits"),
        ("messages", "id, first_at, last_at, opens, confirmed_opens, possible_opens, hits, machine_hits"),
    ] {
        run(postgres, &format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM should_{table}"));
    }
    run(
        postgres,
        "UPDATE messages SET name = 'Newsletter ' || right(id::text, 2), sent_at = first_at, sent_count = opens * 2; \
             DROP VIEW should_rollup_state, should_batches, should_messages, should_message_facets, should_image_hours, \
               should_site_hours, should_message_hours, should_opens, fact",
    );
}

/// Runs a statement that may take longer than the program's own.
fn run(postgres: &Postgres, sql: &str) {
    let database = Database::external(&postgres.url()).expect("its URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let session = database.connect("bench").await.expect("a connection");
        let settings = "SET statement_timeout = 0; SET synchronous_commit = off; SET jit = off; SET work_mem = '512MB'";
        session.client.batch_execute(settings).await.expect("settings");
        session.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}"));
    });
}

struct Visitor {
    server: std::net::SocketAddr,
    cookie: String,
}

impl Visitor {
    fn signed_in(server: &Server) -> Visitor {
        let mut command = server.settings().command(&["user", "add", "ann", "--role", "admin", "--password-stdin"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("user add");
        child.stdin.take().expect("its input").write_all(format!("{PASSWORD}\n").as_bytes()).expect("the password");
        assert!(child.wait().expect("its end").success());
        let mut visitor = Visitor { server: server.settings().admin(), cookie: String::new() };
        let form = format!("name=ann&password={}&next=/", PASSWORD.replace(' ', "+"));
        let headers = format!(
            "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\nContent-Length: {}\r\n",
            form.len()
        );
        let answer = visitor.ask("POST", "/sign-in", &headers, &form);
        let cookie = answer.header("set-cookie").expect("a cookie");
        visitor.cookie = cookie.split(';').next().expect("a value").to_owned();
        visitor
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let Visitor { server, cookie } = self;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nCookie: {cookie}\r\n{headers}\r\n{body}"
        );
        exchange(*server, request.as_bytes()).expect("an answer")
    }

    /// The milliseconds, and the bytes.
    fn time(&self, page: &str) -> (f64, usize) {
        let started = Instant::now();
        let answer = self.ask("GET", page, "", "");
        let took = started.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(answer.status, 200, "{page}: {}", String::from_utf8_lossy(&answer.body));
        (took, answer.body.len())
    }
}
