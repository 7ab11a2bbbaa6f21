//! CPU, rate and latency of each server at its peak, in turn, several rounds.

use std::collections::BTreeMap;

use super::{CONNECTIONS, Options, WARM_UP, load, median_of};
use crate::contestant::{Contestant, Kind};
use crate::generator::{Pace, Reuse};
use pixeld_testkit::postgres::Postgres;

/// What is measured in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The server.
    pub kind: Kind,
    /// The use of connections.
    pub reuse: Reuse,
    /// Their number.
    pub connections: usize,
}

impl Case {
    /// pixeld as most people will run it.
    pub const KEEP_ALIVE_WRITTEN: Case =
        Case { kind: Kind::Written, reuse: Reuse::KeepAlive, connections: CONNECTIONS };

    const ALL: [Case; 8] = [
        Case { kind: Kind::Nginx, ..Case::KEEP_ALIVE_WRITTEN },
        Case::KEEP_ALIVE_WRITTEN,
        Case { kind: Kind::Synced, ..Case::KEEP_ALIVE_WRITTEN },
        Case { kind: Kind::Nginx, reuse: Reuse::New, connections: CONNECTIONS },
        Case { kind: Kind::Written, reuse: Reuse::New, connections: CONNECTIONS },
        Case { kind: Kind::Synced, reuse: Reuse::New, connections: CONNECTIONS },
        Case { kind: Kind::Written, reuse: Reuse::KeepAlive, connections: 256 },
        Case { kind: Kind::Synced, reuse: Reuse::KeepAlive, connections: 256 },
    ];
}

/// The result of one measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The server's CPU per request, in µs, until everything is loaded.
    pub cpu_us: f64,
    /// Each thread's part of it, user and system.
    pub threads: BTreeMap<String, [f64; 2]>,
    /// PostgreSQL's CPU per request, in µs.
    pub database_cpu_us: f64,
    /// Requests a second.
    pub rate: f64,
    /// Latency in µs: median, 99th and 99.9th percentile.
    pub latency_us: [f64; 3],
    /// The server's memory at the end, in bytes.
    pub rss_bytes: u64,
}

/// The median of a figure of one case.
pub fn median(cases: &[(Case, Vec<Sample>)], case: Case, figure: impl Fn(&Sample) -> f64) -> f64 {
    let samples = cases.iter().find(|(found, _)| *found == case).map(|(_, samples)| samples.as_slice());
    median_of(samples.unwrap_or_default().iter().map(figure).collect())
}

/// The median of the rounds' ratios of a figure between two cases.
pub fn ratio(cases: &[(Case, Vec<Sample>)], case: Case, against: Case, figure: impl Fn(&Sample) -> f64) -> f64 {
    let of = |case: Case| cases.iter().find(|(found, _)| *found == case).map(|(_, samples)| samples.iter());
    let (Some(these), Some(those)) = (of(case), of(against)) else { return f64::NAN };
    median_of(these.zip(those).map(|(this, that)| figure(this) / figure(that)).collect())
}

/// Runs all rounds.
pub(super) fn measure(options: &Options, postgres: &Postgres) -> anyhow::Result<Vec<(Case, Vec<Sample>)>> {
    let mut cases: Vec<(Case, Vec<Sample>)> = Case::ALL.map(|case| (case, Vec::new())).to_vec();
    for round in 0..options.rounds {
        for step in 0..cases.len() {
            // Every second round runs in reverse order, so that no server always follows the same other one.
            let at = if round % 2 == 0 { step } else { cases.len() - 1 - step };
            let (case, samples) = &mut cases[at];
            let sample = one(options, postgres, *case)?;
            eprintln!(
                "round {} of {}: {:<20} {:<10} {:>4} connections  {:>6.2} µs CPU a request  {:>7.0} requests/s  p99 {:>6.0} µs",
                round + 1,
                options.rounds,
                case.kind.name(),
                reuse_name(case.reuse),
                case.connections,
                sample.cpu_us,
                sample.rate,
                sample.latency_us[1],
            );
            samples.push(sample);
        }
    }
    Ok(cases)
}

/// A way to use connections in words.
pub fn reuse_name(reuse: Reuse) -> &'static str {
    match reuse {
        Reuse::KeepAlive => "keep-alive",
        Reuse::New => "new",
        Reuse::Mixed(_) => "mixed",
    }
}

fn one(options: &Options, postgres: &Postgres, case: Case) -> anyhow::Result<Sample> {
    let contestant = Contestant::start(case.kind, &options.program, postgres)?;
    load(&contestant, Pace::Closed, case.reuse, case.connections, WARM_UP)?;
    contestant.forget_rows()?;
    let threads_before = contestant.threads()?;
    let (before, database_before) = (contestant.usage()?, contestant.database_usage()?);
    let outcome = load(&contestant, Pace::Closed, case.reuse, case.connections, options.duration)?;
    let (after, database_after) = (contestant.usage()?, contestant.database_usage()?);
    let threads_after = contestant.threads()?;
    let each = |spent: std::time::Duration| spent.as_secs_f64() * 1e6 / outcome.answered as f64;
    let thread = |(name, after): (String, [std::time::Duration; 2])| {
        let before = threads_before.get(&name).copied().unwrap_or_default();
        let spent = [0, 1].map(|part| each(after[part].saturating_sub(before[part])));
        (name, spent)
    };
    Ok(Sample {
        threads: threads_after.into_iter().map(thread).collect(),
        cpu_us: each(after.cpu.saturating_sub(before.cpu)),
        database_cpu_us: each(database_after.cpu.saturating_sub(database_before.cpu)),
        rate: outcome.rate(),
        latency_us: [0.5, 0.99, 0.999].map(|quantile| outcome.quantile_us(quantile)),
        rss_bytes: after.rss_bytes,
    })
}
