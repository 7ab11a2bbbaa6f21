//! Three whole pages against accepted snapshots. The other files here check specific claims; this one finds changes
//! that nobody thought of.

use regex::Regex;
use uuid::Uuid;

use crate::kit::rows::Hits;
use crate::kit::snapshot::assert_accepted;
use crate::kit::support::{App, beside};
use crate::kit::visitor::{Visitor, text};

const MESSAGE: Uuid = Uuid::from_u128(0xaaaa_aaaa_0000_4000_8000_0000_0000_0001);

/// One of its recipients.
const JANE: Uuid = Uuid::from_u128(0xbbbb_bbbb_0000_4000_8000_0000_0000_0004);

/// Twelve recipients fetch it over two hours; by fours they read with Thunderbird, in Gmail, with Apple Mail, or are a
/// bot.
fn fill(app: &App) {
    app.query(
        "INSERT INTO user_agents (id, user_agent) VALUES (1, 'Thunderbird/140.2.0 \"<b>\"'), (2, 'GoogleImageProxy'), (3, 'Mozilla/5.0'), \
         (4, 'curl/8.5.0')",
    );
    Hits::new(36, "timestamptz '2026-03-01 21:30:00+00' + n * interval '4 minutes'")
        .id("message", MESSAGE)
        .with("recipient", "('bbbbbbbb-0000-4000-8000-' || lpad((n % 12)::text, 12, '0'))::uuid")
        .id("image", app.image)
        .with("user_agent", "1 + n % 4")
        .with("class", "(ARRAY[1, 2, 3, 6])[1 + n % 4]")
        .with("rule", "(ARRAY[60, 10, 20, 50])[1 + n % 4]")
        .with("client", "(ARRAY[10, 1, 4, 0])[1 + n % 4]")
        .load(&app.postgres);
    app.wait_for_rollup();
    let set = ["message", "set", &MESSAGE.to_string(), "--name", "News of March, <b>not bold</b>"];
    let sent = ["--sent-at", "2026-03-01T21:00:00Z", "--sent-count", "40"];
    app.server.settings().run(&[&set[..], &sent].concat()).unwrap();
}

/// A page with one line per tag, and without what differs between tests.
fn readable(app: &App, visitor: &Visitor, path: &str) -> String {
    let answer = visitor.get(path);
    assert_eq!(answer.status, 200, "{path}");
    let page = text(&answer).replace(&app.image.to_string(), "[image]");
    let page = page.replace(concat!("pixeld ", env!("CARGO_PKG_VERSION")), "pixeld [version]");
    let style = Regex::new("/style/[0-9a-f]+").unwrap();
    style.replace(&page, "/style/[digest]").replace("><", ">\n<")
}

#[test]
fn pages_are_as_they_were_accepted() {
    let _machine = beside();
    let app = App::start();
    let (ann, ben) = (Visitor::admin(&app), Visitor::viewer(&app));
    fill(&app);
    assert_accepted("page-sign-in", &readable(&app, &Visitor::of(&app), "/sign-in"));
    assert_accepted("page-message", &readable(&app, &ann, &format!("/messages/{MESSAGE}")));
    assert_accepted("page-hits", &readable(&app, &ben, &format!("/hits?message={MESSAGE}&recipient={JANE}")));
}
