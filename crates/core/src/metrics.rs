//! All metrics of pixeld, and how `/metrics` shows them.
//!
//! Guarantees: at rest (nothing in flight) `accepted + recovered = queued + spooled + loaded + dropped`, exactly. The
//! hot path counts in its own core's cache line, and the sums are computed when they are read. Gives up: while hits are
//! moving, the terms are read one after the other, so that the sum can be off by the hits that moved in between.

mod names;
mod shown;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clock::micros::Micros;

pub use self::names::{DropReason, Outcome, Task};

/// A count that only grows. Relaxed, since nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge that goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// Changes the gauge by `n`.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the gauge.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The current value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one core of the edge. In their own cache lines: two cores that count in one line wait for each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCounts {
    /// Hits that a request made; promise 2 covers them from here on.
    pub accepted: Count,
    /// Hits answered before their bytes were known to be in the spool.
    pub answered_unwritten: Count,
    /// Requests by outcome, in the order of [`Outcome::ALL`].
    pub requests: [Count; Outcome::ALL.len()],
    /// HEAD requests among them.
    pub heads: Count,
    /// Connections accepted.
    pub connections_opened: Count,
    /// Connections closed by us because a limit or a time-out was reached.
    pub connections_cut: Count,
    /// Connections open now.
    pub connections: Level,
    /// Requests that carried X-Forwarded-For from a peer that is not trusted.
    pub forwarded_untrusted: Count,
}

impl CoreCounts {
    /// Counts a request.
    pub fn request(&self, outcome: Outcome) {
        self.requests[outcome as usize].one();
    }
}

/// The numbers of one process.
#[derive(Debug)]
pub struct Metrics {
    /// A set for each core of the edge.
    pub cores: Box<[CoreCounts]>,
    /// Hits found in older spools that were not loaded when they were found.
    pub recovered: Level,
    /// Hits in memory, between an edge core and the spool.
    pub queued: Level,
    /// Hits in a spool, not yet loaded.
    pub spooled: Level,
    /// Hits that are set aside on disk until the database has their image again.
    pub orphans: Level,
    /// Hits that PostgreSQL committed.
    pub loaded: Count,
    /// Hits dropped, in the order of [`DropReason::ALL`].
    pub dropped: [Count; DropReason::ALL.len()],
    /// When hits were last dropped for a reason that stops recording, in ms since `started` plus 1; 0 is never.
    dropped_at_ms: [AtomicU64; DropReason::ALL.len()],
    started: Instant,
    /// Hits whose time was impossible, and was moved to the nearest possible one.
    pub clamped: Count,
    /// Hits whose user agent was not kept, since too many new ones came in an hour.
    pub user_agents_capped: Count,
    /// Bytes of all spools.
    pub spool_bytes: Level,
    /// Bytes by which spools may still grow, limited by their bound or by the disk.
    pub spool_room: Level,
    /// Why no hit can be written to the spool now, in a sentence; `None` if it can. Not a number, so not in `/metrics`.
    pub spool_problem: ArcSwapOption<String>,
    /// Bytes appended to the spool.
    pub spool_appended: Count,
    /// Minutes until the spool is full if nothing is loaded and hits arrive as in the last minutes; -1 is unknown.
    pub outage_minutes: Level,
    /// Syncs of a segment that failed.
    pub sync_failures: Count,
    /// Damaged places found in segments.
    pub damages: Count,
    /// Spools that got a new mark, since the database had other hits under their numbers.
    pub spool_forks: Count,
    /// Segments that somebody else deleted.
    pub segments_missing: Count,
    /// Spools of earlier starts that could not be read at the start and are left alone until the next one.
    pub spools_left_alone: Level,
    /// Spools whose next segment cannot be read now.
    pub spools_unreadable: Level,
    /// When the oldest hit that is not loaded was made, in µs since 1970; 0 while none is known.
    pub oldest_at_us: AtomicI64,
    /// Throttled hits that only the shared throttle held back: another node recorded them, or this one before its
    /// start.
    pub throttled_elsewhere: Count,
    /// Hits that the shared throttle was asked about, and answered.
    pub throttle_shared: Count,
    /// Hits that this node's throttle decided alone, since Redis did not answer in time.
    pub throttle_alone: Count,
    /// Connections to Redis, and questions to it, that failed.
    pub redis_failures: Count,
    /// 1 while the shared throttle has a working connection, 0 while it has none, -1 if there is no shared throttle.
    pub redis_up: Level,
    /// Batches that failed and were tried again.
    pub load_retries: Count,
    /// 1 while the loader has a working connection.
    pub database_up: Level,
    /// Rows of a committed batch.
    pub batch_rows: Histogram,
    /// Seconds that a batch's COPY took.
    pub copy_seconds: Histogram,
    /// Bytes of cached images.
    pub image_cache_bytes: Level,
    /// Recipients who are opted out, as far as this node knows.
    pub opted_out: Level,
    /// Ranges of addresses whose network is known.
    pub network_ranges: Level,
    /// Published lists of networks that are missing here.
    pub networks_missing: Level,
    /// When the oldest existing one was written, in s since 1970; 0 if there is none.
    pub networks_oldest_s: Level,
    /// Files of networks that were refused.
    pub networks_refused: Count,
    /// Hits that this process rolled up into opens and counts.
    pub rollup_hits: Count,
    /// Rollups that failed and were tried again.
    pub rollup_retries: Count,
    /// Batches that were rolled up without all of their hits.
    pub rollup_mismatches: Count,
    /// Loaded batches that are not rolled up yet, by any node.
    pub rollup_pending: Level,
    /// When the oldest of them was loaded, in µs since 1970; 0 if there is none.
    pub rollup_oldest_us: AtomicI64,
    /// Seconds that a rollup's transaction took.
    pub rollup_seconds: Histogram,
    /// Erasures that are not carried out on this node's disk yet.
    pub erasures_pending: Level,
    /// Segments that were rewritten without a recipient's hits.
    pub segments_rewritten: Count,
    /// Days of hits that this process deleted because they were older than the retention.
    pub retention_days: Count,
    /// Days of hits that are older than the retention and still exist.
    pub retention_overdue: Level,
    /// The code with which PostgreSQL refuses the loader's statements; `None` if it does not.
    pub load_refused: ArcSwapOption<String>,
    /// How far this machine's clock is ahead of the database's, in s.
    pub clock_ahead_s: Level,
    /// 1 while the clocks cannot be trusted, so that nothing is deleted because of its age.
    pub clocks_disbelieved: Level,
    /// Tasks that ended unexpectedly, in the order of [`Task::ALL`].
    pub tasks_ended: [Count; Task::ALL.len()],
    /// Why PostgreSQL cannot be used although it answers, in a sentence; `None` if it can. Not a number, so not in
    /// `/metrics`.
    pub database_problem: ArcSwapOption<String>,
    /// Why background tasks make no progress, each in a sentence. Not in `/metrics` either: their own metrics are.
    pub stuck: Stuck,
    /// Whether the database has the tables of this version. Not in `/metrics` either.
    pub tables_are_current: AtomicBool,
}

/// Why a task failed at its last attempt; `None` if it did not, or if only the connection to the database failed.
#[derive(Debug, Default)]
pub struct Stuck {
    /// Erasing on this node's disk.
    pub erasing: ArcSwapOption<String>,
    /// Finishing erasures in the database.
    pub finishing: ArcSwapOption<String>,
    /// Deleting what is older than the retention.
    pub retention: ArcSwapOption<String>,
    /// Bringing opens and counts up to date.
    pub rollup: ArcSwapOption<String>,
}

impl Metrics {
    /// Numbers for an edge of `cores` cores, all zero.
    pub fn new(cores: usize) -> Arc<Metrics> {
        Arc::new(Metrics {
            cores: (0..cores).map(|_| CoreCounts::default()).collect(),
            recovered: Level::default(),
            queued: Level::default(),
            spooled: Level::default(),
            orphans: Level::default(),
            loaded: Count::default(),
            dropped: Default::default(),
            dropped_at_ms: Default::default(),
            started: Instant::now(),
            clamped: Count::default(),
            user_agents_capped: Count::default(),
            spool_bytes: Level::default(),
            spool_room: Level::default(),
            spool_problem: ArcSwapOption::empty(),
            spool_appended: Count::default(),
            outage_minutes: Level(AtomicI64::new(-1)),
            sync_failures: Count::default(),
            damages: Count::default(),
            spool_forks: Count::default(),
            segments_missing: Count::default(),
            spools_left_alone: Level::default(),
            spools_unreadable: Level::default(),
            oldest_at_us: AtomicI64::new(0),
            throttled_elsewhere: Count::default(),
            throttle_shared: Count::default(),
            throttle_alone: Count::default(),
            redis_failures: Count::default(),
            redis_up: Level(AtomicI64::new(-1)),
            load_retries: Count::default(),
            database_up: Level::default(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            copy_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            image_cache_bytes: Level::default(),
            opted_out: Level::default(),
            network_ranges: Level::default(),
            networks_missing: Level::default(),
            networks_oldest_s: Level::default(),
            networks_refused: Count::default(),
            rollup_hits: Count::default(),
            rollup_retries: Count::default(),
            rollup_mismatches: Count::default(),
            rollup_pending: Level::default(),
            rollup_oldest_us: AtomicI64::new(0),
            rollup_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            erasures_pending: Level::default(),
            segments_rewritten: Count::default(),
            retention_days: Count::default(),
            retention_overdue: Level::default(),
            load_refused: ArcSwapOption::empty(),
            clock_ahead_s: Level::default(),
            clocks_disbelieved: Level::default(),
            tasks_ended: Default::default(),
            database_problem: ArcSwapOption::empty(),
            stuck: Stuck::default(),
            tables_are_current: AtomicBool::new(false),
        })
    }

    /// Counts `n` hits dropped for `reason`.
    pub fn drop_hits(&self, reason: DropReason, n: u64) {
        self.dropped[reason as usize].add(n);
        if n > 0 && reason.stops_recording() {
            let now_ms = self.started.elapsed().as_millis() as u64 + 1;
            self.dropped_at_ms[reason as usize].store(now_ms, Ordering::Relaxed);
        }
    }

    /// Why a hit last failed to reach the disk, and how long ago; `None` if none has.
    pub fn last_unrecorded(&self) -> Option<(DropReason, Duration)> {
        let latest =
            DropReason::ALL.iter().max_by_key(|&&reason| self.dropped_at_ms[reason as usize].load(Ordering::Relaxed));
        let &reason = latest?;
        let at_ms = self.dropped_at_ms[reason as usize].load(Ordering::Relaxed).checked_sub(1)?;
        Some((reason, self.started.elapsed().saturating_sub(Duration::from_millis(at_ms))))
    }

    /// Hits dropped for `reason` so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].get()
    }

    /// Spools that cannot be read completely: their hits wait.
    pub fn unreadable(&self) -> i64 {
        self.spools_left_alone.get() + self.spools_unreadable.get()
    }

    /// Hits accepted so far, over all cores.
    pub fn accepted(&self) -> u64 {
        self.sum(|core| &core.accepted)
    }

    /// Hits in memory or in a spool.
    pub fn waiting(&self) -> i64 {
        self.queued.get() + self.spooled.get()
    }

    /// Seconds since the oldest unloaded hit was made; 0 if all are loaded.
    pub fn load_lag_seconds(&self, now: Micros) -> f64 {
        let oldest = self.oldest_at_us.load(Ordering::Relaxed);
        if self.waiting() <= 0 || oldest == 0 { 0.0 } else { now.since(Micros(oldest)).as_secs_f64() }
    }

    /// Seconds since the oldest batch that is not rolled up was loaded; 0 if all are. If that cannot be read, seconds
    /// since the rollup stopped.
    pub fn rollup_lag_seconds(&self, now: Micros) -> f64 {
        match self.rollup_oldest_us.load(Ordering::Relaxed) {
            0 => 0.0,
            oldest => now.since(Micros(oldest)).as_secs_f64(),
        }
    }

    /// The text of `/metrics`, in the OpenMetrics format.
    ///
    /// # Errors
    /// None in practice; an error of the encoder.
    pub fn render(self: &Arc<Metrics>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("pixeld");
        registry.register("load_batch_rows", "Rows of a committed batch", self.batch_rows.clone());
        registry.register("load_copy_seconds", "Seconds that a batch's COPY took", self.copy_seconds.clone());
        let help = "Seconds that a rollup's transaction took";
        registry.register("rollup_seconds", help, self.rollup_seconds.clone());
        registry.register_collector(Box::new(shown::Shown(Arc::clone(self))));
        let mut text = String::with_capacity(8 << 10);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn sum(&self, count: impl Fn(&CoreCounts) -> &Count) -> u64 {
        self.cores.iter().map(|core| count(core).get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_shown_with_its_labels() {
        let metrics = Metrics::new(2);
        metrics.cores[0].accepted.add(2);
        metrics.cores[1].accepted.add(3);
        metrics.drop_hits(DropReason::Throttled, 4);
        metrics.cores[1].request(Outcome::Malformed);
        let text = metrics.render().unwrap();
        for line in [
            "pixeld_hits_accepted_total 5",
            "pixeld_hits_dropped_total{reason=\"throttled\"} 4",
            "pixeld_requests_total{outcome=\"malformed\"} 1",
            "pixeld_hits_queued 0",
            "pixeld_load_lag_seconds 0.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn nothing_waiting_means_no_lag() {
        let metrics = Metrics::new(1);
        metrics.oldest_at_us.store(1_000_000, Ordering::Relaxed);
        assert_eq!(metrics.load_lag_seconds(Micros(9_000_000)), 0.0);
        metrics.spooled.add(1);
        assert_eq!(metrics.load_lag_seconds(Micros(9_000_000)), 8.0);
    }
}
