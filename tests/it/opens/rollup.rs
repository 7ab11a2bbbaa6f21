//! Opens and counts match the hits: after any mixture of late batches, new verdicts and deletions, with several nodes
//! at work, and with everything killed in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loadtest::generator::Pace;
use nix::sys::signal::Signal;
use pixeld::parts::db::{Database, migrate, partitions};
use pixeld::parts::rollup::change::{ChangeError, Changes, Deleted, StoredHit, Target, Verdict};
use pixeld::parts::rollup::tally::{Lock, Tally};
use pixeld::parts::rollup::task::Rollup;
use pixeld::parts::rollup::turn::{Mismatches, Outcome, Rolled, roll_up};
use pixeld_core::drain;
use pixeld_core::ids::{MessageId, RecipientId};
use pixeld_core::metrics::Metrics;
use pixeld_testkit::postgres::Postgres;
use pixeld_testkit::process::wait_until;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::kit::support::{App, PATIENCE, alone, beside};
use crate::opens::recount::{self, assert_same};

/// The day of all hits here, and the one before it.
const DAYS: [time::Date; 2] = [time::macros::date!(2026 - 03 - 01), time::macros::date!(2026 - 03 - 02)];

/// A small generator of numbers: the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A database for one test, with few messages and recipients that meet often.
struct Books {
    postgres: Postgres,
    database: Database,
    runtime: Runtime,
    next_seq: [u64; 4],
    /// Whether many hits have the same time, or few.
    is_dense: bool,
}

fn message(number: u64) -> MessageId {
    MessageId::from_u128(if number == 0 { 0 } else { 0xaaaa_0000 + u128::from(number) })
}

fn recipient(number: u64) -> RecipientId {
    RecipientId::from_u128(if number == 0 { 0 } else { 0xbbbb_0000 + u128::from(number) })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Books {
    fn open() -> Books {
        let postgres = Postgres::start().unwrap();
        let database = Database::external(&postgres.url()).unwrap();
        let runtime = runtime();
        runtime.block_on(async {
            migrate::run(&database).await.unwrap();
            let session = database.connect("test").await.unwrap();
            for day in DAYS {
                partitions::make(&session.client, day).await.unwrap();
            }
        });
        // There are hits on both sides of the time from which hits are counted by quarter of an hour.
        postgres.query("UPDATE counting SET quarters_from = '2026-03-02 00:00:00+00'").unwrap();
        recount::prepare(&postgres);
        Books { postgres, database, runtime, next_seq: [0; 4], is_dense: true }
    }

    /// SQL that loads a batch like the loader: hits and batch in one transaction. Some hits are of the day before, many
    /// of the same second; some numbers are dropped and make no row.
    fn batch(&mut self, dice: &mut Dice, hits_max: u64) -> String {
        let spool = dice.below(4);
        let first = self.next_seq[spool as usize];
        let next = first + 1 + dice.below(hits_max);
        self.next_seq[spool as usize] = next;
        let mut rows = Vec::new();
        for seq in first..next {
            if dice.one_in(5) {
                continue;
            }
            let second = 79_200 + if self.is_dense { dice.below(6) * 3600 + dice.below(2) } else { dice.below(21_600) };
            rows.push(format!(
                "('2026-03-01 00:00:00+00'::timestamptz + interval '{second} seconds', {seq}, {}, '{}', '{}', '{}', {}, {}, {}, \
                 0, false, {})",
                dice.below(3),
                message(dice.below(4)),
                recipient(dice.below(6)),
                Uuid::from_u128(0xcccc_0000 + u128::from(dice.below(3))),
                spool + 1,
                dice.below(7),
                dice.below(4),
                dice.below(3),
            ));
        }
        let (loaded, dropped) = (rows.len(), (next - first) as usize - rows.len());
        let insert = if rows.is_empty() {
            "INSERT INTO new_hits SELECT * FROM hits LIMIT 0".to_owned()
        } else {
            let columns =
                "at, seq, user_agent, message, recipient, image, spool, class, rule, network, prefetch, client";
            format!("INSERT INTO new_hits ({columns}) VALUES {}", rows.join(", "))
        };
        format!(
            "BEGIN; CREATE TEMP TABLE new_hits (LIKE hits) ON COMMIT DROP; {insert}; INSERT INTO hits SELECT * FROM new_hits; \
             INSERT INTO batches (spool, first_seq, next_seq, loaded, throttled, min_at, max_at) \
             SELECT {}, {first}, {next}, {loaded}, {dropped}, min(at), max(at) FROM new_hits; COMMIT",
            spool + 1
        )
    }

    fn load(&mut self, dice: &mut Dice, hits_max: u64) {
        let batch = self.batch(dice, hits_max);
        self.postgres.query(&batch).unwrap();
    }

    fn roll_up(&self, hits_max: u64, mismatches: &mut Mismatches) -> Outcome {
        self.runtime.block_on(async {
            let tally = Tally::open(&self.database, "pixeld-rollup").await.unwrap();
            let mut state = tally.begin(Lock::Try).await.unwrap().unwrap();
            let outcome = roll_up(&tally, &mut state, hits_max, mismatches).await.unwrap();
            match outcome {
                Outcome::Rolled(_) => tally.commit().await.unwrap(),
                Outcome::Mismatch => tally.rollback().await.unwrap(),
            }
            outcome
        })
    }

    fn patient() -> Mismatches {
        Mismatches::new(Duration::from_secs(60))
    }
}

/// A new verdict for some hits, by their numbers and `round`: any thread may call it.
fn judge(hit: &StoredHit<'_>, round: u64) -> Verdict {
    let own = hit.at.unix_timestamp() as u64
        ^ u64::from(hit.recipient.as_bytes()[15]) << 3
        ^ u64::from(hit.message.as_bytes()[15]);
    let mut dice = Dice(own ^ (hit.user_agent_id as u64) << 40 ^ round << 20);
    if dice.one_in(3) {
        return hit.judged;
    }
    let mut number = |limit| dice.below(limit) as i16;
    Verdict { class: number(7), rule: number(4), client: number(3) }
}

/// Reclassifies all hits of all days in chunks, and counts in `changed` what changed, even if it is interrupted.
async fn reclassify(changes: &mut Changes, round: u64, changed: &AtomicU64) -> Result<(), ChangeError> {
    for day in changes.partitions(None).await? {
        let mut after = None;
        loop {
            let chunk = changes.reclassify_chunk(&day, after, |hit| judge(hit, round)).await?;
            changed.fetch_add(chunk.changed, Ordering::Relaxed);
            after = chunk.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

fn target(dice: &mut Dice) -> Target {
    let (message, recipient) = (message(1 + dice.below(3)), recipient(1 + dice.below(5)));
    match dice.below(4) {
        0 => Target::Recipient(recipient),
        1 => Target::Pair { message, recipient },
        2 => {
            let from = DAYS[0].midnight().assume_utc() + time::Duration::seconds(79_200 + dice.below(18_000) as i64);
            Target::Period { from, to: from + time::Duration::seconds(1 + dice.below(7_200) as i64) }
        }
        _ => Target::Message(message),
    }
}

#[test]
fn any_mixture_of_batches_judgements_and_deletions_leaves_what_the_hits_say() {
    let _machine = beside();
    let mut books = Books::open();
    let (changed, mut deleted) = (AtomicU64::new(0), Deleted::default());
    for seed in 1..=7 {
        let mut dice = Dice(seed);
        // A hit that is the only first or last one of its message, and then hits that compete for it.
        books.is_dense = seed > 3;
        for step in 0..24 {
            let what = dice.below(10);
            match what {
                0..=2 => (0..=dice.below(6)).for_each(|_| books.load(&mut dice, 40)),
                3..=5 => drop(books.roll_up(1 + dice.below(100), &mut Books::patient())),
                6..=7 => {
                    let rows_max = 5 + dice.below(150) as i64;
                    books.runtime.block_on(async {
                        let mut changes = Changes::with(&books.database, rows_max, Duration::ZERO).await.unwrap();
                        reclassify(&mut changes, seed * 100 + step, &changed).await.unwrap();
                    });
                }
                _ => {
                    let (target, rows_max) = (target(&mut dice), 1 + dice.below(20) as i64);
                    let gone = books.runtime.block_on(async {
                        let mut changes = Changes::with(&books.database, rows_max, Duration::ZERO).await.unwrap();
                        changes.delete_hits(target).await.unwrap()
                    });
                    deleted.hits += gone.hits;
                    deleted.opens += gone.opens;
                }
            }
            assert_same(&books.postgres, &format!("seed {seed}, step {step}, action {what}"));
        }
    }
    let changed = changed.into_inner();
    println!("{changed} hits were judged again, {deleted:?}");
    assert!(changed > 500 && deleted.hits > 100 && deleted.opens > 10, "that was no test: {changed} {deleted:?}");
    while books.roll_up(1000, &mut Books::patient()) != Outcome::Rolled(Rolled::default()) {}
    for number in 1..=5 {
        let gone = books.runtime.block_on(async {
            Changes::open(&books.database)
                .await
                .unwrap()
                .delete_hits(Target::Recipient(recipient(number)))
                .await
                .unwrap()
        });
        assert!(gone.hits > 0, "recipient {number} was there");
    }
    assert_same(&books.postgres, "after all recipients were deleted");
    assert_eq!(books.postgres.number("SELECT count(*) FROM opens").unwrap(), 0.0);
}

/// Reclassifies all hits, round after round. An interrupted round has still judged some.
fn judge_over_and_over(url: &str, rows_max: i64, pause: Duration, is_over: &AtomicBool, judged: &AtomicU64) {
    let database = Database::external(url).unwrap();
    let mut round = 0;
    while !is_over.load(Ordering::Relaxed) {
        round += 1;
        let outcome = runtime().block_on(async {
            let mut changes = Changes::with(&database, rows_max, Duration::from_secs(60)).await?;
            reclassify(&mut changes, round, judged).await
        });
        drop(outcome);
        std::thread::sleep(pause);
    }
}

/// Deletes hits of one target after the other. An interrupted deletion has still deleted some.
fn delete_over_and_over(url: &str, pause: Duration, is_over: &AtomicBool) {
    let database = Database::external(url).unwrap();
    let mut dice = Dice(77);
    while !is_over.load(Ordering::Relaxed) {
        let target = target(&mut dice);
        let outcome = runtime()
            .block_on(async { Changes::with(&database, 40, Duration::from_secs(60)).await?.delete_hits(target).await });
        drop(outcome);
        std::thread::sleep(pause);
    }
}

/// Ends connections of rollups and changes at work.
fn cut_connections(url: &str, is_over: &AtomicBool, cut: &AtomicU64) {
    // A rollup works for a few milliseconds a second, changes nearly always.
    let end_some = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state <> 'idle' \
                    AND random() < CASE application_name WHEN 'pixeld-rollup' THEN 0.3 WHEN 'pixeld-change' THEN 0.03 END";
    let database = Database::external(url).unwrap();
    runtime().block_on(async {
        let session = database.connect("test").await.unwrap();
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let ended = session.client.query(end_some, &[]).await.unwrap();
            cut.fetch_add(ended.len() as u64, Ordering::Relaxed);
        }
    });
}

#[test]
fn two_nodes_judgements_and_deletions_at_once_with_connections_cut_leave_what_the_hits_say() {
    let _machine = alone();
    let mut books = Books::open();
    let is_over = AtomicBool::new(false);
    let (cut, judged) = (AtomicU64::new(0), AtomicU64::new(0));
    let metrics = [Metrics::new(0), Metrics::new(0)];
    let url = books.postgres.url();
    // Until each of them has worked, however slow the machine is; within a bound.
    let batches: Vec<String> = (0..3000).map(|seed| books.batch(&mut Dice(seed), 60)).collect();
    let gone = "SELECT (SELECT sum(loaded) FROM batches) - (SELECT count(*) FROM hits)";
    // Changes roll up what is pending; something must be left for the nodes.
    let pause = Duration::from_millis(200);
    let (triggers, drains): (Vec<_>, Vec<_>) = (0..2).map(|_| drain::drain()).unzip();
    std::thread::scope(|scope| {
        for (metrics, drain) in metrics.iter().zip(drains) {
            let database = Database::external(&url).unwrap();
            scope.spawn(move || {
                let rollup = Rollup::new(database, Arc::clone(metrics), Arc::new(Notify::new()));
                runtime().block_on(rollup.run(async {}, drain));
            });
        }
        scope.spawn(|| judge_over_and_over(&url, 150, pause, &is_over, &judged));
        scope.spawn(|| delete_over_and_over(&url, pause, &is_over));
        scope.spawn(|| cut_connections(&url, &is_over, &cut));
        let retries = || metrics.iter().map(|metrics| metrics.rollup_retries.get()).sum::<u64>();
        let was_a_test = || {
            let [cut, judged] = [&cut, &judged].map(|count| count.load(Ordering::Relaxed));
            cut > 10 && judged > 500 && retries() > 0 && books.postgres.number(gone).unwrap() > 100.0
        };
        for (number, batch) in batches.iter().enumerate() {
            books.postgres.query(batch).unwrap();
            std::thread::sleep(Duration::from_millis(15));
            if number >= 250 && number % 50 == 0 && was_a_test() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        triggers.iter().for_each(|trigger| trigger.ask(Duration::from_secs(20)));
    });
    while books.roll_up(1000, &mut Books::patient()) != Outcome::Rolled(Rolled::default()) {}
    let [cut, judged] = [cut, judged].map(AtomicU64::into_inner);
    let gone = books.postgres.number(gone).unwrap();
    let retries: u64 = metrics.iter().map(|metrics| metrics.rollup_retries.get()).sum();
    println!("{cut} connections cut, {judged} hits judged again, {gone} deleted, {retries} rollups tried again");
    assert!(cut > 10 && judged > 500 && gone > 100.0 && retries > 0, "that was no test");
    assert_eq!(books.postgres.number("SELECT count(*) FROM batches WHERE published IS NULL").unwrap(), 0.0);
    assert_same(&books.postgres, "after all of it");
}

#[test]
fn kill_9_of_pixeld_and_of_postgresql_under_load_leave_what_the_hits_say() {
    let _machine = alone();
    let mut app = App::start();
    recount::prepare(&app.postgres);
    let is_over = AtomicBool::new(false);
    let url = app.url();
    let (judged, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| judge_over_and_over(&url, 5000, Duration::ZERO, &is_over, &judged));
        scope.spawn(|| {
            let database = Database::external(&url).unwrap();
            let some = "SELECT recipient FROM opens TABLESAMPLE SYSTEM (5) LIMIT 3";
            while !is_over.load(Ordering::Relaxed) {
                let outcome = runtime().block_on(async {
                    let rows = database.connect("test").await?.client.query(some, &[]).await?;
                    let mut changes = Changes::open(&database).await?;
                    for row in &rows {
                        gone.fetch_add(
                            changes.delete_hits(Target::Recipient(row.get(0))).await?.hits,
                            Ordering::Relaxed,
                        );
                    }
                    Ok::<_, ChangeError>(())
                });
                // An interrupted one tries again.
                drop(outcome);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for round in 0..7 {
            let load = app.load(16, Pace::Open(4000.0));
            load.wait_for(3000 + round * 300);
            app.server.kill().unwrap();
            load.end();
            if round % 3 == 2 {
                let pid = app.postgres.pid().unwrap();
                pixeld_testkit::process::signal(pid, Signal::SIGQUIT).unwrap();
                let ended = || !pixeld_testkit::process::is_alive(pid);
                wait_until("PostgreSQL's end", PATIENCE, ended).unwrap();
                app.postgres.start_again().unwrap();
            }
            app.restart();
        }
        app.at_rest();
        let was_a_test = || judged.load(Ordering::Relaxed) > 10_000 && gone.load(Ordering::Relaxed) > 10;
        wait_until("judgements and deletions", 2 * PATIENCE, was_a_test).unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
    app.wait_for_rollup();
    let [judged, gone] = [judged, gone].map(AtomicU64::into_inner);
    let hits = app.number("SELECT count(*) FROM hits");
    println!("{hits} hits, {judged} judged again, {gone} deleted");
    assert!(hits > 15_000 && judged > 10_000 && gone > 10, "that was no test");
    assert_same(&app.postgres, "after seven rounds");
}

#[test]
fn a_batch_without_all_of_its_hits_is_waited_for_and_then_rolled_up_as_it_is() {
    let _machine = beside();
    let mut books = Books::open();
    let mut dice = Dice(5);
    books.load(&mut dice, 40);
    books
        .postgres
        .query("CREATE TABLE aside AS SELECT * FROM hits LIMIT 3; DELETE FROM hits h USING aside a WHERE a.seq = h.seq")
        .unwrap();
    let mut mismatches = Books::patient();
    assert_eq!(books.roll_up(1000, &mut mismatches), Outcome::Mismatch);
    assert_eq!(books.postgres.number("SELECT count(*) FROM opens").unwrap(), 0.0);
    // They arrive after all.
    books.postgres.query("INSERT INTO hits SELECT * FROM aside").unwrap();
    assert!(matches!(books.roll_up(1000, &mut mismatches), Outcome::Rolled(Rolled { batches: 1, mismatches: 0, .. })));
    assert_same(&books.postgres, "after the hits came");
    // They do not arrive.
    books.load(&mut dice, 40);
    let one = "SELECT h.spool, h.seq FROM hits h JOIN batches b ON b.spool = h.spool AND h.seq >= b.first_seq \
               WHERE b.published IS NULL LIMIT 1";
    books.postgres.query(&format!("DELETE FROM hits WHERE (spool, seq) = ({one})")).unwrap();
    let mut impatient = Mismatches::new(Duration::from_millis(200));
    assert_eq!(books.roll_up(1000, &mut impatient), Outcome::Mismatch);
    std::thread::sleep(Duration::from_millis(250));
    let outcome = books.roll_up(1000, &mut impatient);
    assert!(matches!(outcome, Outcome::Rolled(Rolled { batches: 1, mismatches: 1, .. })), "{outcome:?}");
    assert_same(&books.postgres, "after the hits were given up");
}

#[test]
fn a_batch_that_comes_in_the_middle_of_a_change_is_in_no_count_twice() {
    let _machine = beside();
    let mut books = Books::open();
    let mut dice = Dice(8);
    (0..4).for_each(|_| books.load(&mut dice, 60));
    let late: Vec<String> = (0..20).map(|_| books.batch(&mut dice, 30)).collect();
    let mut late = late.into_iter();
    let writer = Database::external(&books.postgres.url()).unwrap();
    books.runtime.block_on(async {
        // Chunks smaller than most opens, so that hits outside the chunk are searched, among them the new ones.
        let mut changes = Changes::with(&books.database, 15, Duration::from_secs(60)).await.unwrap();
        for day in changes.partitions(None).await.unwrap() {
            let mut after = None;
            loop {
                let mut batch = late.next();
                let judge_while_one_comes = |hit: &StoredHit<'_>| {
                    if let Some(batch) = batch.take() {
                        let load =
                            async { writer.connect("test").await.unwrap().client.batch_execute(&batch).await.unwrap() };
                        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(load)).join().unwrap());
                    }
                    judge(hit, 3)
                };
                after = changes.reclassify_chunk(&day, after, judge_while_one_comes).await.unwrap().next;
                if after.is_none() {
                    break;
                }
            }
        }
    });
    assert!(late.len() < 15, "{} batches did not come", late.len());
    assert_same(&books.postgres, "with the last ones pending");
    books.roll_up(10_000, &mut Books::patient());
    assert_same(&books.postgres, "after it");
}

#[test]
fn a_frozen_open_is_never_computed_again_and_is_erased_whole() {
    let _machine = beside();
    let mut books = Books::open();
    let mut dice = Dice(6);
    (0..5).for_each(|_| books.load(&mut dice, 60));
    books.roll_up(10_000, &mut Books::patient());
    let opens = "SELECT (o.*)::text FROM opens o WHERE first_at < '2026-03-02' ORDER BY 1";
    let frozen = books.postgres.query(opens).unwrap();
    assert!(frozen.len() > 5, "{}", frozen.len());
    // Retention drops the day.
    books.postgres.query("DROP TABLE hits_20260301; UPDATE rollup_state SET retained_from = '2026-03-02'").unwrap();
    books.runtime.block_on(async {
        let mut changes = Changes::open(&books.database).await.unwrap();
        let changed = AtomicU64::new(0);
        reclassify(&mut changes, 1, &changed).await.unwrap();
        assert!(changed.into_inner() > 0);
        // For a time range that contains some of their hits, only the hits are deleted.
        let from = DAYS[1].midnight().assume_utc();
        let period = Target::Period { from, to: from + time::Duration::minutes(30) };
        assert!(changes.delete_hits(period).await.unwrap().hits > 0);
    });
    assert_eq!(books.postgres.query(opens).unwrap(), frozen);
    // The hits of each hour still match the hits of the retained day.
    let off = "SELECT count(*) FROM site_hours s FULL JOIN should_site_hours t USING (hour, class) \
               WHERE COALESCE(s.hour, t.hour) >= '2026-03-02' AND COALESCE(s.hits, 0) <> COALESCE(t.hits, 0)";
    assert_eq!(books.postgres.number(off).unwrap(), 0.0);
    for number in 1..=5 {
        books.runtime.block_on(async {
            Changes::open(&books.database)
                .await
                .unwrap()
                .delete_hits(Target::Recipient(recipient(number)))
                .await
                .unwrap()
        });
    }
    assert_eq!(books.postgres.number("SELECT count(*) FROM opens").unwrap(), 0.0);
    assert_eq!(
        books.postgres.number("SELECT sum(opens + confirmed_opens + possible_opens) FROM messages").unwrap(),
        0.0
    );
    assert_eq!(books.postgres.number("SELECT sum(first_opens + first_confirmed_opens) FROM site_hours").unwrap(), 0.0);
}

#[test]
fn a_closed_day_gets_its_index_and_an_unfinished_one_is_replaced() {
    let _machine = beside();
    let mut books = Books::open();
    let mut dice = Dice(7);
    (0..5).for_each(|_| books.load(&mut dice, 60));
    // Interrupted: a unique index over duplicates stays invalid, like an interrupted one.
    books
        .postgres
        .query("CREATE UNIQUE INDEX CONCURRENTLY hits_20260302_half ON hits_20260302 (recipient)")
        .unwrap_err();
    let count = |valid: bool| {
        format!(
            "SELECT count(*) FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
             WHERE a.attname = 'recipient' AND x.indisvalid = {valid} AND x.indrelid::regclass::text LIKE 'hits_2026%'"
        )
    };
    assert_eq!(books.postgres.number(&count(false)).unwrap(), 1.0);
    let tomorrow = books.postgres.number("SELECT extract(epoch FROM now())").unwrap() as i64 + 86_400;
    books.runtime.block_on(async {
        let session = books.database.connect("test").await.unwrap();
        let tomorrow = time::OffsetDateTime::from_unix_timestamp(tomorrow).unwrap().date();
        partitions::make(&session.client, tomorrow).await.unwrap();
        let other = books.database.connect("test").await.unwrap();
        let (one, two) =
            tokio::join!(partitions::index_closed_days(&session.client), partitions::index_closed_days(&other.client));
        assert_eq!(
            one.unwrap() + two.unwrap(),
            2,
            "one of two nodes makes one for each closed day, and none for others"
        );
        assert_eq!(partitions::index_closed_days(&session.client).await.unwrap(), 0);
    });
    assert_eq!(books.postgres.number(&count(true)).unwrap(), 2.0);
    assert_eq!(books.postgres.number(&count(false)).unwrap(), 0.0);
}

#[test]
fn an_open_is_there_within_seconds_of_its_fetch_and_after_a_drain() {
    let _machine = beside();
    let mut app = App::start();
    let (message, recipient) = (Uuid::new_v4(), Uuid::new_v4());
    let path = app.pixel(message, recipient);
    let opens = format!("SELECT count(*) FROM opens WHERE message = '{message}'");
    let fetched = Instant::now();
    assert_eq!(app.get(&path).status, 200);
    wait_until("the open", PATIENCE, || app.number(&opens) == 1).unwrap();
    println!("the open was there after {:?}", fetched.elapsed());
    let metrics = app.server.metrics().unwrap();
    assert_eq!(metrics.get("pixeld_rollup_hits_total"), 1.0, "{}", metrics.0);
    // The last hit before the end is an open after it.
    assert_eq!(app.get(&app.pixel(message, Uuid::new_v4())).status, 200);
    app.server.terminate().unwrap();
    assert_eq!(app.number(&opens), 2);
}

#[test]
fn while_nothing_can_be_rolled_up_the_lag_grows_and_afterwards_it_is_gone() {
    let _machine = beside();
    let app = App::start();
    app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    app.at_rest();
    let lag = || app.server.metrics().unwrap().get("pixeld_rollup_lag_seconds");
    wait_until("the rollup", PATIENCE, || lag() == 0.0 && app.number("SELECT count(*) FROM opens") == 1).unwrap();
    app.query("ALTER TABLE rollup_state RENAME TO away");
    app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    wait_until("the lag", PATIENCE, || lag() > 5.0).unwrap();
    app.query("ALTER TABLE away RENAME TO rollup_state");
    wait_until("the rollup", PATIENCE, || lag() == 0.0 && app.number("SELECT count(*) FROM opens") == 2).unwrap();
}
