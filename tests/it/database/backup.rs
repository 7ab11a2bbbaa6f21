//! Backup and restore with the exact commands of docs/backup.md, under load: answered hits are there once, and nobody
//! who opted out or was erased comes back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loadtest::generator::Pace;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings, get};
use tempfile::TempDir;
use uuid::Uuid;

use crate::kit::support::{
    App, EndedLoad, PIXELD, Postgres, REST, add_image, alone, beside, open_dir, wait_for_image, wait_for_opt_outs,
};
use crate::opens::recount;
use pixeld_core::ids::ImageId;

const DOCS: &str = include_str!("../../../docs/backup.md");

/// How long a restored database may take to be up to date.
pub const UP_TO_DATE: Duration = Duration::from_secs(90);

/// The URLs of the server's other databases; our own PostgreSQL here is made like the private one.
pub const URLS: &str = "urls of the private one";

/// A block of commands of the docs.
fn commands(name: &str) -> &'static str {
    let (_, behind) = DOCS.split_once(&format!("<!-- run: {name} -->\n```sh\n")).unwrap();
    behind.split_once("```").unwrap().0
}

/// Runs shell commands with a node's settings; returns their output.
fn shell(settings: &Settings, backup: &Path, script: &str) -> String {
    let mut settings = settings.clone();
    settings.wrapper = ["sh", "-e", "-c", script].map(str::to_owned).to_vec();
    let path = format!("{}:{}", Path::new(PIXELD).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = settings.command(&[]).env("PATH", path).env("BACKUP", backup).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs blocks of the docs, one after the other.
pub fn follow(settings: &Settings, backup: &Path, blocks: &[&str]) {
    let script: Vec<&str> = blocks.iter().map(|name| commands(name)).collect();
    shell(settings, backup, &script.join("\n"));
}

pub fn fetch(server: &Server, path: &str, times: usize) {
    for _ in 0..times {
        assert_eq!(get(server.public(), path).unwrap().status, 200, "{path}");
    }
}

pub fn of(app: &App, recipient: Uuid) -> u64 {
    app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"))
}

/// The length of a node's list of this many recipients.
fn kept_bytes(recipients: u64) -> u64 {
    8 + 32 + 4 + 40 * recipients + 4
}

/// Every answer has its row once, sooner or later; opens and counts follow.
pub fn assert_up_to_date(app: &App, load: &EndedLoad, when: &str) {
    let mut comparison = load.reconcile(&app.url());
    let waited = wait_until(when, UP_TO_DATE, || {
        std::thread::sleep(Duration::from_millis(300));
        comparison = load.reconcile(&app.url());
        comparison.is_exact()
    });
    assert!(waited.is_ok(), "{when}\n{comparison}\n{}", app.server.log());
    println!("{when}:\n{comparison}");
    app.at_rest();
    app.wait_for_rollup();
    recount::prepare(&app.postgres);
    recount::assert_same(&app.postgres, when);
}

#[test]
fn an_older_dump_comes_up_to_date_while_the_node_serves_and_once_more_after_kill_9() {
    let _machine = alone();
    let mut app = App::start();
    let (settings, backup) = (app.server.settings().clone(), app.dir.path().join("backup"));
    let [message, ann, ben, cleo, jane] = [(); 5].map(|()| Uuid::new_v4());
    let change = |command: &str, recipient: Uuid, more: &[&str]| {
        settings.run(&[&[command, "--recipient", &recipient.to_string()], more].concat()).unwrap()
    };
    fetch(&app.server, &app.pixel(message, ann), 3);
    fetch(&app.server, &app.pixel(message, jane), 2);
    change("opt-out", ben, &[]);
    change("opt-out", cleo, &[]);
    let load = app.load(16, Pace::Open(3000.0));
    load.wait_for(3000);
    follow(&settings, &backup, &["dump", "copy"]);
    load.wait_for(3000);

    // The dump knows nothing of all this.
    fetch(&app.server, &app.pixel(message, ann), 2);
    change("opt-out", ann, &[]);
    change("opt-out", cleo, &["--undo"]);
    change("erase", jane, &["--wait"]);
    wait_for_opt_outs(&app.server, 2.0);
    fetch(&app.server, &app.pixel(message, cleo), 2);
    for recipient in [ann, ben] {
        fetch(&app.server, &app.pixel(message, recipient), 4);
    }
    load.wait_for(3000);

    // In the middle of it the older database replaces this one.
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    load.wait_for(3000);
    let load = load.end();
    assert_eq!(load.outcome.refused + load.outcome.broken + load.outcome.timed_out, 0, "all answers are 200");
    let assert_people = |app: &App, put_back_rows: &str, when: &str| {
        let put_back = "SELECT sum((detail->>'count')::int)::text FROM audit WHERE action = 'opt-outs put back'";
        assert_eq!(app.query(put_back), [put_back_rows], "{when}");
        assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 2, "{when}");
        wait_until("the erasure", UP_TO_DATE, || {
            app.number("SELECT count(*) FROM erasures WHERE deleted_at IS NOT NULL AND put_back_at IS NOT NULL") == 1
        })
        .unwrap();
        assert_eq!([ann, ben, cleo, jane].map(|recipient| of(app, recipient)), [5, 0, 2, 0], "{when}");
    };
    assert_up_to_date(&app, &load, "while it served");
    assert_people(&app, "2", "while it served");

    // Somebody opts out now: the number must be new to the node, which knows later ones than the dump.
    let dora = Uuid::new_v4();
    change("opt-out", dora, &[]);
    wait_for_opt_outs(&app.server, 3.0);
    change("opt-out", dora, &["--undo"]);
    wait_for_opt_outs(&app.server, 2.0);

    // Once more, now with what it wrote to its disk.
    let kept = app.server.data_dir().join("opt-outs");
    wait_until("four recipients on disk", REST, || std::fs::metadata(&kept).unwrap().len() == kept_bytes(4)).unwrap();
    app.server.kill().unwrap();
    app.query("DROP DATABASE pixeld_before");
    follow(&settings, &backup, &[URLS, "restore", "change places"]);
    app.restart();
    wait_for_opt_outs(&app.server, 2.0);
    assert_up_to_date(&app, &load, "after kill -9");
    assert_people(&app, "3", "after kill -9");
    recount::assert_same(&app.postgres, "after the erasure");
}

/// A new node that has only the copy.
fn copied(app: &App, backup: &Path, name: &str) -> Settings {
    let copy = Settings::new(PIXELD, app.dir.path().join(name)).unwrap().with("DATABASE_URL", app.url());
    follow(&copy, backup, &["unpack"]);
    assert!(copy.data_dir.join("spool").exists() && !copy.data_dir.join("node").exists());
    copy
}

/// How many hits each of these has.
fn of_each(app: &App, recipients: &[Uuid]) -> Vec<u64> {
    recipients.iter().map(|&recipient| of(app, recipient)).collect()
}

/// The nodes are lost with their disks, and the database, too; so nobody knows of the erasure.
fn a_copy_alone_brings_what_was_answered(app: &mut App, backup: &Path, early: &[Uuid], load: &EndedLoad) {
    let alone = copied(app, backup, "alone");
    app.server.kill().unwrap();
    follow(app.server.settings(), backup, &[URLS, "restore", "change places"]);
    assert_eq!(app.number("SELECT count(*) FROM hits"), 0);
    assert_eq!(app.number("SELECT count(*) FROM suppressions"), 0);
    let said = alone.run(&["spool", "drain", "--retire"]).unwrap();
    assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1, "put back from the copy");
    let node = std::fs::read_to_string(alone.data_dir.join("node")).unwrap();
    let waited_for = format!("SELECT count(*) FROM nodes WHERE node = '{}' AND retired_at IS NULL", node.trim());
    let listed = format!("SELECT count(*) FROM nodes WHERE node = '{}'", node.trim());
    assert_eq!((app.number(&listed), app.number(&waited_for)), (1, 0), "no later erasure waits for the copy");
    assert_eq!(of_each(app, early), vec![1; early.len()], "{said}");
    let comparison = load.reconcile(&app.url());
    assert_eq!((comparison.duplicated, comparison.never_sent), (0, 0), "{comparison}");
    assert!(comparison.rows >= 3000 && said.contains(", left 0"), "{said}{comparison}");
    println!("{said}{comparison}");
    assert!(!alone.data_dir.join("spool").exists(), "the copy holds no hit any more");
    follow(&alone, backup, &["unpack"]);
    let again = alone.run(&["spool", "drain", "--retire"]).unwrap();
    assert!(again.contains("loaded 0 hits") && app.number(&waited_for) == 0, "{again}");
}

#[test]
fn a_copy_of_a_live_spool_doubles_nothing_beside_the_original_and_alone_brings_what_was_answered_before_it() {
    let _machine = alone();
    let mut app = App::start();
    let (settings, backup) = (app.server.settings().clone(), app.dir.path().join("backup"));
    follow(&settings, &backup, &["dump"]);
    settings.run(&["opt-out", "--recipient", &Uuid::new_v4().to_string()]).unwrap();
    let kept = app.server.data_dir().join("opt-outs");
    wait_until("the file", REST, || std::fs::metadata(&kept).is_ok_and(|file| file.len() == kept_bytes(1))).unwrap();
    let load = app.load(16, Pace::Open(4000.0));
    load.wait_for(3000);
    let early: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    for &recipient in &early {
        fetch(&app.server, &app.pixel(Uuid::new_v4(), recipient), 1);
    }
    follow(&settings, &backup, &["copy"]);
    load.wait_for(3000);

    // Somebody is erased after the copy was made: the copy is another node, and carries that out on its own hits.
    let erased = early[0];
    app.server.settings().run(&["erase", "--recipient", &erased.to_string(), "--wait"]).unwrap();
    let copy = copied(&app, &backup, "copy");
    let traces = || {
        let files = shell(&copy, &backup, "find \"$PIXELD_DATA_DIR/spool\" -name '*.seg'");
        let holds = |file: &str| std::fs::read(file).unwrap().windows(16).any(|bytes| bytes == erased.as_bytes());
        files.lines().filter(|file| holds(file)).count()
    };
    assert_eq!(traces(), 1);
    let mut beside = copy.clone().start().unwrap();
    load.wait_for(6000);
    wait_until("the copy to be clean", UP_TO_DATE, || traces() == 0).unwrap();
    let load = load.end();
    app.at_rest();
    beside.at_rest(REST).unwrap();
    for server in [&app.server, &beside] {
        assert_eq!(server.metrics().unwrap().get("pixeld_spool_forks_total"), 0.0, "they are the same hits");
    }
    load.assert_exact(&app.url());
    let mut expected = vec![1; early.len()];
    expected[0] = 0;
    assert_eq!(of_each(&app, &early), expected);
    assert_eq!(app.number("SELECT count(*) FROM nodes"), 2);
    beside.terminate().unwrap();

    a_copy_alone_brings_what_was_answered(&mut app, &backup, &early, &load);
}

/// A node with the private PostgreSQL, with a backup.
struct Private {
    began: Instant,
    dir: TempDir,
    backup: PathBuf,
    settings: Settings,
    image: ImageId,
}

/// Where the private PostgreSQL is, to a shell with a node's settings.
const PRIVATE: &str = "$(pixeld database-url)";

impl Private {
    fn new() -> Private {
        let (began, dir) = (Instant::now(), open_dir());
        let backup = dir.path().join("backup");
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
        let image = add_image(&settings);
        Private { began, dir, backup, settings, image }
    }

    fn step(&self, what: &str) {
        println!("{:>5.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Each with a new recipient.
    fn fetch_new(&self, server: &Server, count: usize) {
        for _ in 0..count {
            let path = format!("/image/{}_{}_{}.png", self.image, Uuid::new_v4(), Uuid::new_v4());
            // While the list of images is fetched, an id is looked up, which is limited.
            wait_for_image(server, self.image);
            fetch(server, &path, 1);
        }
    }

    /// How many hits, and of how many recipients.
    fn counted_by(&self, settings: &Settings, url: &str) -> String {
        let nobody = Uuid::nil();
        let count = "SELECT count(*) || ' ' || count(DISTINCT recipient) FROM hits WHERE recipient <>";
        shell(settings, &self.backup, &format!("psql \"{url}\" -Atc \"{count} '{nobody}'\"")).trim().to_owned()
    }

    fn counted(&self, url: &str) -> String {
        self.counted_by(&self.settings, url)
    }

    fn follow(&self, blocks: &[&str]) {
        follow(&self.settings, &self.backup, blocks);
    }

    fn is_restored_while_it_serves(&self) -> Server {
        let server = self.settings.clone().start().unwrap();
        self.step("serves");
        self.fetch_new(&server, 20);
        server.at_rest(REST).unwrap();
        self.follow(&["dump"]);
        self.step("dumped");
        self.fetch_new(&server, 20);
        server.at_rest(REST).unwrap();
        self.follow(&[URLS, "restore", "change places"]);
        wait_until("the kept hits", UP_TO_DATE, || self.counted(PRIVATE) == "40 40").unwrap();
        self.fetch_new(&server, 10);
        wait_until("new hits", REST, || self.counted(PRIVATE) == "50 50").unwrap();
        self.step("restored while it served");
        server
    }

    fn is_moved_to_another_server(&self, mut server: Server) {
        let other = Postgres::start().unwrap();
        let [admin, restored] =
            ["postgres", "pixeld_restored"].map(|name| other.url().replace("/pixeld?", &format!("/{name}?")));
        self.follow(&["dump"]);
        self.fetch_new(&server, 10);
        server.at_rest(REST).unwrap();
        self.follow(&["copy"]);
        let urls = format!("ADMIN_URL='{admin}'\nRESTORED_URL='{restored}'\n");
        shell(&self.settings, &self.backup, &format!("{urls}{}", commands("restore")));
        server.terminate().unwrap();
        assert_eq!(self.counted(&restored), "50 50");
        server = self.settings.clone().with("DATABASE_URL", restored.clone()).start().unwrap();
        wait_until("the kept hits", UP_TO_DATE, || self.counted(&restored) == "60 60").unwrap();
        self.fetch_new(&server, 5);
        wait_until("new hits", REST, || self.counted(&restored) == "65 65").unwrap();
        server.terminate().unwrap();
        self.step("moved");
    }

    /// Another machine has only the dump and the copy, which was made ten hits later.
    fn is_restored_on_another_machine(&self) {
        let new = Settings::new(PIXELD, self.dir.path().join("new")).unwrap();
        let mut server = new.clone().start().unwrap();
        let is_ready = || get(new.admin(), "/readyz").is_ok_and(|answer| answer.status == 200);
        wait_until("its PostgreSQL", REST, is_ready).unwrap();
        follow(&new, &self.backup, &[URLS, "restore", "change places"]);
        server.terminate().unwrap();
        self.step("restored on another machine");
        follow(&new, &self.backup, &["unpack"]);
        server = new.clone().start().unwrap();
        wait_until("its PostgreSQL", REST, is_ready).unwrap();
        wait_until("the copy's hits", UP_TO_DATE, || self.counted_by(&new, PRIVATE) == "60 60").unwrap();
        self.fetch_new(&server, 1);
        wait_until("new hits", REST, || self.counted_by(&new, PRIVATE) == "61 61").unwrap();
        server.at_rest(REST).unwrap();
        server.terminate().unwrap();
        self.step("up to date there");
    }
}

#[test]
fn the_private_postgresql_is_restored_and_its_data_moved_to_another_server_without_losing_a_hit() {
    let _machine = beside();
    let node = Private::new();
    let server = node.is_restored_while_it_serves();
    node.is_moved_to_another_server(server);
    node.is_restored_on_another_machine();
}

#[test]
fn an_opt_out_holds_after_a_new_password_for_the_database_although_it_is_down_by_then() {
    let _machine = beside();
    let mut app = App::start();
    let (id, key) = (Uuid::new_v4(), "jane@example.com");
    for recipient in [&id.to_string(), key] {
        app.server.settings().run(&["opt-out", "--recipient", recipient]).unwrap();
    }
    wait_for_opt_outs(&app.server, 2.0);
    let kept: PathBuf = app.server.data_dir().join("opt-outs");
    wait_until("the file", REST, || std::fs::metadata(&kept).is_ok_and(|file| file.len() == kept_bytes(2))).unwrap();
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    let url = app.url().replace("postgresql://pixeld@", "postgresql://pixeld:new-password@");
    assert_ne!(url, app.url());
    app.server = app.server.settings().clone().with("DATABASE_URL", url).start().unwrap();
    let keyed = format!("/t/{}/may/jane%40example.com.png", app.image);
    for path in [app.pixel(Uuid::new_v4(), id), keyed, app.pixel(Uuid::new_v4(), Uuid::new_v4())] {
        fetch(&app.server, &path, 2);
    }
    assert_eq!(app.server.metrics().unwrap().dropped("suppressed"), 4.0);
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("suppressed"), metrics.get("pixeld_hits_loaded_total")), (4.0, 2.0));
}
