//! Hits of images that the database lacks although the node knew them: set aside, reported, and loaded once the image
//! is back.

use std::path::{Path, PathBuf};

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Metrics, Settings, get};
use uuid::Uuid;

use crate::database::backup::{UP_TO_DATE, URLS, fetch, follow};
use crate::kit::support::{App, PATIENCE, Postgres, beside};
use crate::opens::recount;
use pixeld_core::ids::ImageId;

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");

fn add(app: &App, image: ImageId) {
    app.server.settings().run(&["image", "add", PICTURE, "--id", &image.to_string()]).unwrap();
    app.wait_for_image(image);
}

/// Fetches an image once for each of `count` new recipients.
fn fetch_each(app: &App, image: ImageId, message: Uuid, count: usize) -> Vec<Uuid> {
    let recipients: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
    recipients.iter().for_each(|recipient| fetch_one(app, image, message, *recipient));
    recipients
}

fn fetch_one(app: &App, image: ImageId, message: Uuid, recipient: Uuid) {
    fetch(&app.server, &format!("/image/{image}_{message}_{recipient}.png"), 1);
}

/// The number of rows of an image, and of their recipients.
fn rows(app: &App, image: ImageId) -> (u64, u64) {
    let of = |what: &str| app.number(&format!("SELECT {what} FROM hits WHERE image = '{image}'"));
    (of("count(*)"), of("count(DISTINCT recipient)"))
}

fn wait_for_rows(app: &App, image: ImageId, count: u64) {
    wait_until("the rows", UP_TO_DATE, || rows(app, image).0 >= count)
        .unwrap_or_else(|error| panic!("{error}: {:?}, {count} expected\n{}", rows(app, image), app.server.log()));
    assert_eq!(rows(app, image), (count, count));
}

/// Waits until `count` hits are set aside and nothing else waits.
fn wait_for_aside(app: &App, count: u64) -> Metrics {
    let aside = |metrics: &Metrics| metrics.get("pixeld_hits_without_image") == count as f64;
    wait_until("hits set aside", UP_TO_DATE, || app.server.metrics().is_ok_and(|metrics| aside(&metrics)))
        .unwrap_or_else(|error| panic!("{error}: {count}\n{}\n{}", app.server.metrics().unwrap().0, app.server.log()));
    let metrics = app.at_rest();
    assert!(aside(&metrics), "{}", metrics.0);
    metrics
}

/// The files of hits that are set aside.
fn files(app: &App) -> Vec<PathBuf> {
    let folder = app.server.data_dir().join("quarantine");
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "orphans")).collect()
}

fn readyz(app: &App) -> (u16, String) {
    let answer = get(app.server.settings().admin(), "/readyz").unwrap();
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// A node whose database is restored more than once to before an image was added.
struct Restored {
    app: App,
    settings: Settings,
    /// Two backups: without the image, and with hits that wait for it.
    old: PathBuf,
    later: PathBuf,
    message: Uuid,
    /// The image that always exists, with 90 hits.
    own: ImageId,
    /// The lost one.
    new: ImageId,
    /// Its recipients, one fetch each.
    recipients: Vec<Uuid>,
    /// How many hits without a recipient a test made when it checked whether the image was served.
    looks: u64,
}

impl Restored {
    /// Both images are fetched. One fetch is repeated, which the throttle drops, now and later.
    fn fetched() -> Restored {
        let app = App::start_with(|settings| settings.with("PIXELD_THROTTLE", "1h"));
        let settings = app.server.settings().clone();
        let [old, later] = ["old", "later"].map(|name| app.dir.path().join(name));
        let (message, own, new) = (Uuid::new_v4(), app.image, ImageId::random());
        fetch_each(&app, own, message, 20);
        app.at_rest();
        follow(&settings, &old, &["dump"]);
        add(&app, new);
        fetch_each(&app, own, message, 50);
        let mut recipients = Vec::new();
        for _ in 0..10 {
            recipients.extend(fetch_each(&app, new, message, 20));
            fetch_each(&app, own, message, 2);
        }
        fetch_one(&app, new, message, recipients[0]);
        assert_eq!(app.at_rest().dropped("throttled"), 1.0);
        assert_eq!((rows(&app, own), rows(&app, new)), ((90, 90), (200, 200)));
        Restored { app, settings, old, later, message, own, new, recipients, looks: 0 }
    }

    /// Restored to before the image was added, while pixeld runs: its loaded hits wait, and so do new ones.
    fn loses_the_image(&mut self) {
        let Restored { app, settings, old, message, own, new, recipients, .. } = self;
        follow(settings, old, &[URLS, "restore", "change places"]);
        wait_for_rows(app, *own, 90);
        wait_for_aside(app, 201);
        assert_eq!(rows(app, *new), (0, 0));
        // Its readers see nothing now, but are still recorded.
        wait_until("the list without the image", PATIENCE, || {
            get(app.server.public(), &format!("/image/{new}.png")).unwrap().header("content-type") == Some("image/gif")
        })
        .unwrap();
        self.looks = app.at_rest().get("pixeld_hits_without_image") as u64 - 201;
        recipients.extend(fetch_each(app, *new, *message, 5));
        let metrics = wait_for_aside(app, 206 + self.looks);
        assert_eq!((metrics.dropped_all(), metrics.dropped("throttled")), (1.0, 1.0), "{}", metrics.0);
        let (status, said) = readyz(app);
        assert!(status == 200 && said.contains("hits wait for images that the database does not have"), "{said}");
        let log = app.server.log();
        assert!(log.contains("does not have an image") && log.contains(&format!("--id {new}")), "{log}");
    }

    /// Neither kill -9 nor a start without the database loses any.
    fn keeps_what_waits_over_kill_9(&mut self) {
        let Restored { app, message, new, recipients, .. } = self;
        app.server.kill().unwrap();
        app.postgres.stop().unwrap();
        app.restart();
        recipients.extend(fetch_each(app, *new, *message, 1));
        app.server.kill().unwrap();
        app.postgres.start_again().unwrap();
        app.restart();
        wait_for_aside(app, 207 + self.looks);
        assert_eq!(app.server.metrics().unwrap().dropped_all(), 0.0);
    }

    /// A recipient who is erased during that time is erased here, too.
    fn erases_one_that_waits(&mut self) -> Uuid {
        let Restored { app, settings, recipients, .. } = self;
        let erased = recipients.remove(7);
        let is_there = || {
            let holds = |path: &PathBuf| std::fs::read(path).unwrap().windows(16).any(|id| id == erased.as_bytes());
            files(app).iter().any(holds)
        };
        assert!(is_there());
        settings.run(&["erase", "--recipient", &erased.to_string(), "--wait"]).unwrap();
        assert!(!is_there());
        assert_eq!(wait_for_aside(app, 206 + self.looks).dropped("erased"), 1.0);
        erased
    }

    /// Added again under its id: all hits are loaded, once.
    fn all_come_in(&self, erased: Uuid) {
        let Restored { app, own, new, recipients, looks, .. } = self;
        add(app, *new);
        wait_until("all hits of the image", UP_TO_DATE, || rows(app, *new).0 >= 205 + looks)
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", rows(app, *new), app.server.log()));
        wait_for_aside(app, 0);
        for recipient in recipients {
            let of = app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{recipient}'"));
            assert_eq!(of, 1, "{recipient}");
        }
        assert_eq!(rows(app, *new).0, 205 + looks);
        assert_eq!(app.number(&format!("SELECT count(*) FROM hits WHERE recipient = '{erased}'")), 0);
        assert_eq!((rows(app, *own), app.number("SELECT count(*) FROM orphans")), ((90, 90), 0));
        app.wait_for_rollup();
        recount::prepare(&app.postgres);
        recount::assert_same(&app.postgres, "all came in");
    }

    /// Restored once more to a state without the image.
    fn goes_back_to(&self, backup: &Path) {
        let Restored { app, settings, new, looks, .. } = self;
        app.query("DROP DATABASE pixeld_before");
        follow(settings, backup, &[URLS, "restore", "change places"]);
        // First the node puts the erasure back.
        wait_for_aside(app, 206 + looks);
        assert_eq!(rows(app, *new), (0, 0));
    }
}

#[test]
fn hits_of_an_image_that_a_restored_database_lacks_wait_on_disk_and_come_in_once_when_it_is_there_again() {
    let _machine = beside();
    let mut node = Restored::fetched();
    node.loses_the_image();
    node.keeps_what_waits_over_kill_9();
    follow(&node.settings, &node.later, &["dump"]);
    let erased = node.erases_one_that_waits();
    node.all_come_in(erased);
    // The throttle drops the same hit as before.
    assert_eq!(node.app.server.metrics().unwrap().dropped("throttled"), 1.0);
    // To a state in which they waited already; and to the first, in which none of them was recorded.
    for backup in [&node.later, &node.old] {
        node.goes_back_to(backup);
        node.all_come_in(erased);
    }
    assert_eq!(node.app.server.metrics().unwrap().dropped("unknown_image"), 0.0);
}

#[test]
fn a_batch_that_is_tried_again_and_killed_sets_each_hit_aside_once() {
    let _machine = beside();
    let mut app = App::start();
    let (message, new) = (Uuid::new_v4(), ImageId::random());
    add(&app, new);
    // Known on disk before the database loses it.
    let known = app.server.data_dir().join("images/known.bin");
    let names =
        |id: ImageId| std::fs::read(&known).is_ok_and(|bytes| bytes.windows(16).any(|found| found == id.as_bytes()));
    wait_until("the list on disk", PATIENCE, || names(new)).unwrap();
    // The last step of each batch fails: the steps before it happen again and again.
    app.query("ALTER TABLE batches ADD CONSTRAINT never CHECK (loaded < 0) NOT VALID");
    app.query(&format!("DELETE FROM images WHERE id = '{new}'"));
    fetch_each(&app, new, message, 30);
    fetch_each(&app, app.image, message, 10);
    for _ in 0..2 {
        wait_until("some tries", PATIENCE, || {
            let retries = app.server.metrics().unwrap().get("pixeld_load_retries_total");
            retries >= 3.0 && !files(&app).is_empty()
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", app.server.log()));
        app.server.kill().unwrap();
        app.restart();
    }
    app.query("ALTER TABLE batches DROP CONSTRAINT never");
    let metrics = wait_for_aside(&app, 30);
    assert_eq!((metrics.dropped_all(), rows(&app, new), rows(&app, app.image)), (0.0, (0, 0), (10, 10)));
    let kept: u64 = files(&app).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(kept < 30 * 200, "{kept} bytes for 30 hits");
    add(&app, new);
    wait_for_rows(&app, new, 30);
    wait_for_aside(&app, 0);
}

#[test]
fn hits_of_a_former_installation_wait_for_their_images_in_the_new_one() {
    let _machine = beside();
    let mut app = App::start();
    let (message, image) = (Uuid::new_v4(), app.image);
    let right = app.server.settings().clone();
    let known = app.server.data_dir().join("images/known.bin");
    wait_until("the list on disk", PATIENCE, || {
        std::fs::read(&known).is_ok_and(|bytes| bytes.windows(16).any(|found| found == image.as_bytes()))
    })
    .unwrap();
    app.at_rest();
    app.server.terminate().unwrap();
    let fresh = Postgres::start().unwrap();
    app.server = right.with("DATABASE_URL", fresh.url()).start().unwrap();
    fetch_each(&app, image, message, 10);
    app.server.terminate().unwrap();
    let settings = app.server.settings().clone();
    settings.run(&["migrate", "--new-installation"]).unwrap();
    std::mem::replace(&mut app.postgres, fresh).stop().unwrap();
    app.restart();
    let metrics = wait_for_aside(&app, 10);
    assert_eq!((metrics.dropped_all(), rows(&app, image)), (0.0, (0, 0)));
    app.server.terminate().unwrap();

    // The directory is not given up while they are in it.
    let output = settings.command(&["spool", "drain", "--retire"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("10 hits are set aside"), "{said}");
    assert_eq!(files(&app).len(), 1);

    // Without a running pixeld, the command that loads waiting hits loads them, too.
    settings.run(&["image", "add", PICTURE, "--id", &image.to_string()]).unwrap();
    // It waits for a mark that another connection holds for longer than the lock time-out.
    let said = std::thread::scope(|scope| {
        scope.spawn(|| app.query("BEGIN; LOCK TABLE spool_marks IN SHARE MODE; SELECT pg_sleep(12); COMMIT"));
        let held =
            "SELECT count(*) FROM pg_locks WHERE relation = 'spool_marks'::regclass AND mode = 'ShareLock' AND granted";
        wait_until("the lock", PATIENCE, || app.number(held) == 1).unwrap();
        settings.run(&["spool", "drain", "--retire"]).unwrap()
    });
    assert!(said.contains("loaded 10 hits, dropped 0, left 0"), "{said}");
    assert_eq!(rows(&app, image), (10, 10));
    assert_eq!(files(&app).len(), 0);
}

#[test]
fn an_image_that_was_deleted_and_one_that_this_node_never_knew_set_nothing_aside() {
    let _machine = beside();
    let mut app = App::start();
    let (message, deleted, never) = (Uuid::new_v4(), ImageId::random(), ImageId::random());
    add(&app, deleted);
    fetch_each(&app, deleted, message, 3);
    app.at_rest();
    app.delete_image(deleted);
    fetch_each(&app, deleted, message, 3);
    let unknown = get(app.server.public(), &format!("/image/{never}_{message}_{}.png", Uuid::new_v4())).unwrap();
    assert_eq!(unknown.status, 404);
    app.at_rest();
    // A node that never had the list records made-up ids, and drops them later.
    app.server.terminate().unwrap();
    app.postgres.stop().unwrap();
    std::fs::remove_dir_all(app.server.data_dir().join("images")).unwrap();
    app.restart();
    fetch_each(&app, never, message, 4);
    app.postgres.start_again().unwrap();
    let metrics = app.at_rest();
    assert_eq!((metrics.dropped("unknown_image"), metrics.get("pixeld_hits_without_image")), (4.0, 0.0));
    assert_eq!((files(&app).len(), app.number("SELECT count(*) FROM orphans")), (0, 0));
    let of =
        |image| app.number(&format!("SELECT count(*) FROM hits WHERE image = '{image}' AND message = '{message}'"));
    assert_eq!((of(deleted), of(never)), (3, 0));
}
