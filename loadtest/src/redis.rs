//! A private Redis of our own, to be stopped, frozen and asked.

use std::os::unix::process::CommandExt;
use std::path::Path;
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
    /// Where its program is missing or it does not start.
    pub fn start() -> anyhow::Result<Redis> {
        Redis::start_with(None)
    }

    /// Starts one that asks for this password.
    ///
    /// # Errors
    /// Where its program is missing or it does not start.
    pub fn start_with(password: Option<&str>) -> anyhow::Result<Redis> {
        let (dir, port) = (tempfile::tempdir()?, free_port()?);
        let password = password.map(str::to_owned);
        let redis = Redis { child: launch(dir.path(), port, password.as_deref())?, port, password, dir };
        redis.wait_for_answer()?;
        Ok(redis)
    }

    /// Starts it again, after [`Redis::kill`], with nothing in it.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.child = launch(self.dir.path(), self.port, self.password.as_deref())?;
        self.wait_for_answer()
    }

    fn wait_for_answer(&self) -> anyhow::Result<()> {
        wait_until("an answer of Redis", START_WAIT, || self.ask::<String>("PING").is_ok())?;
        Ok(())
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with(self.password.as_deref())
    }

    /// Its URL with another password.
    #[must_use]
    pub fn url_with(&self, password: Option<&str>) -> String {
        let password = password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}/0", self.port)
    }

    /// What it answers to a command, its words apart by blanks.
    ///
    /// # Errors
    /// As it says, or where it does not answer within a second.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> anyhow::Result<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        Ok(command.arg(words.collect::<Vec<_>>()).query(&mut connection)?)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, new ones are taken by the kernel, and nobody answers.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn freeze(&self) -> anyhow::Result<()> {
        signal(self.child.id(), Signal::SIGSTOP)
    }

    /// Ends [`Redis::freeze`].
    ///
    /// # Errors
    /// As the operating system says.
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

fn launch(dir: &Path, port: u16, password: Option<&str>) -> anyhow::Result<Child> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // One program under two names; Debian has the first in a package that also starts a service.
    let names = ["redis-server", "redis-check-rdb"];
    let mut places = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    let program = places.find(|place| place.is_file()).context("there is no redis-server in PATH")?;
    let mut command = Command::new(program);
    command.arg0("redis-server").args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir);
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}
