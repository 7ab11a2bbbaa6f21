//! A PostgreSQL of the user's own: an unusable one is refused in a sentence that says what to do, pixels are served
//! anyway, and nothing is left on its connections.

use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pixeld_testkit::process::{free_port, wait_until};
use pixeld_testkit::server::{Server, Settings, get};
use uuid::Uuid;

use crate::kit::support::{App, PIXELD, Postgres, REST, beside, open_dir};
use crate::kit::visitor::{Visitor, add_user, text as text_of};

/// A command's exit status and all its output.
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

/// A page of the admin page, as a user on this machine sees it.
fn page(server: &Server, path: &str) -> String {
    let admin = server.settings().admin();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    String::from_utf8(pixeld_testkit::server::exchange(admin, request.as_bytes()).unwrap().body).unwrap()
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
        let answer = pixeld_testkit::server::exchange(server.public(), snowman.as_bytes()).unwrap();
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
    // A custom rule; an encoding refuses in the same way.
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
    // And so do later ones, in their own batch.
    wait_until("a later hit", Duration::from_secs(60), || {
        let recipient = fetch(&app, "Agent/7 ☃");
        app.at_rest();
        app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}' AND user_agent = 0")) == 1
    })
    .unwrap();
}

/// Revokes from everybody the default rights of a database, as careful people do, and makes a role that may only
/// connect.
fn make_tight(postgres: &Postgres) -> String {
    postgres.query("CREATE ROLE tight LOGIN").unwrap();
    postgres.query("REVOKE ALL ON DATABASE pixeld FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC").unwrap();
    postgres.query("GRANT CONNECT ON DATABASE pixeld TO tight").unwrap();
    format!("postgresql://tight@{}", postgres.url().split_once('@').unwrap().1)
}

/// The statements that an error names.
fn grants(text: &str) -> Vec<&str> {
    let (_, grants) = text.trim().split_once("run as a superuser in this database: ").expect(text);
    grants.split("; ").collect()
}

#[test]
fn a_role_without_rights_gets_the_exact_grants_and_they_are_enough() {
    let _machine = beside();
    let app = App::start_on(Postgres::start().unwrap(), |postgres, settings| {
        let settings = settings.with("DATABASE_URL", make_tight(postgres));
        let (status, text) = said(&mut settings.command(&["migrate"]));
        let temporary = "GRANT TEMPORARY ON DATABASE pixeld TO tight";
        assert!(status == 1 && grants(&text) == [temporary, "GRANT USAGE, CREATE ON SCHEMA public TO tight"], "{text}");
        for grant in grants(&text) {
            postgres.query(grant).unwrap();
        }
        settings
    });
    let recipients: Vec<Uuid> = (0..3).map(|n| fetch(&app, &format!("Agent/{n}"))).collect();
    app.at_rest();
    let opens = || app.number("SELECT count(*) FROM opens");
    wait_until("the opens", REST, || opens() == 3).unwrap();
    let settings = app.server.settings();
    settings.run(&["reclassify"]).unwrap();
    settings.run(&["opt-out", "--recipient", &recipients[0].to_string()]).unwrap();
    settings.run(&["erase", "--recipient", &recipients[1].to_string()]).unwrap();
    wait_until("the erasure", REST, || opens() == 2).unwrap();
    assert!(!app.server.log().contains("permission denied"), "{}", app.server.log());

    // Rights that are revoked while it runs.
    app.query("REVOKE TEMPORARY ON DATABASE pixeld FROM tight");
    wait_until("not ready", REST, || ready(&app.server).0 == 503).unwrap();
    let (_, text) = ready(&app.server);
    assert!(text.contains("GRANT TEMPORARY ON DATABASE pixeld TO tight\n"), "{text}");
    app.query("GRANT TEMPORARY ON DATABASE pixeld TO tight");
    wait_until("ready", REST, || ready(&app.server).0 == 200).unwrap();
}

#[test]
fn tables_of_another_role_are_named_and_the_statement_of_the_docs_gives_them_all_back() {
    let _machine = beside();
    let app = App::start_on(Postgres::start().unwrap(), |postgres, settings| {
        let url = make_tight(postgres);
        postgres
            .query("GRANT TEMPORARY ON DATABASE pixeld TO tight; GRANT USAGE, CREATE ON SCHEMA public TO tight")
            .unwrap();
        settings.run(&["migrate"]).unwrap();
        let settings = settings.with("DATABASE_URL", url);
        let (status, text) = said(&mut settings.command(&["migrate"]));
        assert!(
            status == 1 && text.contains("belongs to ") && text.contains("ALTER TABLE hits OWNER TO tight"),
            "{text}"
        );
        let page = include_str!("../../../docs/database.md");
        let statement: String = page
            .lines()
            .skip_while(|line| !line.contains("DO $$"))
            .take_while(|line| line.starts_with("    "))
            .collect();
        postgres.query(&statement.replace("pixeld", "tight")).unwrap();
        settings
    });
    fetch(&app, "Agent/1");
    app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 1);
}

/// For a server whose database is read-only: pixels are answered, hits wait, and every output says so.
fn assert_reports_read_only(app: &App, visitor: &Visitor, why: &str) -> Uuid {
    let recipient = fetch(app, "Agent/2");
    wait_until("not ready", REST, || ready(&app.server).0 == 503).unwrap();
    let (_, text) = ready(&app.server);
    assert!(text.starts_with("database: not ok: ") && text.contains("is read-only") && text.contains(why), "{text}");
    wait_until("the log", REST, || app.server.log().contains("is read-only")).unwrap();
    let overview = visitor.get("/");
    assert!(overview.status == 200 && text_of(&overview).contains("is read-only"), "{}", text_of(&overview));
    assert_eq!(visitor.get("/messages").status, 200);
    assert_eq!(app.server.metrics().unwrap().get("pixeld_hits_spooled"), 1.0);
    recipient
}

#[test]
fn while_the_database_is_read_only_it_is_not_ready_and_says_so_and_pages_can_be_read() {
    let _machine = beside();
    let mut app = App::start();
    add_user(&app, "ann", "admin");
    let visitor = Visitor::signed_in(&app, "ann");
    // A session that was used a while ago is updated, if possible.
    app.query("UPDATE sessions SET used_at = used_at - interval '5 minutes'");
    fetch(&app, "Agent/1");
    app.at_rest();
    app.query("ALTER SYSTEM SET default_transaction_read_only = on");
    app.query("SELECT pg_reload_conf()");
    let recipient = assert_reports_read_only(&app, &visitor, "default_transaction_read_only");
    // The same after a restart.
    app.server.terminate().unwrap();
    app.restart();
    wait_until("not ready", REST, || ready(&app.server).1.contains("is read-only")).unwrap();
    assert_eq!(visitor.get("/").status, 200);
    app.wait_for_image(app.image);
    app.query("ALTER SYSTEM RESET default_transaction_read_only");
    app.query("SELECT pg_reload_conf()");
    wait_until("ready", REST, || ready(&app.server).0 == 200).unwrap();
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'")), 1);
    assert_eq!(app.number("SELECT count(*) FROM hits"), 2);
}

#[test]
fn a_standby_is_called_one_and_takes_the_waiting_hits_once_it_is_promoted() {
    let _machine = beside();
    let mut app = App::start();
    add_user(&app, "ann", "admin");
    let visitor = Visitor::signed_in(&app, "ann");
    let folder = app.query("SHOW data_directory").remove(0);
    app.postgres.stop().unwrap();
    std::fs::write(std::path::Path::new(&folder).join("standby.signal"), "").unwrap();
    app.postgres.start_again().unwrap();
    let recipient = assert_reports_read_only(&app, &visitor, "it is a standby");
    app.query("SELECT pg_promote()");
    wait_until("ready", REST, || ready(&app.server).0 == 200).unwrap();
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'")), 1);
}

/// A PgBouncer in front of a PostgreSQL, in this mode; ended when dropped.
struct PgBouncer {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl PgBouncer {
    fn start(postgres: &Postgres, mode: &str, more: &str) -> PgBouncer {
        let (dir, port) = (open_dir(), free_port().unwrap());
        let socket = postgres.socket();
        let url = postgres.url();
        let role = url.split_once("://").unwrap().1.split_once('@').unwrap().0;
        let settings = format!(
            "[databases]\npixeld = host={} port=5432 user={role} dbname=pixeld\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\nunix_socket_dir =\npool_mode = {mode}\n{more}\n",
            socket.parent().unwrap().display()
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // As the user who runs PostgreSQL, whose socket is for that user alone; PgBouncer does not run as root anyway.
        let owner = std::fs::metadata(&socket).unwrap();
        let mut command = Command::new("setpriv");
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid", &owner.uid().to_string(), "--regid", &owner.gid().to_string(), "--clear-groups"]);
        }
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
        command.args(["pgbouncer", "-q"]).arg(&file).env("PATH", path);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let url = format!("postgresql://somebody@127.0.0.1:{port}/pixeld");
        let pooler = PgBouncer { child, url, _dir: dir };
        wait_until("PgBouncer", REST, || TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap();
        pooler
    }

    /// Queries with psql, over `connections` connections at a time.
    fn ask(&self, sql: &str, connections: usize) -> Vec<String> {
        let asking: Vec<Child> = (0..connections)
            .map(|_| {
                let mut psql = Command::new("psql");
                psql.args([&self.url, "-XAtqc", sql]).stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let answers = asking.into_iter().map(|child| child.wait_with_output().unwrap().stdout);
        answers.map(|answer| String::from_utf8(answer).unwrap().trim().to_owned()).collect()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_transaction_pooler_is_refused_and_nothing_is_left_on_its_connections() {
    let _machine = beside();
    let dir = open_dir();
    for (mode, more) in [
        ("transaction", ""),
        ("transaction", "server_round_robin = 1"),
        ("statement", ""),
        ("transaction", "max_db_connections = 1"),
    ] {
        let postgres = Postgres::start().unwrap();
        let pooler = PgBouncer::start(&postgres, mode, more);
        if more != "max_db_connections = 1" {
            // Connections that wait to be lent.
            pooler.ask("SELECT pg_sleep(0.3)", 4);
        }
        let settings = Settings::new(PIXELD, dir.path().join(Uuid::new_v4().to_string())).unwrap();
        let settings = settings.with("DATABASE_URL", &pooler.url);
        for arguments in [&["migrate"][..], &["image", "list"], &["opt-out", "--recipient", "4711"]] {
            let (status, text) = said(&mut settings.command(arguments));
            assert!(status == 1 && text.contains("transaction mode") && text.contains("pool_mode=session"), "{text}");
        }
        let server = settings.start().unwrap();
        wait_until("not ready", Duration::from_secs(8), || ready(&server).1.contains("pool_mode=session"))
            .unwrap_or_else(|_| panic!("{} {}", ready(&server).1, server.log()));
        wait_until("the log", REST, || server.log().contains("pool_mode=session")).unwrap();
        drop(server);
        let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL \
                    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(postgres.query(left).unwrap(), ["0", "0"], "{mode} {more}");
        // Visible to the next client of such a connection.
        let left = "SELECT concat_ws(' ', (SELECT count(*) FROM pg_prepared_statements), \
                    (SELECT count(*) FROM pg_listening_channels()), current_setting('lock_timeout'), current_setting('TimeZone') = \
                    (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'))";
        for answer in pooler.ask(left, 3) {
            assert_eq!(answer, "0 0 0 t", "{mode} {more}");
        }
    }
}

#[test]
fn a_pooler_in_session_mode_is_as_good_as_postgresql() {
    let _machine = beside();
    let mut pooler = None;
    let app = App::start_on(Postgres::start().unwrap(), |postgres, settings| {
        let started = pooler.insert(PgBouncer::start(postgres, "session", "default_pool_size = 40"));
        settings.with("DATABASE_URL", &started.url)
    });
    let recipient = fetch(&app, "Agent/1");
    app.at_rest();
    assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'")), 1);
    wait_until("ready", REST, || ready(&app.server).0 == 200).unwrap();
    drop(app);
}

#[test]
fn only_a_lost_connection_is_called_one_and_another_error_says_its_code_and_where_the_log_has_it() {
    let _machine = beside();
    let mut app = App::start();
    add_user(&app, "ann", "admin");
    let visitor = Visitor::signed_in(&app, "ann");
    app.query("ALTER TABLE messages RENAME COLUMN name TO name_gone");
    let answer = visitor.get("/messages");
    let page = text_of(&answer);
    assert!(answer.status == 500 && page.contains("SQLSTATE 42703") && !page.contains("is not answering"), "{page}");
    let reference = page.split("for the reference ").nth(1).unwrap().split('.').next().unwrap();
    let line = |log: &str| log.lines().find(|line| line.contains(reference)).map(str::to_owned);
    wait_until("the log", REST, || line(&app.server.log()).is_some()).unwrap();
    assert!(line(&app.server.log()).unwrap().contains("42703"), "{}", app.server.log());
    app.query("ALTER TABLE messages RENAME COLUMN name_gone TO name");

    // No log contains values of a statement: a class whose messages quote them.
    app.query("ALTER TABLE messages ADD CONSTRAINT plain CHECK (name !~ 'Geheim')");
    let message = Uuid::from_u128(7);
    app.server.settings().run(&["message", "set", &message.to_string(), "--name", "May"]).unwrap();
    let answer = visitor.post(&format!("/messages/{message}"), "name=Geheim+4711");
    let page = text_of(&answer);
    assert!(answer.status == 500 && page.contains("SQLSTATE 23514"), "{} {page}", answer.status);
    wait_until("the log", REST, || app.server.log().contains("SQLSTATE 23514")).unwrap();
    assert!(!app.server.log().contains("Geheim"), "{}", app.server.log());

    // The same for the loader's statements.
    app.query("ALTER TABLE spool_marks RENAME COLUMN next_seq TO next_seq_gone");
    fetch(&app, "Agent/1");
    wait_until("the finding", REST, || {
        text_of(&visitor.get("/")).contains("refuses a statement of the loader (SQLSTATE 42703)")
    })
    .unwrap();
    assert!(!text_of(&visitor.get("/")).contains("no connection to PostgreSQL"));
    app.query("ALTER TABLE spool_marks RENAME COLUMN next_seq_gone TO next_seq");
    app.at_rest();
    wait_until("all well", REST, || !text_of(&visitor.get("/")).contains("refuses a statement of the loader")).unwrap();

    app.postgres.stop().unwrap();
    let answer = visitor.get("/messages");
    assert!(answer.status == 503 && text_of(&answer).contains("The database is not answering"), "{}", text_of(&answer));
}
