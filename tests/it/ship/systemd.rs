//! pixeld as a service of systemd: its reports over `NOTIFY_SOCKET`, and the unit.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pixeld_testkit::server::{Settings, get};

use crate::kit::support::{PATIENCE, PIXELD, Postgres, beside, open_dir};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/pixeld.service");

/// The figure of `systemd-analyze security` in docs/deploy.md; less is better.
const EXPOSURE_MAX: f64 = 1.5;

fn next(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = systemd.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn it_reports_ready_while_serving_and_the_length_of_its_drain() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let path = dir.path().join("notify");
    let abstract_name = format!("pixeld-test-{}", std::process::id());
    let sockets = [
        (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
        (
            format!("@{abstract_name}"),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap(),
        ),
    ];
    for (name, systemd) in sockets {
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
        let mut settings = settings
            .with("DATABASE_URL", postgres.url())
            .with("NOTIFY_SOCKET", name)
            .with("WATCHDOG_USEC", "800000")
            .with("PIXELD_DRAIN_SECONDS", "3");
        // As systemd sets it: the pid of the process that it has started.
        settings.wrapper = ["sh", "-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"].map(str::to_owned).into();
        let (public, admin) = (settings.public(), settings.admin());
        let mut server = settings.launch().unwrap();
        assert_eq!(next(&systemd), format!("READY=1\nSTATUS=pixels are served on {public}"));
        // At that moment, not some time later.
        assert_eq!(get(public, "/healthz").unwrap().status, 200);
        assert_eq!(get(admin, "/healthz").unwrap().status, 200);
        let began = Instant::now();
        for _ in 0..4 {
            assert_eq!(next(&systemd), "WATCHDOG=1");
        }
        println!("four signs of life in {:?}", began.elapsed());
        server.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        let mut last = next(&systemd);
        while last == "WATCHDOG=1" {
            last = next(&systemd);
        }
        assert_eq!(last, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=13000000");
        assert!(server.wait(PATIENCE).unwrap().0.success(), "{}", server.log());
    }
}

#[test]
fn a_watchdog_of_another_process_is_not_ours() {
    let _machine = beside();
    let (postgres, dir) = (Postgres::start().unwrap(), open_dir());
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
    let settings = settings.with("DATABASE_URL", postgres.url()).with("NOTIFY_SOCKET", path.to_str().unwrap());
    let _server = settings.with("WATCHDOG_USEC", "100000").with("WATCHDOG_PID", "1").start().unwrap();
    assert!(next(&systemd).starts_with("READY=1"));
    systemd.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(systemd.recv(&mut [0; 64]).is_err());
}

/// The unit as installed, but with a program that exists.
fn unit(dir: &Path) -> String {
    let text = fs::read_to_string(UNIT).unwrap();
    let program = "ExecStart=/usr/local/bin/pixeld serve";
    assert_eq!(text.matches(program).count(), 1);
    let path = dir.join("pixeld.service");
    fs::write(&path, text.replace(program, &format!("ExecStart={PIXELD} serve"))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_leaves_a_stranger_little() {
    let dir = open_dir();
    let unit = unit(dir.path());
    let verified = Command::new("systemd-analyze").args(["verify", &unit]).output().unwrap();
    assert!(verified.status.success() && verified.stderr.is_empty(), "{}", String::from_utf8_lossy(&verified.stderr));
    let threshold = format!("--threshold={}", EXPOSURE_MAX * 10.0);
    let judged = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", &threshold, &unit])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&judged.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    assert!(
        judged.status.success() && last.contains("Overall exposure level"),
        "{text}{}",
        String::from_utf8_lossy(&judged.stderr)
    );
    println!("{last}");
}

#[test]
fn the_units_settings_are_settings_and_without_a_database_it_does_not_start_again_and_again() {
    let dir = open_dir();
    let text = fs::read_to_string(UNIT).unwrap();
    let set: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('=')).collect();
    assert_eq!(set.len(), 3);
    let mut settings = Settings::new(PIXELD, dir.path().join("data")).unwrap();
    for (name, value) in set {
        // systemd puts its directory of credentials there.
        let value = value.replace("%d", dir.path().to_str().unwrap());
        if name != "PIXELD_DATA_DIR" {
            settings = settings.with(name, value);
        }
    }
    // Its file is missing: the one that LoadCredential= names does not exist.
    let output = settings.command(&["serve"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && said.contains("DATABASE_URL_FILE"), "{said}");
    assert!(text.contains("\nRestartPreventExitStatus=64\n"));
    // After any other end, forever.
    let (of_unit, _) = text.split_once("\n[Service]\n").unwrap();
    assert!(of_unit.contains("\nStartLimitIntervalSec=0\n") && text.contains("\nRestart=always\n"));
}
