//! `loadtest compare`: pixeld against what its users would choose instead, in turn, on the same core, several rounds.
//!
//! A figure of one run means little on a shared machine. Every comparison is made in pairs within a round; the result
//! is the median of the rounds' ratios.

mod footprint;
mod latency;
mod loading;
pub mod report;
mod rounds;

use std::path::PathBuf;
use std::time::Duration;

use crate::contestant::Contestant;
use crate::generator::{self, Control, Outcome, Pace, Plan, Reuse};
use crate::ledger::Ledger;
use crate::machine;
use crate::reconcile::reconcile;
use pixeld_testkit::postgres::Postgres;

pub use footprint::Footprint;
pub use latency::LatencyAtRate;
pub use loading::Loading;
pub use rounds::{Case, Sample};

/// Connections of most measurements.
const CONNECTIONS: usize = 64;

/// How long a server is warmed up before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to compare, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program.
    pub program: String,
    /// Rounds.
    pub rounds: usize,
    /// Length of one measurement.
    pub duration: Duration,
    /// Rows that the loader catches up with.
    pub rows: usize,
    /// The file for the results.
    pub out: PathBuf,
}

/// All measurements.
pub struct Results {
    /// CPU, rate and latency at peak, a list of rounds for each case.
    pub cases: Vec<(Case, Vec<Sample>)>,
    /// Latency at set rates.
    pub latencies: Vec<LatencyAtRate>,
    /// The rate that is 80 % of pixeld's peak.
    pub rate_of_80_percent: f64,
    /// The loader against psql.
    pub loading: Vec<Loading>,
    /// Memory, disk, start.
    pub footprint: Footprint,
}

/// Runs all comparisons, and writes the results.
///
/// # Errors
/// If a program is missing or fails, or a hit was lost.
pub fn run(options: &Options) -> anyhow::Result<()> {
    machine::allow_open_files()?;
    anyhow::ensure!(machine::leave_the_servers_core()?, "two cores are needed: one for the server, one for its client");
    let postgres = Postgres::start()?;
    let cases = rounds::measure(options, &postgres)?;
    let peak = rounds::median(&cases, Case::KEEP_ALIVE_WRITTEN, |sample| sample.rate);
    let (latencies, rate_of_80_percent) = latency::measure(options, &postgres, peak)?;
    let loading = loading::measure(options)?;
    let footprint = footprint::measure(options)?;
    let results = Results { cases, latencies, rate_of_80_percent, loading, footprint };
    report::write(options, &results)
}

/// One load on one server, reconciled.
fn load(
    contestant: &Contestant<'_>,
    pace: Pace,
    reuse: Reuse,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Outcome> {
    let pixels = contestant.pixels();
    let plan = Plan { target: contestant.target(), pixels, pace, reuse, connections, threads: 1, duration };
    let ledger = Ledger::new(16_000_000);
    // In a separate thread: programs that are started from here later, such as PostgreSQL, must not inherit the
    // priority.
    let outcome = std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            if !machine::go_first() {
                eprintln!("without root the client shares its core with PostgreSQL, and latencies are partly its own");
            }
            generator::run(&plan, &ledger, &Control::default())
        });
        loading.join().unwrap_or_else(|_| anyhow::bail!("the load panicked"))
    })?;
    let failed = outcome.refused + outcome.broken + outcome.timed_out;
    anyhow::ensure!(failed == 0, "{failed} requests were not answered with 200");
    contestant.settle()?;
    if let Contestant::Pixeld(server, _, postgres, _) = contestant {
        let comparison = reconcile(&postgres.url(), &plan.pixels, &ledger)?;
        anyhow::ensure!(comparison.is_exact(), "{comparison}\n{}", server.log());
    }
    Ok(outcome)
}

/// The middle of a list, or the mean of its two middles.
fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
