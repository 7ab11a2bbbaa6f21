//! `make run` as a newcomer sees it: the printed URL, the printed commands, the first open on the page, Ctrl-C.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use loadtest::process::{free_port, is_alive, signal, wait_until};
use nix::sys::signal::Signal;

use crate::kit::support::{PATIENCE, beside, open_dir};
use crate::kit::webdriver::Browser;

/// What was started; a test that fails leaves nothing running either.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its PostgreSQL.
        if self.0.try_wait().is_ok_and(|status| status.is_none()) && signal(self.0.id(), Signal::SIGTERM).is_ok() {
            drop(self.0.wait());
        }
    }
}

#[test]
fn what_make_run_prints_works_and_ctrl_c_stops_everything() {
    let _machine = beside();
    let dir = open_dir();
    let target = std::path::Path::new(crate::kit::support::PIXELD).parent().unwrap().parent().unwrap();
    // What `make run` does once all is installed and built.
    let running = Command::new("scripts/run.sh")
        .env_remove("DATABASE_URL")
        // Cargo gives it to tests; as a setting it is none.
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
    let mut running = Running(running);
    let (lines, printed) = mpsc::channel();
    let stdout = running.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let next = |part: &str| loop {
        let line = printed.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
            panic!("no line has {part}: {}", std::fs::read_to_string(dir.path().join("stderr")).unwrap())
        });
        if line.contains(part) {
            return line.trim().to_owned();
        }
    };
    let (add_user, open) = (next(" user add "), next("http://127.0.0.1"));
    let (fetch, row, link) = (next("curl -o"), next("psql "), next(" link --image "));
    // Another terminal: in another directory, without one of the variables above.
    let in_shell = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(dir.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let started = Instant::now();
    in_shell(&fetch.replace("/tmp/pixel.png", &dir.path().join("pixel.png").display().to_string()));
    assert_eq!(std::fs::read(dir.path().join("pixel.png")).unwrap(), std::fs::read("src/app/sample.png").unwrap());
    while !in_shell(&row).contains("curl/") {
        assert!(started.elapsed() < PATIENCE, "no row: {}", in_shell(&row));
    }
    let pixel = fetch.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let (origin, _) = pixel.split_once("/image/").unwrap();
    let made = in_shell(&link);
    assert!(made.starts_with(&format!("{origin}/t/")) && made.contains("/may-news/4711.png"), "{made}");
    assert!(in_shell(&add_user.replace("user add ann", "healthcheck")).contains("ok"));
    // And on the page, of a browser that was started for it.
    in_shell(&format!("echo 'a password of my own' | {add_user} --password-stdin"));
    let page = open.split_whitespace().find(|word| word.starts_with("http://127.0.0.1")).unwrap();
    let browser = Browser::start();
    browser.open(page);
    browser.write("#name", "ann");
    browser.write("#password", "a password of my own");
    browser.click("main button");
    browser.wait_for("Today");
    assert!(!browser.text().contains("1 confirmed open"), "{}", browser.text());
    browser.open(fetch.split_whitespace().find(|word| word.starts_with("http://")).unwrap());
    let opened = Instant::now();
    loop {
        browser.open(page);
        browser.wait_for("Today");
        if browser.text().contains("1 confirmed open") {
            break;
        }
        assert!(opened.elapsed() < PATIENCE, "no open on the page: {}", browser.text());
    }
    let pid_file = dir.path().join("data/postgres/postmaster.pid");
    let postmaster: u32 = std::fs::read_to_string(pid_file).unwrap().lines().next().unwrap().parse().unwrap();
    // Ctrl-C goes to all of a terminal's foreground group: here, to the shell's that pixeld took the place of.
    signal(running.0.id(), Signal::SIGINT).unwrap();
    let mut status = None;
    wait_until("its end", PATIENCE, || {
        status = running.0.try_wait().unwrap();
        status.is_some()
    })
    .unwrap();
    assert!(status.unwrap().success(), "{status:?}");
    wait_until("PostgreSQL's end", PATIENCE, || !is_alive(postmaster)).unwrap();
}
