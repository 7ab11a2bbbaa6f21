//! How `/metrics` shows the numbers: their names, units and texts, in the OpenMetrics format.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{DropReason, Metrics, Outcome, Task};

/// The metrics as a collector.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Arc<Metrics>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (m, e) = (&*self.0, &mut encoder);
        hits(m, e)?;
        requests(m, e)?;
        spool(m, e)?;
        loading(m, e)?;
        shared_throttle(m, e)?;
        what_is_known(m, e)?;
        rollup(m, e)?;
        promises(m, e)
    }
}

/// Hits from the request to PostgreSQL.
fn hits(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    counter(e, "hits_accepted", "Hits from requests", m.accepted())?;
    gauge(e, "hits_recovered", "Hits found in older spools at start", m.recovered.get())?;
    gauge(e, "hits_queued", "Hits in memory, on the way to the spool", m.queued.get())?;
    gauge(e, "hits_spooled", "Hits in a spool, not yet in PostgreSQL (the backlog)", m.spooled.get())?;
    let help = "Hits set aside on disk because the database does not have their image";
    gauge(e, "hits_without_image", help, m.orphans.get())?;
    counter(e, "hits_loaded", "Hits committed by PostgreSQL", m.loaded.get())?;
    let dropped = DropReason::ALL.iter().map(|&reason| (reason.label(), m.dropped(reason)));
    counters(e, "hits_dropped", "Hits dropped on purpose", "reason", dropped)?;
    counter(e, "hits_clamped", "Hits whose impossible time was corrected", m.clamped.get())?;
    counter(
        e,
        "answered_unwritten",
        "Hits answered before they were known to be written",
        m.sum(|c| &c.answered_unwritten),
    )?;
    Ok(())
}

/// Requests and connections.
fn requests(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let requests = Outcome::ALL.iter().map(|&o| (o.label(), m.sum(|core| &core.requests[o as usize])));
    counters(e, "requests", "Requests on the public listener", "outcome", requests)?;
    counter(e, "requests_head", "HEAD requests among them", m.sum(|c| &c.heads))?;
    counter(e, "forwarded_untrusted", "Requests with X-Forwarded-For from a peer that is not trusted", {
        m.sum(|c| &c.forwarded_untrusted)
    })?;
    counter(e, "connections_opened", "Connections accepted", m.sum(|c| &c.connections_opened))?;
    counter(e, "connections_cut", "Connections closed at a limit or time-out", m.sum(|c| &c.connections_cut))?;
    gauge(e, "connections", "Connections open now", m.cores.iter().map(|c| c.connections.get()).sum())?;
    Ok(())
}

/// Spools on disk.
fn spool(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauge(e, "spool_bytes", "Bytes of all spools, including loaded segments that are kept", m.spool_bytes.get())?;
    gauge(e, "spool_room_bytes", "Bytes that spools may still grow by", m.spool_room.get())?;
    counter(e, "spool_appended_bytes", "Bytes appended to the spool", m.spool_appended.get())?;
    gauge(
        e,
        "outage_minutes_left",
        "Minutes of database outage that the spool can still hold (-1: not known without traffic)",
        m.outage_minutes.get(),
    )?;
    counter(e, "spool_sync_failures", "Syncs of a segment that failed", m.sync_failures.get())?;
    counter(e, "spool_forks", "Spools that got a new mark", m.spool_forks.get())?;
    counter(e, "spool_damages", "Damaged places found in segments", m.damages.get())?;
    counter(e, "spool_segments_missing", "Segments that another program or person deleted", m.segments_missing.get())?;
    gauge(e, "spools_unreadable", "Spools that cannot be read completely; their hits wait", m.unreadable())?;
    Ok(())
}

/// The loader.
fn loading(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let lag = ConstGauge::new(m.load_lag_seconds(crate::clock::now_micros()));
    let help = "Age of the oldest hit that is not in PostgreSQL";
    lag.encode(e.encode_descriptor("load_lag_seconds", help, None, MetricType::Gauge)?)?;
    counter(e, "load_retries", "Batches that failed and were retried", m.load_retries.get())?;
    gauge(e, "database_up", "1 while the loader's connection works", m.database_up.get())?;
    Ok(())
}

/// The throttle that nodes share.
fn shared_throttle(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Throttled hits that only the shared throttle held back";
    counter(e, "throttled_elsewhere", help, m.throttled_elsewhere.get())?;
    counter(e, "throttle_shared", "Hits that the shared throttle decided about", m.throttle_shared.get())?;
    let help = "Hits that this node's throttle decided about alone because Redis did not answer in time";
    counter(e, "throttle_alone", help, m.throttle_alone.get())?;
    let help = "Connections to Redis, and questions to it, that failed";
    counter(e, "redis_failures", help, m.redis_failures.get())?;
    let help = "1 while the shared throttle's connection to Redis works (-1: there is no shared throttle)";
    gauge(e, "redis_up", help, m.redis_up.get())?;
    Ok(())
}

/// User agents, images, opt-outs, networks.
fn what_is_known(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    counter(e, "user_agents_capped", "Hits whose user agent was not kept", m.user_agents_capped.get())?;
    gauge(e, "image_cache_bytes", "Bytes of cached images", m.image_cache_bytes.get())?;
    gauge(e, "opted_out_recipients", "Recipients who opted out, as far as this node knows", m.opted_out.get())?;
    gauge(e, "network_ranges", "Ranges of addresses whose network is known", m.network_ranges.get())?;
    gauge(e, "networks_missing", "Published lists of networks that were not downloaded", m.networks_missing.get())?;
    let help = "When the oldest published list of networks was written, in seconds since 1970 (0: there is none)";
    gauge(e, "networks_oldest_seconds", help, m.networks_oldest_s.get())?;
    counter(e, "networks_refused", "Files of networks that were refused", m.networks_refused.get())?;
    Ok(())
}

/// Opens and counts.
fn rollup(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    counter(e, "rollup_hits", "Hits that this process rolled up into opens and counts", m.rollup_hits.get())?;
    counter(e, "rollup_retries", "Rollups that failed and were retried", m.rollup_retries.get())?;
    counter(e, "rollup_mismatches", "Batches rolled up without all of their hits", m.rollup_mismatches.get())?;
    gauge(e, "rollup_pending_batches", "Loaded batches that are not rolled up yet", m.rollup_pending.get())?;
    let lag = ConstGauge::new(m.rollup_lag_seconds(crate::clock::now_micros()));
    let help = "Age of the oldest loaded batch that is not rolled up";
    lag.encode(e.encode_descriptor("rollup_lag_seconds", help, None, MetricType::Gauge)?)?;
    Ok(())
}

/// Erasures, retention, their clocks, and tasks that ended.
fn promises(m: &Metrics, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauge(e, "erasures_pending", "Erasures not yet carried out on this node's disk", m.erasures_pending.get())?;
    let help = "Segments rewritten without an erased recipient's hits";
    counter(e, "spool_segments_rewritten", help, m.segments_rewritten.get())?;
    counter(e, "retention_days_deleted", "Days of hits deleted after their retention", m.retention_days.get())?;
    gauge(e, "retention_days_overdue", "Days of hits beyond the retention that are not deleted yet", {
        m.retention_overdue.get()
    })?;
    gauge(e, "clock_ahead_seconds", "This machine's clock, ahead of the database's", m.clock_ahead_s.get())?;
    gauge(
        e,
        "clocks_disbelieved",
        "1 while pixeld deletes nothing because of its age, because the clocks cannot be right",
        m.clocks_disbelieved.get(),
    )?;
    let ended = Task::ALL.iter().map(|&task| (task.label(), m.tasks_ended[task as usize].get()));
    counters(e, "tasks_ended", "Tasks that ended unexpectedly", "task", ended)
}

fn counter(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(e.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(e.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counters(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = e.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value_label, value) in values {
        let labels = [(label, value_label)];
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
