//! Writes the results: goals, tables, and a chart of latency against rate.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use plotters::prelude::*;

use super::rounds::{Case, Sample, median, ratio, reuse_name};
use super::{CONNECTIONS, LatencyAtRate, Options, Results, median_of};
use crate::contestant::Kind;
use crate::generator::Reuse;
use crate::machine;

/// One goal and the result.
struct Goal {
    what: &'static str,
    is: f64,
    most: f64,
    /// Whether more is better, so that the bound is a minimum.
    at_least: bool,
    unit: &'static str,
}

impl Goal {
    fn is_met(&self) -> bool {
        if self.at_least { self.is >= self.most } else { self.is <= self.most }
    }
}

/// Writes RESULTS.md and the chart beside it.
pub fn write(options: &Options, results: &Results) -> anyhow::Result<()> {
    let text = text(options, results)?;
    print!("{text}");
    std::fs::write(&options.out, text).with_context(|| options.out.display().to_string())?;
    let chart_path = options.out.with_file_name("latency.svg");
    chart(&chart_path, &results.latencies).with_context(|| chart_path.display().to_string())
}

fn goals(results: &Results) -> Vec<Goal> {
    let cases = &results.cases;
    let keep_alive = |kind| Case { kind, ..Case::KEEP_ALIVE_WRITTEN };
    let new = |kind| Case { kind, reuse: Reuse::New, connections: CONNECTIONS };
    let wide = |kind| Case { kind, reuse: Reuse::KeepAlive, connections: 256 };
    let cpu = |sample: &Sample| sample.cpu_us;
    let goal = |what, is, most, at_least, unit| Goal { what, is, most, at_least, unit };
    let p99 = |kind: Kind| {
        let at_goal = |l: &&LatencyAtRate| l.kind == kind && l.rate == results.rate_of_80_percent;
        results.latencies.iter().filter(at_goal).map(|l| l.latency_us[1]).collect::<Vec<_>>()
    };
    let p99_ratio = p99(Kind::Written).iter().zip(p99(Kind::Nginx)).map(|(this, that)| this / that).collect();
    let mega = |bytes: u64| bytes as f64 / 1e6;
    let loading = |figure: fn(&super::Loading) -> f64| median_of(results.loading.iter().map(figure).collect());
    vec![
        goal(
            "CPU a request, keep-alive, `written`, against nginx with its log",
            ratio(cases, keep_alive(Kind::Written), keep_alive(Kind::Nginx), cpu),
            1.0,
            false,
            "×",
        ),
        goal(
            "CPU a request, a new connection each, `written`, against nginx with its log",
            ratio(cases, new(Kind::Written), new(Kind::Nginx), cpu),
            1.0,
            false,
            "×",
        ),
        goal(
            "`synced` against `written`, requests/s at 256 connections",
            ratio(cases, wide(Kind::Synced), wide(Kind::Written), |sample| sample.rate),
            0.9,
            true,
            "×",
        ),
        goal("p99 at 80 % of peak, against nginx at the same rate", median_of(p99_ratio), 1.5, false, "×"),
        goal("loader catching up, rows/s, against `psql \\copy`", loading(|l| l.loader / l.psql), 0.9, true, "×"),
        goal("bytes a hit in PostgreSQL, open day, indexes included", loading(|l| l.bytes_a_row), 160.0, false, "B"),
        goal("memory under full load", mega(results.footprint.rss_full_load), 120.0, false, "MB"),
        goal("memory with 10,000 idle connections", mega(results.footprint.rss_idle_connections), 250.0, false, "MB"),
        goal("start to first pixel, existing database", results.footprint.start_seconds, 1.0, false, "s"),
    ]
}

#[expect(clippy::disallowed_methods, reason = "the date of the report")]
fn text(options: &Options, results: &Results) -> anyhow::Result<String> {
    let now = time::OffsetDateTime::now_utc();
    let date = now.format(time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC"))?;
    let mut out = String::new();
    writeln!(out, "# Measured against nginx\n")?;
    writeln!(
        out,
        "`loadtest compare` wrote this page on {date}, with pixeld {}, on {}.\n\
         Command: `cargo run --release -p loadtest -- compare --rounds {} --seconds {} --rows {}`.\n",
        revision(),
        machine::described(),
        options.rounds,
        options.duration.as_secs(),
        options.rows
    )?;
    writeln!(
        out,
        "The server has core {} for itself (one thread that serves; pixeld's writer, syncer and loader run there too). The client, which\n\
         has priority there, and PostgreSQL have the others. Each request fetches another pixel, with a mail client's user agent, from\n\
         another client address (X-Forwarded-For; one in five is IPv6). Throttle and address rate are on, as by default. All servers run\n\
         in turn within a round; ratios are medians of the rounds' ratios. After each run every answer was compared with its row: nothing\n\
         was lost or doubled, else there would be no results.\n",
        machine::SERVER_CORE
    )?;
    writeln!(out, "## Goals\n\n| | goal | reached | |\n|---|---|---|---|")?;
    for goal in goals(results) {
        let sign = if goal.at_least { "≥" } else { "≤" };
        let met = if goal.is_met() { "met" } else { "**missed**" };
        writeln!(out, "| {} | {sign} {} {} | {:.2} {} | {met} |", goal.what, goal.most, goal.unit, goal.is, goal.unit)?;
    }
    write_peak(&mut out, options, results)?;
    write_threads(&mut out, results)?;
    write_rates(&mut out, results)?;
    Ok(out)
}

/// Each server in a closed loop.
fn write_peak(out: &mut String, options: &Options, results: &Results) -> anyhow::Result<()> {
    writeln!(out, "\n## At peak: a closed loop\n")?;
    writeln!(
        out,
        "Medians of {} rounds of {} s; in brackets the smallest and the largest.\n",
        options.rounds,
        options.duration.as_secs()
    )?;
    writeln!(
        out,
        "| server | connections | CPU a request, µs | PostgreSQL's, µs | requests/s | p50, µs | p99, µs | p99.9, µs | memory, MB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (case, samples) in &results.cases {
        let (least, most) = samples.iter().fold((f64::MAX, f64::MIN), |(l, m), s| (l.min(s.cpu_us), m.max(s.cpu_us)));
        let figure = |figure: fn(&Sample) -> f64| median(&results.cases, *case, figure);
        writeln!(
            out,
            "| {} | {} {} | {:.2} ({least:.2}–{most:.2}) | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            case.kind.name(),
            case.connections,
            reuse_name(case.reuse),
            figure(|s| s.cpu_us),
            figure(|s| s.database_cpu_us),
            figure(|s| s.rate),
            figure(|s| s.latency_us[0]),
            figure(|s| s.latency_us[1]),
            figure(|s| s.latency_us[2]),
            figure(|s| s.rss_bytes as f64 / 1e6)
        )?;
    }
    Ok(())
}

/// Latency in an open loop, and the loader against `\copy`.
fn write_rates(out: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(out, "\n## Latency at set rates: an open loop\n\n![latency against rate](latency.svg)\n")?;
    writeln!(
        out,
        "A latency counts from the time its request was due. {:.0} requests/s are 80 % of pixeld's peak.\n",
        results.rate_of_80_percent
    )?;
    writeln!(out, "| server | requests/s | p50, µs | p99, µs | p99.9, µs |\n|---|---|---|---|---|")?;
    for LatencyAtRate { kind, rate, latency_us: [p50, p99, p999] } in &results.latencies {
        writeln!(out, "| {} | {rate:.0} | {p50:.0} | {p99:.0} | {p999:.0} |", kind.name())?;
    }
    writeln!(
        out,
        "\n## Catching up with a backlog\n\n| rows | loader, rows/s | `psql \\copy`, rows/s | ratio | bytes a row |\n|---|---|---|---|---|"
    )?;
    for l in &results.loading {
        writeln!(
            out,
            "| {:.0} | {:.0} | {:.0} | {:.2} | {:.1} |",
            l.rows,
            l.loader,
            l.psql,
            l.loader / l.psql,
            l.bytes_a_row
        )?;
    }
    Ok(())
}

/// The CPU time by thread, user and system.
fn write_threads(out: &mut String, results: &Results) -> anyhow::Result<()> {
    writeln!(
        out,
        "\n## Where the CPU goes\n\nµs a request by thread, medians: in the program itself + in the kernel for it.\n"
    )?;
    writeln!(out, "| server | connections | threads |\n|---|---|---|")?;
    for (case, samples) in &results.cases {
        let names: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.threads.keys()).collect();
        let shown = names.into_iter().filter_map(|name| {
            let part = |part: usize| {
                median_of(
                    samples.iter().map(|sample| sample.threads.get(name).map_or(0.0, |spent| spent[part])).collect(),
                )
            };
            let (user, system) = (part(0), part(1));
            (user + system >= 0.05).then(|| format!("{name} {user:.2} + {system:.2}"))
        });
        let shown: Vec<String> = shown.collect();
        writeln!(
            out,
            "| {} | {} {} | {} |",
            case.kind.name(),
            case.connections,
            reuse_name(case.reuse),
            shown.join(", ")
        )?;
    }
    Ok(())
}

/// The revision of the checkout, and whether it had changes.
fn revision() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    described.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn chart(path: &Path, latencies: &[LatencyAtRate]) -> anyhow::Result<()> {
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let rate_max = latencies.iter().map(|l| l.rate).fold(1.0, f64::max);
    let latency = |l: &LatencyAtRate| l.latency_us[1].max(1.0);
    let latency_max = latencies.iter().map(latency).fold(10.0, f64::max);
    let latency_min = latencies.iter().map(latency).fold(latency_max, f64::min);
    let mut chart = ChartBuilder::on(&root)
        .caption("p99 latency against rate, keep-alive, one server core", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..rate_max * 1.05, (latency_min * 0.8..latency_max * 1.3).log_scale())?;
    chart.configure_mesh().x_desc("requests a second").y_desc("p99, µs").draw()?;
    for (kind, color) in [
        (Kind::Nginx, RGBColor(120, 120, 120)),
        (Kind::Written, RGBColor(0, 90, 200)),
        (Kind::Synced, RGBColor(210, 90, 0)),
    ] {
        let mut rates: Vec<f64> = latencies.iter().filter(|l| l.kind == kind).map(|l| l.rate).collect();
        rates.dedup();
        let points = rates.iter().map(|&rate| {
            let here = latencies.iter().filter(|l| l.kind == kind && l.rate == rate).map(latency).collect();
            (rate, median_of(here))
        });
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
