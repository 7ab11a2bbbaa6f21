//! The shared throttle's script on a real Redis, with chosen times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pixeld::parts::config::Secret;
use pixeld::parts::ingest::judge::Question;
use pixeld::parts::ingest::shared_throttle::{ANSWER_WAIT, ENTRIES_MAX, KEY_PREFIX, QUESTION_HITS_MAX, SharedThrottle};
use pixeld::parts::ingest::throttle::Throttle;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::hit::fixture::carrying;
use pixeld_core::ids::{RecipientId, SpoolId};
use pixeld_core::metrics::Metrics;
use pixeld_testkit::redis::Redis;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::kit::support::{PATIENCE, alone, beside};

const HOUR: Duration = Duration::from_secs(3600);

/// Somewhere in 2026.
const NOON: Micros = Micros::of_seconds(1_779_969_600);

/// Nothing is held back.
const NONE: [u64; 0] = [];

/// A spool's UUID.
fn spool_of(number: i32) -> SpoolId {
    SpoolId::of(Uuid::from_u64_pair(number as u64, 7))
}

/// A loader's end of the throttle, without a loader.
struct Asker {
    runtime: Runtime,
    shared: SharedThrottle,
    throttle: Throttle,
    metrics: Arc<Metrics>,
    /// Questions without an answer in time, as far as they were noticed.
    late: u64,
}

impl Asker {
    fn start(redis: &Redis) -> Asker {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = Metrics::new(1);
        let url = Secret::new(redis.url());
        let shared = runtime.block_on(async { SharedThrottle::start(&url, HOUR, &metrics).unwrap() });
        let asker = Asker { runtime, shared, throttle: Throttle::new(HOUR, [7; 16]), metrics, late: 0 };
        asker.let_run_until("a connection", |metrics| metrics.redis_up.get() == 1);
        asker
    }

    /// Lets its tasks run, as beside a loader.
    fn let_run_until(&self, what: &str, done: impl Fn(&Metrics) -> bool) {
        self.runtime.block_on(async {
            let started = Instant::now();
            while !done(&self.metrics) {
                assert!(started.elapsed() < PATIENCE, "{what}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    /// The time between two batches.
    fn rest(&self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
    }

    /// A question about the hit `seq` of a recipient, `minutes` after noon.
    fn question(&self, (seq, recipient, minutes): (u64, u128, i64)) -> Question {
        let at = Micros(NOON.0 + minutes * 60_000_000);
        let hit = Hit { at, recipient: RecipientId::from_u128(recipient), ..carrying(0, "") };
        Question { seq, token: self.throttle.token(&hit, 0).unwrap() }
    }

    /// Asks, and returns the numbers of the hits that are held back. A late answer counts as none, so it asks again,
    /// like a loader after a failed batch.
    fn ask(&mut self, spool: i32, hits: &[(u64, u128, i64)]) -> Vec<u64> {
        self.late = self.metrics.throttle_alone.get();
        for _ in 0..100 {
            let answer = self.ask_once(spool, hits);
            if self.metrics.throttle_alone.get() == self.late {
                return answer;
            }
            self.late = self.metrics.throttle_alone.get();
            self.let_run_until("a connection", |metrics| metrics.redis_up.get() == 1);
        }
        panic!("Redis never answers in time");
    }

    /// Asks once, whatever the result is.
    fn ask_once(&mut self, spool: i32, hits: &[(u64, u128, i64)]) -> Vec<u64> {
        let questions: Vec<Question> = hits.iter().map(|&hit| self.question(hit)).collect();
        self.runtime.block_on(self.shared.ask(spool_of(spool), &questions))
    }
}

#[test]
fn hits_two_hours_apart_stay_two_in_any_order_and_those_within_the_window_do_not() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let (mut one, mut other) = (Asker::start(&redis), Asker::start(&redis));
    // Long after the fact, and the later one first; on one node, on two, and within one batch.
    assert_eq!(one.ask(1, &[(0, 7, 0)]), NONE);
    assert_eq!(one.ask(1, &[(1, 7, -120)]), NONE);
    assert_eq!(other.ask(2, &[(0, 7, 120), (1, 7, 240)]), NONE);
    // Near one of the four, before or after it, and just beyond.
    assert_eq!(other.ask(2, &[(2, 7, 59), (3, 7, -61), (4, 7, -120), (5, 7, 299), (6, 7, 181)]), [2, 3, 4, 5, 6]);
    assert_eq!(other.ask(2, &[(7, 7, 60), (8, 7, 300), (9, 8, 0), (10, 7, -180)]), NONE);
}

#[test]
fn a_hit_that_asks_again_is_let_through_again_and_another_one_is_not() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let (mut one, mut other) = (Asker::start(&redis), Asker::start(&redis));
    let batch = [(0, 7, 0), (1, 7, 10), (2, 8, 0), (3, 7, 90)];
    for _ in 0..3 {
        assert_eq!(one.ask(1, &batch), [1]);
        assert_eq!(other.ask(2, &[(0, 7, 1), (1, 8, 1)]), [0, 1], "the same numbers of another spool");
    }
    // In halves, and by another process of the same node.
    assert_eq!(one.ask(1, &batch[..2]), [1]);
    assert_eq!(other.ask(1, &batch[2..]), NONE);
}

#[test]
fn a_hit_that_is_held_back_holds_nothing_back() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let (mut one, mut other) = (Asker::start(&redis), Asker::start(&redis));
    assert_eq!(one.ask(1, &[(0, 7, 0)]), NONE);
    // The second is near the first only, which is not recorded; the third is near the second.
    assert_eq!(other.ask(2, &[(0, 7, 50), (1, 7, 100), (2, 7, 150)]), [0, 2]);
}

#[test]
fn a_place_that_is_given_back_is_free_and_the_others_stay() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let (mut one, mut other) = (Asker::start(&redis), Asker::start(&redis));
    assert_eq!(one.ask(1, &[(0, 7, 0), (1, 7, 120), (2, 8, 0)]), NONE);
    for (seq, recipient, minutes) in [(0, 7, 0), (2, 8, 0)] {
        let question = one.question((seq, recipient, minutes));
        one.runtime.block_on(one.shared.release(spool_of(1), question));
    }
    assert_eq!(redis.ask::<u64>("DBSIZE").unwrap(), 1);
    assert_eq!(other.ask(2, &[(0, 7, 1), (1, 7, 119), (2, 8, 1)]), [1]);
}

#[test]
fn keys_name_nobody_have_our_prefix_and_expire_and_hold_a_bounded_number_of_entries() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    let entries = ENTRIES_MAX as i64;
    // The latest first, so that the one that arrived last is forgotten.
    let hits: Vec<(u64, u128, i64)> = (0..2 * entries).rev().map(|n| (n as u64, 7, n * 60)).collect();
    assert_eq!(asker.ask(1, &hits), NONE);
    let keys: Vec<String> = redis.ask("KEYS *").unwrap();
    assert_eq!(keys, [format!("{KEY_PREFIX}{:016x}", asker.question(hits[0]).token.fingerprint())]);
    let held: String = redis.ask(&format!("GET {}", keys[0])).unwrap();
    assert_eq!(held.split(';').count(), ENTRIES_MAX, "{held}");
    let ttl: i64 = redis.ask(&format!("PTTL {}", keys[0])).unwrap();
    assert!((7_190_000..=7_200_000).contains(&ttl), "{ttl}");
    // The latest are still held; the earliest are forgotten except the one that arrived last.
    assert_eq!(asker.ask(2, &[(0, 7, (2 * entries - 1) * 60 + 1), (1, 7, 120)]), [0]);
}

#[test]
fn what_somebody_else_left_under_our_key_is_overwritten() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    let key = |recipient| format!("{KEY_PREFIX}{:016x}", asker.question((0, recipient, 0)).token.fingerprint());
    let (text, list) = (key(7), key(8));
    redis.ask::<String>(&format!("SET {text} nonsense")).unwrap();
    redis.ask::<u64>(&format!("LPUSH {list} nonsense")).unwrap();
    assert_eq!(asker.ask(1, &[(0, 7, 0), (1, 8, 0), (2, 7, 1), (3, 8, 1)]), [2, 3]);
}

#[test]
fn a_redis_that_forgot_everything_lets_through_and_learns_again() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    assert_eq!(asker.ask(1, &[(0, 7, 0)]), NONE);
    for command in ["FLUSHALL", "SCRIPT FLUSH"] {
        assert_eq!(redis.ask::<String>(command).unwrap(), "OK");
    }
    assert_eq!(asker.ask(2, &[(0, 7, 1)]), NONE);
    assert_eq!(asker.ask(3, &[(0, 7, 2)]), [0]);
}

#[test]
fn a_redis_without_memory_lets_through_and_is_used_again_later() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    let cases = [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")];
    for (recipient, (refuse, accept)) in (7..).zip(cases) {
        redis.ask::<String>(refuse).unwrap();
        let failures = asker.metrics.redis_failures.get();
        for seq in 0..50 {
            assert_eq!(asker.ask_once(1, &[(seq, recipient, 0)]), NONE, "{refuse}");
            asker.rest();
        }
        let failures = asker.metrics.redis_failures.get() - failures;
        assert!((1..10).contains(&failures), "{failures} attempts in half a second: {refuse}");
        redis.ask::<String>(accept).unwrap();
        asker.let_run_until("Redis is found again", |metrics| metrics.redis_up.get() == 1);
        assert_eq!(asker.ask(2, &[(0, recipient, 0), (1, recipient, 1)]), [1]);
    }
}

#[test]
fn a_frozen_redis_costs_one_short_wait_and_is_found_again() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    redis.freeze().unwrap();
    let started = Instant::now();
    assert_eq!(asker.ask_once(1, &[(0, 7, 0)]), NONE);
    let first = started.elapsed();
    // For three seconds a batch each 10 ms: at most one wait per pause, and pauses grow.
    let (mut waited, mut longest) = (Duration::ZERO, Duration::ZERO);
    for seq in 1..300 {
        let asked = Instant::now();
        assert_eq!(asker.ask_once(1, &[(seq, 7, 0)]), NONE);
        let took = asked.elapsed();
        (waited, longest) = (waited + took, longest.max(took));
        asker.rest();
    }
    println!("frozen: the first batch waited {first:?}, 299 more {waited:?} together, the longest {longest:?}");
    // Had each batch waited, that would be 300 waits.
    assert!(waited < ANSWER_WAIT * 60, "{waited:?}");
    assert_eq!(asker.metrics.throttle_alone.get(), 300);
    redis.thaw().unwrap();
    asker.let_run_until("Redis is found again", |metrics| metrics.redis_up.get() == 1);
    assert_eq!((asker.ask(2, &[(0, 8, 0)]), asker.ask(3, &[(0, 8, 1)])), (vec![], vec![0]));
}

#[test]
fn a_redis_that_is_always_too_slow_costs_a_wait_a_pause() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    let (mut waited, mut waits) = (Duration::ZERO, 0);
    let started = Instant::now();
    let mut seq = 0;
    while started.elapsed() < Duration::from_secs(4) {
        if asker.metrics.redis_up.get() == 1 {
            // Paused once there is a connection, for longer than a batch waits.
            redis.ask::<String>("CLIENT PAUSE 80 ALL").unwrap();
        }
        let asked = Instant::now();
        assert_eq!(asker.ask_once(1, &[(seq, 7, 0)]), NONE);
        waited += asked.elapsed();
        waits += u64::from(asked.elapsed() >= ANSWER_WAIT);
        seq += 1;
        asker.rest();
    }
    println!("always too slow: {waits} of {seq} batches waited, {waited:?} together");
    assert!(waits * 4 < seq, "{waits} of {seq} batches waited, {waited:?}");
}

#[test]
fn the_largest_question_is_answered_well_within_the_wait() {
    let _machine = alone();
    let redis = Redis::start().unwrap();
    let mut asker = Asker::start(&redis);
    let count = QUESTION_HITS_MAX as u64;
    let mut times = Vec::new();
    // On a busy machine one may take longer than the wait, and is decided alone.
    for batch in 0..100 {
        if asker.metrics.throttle_shared.get() >= 8 * count {
            break;
        }
        asker.let_run_until("Redis is asked again", |metrics| metrics.redis_up.get() == 1);
        let hits: Vec<_> = (batch * count..(batch + 1) * count).map(|seq| (seq, u128::from(seq) + 1, 0)).collect();
        let started = Instant::now();
        assert_eq!(asker.ask_once(1, &hits), NONE);
        times.push(started.elapsed());
    }
    println!("{times:?}");
    times.sort_unstable();
    println!("{count} hits: {:?} in the middle of {}", times[times.len() / 2], times.len());
    assert!(asker.metrics.throttle_shared.get() >= 8 * count, "{times:?}");
}
