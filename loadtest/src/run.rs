//! `loadtest run`: one load, with live progress, then the table: what was answered, how fast, and what was recorded.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use pixeld_core::ids::ImageId;
use pixeld_core::link::key::Namespace;
use pixeld_core::link::token::SigningKeys;

use crate::contestant::start_pixeld;
use crate::generator::{self, Control, Outcome, Pace, Plan, Reuse};
use crate::ledger::Ledger;
use crate::machine;
use crate::pixels::{Links, Pixels, Secrets};
use crate::reconcile::reconcile;
use pixeld_testkit::postgres::open_dir;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings};

/// The key of the server that is started here: it signs nothing else.
const SIGNING_KEYS: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How long the hits may take to reach PostgreSQL after the load.
const LOADED_WAIT: Duration = Duration::from_secs(300);

/// A server that is already running.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its address.
    pub target: SocketAddr,
    /// An image that it has.
    pub image: ImageId,
    /// Its database, to reconcile with.
    pub database_url: Option<String>,
    /// What its keyed and signed links need.
    pub secrets: Option<Secrets>,
}

/// A load.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program to start, if none is running.
    pub program: String,
    /// A running server.
    pub running: Option<Running>,
    /// `PIXELD_DURABILITY` of the one that is started.
    pub durability: String,
    /// When requests are sent.
    pub pace: Pace,
    /// The kinds of links.
    pub links: Links,
    /// The use of connections.
    pub reuse: Reuse,
    /// Their number.
    pub connections: usize,
    /// Threads of the client.
    pub threads: usize,
    /// The duration.
    pub duration: Duration,
}

/// Runs the load and prints its table.
///
/// # Errors
/// If a server does not start, or the promise was broken.
pub fn run(options: &Options) -> anyhow::Result<()> {
    machine::allow_open_files()?;
    if let Some(running) = &options.running {
        return load(options, running, None);
    }
    let dir = open_dir()?;
    // Each request has its own client address, so that throttle and address rate, on by default, drop none.
    let mut settings = Settings::new(&options.program, dir.path().join("data"))?
        .with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8")
        .with("PIXELD_DURABILITY", options.durability.clone())
        .with("PIXELD_SIGNING_KEYS", SIGNING_KEYS)
        .with("PIXELD_LOG", "warn");
    settings.variables.remove("PIXELD_THROTTLE");
    settings.variables.remove("PIXELD_ADDRESS_RATE");
    eprintln!("starting {} with a private PostgreSQL", options.program);
    let database_url = settings.run(&["database-url"])?.trim().to_owned();
    let (mut server, image) = start_pixeld(settings)?;
    let secrets = Some(secrets(server.settings().run(&["namespace"])?.trim(), SIGNING_KEYS)?);
    let running = Running { target: server.public(), image, database_url: Some(database_url), secrets };
    let outcome = load(options, &running, Some(&server));
    server.terminate()?;
    outcome
}

/// What keyed and signed links need: the output of `pixeld namespace`, and `PIXELD_SIGNING_KEYS`.
///
/// # Errors
/// If either is invalid.
pub fn secrets(namespace: &str, signing_keys: &str) -> anyhow::Result<Secrets> {
    let namespace = Namespace(namespace.parse().context("the namespace is no UUID")?);
    let signing_keys = SigningKeys::parse(signing_keys).map_err(|wrong| anyhow::anyhow!("the signing key {wrong}"))?;
    Ok(Secrets { namespace, signing_keys })
}

fn load(options: &Options, running: &Running, server: Option<&Server>) -> anyhow::Result<()> {
    let pixels = Pixels::of(running.image).with_forwarded_addresses();
    let pixels = match &running.secrets {
        Some(secrets) => pixels.with_links(options.links, secrets.clone()),
        None => pixels,
    };
    let plan = Plan {
        target: running.target,
        pixels,
        pace: options.pace,
        reuse: options.reuse,
        connections: options.connections,
        threads: options.threads,
        duration: options.duration,
    };
    let ledger = Ledger::new(200_000 * options.duration.as_secs().max(1) as usize);
    let control = Control::default();
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| generator::run(&plan, &ledger, &control));
        let (started, mut last) = (Instant::now(), 0);
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(250));
            let (second, answered) = (started.elapsed().as_secs(), control.answered.load(Ordering::Relaxed));
            if second > last {
                last = second;
                eprint!(
                    "\r{second:>4} s  {answered:>10} answers  {:>9.0}/s  ",
                    answered as f64 / started.elapsed().as_secs_f64()
                );
            }
        }
        eprintln!();
        running.join().unwrap_or_else(|_| anyhow::bail!("the load panicked"))
    })?;
    print_outcome(&outcome);
    let Some(database_url) = running.database_url.as_deref() else {
        println!("\nnot reconciled: no --database-url");
        return Ok(());
    };
    let comparison = match server {
        Some(server) => {
            server.at_rest(LOADED_WAIT)?;
            reconcile(database_url, &plan.pixels, &ledger)?
        }
        None => {
            let mut comparison = reconcile(database_url, &plan.pixels, &ledger)?;
            wait_until("all rows", LOADED_WAIT, || {
                std::thread::sleep(Duration::from_millis(500));
                let before = std::mem::replace(
                    &mut comparison,
                    match reconcile(database_url, &plan.pixels, &ledger) {
                        Ok(comparison) => comparison,
                        Err(_) => return false,
                    },
                );
                comparison.lost == 0 || before.rows == comparison.rows
            })
            .context("PostgreSQL still gets rows")?;
            comparison
        }
    };
    println!("\nreconciled with PostgreSQL:\n{comparison}");
    anyhow::ensure!(comparison.is_exact(), "answers and rows differ");
    anyhow::ensure!(comparison.answered > 0, "nothing was answered, so nothing was tried");
    println!("every answer has its row, once");
    Ok(())
}

fn print_outcome(outcome: &Outcome) {
    let Outcome { answered, refused, broken, timed_out, not_connected, .. } = outcome;
    println!("  answers          {answered:>12}   {:.0}/s over {:.1} s", outcome.rate(), outcome.elapsed.as_secs_f64());
    println!("  other statuses   {refused:>12}");
    println!("  broken           {broken:>12}");
    println!("  timed out        {timed_out:>12}");
    println!("  not connected    {not_connected:>12}");
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)] {
        println!("  latency {name:<8} {:>12.0} µs", outcome.quantile_us(quantile));
    }
    println!("  latency max      {:>12.0} µs", outcome.latency.max() as f64 / 1000.0);
}
