//! No task of `pixeld serve` can end and leave the rest half alive: each task is ended on purpose, in a program that
//! serves.
//!
//! The program is this one: [`serves_and_ends_a_task_on_purpose`] runs the real `serve` of pixeld, in its own process,
//! which the tests start, signal and query like any other. So pixeld itself has no way to end a task.

use pixeld::parts::app::{IfItEnds, if_it_ends};
use pixeld::parts::config::{Config, Reader};
use pixeld::parts::{app, telemetry};
use pixeld_core::metrics::Task;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Server, Settings, get};

use crate::kit::support::{PATIENCE, PIXELD, Postgres, add_image, beside, open_dir, wait_for_image};

/// Which task the program ends.
const ENDS: &str = "ENDS_TASK";

#[test]
#[ignore = "it is the program that the other tests here start"]
fn serves_and_ends_a_task_on_purpose() {
    let name = std::env::var(ENDS).expect("a test has started it");
    let task = Task::ALL.iter().copied().find(|task| task.label() == name).expect("the name of a task");
    let config = Config::load(Reader::Serve).unwrap();
    let _telemetry = telemetry::start(&config.telemetry);
    if let Err(error) = app::serve_ending(&config, false, Some(task)) {
        panic!("pixeld: {error:#}");
    }
}

/// A program that ends `task`.
fn start(settings: Settings, task: Task) -> Server {
    let program = std::env::current_exe().unwrap();
    let mut settings = settings.with(ENDS, task.label());
    // Instead of pixeld and its command.
    let (_, module) = module_path!().split_once("::").unwrap();
    let script = format!(
        "exec '{}' --exact {module}::serves_and_ends_a_task_on_purpose --ignored --nocapture",
        program.to_str().unwrap()
    );
    settings.wrapper = ["sh", "-c", &script, "sh"].map(str::to_owned).into();
    settings.launch().unwrap()
}

fn settings(postgres: &Postgres, dir: &tempfile::TempDir, task: Task) -> Settings {
    let settings = Settings::new(PIXELD, dir.path().join(task.label())).unwrap().with("DATABASE_URL", postgres.url());
    settings.with("PIXELD_RETENTION_DAYS", "30").with("PIXELD_THREADS", "2").with("PIXELD_DRAIN_SECONDS", "5")
}

fn ended(server: &Server, task: Task) -> Option<f64> {
    let name = format!("pixeld_tasks_ended_total{{task=\"{}\"}}", task.label());
    server.metrics().ok().map(|metrics| metrics.get(&name))
}

fn those(what: impl Fn(IfItEnds) -> bool) -> impl Iterator<Item = Task> {
    Task::ALL.iter().copied().filter(move |&task| what(if_it_ends(task)))
}

#[test]
fn a_task_that_can_be_restarted_is_counted_and_works_again() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    for task in those(|what| what != IfItEnds::Exit) {
        let settings = settings(&postgres, &dir, task).with("NOTIFY_SOCKET", "@pixeld-test-nobody-listens");
        let image = add_image(&settings);
        let mut server = start(settings, task);
        let name = task.label();
        wait_until("the end that is counted", PATIENCE, || ended(&server, task) == Some(1.0))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.log()));
        wait_until("the restart", PATIENCE, || server.log().contains("a task is started again"))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.log()));
        let log = server.log();
        assert!(log.contains(&format!("it panicked: the {name} is ended on purpose")), "{log}");
        // All of it is alive: a new image is served, its open is counted, and nothing has ended since.
        wait_for_image(&server, image);
        let recipient = uuid::Uuid::new_v4();
        let path = format!("/image/{image}_{}_{recipient}.png", uuid::Uuid::new_v4());
        assert_eq!(get(server.public(), &path).unwrap().status, 200);
        let opens = format!("SELECT count(*) FROM opens WHERE recipient = '{recipient}'");
        wait_until("the open", PATIENCE, || postgres.query(&opens).is_ok_and(|rows| rows == ["1"]))
            .unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.log()));
        assert_eq!(ended(&server, task), Some(1.0), "{name}");
        let (status, _) = server.terminate().unwrap();
        assert!(status.success(), "{name}: {}", server.log());
    }
}

#[test]
fn without_a_task_that_cannot_be_restarted_it_drains_and_exits_with_an_error() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    for task in those(|what| what == IfItEnds::Exit) {
        let mut server = start(settings(&postgres, &dir, task), task);
        let (status, _) = server.wait(PATIENCE).unwrap();
        let (name, log) = (task.label(), server.log());
        assert!(!status.success(), "{name}: {log}");
        assert!(log.contains(&format!("it panicked: the {name} is ended on purpose")), "{log}");
        let why = format!("pixeld: the {} ended; the log says why", name.replace('_', " "));
        assert!(log.contains(&why), "{log}");
        // A drain, not a crash: the next start finds everything in order, and serves.
        let settings = settings(&postgres, &dir, task);
        let mut server = settings.start().unwrap();
        server.at_rest(PATIENCE).unwrap();
        assert!(server.terminate().unwrap().0.success(), "{name}: {}", server.log());
    }
}
