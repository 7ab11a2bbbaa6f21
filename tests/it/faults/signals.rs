//! Signals at any time: nothing accepted is lost, and nothing that was started keeps running.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pixeld_testkit::process::{is_alive, signal, wait_until};
use pixeld_testkit::server::Settings;
use uuid::Uuid;

use crate::kit::support::{App, PIXELD, beside, open_dir};

/// For what takes a moment on an idle machine.
const LONG: Duration = Duration::from_secs(60);

/// A process of this test; a failing test ends it, too.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

impl Started {
    fn of(mut command: Command) -> Started {
        Started(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn send(&self, which: Signal) {
        signal(self.id(), which).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("its end", LONG, || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .unwrap();
        status.unwrap()
    }
}

/// Settings of a server that receives signals like a program in a terminal, even if these tests run under `nohup` or in
/// the background of a shell, which ignore some.
fn in_a_terminal(mut settings: Settings) -> Settings {
    settings.wrapper = ["env", "--default-signal=HUP,INT"].map(str::to_owned).to_vec();
    settings
}

/// Waits until pixels are served, by a process that this test has started.
fn wait_for_pixels(app: &App) {
    wait_until("the port", LONG, || TcpStream::connect(app.server.public()).is_ok()).unwrap();
    app.wait_for_image(app.image);
}

/// The private PostgreSQL's process, once there is one.
fn postmaster(data_dir: &Path) -> Option<u32> {
    fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Whether a process has its own handlers for these.
fn takes(pid: u32, signals: &[Signal]) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default().trim();
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    signals.iter().all(|&signal| mask >> (signal as i32 - 1) & 1 == 1)
}

#[test]
fn a_terminal_that_is_closed_drains_and_a_second_hang_up_cuts_nothing_short() {
    let _machine = beside();
    let mut app = App::start();
    let (status, _) = app.server.terminate().unwrap();
    assert!(status.success());
    // Like a closed terminal: nobody reads its output any more, and both the kernel and the shell send SIGHUP.
    let settings = in_a_terminal(app.server.settings().clone());
    let mut child = Started::of(settings.command(&["serve"]));
    wait_for_pixels(&app);
    let postgres = app.postgres.pid().unwrap();
    let recipients: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    for &recipient in &recipients {
        assert_eq!(app.get(&app.pixel(Uuid::new_v4(), recipient)).status, 200);
    }
    drop(child.0.stderr.take());
    child.send(Signal::SIGHUP);
    child.send(Signal::SIGHUP);
    let status = child.end();
    assert!(status.success(), "{status}");
    assert!(is_alive(postgres));
    assert_eq!(app.number("SELECT count(*) FROM hits"), recipients.len() as u64);
}

#[test]
fn a_hang_up_that_nohup_ignores_stays_ignored() {
    let _machine = beside();
    let mut app = App::start();
    let (status, _) = app.server.terminate().unwrap();
    assert!(status.success());
    let settings = app.server.settings().clone();
    let pixeld = settings.command(&["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" serve"]).arg(PIXELD);
    for (name, value) in pixeld.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = Started::of(shell);
    wait_for_pixels(&app);
    child.send(Signal::SIGHUP);
    // It would have been received after the first, if at all.
    assert_eq!(app.get(&app.pixel(Uuid::new_v4(), Uuid::new_v4())).status, 200);
    assert!(takes(child.id(), &[Signal::SIGTERM, Signal::SIGINT]) && !takes(child.id(), &[Signal::SIGHUP]));
    child.send(Signal::SIGTERM);
    let status = child.end();
    assert!(status.success(), "{status}");
    assert_eq!(app.number("SELECT count(*) FROM hits"), 1);
}

#[test]
fn a_signal_at_any_moment_of_a_start_ends_serve_cleanly_and_leaves_no_postgresql() {
    let _machine = beside();
    let dir = open_dir();
    let data = dir.path().join("data");
    let settings = in_a_terminal(Settings::new(PIXELD, &data).unwrap());
    settings.run(&["migrate"]).unwrap();
    let moments: [(&str, &dyn Fn(u32) -> bool); 4] = [
        // Before it reads or creates anything of ours.
        ("handlers", &|pid| takes(pid, &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])),
        ("the lock", &|_| data.join("pixeld.lock").exists()),
        ("a port", &|_| TcpStream::connect(settings.public()).is_ok()),
        ("PostgreSQL", &|_| postmaster(&data).is_some()),
    ];
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        for (moment, has_come) in &moments {
            fs::remove_file(data.join("pixeld.lock")).ok();
            let mut child = Started::of(settings.command(&["serve"]));
            let pid = child.id();
            let mut came = false;
            // Without a pause: the moment is short.
            let until = Instant::now() + LONG;
            while !came && Instant::now() < until {
                came = has_come(pid);
            }
            assert!(came, "{moment} did not come");
            if *moment != "handlers" {
                assert!(takes(pid, &[which]), "{which} is not taken yet at the moment of {moment}");
            }
            child.send(which);
            let status = child.end();
            assert_eq!(status.code(), Some(0), "{which} at the moment of {moment}: {status}");
            assert_eq!(postmaster(&data).filter(|&pid| is_alive(pid)), None, "{which} at the moment of {moment}");
        }
    }
}

#[test]
fn a_command_that_is_stopped_leaves_no_postgresql_running() {
    let _machine = beside();
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let dir = open_dir();
        let data = dir.path().join("data");
        let settings = in_a_terminal(Settings::new(PIXELD, &data).unwrap());
        let mut child = Started::of(settings.command(&["migrate"]));
        wait_until("PostgreSQL", LONG, || postmaster(&data).is_some()).unwrap();
        let server = postmaster(&data).unwrap();
        child.send(which);
        let status = child.end();
        assert!(status.signal().is_none(), "{which}: {status}");
        // What was begun is complete and reported, or everything was done before the signal.
        let said = std::io::read_to_string(child.0.stderr.take().unwrap()).unwrap();
        assert!(status.success() || status.code() == Some(1) && said.contains("stopped by SIG"), "{status}: {said}");
        wait_until("PostgreSQL's end", LONG, || !is_alive(server)).unwrap();
        settings.run(&["migrate"]).unwrap();
    }
}
