//! The PostgreSQL that somebody brings: what cannot be used is refused in a sentence that says what to do, pixels are served
//! all the same, and nothing is left on its connections.

use std::process::{Command, Stdio};
use std::time::Duration;

use loadtest::process::wait_until;
use loadtest::server::{Server, Settings, get};
use uuid::Uuid;

use crate::support::{App, PIXELD, Postgres, REST, beside, open_dir};

/// Exit status and all that a command said.
fn said(command: &mut Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// What `/readyz` answers.
fn ready(server: &Server) -> (u16, String) {
    let answer = get(server.settings().admin(), "/readyz").unwrap();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

/// A page of the admin page, as somebody on this machine sees it.
fn page(server: &Server, path: &str) -> String {
    let admin = server.settings().admin();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    String::from_utf8(loadtest::server::exchange(admin, request.as_bytes()).unwrap().body).unwrap()
}

/// The URL of another database of the same server.
fn url_of(postgres: &Postgres, database: &str) -> String {
    postgres.url().replace("/pixeld?", &format!("/{database}?"))
}

/// A GET of a pixel with this user agent.
fn fetch(app: &App, user_agent: &str) -> Uuid {
    let recipient = Uuid::new_v4();
    let path = app.pixel(Uuid::from_u128(1), recipient);
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {user_agent}\r\nConnection: close\r\n\r\n");
    assert_eq!(app.exchange(&request).status, 200);
    recipient
}

#[test]
fn a_database_that_is_not_utf8_is_refused_by_name_and_hits_wait_for_a_better_one() {
    let _machine = beside();
    let postgres = Postgres::start().unwrap();
    let dir = open_dir();
    for encoding in ["LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        let make =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        postgres.query(&make).unwrap();
        let settings = Settings::new(PIXELD, dir.path().join(&name)).unwrap();
        let settings = settings.with("DATABASE_URL", url_of(&postgres, &name));
        let (status, text) = said(&mut settings.command(&["migrate"]));
        assert_eq!(status, 1, "{text}");
        assert!(text.contains(&format!("has the encoding {encoding}")), "{text}");
        assert!(text.contains("createdb --encoding=UTF8 --template=template0"), "{text}");

        let server = settings.start().unwrap();
        let pixel = format!("/image/{}_{}_{}.png", Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let snowman =
            format!("GET {pixel} HTTP/1.1\r\nHost: x\r\nUser-Agent: Thunderbird ☃\r\nConnection: close\r\n\r\n");
        let answer = loadtest::server::exchange(server.public(), snowman.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")));
        wait_until("the reason", REST, || ready(&server).1.contains(encoding)).unwrap();
        let (status, text) = ready(&server);
        assert!(status == 503 && text.contains("createdb") && text.starts_with("database: not ok"), "{text}");
        wait_until("the log", REST, || server.log().contains(encoding)).unwrap();
        let page = page(&server, "/sign-in");
        assert!(page.contains(&format!("has the encoding {encoding}")), "{page}");
        let metrics = server.metrics().unwrap();
        assert_eq!((metrics.get("pixeld_hits_spooled"), metrics.get("pixeld_hits_dropped_total")), (1.0, 0.0));
        let tables = Command::new("psql")
            .args([
                &url_of(&postgres, &name),
                "-XAtqc",
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
            ])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&tables.stdout).trim(), "0", "nothing was made there");
    }
}

#[test]
fn a_user_agent_that_postgresql_refuses_costs_its_own_hits_their_agent_and_nothing_else() {
    let _machine = beside();
    let app = App::start();
    // A rule of somebody's own; an encoding refuses in the same way.
    app.query("ALTER TABLE user_agents ADD CONSTRAINT plain CHECK (user_agent !~ '[^ -~]')");
    let agents: Vec<String> = (0..40).map(|n| format!("Agent/{n}{}", if n % 20 == 7 { " ☃" } else { "" })).collect();
    let recipients: Vec<Uuid> = agents.iter().map(|agent| fetch(&app, agent)).collect();
    app.at_rest();
    for (agent, recipient) in agents.iter().zip(recipients) {
        let found =
            app.query(&format!("SELECT coalesce(user_agent, '') FROM hits_readable WHERE recipient = '{recipient}'"));
        let kept = if agent.contains('☃') { "(not recorded" } else { agent };
        assert!(found.len() == 1 && found[0].starts_with(kept), "{agent}: {found:?}");
    }
    assert_eq!(app.server.metrics().unwrap().get("pixeld_load_retries_total"), 0.0);
    let log = app.server.log();
    assert!(log.contains("refuses a user agent") && !log.contains('☃'), "{log}");
    // And so do those that come later, in a batch of their own.
    wait_until("a later hit", Duration::from_secs(60), || {
        let recipient = fetch(&app, "Agent/7 ☃");
        app.at_rest();
        app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}' AND user_agent = 0")) == 1
    })
    .unwrap();
}
