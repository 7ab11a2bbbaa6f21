//! A private Redis that can be queried, stopped and frozen.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use redis::FromRedisValue;

use crate::process::{free_port, signal, wait_until};

/// How long a start may take.
const START_WAIT: Duration = Duration::from_secs(20);

/// A Redis that keeps nothing on disk; killed when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    password: Option<String>,
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If its program is missing or it does not start.
    pub fn start() -> anyhow::Result<Redis> {
        Redis::start_with(None)
    }

    /// Starts one that requires this password.
    ///
    /// # Errors
    /// If its program is missing or it does not start.
    pub fn start_with(password: Option<&str>) -> anyhow::Result<Redis> {
        let (dir, port) = (tempfile::tempdir()?, free_port()?);
        let password = password.map(str::to_owned);
        let redis = Redis { child: command(dir.path(), port, password.as_deref())?.spawn()?, port, password, dir };
        redis.wait_for_answer()?;
        Ok(redis)
    }

    /// Restarts it, empty, after [`Redis::kill`].
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = command(self.dir.path(), self.port, self.password.as_deref())?.spawn()?;
        self.wait_for_answer()
    }

    fn wait_for_answer(&self) -> anyhow::Result<()> {
        wait_until("an answer of Redis", START_WAIT, || self.ask::<String>("PING").is_ok())?;
        Ok(())
    }

    /// Starts one that also speaks TLS, and returns its URL for that, and the file of its certificate.
    ///
    /// # Errors
    /// If a program is missing or it does not start.
    pub fn start_with_tls() -> anyhow::Result<(Redis, String, PathBuf)> {
        let (dir, port, tls_port) = (tempfile::tempdir()?, free_port()?, free_port()?);
        let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| dir.path().join(name));
        make_certificate(dir.path(), &key, &certificate)?;
        let mut command = command(dir.path(), port, None)?;
        command.arg("--tls-port").arg(tls_port.to_string()).args(["--tls-auth-clients", "no"]);
        command.arg("--tls-key-file").arg(key).arg("--tls-cert-file").arg(&certificate);
        let redis = Redis { child: command.spawn()?, port, password: None, dir };
        redis.wait_for_answer()?;
        Ok((redis, format!("rediss://127.0.0.1:{tls_port}"), certificate))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_with(self.password.as_deref())
    }

    /// Its URL with another password.
    pub fn url_with(&self, password: Option<&str>) -> String {
        let password = password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}/0", self.port)
    }

    /// Its answer to a command whose words are separated by blanks.
    ///
    /// # Errors
    /// If it answers with an error, or not within a second.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> anyhow::Result<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        Ok(command.arg(words.collect::<Vec<_>>()).query(&mut connection)?)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, the kernel accepts new ones, but no answer comes.
    pub fn freeze(&self) -> anyhow::Result<()> {
        signal(self.child.id(), Signal::SIGSTOP)
    }

    /// Ends [`Redis::freeze`].
    pub fn thaw(&self) -> anyhow::Result<()> {
        signal(self.child.id(), Signal::SIGCONT)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Best effort: a test may have killed it.
        self.kill().unwrap_or_default();
    }
}

/// Redis's program.
///
/// # Errors
/// If `PATH` has none.
pub fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // One program under two names; Debian has the first in a package that also starts a service.
    let names = ["redis-server", "redis-check-rdb"];
    let mut places = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    places.find(|place| place.is_file()).context("there is no redis-server in PATH")
}

fn command(dir: &Path, port: u16, password: Option<&str>) -> anyhow::Result<Command> {
    let mut command = Command::new(program()?);
    command.arg0("redis-server").args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir);
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// A certificate for 127.0.0.1 that is its own root.
fn make_certificate(dir: &Path, key: &Path, certificate: &Path) -> anyhow::Result<()> {
    let settings = dir.join("openssl.cnf");
    // Without our own settings, the system's make it a certificate of an authority.
    std::fs::write(&settings, "[req]\ndistinguished_name=name\n[name]\n")?;
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=pixeld-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.arg("-config").arg(settings).arg("-keyout").arg(key).arg("-out").arg(certificate);
    let output = command.output().context("openssl cannot be started")?;
    anyhow::ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
