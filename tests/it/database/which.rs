//! Which installation a command works on: the intended one, or none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings};
use uuid::Uuid;

use crate::kit::support::{App, PIXELD, Postgres, beside, open_dir};

/// For what takes a moment on an idle machine.
const LONG: Duration = Duration::from_secs(60);

const KEYS: &str = "7:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEYS: &str = "7:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

const IMAGE: &str = "6f1c0a52-3f0e-4a53-9d53-6a1d7b1f2c11";

/// Every command that needs an installation.
const COMMANDS: [&[&str]; 17] = [
    &["database-url"],
    &["image", "add", concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png")],
    &["image", "list"],
    &["link", "--image", IMAGE],
    &["opt-out", "--recipient", "4711"],
    &["opt-out", "--recipient", "4711", "--undo"],
    &["namespace"],
    &["message", "set", "may", "--name", "May"],
    &["message", "list"],
    &["user", "list"],
    &["user", "remove", "ann"],
    &["reclassify"],
    &["erase", "--recipient", "4711"],
    &["erase", "--status"],
    &["export", "--recipient", "4711"],
    &["spool", "status"],
    &["spool", "drain"],
];

/// A command with only these of our variables in its environment, run in this folder.
fn called(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(PIXELD);
    command.args(arguments).current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(variables.iter().copied());
    command
}

fn said(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn names_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn in_another_folder_every_command_exits_with_64_and_creates_nothing() {
    let _machine = beside();
    let dir = open_dir();
    let data = dir.path().canonicalize().unwrap().join("data");
    let networks: [&[&str]; 2] = [&["networks", "update"], &["networks", "status"]];
    for arguments in COMMANDS.into_iter().chain(networks) {
        let (code, stdout, stderr) = said(called(dir.path(), &[], arguments));
        assert_eq!((code, &*stdout), (64, ""), "{arguments:?}: {stderr}");
        for part in [data.to_str().unwrap(), "PIXELD_DATA_DIR", "nothing was done"] {
            assert!(stderr.contains(part), "{arguments:?}: {part} is missing in {stderr}");
        }
        assert_eq!(names_in(dir.path()), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_database_without_tables_is_refused_by_every_command_and_stays_empty() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let url = postgres.url();
    // Each waits for tables that a start may be creating at this moment; all at once, since that takes a moment.
    let running: Vec<_> = COMMANDS
        .into_iter()
        .filter(|arguments| !["database-url", "spool"].contains(&arguments[0]))
        .map(|arguments| {
            let mut command = called(dir.path(), &[("DATABASE_URL", &url)], arguments);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (arguments, command.spawn().unwrap())
        })
        .collect();
    for (arguments, child) in running {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(64), &b""[..]), "{arguments:?}: {stderr}");
        for part in ["there is no pixeld in the PostgreSQL at", "nothing was done", "pixeld migrate"] {
            assert!(stderr.contains(part), "{arguments:?}: {part} is missing in {stderr}");
        }
    }
    assert_eq!(postgres.query("SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'").unwrap(), ["0"]);
}

/// A `serve` with these variables besides its data directory and ports, and nothing else.
fn serve(data: &Path, variables: &[(&str, String)]) -> Server {
    let mut settings = Settings::new(PIXELD, data).unwrap();
    settings.variables.clear();
    for (name, value) in variables {
        settings = settings.with(name, value);
    }
    settings.start().unwrap()
}

#[test]
fn a_command_without_settings_of_its_own_does_as_the_serve_of_its_data_directory() {
    let _machine = beside();
    let (postgres, dir, elsewhere) = (Postgres::start().unwrap(), open_dir(), open_dir());
    let data = dir.path().join("data");
    let files = [("url", postgres.url()), ("keys", KEYS.to_owned())].map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let [url_file, keys_file] = files;
    let server = serve(
        &data,
        &[
            ("DATABASE_URL_FILE", url_file),
            ("PIXELD_SIGNING_KEYS_FILE", keys_file),
            ("PIXELD_REQUIRE_SIGNED", "true".to_owned()),
            ("PIXELD_ADMIN_BASE_URL", "https://admin.example.com:8443".to_owned()),
        ],
    );
    let variables = [("PIXELD_DATA_DIR", data.to_str().unwrap())];
    let run = |arguments: &[&str]| {
        let (code, stdout, stderr) = said(called(elsewhere.path(), &variables, arguments));
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        (stdout, stderr)
    };
    assert_eq!(run(&["healthcheck"]).0, "ok\n");
    assert_eq!(run(&["database-url"]).0.trim(), postgres.url());
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    let image = run(&["image", "add", picture]).0.trim().to_owned();
    let (link, stderr) = run(&["link", "--image", &image, "--recipient", "4711", "--sent-at", "now"]);
    let url = link.lines().next().unwrap();
    let path = url.strip_prefix(&format!("http://{}", server.public())).unwrap();
    assert!(path.starts_with("/o/") && stderr.is_empty(), "{link} {stderr}");
    wait_until("the image", LONG, || {
        pixeld_testkit::server::get(server.public(), path).unwrap().header("content-type") == Some("image/png")
    })
    .unwrap();
    wait_until("the hit", LONG, || postgres.number("SELECT count(*) FROM hits").unwrap() >= 1.0).unwrap();
    // Receipts name the installation.
    let mut installations = Vec::new();
    for arguments in [&["opt-out", "--recipient", "4711"][..], &["erase", "--recipient", "4711"], &["migrate"]] {
        let receipt = run(arguments).0;
        let (_, named) = receipt.split_once("installation ").unwrap_or_else(|| panic!("{arguments:?}: {receipt}"));
        let (name, place) = named.split_once(", ").unwrap();
        assert!(place.starts_with("the PostgreSQL at ") && place.contains("database "), "{receipt}");
        installations.push(name.to_owned());
    }
    installations.dedup();
    assert!(installations.len() == 1 && installations[0].len() == 9, "{installations:?}");
    assert!(run(&["message", "set", "may", "--name", "May"]).1.contains(&format!("installation {}", installations[0])));
    // What was left is readable only by its owner, and contains no secret.
    let left = data.join("serve.env");
    assert_eq!(fs::metadata(&left).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&left).unwrap();
    assert!(!text.contains("AAEC") && !text.contains(&postgres.url()), "{text}");
    // It stays when serve has ended, and the next start replaces it.
    drop(server);
    assert!(run(&["link", "--image", &image]).0.contains("/o/"));
    let server = serve(&data, &[("DATABASE_URL", postgres.url())]);
    let (code, _, stderr) = said(called(elsewhere.path(), &variables, &["opt-out", "--recipient", "4711"]));
    assert!(code == 64 && stderr.contains("only in the environment of `pixeld serve`"), "{stderr}");
    let url = postgres.url();
    let with_url = [variables[0], ("DATABASE_URL", &*url)];
    let (code, link, stderr) = said(called(elsewhere.path(), &with_url, &["link", "--image", &image]));
    let expected = format!("http://{}/image/{image}.png", server.public());
    assert!(code == 0 && link.starts_with(&expected) && stderr.is_empty(), "{link} {stderr}");
}

#[test]
fn settings_only_in_serves_environment_are_named_not_guessed() {
    let _machine = beside();
    let (postgres, dir, elsewhere) = (Postgres::start().unwrap(), open_dir(), open_dir());
    let data = dir.path().join("data");
    let url = postgres.url();
    let secret = format!("{url}{}password=hunter2geheim", if url.contains('?') { "&" } else { "?" });
    let server = serve(&data, &[("DATABASE_URL", secret.clone()), ("PIXELD_SIGNING_KEYS", KEYS.to_owned())]);
    let named = ("PIXELD_DATA_DIR", data.to_str().unwrap());
    // Not the private PostgreSQL of an empty directory beside it, and not with any command.
    for arguments in COMMANDS.into_iter().chain([&["migrate"][..]]) {
        let (code, stdout, stderr) = said(called(elsewhere.path(), &[named], arguments));
        assert_eq!((code, &*stdout), (64, ""), "{arguments:?}: {stderr}");
        for part in ["uses the PostgreSQL at ", "set DATABASE_URL here as well", "pixeld.env"] {
            assert!(
                stderr.to_lowercase().contains(&part.to_lowercase()),
                "{arguments:?}: {part} is missing in {stderr}"
            );
        }
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    assert!(!data.join("postgres").exists());
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    let both = [named, ("DATABASE_URL", &*secret)];
    let image = said(called(elsewhere.path(), &both, &["image", "add", picture])).1.trim().to_owned();
    // The server could sign, and this command cannot.
    let (code, link, stderr) = said(called(elsewhere.path(), &both, &["link", "--image", &image]));
    assert!(code == 0 && link.contains("/image/") && stderr.contains("these links are not signed"), "{stderr}");
    // With different keys, the links would be forged.
    let others = [&both[..], &[("PIXELD_SIGNING_KEYS", OTHER_KEYS)]].concat();
    let (code, link, stderr) = said(called(elsewhere.path(), &others, &["link", "--image", &image]));
    assert!(code == 64 && link.is_empty() && stderr.contains("as forged"), "{link} {stderr}");
    let same = [&both[..], &[("PIXELD_SIGNING_KEYS", KEYS)]].concat();
    assert!(said(called(elsewhere.path(), &same, &["link", "--image", &image])).1.contains("/o/"));
    drop(server);
    let variables = [
        ("DATABASE_URL", secret.clone()),
        ("PIXELD_SIGNING_KEYS", KEYS.to_owned()),
        ("PIXELD_REQUIRE_SIGNED", "true".to_owned()),
    ];
    let _server = serve(&data, &variables);
    let (code, link, stderr) = said(called(elsewhere.path(), &both, &["link", "--image", &image]));
    assert!(code == 64 && link.is_empty() && stderr.contains("records only signed links"), "{link} {stderr}");
    // Commands that need no keys still work.
    let (code, _, stderr) = said(called(elsewhere.path(), &both, &["opt-out", "--recipient", "4711"]));
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_settings_file_in_the_data_directory_is_read_by_serve_and_every_command_and_the_environment_counts_more() {
    let _machine = beside();
    let (postgres, dir, elsewhere) = (Postgres::start().unwrap(), open_dir(), open_dir());
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let file = data.join("pixeld.env");
    let settings = format!(
        "# as in .env.example\nDATABASE_URL={}\nPIXELD_BASE_URL=\"https://pixels.example.com/\"\nPIXELD_SIGNING_KEYS={KEYS}\n",
        postgres.url()
    );
    fs::write(&file, &settings).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let server = serve(&data, &[]);
    let named = ("PIXELD_DATA_DIR", data.to_str().unwrap());
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    wait_until("the tables", LONG, || {
        postgres.number("SELECT count(*) FROM pg_class WHERE relname = 'images'").unwrap() == 1.0
    })
    .unwrap();
    let image = said(called(elsewhere.path(), &[named], &["image", "add", picture])).1.trim().to_owned();
    let (code, link, stderr) = said(called(elsewhere.path(), &[named], &["link", "--image", &image]));
    assert!(code == 0 && link.starts_with("https://pixels.example.com/o/") && stderr.is_empty(), "{link} {stderr}");
    assert_eq!(said(called(elsewhere.path(), &[named], &["healthcheck"])).1, "ok\n");
    // In the data directory's parent, with the default.
    assert_eq!(said(called(dir.path(), &[], &["link", "--image", &image])).1, link);
    let ours = [named, ("PIXELD_BASE_URL", "https://other.example.com")];
    assert!(
        said(called(elsewhere.path(), &ours, &["link", "--image", &image]))
            .1
            .starts_with("https://other.example.com/o/")
    );
    // A wrong line ends every command; it is named without its value.
    drop(server);
    for (line, part) in [
        ("PIXELD_THROTTLE=hunter2", "PIXELD_THROTTLE in "),
        ("PIXELD_THROTLE=hunter2", "PIXELD_THROTLE in "),
        ("hunter2", "line 5 in "),
        ("PIXELD_DATA_DIR=/hunter2", "PIXELD_DATA_DIR in "),
        ("REDIS_URL=hunter2", "REDIS_URL in "),
        ("REDIS_URL_FILE=hunter2", "REDIS_URL_FILE in "),
    ] {
        fs::write(&file, format!("{settings}{line}\n")).unwrap();
        for arguments in [&["serve"][..], &["image", "list"], &["healthcheck"]] {
            let (code, _, stderr) = said(called(elsewhere.path(), &[named], arguments));
            assert!(code == 64 && stderr.contains(part) && stderr.contains("pixeld.env"), "{line}: {stderr}");
            assert!(line.starts_with("PIXELD_THROTTLE") || !stderr.contains("hunter2"), "{line}: {stderr}");
        }
    }
}

#[test]
fn the_data_directory_of_another_user_is_named_and_not_taken_for_an_empty_one() {
    let _machine = beside();
    let dir = open_dir();
    let data = dir.path().join("data");
    let settings = Settings::new(PIXELD, &data).unwrap();
    settings.run(&["migrate"]).unwrap();
    let program = dir.path().join("pixeld");
    fs::copy(PIXELD, &program).unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    let closed = |mode| fs::set_permissions(&data, fs::Permissions::from_mode(mode)).unwrap();
    for (mode, hint) in
        [(0o700, "run this as the user who runs pixeld"), (0o755, "run pixeld as the user who ran it first")]
    {
        // A user other than root owns it, and loses access.
        closed(if is_root { mode } else { 0 });
        let mut command = Command::new(&program);
        command.args(["opt-out", "--recipient", "4711"]).current_dir(dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap());
        if is_root {
            command.uid(65534).gid(65534);
        }
        let (code, stdout, stderr) = said(command);
        closed(0o755);
        assert!(code != 0 && stdout.is_empty() && stderr.to_lowercase().contains("permission denied"), "{stderr}");
        assert!(stderr.contains(hint) || !is_root, "{mode:o}: {stderr}");
    }
}

#[test]
fn a_link_whose_beginning_nobody_named_says_so() {
    let _machine = beside();
    let (app, elsewhere) = (App::start(), open_dir());
    let url = app.url();
    let arguments = ["link", "--image", &app.image.to_string(), "--message", &Uuid::new_v4().to_string()];
    let (code, link, stderr) = said(called(elsewhere.path(), &[("DATABASE_URL", &url)], &arguments));
    assert!(code == 0 && link.starts_with("http://localhost:8080/image/"), "{link}");
    assert!(stderr.contains("PIXELD_BASE_URL"), "{stderr}");
    let named = [("DATABASE_URL", &*url), ("PIXELD_BASE_URL", "https://pixels.example.com")];
    assert_eq!(said(called(elsewhere.path(), &named, &arguments)).2, "");
}
