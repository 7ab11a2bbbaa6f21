//! `make run` for a newcomer: the printed URL, the printed commands, the first open on the page, Ctrl-C.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pixeld_testkit::process::{free_port, is_alive, signal, wait_until};
use tempfile::TempDir;

use crate::kit::support::{PATIENCE, beside, open_dir};
use crate::kit::webdriver::Browser;

/// What `make run` does once everything is installed and built; a failing test leaves nothing running either.
struct Running {
    program: Child,
    dir: TempDir,
    printed: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its PostgreSQL.
        let is_running = self.program.try_wait().is_ok_and(|status| status.is_none());
        if is_running && signal(self.program.id(), Signal::SIGTERM).is_ok() {
            drop(self.program.wait());
        }
    }
}

impl Running {
    fn start() -> Running {
        let dir = open_dir();
        let target = std::path::Path::new(crate::kit::support::PIXELD).parent().unwrap().parent().unwrap();
        let mut program = Command::new("scripts/run.sh")
            .env_remove("DATABASE_URL")
            // Cargo sets it for tests; it is not a setting.
            .env_remove("PIXELD_BUILT")
            .env("CARGO_TARGET_DIR", target)
            .env("PIXELD_DATA_DIR", dir.path().join("data"))
            .env("PIXELD_LISTEN", format!("127.0.0.1:{}", free_port().unwrap()))
            .env("PIXELD_ADMIN_LISTEN", format!("127.0.0.1:{}", free_port().unwrap()))
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let (lines, printed) = mpsc::channel();
        let stdout = program.stdout.take().unwrap();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Running { program, dir, printed }
    }

    /// The next printed line with this part.
    fn line_with(&self, part: &str) -> String {
        loop {
            let line = self.printed.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
                panic!("no line has {part}: {}", std::fs::read_to_string(self.dir.path().join("stderr")).unwrap())
            });
            if line.contains(part) {
                return line.trim().to_owned();
            }
        }
    }

    /// Another terminal: in another directory, without one of the variables above.
    fn in_shell(&self, line: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.dir.path()).env_clear();
        let output = shell.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ctrl-C goes to the terminal's whole foreground group: here to that of the shell which pixeld has replaced.
    fn end_by_ctrl_c(&mut self) {
        let pid_file = self.dir.path().join("data/postgres/postmaster.pid");
        let postmaster: u32 = std::fs::read_to_string(pid_file).unwrap().lines().next().unwrap().parse().unwrap();
        signal(self.program.id(), Signal::SIGINT).unwrap();
        let mut status = None;
        wait_until("its end", PATIENCE, || {
            status = self.program.try_wait().unwrap();
            status.is_some()
        })
        .unwrap();
        assert!(status.unwrap().success(), "{status:?}");
        wait_until("PostgreSQL's end", PATIENCE, || !is_alive(postmaster)).unwrap();
    }
}

fn url_in(line: &str) -> &str {
    line.split_whitespace().find(|word| word.starts_with("http://127.0.0.1")).unwrap()
}

/// Signs in with a browser that was started for this, opens the pixel, and sees the open.
fn see_the_open(page: &str, pixel: &str) {
    let browser = Browser::start();
    browser.open(page);
    browser.write("#name", "ann");
    browser.write("#password", "a password of my own");
    browser.click("main button");
    browser.wait_for("Today");
    assert!(!browser.text().contains("1 confirmed open"), "{}", browser.text());
    browser.open(pixel);
    let opened = Instant::now();
    loop {
        browser.open(page);
        browser.wait_for("Today");
        if browser.text().contains("1 confirmed open") {
            return;
        }
        assert!(opened.elapsed() < PATIENCE, "no open on the page: {}", browser.text());
    }
}

#[test]
fn what_make_run_prints_works_and_ctrl_c_stops_everything() {
    let _machine = beside();
    let mut running = Running::start();
    let (add_user, open) = (running.line_with(" user add "), running.line_with("http://127.0.0.1"));
    let (fetch, row) = (running.line_with("curl -o"), running.line_with("psql "));
    let link = running.line_with(" link --image ");
    let started = Instant::now();
    let file = running.dir.path().join("pixel.png");
    running.in_shell(&fetch.replace("/tmp/pixel.png", &file.display().to_string()));
    assert_eq!(std::fs::read(file).unwrap(), std::fs::read("src/app/sample.png").unwrap());
    while !running.in_shell(&row).contains("curl/") {
        assert!(started.elapsed() < PATIENCE, "no row: {}", running.in_shell(&row));
    }
    let pixel = url_in(&fetch);
    let (origin, _) = pixel.split_once("/image/").unwrap();
    let made = running.in_shell(&link);
    assert!(made.starts_with(&format!("{origin}/t/")) && made.contains("/may-news/4711.png"), "{made}");
    assert!(running.in_shell(&add_user.replace("user add ann", "healthcheck")).contains("ok"));
    running.in_shell(&format!("echo 'a password of my own' | {add_user} --password-stdin"));
    see_the_open(url_in(&open), pixel);
    running.end_by_ctrl_c();
}
