//! How often the classifier is right: it judges every documented user agent of a mail program, proxy or scanner, and
//! every one in the list of crawlers; `docs/class-score.md` has the result, and a test checks it against the goals.

use std::fmt::Write;

use super::agent::Agent;
use super::class::Class;
use super::classify::{Evidence, classify};
use super::rule::Rule;
use crate::networks::Network;

/// One user agent whose class is documented.
struct Documented {
    class: Class,
    client: String,
    user_agent: String,
}

fn judged(documented: &Documented) -> Rule {
    // Apple's agent is evidence only in Apple's network; the others are judged without a network.
    let network = (documented.class == Class::PrivacyPrefetch).then_some(Network::Apple);
    let agent = Agent::read(&documented.user_agent);
    classify(&Evidence { agent, network, prefetch: false, since_sent_s: None })
}

/// The documented user agents of mail programs, proxies and scanners.
fn mail() -> Vec<Documented> {
    let lines = include_str!("mail-user-agents.tsv").lines().skip(1);
    let documented = |line: &str| {
        let [class, client, _source, user_agent] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns are needed: {line}")
        };
        let class = Class::ALL.into_iter().find(|known| known.name() == class).unwrap_or_else(|| panic!("{line}"));
        Documented { class, client: client.to_owned(), user_agent: user_agent.to_owned() }
    };
    lines.filter(|line| !line.is_empty()).map(documented).collect()
}

/// The instances in the list of crawlers, except those that are documented as something else.
fn crawlers(mail: &[Documented]) -> Vec<Documented> {
    let json = include_str!("crawler-user-agents/crawler-user-agents.json");
    let entries: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let instances = entries.iter().flat_map(|entry| {
        let pattern = entry["pattern"].as_str().unwrap().to_owned();
        let instances = entry["instances"].as_array().cloned().unwrap_or_default();
        instances.into_iter().map(move |instance| (pattern.clone(), instance.as_str().unwrap().to_owned()))
    });
    instances
        .filter(|(_, user_agent)| mail.iter().all(|documented| documented.user_agent != *user_agent))
        .map(|(client, user_agent)| Documented { class: Class::Bot, client, user_agent })
        .collect()
}

/// The numbers of right, wrong and unknown results, and a line for each one that is not right.
fn score(documented: &[&Documented]) -> ([usize; 3], String) {
    let (mut counts, mut lines) = ([0; 3], String::new());
    for &documented in documented {
        let rule = judged(documented);
        let outcome = match rule.class() {
            class if class == documented.class => 0,
            Class::Unknown => 2,
            _ => 1,
        };
        counts[outcome] += 1;
        if outcome != 0 {
            let Documented { class, client, user_agent } = documented;
            let (client, user_agent) = (client.replace('|', "\\|"), user_agent.replace('|', "\\|"));
            writeln!(
                lines,
                "| {} | {} ({}) | {client} | `{user_agent}` |",
                class.name(),
                rule.class().name(),
                rule.name()
            )
            .unwrap();
        }
    }
    (counts, lines)
}

fn page() -> String {
    let mail = mail();
    let crawlers = crawlers(&mail);
    let mut page = String::from(
        "# How often the classes are right\n\n\
         The test `the_score_is_published_and_meets_its_goals` checks this page. After a change of the rules,\n\
         `UPDATE_SCORE=1 cargo test --package pixeld-core score` writes it again. It judges by the user agent alone, without a network (except\n\
         Apple's, for its hidden agent) and without a time of sending; real hits are judged by more than that.\n\n\
         `crates/core/src/opens/mail-user-agents.tsv` has the user agents of mail programs, proxies and scanners, each with its source. Those of\n\
         crawlers are the instances of the npm package crawler-user-agents, except those that the former file documents as something else.\n\n\
         | class | user agents | right | wrong | unknown |\n|---|---|---|---|---|\n",
    );
    let mut all_lines = String::new();
    let mut classes = Class::ALL;
    // The first is unknown, which comes last here.
    classes.rotate_left(1);
    for class in classes {
        let of_class: Vec<&Documented> =
            mail.iter().chain(&crawlers).filter(|documented| documented.class == class).collect();
        let ([right, wrong, unknown], lines) = score(&of_class);
        writeln!(page, "| {} | {} | {right} | {wrong} | {unknown} |", class.name(), of_class.len()).unwrap();
        all_lines.push_str(&lines);
    }
    page.push_str("\n## Those that are wrong or unknown\n\n| documented as | judged | what it is (crawlers: the pattern) | user agent |\n|---|---|---|---|\n");
    page.push_str(&all_lines);
    page
}

#[test]
fn the_score_is_published_and_meets_its_goals() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/class-score.md");
    let page = page();
    if std::env::var_os("UPDATE_SCORE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let mail = mail();
    for documented in &mail {
        let class = judged(documented).class();
        let is_reader =
            matches!(documented.class, Class::Human | Class::Proxied | Class::PrivacyPrefetch | Class::Unknown);
        assert!(
            !is_reader || !matches!(class, Class::Bot | Class::Scanner | Class::Prefetch),
            "{} is called {}: {}",
            documented.client,
            class.name(),
            documented.user_agent
        );
    }
    let crawlers = crawlers(&mail);
    let bots = crawlers.iter().filter(|documented| judged(documented).class() == Class::Bot).count();
    assert!(bots * 100 >= crawlers.len() * 98, "{bots} of {}", crawlers.len());
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page, "the page is stale: UPDATE_SCORE=1 writes it");
}
