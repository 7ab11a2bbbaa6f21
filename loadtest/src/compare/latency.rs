//! Latency at set rates: an open loop, so that a stall counts for all the requests that were due in it.

use super::{CONNECTIONS, Options, WARM_UP, load};
use crate::contestant::{Contestant, Kind};
use crate::generator::{Pace, Reuse};
use pixeld_testkit::postgres::Postgres;

/// Shares of pixeld's peak that the chart shows.
const SHARES: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9];

/// The share of the goal.
const GOAL_SHARE: f64 = 0.8;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct LatencyAtRate {
    /// The server.
    pub kind: Kind,
    /// The set rate, in requests a second.
    pub rate: f64,
    /// Latency in µs: median, 99th and 99.9th percentile.
    pub latency_us: [f64; 3],
}

/// Measures all servers at all rates: the goal's rate once per round, the others once. Returns the goal's rate too.
pub(super) fn measure(options: &Options, postgres: &Postgres, peak: f64) -> anyhow::Result<(Vec<LatencyAtRate>, f64)> {
    let mut measured = Vec::new();
    for share in SHARES {
        let rounds = if share == GOAL_SHARE { options.rounds } else { 1 };
        for round in 0..rounds {
            let mut kinds = [Kind::Nginx, Kind::Written, Kind::Synced];
            kinds.rotate_left(round % 3);
            for kind in kinds {
                let rate = peak * share;
                let contestant = Contestant::start(kind, &options.program, postgres)?;
                load(&contestant, Pace::Open(rate), Reuse::KeepAlive, CONNECTIONS, WARM_UP)?;
                contestant.forget_rows()?;
                let outcome = load(&contestant, Pace::Open(rate), Reuse::KeepAlive, CONNECTIONS, options.duration)?;
                let latency_us = [0.5, 0.99, 0.999].map(|quantile| outcome.quantile_us(quantile));
                eprintln!(
                    "{:<20} at {rate:>7.0} requests/s: p50 {:>6.0} µs, p99 {:>6.0} µs, p99.9 {:>6.0} µs",
                    kind.name(),
                    latency_us[0],
                    latency_us[1],
                    latency_us[2]
                );
                measured.push(LatencyAtRate { kind, rate, latency_us });
            }
        }
    }
    Ok((measured, peak * GOAL_SHARE))
}
