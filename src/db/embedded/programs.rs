//! PostgreSQL's own programs: where they are, their version, and running them for a bounded time.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::EmbeddedError;

/// The oldest PostgreSQL that pixeld works with.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// Where Debian and Ubuntu put each version's programs.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// A directory without one of these is useless (`/usr/bin` may have only `pg_ctl` or clients).
const NEEDED: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Maximum bytes of a program's output that are kept, and how long to wait for the end of its output.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;
const OUTPUT_WAIT: Duration = Duration::from_secs(1);
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
const EXIT_POLL: Duration = Duration::from_millis(10);

/// Another user to run programs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl RunAs {
    /// Asks the kernel, as that user, instead of evaluating modes, groups and access lists.
    pub(super) fn can_enter(self, dir: &Path) -> bool {
        let mut asking = command(Path::new("/bin/sh"), Some(self));
        asking.args(["-c", "test -x \"$1\"", "sh"]).arg(dir);
        run(asking, VERSION_TIMEOUT).is_ok_and(|ended| ended.success)
    }
}

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// How a program ended.
pub(super) struct Ended {
    pub(super) success: bool,
    /// Its output, cut.
    pub(super) output: String,
}

/// Finds all versions, in the order PG_BIN (if set, nothing else counts), PATH, Debian's directories.
pub(super) fn find(pg_bin: Option<&Path>, path: Option<&OsStr>) -> Result<Vec<Programs>, EmbeddedError> {
    let mut found: Vec<Programs> = Vec::new();
    for dir in candidates(pg_bin, path, Path::new(DEBIAN_ROOT)) {
        if found.iter().any(|programs| programs.dir == dir) {
            continue;
        }
        if let Some(major) = major_of(&dir) {
            found.push(Programs { dir, major });
        }
    }
    if found.is_empty() {
        let place = match pg_bin {
            Some(pg_bin) => format!("in {} (PG_BIN)", pg_bin.display()),
            None => "in PATH or /usr/lib/postgresql/*/bin".to_owned(),
        };
        return Err(EmbeddedError::Programs(format!(
            "PostgreSQL's programs (initdb, pg_ctl, postgres) were not found {place}: install PostgreSQL {OLDEST_MAJOR} \
             or newer (Debian, Ubuntu: apt-get install postgresql), name their directory in PG_BIN, or set DATABASE_URL \
             to a PostgreSQL that runs already"
        )));
    }
    Ok(found)
}

/// The newest version, for a new cluster.
pub(super) fn newest(found: Vec<Programs>) -> Result<Programs, EmbeddedError> {
    match found.into_iter().reduce(|best, next| if next.major > best.major { next } else { best }) {
        Some(programs) if programs.major >= OLDEST_MAJOR => Ok(programs),
        Some(programs) => Err(EmbeddedError::Programs(format!(
            "PostgreSQL {} in {} is too old: pixeld needs {OLDEST_MAJOR} or newer",
            programs.major,
            programs.dir.display()
        ))),
        None => Err(EmbeddedError::Programs("no PostgreSQL programs".to_owned())),
    }
}

fn candidates(pg_bin: Option<&Path>, path: Option<&OsStr>, debian_root: &Path) -> Vec<PathBuf> {
    if let Some(pg_bin) = pg_bin {
        // The programs run in other directories than pixeld.
        return vec![std::path::absolute(pg_bin).unwrap_or_else(|_| pg_bin.to_owned())];
    }
    let mut dirs = Vec::new();
    for dir in path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default() {
        // A link to pg_ctl leads to the directory with the other programs.
        if let Ok(pg_ctl) = std::fs::canonicalize(dir.join("pg_ctl")) {
            dirs.extend(pg_ctl.parent().map(Path::to_owned));
        }
    }
    if let Ok(versions) = std::fs::read_dir(debian_root) {
        dirs.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    dirs
}

fn major_of(dir: &Path) -> Option<u32> {
    if !NEEDED.iter().all(|name| dir.join(name).is_file()) {
        return None;
    }
    let mut asking = command(&dir.join("postgres"), None);
    asking.arg("--version");
    parse_major(&run(asking, VERSION_TIMEOUT).ok()?.output)
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian …)`, `… 18beta1` and the like.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// A program with a clean environment (PGPORT, PGDATA and the like would change its behaviour), as another user if
/// requested, and in its own process group, so that Ctrl-C in a terminal does not interrupt initdb.
pub(super) fn command(program: &Path, run_as: Option<RunAs>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null()).process_group(0);
    if let Some(RunAs { uid, gid }) = run_as {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs it to its end, or kills it at the limit.
pub(super) fn run(mut command: Command, limit: Duration) -> std::io::Result<Ended> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, output) = mpsc::channel();
    // Separate threads: a full pipe must not stop the program, and a grandchild that keeps it open must not stop
    // pixeld.
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    for mut pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with the program whose output it reads")]
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // Output that could not be read is only missing from an error's text.
            (&mut pipe).take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok();
            std::io::copy(&mut pipe, &mut std::io::sink()).ok();
            sender.send(bytes).ok();
        });
    }
    drop(sender);
    let give_up_at = Instant::now() + limit;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() < give_up_at => std::thread::sleep(EXIT_POLL),
            None => {
                child.kill()?;
                child.wait()?;
                break None;
            }
        }
    };
    let mut text = String::new();
    while let Ok(bytes) = output.recv_timeout(OUTPUT_WAIT) {
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    if status.is_none() {
        text.push_str(&format!("\n(ended by pixeld after {limit:?})"));
    }
    Ok(Ended { success: status.is_some_and(|status| status.success()), output: text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_major("postgres 15"), None);
    }

    #[test]
    fn a_link_in_path_leads_to_the_programs_and_pg_bin_overrules_all() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("debian/15/bin");
        let linked = dir.path().join("bin");
        std::fs::create_dir_all(&real).unwrap();
        std::fs::create_dir_all(&linked).unwrap();
        std::fs::write(real.join("pg_ctl"), "").unwrap();
        std::os::unix::fs::symlink(real.join("pg_ctl"), linked.join("pg_ctl")).unwrap();
        let real = std::fs::canonicalize(real).unwrap();
        let path = linked.into_os_string();
        let nowhere = Path::new("/nowhere");
        assert_eq!(candidates(None, Some(&path), nowhere), std::slice::from_ref(&real));
        assert_eq!(candidates(None, None, &real.join("../..")).len(), 1);
        assert_eq!(candidates(Some(nowhere), Some(&path), nowhere), [nowhere]);
    }

    #[test]
    fn a_directory_without_the_programs_is_an_error_that_says_what_to_do() {
        let error = find(Some(Path::new("/nowhere")), None).unwrap_err().to_string();
        assert!(error.contains("PG_BIN") && error.contains("apt-get install postgresql"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_the_limit() {
        let mut hanging = command(Path::new("/bin/sh"), None);
        hanging.args(["-c", "echo first; exec sleep 60"]);
        let ended = run(hanging, Duration::from_millis(300)).unwrap();
        assert!(!ended.success && ended.output.contains("first") && ended.output.contains("ended by pixeld"));
    }
}
