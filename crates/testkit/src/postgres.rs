//! A private PostgreSQL that can be queried, stopped and frozen.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use pixeld::parts::db::{Database, Lease};
use tokio::runtime::Runtime;
use tokio_postgres::SimpleQueryMessage;

use crate::process::{children, signal};

/// A directory that the user who runs PostgreSQL can enter, even if we are root and that user is not.
pub fn open_dir() -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("pixeld-test-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Seconds that a statement of a test may take.
const STATEMENT_WAIT_S: u32 = 600;

/// pixeld's cluster in a directory.
const CLUSTER: &str = "postgres";

/// A new cluster, stopped, in memory: `initdb` takes several times as long as writing these files, and each test has
/// its own cluster. Installations differ only in pixeld's tables, which this cluster does not have yet.
struct Template {
    owner: (u32, u32),
    /// Paths below the cluster, a directory before what is in it.
    entries: Vec<(PathBuf, Entry)>,
}

enum Entry {
    Dir,
    File(Vec<u8>),
}

impl Template {
    /// Made once in this process.
    fn get() -> anyhow::Result<&'static Template> {
        static TEMPLATE: OnceLock<Result<Template, String>> = OnceLock::new();
        let made = TEMPLATE.get_or_init(|| Template::make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow::anyhow!("no new cluster to copy: {error}"))
    }

    fn make() -> anyhow::Result<Template> {
        let mut postgres = Postgres::start_in(open_dir()?, None)?;
        postgres.stop()?;
        let cluster = postgres.dir.path().join(CLUSTER);
        let owner = fs::metadata(&cluster)?;
        let mut template = Template { owner: (owner.uid(), owner.gid()), entries: Vec::new() };
        template.read(&cluster, Path::new(""))?;
        Ok(template)
    }

    fn read(&mut self, cluster: &Path, dir: &Path) -> anyhow::Result<()> {
        self.entries.push((dir.to_owned(), Entry::Dir));
        for entry in fs::read_dir(cluster.join(dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.read(cluster, &path)?;
            } else {
                let bytes = fs::read(entry.path())?;
                self.entries.push((path, Entry::File(bytes)));
            }
        }
        Ok(())
    }

    fn write(&self, cluster: &Path) -> anyhow::Result<()> {
        for (path, entry) in &self.entries {
            let path = cluster.join(path);
            let mode = match entry {
                Entry::Dir => fs::create_dir(&path).map(|()| 0o700)?,
                Entry::File(bytes) => fs::write(&path, bytes).map(|()| 0o600)?,
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            std::os::unix::fs::chown(&path, Some(self.owner.0), Some(self.owner.1))?;
        }
        Ok(())
    }
}

/// A PostgreSQL; stopped when dropped.
pub struct Postgres {
    runtime: Runtime,
    database: Database,
    lease: Option<Lease>,
    /// Its first process, if pixeld did not start it.
    own: Option<Child>,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Makes and starts one, as pixeld does for itself.
    ///
    /// # Errors
    /// If its programs are missing or it does not start.
    pub fn start() -> anyhow::Result<Postgres> {
        Postgres::start_with(None)
    }

    /// The same with the programs in this directory; `None` searches for them.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with(programs: Option<PathBuf>) -> anyhow::Result<Postgres> {
        let dir = open_dir()?;
        if programs.is_none() {
            Template::get()?.write(&dir.path().join(CLUSTER))?;
        }
        Postgres::start_in(dir, programs)
    }

    fn start_in(dir: tempfile::TempDir, programs: Option<PathBuf>) -> anyhow::Result<Postgres> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let database = Database::embedded_in(dir.path(), programs)?;
        let lease = Some(runtime.block_on(database.start())?);
        Ok(Postgres { runtime, database, lease, own: None, dir })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.database.url_for_people()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        let url = self.url();
        let dir = url.rsplit_once("host=").map_or("", |(_, dir)| dir).replace("%2F", "/").replace("%2f", "/");
        Path::new(&dir).join(".s.PGSQL.5432")
    }

    /// Stops it.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.lease.take().map_or(Ok(()), |lease| self.runtime.block_on(lease.release()))?;
        self.own.take().map_or(Ok(()), |mut own| own.wait().map(drop)).context("waiting for a PostgreSQL")
    }

    /// Stops it, and restarts it with other settings (`name=value`), like somebody who runs it himself.
    ///
    /// # Errors
    /// If it does not stop or start.
    pub fn restart_with(&mut self, settings: &[&str]) -> anyhow::Result<()> {
        self.stop()?;
        // The last command line, quoted for a shell.
        let cluster = self.dir.path().join(CLUSTER);
        let options = cluster.join("postmaster.opts");
        let owner = fs::metadata(&options)?;
        let settings: Vec<String> = settings.iter().map(|setting| format!(" -c '{setting}'")).collect();
        let start = format!("exec {}{}", fs::read_to_string(&options)?.trim_end(), settings.concat());
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &start]).current_dir(cluster).process_group(0).uid(owner.uid()).gid(owner.gid());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.own = Some(command.spawn()?);
        let socket = self.socket();
        // Wait for it: otherwise pixeld would start another one beside it.
        crate::process::wait_until("a PostgreSQL", Duration::from_secs(60), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        self.start_again()
    }

    /// Restarts it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.lease = Some(self.runtime.block_on(self.database.start())?);
        Ok(())
    }

    /// Its first process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let text = fs::read_to_string(self.dir.path().join(CLUSTER).join("postmaster.pid"))?;
        text.lines().next().and_then(|pid| pid.parse().ok()).context("an odd postmaster.pid")
    }

    fn signal_all(&self, what: Signal) {
        let Ok(postmaster) = self.pid() else { return };
        for pid in std::iter::once(postmaster).chain(children(postmaster)) {
            // A backend may have ended since.
            signal(pid, what).unwrap_or_default();
        }
    }

    /// SIGSTOP for all of its processes: connections stay open, but no answer comes.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Ends [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// Runs statements; returns the first column of each row as text. The limit of a program's session does not apply: what a
    /// test asks may take long on a busy machine.
    pub fn query(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        self.runtime.block_on(async {
            let session = self.database.connect("testkit").await?;
            session.client.batch_execute(&format!("SET statement_timeout = '{STATEMENT_WAIT_S}s'")).await?;
            let messages = session.client.simple_query(sql).await?;
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                _ => None,
            });
            Ok(rows.collect())
        })
    }

    /// A client program of PostgreSQL's (`psql`, `pg_dump`) for this database.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(self.url());
        command
    }

    /// The one number that a query returns.
    ///
    /// # Errors
    /// On a database error, or if there is none.
    pub fn number(&self, sql: &str) -> anyhow::Result<f64> {
        Ok(self.query(sql)?.first().context("no row")?.parse()?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A failed test may have left it frozen.
        self.thaw();
        if let Err(error) = self.stop() {
            eprintln!("a PostgreSQL did not stop: {error:#}");
        }
    }
}
