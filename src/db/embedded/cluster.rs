//! One cluster on disk: creating it, finding its server, starting and stopping the server. All of it blocks; functions
//! that change something are called only while holding the gate.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::place::{self, Place};
use super::programs::{self, Programs, RunAs};
use super::{EmbeddedError, ROLE, server_log, wal_bytes_max};

const INITDB_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The prefix of half-made clusters. A name is used once, so an initdb that outlived its pixeld harms no other.
const NEW_PREFIX: &str = "postgres.new-";

/// The server's settings. They are passed at each start instead of being written into the cluster, so that they come
/// with the program; set `DATABASE_URL` to use others.
const SETTINGS: &[(&str, &str)] = &[
    // Private: no TCP port, and a socket for this user alone.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("port", "5432"),
    // Promise 2 depends on these, whatever the cluster's own file says.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    // pixeld's own, at most 24, and several commands and psql sessions.
    ("max_connections", "40"),
    // pixeld itself needs few at a time; a query over all days, or a dump of five years, needs three per day.
    ("max_locks_per_transaction", "1024"),
    // The open day's pages; more would be taken from the page cache, which also feeds the loader.
    ("shared_buffers", "128MB"),
    ("wal_compression", "on"),
    // pg_ctl writes to server_log::NAME; a collector would be one more process.
    ("logging_collector", "off"),
    ("log_checkpoints", "off"),
    // No value of a row or statement in the server's log, nor in what pixeld shows of it.
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("cluster_name", "pixeld"),
];

/// A cluster and where to find its programs.
pub(super) struct Cluster {
    pub(super) place: Place,
    pub(super) pg_bin: Option<PathBuf>,
    pub(super) path: Option<OsString>,
}

/// The server according to `postmaster.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Postmaster {
    /// Not running; PostgreSQL itself removes a pid file whose process is gone.
    Gone,
    /// It runs on this cluster.
    Ours,
    /// The pid file names a process that does not belong to this cluster.
    Stranger { pid: u32 },
    /// It ended, but no parent has collected it (a container whose first process collects no orphans), so that
    /// PostgreSQL itself would take it for alive.
    Zombie { pid: u32 },
}

impl Cluster {
    pub(super) fn open_gate(&self) -> Result<File, EmbeddedError> {
        self.prepare_parent()?;
        self.open_lock("postgres.gate")
    }

    /// Takes a lease. No process holds the file exclusively without the gate, which the caller holds.
    pub(super) fn share(&self) -> Result<File, EmbeddedError> {
        let file = self.open_lock("postgres.lock")?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(error) => Err(EmbeddedError::Place(format!(
                "cannot share {}: {error}",
                self.place.beside("postgres.lock").display()
            ))),
        }
    }

    /// The file, locked exclusively, if no process holds a lease.
    pub(super) fn nobody_shares(&self) -> Result<Option<File>, EmbeddedError> {
        let file = self.open_lock("postgres.lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => {
                Err(EmbeddedError::file("cannot lock", &self.place.beside("postgres.lock"), source))
            }
        }
    }

    /// If root creates a lock, it belongs to the user who runs the server, so that this user can take it as well.
    fn open_lock(&self, name: &str) -> Result<File, EmbeddedError> {
        let path = self.place.beside(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        match options.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let file = options.create(true).truncate(false).open(&path);
                place::give_to(&path, self.place.run_as)?;
                file
            }
            opened => opened,
        }
        .map_err(|source| EmbeddedError::file("cannot open the lock", &path, source))
    }

    /// The directory around the cluster, and the link to it from the data directory.
    fn prepare_parent(&self) -> Result<(), EmbeddedError> {
        make_dir_for_all(self.place.parent())?;
        let Some(link) = &self.place.link else { return Ok(()) };
        make_dir_for_all(link.parent().unwrap_or(Path::new("/")))?;
        // An empty directory with that name counts as missing.
        fs::remove_dir(link).ok();
        match std::os::unix::fs::symlink(&self.place.cluster, link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(EmbeddedError::file("cannot make the link", link, error))
            }
            _ => Ok(()),
        }
    }

    /// The programs for this cluster: of its own version, or the newest for one that does not exist yet.
    fn programs(&self) -> Result<Programs, EmbeddedError> {
        let found = programs::find(self.pg_bin.as_deref(), self.path.as_deref())?;
        let path = self.place.cluster.join("PG_VERSION");
        let version = match fs::read_to_string(&path) {
            Ok(version) => version.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return programs::newest(found),
            Err(source) => {
                return Err(EmbeddedError::file("cannot read", &path, source));
            }
        };
        match found.iter().find(|programs| programs.major.to_string() == version) {
            Some(programs) => Ok(programs.clone()),
            None => Err(self.mismatch(&version, programs::newest(found)?)),
        }
    }

    fn mismatch(&self, version: &str, found: Programs) -> EmbeddedError {
        let cluster = self.place.cluster.display();
        let (new, bin) = (found.major, found.dir.display());
        let (become_user, owner) = match self.place.run_as {
            Some(RunAs { uid, gid }) => {
                (format!("setpriv --reuid={uid} --regid={gid} --clear-groups "), format!("-o {uid} -g {gid} "))
            }
            None => (String::new(), String::new()),
        };
        EmbeddedError::Version(format!(
            "the database in {cluster} was made by PostgreSQL {version}, but only version {new} was found ({bin}).\n\
             Either install PostgreSQL {version} again (Debian, Ubuntu: apt-get install postgresql-{version}), or upgrade \
             the database: install both versions, and with pixeld stopped, from a directory that every user can enter:\n  \
             cd /tmp && install -d {owner}-m 700 '{cluster}.upgraded' /tmp/pixeld-upgrade && cd /tmp/pixeld-upgrade\n  \
             {become_user}{bin}/initdb -D '{cluster}.upgraded' -U {ROLE} -A trust --encoding UTF8 --locale C --data-checksums\n  \
             {become_user}{bin}/pg_upgrade -U {ROLE} -b {old_bin} -B {bin} -d '{cluster}' -D '{cluster}.upgraded' -s /tmp/pixeld-upgrade\n  \
             mv '{cluster}' '{cluster}.{version}' && mv '{cluster}.upgraded' '{cluster}'",
            old_bin = format_args!("/usr/lib/postgresql/{version}/bin"),
        ))
    }

    /// Creates the cluster if it is missing. Its name appears only when it is complete.
    fn init(&self, programs: &Programs) -> Result<(), EmbeddedError> {
        let cluster = &self.place.cluster;
        if cluster.join("PG_VERSION").exists() {
            return Ok(());
        }
        if fs::read_dir(cluster).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(EmbeddedError::Place(format!(
                "{} is not empty and not a PostgreSQL cluster: move it away",
                cluster.display()
            )));
        }
        let parent = self.place.parent();
        let siblings = fs::read_dir(parent).map_err(|source| EmbeddedError::file("cannot read", parent, source))?;
        for half_made in
            siblings.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(NEW_PREFIX.as_bytes()))
        {
            let path = half_made.path();
            tracing::info!(path = %path.display(), "removing the files of an interrupted start");
            fs::remove_dir_all(&path).map_err(|source| EmbeddedError::file("cannot remove", &path, source))?;
        }
        let new = self.place.beside(&format!("{NEW_PREFIX}{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&new).map_err(|source| EmbeddedError::file("cannot make", &new, source))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700))
            .map_err(|source| EmbeddedError::file("cannot make private", &new, source))?;
        place::give_to(&new, self.place.run_as)?;
        tracing::info!(cluster = %cluster.display(), version = programs.major, "making a private PostgreSQL cluster");
        let mut initdb = programs::command(&programs.dir.join("initdb"), self.place.run_as);
        initdb.arg("-D").arg(&new).args(["-U", ROLE, "-A", "trust", "--encoding", "UTF8", "--locale", "C"]);
        initdb.args(["--data-checksums", "--no-instructions"]);
        self.run(initdb, INITDB_TIMEOUT, "initdb")?;
        fs::rename(&new, cluster).map_err(|source| EmbeddedError::file("cannot rename to", cluster, source))?;
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|source| EmbeddedError::file("cannot sync", parent, source))
    }

    /// Prepares everything that the server needs to start, and returns the programs to use.
    pub(super) fn prepare(&self) -> Result<Programs, EmbeddedError> {
        let programs = self.programs()?;
        if let Some(run_as) = self.place.run_as
            && !run_as.can_enter(self.place.parent())
        {
            return Err(EmbeddedError::Place(format!(
                "user {} runs PostgreSQL, but cannot enter {}: let it (chmod o+x), or use another data directory",
                run_as.uid,
                self.place.parent().display()
            )));
        }
        self.init(&programs)?;
        place::prepare_socket_dir(&self.place)?;
        self.bound_log()?;
        Ok(programs)
    }

    /// Starts the server, which must not be running, and waits until it is ready or `give_up_at`.
    pub(super) fn start(&self, programs: &Programs, give_up_at: Instant) -> Result<(), EmbeddedError> {
        let seconds = give_up_at.saturating_duration_since(Instant::now()).as_secs().max(1);
        let mut starting = self.pg_ctl(programs);
        starting.args(["start", "-w", "-t", &seconds.to_string(), "-l", server_log::NAME, "-o"]).arg(self.options());
        self.run(starting, Duration::from_secs(seconds + 10), "pg_ctl start")
    }

    /// Stops the server if it runs: lets other sessions finish if possible, otherwise at once. Neither loses data.
    pub(super) fn stop(&self) -> Result<(), EmbeddedError> {
        if self.postmaster()? != Postmaster::Ours {
            return Ok(());
        }
        let programs = self.programs()?;
        let stop = |mode| {
            let mut stopping = self.pg_ctl(&programs);
            stopping.args(["stop", "-w", "-m", mode, "-t", &STOP_TIMEOUT.as_secs().to_string()]);
            self.run(stopping, STOP_TIMEOUT + Duration::from_secs(10), "pg_ctl stop")
        };
        let stopped = stop("fast").or_else(|error| {
            tracing::warn!(%error, "PostgreSQL did not stop in time; stopping it at once");
            stop("immediate")
        });
        match stopped {
            // It may have ended by itself, which pg_ctl reports as an error.
            Err(error) if self.postmaster()? == Postmaster::Ours => Err(error),
            _ => Ok(()),
        }
    }

    /// pg_ctl puts the directory's name into a shell command without quoting, so it runs inside the directory with ".".
    /// It gives the server a session of its own, which keeps a terminal's signals away.
    fn pg_ctl(&self, programs: &Programs) -> Command {
        let mut command = programs::command(&programs.dir.join("pg_ctl"), self.place.run_as);
        command.current_dir(&self.place.cluster).args(["-D", "."]);
        command
    }

    /// Bytes of the file system that contains the cluster; a large number if the file system does not report it.
    fn disk_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.place.parent());
        stat.map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// For pg_ctl's `-o`, which goes through a shell.
    fn options(&self) -> OsString {
        let mut options: Vec<u8> = Vec::new();
        for (name, value) in SETTINGS {
            options.extend_from_slice(format!("-c {name}='{value}' ").as_bytes());
        }
        // A list of directories: double quotes protect a comma, and doubled ones a double quote, in a name. Bulk COPY
        // writes much WAL: fewer checkpoints mean fewer full-page images. The size also bounds the replay after a
        // crash; the spool leaves as much of the disk free.
        let megabytes = wal_bytes_max(self.disk_bytes()) >> 20;
        let wal = format!("-c max_wal_size={megabytes}MB -c min_wal_size={}MB ", megabytes.min(80));
        options.extend_from_slice(wal.as_bytes());
        options.extend_from_slice(b"-c unix_socket_directories='\"");
        for &byte in self.place.socket_dir.as_os_str().as_bytes() {
            match byte {
                b'\'' => options.extend_from_slice(b"'\\''"),
                b'"' => options.extend_from_slice(b"\"\""),
                other => options.push(other),
            }
        }
        options.extend_from_slice(b"\"'");
        std::os::unix::ffi::OsStringExt::from_vec(options)
    }

    /// Checks whether the process that `postmaster.pid` names works in this cluster: PostgreSQL's processes stay in
    /// their data directory. The number alone proves nothing: after a reboot it may belong to another process.
    pub(super) fn postmaster(&self) -> Result<Postmaster, EmbeddedError> {
        let path = self.place.cluster.join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Postmaster::Gone),
            Err(source) => return Err(EmbeddedError::file("cannot read", &path, source)),
        };
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i64>().ok()) else {
            // Empty for an instant at a start, or after a crash of the machine; PostgreSQL handles both.
            return Ok(Postmaster::Gone);
        };
        let pid = u32::try_from(pid.unsigned_abs()).unwrap_or_default();
        match process_state(pid) {
            None => return Ok(Postmaster::Gone),
            Some('Z') => return Ok(Postmaster::Zombie { pid }),
            Some(_) => {}
        }
        // Checked as the server's user: root in a container may not see another user's process.
        let mut asking = programs::command(Path::new("/bin/sh"), self.place.run_as);
        asking.args(["-c", "cd \"/proc/$1/cwd\" && pwd -P", "sh", &pid.to_string()]);
        let answer = programs::run(asking, ASK_TIMEOUT);
        let answer = answer.map_err(|source| EmbeddedError::file("cannot run", Path::new("/bin/sh"), source))?;
        let ours = answer.success && Path::new(&answer.output) == self.place.cluster;
        Ok(if ours { Postmaster::Ours } else { Postmaster::Stranger { pid } })
    }

    /// Removes a pid file that names a zombie or a foreign process, which PostgreSQL would take for its own server. A
    /// foreign one's only if no process holds a lease: the server may run where we cannot see it, as in another
    /// container with the same volume.
    pub(super) fn forget_pid(&self, postmaster: Postmaster) -> Result<(), EmbeddedError> {
        let path = self.place.cluster.join("postmaster.pid");
        let _exclusive = match postmaster {
            Postmaster::Gone | Postmaster::Ours => return Ok(()),
            Postmaster::Zombie { .. } => None,
            Postmaster::Stranger { pid } => match self.nobody_shares()? {
                Some(exclusive) => Some(exclusive),
                None => {
                    return Err(EmbeddedError::Server(format!(
                        "{} names process {pid}, which is not a PostgreSQL of this cluster here, while another pixeld uses \
                         the cluster: run both in one container, or stop one",
                        path.display()
                    )));
                }
            },
        };
        tracing::warn!(path = %path.display(), ?postmaster, "removing a stale pid file: it does not name our PostgreSQL");
        fs::remove_file(&path).map_err(|source| EmbeddedError::file("cannot remove", &path, source))
    }

    pub(super) fn bound_log(&self) -> Result<(), EmbeddedError> {
        server_log::bound(&self.place.cluster, self.place.run_as)
    }

    pub(super) fn log_tail(&self) -> String {
        server_log::tail(&self.place.cluster)
    }

    fn run(&self, command: Command, limit: Duration, what: &str) -> Result<(), EmbeddedError> {
        let ended = programs::run(command, limit).map_err(|error| {
            EmbeddedError::Server(format!("cannot run {what} for {}: {error}", self.place.cluster.display()))
        })?;
        if ended.success {
            return Ok(());
        }
        let cluster = self.place.cluster.display();
        Err(EmbeddedError::Server(format!("{what} failed for {cluster}: {}", ended.output)))
    }
}

/// The state letter of a process in /proc (`Z` is a zombie); `None` if there is no such process.
fn process_state(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may contain any characters, including parentheses.
    text.rsplit_once(") ")?.1.chars().next()
}

/// Creates a directory that other users may enter (the user who runs the server must), whatever the umask; leaves an
/// existing one unchanged.
fn make_dir_for_all(dir: &Path) -> Result<(), EmbeddedError> {
    let missing: Vec<_> = dir.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    for dir in missing.into_iter().rev() {
        let made = fs::create_dir(dir).and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o755)));
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(EmbeddedError::file("cannot make", dir, error));
            }
            _ => {}
        }
    }
    Ok(())
}
