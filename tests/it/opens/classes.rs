//! From hits to opens: judged by rules, counted, and reclassified.

use std::time::Duration;

use loadtest::generator::{Pace, Reuse};
use loadtest::pixels::{Links, Pixels, Secrets};
use pixeld_core::link::key::Namespace;
use pixeld_core::link::token::SigningKeys;
use pixeld_core::networks::Network;
use pixeld_core::opens::agent::Agent;
use pixeld_core::opens::classify::{Evidence, classify};

use crate::kit::support::{App, Load, alone};
use crate::opens::recount;

const KEYS: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server that trusts the load's client addresses and knows its key.
fn start() -> App {
    App::start_with(|settings| settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8").with("PIXELD_SIGNING_KEYS", KEYS))
}

/// Pixels through plain, keyed and signed links, each with its own mail client's user agent and address.
fn mixed(app: &App) -> Pixels {
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap();
    let secrets = Secrets { namespace: Namespace(namespace), signing_keys: SigningKeys::parse(KEYS).unwrap() };
    Pixels::of(app.image).with_forwarded_addresses().with_links(Links::Mixed, secrets)
}

/// The number of hits; each is judged here by its row's evidence, and the row must have the same verdict.
pub fn assert_judged(app: &App) -> u64 {
    let groups = app.query(
        "SELECT concat_ws(E'\\t', u.user_agent, h.network, h.prefetch, \
           coalesce((floor(extract(epoch FROM h.at)) - extract(epoch FROM coalesce(h.sent_at, m.sent_at)))::bigint::text, '-'), \
           h.class, h.rule, h.client, count(*)) \
         FROM hits h JOIN user_agents u ON u.id = h.user_agent LEFT JOIN messages m ON m.id = h.message \
         GROUP BY u.user_agent, h.network, h.prefetch, \
           floor(extract(epoch FROM h.at)) - extract(epoch FROM coalesce(h.sent_at, m.sent_at)), h.class, h.rule, h.client",
    );
    let mut hits = 0;
    for group in groups {
        let [user_agent, network, prefetch, since_sent, class, rule, client, count] =
            group.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{group}")
        };
        let agent = Agent::read(user_agent);
        let expected = classify(&Evidence {
            agent,
            network: Network::of_number(network.parse().unwrap()),
            prefetch: prefetch == "t",
            since_sent_s: since_sent.parse().ok(),
        });
        let expected = [expected.class().number(), expected.number(), agent.client.number()].map(|n| n.to_string());
        assert_eq!([class, rule, client], expected.each_ref().map(String::as_str), "{group}");
        hits += count.parse::<u64>().unwrap();
    }
    hits
}

#[test]
fn a_load_through_links_of_all_kinds_gives_hits_with_class_and_rule() {
    let _machine = alone();
    let app = start();
    let load = Load::of(&app.server, mixed(&app), 32, Pace::Closed, Reuse::KeepAlive);
    load.wait_for(100_000);
    let load = load.end();
    let metrics = app.at_rest();
    let comparison = load.assert_exact(&app.url());
    assert_eq!(assert_judged(&app), comparison.rows);
    assert_eq!(metrics.get("pixeld_hits_loaded_total"), comparison.rows as f64);
    let classes = app.query("SELECT DISTINCT class FROM hits_readable ORDER BY 1");
    assert_eq!(classes, ["human", "proxied", "unknown"]);
    let signed = app.number("SELECT count(*) FROM hits WHERE sent_at = '2026-01-01 00:00:00+00'");
    assert!(signed > comparison.rows / 4, "{signed} of {}", comparison.rows);
    app.wait_for_rollup();
    recount::prepare(&app.postgres);
    recount::assert_same(&app.postgres, "after the load");
    assert_eq!(app.number("SELECT count(*) FROM opens"), comparison.rows, "each request has a recipient of its own");
    assert_eq!(app.number("SELECT count(*) FROM messages"), 16);
    let listed = app.server.settings().run(&["message", "list"]).unwrap();
    assert_eq!(listed.lines().count(), 17, "{listed}");
}

#[test]
fn judging_again_under_load_interrupted_and_repeated_ends_as_if_judged_so_at_first() {
    let _machine = alone();
    let app = start();
    recount::prepare(&app.postgres);
    let pixels = mixed(&app);
    let load = Load::of(&app.server, pixels.clone(), 16, Pace::Open(4000.0), Reuse::KeepAlive);
    load.wait_for(40_000);
    // The send time of each message changes, and with it the verdicts on its hits.
    for message in pixels.messages() {
        app.server.settings().run(&["message", "set", &message.to_string(), "--sent-at", "now"]).unwrap();
    }
    let told = "SELECT count(*) FROM messages WHERE sent_at IS NOT NULL";
    assert_eq!(app.number(told), 16);
    let judged_otherwise = "SELECT count(*) FROM hits_readable WHERE rule = 'browser_at_once'";
    let before = app.number(judged_otherwise);
    let mut killed = 0;
    // The first waits until the loader follows; all are stopped somewhere, some half way.
    for after_ms in [100, 4200, 60, 100, 150, 200, 300].into_iter().chain([60, 100].into_iter().cycle().take(40)) {
        if killed > 2 && after_ms < 100 {
            break;
        }
        let mut judging = app.server.settings().command(&["reclassify"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        if judging.try_wait().unwrap().is_none() {
            judging.kill().unwrap();
            killed += 1;
        }
        judging.wait().unwrap();
    }
    assert!(killed > 2, "{killed} were still at it");
    // Set again, so that the last run has to wait for the loader; then a gentle end, half way.
    for message in pixels.messages() {
        app.server.settings().run(&["message", "set", &message.to_string(), "--sent-at", "now"]).unwrap();
    }
    let judging = app.server.settings().command(&["reclassify"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(60));
    pixeld_testkit::process::signal(judging.id(), nix::sys::signal::Signal::SIGTERM).unwrap();
    judging.wait_with_output().unwrap();
    let said = app.server.settings().run(&["reclassify"]).unwrap();
    assert!(said.starts_with("judged "), "{said}");
    let load = load.end();
    app.at_rest();
    load.assert_exact(&app.url());
    app.wait_for_rollup();
    let rows = app.number("SELECT count(*) FROM hits");
    assert_eq!(assert_judged(&app), rows);
    assert!(app.number(judged_otherwise) > before + 1000, "hits of before were judged again");
    recount::assert_same(&app.postgres, "after judging again");
    // Another run changes nothing.
    let said = app.server.settings().run(&["reclassify"]).unwrap();
    let expected = format!("judged {rows} hits again; 0 changed (");
    assert!(said.starts_with(&expected), "{said}");
    recount::assert_same(&app.postgres, "after judging once more");
}
