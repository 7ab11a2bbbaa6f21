//! Machines that are restored to a snapshot while they run: the database knows the numbers of a live spool, but for
//! different hits.

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Settings, get};
use uuid::Uuid;

use crate::kit::rows::Hits;
use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, REST, beside};

/// The role of the node under test, so that it alone can be locked out.
const NODE: &str = "node";

fn fetch_each(app: &App, message: Uuid, count: usize) -> Vec<Uuid> {
    let recipients: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
    for &recipient in &recipients {
        assert_eq!(get(app.server.public(), &app.pixel(message, recipient)).unwrap().status, 200);
    }
    recipients
}

fn keep_away(app: &App) {
    app.query("ALTER ROLE node NOLOGIN");
    app.query("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE usename = 'node'");
}

/// Rows per recipient.
fn rows(app: &App, recipients: &[Uuid]) -> Vec<u64> {
    let of = |recipient| app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"));
    recipients.iter().map(of).collect()
}

#[test]
fn a_mark_ahead_of_the_live_spool_skips_no_hit_and_none_comes_twice_also_after_a_kill() {
    let _machine = beside();
    // Hits of the other history beyond the common ones, against 15 of this one's own: fewer, and many more.
    for other_hits in [5_u64, 5_000] {
        let postgres = Postgres::start().unwrap();
        postgres.query(&format!("CREATE ROLE {NODE} SUPERUSER LOGIN")).unwrap();
        let as_node = |postgres: &Postgres| postgres.url().replace("postgresql://pixeld@", "postgresql://node@");
        let mut app = App::start_on(postgres, |postgres, settings| settings.with("DATABASE_URL", as_node(postgres)));
        let message = Uuid::new_v4();
        let mut recipients = fetch_each(&app, message, 10);
        app.at_rest();
        let before = app.number("SELECT max(next_seq) FROM spool_marks");
        keep_away(&app);
        // Both histories have these; the other one has loaded them, and continues with its own hits.
        recipients.extend(fetch_each(&app, message, 5));
        let copy = Settings::new(PIXELD, app.dir.path().join("copy")).unwrap().with("DATABASE_URL", app.url());
        std::fs::create_dir_all(&copy.data_dir).unwrap();
        let copying = std::process::Command::new("cp")
            .arg("-r")
            .args([app.server.data_dir().join("spool"), copy.data_dir.join("spool")])
            .status();
        assert!(copying.unwrap().success());
        let said = copy.run(&["spool", "drain"]).unwrap();
        let mark = app.number("SELECT max(next_seq) FROM spool_marks");
        assert_eq!(mark, before + 5, "{said}");
        let spool = app.number("SELECT spool FROM spool_marks");
        let now = app.query("SELECT now()::text").remove(0);
        Hits::new(other_hits, format!("timestamptz '{now}'"))
            .of_spool(spool as u32, mark)
            .id("message", message)
            .id("image", app.image)
            .with("class", "6")
            .with("rule", "0")
            .load(&app.postgres);
        app.query(&format!("UPDATE spool_marks SET next_seq = {}", mark + other_hits));
        let own = fetch_each(&app, message, 15);
        recipients.extend(&own);
        assert_eq!(rows(&app, &own), [0; 15]);

        app.query("ALTER ROLE node LOGIN");
        wait_until("every answered hit", PATIENCE, || rows(&app, &recipients) == [1; 30])
            .unwrap_or_else(|error| panic!("{error}\n{:?}\n{}", rows(&app, &recipients), app.server.log()));
        let metrics = app.at_rest();
        assert_eq!(metrics.get("pixeld_spool_forks_total"), 1.0);
        metrics.check_identity().unwrap();
        let log = app.server.log();
        assert!(
            log.contains("ERROR") && log.contains("the database has other hits under this spool's numbers"),
            "{log}"
        );

        // The mark's new name is remembered.
        recipients.extend(fetch_each(&app, message, 5));
        app.server.kill().unwrap();
        app.restart();
        recipients.extend(fetch_each(&app, message, 5));
        wait_until("the rest", PATIENCE, || rows(&app, &recipients) == [1; 40]).unwrap();
        let metrics = app.server.at_rest(REST).unwrap();
        assert_eq!(metrics.get("pixeld_spool_forks_total"), 0.0);
        metrics.check_identity().unwrap();
        assert_eq!(rows(&app, &recipients), [1; 40]);
        let status = app.server.settings().run(&["spool", "status"]).unwrap();
        let waiting: Vec<&str> = status.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
        assert!(!waiting.is_empty() && waiting.iter().all(|waiting| *waiting == "0"), "{status}");
    }
}
