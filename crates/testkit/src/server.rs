//! A `pixeld serve` with its own settings: started, queried, and ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::process::{self, free_port, signal, wait_until};

/// How long a start, or an end, may take.
const START_WAIT: Duration = Duration::from_secs(60);

/// Maximum time of an answer: for a server that hangs, not for one on a busy machine.
const EXCHANGE_WAIT: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// The words before it on the command line, for example `taskset -c 0`.
    pub wrapper: Vec<String>,
    /// `PIXELD_DATA_DIR`; its log is written there too.
    pub data_dir: PathBuf,
    /// All other variables. Variables of our own environment that pixeld reads are not passed on.
    pub variables: BTreeMap<String, String>,
    public_port: u16,
    admin_port: u16,
}

impl Settings {
    /// A server of this program, with its data there, on free ports of 127.0.0.1. Without throttle and address rate:
    /// one address sends the whole load.
    ///
    /// # Errors
    /// If no port is free.
    pub fn new(program: impl Into<PathBuf>, data_dir: impl Into<PathBuf>) -> anyhow::Result<Settings> {
        let (public_port, admin_port) = (free_port()?, free_port()?);
        let settings = Settings {
            program: program.into(),
            wrapper: Vec::new(),
            data_dir: data_dir.into(),
            variables: BTreeMap::new(),
            public_port,
            admin_port,
        };
        Ok(settings.with("PIXELD_THROTTLE", "off").with("PIXELD_ADDRESS_RATE", "off"))
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Settings {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// The address of pixels.
    pub fn public(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.public_port))
    }

    /// The address of metrics.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port))
    }

    /// A command of the program with these settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let words: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        let mut command = match words.split_first() {
            None => Command::new(&self.program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
        };
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| {
            name.as_encoded_bytes().starts_with(b"PIXELD_")
                || ["DATABASE_URL", "REDIS_URL", "DJANGO_DATABASE_URL"].iter().any(|known| name == known)
        }) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("PIXELD_LISTEN", self.public().to_string())
            .env("PIXELD_ADMIN_LISTEN", self.admin().to_string())
            .env("PIXELD_DATA_DIR", &self.data_dir)
            .envs(&self.variables);
        command
    }

    /// Runs a command to its end and returns its output.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output().context("it cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "pixeld {}: {}\n{said}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// If it ends or does not serve, with the end of its log.
    pub fn start(self) -> anyhow::Result<Server> {
        let mut server = self.launch()?;
        let started = Instant::now();
        loop {
            if server.is_healthy() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("it ended with {status} at its start:\n{}", server.log());
            }
            anyhow::ensure!(started.elapsed() < START_WAIT, "it does not serve:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(self) -> anyhow::Result<Server> {
        fs::create_dir_all(&self.data_dir)?;
        let log_path = self.data_dir.join("serve.log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = self.command(&["serve"]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("{} cannot be started", self.program.display()))?;
        Ok(Server { child, settings: self, log_path })
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    settings: Settings,
    log_path: PathBuf,
}

impl Server {
    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The address of pixels.
    pub fn public(&self) -> SocketAddr {
        self.settings.public()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.settings.data_dir
    }

    /// Whether it answers that it serves.
    pub fn is_healthy(&self) -> bool {
        get(self.public(), "/healthz").is_ok_and(|answer| answer.status == 200)
    }

    /// What it logged, at most the last 8 KiB.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log_path).unwrap_or_default();
        text[text.ceil_char_boundary(text.len().saturating_sub(8192))..].to_owned()
    }

    /// Its metrics.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let answer = get(self.settings.admin(), "/metrics")?;
        anyhow::ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Metrics(String::from_utf8(answer.body)?))
    }

    /// Waits until all accepted hits are loaded or dropped, and checks the identity of promise 2. Returns the metrics.
    ///
    /// # Errors
    /// If that does not happen within `limit`, with the metrics and the log.
    pub fn at_rest(&self, limit: Duration) -> anyhow::Result<Metrics> {
        let mut last = None;
        let rest = wait_until("everything loaded", limit, || {
            // Not too often: each query also costs the server time, which may be measured.
            std::thread::sleep(Duration::from_millis(45));
            let Ok(metrics) = self.metrics() else { return false };
            let is_at_rest = metrics.get("pixeld_hits_queued") == 0.0 && metrics.get("pixeld_hits_spooled") == 0.0;
            // A hit that is being answered at this moment is in neither yet.
            let stood_still = last.as_ref().is_some_and(|last: &Metrics| last.hits() == metrics.hits());
            last = Some(metrics);
            is_at_rest && stood_still
        });
        let Some(metrics) = last else { anyhow::bail!("no metrics:\n{}", self.log()) };
        rest.with_context(|| format!("{}\n{}", metrics.0, self.log()))?;
        metrics.check_identity()?;
        Ok(metrics)
    }

    /// `kill -9`, and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, what: Signal) -> anyhow::Result<()> {
        signal(self.pid(), what)
    }

    /// SIGTERM, and waits for its end. Returns its status and how long that took.
    ///
    /// # Errors
    /// If it does not end.
    pub fn terminate(&mut self) -> anyhow::Result<(ExitStatus, Duration)> {
        self.signal(Signal::SIGTERM)?;
        self.wait(START_WAIT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<(ExitStatus, Duration)> {
        let mut status = None;
        let took = wait_until("its end", limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        let took = took.with_context(|| self.log())?;
        Ok((status.context("no status")?, took))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if process::is_alive(self.child.id()) {
            // Best effort: it may have ended by itself.
            self.kill().unwrap_or_default();
        }
    }
}

/// What `/metrics` shows.
#[derive(Debug, Clone)]
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a metric, with its labels as shown; 0 if there is none.
    pub fn get(&self, name: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Hits dropped for a reason.
    pub fn dropped(&self, reason: &str) -> f64 {
        self.get(&format!("pixeld_hits_dropped_total{{reason=\"{reason}\"}}"))
    }

    /// Hits dropped for any reason.
    pub fn dropped_all(&self) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with("pixeld_hits_dropped_total{"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// The terms of promise 2: accepted, recovered, queued, spooled, without an image, loaded, dropped.
    pub fn hits(&self) -> [f64; 7] {
        let value = |name: &str| self.get(&format!("pixeld_hits_{name}"));
        let [accepted, loaded] = ["accepted_total", "loaded_total"].map(value);
        let [recovered, queued, spooled, aside] = ["recovered", "queued", "spooled", "without_image"].map(value);
        [accepted, recovered, queued, spooled, aside, loaded, self.dropped_all()]
    }

    /// Promise 2: `accepted + recovered = queued + spooled + without_image + loaded + dropped`.
    ///
    /// # Errors
    /// If it does not hold, with the terms.
    pub fn check_identity(&self) -> anyhow::Result<()> {
        let [accepted, recovered, queued, spooled, aside, loaded, dropped] = self.hits();
        anyhow::ensure!(
            accepted + recovered == queued + spooled + aside + loaded + dropped,
            "accepted {accepted} + recovered {recovered} is not queued {queued} + spooled {spooled} + without image {aside} + loaded {loaded} + dropped {dropped}"
        );
        Ok(())
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, unchanged.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; `None` if there is none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

/// GET over a new connection.
///
/// # Errors
/// If no answer comes within a minute.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends bytes, and reads one answer: to the end of the connection.
///
/// # Errors
/// If no answer comes within a minute.
pub fn exchange(address: SocketAddr, request: &[u8]) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, EXCHANGE_WAIT)?;
    stream.set_read_timeout(Some(EXCHANGE_WAIT))?;
    stream.set_write_timeout(Some(EXCHANGE_WAIT))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes)
}

/// Reads an answer's head and takes the rest as its body.
///
/// # Errors
/// If the bytes are not an answer of HTTP/1.1 or 1.0, or its head is incomplete.
pub fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = answer.parse(bytes)? else {
        anyhow::bail!("no whole head in {:?}", String::from_utf8_lossy(bytes))
    };
    let status = answer.code.context("no status")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    Ok(Answer { status, head, body: bytes[end..].to_vec() })
}
