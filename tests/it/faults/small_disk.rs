//! A data directory on a small real file system: full, read-only, shared with the private PostgreSQL; and files of the
//! spool that somebody deletes or that cannot be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use loadtest::generator::{Pace, Reuse};
use loadtest::ledger::Comparison;
use loadtest::pixels::Pixels;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Metrics, Server, Settings, get};
use uuid::Uuid;

use crate::kit::support::{App, EndedLoad, Load, PATIENCE, PIXELD, Postgres, add_image, alone, beside, open_dir};
use pixeld_core::ids::ImageId;

/// A file system in memory in a mount namespace of its own, which outlives the servers that use it.
struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// One of this size at `folder`.
    fn mount(folder: &Path, size: &str) -> SmallDisk {
        fs::create_dir_all(folder).unwrap();
        // Directly as root, otherwise in a user namespace.
        let as_user = (!nix::unistd::geteuid().is_root()).then_some("--map-root-user");
        let mount = format!("mount -t tmpfs -o size={size},mode=755 tmpfs {} && echo && exec cat", folder.display());
        let mut holder = Command::new("unshare")
            .arg("--mount")
            .args(as_user)
            .args(["sh", "-c", &mount])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
        SmallDisk { holder, folder: folder.to_owned() }
    }

    /// The command prefix to run something in that mount namespace.
    fn wrapper(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let as_user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["-U", "--preserve-credentials"] };
        ["nsenter", "-t", &pid, "-m"].iter().chain(as_user).map(|&word| word.to_owned()).collect()
    }

    fn run(&self, words: &[&str]) {
        let wrapper = self.wrapper();
        assert!(Command::new(&wrapper[0]).args(&wrapper[1..]).args(words).status().unwrap().success(), "{words:?}");
    }

    /// The folder, seen from outside.
    fn inside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), self.folder.display()))
    }

    fn free(&self) -> u64 {
        pixeld_spool::disk::space(&self.inside()).unwrap().free
    }

    /// Another program fills it up to its last byte, and keeps it full.
    fn fill(&self) {
        wait_until("a full disk", PATIENCE, || {
            let mut file = fs::File::options().create(true).append(true).open(self.inside().join("filler")).unwrap();
            let chunk = vec![1; 1 << 16];
            while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
            self.free() < 1 << 16
        })
        .unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.inside().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn ready(settings: &Settings) -> (u16, String) {
    let answer = get(settings.admin(), "/readyz").unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// Bytes of the smallest disk here.
const SMALL_BYTES: u64 = 8 << 20;

/// Requests per round: a ninth of the smallest disk, so that hits that wait for a slow PostgreSQL never fill it by
/// themselves.
const ROUND: u64 = 1500;

/// An app on a disk that the rounds of a load fill again and again.
struct OnSmallDisk {
    app: App,
    disk: SmallDisk,
    rounds: Vec<EndedLoad>,
    database_is_away: bool,
    _dir: tempfile::TempDir,
}

impl OnSmallDisk {
    fn start() -> OnSmallDisk {
        let dir = open_dir();
        let disk = SmallDisk::mount(&dir.path().join("data"), &SMALL_BYTES.to_string());
        let app = App::start_on(Postgres::start().unwrap(), |_, mut settings| {
            settings.data_dir = disk.folder.clone();
            settings.wrapper = disk.wrapper();
            settings
        });
        OnSmallDisk { app, disk, rounds: Vec::new(), database_is_away: false, _dir: dir }
    }

    fn metrics(&self) -> Metrics {
        self.app.server.metrics().unwrap()
    }

    /// [`ROUND`] long hits. The disk lasts for several seconds at this rate: a removed file takes its room until the
    /// removal is synced.
    fn begin_round(&self) -> Load {
        let pixels = Pixels::of(self.app.image).with_long_user_agents();
        Load::of_at_most(ROUND, &self.app.server, pixels, 16, Pace::Open(4000.0), Reuse::KeepAlive)
    }

    fn load_a_round(&mut self) {
        let load = self.begin_round().finish();
        let outcome = &load.outcome;
        assert_eq!((outcome.answered, outcome.broken, outcome.timed_out), (ROUND, 0, 0), "every pixel is served");
        self.rounds.push(load);
    }

    /// Rounds, one after the other, until this process has written this many bytes without a drop.
    fn load_bytes(&mut self, bytes: u64) {
        loop {
            let metrics = self.metrics();
            assert_eq!(metrics.dropped_all(), 0.0, "{} free\n{}", self.disk.free(), self.app.server.log());
            if metrics.get("pixeld_spool_appended_bytes_total") >= bytes as f64 {
                return;
            }
            self.load_a_round();
            // Hits that wait for a slow PostgreSQL must not fill the disk by themselves.
            let most = if self.database_is_away { f64::MAX } else { ROUND as f64 };
            wait_until("PostgreSQL", PATIENCE, || self.metrics().get("pixeld_hits_spooled") <= most).unwrap();
        }
    }

    /// Every answered hit is in the database once, except `dropped` of them.
    fn assert_exact_but_for(&self, dropped: f64) {
        let sum = self.rounds.iter().map(|load| load.reconcile(&self.app.url()));
        let sum = sum.fold(Comparison::default(), Comparison::plus);
        println!("{dropped} dropped\n{sum}");
        assert_eq!((sum.lost as f64, sum.duplicated, sum.never_sent), (dropped, 0, 0), "\n{sum}");
    }
}

#[test]
fn a_disk_full_of_hits_that_are_loaded_takes_new_ones_also_after_a_kill_with_the_database_away() {
    let _machine = alone();
    let mut small = OnSmallDisk::start();
    small.load_bytes(3 * SMALL_BYTES);
    assert!(
        small
            .app
            .server
            .log()
            .contains("the disk is low: loaded segments are removed before PIXELD_SPOOL_KEEP is over")
    );
    let (status, state) = ready(small.app.server.settings());
    assert_eq!(status, 200, "{state}");

    // The database is down, so what is loaded is unknown, and the disk is full.
    small.app.at_rest();
    let load = small.begin_round();
    load.wait_for(ROUND / 4);
    small.app.postgres.stop().unwrap();
    small.database_is_away = true;
    small.app.server.kill().unwrap();
    small.rounds.push(load.end());
    let free = small.disk.free();
    small.app.restart();
    small.load_bytes(free + SMALL_BYTES / 8);

    // Full of hits that wait.
    while small.metrics().dropped("disk_full") == 0.0 {
        small.load_a_round();
    }
    let (status, state) = ready(small.app.server.settings());
    assert!(status == 503 && state.contains("recording: not ok") && state.contains("(disk_full)"), "{state}");
    small.app.postgres.start_again().unwrap();
    let dropped = small.app.at_rest().dropped("disk_full");
    small.load_a_round();
    assert_eq!(small.app.at_rest().dropped_all(), dropped, "there is room again");
    small.assert_exact_but_for(dropped);
}

/// A server on a disk that it shares with its private PostgreSQL, and an image that it serves.
fn start_with_private_postgresql(folder: &Path) -> (SmallDisk, Settings, Server, ImageId) {
    let disk = SmallDisk::mount(folder, "400m");
    let mut settings = Settings::new(PIXELD, &disk.folder).unwrap();
    settings.wrapper = disk.wrapper();
    let server = settings.clone().start().unwrap();
    let image = add_image(&settings);
    let path = format!("/image/{image}.png");
    wait_until("the image", PATIENCE, || {
        get(server.public(), &path)
            .is_ok_and(|answer| answer.status == 200 && answer.header("content-type") == Some("image/png"))
    })
    .unwrap();
    (disk, settings, server, image)
}

#[test]
fn on_a_full_disk_the_private_postgresql_and_recording_come_back_by_themselves_also_over_a_restart() {
    let _machine = alone();
    let dir = open_dir();
    let (disk, settings, mut server, image) = start_with_private_postgresql(&dir.path().join("data"));
    let load = Load::begin(&server, image, 16, Pace::Closed, Reuse::KeepAlive);
    load.wait_for(5000);
    disk.fill();
    wait_until("drops", PATIENCE, || {
        disk.fill();
        server.metrics().unwrap().dropped("disk_full") > 5000.0
    })
    .unwrap();
    assert_eq!(ready(&settings).0, 503);
    server.kill().unwrap();
    load.end();
    disk.fill();
    // A start on the full disk serves.
    server = settings.clone().start().unwrap();
    let path = format!("/image/{image}.png");
    wait_until("a pixel", PATIENCE, || get(server.public(), &path).is_ok_and(|answer| answer.status == 200)).unwrap();
    let load = Load::begin(&server, image, 16, Pace::Closed, Reuse::KeepAlive);
    load.wait_for(2000);
    disk.empty();
    wait_until("recording", 2 * PATIENCE, || server.metrics().unwrap().get("pixeld_hits_loaded_total") > 5000.0)
        .unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    let ended = load.end();
    assert_eq!(ended.outcome.refused + ended.outcome.broken + ended.outcome.timed_out, 0, "every pixel is served");
    server.at_rest(2 * PATIENCE).unwrap();
    assert!(server.terminate().unwrap().0.success());
}

#[test]
fn a_backlog_leaves_the_private_postgresql_room_and_is_loaded_over_a_restart() {
    let _machine = alone();
    let dir = open_dir();
    let (disk, settings, mut server, image) = start_with_private_postgresql(&dir.path().join("data"));
    // Another program takes all but a few megabytes of what is not reserved.
    let filler = disk.inside().join("filler");
    let taken = disk.free() - (72 << 20);
    fs::write(&filler, vec![1; taken as usize]).unwrap();
    // No new commit: PostgreSQL is frozen.
    let pid: u32 = fs::read_to_string(disk.inside().join("postgres/postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let all: Vec<u32> = pixeld_testkit::process::children(pid).into_iter().chain([pid]).collect();
    let signal_all = |signal| all.iter().for_each(|&pid| drop(pixeld_testkit::process::signal(pid, signal)));
    signal_all(nix::sys::signal::Signal::SIGSTOP);
    let load = Load::begin(&server, image, 16, Pace::Closed, Reuse::KeepAlive);
    wait_until("drops", 3 * PATIENCE, || server.metrics().unwrap().dropped("disk_full") > 1000.0).unwrap();
    let free = disk.free();
    let (status, state) = ready(&settings);
    server.kill().unwrap();
    load.end();
    signal_all(nix::sys::signal::Signal::SIGKILL);
    assert!(free >= 64 << 20, "PostgreSQL has room for its log: {free}");
    assert!(status == 503 && state.contains("(disk_full)"), "{state}");
    server = settings.clone().start().unwrap();
    let metrics = server.at_rest(3 * PATIENCE).unwrap();
    assert!(metrics.get("pixeld_hits_loaded_total") > 1000.0, "{}", server.log());
    disk.empty();
    wait_until("room", PATIENCE, || ready(&settings).0 == 200).unwrap();
    assert!(server.terminate().unwrap().0.success());
}

#[test]
fn a_read_only_data_directory_stops_no_image_and_recording_resumes_when_it_is_writable() {
    let _machine = beside();
    let dir = open_dir();
    let disk = SmallDisk::mount(&dir.path().join("data"), "24m");
    let mut app = App::start_on(Postgres::start().unwrap(), |_, mut settings| {
        settings.data_dir = disk.folder.clone();
        settings.wrapper = disk.wrapper();
        settings
    });
    assert_eq!(app.get(&app_pixel(app.image)).status, 200);
    app.at_rest();
    app.server.terminate().unwrap();
    let folder = disk.folder.display().to_string();
    disk.run(&["mount", "-o", "remount,ro", &folder]);
    app.restart();
    app.wait_for_image(app.image);
    for _ in 0..3 {
        let answer = app.get(&app_pixel(app.image));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    }
    assert_eq!(app.at_rest().dropped("disk_error"), 3.0);
    let (status, state) = ready(app.server.settings());
    assert!(status == 503 && state.contains("spool: not ok") && state.contains("ead-only"), "{state}");
    assert_eq!(
        app.server.log().matches("the spool cannot be written; hits are dropped until this is fixed").count(),
        1
    );
    disk.run(&["mount", "-o", "remount,rw", &folder]);
    let before = app.number("SELECT count(*) FROM hits");
    wait_until("recording", PATIENCE, || {
        app.get(&app_pixel(app.image));
        app.number("SELECT count(*) FROM hits") > before
    })
    .unwrap();
    wait_until("it said so", PATIENCE, || ready(app.server.settings()).1.contains("spool: ok")).unwrap();
}

fn app_pixel(image: ImageId) -> String {
    format!("/image/{image}_{}_{}.png", Uuid::new_v4(), Uuid::new_v4())
}

#[test]
fn a_spools_folder_that_is_deleted_is_noticed_and_made_again_and_what_was_answered_is_loaded() {
    let _machine = beside();
    let mut app = App::start();
    app.postgres.stop().unwrap();
    let load = app.load(4, Pace::Open(500.0));
    load.wait_for(500);
    let spools = app.server.data_dir().join("spool");
    fs::remove_dir_all(&spools).unwrap();
    wait_until("a new folder", PATIENCE, || fs::read_dir(&spools).is_ok_and(|mut spools| spools.next().is_some()))
        .unwrap();
    load.wait_for(500);
    let load = load.end();
    assert!(app.server.metrics().unwrap().get("pixeld_spool_segments_missing_total") >= 1.0);
    assert!(app.server.log().contains("somebody deleted segments of the spool"), "{}", app.server.log());
    app.postgres.start_again().unwrap();
    app.at_rest();
    load.assert_exact(&app.url());
}

#[test]
fn a_segment_that_cannot_be_read_stops_no_start_and_no_other_hit() {
    let _machine = beside();
    let mut app = App::start();
    app.postgres.stop().unwrap();
    for _ in 0..5 {
        assert_eq!(app.get(&app_pixel(app.image)).status, 200);
    }
    wait_until("the spool", PATIENCE, || app.server.metrics().unwrap().get("pixeld_hits_spooled") == 5.0).unwrap();
    app.server.kill().unwrap();
    let spools = app.server.data_dir().join("spool");
    let folder = fs::read_dir(&spools).unwrap().flatten().next().unwrap().path();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
    let segment = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).find(is_segment).unwrap();
    // A directory cannot be read as a file, even by root.
    fs::remove_file(&segment).unwrap();
    fs::create_dir(&segment).unwrap();
    app.restart();
    assert_eq!(app.get(&app_pixel(app.image)).status, 200);
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.get("pixeld_hits_loaded_total"), metrics.get("pixeld_spool_damages_total")), (1.0, 1.0));
    assert_eq!(fs::read_dir(app.server.data_dir().join("quarantine")).unwrap().count(), 1);
}
