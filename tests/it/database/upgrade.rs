//! From every earlier schema to this one: nothing is lost, opens and counts match the hits, old links work. A migration
//! that is killed half-way, and nodes that migrate at once; the former program on the new schema. And rules for
//! migrations.

mod former;

use std::collections::BTreeMap;
use std::process::Stdio;

use pixeld::parts::db::Database;
use pixeld_testkit::postgres::Postgres;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Settings, get};
use refinery::{Migration, Runner, Target, load_sql_migrations};
use uuid::Uuid;

use crate::kit::holder::Holder;
use crate::kit::support::{App, PIXELD, REST, add_image, beside, open_dir, wait_for_opt_outs, wait_for_rollup};
use crate::opens::recount;
use pixeld_core::ids::SpoolId;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
const DOCS: &str = include_str!("../../../docs/upgrade.md");
const PICTURE: &[u8] = include_bytes!("../../../src/app/sample.png");

const IMAGE: Uuid = Uuid::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_0001);
const MESSAGE: Uuid = Uuid::from_u128(0x1111_1111_1111_4111_8111_1111_1111_1111);
/// A recipient who has opened, and one who opted out (from V6 on).
const ANN: Uuid = Uuid::from_u128(0x2222_2222_2222_4222_8222_0000_0000_0001);
const BEN: Uuid = Uuid::from_u128(0x2222_2222_2222_4222_8222_0000_0000_0002);

/// Hits of ten batches of a hundred each over two days, as the first version's loader left them: V1's columns, nothing rolled up.
const HITS: &str = "
    INSERT INTO spool_marks (spool_uuid, node, next_seq) VALUES ('99999999-9999-4999-8999-999999999999', 'old', 1000);
    INSERT INTO user_agents (id, user_agent) VALUES (7, 'Thunderbird'), (8, 'GoogleImageProxy');
    CREATE TABLE hits_20260301 (LIKE hits INCLUDING ALL);
    ALTER TABLE hits ATTACH PARTITION hits_20260301 FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-03-02 00:00:00+00');
    CREATE TABLE hits_20260302 (LIKE hits INCLUDING ALL);
    ALTER TABLE hits ATTACH PARTITION hits_20260302 FOR VALUES FROM ('2026-03-02 00:00:00+00') TO ('2026-03-03 00:00:00+00');
    INSERT INTO hits (at, seq, user_agent, sent_at, message, recipient, image, spool, class, rule, network, prefetch, ip)
    SELECT '2026-03-01 12:00:00+00'::timestamptz + n * interval '1 minute', n, 7 + n % 2, NULL, MESSAGE,
        ('22222222-2222-4222-8222-' || lpad(to_hex(n * 7 % 300 + (n * 7 % 300 = 2)::int), 12, '0'))::uuid, IMAGE, 1, n % 7, 0, 0, false, '192.0.2.1'
    FROM generate_series(0, 999) AS n;
    INSERT INTO batches (spool, first_seq, next_seq, loaded, throttled, min_at, max_at)
    SELECT 1, b * 100, b * 100 + 100, 100, 0, min(at), max(at) FROM hits, generate_series(0, 9) AS b
    WHERE seq >= b * 100 AND seq < b * 100 + 100 GROUP BY b ORDER BY b;
    UPDATE images SET title = 'old';
";

fn migrations() -> Vec<Migration> {
    let mut migrations = load_sql_migrations(MIGRATIONS).unwrap();
    migrations.sort_by_key(Migration::version);
    migrations
}

fn newest() -> i32 {
    migrations().last().unwrap().version()
}

/// Empties the database and runs the first migrations from the real files.
fn make_schema(postgres: &Postgres, version: i32) {
    postgres.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut session = Database::external(&postgres.url()).unwrap().connect("test").await.unwrap();
        let runner = Runner::new(&migrations()).set_target(Target::Version(version));
        runner.run_async(&mut session.client).await.unwrap();
    });
}

/// What a program with that schema left: rows of every table that existed, the first half of all hits rolled up.
fn fill(postgres: &Postgres, version: i32) {
    let picture: String = PICTURE.iter().map(|byte| format!("{byte:02x}")).collect();
    let add = format!(
        "INSERT INTO images (id, title, media_type, width, height, bytes, sha256) VALUES \
           ('{IMAGE}', '', 'image/png', 1, 1, '\\x{picture}', sha256('\\x{picture}'))"
    );
    postgres.query(&add).unwrap();
    let hits = HITS.replace("IMAGE", &format!("'{IMAGE}'::uuid")).replace("MESSAGE", &format!("'{MESSAGE}'::uuid"));
    postgres.query(&hits).unwrap();
    if version >= 2 {
        postgres
            .query(
                "UPDATE hits SET client = seq % 3; UPDATE batches SET published = id, events_before = (id - 1) * 100 WHERE id <= 5; \
                 UPDATE rollup_state SET published = 5, events = 500; INSERT INTO words VALUES ('rule', 0, 'former', 0, 'former')",
            )
            .unwrap();
        recount::prepare(postgres);
        recount::fill(postgres);
        recount::assert_same(postgres, "before the upgrade");
        postgres.query(&format!("UPDATE messages SET name = 'News', sent_count = 300 WHERE id = '{MESSAGE}'")).unwrap();
    }
    if version >= 3 {
        postgres
            .query(
                "INSERT INTO users (name, role, password_hash) VALUES ('ann', 'admin', 'x'); \
                 INSERT INTO audit (actor, action, subject) VALUES ('ann', 'did', 'something'); \
                 INSERT INTO sessions (token_sha256, user_id) SELECT sha256('x'), id FROM users",
            )
            .unwrap();
    }
    if version >= 6 {
        let hash = format!("substring(sha256(secret || uuid_send('{BEN}')) FOR 16)");
        postgres
            .query(&format!(
                "INSERT INTO suppressions (hash, since, change) SELECT {hash}, now(), nextval('suppressions_change') \
                 FROM installation WHERE name = 'privacy_key'"
            ))
            .unwrap();
    }
    if version >= 7 {
        postgres
            .query("INSERT INTO imports (spool, source, pictures) VALUES (1, 'old', '{}'); UPDATE batches SET imported = id = 3")
            .unwrap();
    }
}

/// All tables with their columns, except what the program writes at each start.
fn columns(postgres: &Postgres) -> Vec<(String, String)> {
    let list = "SELECT c.relname || ' ' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_class c \
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
                  AND c.relname NOT IN ('refinery_schema_history', 'words') GROUP BY c.relname ORDER BY c.relname";
    let split =
        |line: String| line.split_once(' ').map(|(table, columns)| (table.to_owned(), columns.to_owned())).unwrap();
    postgres.query(list).unwrap().into_iter().map(split).collect()
}

/// All rows of these columns, as one digest per table; for `installation` only the names that existed.
fn contents(postgres: &Postgres, columns: &[(String, String)], secrets: &str) -> BTreeMap<String, String> {
    let digest = |(table, columns): &(String, String)| {
        let filter = if table == "installation" { format!("WHERE name IN ({secrets})") } else { String::new() };
        let digest = format!(
            "SELECT count(*) || ' ' || md5(string_agg(t::text, ' ' ORDER BY t::text)) \
             FROM (SELECT {columns} FROM {table} {filter}) AS t"
        );
        (table.clone(), postgres.query(&digest).unwrap().remove(0))
    };
    columns.iter().map(digest).collect()
}

fn settings(postgres: &Postgres, dir: &tempfile::TempDir, name: &str) -> Settings {
    Settings::new(PIXELD, dir.path().join(name)).unwrap().with("DATABASE_URL", postgres.url())
}

fn version_of(postgres: &Postgres) -> i32 {
    postgres.number("SELECT max(version) FROM refinery_schema_history").unwrap() as i32
}

/// A lock that every migration needs at its end, when everything else is done.
const LOCK_OF_THE_HISTORY: &str = "LOCK TABLE refinery_schema_history IN SHARE MODE";

fn pixel(recipient: Uuid) -> String {
    format!("/image/{IMAGE}_{MESSAGE}_{recipient}.png")
}

#[test]
fn from_every_earlier_schema_nothing_is_lost_counts_are_right_and_old_links_work() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    for version in 1..newest() {
        let when = format!("from V{version}");
        make_schema(&postgres, version);
        fill(&postgres, version);
        let secrets = postgres.query("SELECT quote_literal(name) FROM installation").unwrap().join(", ");
        let columns = columns(&postgres);
        let before = contents(&postgres, &columns, &secrets);
        assert!(before["hits"].starts_with("1000 ") && before["batches"].starts_with("10 "), "{before:?}");
        let settings = settings(&postgres, &dir, &format!("node-{version}"));
        assert!(settings.run(&["migrate"]).unwrap().starts_with("the database is up to date"));
        assert_eq!(contents(&postgres, &columns, &secrets), before, "{when}");
        assert_eq!(version_of(&postgres), newest());
        if version < 2 {
            recount::prepare(&postgres);
        }

        let mut server = settings.clone().start().unwrap();
        wait_until("the image", REST, || get(server.public(), &pixel(Uuid::nil())).unwrap().body == PICTURE).unwrap();
        let out = if version >= 6 { 1.0 } else { 0.0 };
        wait_for_opt_outs(&server, out);
        for recipient in [ANN, BEN, ANN] {
            assert_eq!(get(server.public(), &pixel(recipient)).unwrap().body, PICTURE, "{when}");
        }
        server.at_rest(REST).unwrap();
        wait_for_rollup(&postgres);
        recount::assert_same(&postgres, &when);
        let hits =
            |of: Uuid| postgres.number(&format!("SELECT hits FROM opens WHERE recipient = '{of}'")).unwrap_or(0.0);
        assert!(hits(ANN) >= 5.0, "{when}: {}", hits(ANN));
        assert_eq!(hits(BEN), 1.0 - out, "{when}");
        if version >= 3 {
            assert!(settings.run(&["user", "list"]).unwrap().contains("ann"), "{when}");
        }
        server.terminate().unwrap();
    }
}

#[test]
fn a_migration_killed_half_way_leaves_the_database_usable_and_nodes_that_migrate_at_once_finish_it() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let former = newest() - 1;
    make_schema(&postgres, former);
    fill(&postgres, former);
    let columns = columns(&postgres);
    let secrets = postgres.query("SELECT quote_literal(name) FROM installation").unwrap().join(", ");
    let before = contents(&postgres, &columns, &secrets);
    let tables = postgres.number("SELECT count(*) FROM pg_class").unwrap();

    let holder = Holder::take(&postgres, LOCK_OF_THE_HISTORY);
    let mut migrating = settings(&postgres, &dir, "one").command(&["migrate"]).spawn().unwrap();
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pixeld migrate' AND wait_event_type = 'Lock'";
    wait_until("the migration to wait", REST, || postgres.number(waits).unwrap() > 0.0).unwrap();
    migrating.kill().unwrap();
    migrating.wait().unwrap();
    holder.let_go();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pixeld migrate'";
    wait_until("its connection to go", REST, || postgres.number(there).unwrap() == 0.0).unwrap();
    assert_eq!(version_of(&postgres), former);
    assert_eq!(postgres.number("SELECT count(*) FROM pg_class").unwrap(), tables, "nothing is left of it");
    assert_eq!(contents(&postgres, &columns, &secrets), before);

    let nodes = ["one", "two", "three"].map(|name| settings(&postgres, &dir, name));
    let migrating = nodes.each_ref().map(|node| node.command(&["migrate"]).stdout(Stdio::null()).spawn().unwrap());
    let server = settings(&postgres, &dir, "four").start().unwrap();
    for mut child in migrating {
        assert!(child.wait().unwrap().success());
    }
    wait_until("the image", REST, || get(server.public(), &pixel(ANN)).unwrap().body == PICTURE).unwrap();
    assert_eq!(version_of(&postgres), newest());
    assert_eq!(postgres.number("SELECT count(*) FROM refinery_schema_history").unwrap(), f64::from(newest()));
    server.at_rest(REST).unwrap();
}

#[test]
fn a_migration_that_meets_a_long_query_gives_up_and_the_node_serves_and_tries_again() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    make_schema(&postgres, newest() - 1);
    fill(&postgres, newest() - 1);
    let holder = Holder::take(&postgres, LOCK_OF_THE_HISTORY);
    let mut node = settings(&postgres, &dir, "node").start().unwrap();
    wait_until("it to give up", REST, || node.log().contains("the database is not usable yet")).unwrap();
    assert!(node.log().contains("lock timeout"), "{}", node.log());
    assert_eq!(get(node.public(), &pixel(ANN)).unwrap().status, 200);
    holder.let_go();
    wait_until("the migration", REST, || version_of(&postgres) == newest()).unwrap();
    let metrics = node.at_rest(REST).unwrap();
    assert_eq!(metrics.get("pixeld_hits_loaded_total"), 1.0);
    node.terminate().unwrap();
}

#[test]
fn the_former_loader_goes_on_beside_a_new_node_on_the_new_schema() {
    let _machine = beside();
    let app = App::start();
    recount::prepare(&app.postgres);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (spool, recipients) = (SpoolId::random(), [ANN, BEN, Uuid::new_v4()]);
    runtime.block_on(async {
        let session = Database::external(&app.url()).unwrap().connect("former").await.unwrap();
        for round in 0..3 {
            let first_seq = round * recipients.len() as i64;
            former::bring(&session.client, spool, first_seq, app.image, MESSAGE, &recipients).await;
            // The new one loads too, into the same opens.
            assert_eq!(app.get(&app.pixel(MESSAGE, ANN)).status, 200);
        }
    });
    app.at_rest();
    app.wait_for_rollup();
    recount::assert_same(&app.postgres, "with the former loader");
    assert_eq!(app.query("SELECT hits::text FROM opens ORDER BY hits DESC"), ["6", "3", "3"]);
    assert_eq!(app.number("SELECT count(*) FROM hits_readable WHERE user_agent = 'Former/2.0'"), 9);
    app.server.settings().run(&["erase", "--recipient", &BEN.to_string(), "--wait"]).unwrap();
    recount::assert_same(&app.postgres, "after an erasure");
    assert_eq!(app.number("SELECT count(*) FROM opens"), 2);
}

#[test]
fn hits_are_counted_by_hour_until_all_nodes_can_be_new_and_by_quarter_of_an_hour_from_then_on() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    make_schema(&postgres, 8);
    fill(&postgres, 8);
    let settings = settings(&postgres, &dir, "node");
    assert!(settings.run(&["migrate"]).unwrap().starts_with("the database is up to date"));
    let planned = "SELECT date_trunc('day', quarters_from, 'UTC') = quarters_from \
                     AND quarters_from BETWEEN now() + interval '23 hours' AND now() + interval '48 hours' FROM counting";
    assert_eq!(postgres.query(planned).unwrap(), ["t"], "a whole day is left, and the next UTC day begins it");
    recount::drop_views(&postgres);
    recount::prepare(&postgres);
    recount::assert_same(&postgres, "after the migration");

    // As if that time had passed: what a former node has rolled up is before it, and the rest on both sides.
    postgres.query("UPDATE counting SET quarters_from = '2026-03-02 00:00:00+00'").unwrap();
    let server = settings.start().unwrap();
    wait_for_rollup(&postgres);
    recount::assert_same(&postgres, "with hits on both sides");
    let slots = |of: &str| {
        let slots =
            format!("SELECT count(DISTINCT hour) FROM site_hours WHERE date_trunc('hour', hour) <> hour AND hour {of}");
        postgres.number(&slots).unwrap()
    };
    assert_eq!(slots("< '2026-03-02 00:00:00+00'"), 0.0);
    assert!(slots(">= '2026-03-02 00:00:00+00'") > 10.0);
    server.settings().run(&["erase", "--recipient", &ANN.to_string(), "--wait"]).unwrap();
    recount::assert_same(&postgres, "after an erasure on both sides");
}

#[test]
fn a_newer_schema_is_left_alone_by_this_program() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let settings = settings(&postgres, &dir, "node");
    let image = add_image(&settings);
    // A later release added a table, a column with a default, and its own line in the history.
    postgres
        .query(
            "CREATE TABLE later (a int); ALTER TABLE batches ADD COLUMN later int NOT NULL DEFAULT 0; \
             ALTER TABLE hits ADD COLUMN later smallint NOT NULL DEFAULT 0; \
             INSERT INTO refinery_schema_history VALUES (999, 'later', '2027-01-01T00:00:00Z', '1')",
        )
        .unwrap();
    let server = settings.clone().start().unwrap();
    assert!(settings.run(&["migrate"]).unwrap().starts_with("the database is up to date"));
    wait_until("the image", REST, || {
        get(server.public(), &format!("/image/{image}.png")).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    let loaded = server.at_rest(REST).unwrap().get("pixeld_hits_loaded_total");
    assert!(loaded >= 1.0);
    assert_eq!(postgres.number("SELECT count(*) FROM hits WHERE later = 0").unwrap(), loaded);
}

/// What a migration must not do to an earlier table, since the former program still runs; each exception with its
/// reason.
const EXCEPTIONS: [(i32, &str, &str); 2] = [
    (
        8,
        "DROP CONSTRAINT every_hit_is_accounted_for",
        "replaced in the same transaction by one that lets the same rows pass",
    ),
    (8, "ADD CONSTRAINT every_hit_is_accounted_for", "what the former program writes has erased = 0, and passes it"),
];

#[test]
fn migrations_only_expand() {
    const FORBIDDEN: [&str; 15] = [
        "DROP TABLE",
        "DROP COLUMN",
        "DROP CONSTRAINT",
        "DROP INDEX",
        "DROP VIEW",
        "DROP FUNCTION",
        "DROP DEFAULT",
        "RENAME",
        "SET NOT NULL",
        " TYPE ",
        "ADD CONSTRAINT",
        "TRUNCATE",
        "DELETE FROM",
        "CREATE TRIGGER",
        "CREATE UNIQUE INDEX",
    ];
    let mut made_tables = Vec::new();
    let mut used = Vec::new();
    for migration in migrations() {
        let version = migration.version();
        let sql: String =
            migration.sql().unwrap().lines().map(|line| line.split("--").next().unwrap()).collect::<Vec<_>>().join(" ");
        let mut made_here = Vec::new();
        for statement in sql.split(';').map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")) {
            if let Some(rest) = statement.strip_prefix("CREATE TABLE ") {
                made_here.push(rest.split([' ', '(']).next().unwrap().to_owned());
                continue;
            }
            // Comments of tables do not count; nothing uses new tables yet.
            let is_of_new = |table: &String| statement.contains(&format!(" {table} "));
            if statement.starts_with("COMMENT ") || made_here.iter().any(is_of_new) {
                continue;
            }
            let exception = EXCEPTIONS.iter().position(|(of, text, _)| *of == version && statement.contains(text));
            used.extend(exception);
            for forbidden in FORBIDDEN {
                let is_there = statement.contains(forbidden);
                assert!(!is_there || exception.is_some(), "V{version} is not only an expansion: {statement}");
            }
            if statement.contains("ADD COLUMN") {
                let is_safe = !statement.contains("NOT NULL") || statement.contains(" DEFAULT ");
                assert!(is_safe, "V{version}: the former program cannot insert: {statement}");
                for volatile in ["gen_random_uuid", "clock_timestamp", "random()", "nextval", "GENERATED"] {
                    assert!(!statement.contains(volatile), "V{version} writes the whole table anew: {statement}");
                }
            }
            for table in ["hits", "opens"] {
                let is_update = statement.starts_with(&format!("UPDATE {table} "));
                assert!(!is_update, "V{version}: fill a big table in chunks, from the program: {statement}");
            }
        }
        made_tables.extend(made_here);
        // The page tells operators what each migration locks.
        assert!(DOCS.contains(&format!("| V{version} |")), "docs/upgrade.md says nothing of V{version}");
    }
    assert_eq!(used.len(), EXCEPTIONS.len(), "an exception that nothing needs");
    assert!(made_tables.len() > 15, "{made_tables:?}");
}
