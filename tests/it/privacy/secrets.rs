//! No output contains a part of a password, however odd the text around it is, nor a value of a row that PostgreSQL
//! refuses.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Settings, get};
use uuid::Uuid;

use crate::kit::support::{App, PIXELD, Postgres, beside, open_dir};
use crate::kit::visitor::Visitor;

/// For what takes a moment on an idle machine.
const LONG: Duration = Duration::from_secs(60);

/// Every password here consists of these pieces, and nothing else contains them.
const PIECES: [&str; 3] = ["hunter", "geheim", "passwort"];

fn assert_silent(text: &str, what: &str) {
    let lower = text.to_lowercase();
    for piece in PIECES {
        assert!(!lower.contains(piece), "{what}: {piece} is in {text}");
    }
}

/// All output of a command, with everything logged.
fn said(settings: &Settings, arguments: &[&str]) -> (Option<i32>, String) {
    let output = settings.clone().with("PIXELD_LOG", "trace").command(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

const DATABASE_URLS: [&str; 36] = [
    "hunter",
    "hunter@geheim",
    "postgresql://pix:hunter@127.0.0.1:1/x",
    "postgresql://pix:hunter@geheim@127.0.0.1:1/x",
    "postgresql://pix:hunter@geheim@passwort@127.0.0.1:1/x",
    "postgresql://pix:hunter/geheim@127.0.0.1:1/x",
    "postgresql://pix:hunter/geh@eim-geheim/passwort@127.0.0.1:1/x",
    "postgresql://pix:hunter?geheim@127.0.0.1:1/x",
    "postgresql://pix:p@127.0.0.1:1?hunter=geheim@passwort/x",
    "postgresql://pix:p@127.0.0.1:1?user=geheim@passwort/x",
    "postgresql://pix:hunter#geheim@127.0.0.1:1/x",
    "postgresql://pix:p@127.0.0.1#geheim@127.0.0.1:1/x",
    "postgresql://pix:hunter:geheim@127.0.0.1:1/x",
    "postgresql://pix:hunter%40geheim@127.0.0.1:1/x",
    "postgresql://pix:p@hunter%40geheim/x",
    "postgresql://pix:%ffhunter@127.0.0.1:1/x",
    "postgresql://pix:hunter@127.0.0.1:geheim/x",
    "postgresql://pix:hunter@[geheim/x",
    "postgresql://pix:hunter@,geheim@127.0.0.1:1/x",
    "postgresql://pix;hunter@127.0.0.1:1/x",
    "postgresql://pix hunter@127.0.0.1:1/x",
    "postgresql://pix@127.0.0.1:1/x?password=hunter",
    "postgresql://pix@127.0.0.1:1/x?password=hunter@geheim",
    "postgresql://127.0.0.1:1/x?user=pix&password=hunter@geheim",
    "postgresql://pix@127.0.0.1:1/x&password=hunter",
    "postgresql://pix@127.0.0.1:1/x;password=hunter",
    "postgresql://pix:hunter@127.0.0.1:1/x?geheim",
    "postgresql://pix:hunter@127.0.0.1:1/x?sslmode=geheim",
    "postgres:/pix:hunter@127.0.0.1:1/x",
    "mysql://pix:hunter@127.0.0.1:1/x",
    "host=127.0.0.1 port=1 user=pix password=hunter",
    "host=127.0.0.1 port=1 user=pix password='hunter geheim' dbname=x",
    "host=127.0.0.1 port=1 user=pix password=hunter geheim dbname=x",
    "host=127.0.0.1;port=1;user=pix;password=hunter",
    "host=127.0.0.1,password=hunter user=pix",
    "Server=127.0.0.1;User Id=pix;Password=hunter;",
];

const OTHERS: [(&str, &str); 27] = [
    ("REDIS_URL", "redis://:hunter@geheim@127.0.0.1:1"),
    ("REDIS_URL", "redis://:hunter/geheim@127.0.0.1:1"),
    ("REDIS_URL", "redis://pix:1#hunter@127.0.0.1:1"),
    ("REDIS_URL", "redis://pix:1/0?hunter@127.0.0.1:1"),
    ("REDIS_URL", "redis://127.0.0.1:1/0&password=hunter"),
    ("REDIS_URL", "redis+unix:///run/none.sock&pass=hunter"),
    ("REDIS_URL", "hunter@geheim"),
    ("SENTRY_DSN", "http://hunter@geheim@127.0.0.1:1/1"),
    ("SENTRY_DSN", "http://hunter:geheim@127.0.0.1:1/x/y"),
    ("SENTRY_DSN", "hunter"),
    ("PIXELD_SIGNING_KEYS", "1:hunter"),
    ("PIXELD_SIGNING_KEYS", "hunter:geheim,passwort"),
    ("PIXELD_SIGNING_KEYS", "1:geheimgeheimgeheimgeheim,1:geheimgeheimgeheimgeheim"),
    ("DJANGO_DATABASE_URL", "postgresql://pix:hunter@geheim@127.0.0.1:1/x"),
    // Set as another variable by mistake.
    ("PIXELD_LISTEN", "postgresql://pix:hunter@127.0.0.1:1/x"),
    ("PIXELD_BASE_URL", "https://pix:hunter@pixels.example.com"),
    ("PIXELD_ADMIN_BASE_URL", "https://hunter@pixels.example.com"),
    ("PIXELD_THROTTLE", "redis://:hunter@127.0.0.1"),
    ("PIXELD_LOG", "password=hunter=geheim"),
    ("PIXELD_TRUSTED_PROXIES", "redis://:hunter@127.0.0.1"),
    ("PIXELD_NETWORKS_DIR", "postgresql://pix:hunter@127.0.0.1/x"),
    ("PG_BIN", "postgresql://pix:hunter@127.0.0.1/x"),
    ("PIXELD_DATABASE_URL", "postgresql://pix:hunter@127.0.0.1/x"),
    ("PIXELD_SIGNING_KEYS_FILE", "1:geheimgeheimgeheimgeheim"),
    ("SENTRY_DSN_FILE", "https://hunter@127.0.0.1/1"),
    ("REDIS_URL_FILE", "redis://:hunter@127.0.0.1"),
    ("DATABASE_URL_FILE", "postgresql://pix:hunter@127.0.0.1/x"),
];

#[test]
fn no_command_prints_a_piece_of_a_password() {
    let _machine = beside();
    let dir = open_dir();
    let settings = || Settings::new(PIXELD, dir.path().join("data")).unwrap();
    let file = dir.path().join("url");
    for url in DATABASE_URLS {
        let direct = settings().with("DATABASE_URL", url);
        fs::write(&file, url).unwrap();
        let by_file = settings().with("DATABASE_URL_FILE", file.to_str().unwrap());
        for settings in [&direct, &by_file] {
            let (code, text) = said(settings, &["migrate"]);
            assert!(code.is_some_and(|code| code == 1 || code == 64), "{url}: {code:?} {text}");
            assert_silent(&text, url);
        }
        let elsewhere = settings().with("DATABASE_URL", "postgresql://pix@127.0.0.1:1/x");
        let arguments = ["import", "django", "--media", dir.path().to_str().unwrap(), "--database-url", url];
        let (code, text) = said(&elsewhere, &arguments);
        assert_ne!(code, Some(0), "{text}");
        assert_silent(&text, url);
        let (code, text) = said(&elsewhere, &["migrate", url]);
        assert_eq!(code, Some(2), "{text}");
        assert!(!url.contains("://") || !url.contains('@') || !text.contains("hunter"), "{text}");
    }
    for (name, value) in OTHERS {
        let settings = settings().with("DATABASE_URL", "postgresql://pix@127.0.0.1:1/x").with(name, value);
        let (code, text) = said(&settings, &["migrate"]);
        assert!(code.is_some_and(|code| code == 1 || code == 64), "{name}: {code:?} {text}");
        assert_silent(&text, &format!("{name}={value}"));
    }
    for arguments in [
        &["user", "add", "ann", "hunter"][..],
        &["user", "add", "ann", "--password=hunter"],
        &["user", "password", "ann", "--password", "hunter"],
        &["import", "django", "--database-ulr=postgresql://pix:hunter@h/x"],
        &["export", "--recipient", "1", "postgresql://pix:hunter@h/x"],
    ] {
        let (code, text) = said(&settings(), arguments);
        assert_eq!(code, Some(2), "{text}");
        assert_silent(&text, &format!("{arguments:?}"));
    }
}

#[test]
fn a_running_pixeld_prints_no_piece_of_a_secret_anywhere() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    postgres.query("ALTER SYSTEM SET log_statement = 'none'").unwrap();
    postgres.query("CREATE ROLE pix LOGIN SUPERUSER PASSWORD 'huntergeheim'").unwrap();
    let base = postgres.url();
    let url = format!("{base}{}password=huntergeheim", if base.contains('?') { "&" } else { "?" });
    let app = App::start_on(postgres, |_, settings| {
        settings
            .with("DATABASE_URL", url)
            .with("REDIS_URL", "redis://passwort:hunter%40geheim@127.0.0.1:1/0")
            .with("SENTRY_DSN", "http://passwort@127.0.0.1:1/1")
            .with("PIXELD_SIGNING_KEYS", "1:huntergeheimpasswortgeheimhunter")
            .with("DJANGO_DATABASE_URL", "postgresql://app:hunter@127.0.0.1:1/geheim")
            .with("PIXELD_THROTTLE", "1h")
            .with("PIXELD_LOG", "trace")
    });
    drop(dir);
    app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4()));
    app.at_rest();
    let ann = Visitor::admin(&app);
    for path in ["/", "/settings", "/audit", "/not-recorded"] {
        let page = ann.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert_silent(&String::from_utf8_lossy(&page.body), path);
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        assert_silent(&String::from_utf8_lossy(&get(app.server.settings().admin(), path).unwrap().body), path);
    }
    for file in ["serve.env", "namespace"] {
        assert_silent(&fs::read_to_string(app.server.data_dir().join(file)).unwrap(), file);
    }
    // The database is down, so that it says where it cannot connect.
    let App { mut server, mut postgres, dir: _dir, .. } = app;
    postgres.stop().unwrap();
    wait_until("a lost connection in the log", LONG, || server.log().contains("connection to PostgreSQL lost"))
        .unwrap();
    server.terminate().unwrap();
    let log = fs::read_to_string(server.data_dir().join("serve.log")).unwrap();
    assert!(log.len() > 1000);
    assert_silent(&log, "the log");
}

#[test]
fn errors_of_postgresql_are_logged_without_the_rows_values() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    // PostgreSQL quotes the row in the details, and a function's message quotes what its author likes.
    app.query("ALTER TABLE messages ADD CONSTRAINT refused CHECK (name NOT LIKE '%hunter%')");
    app.query(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'not %', NEW.name USING DETAIL = NEW.name, HINT = NEW.name; END $$",
    );
    app.query("CREATE TRIGGER refuse BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse()");
    app.query(
        "CREATE FUNCTION cast_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM NEW.title::uuid; RETURN NEW; END $$",
    );
    app.query("CREATE TRIGGER cast_it BEFORE INSERT ON images FOR EACH ROW EXECUTE FUNCTION cast_it()");
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    for (arguments, part) in [
        (&["message", "set", "may", "--name", "hunter geheim"][..], "violates check constraint"),
        (&["image", "add", picture, "--title", "hunter geheim"], "invalid input syntax for type uuid"),
    ] {
        let output = settings.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(part), "{text}");
        assert_silent(&text, part);
    }
    let mut adding: Command = settings.command(&["user", "add", "hunter@geheim.example", "--password-stdin"]);
    let mut adding = adding.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut adding.stdin.take().unwrap(), b"a long enough passwort\n").unwrap();
    let output = adding.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("a function of the database raised an error"), "{text}");
    assert_silent(&text, "user add");
}
