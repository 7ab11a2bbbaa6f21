//! What an operator watches: the page of metrics, the alert rules and the dashboard name what a running pixeld shows,
//! and Prometheus's own tool accepts them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use crate::kit::snapshot::assert_accepted;
use crate::kit::support::{App, beside};
use crate::ship::docs::{ROOT, wrong_link};

const PAGE: &str = include_str!("../../../docs/metrics.md");
const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yml");
const ALERT_TESTS: [&str; 2] = [
    include_str!("../../../docs/monitoring/alerts_test.yml"),
    include_str!("../../../docs/monitoring/alerts_hours_test.yml"),
];
const DASHBOARD: &str = include_str!("../../../docs/monitoring/dashboard.json");

/// What a running pixeld shows, read once for all tests here.
struct Shown {
    text: String,
    /// Kinds by the names that Prometheus gives.
    kinds: BTreeMap<String, String>,
    /// The values of a label of a metric.
    labels: BTreeMap<&'static str, BTreeSet<String>>,
}

fn shown() -> &'static Shown {
    static SHOWN: OnceLock<Shown> = OnceLock::new();
    SHOWN.get_or_init(|| {
        let app = App::start();
        // A batch, so that the histograms are not empty.
        assert_eq!(app.get(&format!("/image/{}.png", app.image)).status, 200);
        let text = app.at_rest().0;
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let kinds = types.map(|(name, kind)| {
            (if kind == "counter" { format!("{name}_total") } else { name.to_owned() }, kind.to_owned())
        });
        let labels = ["reason", "outcome", "task"].map(|label| {
            let find = Regex::new(&format!("{label}=\"([a-z_]+)\"")).unwrap();
            (label, find.captures_iter(&text).map(|found| found[1].to_owned()).collect())
        });
        let kinds = kinds.collect();
        Shown { kinds, labels: labels.into(), text }
    })
}

/// The rows of the page's tables with this many columns.
fn rows(columns: usize) -> impl Iterator<Item = Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>();
    PAGE.lines().filter(|line| line.starts_with("| `")).map(cells).filter(move |row| row.len() == columns)
}

#[test]
fn the_page_lists_exactly_the_shown_metrics() {
    let _machine = beside();
    let told: BTreeMap<String, String> =
        rows(5).map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned())).collect();
    assert_eq!(told, shown().kinds);
    for row in rows(5) {
        assert!(!row[2].is_empty() && row[3].ends_with('.') && row[4].ends_with('.'), "{row:?}");
    }
    let told: Vec<&str> = rows(3).map(|row| row[0].trim_matches('`')).collect();
    let all: BTreeSet<&str> = shown().labels.values().flatten().map(String::as_str).collect();
    assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), all);
    // One is both a reason and an outcome.
    assert_eq!(told.len(), shown().labels.values().map(BTreeSet::len).sum::<usize>());
}

#[test]
fn names_helps_kinds_and_labels_are_as_they_were_accepted() {
    let _machine = beside();
    let without_value = |line: &'static str| match line.starts_with('#') {
        true => line,
        false => line.rsplit_once(' ').unwrap().0,
    };
    let lines: Vec<&str> = shown().text.lines().map(without_value).collect();
    assert_accepted("metrics", &lines.join("\n"));
}

/// Every metric and label in a text exists.
fn assert_known(text: &str) {
    let names = Regex::new("pixeld_[a-z_]+").unwrap();
    for name in names.find_iter(text).map(|found| found.as_str()) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        let kind = shown().kinds.get(name).or(shown().kinds.get(base).filter(|kind| *kind == "histogram"));
        assert!(kind.is_some(), "no metric is named {name}");
    }
    let labels = Regex::new("(reason|outcome|task)(?:=|=~|!=)\\\\?\"([a-z_|]+)\\\\?\"").unwrap();
    for found in labels.captures_iter(text) {
        for value in found[2].split('|') {
            assert!(shown().labels[&found[1]].contains(value), "no {} is {value}", &found[1]);
        }
    }
}

/// Runs promtool, and returns its output.
fn promtool(arguments: &[&str]) -> String {
    let program = Path::new(ROOT).join("target/tools/promtool");
    let output = Command::new(&program).args(arguments).current_dir(ROOT).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: make test fetches it", program.display()));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn every_alert_fires_when_it_should_and_else_is_quiet() {
    let _machine = beside();
    let names: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(promtool(&["check", "rules", "docs/monitoring/alerts.yml"]).contains(&format!("{} rules", names.len())));
    promtool(&["test", "rules", "docs/monitoring/alerts_test.yml", "docs/monitoring/alerts_hours_test.yml"]);
    assert_known(ALERTS);
    ALERT_TESTS.iter().for_each(|tests| assert_known(tests));
    for name in &names {
        let cases = ALERT_TESTS.iter().flat_map(|tests| tests.split("  - name: ").skip(1));
        let cases = cases.filter(|case| case.contains(&format!("alertname: {name}\n")));
        let [mut fires, mut quiet] = [0, 0];
        cases.for_each(|case| if case.contains("exp_alerts: []") { quiet += 1 } else { fires += 1 });
        assert!(fires > 0 && quiet > 0, "{name} is not tried both ways: {fires}, {quiet}");
    }
    let links: Vec<&str> = ALERTS.lines().filter_map(|line| line.trim_start().strip_prefix("page: ")).collect();
    assert_eq!(links.len(), names.len());
    for link in links {
        assert_eq!(wrong_link(&Path::new(ROOT).join("README.md"), link), None);
    }
}

#[test]
fn the_dashboard_asks_for_what_is_shown_and_prometheus_understands_it() {
    let _machine = beside();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    let mut places = BTreeSet::new();
    for panel in panels {
        let place = ["x", "y"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(places.insert(place), "two panels at {place:?}");
        if panel["type"] == "row" {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let title = text(&panel["title"]);
        let told = [&title, &text(&panel["description"]), &text(&panel["fieldConfig"]["defaults"]["unit"])];
        assert!(told.iter().all(|text| !text.is_empty()), "{title} has no title, description or unit");
        for target in panel["targets"].as_array().unwrap() {
            let asked = text(&target["expr"]).replace("$__rate_interval", "5m");
            assert!(asked.contains("pixeld") && !text(&target["legendFormat"]).is_empty(), "{title}: {asked}");
            rules.push_str(&format!("      - record: pixeld:checked_{}\n        expr: {asked:?}\n", rules.len()));
        }
    }
    assert!(panels.len() > 20, "{}", panels.len());
    assert_known(DASHBOARD);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dashboard.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}
