//! The loader catching up with a backlog, against `psql \copy` of the same rows into the same table.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Options;
use crate::contestant::{pixeld_settings, start_pixeld};
use crate::generator::{self, Control, Pace, Plan, Reuse};
use crate::ledger::Ledger;
use crate::machine::on_the_servers_core;
use crate::pixels::Pixels;
use crate::reconcile::reconcile;
use pixeld_testkit::postgres::{Postgres, open_dir};

/// One round.
#[derive(Debug, Clone, Copy)]
pub struct Loading {
    /// Rows.
    pub rows: f64,
    /// The loader, rows a second.
    pub loader: f64,
    /// psql, rows a second.
    pub psql: f64,
    /// Bytes per row with the open day's indexes.
    pub bytes_a_row: f64,
}

pub(super) fn measure(options: &Options) -> anyhow::Result<Vec<Loading>> {
    let rounds = options.rounds.clamp(1, 3);
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let round = one(options)?;
        eprintln!("catching up: loader {:>7.0} rows/s, psql {:>7.0} rows/s", round.loader, round.psql);
        measured.push(round);
    }
    Ok(measured)
}

fn one(options: &Options) -> anyhow::Result<Loading> {
    let mut postgres = Postgres::start()?;
    // A server that has run for a while reuses WAL files; a new one must create each first. Otherwise the loader would
    // pay for that, and psql, which follows, would not.
    let rows = options.rows;
    postgres.query(&format!("CREATE TABLE warm_up AS SELECT repeat('x', 400) FROM generate_series(1, {rows})"))?;
    postgres.query("DROP TABLE warm_up")?;
    postgres.query("CHECKPOINT")?;
    let dir = open_dir()?;
    let settings = pixeld_settings(&options.program, dir.path())?.with("DATABASE_URL", postgres.url());
    let (mut server, image) = start_pixeld(settings)?;
    // A backlog: the database is down while the hits arrive.
    postgres.stop()?;
    let plan = Plan {
        target: server.public(),
        pixels: Pixels::of(image).with_forwarded_addresses(),
        pace: Pace::Closed,
        reuse: Reuse::KeepAlive,
        connections: 64,
        threads: 1,
        duration: Duration::from_secs(120),
    };
    let ledger = Ledger::new(options.rows);
    generator::run(&plan, &ledger, &Control::default())?;
    postgres.start_again()?;
    postgres.query("CHECKPOINT")?;
    server.at_rest(Duration::from_secs(300))?;
    let comparison = reconcile(&postgres.url(), &plan.pixels, &ledger)?;
    anyhow::ensure!(comparison.is_exact() && comparison.rows >= options.rows as u64, "{comparison}");
    // From the first batch's commit to the last one's: the time until the loader noticed the database is left out.
    let loader = postgres.number(
        "SELECT (sum(loaded) - (array_agg(loaded ORDER BY id))[1]) / extract(epoch FROM max(loaded_at) - min(loaded_at)) \
         FROM batches WHERE loaded > 1000",
    )?;
    let rows = postgres.number("SELECT count(*) FROM hits")?;
    let bytes = postgres
        .number("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'hits'::regclass")?;
    server.terminate()?;
    let file = dir.path().join("hits.copy");
    psql(&postgres, &format!("\\copy (SELECT * FROM hits) TO '{}' (FORMAT binary)", file.display()))?;
    postgres.query("TRUNCATE hits")?;
    postgres.query("CHECKPOINT")?;
    let started = Instant::now();
    psql(&postgres, &format!("\\copy hits FROM '{}' (FORMAT binary)", file.display()))?;
    let psql = rows / started.elapsed().as_secs_f64();
    Ok(Loading { rows, loader, psql, bytes_a_row: bytes / rows })
}

fn psql(postgres: &Postgres, command: &str) -> anyhow::Result<()> {
    let words = on_the_servers_core();
    let output = Command::new(&words[0])
        .args(&words[1..])
        .args(["psql", &postgres.url(), "-X", "-c", command])
        .stdin(Stdio::null())
        .output()
        .context("psql cannot be started")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
