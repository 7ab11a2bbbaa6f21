//! Changes of tables are published, as for a warehouse: everything works, the copy follows, and what cannot be deleted
//! is named with the statement that helps.

use std::time::Duration;

use pixeld::parts::db::{Database, DbError, Session, images, migrate, partitions};
use pixeld::parts::opt_outs::suppressions;
use pixeld::parts::rollup::change::{ChangeError, Changes, Target};
use pixeld::parts::rollup::retention_day::{Dropped, drop_day};
use pixeld::parts::rollup::tally::TallyError;
use pixeld_core::ids::{ImageId, RecipientId};
use pixeld_core::privacy::RecipientHash;
use pixeld_testkit::process::wait_until;
use tokio::runtime::Runtime;

use super::{Books, DAILY_MESSAGE, judged_human};
use crate::kit::rows::Hits;
use crate::kit::support::{App, PATIENCE, beside};
use crate::kit::visitor::{Visitor, form, text};

const PUBLICATIONS: [&str; 2] = ["FOR ALL TABLES", "FOR ALL TABLES WITH (publish_via_partition_root)"];

const IMAGE: ImageId = ImageId::from_u128(0x1a9e);

/// As an earlier pixeld made it.
const FORMER_DAY: &str = "CREATE TABLE hits_20260302 (LIKE hits INCLUDING ALL); \
     ALTER TABLE hits ATTACH PARTITION hits_20260302 FOR VALUES FROM ('2026-03-02 00:00:00+00') TO ('2026-03-03 00:00:00+00')";

/// Tables whose rows PostgreSQL would not update or delete if they were published.
const WITHOUT_IDENTITY: &str = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r' \
       AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'copied' AND c.relreplident <> 'f' \
       AND NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = c.oid AND indisprimary)";

fn recipient(n: u128) -> RecipientId {
    RecipientId::from_u128(0xbbbb_bbbb_0000_0000_0000_0000_0000_0000 + n)
}

/// A day of this pixeld, and one of an earlier one.
fn make_days(runtime: &Runtime, session: &Session) {
    runtime.block_on(async {
        let day = time::macros::date!(2026 - 03 - 01);
        partitions::make(&session.client, day).await.unwrap();
        session.client.batch_execute(FORMER_DAY).await.unwrap();
    });
}

/// 120 hits of ten recipients over both days, and an image, as they are loaded.
fn load(books: &Books) {
    books.query(&format!(
        "INSERT INTO images (id, title, media_type, width, height, bytes, sha256) \
           VALUES ('{IMAGE}', '', 'image/png', 1, 1, 'x', sha256('x'))"
    ));
    Hits::new(120, "timestamptz '2026-03-01 23:00:00+00' + n * interval '1 minute'")
        .with("user_agent", "7")
        .id("message", DAILY_MESSAGE)
        .with("recipient", "('bbbbbbbb-0000-0000-0000-' || lpad((n % 10)::text, 12, '0'))::uuid")
        .id("image", IMAGE)
        .with("class", "3")
        .with("rule", "0")
        .load(&books.postgres);
}

/// All changes by people and settings, except the retention.
fn change_all(books: &Books) {
    books.change(async |changes| {
        for day in changes.partitions(None).await.unwrap() {
            changes.reclassify_chunk(&day, None, judged_human).await.unwrap();
        }
        assert_eq!(changes.delete_hits(Target::Recipient(recipient(1))).await.unwrap().hits, 12);
        let pair = Target::Pair { message: DAILY_MESSAGE, recipient: recipient(2) };
        assert_eq!(changes.delete_hits(pair).await.unwrap().hits, 12);
    });
    books.query(&format!(
        "INSERT INTO erasures (id, recipient_hash) OVERRIDING SYSTEM VALUE VALUES (1, '{}')",
        "\\x07070707070707070707070707070707"
    ));
    let (erased, _) = books.change(async |changes| changes.erase(1, recipient(3)).await.unwrap());
    assert_eq!((erased.hits, erased.opens), (12, 1));
    assert_eq!(books.number("SELECT hits FROM erasures"), 12);
    books.runtime.block_on(async {
        let session = books.database.connect("test").await.unwrap();
        suppressions::opt_out(&session.client, "ann", RecipientHash([7; 16])).await.unwrap();
        suppressions::opt_in(&session.client, "ann", RecipientHash([7; 16])).await.unwrap();
        assert!(images::set_deleted(&session.client, "ann", IMAGE, true).await.unwrap());
    });
}

/// Both days are dropped, and the opens with them.
fn retain_none(books: &Books) {
    books.runtime.block_on(async {
        let mut changes = Changes::open(&books.database).await.unwrap();
        let session = books.database.connect("test").await.unwrap();
        for day in changes.partitions(None).await.unwrap() {
            changes.retain_from(day.to).await.unwrap();
            let dropped = drop_day(&session.client, &day, PATIENCE).await.unwrap();
            assert!(matches!(dropped, Dropped::Gone { .. }), "{dropped:?}");
        }
        assert_eq!(changes.forget_opens().await.unwrap(), 7);
    });
}

#[test]
fn what_a_publication_of_all_tables_has_can_be_judged_again_deleted_and_dropped() {
    let _machine = beside();
    // Made before any hit, or once they are loaded.
    for (is_first, publication) in [(true, PUBLICATIONS[0]), (false, PUBLICATIONS[1])] {
        let books = Books::open();
        let session = books.runtime.block_on(books.database.connect("test")).unwrap();
        let publish = format!("SET client_min_messages = error; CREATE PUBLICATION everything {publication}");
        if is_first {
            books.query(&publish);
        }
        make_days(&books.runtime, &session);
        load(&books);
        if !is_first {
            books.query(&publish);
        }
        assert_eq!(books.query(WITHOUT_IDENTITY), ["hits_20260302"]);
        change_all(&books);
        assert_eq!(books.query(WITHOUT_IDENTITY), Vec::<String>::new());
        books.assert_same(publication);
        drop(session);
        retain_none(&books);
    }
}

#[test]
fn a_copy_that_follows_a_publication_has_what_was_judged_again_and_lacks_what_was_deleted() {
    let _machine = beside();
    for publication in PUBLICATIONS {
        let mut books = Books::open();
        books.restart_with(&["wal_level=logical"]);
        books.query("CREATE DATABASE reader");
        let url = books.postgres.url();
        let reader = Database::external(&url.replace("@/pixeld?", "@/reader?")).unwrap();
        books.runtime.block_on(migrate::run(&reader)).unwrap();
        let [there, here] =
            [&reader, &books.database].map(|database| books.runtime.block_on(database.connect("test")).unwrap());
        for session in [&there, &here] {
            make_days(&books.runtime, session);
        }
        let ask = |session: &Session, sql: &str| -> Vec<String> {
            let rows = books.runtime.block_on(session.client.query(sql, &[])).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        ask(&there, "CREATE TABLE copied (LIKE hits)");
        ask(&here, &format!("CREATE PUBLICATION everything {publication}"));
        // By hand, since a server that subscribes to itself would wait for itself.
        ask(&here, "SELECT slot_name::text FROM pg_create_logical_replication_slot('reader', 'pgoutput')");
        let socket_dir = books.postgres.socket().parent().unwrap().display().to_string();
        ask(
            &there,
            &format!(
                "CREATE SUBSCRIPTION reader CONNECTION 'host={socket_dir} user=pixeld dbname=pixeld' PUBLICATION everything \
                 WITH (copy_data = false, create_slot = false, slot_name = 'reader')"
            ),
        );
        load(&books);
        change_all(&books);
        for table in ["hits", "opens", "message_hours", "suppressions", "images"] {
            let rows = format!("SELECT t::text FROM {table} AS t ORDER BY 1");
            let wanted = ask(&here, &rows);
            assert!(!wanted.is_empty(), "{table}");
            let end = wait_until(table, PATIENCE, || ask(&there, &rows) == wanted);
            assert!(end.is_ok(), "{publication}: {table} has {} rows, not {}", ask(&there, &rows).len(), wanted.len());
        }
        assert_eq!(ask(&here, "SELECT DISTINCT class::text FROM hits"), ["1"]);
        // Otherwise the server's end waits for it.
        ask(&there, "ALTER SUBSCRIPTION reader DISABLE");
        wait_until("the reader's end", PATIENCE, || ask(&here, "SELECT pid::text FROM pg_stat_replication").is_empty())
            .unwrap();
    }
}

#[test]
fn a_day_that_is_in_use_is_named_with_the_statement_that_lets_its_hits_go() {
    let _machine = beside();
    let books = Books::open();
    let session = books.runtime.block_on(books.database.connect("test")).unwrap();
    make_days(&books.runtime, &session);
    load(&books);
    books.query("SET client_min_messages = error; CREATE PUBLICATION everything FOR ALL TABLES");
    let held = "BEGIN; SELECT count(*) FROM hits_20260302";
    books.runtime.block_on(session.client.batch_execute(held)).unwrap();
    let delete = || {
        books.runtime.block_on(async {
            let mut changes = Changes::open(&books.database).await.unwrap();
            changes.delete_hits(Target::Recipient(recipient(1))).await
        })
    };
    let error = delete().unwrap_err();
    let named = matches!(&error, ChangeError::Tally(TallyError::Db(DbError::Identity { table, .. })) if table == "hits_20260302");
    assert!(named, "{error}");
    assert!(error.to_string().ends_with("ALTER TABLE hits_20260302 REPLICA IDENTITY FULL"), "{error}");
    // It needs the day only for a moment.
    books.runtime.block_on(session.client.batch_execute("COMMIT")).unwrap();
    assert_eq!(delete().unwrap().hits, 12);
}

#[test]
fn a_publication_without_the_key_of_a_table_is_named_with_what_it_lacks() {
    let _machine = beside();
    let books = Books::open();
    let session = books.runtime.block_on(books.database.connect("test")).unwrap();
    make_days(&books.runtime, &session);
    load(&books);
    // PostgreSQL 14 has no such publications.
    if books.number("SELECT current_setting('server_version_num')") < 150_000 {
        assert!(books.postgres.query("CREATE PUBLICATION part FOR TABLE opens (hits)").is_err());
        return;
    }
    books.query("SET client_min_messages = error; CREATE PUBLICATION part FOR TABLE opens (hits)");
    let deleted = books.runtime.block_on(async {
        let mut changes = Changes::open(&books.database).await.unwrap();
        changes.delete_hits(Target::Recipient(recipient(1))).await
    });
    // The hits are rolled up first, which makes opens, and then one of them goes.
    let error = deleted.unwrap_err().to_string();
    assert!(
        error.ends_with("\"opens\": Column list used by the publication does not cover the replica identity."),
        "{error}"
    );
    books.query("ALTER PUBLICATION part SET (publish = 'insert')");
    let (deleted, _) =
        books.change(async |changes| changes.delete_hits(Target::Recipient(recipient(1))).await.unwrap());
    assert_eq!(deleted.hits, 12);
}

#[test]
fn what_a_publication_makes_postgresql_refuse_is_on_the_page_with_what_helps() {
    let _machine = beside();
    let app = App::start();
    let ann = Visitor::admin(&app);
    app.get(&app.pixel(DAILY_MESSAGE, recipient(1)));
    app.at_rest();
    wait_until("the rollup", PATIENCE, || app.number("SELECT count(*) FROM opens") == 1).unwrap();
    app.query("ALTER TABLE opens REPLICA IDENTITY NOTHING");
    app.query("SET client_min_messages = error; CREATE PUBLICATION everything FOR ALL TABLES");
    let refused = "because it does not have a replica identity and publishes updates";
    let helps = "set REPLICA IDENTITY using ALTER TABLE";

    let answer = ann.post("/hits/delete", &form(&[("recipient", &recipient(1).to_string())]));
    let path = answer.header("location").unwrap_or_else(|| panic!("{}", text(&answer))).to_owned();
    let receipt = || text(&ann.get(&path));
    wait_until("the deletion", PATIENCE, || !receipt().contains("The deletion is running.")).unwrap();
    let page = receipt();
    assert!(
        page.contains("The deletion failed before it was done.") && page.contains(refused) && page.contains(helps),
        "{page}"
    );

    // As if it were put back: no node waits for the page that requested it.
    app.query(&format!(
        "INSERT INTO erasures (recipient_hash, put_back_at) \
         SELECT substring(sha256(secret || uuid_send('{}')) FOR 16), now() FROM installation WHERE name = 'privacy_key'",
        recipient(1)
    ));
    let overview = || text(&ann.get("/"));
    wait_until("the health line", PATIENCE, || overview().contains("Erasures cannot be finished in the database"))
        .unwrap();
    let page = overview();
    assert!(page.contains(refused) && page.contains(helps), "{page}");

    app.query("ALTER TABLE opens REPLICA IDENTITY DEFAULT");
    let erased = "SELECT count(*) FROM erasures WHERE deleted_at IS NOT NULL";
    wait_until("the erasure", PATIENCE + Duration::from_secs(60), || app.number(erased) == 1).unwrap();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 0);
    wait_until("the health line", PATIENCE, || !overview().contains("Erasures cannot be finished")).unwrap();
}
