//! A PostgreSQL and a pixeld for each test, and its load.

use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use loadtest::generator::{self, Control, Outcome, Pace, Plan, Reuse};
use loadtest::ledger::{Comparison, Ledger};
use loadtest::pixels::Pixels;
use loadtest::reconcile::reconcile;
use pixeld_core::ids::ImageId;
pub use pixeld_testkit::postgres::Postgres;
use pixeld_testkit::server::{Answer, Metrics, Server, Settings, exchange, get};

/// The program under test.
pub const PIXELD: &str = env!("CARGO_BIN_EXE_pixeld");

/// How long anything may take that needs a moment on an idle machine. A test's limit is for what never happens: benches
/// and load runs measure speed, and a test that failed for speed would fail beside another build.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs in the server, since a COPY takes only a few milliseconds: ends the backend of a loader's COPY, ten times.
/// Returns how many were ended.
pub const END_BACKENDS_AMID_COPY: &str = "SET statement_timeout = 0; CREATE TEMP TABLE ended (at timestamptz); \
         DO $$ BEGIN \
           WHILE clock_timestamp() < now() + interval '2 minutes' LOOP \
             PERFORM pg_stat_clear_snapshot(); \
             INSERT INTO ended SELECT clock_timestamp() FROM pg_stat_activity WHERE application_name = 'pixeld-loader' \
               AND state = 'active' AND query LIKE 'COPY hits%' AND pg_terminate_backend(pid); \
             IF FOUND THEN PERFORM pg_sleep(0.1); END IF; \
             EXIT WHEN (SELECT count(*) FROM ended) >= 10; \
             PERFORM pg_sleep(0.001); \
           END LOOP; \
         END $$; SELECT count(*) FROM ended";

/// How long loading what was accepted may take.
pub const REST: Duration = PATIENCE;

/// The use of the machine. A load takes both cores of a small machine: while one runs, no other test does, since
/// otherwise their time limits could be exceeded without a fault of the program.
struct Machine {
    /// Tests that run beside each other.
    beside: usize,
    /// Tests that wait to run alone.
    waiting: usize,
    /// Whether one runs alone.
    alone: bool,
}

static MACHINE: Mutex<Machine> = Mutex::new(Machine { beside: 0, waiting: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

/// A test's part of the machine.
pub struct Part {
    alone: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        if self.alone {
            machine.alone = false;
        } else {
            machine.beside -= 1;
        }
        CHANGED.notify_all();
    }
}

/// Held by a test that runs alone. It lets others go first, so that they do not end one by one beside idle cores before
/// each test of this kind.
pub fn alone() -> Part {
    let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let is_in_use = |machine: &mut Machine| machine.alone || machine.beside + machine.waiting > 0;
    let mut machine = CHANGED.wait_while(machine, is_in_use).unwrap_or_else(PoisonError::into_inner);
    machine.alone = true;
    Part { alone: true }
}

/// Held by a test that others may run beside: two per core, since a test mostly waits for programs that it started.
pub fn beside() -> Part {
    let width = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    machine.waiting += 1;
    let is_full = |machine: &mut Machine| machine.alone || machine.beside >= width;
    let mut machine = CHANGED.wait_while(machine, is_full).unwrap_or_else(PoisonError::into_inner);
    machine.waiting -= 1;
    machine.beside += 1;
    Part { alone: false }
}

/// A directory that the user who runs PostgreSQL can enter when the tests run as root.
pub fn open_dir() -> tempfile::TempDir {
    pixeld_testkit::postgres::open_dir().unwrap()
}

/// A PostgreSQL, a pixeld that uses it, and an image.
pub struct App {
    pub server: Server,
    pub image: ImageId,
    pub postgres: Postgres,
    pub dir: tempfile::TempDir,
}

impl App {
    pub fn start() -> App {
        App::start_with(|settings| settings)
    }

    /// `change` receives the settings before the start.
    pub fn start_with(change: impl FnOnce(Settings) -> Settings) -> App {
        App::start_on(Postgres::start().unwrap(), |_, settings| change(settings))
    }

    pub fn start_on(postgres: Postgres, change: impl FnOnce(&Postgres, Settings) -> Settings) -> App {
        let dir = open_dir();
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap().with("DATABASE_URL", postgres.url());
        let settings = change(&postgres, settings);
        let image = add_image(&settings);
        let server = settings.start().unwrap();
        let app = App { server, image, postgres, dir };
        app.wait_for_image(image);
        app
    }

    pub fn wait_for_image(&self, image: ImageId) {
        wait_for_image(&self.server, image);
    }

    pub fn url(&self) -> String {
        self.postgres.url()
    }

    /// Runs statements; returns the first column of each row as text.
    pub fn query(&self, sql: &str) -> Vec<String> {
        self.postgres.query(sql).unwrap()
    }

    /// The one number that a query returns.
    pub fn number(&self, sql: &str) -> u64 {
        self.postgres.number(sql).unwrap() as u64
    }

    /// GET over a new connection.
    pub fn get(&self, path: &str) -> Answer {
        get(self.server.public(), path).unwrap()
    }

    /// Sends these bytes and reads to the connection's end.
    pub fn exchange(&self, request: &str) -> Answer {
        exchange(self.server.public(), request.as_bytes()).unwrap()
    }

    /// The path of a pixel with these ids.
    pub fn pixel(&self, message: impl Display, recipient: impl Display) -> String {
        format!("/image/{}_{message}_{recipient}.png", self.image)
    }

    pub fn at_rest(&self) -> Metrics {
        self.server.at_rest(REST).unwrap()
    }

    /// Waits until every loaded batch is in opens and counts.
    pub fn wait_for_rollup(&self) {
        wait_for_rollup(&self.postgres);
    }

    /// Deletes an image like the page, and waits until the transparent GIF replaces it.
    pub fn delete_image(&self, image: ImageId) {
        self.query(&format!(
            "UPDATE images SET deleted_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = '{image}'; \
             SELECT pg_notify('pixeld_images', '{image}')"
        ));
        pixeld_testkit::process::wait_until("the deletion", PATIENCE, || {
            head(&self.server, image).header("content-type") == Some("image/gif")
        })
        .unwrap();
    }

    /// Restarts the server with its settings, after it was killed or has ended.
    pub fn restart(&mut self) {
        self.server = self.server.settings().clone().start().unwrap();
    }

    /// Starts a load.
    pub fn load(&self, connections: usize, pace: Pace) -> Load {
        Load::begin(&self.server, self.image, connections, pace, Reuse::KeepAlive)
    }
}

/// Waits until an image is served instead of its substitute: the list may come from PostgreSQL after the first pixel
/// could be answered.
pub fn wait_for_image(server: &Server, image: ImageId) {
    pixeld_testkit::process::wait_until("the image", PATIENCE, || {
        let answer = head(server, image);
        answer.status == 200 && answer.header("content-type") == Some("image/png")
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
}

/// What is served as an image; HEAD records nothing.
fn head(server: &Server, image: ImageId) -> Answer {
    let head = format!("HEAD /image/{image}.png HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(server.public(), head.as_bytes()).unwrap()
}

/// Waits until every loaded batch is in opens and counts.
pub fn wait_for_rollup(postgres: &Postgres) {
    let pending = "SELECT count(*) FROM batches WHERE published IS NULL";
    pixeld_testkit::process::wait_until("the rollup", PATIENCE, || postgres.number(pending).unwrap() == 0.0).unwrap();
}

/// Waits until a node knows `count` opt-outs. Returns how long that took.
pub fn wait_for_opt_outs(server: &Server, count: f64) -> Duration {
    pixeld_testkit::process::wait_until("the opt-outs", PATIENCE, || {
        server.metrics().is_ok_and(|metrics| metrics.get("pixeld_opted_out_recipients") == count)
    })
    .unwrap()
}

/// The sample image, added by the commands that people use before a first start.
pub fn add_image(settings: &Settings) -> ImageId {
    settings.run(&["migrate"]).unwrap();
    let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/sample.png");
    settings.run(&["image", "add", picture]).unwrap().trim().parse().unwrap()
}

/// A running load.
pub struct Load {
    pub pixels: Pixels,
    pub ledger: Arc<Ledger>,
    pub control: Arc<Control>,
    running: JoinHandle<anyhow::Result<Outcome>>,
}

impl Load {
    pub fn begin(server: &Server, image: ImageId, connections: usize, pace: Pace, reuse: Reuse) -> Load {
        Load::of(server, Pixels::of(image), connections, pace, reuse)
    }

    pub fn of(server: &Server, pixels: Pixels, connections: usize, pace: Pace, reuse: Reuse) -> Load {
        Load::of_at_most(20_000_000, server, pixels, connections, pace, reuse)
    }

    /// A load that ends by itself after this many requests.
    pub fn of_at_most(
        requests_max: u64,
        server: &Server,
        pixels: Pixels,
        connections: usize,
        pace: Pace,
        reuse: Reuse,
    ) -> Load {
        let (ledger, control) = (Arc::new(Ledger::new(requests_max as usize)), Arc::new(Control::default()));
        let plan = Plan {
            target: server.public(),
            pixels: pixels.clone(),
            pace,
            reuse,
            connections,
            threads: 1,
            duration: Duration::from_secs(300),
        };
        let running = std::thread::spawn({
            let (ledger, control) = (Arc::clone(&ledger), Arc::clone(&control));
            move || generator::run(&plan, &ledger, &control)
        });
        Load { pixels, ledger, control, running }
    }

    pub fn answered(&self) -> u64 {
        self.control.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more answers have arrived.
    pub fn wait_for(&self, more: u64) {
        let until = self.answered() + more;
        pixeld_testkit::process::wait_until("answers", PATIENCE, || self.answered() >= until).unwrap();
    }

    /// Ends it.
    pub fn end(self) -> EndedLoad {
        self.control.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end of one that ends by itself.
    pub fn finish(self) -> EndedLoad {
        let outcome = self.running.join().unwrap().unwrap();
        EndedLoad { pixels: self.pixels, ledger: self.ledger, outcome }
    }
}

/// A load that has ended.
pub struct EndedLoad {
    pub pixels: Pixels,
    pub ledger: Arc<Ledger>,
    pub outcome: Outcome,
}

impl EndedLoad {
    /// Compares the answers with the rows.
    pub fn reconcile(&self, url: &str) -> Comparison {
        reconcile(url, &self.pixels, &self.ledger).unwrap()
    }

    /// Every answer has its row, once.
    pub fn assert_exact(&self, url: &str) -> Comparison {
        let comparison = self.reconcile(url);
        assert!(comparison.is_exact(), "\n{comparison}");
        comparison
    }
}
