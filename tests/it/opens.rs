//! From hits to opens: judged by rules, counted, and judged again.

use loadtest::generator::{Pace, Reuse};
use loadtest::pixels::{Links, Pixels, Secrets};
use pixeld::link::key::Namespace;
use pixeld::link::token::SigningKeys;
use pixeld::networks::Network;
use pixeld::opens::agent::Agent;
use pixeld::opens::classify::{Evidence, classify};

use crate::support::{App, Load, alone};

const KEYS: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server that believes the load's client addresses and knows its key.
fn start() -> App {
    App::start_with(|settings| settings.with("PIXELD_TRUSTED_PROXIES", "127.0.0.0/8").with("PIXELD_SIGNING_KEYS", KEYS))
}

/// Pixels through plain, keyed and signed links, with mail clients' user agents and addresses of their own.
fn mixed(app: &App) -> Pixels {
    let namespace = app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap();
    let secrets = Secrets { namespace: Namespace(namespace), signing_keys: SigningKeys::parse(KEYS).unwrap() };
    Pixels::of(app.image).with_forwarded_addresses().with_links(Links::Mixed, secrets)
}

/// How many hits there are, each judged here by the evidence that its row has, and found judged so.
fn assert_judged(app: &App) -> u64 {
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
}
