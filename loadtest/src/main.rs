//! `loadtest`: loads of pixeld for the command line. Loopback only unless told otherwise; every load ends by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use loadtest::generator::{Pace, Reuse};
use loadtest::pixels::Links;
use loadtest::{compare, run};
use pixeld_core::ids::ImageId;

/// Loads pixeld, and finds out what became of each request.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One load; then what was answered, how fast, and whether every answer has its row in PostgreSQL, once.
    Run(RunArgs),
    /// pixeld against nginx answering a constant, in turn, several rounds; writes loadtest/RESULTS.md.
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The pixeld to start, with a private PostgreSQL in a temporary directory.
    #[arg(long, default_value = "target/release/pixeld")]
    program: String,
    /// A server that runs already, as address:port; needs --image. It must trust our X-Forwarded-For
    /// (PIXELD_TRUSTED_PROXIES), or run with PIXELD_ADDRESS_RATE=off.
    #[arg(long, requires = "image")]
    target: Option<SocketAddr>,
    /// An image of the server that runs already.
    #[arg(long)]
    image: Option<ImageId>,
    /// The database of the server that runs already, to reconcile with (`pixeld database-url`).
    #[arg(long)]
    database_url: Option<String>,
    /// The namespace of the server that runs already (`pixeld namespace`), for links that are not plain.
    #[arg(long, requires = "signing_key")]
    namespace: Option<String>,
    /// The signing key of the server that runs already, as in PIXELD_SIGNING_KEYS.
    #[arg(long, requires = "namespace")]
    signing_key: Option<String>,
    /// Send the load to another machine: only to one of yours.
    #[arg(long)]
    allow_remote: bool,
    /// PIXELD_DURABILITY of the pixeld that is started.
    #[arg(long, default_value = "written", value_parser = ["written", "synced"])]
    durability: String,
    /// Requests a second, an open loop; without it a closed loop finds the peak.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// plain, keyed or signed links, or mixed: one after the other.
    #[arg(long, default_value = "plain", value_parser = parse_links)]
    links: Links,
    /// keep-alive, new (a connection each request), or mixed:N (a new one for N of a hundred requests).
    #[arg(long, default_value = "keep-alive", value_parser = parse_reuse)]
    reuse: Reuse,
    /// Connections at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    connections: u64,
    /// Threads of the client.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// The pixeld to compare.
    #[arg(long, default_value = "target/release/pixeld")]
    program: String,
    /// Rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rows that the loader catches up with: several batches of 50,000, since its rate is measured between them.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(200_000..=100_000_000))]
    rows: u64,
    /// Where the results go.
    #[arg(long, default_value = "loadtest/RESULTS.md")]
    out: PathBuf,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1.0..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "a number of requests a second from 1 to 10000000 is needed".to_owned())
}

fn parse_links(text: &str) -> Result<Links, String> {
    match text {
        "plain" => Ok(Links::Plain),
        "keyed" => Ok(Links::Keyed),
        "signed" => Ok(Links::Signed),
        "mixed" => Ok(Links::Mixed),
        _ => Err("plain, keyed, signed or mixed is needed".to_owned()),
    }
}

fn parse_reuse(text: &str) -> Result<Reuse, String> {
    let percent = |text: &str| text.strip_prefix("mixed:")?.parse().ok().filter(|percent| (0..=100).contains(percent));
    match text {
        "keep-alive" => Ok(Reuse::KeepAlive),
        "new" => Ok(Reuse::New),
        _ => percent(text)
            .map(Reuse::Mixed)
            .ok_or_else(|| "keep-alive, new, or mixed:0 to mixed:100 is needed".to_owned()),
    }
}

fn main() -> ExitCode {
    match run_command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_command() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(args) => {
            let running = match (args.target, args.image) {
                (Some(target), Some(image)) => {
                    let is_here = target.ip().to_canonical().is_loopback();
                    anyhow::ensure!(
                        is_here || args.allow_remote,
                        "{target} is not this machine; --allow-remote, if it is yours"
                    );
                    let secrets = match (&args.namespace, &args.signing_key) {
                        (Some(namespace), Some(key)) => Some(run::secrets(namespace, key)?),
                        _ => None,
                    };
                    anyhow::ensure!(
                        secrets.is_some() || args.links == Links::Plain,
                        "links that are not plain need --namespace and --signing-key"
                    );
                    Some(run::Running { target, image, database_url: args.database_url, secrets })
                }
                _ => None,
            };
            run::run(&run::Options {
                program: args.program,
                running,
                durability: args.durability,
                pace: args.rate.map_or(Pace::Closed, Pace::Open),
                links: args.links,
                reuse: args.reuse,
                connections: args.connections as usize,
                threads: args.threads as usize,
                duration: Duration::from_secs(args.seconds),
            })
        }
        Command::Compare(args) => compare::run(&compare::Options {
            program: args.program,
            rounds: args.rounds as usize,
            duration: Duration::from_secs(args.seconds),
            rows: args.rows as usize,
            out: args.out,
        }),
    }
}
