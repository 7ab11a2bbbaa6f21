//! Erasing a recipient: on every node's disk and in the database, whatever is down or killed; and the export.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use loadtest::generator::Pace;
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::{Hit, Keys};
use pixeld_core::ids::{ImageId, MessageId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_testkit::process::wait_until;
use pixeld_testkit::redis::Redis;
use pixeld_testkit::server::{Server, Settings, get};
use uuid::Uuid;

use crate::kit::holder::Holder;
use crate::kit::support::{App, PATIENCE, PIXELD, Postgres, REST, alone, beside};
use crate::opens::recount;

/// How long running nodes may take to carry out an erasure.
const DONE: Duration = PATIENCE;

/// A key that cannot belong to anybody else.
const JANE: &str = "jane.roe+a7f3@example.com";

/// A person to erase: nothing of them may be found anywhere.
struct Person {
    name: &'static str,
    /// The recipient in the form for a command.
    typed: String,
    traces: Vec<Vec<u8>>,
}

impl Person {
    fn of(name: &'static str, id: Uuid, key: Option<&str>) -> Person {
        let bytes = id.as_bytes().to_vec();
        let hex = id.simple().to_string();
        let mut traces = vec![bytes, hex.to_uppercase().into_bytes(), hex.into_bytes()];
        traces.extend([
            id.hyphenated().to_string().to_uppercase().into_bytes(),
            id.hyphenated().to_string().into_bytes(),
        ]);
        traces.extend(key.map(|key| key.as_bytes().to_vec()));
        Person { name, typed: key.map_or_else(|| id.to_string(), str::to_owned), traces }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.traces.iter().any(|trace| bytes.windows(trace.len()).any(|window| window == trace))
    }

    /// The files below a directory with a trace of the person. A file that is replaced during the search is searched
    /// again.
    fn files_with(&self, folder: &Path) -> Vec<PathBuf> {
        let look = || -> std::io::Result<Vec<PathBuf>> {
            let read = |path: PathBuf| Ok(self.is_in(&std::fs::read(&path)?).then_some(path));
            files(folder).into_iter().map(read).filter_map(Result::transpose).collect()
        };
        let mut found = look();
        wait_until("files that stay", DONE, || {
            if found.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                found = look();
            }
            !found.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        })
        .unwrap();
        found.unwrap()
    }

    /// The lines of a dump of the database with a trace of the person.
    fn lines_with(&self, postgres: &Postgres) -> Vec<String> {
        let dump = dump(postgres);
        dump.lines().filter(|line| self.is_in(line.as_bytes())).map(str::to_owned).collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// All of the database, as text.
fn dump(postgres: &Postgres) -> String {
    let output = postgres.client("pg_dump", &["--format=plain"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn node(app: &App, name: &str) -> Settings {
    Settings::new(PIXELD, app.dir.path().join(name)).unwrap().with("DATABASE_URL", app.url())
}

/// A separate recipient for each case.
fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x5ad3_91c7_e204_4f6b_9b7e_0000_0000_0000 + n)
}

fn message(n: u128) -> Uuid {
    Uuid::from_u128(0x1111_2222_3333_4444_5555_0000_0000_0000 + n)
}

fn fetch(server: &Server, path: &str) {
    assert_eq!(get(server.public(), path).unwrap().status, 200, "{path}");
}

/// Erases the recipient that is given on standard input.
fn erase_quietly(settings: &Settings, recipient: &str, more: &[&str]) -> String {
    let mut command = settings.command(&[&["erase", "--recipient", "-"], more].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{recipient}").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(recipient), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn status(settings: &Settings) -> String {
    settings.run(&["erase", "--status"]).unwrap()
}

fn wait_until_final(settings: &Settings, erasures: usize) -> String {
    let mut shown = String::new();
    let waited = wait_until("final receipts", DONE, || {
        std::thread::sleep(Duration::from_millis(200));
        shown = status(settings);
        shown.matches("this receipt is final").count() == erasures
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{shown}"));
    shown
}

/// A person's encoded hit, as in a copy of damaged bytes.
fn damaged(recipient: Uuid, key: Option<&str>) -> Vec<u8> {
    let hit = Hit {
        at: Micros(1),
        sent_at_s: 0,
        image: ImageId::from_u128(1),
        message: MessageId::NONE,
        recipient: recipient.into(),
        network: 0,
        prefetch: false,
        address: None,
        keys: key.map(|key| Keys { message: b"may", recipient: key.as_bytes() }),
        user_agent: "damaged",
        is_erased: false,
    };
    let mut bytes = b"torn".to_vec();
    hit.encode(&mut bytes);
    bytes.extend_from_slice(b"tail");
    bytes
}

/// An installation of two nodes, one of which is down in the end, with traces of two people everywhere, and of others
/// who stay.
struct Installation {
    app: App,
    far: Settings,
    /// The path of a link that names one of them by key.
    keyed: String,
    people: [Person; 2],
}

impl Installation {
    fn with_traces() -> Installation {
        let app = App::start();
        recount::prepare(&app.postgres);
        let far = node(&app, "far");
        let namespace = Namespace(app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap());
        let jane = namespace.id_of(&Key::typed(JANE).unwrap());
        let people = [Person::of("of a UUID", id(1), None), Person::of("of a key", jane, Some(JANE))];
        let keyed = format!("/t/{}/may/{}.png", app.image, JANE.replace('@', "%40"));
        let mut installation = Installation { app, far, keyed, people };
        installation.load_and_keep();
        installation.spool_without_the_namespace();
        installation.set_damaged_bytes_aside();
        let Installation { app, far, people, .. } = &installation;
        for person in people {
            assert!(person.files_with(app.server.data_dir()).len() >= 2, "{}", person.name);
            let there = person.files_with(&far.data_dir);
            assert!(there.len() >= 3, "{}: {there:?}", person.name);
            assert!(!person.lines_with(&app.postgres).is_empty());
        }
        installation
    }

    /// Loaded, and kept on disk.
    fn load_and_keep(&self) {
        let Installation { app, far, keyed, .. } = self;
        let mut far = far.clone().start().unwrap();
        wait_until("the image", REST, || get(far.public(), keyed).unwrap().header("content-type") == Some("image/png"))
            .unwrap();
        for server in [&app.server, &far] {
            for n in 0..6 {
                fetch(server, &app.pixel(message(n % 2), id(1)));
                fetch(server, &app.pixel(message(n % 2), id(2)));
                fetch(server, keyed);
                fetch(server, &format!("/t/{}/may/joe.png", app.image));
            }
        }
        app.at_rest();
        far.at_rest(REST).unwrap();
        far.terminate().unwrap();
    }

    /// Not loaded: the keys are stored unchanged, since this start never learnt the namespace.
    fn spool_without_the_namespace(&mut self) {
        let Installation { app, far, keyed, .. } = self;
        std::fs::remove_file(far.data_dir.join("namespace")).unwrap();
        app.postgres.stop().unwrap();
        let mut far = far.clone().start().unwrap();
        for _ in 0..3 {
            fetch(&far, &app.pixel(message(0), id(1)));
            fetch(&far, &app.pixel(message(0), id(2)));
            fetch(&far, keyed);
        }
        far.kill().unwrap();
        app.postgres.start_again().unwrap();
    }

    /// One file each: in damaged bytes, everything that can belong to a person is zeroed, including bytes beside it.
    fn set_damaged_bytes_aside(&self) {
        for folder in [self.app.server.data_dir(), &self.far.data_dir] {
            std::fs::create_dir_all(folder.join("quarantine")).unwrap();
            std::fs::write(folder.join("quarantine/a.damaged"), damaged(id(1), None)).unwrap();
            std::fs::write(folder.join("quarantine/b.damaged"), damaged(Uuid::nil(), Some(JANE))).unwrap();
        }
    }

    /// Nothing of them is found in the database or below these directories.
    fn assert_no_trace(&self, folders: &[&Path]) {
        for person in &self.people {
            let lines = person.lines_with(&self.app.postgres);
            assert!(lines.is_empty(), "{}: {lines:?}", person.name);
            for folder in folders {
                let files = person.files_with(folder);
                assert!(files.is_empty(), "{}: {files:?}", person.name);
            }
        }
    }
}

#[test]
fn an_erased_recipient_is_nowhere_once_the_node_that_was_down_has_started() {
    let _machine = beside();
    let installation = Installation::with_traces();
    let Installation { app, far, .. } = &installation;
    let near = app.server.settings();
    let first = near.run(&["erase", "--recipient", JANE]).unwrap();
    assert!(first.contains("database: done") && first.contains("opens deleted") && !first.contains(JANE), "{first}");
    let second = erase_quietly(near, &id(1).to_string(), &[]);
    assert!(second.contains("not final yet"), "{second}");
    wait_until("the node that runs", DONE, || status(near).matches("done 20").count() >= 4).unwrap();
    let shown = status(near);
    assert_eq!(shown.matches("not done yet, last seen").count(), 2, "the node that is down is outstanding\n{shown}");
    installation.assert_no_trace(&[app.server.data_dir()]);

    let far_server = far.clone().start().unwrap();
    let metrics = far_server.at_rest(REST).unwrap();
    assert_eq!((metrics.dropped("erased"), metrics.get("pixeld_hits_loaded_total")), (6.0, 3.0));
    let shown = wait_until_final(near, 2);
    println!("{shown}");
    assert_eq!(shown.matches("  node ").count(), 4, "{shown}");
    assert_eq!(shown.matches("1 quarantined files").count(), 4, "{shown}");
    installation.assert_no_trace(&[app.server.data_dir(), &far.data_dir]);
    let others = app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{}'", id(2)));
    assert_eq!(others, 6 + 6 + 3, "who did not ask is still there");
    app.wait_for_rollup();
    recount::assert_same(&app.postgres, "after the erasures");
    let audit = app.query(
        "SELECT actor || ' ' || action || ' ' || length(subject) FROM audit WHERE action LIKE 'recipient%' ORDER BY id",
    );
    assert_eq!(audit, ["command line recipient erased 32", "command line recipient erased 32"]);
}

#[test]
fn redis_never_held_a_trace_of_an_erased_recipient() {
    let _machine = beside();
    let redis = Redis::start().unwrap();
    let with_redis = |settings: Settings| settings.with("PIXELD_THROTTLE", "1h").with("REDIS_URL", redis.url());
    let app = App::start_with(with_redis);
    let far = with_redis(node(&app, "far")).start().unwrap();
    let jane = Namespace(app.server.settings().run(&["namespace"]).unwrap().trim().parse().unwrap())
        .id_of(&Key::typed(JANE).unwrap());
    let people = [Person::of("of a UUID", id(1), None), Person::of("of a key", jane, Some(JANE))];
    let plain = app.pixel(message(0), id(1));
    let keyed = format!("/t/{}/may/{}.png", app.image, JANE.replace('@', "%40"));
    for server in [&app.server, &far] {
        wait_until("Redis", REST, || server.metrics().unwrap().get("pixeld_redis_up") == 1.0).unwrap();
        fetch(server, &plain);
        fetch(server, &keyed);
        server.at_rest(REST).unwrap();
    }
    assert_eq!(app.number("SELECT count(*) FROM hits"), 2, "the second node's were held back through Redis");
    // Keys and values, as one text of bytes.
    let held = || {
        let all = "local all={} for _,k in ipairs(redis.call('KEYS','*')) do all[#all+1]=k all[#all+1]=redis.call('GET',k) end return all";
        let words = all.replace(' ', "\n");
        redis.ask::<Vec<Vec<u8>>>(&format!("EVAL {words} 0")).unwrap()
    };
    let before = held();
    assert_eq!(before.len(), 4, "two keys with their values");
    for person in &people {
        erase_quietly(app.server.settings(), &person.typed, &["--wait"]);
    }
    for bytes in before.iter().chain(&held()) {
        let person = people.iter().find(|person| person.is_in(bytes));
        assert!(person.is_none(), "{} in {bytes:?}", person.map_or("", |person| person.name));
    }
}

#[test]
fn a_hit_from_before_the_erasure_is_dropped_and_a_later_one_is_new() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let shown = settings.run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    assert!(shown.contains("this receipt is final"), "{shown}");
    // Within the minute that is allowed for clocks it counts as before.
    fetch(&app.server, &app.pixel(message(0), id(1)));
    fetch(&app.server, &app.pixel(message(0), id(2)));
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("erased"), metrics.get("pixeld_hits_loaded_total")), (1.0, 1.0));
    // What the node remembers would be put back under its own time.
    std::fs::remove_file(app.server.data_dir().join("erasures")).unwrap();
    app.query(
        "UPDATE erasures SET requested_at = requested_at - interval '2 minutes'; \
         UPDATE erasure_state SET version = version + 1",
    );
    fetch(&app.server, &app.pixel(message(0), id(1)));
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("erased"), metrics.get("pixeld_hits_loaded_total")), (1.0, 2.0));
    assert_eq!(app.query("SELECT sum(erased) || ' ' || sum(loaded) FROM batches"), ["1 2"]);
}

#[test]
fn a_user_agent_that_only_erased_hits_had_is_forgotten() {
    let _machine = beside();
    let app = App::start();
    let ask = |recipient: Uuid, agent: &str| {
        let path = app.pixel(message(0), recipient);
        app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"));
    };
    ask(id(1), "Only-Jane/1.0");
    ask(id(1), "Shared/1.0");
    ask(id(2), "Shared/1.0");
    app.at_rest();
    let stored = || app.query("SELECT user_agent FROM user_agents WHERE id <> 0 ORDER BY user_agent");
    assert_eq!(stored(), ["Only-Jane/1.0", "Shared/1.0"]);
    app.server.settings().run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    wait_until("the user agent to go", DONE, || stored() == ["Shared/1.0"]).unwrap();
    wait_until("doubts to end", DONE, || {
        app.number("SELECT count(*) FROM user_agents WHERE doubted_at IS NOT NULL") == 0
    })
    .unwrap();
    // The loader had both in its memory.
    ask(id(3), "Only-Jane/1.0");
    app.at_rest();
    assert_eq!(stored(), ["Only-Jane/1.0", "Shared/1.0"]);
    let unknown = "SELECT count(*) FROM hits h LEFT JOIN user_agents u ON u.id = h.user_agent WHERE u.id IS NULL";
    assert_eq!(app.number(unknown), 0);
}

#[test]
fn an_erasure_that_is_killed_is_finished_by_a_node_and_can_be_repeated() {
    let _machine = beside();
    let app = App::start();
    recount::prepare(&app.postgres);
    for n in 0..20 {
        fetch(&app.server, &app.pixel(message(n), id(n % 2)));
    }
    app.at_rest();
    // It cannot get the rollup's lock, so that it is killed before it has deleted anything.
    let settings = app.server.settings();
    let holder = Holder::take(&app.postgres, "SELECT FROM rollup_state FOR UPDATE");
    let mut erasing =
        settings.command(&["erase", "--recipient", &id(1).to_string()]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the request", DONE, || app.number("SELECT count(*) FROM erasures") == 1).unwrap();
    erasing.kill().unwrap();
    erasing.wait().unwrap();
    holder.let_go();
    assert_eq!(app.number("SELECT count(*) FROM erasures WHERE deleted_at IS NOT NULL"), 0);
    // Skip the wait of half a minute: an erasure that was put back is continued at once. (Its time stays, since the
    // node remembers it.)
    app.query("UPDATE erasures SET put_back_at = clock_timestamp()");
    let shown = wait_until_final(settings, 1);
    assert!(shown.contains("10 hits and 10 opens deleted"), "{shown}");
    let repeated = settings.run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    assert!(repeated.contains("0 hits and 0 opens deleted"), "{repeated}");
    recount::assert_same(&app.postgres, "after a killed erasure");
}

#[test]
fn a_node_that_is_killed_while_it_rewrites_leaves_a_spool_that_is_whole() {
    let _machine = alone();
    let mut app = App::start_with(|settings| settings.with("PIXELD_SPOOL_BYTES_MAX", "128MiB"));
    let load = app.load(64, Pace::Closed);
    load.wait_for(250_000);
    let load = load.end();
    app.at_rest();
    load.assert_exact(&app.url());
    let before = app.number("SELECT count(*) FROM hits");
    let chosen =
        "SELECT DISTINCT ON (seq / 30000) recipient FROM hits WHERE seq % 30000 < 3000 ORDER BY seq / 30000, seq";
    let chosen: Vec<Uuid> = app.query(chosen).iter().map(|id| id.parse().unwrap()).collect();
    assert!(chosen.len() >= 5);
    app.server.kill().unwrap();
    for recipient in &chosen {
        app.server.settings().run(&["erase", "--recipient", &recipient.to_string()]).unwrap();
    }
    let erased = before - app.number("SELECT count(*) FROM hits");
    assert_eq!(erased, chosen.len() as u64, "each recipient of the load has one hit");
    // However fast the disk is: it cannot acknowledge before it is killed.
    let holder = Holder::take(&app.postgres, "LOCK TABLE erasure_nodes IN SHARE MODE");
    for round in 0..12 {
        let mut server = app.server.settings().clone().launch().unwrap();
        let rewrites = || server.metrics().is_ok_and(|metrics| metrics.get("pixeld_erasures_pending") > 0.0);
        wait_until("the work to begin", DONE, rewrites).unwrap();
        std::thread::sleep(Duration::from_millis(round * 7));
        server.kill().unwrap();
    }
    assert_eq!(app.number("SELECT count(*) FROM erasure_nodes"), 0);
    holder.let_go();
    app.restart();
    wait_until_final(app.server.settings(), chosen.len());
    for recipient in &chosen {
        let person = Person::of("of a load", *recipient, None);
        assert!(person.files_with(app.server.data_dir()).is_empty());
    }
    // As after a database restored from a backup that is older than all hits: everything kept on disk is loaded again.
    app.server.terminate().unwrap();
    app.query(
        "UPDATE spool_marks SET next_seq = 0; DELETE FROM batches; DELETE FROM opens; DELETE FROM hits; \
         DELETE FROM message_hours; DELETE FROM site_hours; DELETE FROM image_hours; DELETE FROM message_facets; \
         DELETE FROM messages; UPDATE rollup_state SET published = 0, events = 0",
    );
    app.restart();
    // Until the mark is read, the node trusts its hint that everything is loaded.
    wait_until("the first hits", DONE, || app.number("SELECT count(*) FROM hits") > 0).unwrap();
    let metrics = app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits"), before - erased);
    assert_eq!(app.query("SELECT sum(erased) || ' ' || sum(missing) FROM batches"), [format!("{erased} 0")]);
    assert_eq!(metrics.get("pixeld_spool_damages_total"), 0.0);
}

#[test]
fn an_erasure_outlives_a_database_that_is_restored_from_an_older_backup() {
    let _machine = beside();
    let mut app = App::start();
    recount::prepare(&app.postgres);
    for n in 0..12 {
        fetch(&app.server, &app.pixel(message(n % 3), id(n % 2)));
    }
    app.at_rest();
    app.wait_for_rollup();
    let backup = dump(&app.postgres);
    let settings = app.server.settings().clone();
    settings.run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    app.server.terminate().unwrap();

    app.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let mut restoring = app.postgres.client("psql", &["--quiet", "--set=ON_ERROR_STOP=1"]);
    let mut restoring = restoring.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    restoring.stdin.take().unwrap().write_all(backup.as_bytes()).unwrap();
    assert!(restoring.wait().unwrap().success());
    let of_erased = format!("SELECT count(*) FROM hits WHERE recipient = '{}'", id(1));
    assert_eq!((app.number(&of_erased), app.number("SELECT count(*) FROM erasures")), (6, 0));

    app.restart();
    let shown = wait_until_final(&settings, 1);
    assert!(shown.contains("restored") && shown.contains("6 hits and 3 opens deleted"), "{shown}");
    let person = Person::of("erased before", id(1), None);
    assert!(person.lines_with(&app.postgres).is_empty(), "{:?}", person.lines_with(&app.postgres));
    assert_eq!(app.number("SELECT count(*) FROM hits"), 6);
    recount::assert_same(&app.postgres, "after the backup");
}

#[test]
fn a_disk_that_went_back_in_time_is_erased_from_again() {
    let _machine = beside();
    let mut app = App::start();
    fetch(&app.server, &app.pixel(message(0), id(1)));
    app.at_rest();
    app.server.terminate().unwrap();
    let data = app.server.data_dir().to_owned();
    let before: Vec<(PathBuf, Vec<u8>)> =
        files(&data.join("spool")).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let person = Person::of("of a disk that went back", id(1), None);
    assert!(!person.files_with(&data).is_empty());
    app.restart();
    erase_quietly(app.server.settings(), &person.typed, &["--wait"]);
    assert!(person.files_with(&data).is_empty());
    app.server.terminate().unwrap();
    // As in an earlier snapshot of the volume.
    std::fs::remove_file(data.join("erasures")).unwrap();
    for (path, bytes) in before {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    assert!(!person.files_with(&data).is_empty());
    app.restart();
    wait_until("the disk", DONE, || person.files_with(&data).is_empty()).unwrap_or_else(|error| {
        panic!("{error:#}: {:?}\n{}", person.files_with(&data), app.server.log());
    });
    wait_until_final(app.server.settings(), 1);
    app.at_rest();
    assert_eq!(app.number("SELECT count(*) FROM hits"), 0);
}

#[test]
fn a_retired_node_holds_nothing_and_is_not_waited_for() {
    let _machine = beside();
    let app = App::start();
    let far = node(&app, "far");
    let mut server = far.clone().start().unwrap();
    fetch(&server, &app.pixel(message(0), id(1)));
    server.at_rest(REST).unwrap();
    wait_until("the node's row", DONE, || app.number("SELECT count(*) FROM nodes") == 2).unwrap();
    server.terminate().unwrap();
    let said = far.run(&["spool", "drain", "--retire"]).unwrap();
    assert!(said.contains("this node is retired"), "{said}");
    assert!(Person::of("of a retired node", id(1), None).files_with(&far.data_dir).is_empty());
    let shown = app.server.settings().run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    assert!(shown.contains("this receipt is final") && shown.matches("  node ").count() == 1, "{shown}");
    assert!(shown.contains("1 hits and 1 opens deleted"), "{shown}");
    // Even if there is nothing to load, a node that retires gives a restored database what that lacks.
    far.run(&["spool", "drain"]).unwrap();
    app.query("DELETE FROM erasures");
    let said = far.run(&["spool", "drain", "--retire"]).unwrap();
    assert!(said.contains("this node is retired"), "{said}");
    assert_eq!(app.number("SELECT count(*) FROM erasures WHERE put_back_at IS NOT NULL"), 1);
    // It returns when it is started.
    let server = far.start().unwrap();
    wait_until("the node's row", DONE, || app.number("SELECT count(*) FROM nodes WHERE retired_at IS NULL") == 2)
        .unwrap();
    wait_until_final(app.server.settings(), 1);
    drop(server);
}

#[test]
fn all_that_is_held_on_a_recipient_is_one_json() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    for n in 0..4 {
        let path = app.pixel(message(n % 2), id(1));
        let agent = "User-Agent: Mozilla/5.0 \"quoted\" Thunderbird/140.2.0";
        app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{agent}\r\nConnection: close\r\n\r\n"));
    }
    fetch(&app.server, &app.pixel(message(0), id(2)));
    app.at_rest();
    app.wait_for_rollup();
    let export = || -> serde_json::Value {
        serde_json::from_str(&settings.run(&["export", "--recipient", &id(1).to_string()]).unwrap()).unwrap()
    };
    let all = export();
    assert_eq!((all["opens"].as_array().unwrap().len(), all["hits"].as_array().unwrap().len()), (2, 4));
    assert_eq!(all["recipient"], id(1).to_string());
    let hit = &all["hits"][0];
    assert_eq!(hit["user_agent"], "Mozilla/5.0 \"quoted\" Thunderbird/140.2.0");
    assert_eq!((&hit["class"], &hit["address"]), (&"human".into(), &"127.0.0.1".into()));
    assert_eq!(all["opens"][0]["best_class"], "human");
    assert!(all["opt_out"].is_null() && all["erasures"].as_array().unwrap().is_empty());

    settings.run(&["opt-out", "--recipient", &id(1).to_string()]).unwrap();
    settings.run(&["erase", "--recipient", &id(1).to_string(), "--wait"]).unwrap();
    let all = export();
    assert_eq!((all["opens"].as_array().unwrap().len(), all["hits"].as_array().unwrap().len()), (0, 0));
    assert!(all["opt_out"]["since"].is_string() && all["erasures"][0]["hits"] == 4, "{all}");
    assert_eq!(
        app.query("SELECT action FROM audit WHERE length(subject) = 32 ORDER BY id"),
        ["recipient exported", "opted out", "recipient erased", "recipient exported"]
    );
    for args in [["erase", "--recipient", "00000000-0000-0000-0000-000000000000"], ["export", "--recipient", ""]] {
        settings.run(&args).unwrap_err();
    }
}

#[test]
fn logs_name_no_address_recipient_or_token() {
    let _machine = beside();
    let app = App::start_with(|settings| {
        settings
            .with("PIXELD_SIGNING_KEYS", "1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .with("PIXELD_TRUSTED_PROXIES", "127.0.0.1")
    });
    let settings = app.server.settings();
    let image = app.image.to_string();
    let link = settings.run(&["link", "--image", &image, "--message", "may", "--recipient", JANE]).unwrap();
    let signed = link.lines().next().unwrap().split_once("/o/").unwrap().1.to_owned();
    let token = signed.split('.').next().unwrap().to_owned();
    let ask = |path: &str| {
        let head = "X-Forwarded-For: 203.0.113.77";
        app.exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n{head}\r\nConnection: close\r\n\r\n"))
    };
    let keyed = format!("/t/{image}/may/{}.png", JANE.replace('@', "%40"));
    for path in [
        format!("/o/{signed}"),
        format!("/o/{}x.png", &token[..93]),
        keyed.clone(),
        app.pixel(message(0), id(1)),
        format!("/image/{image}_nonsense_{}.png", id(1)),
        format!("/image/{}_{}_{}.png", id(9), message(0), id(1)),
        format!("/t/{image}/*%7Ctag%7C*/{}.png", id(1)),
    ] {
        ask(&path);
    }
    app.at_rest();
    erase_quietly(settings, JANE, &["--wait"]);
    erase_quietly(settings, &id(1).to_string(), &["--wait"]);
    let log = std::fs::read(app.server.data_dir().join("serve.log")).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("erasures were carried out"), "the log is looked at");
    let namespace = Namespace(settings.run(&["namespace"]).unwrap().trim().parse().unwrap());
    let jane = namespace.id_of(&Key::typed(JANE).unwrap());
    for person in [Person::of("of a UUID", id(1), None), Person::of("of a key", jane, Some(JANE))] {
        assert!(!person.is_in(&log), "{}", String::from_utf8_lossy(&log));
    }
    for trace in ["203.0.113.77", &token, &JANE.replace('@', "%40")] {
        assert!(!String::from_utf8_lossy(&log).contains(trace), "{trace} in {}", String::from_utf8_lossy(&log));
    }
}
