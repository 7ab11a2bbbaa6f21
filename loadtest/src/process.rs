//! Processes that we started: their CPU time and memory, signals, and free ports for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a process and its children have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, of children that have ended too.
    pub cpu: Duration,
    /// Resident memory now, in bytes, pages shared between processes counted for each.
    pub rss_bytes: u64,
}

impl Usage {
    /// Of a process and all below it.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn of_tree(pid: u32) -> anyhow::Result<Usage> {
        let mut usage = Usage::of(pid)?;
        for child in children(pid) {
            // One that ended meanwhile is in its parent's sum.
            if let Ok(more) = Usage::of_tree(child) {
                usage.cpu += more.cpu;
                usage.rss_bytes += more.rss_bytes;
            }
        }
        Ok(usage)
    }

    fn of(pid: u32) -> anyhow::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
        let (_, fields) = stat.rsplit_once(") ").context("an odd stat file")?;
        let fields: Vec<u64> = fields.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect();
        // Counted from the state, which is the third field: utime, stime, cutime, cstime are the 14th to 17th.
        let ticks: u64 = fields.get(11..15).context("an odd stat file")?.iter().sum();
        let pages = fields.get(21).copied().unwrap_or(0);
        Ok(Usage { cpu: Duration::from_millis(ticks * 10), rss_bytes: pages * 4096 })
    }
}

/// CPU time of a process's threads, user and system, by their names; threads of one name are summed.
///
/// # Errors
/// Where the process is gone.
pub fn threads(pid: u32) -> anyhow::Result<BTreeMap<String, [Duration; 2]>> {
    let mut threads: BTreeMap<String, [Duration; 2]> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // One that ended meanwhile is nobody's.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
        let Some((front, fields)) = stat.rsplit_once(") ") else { continue };
        let name = front.split_once('(').map_or("", |(_, name)| name).to_owned();
        let ticks = |at: usize| fields.split(' ').nth(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
        let sum = threads.entry(name).or_default();
        for (sum, at) in sum.iter_mut().zip([11, 12]) {
            *sum += Duration::from_millis(ticks(at) * 10);
        }
    }
    Ok(threads)
}

/// The processes that a process has started.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Sends a signal to a process that we started.
///
/// # Errors
/// As the operating system says.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid as i32), signal).with_context(|| format!("{signal} to process {pid}"))
}

/// Whether a process is there; one that has ended and was not collected is not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// A port of 127.0.0.1 that nobody listens on. Below those that the kernel gives to outgoing connections, so that a load
/// does not take it before its server does.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_240;
    const COUNT: u32 = 20_000;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(61) + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).is_ok() {
            return Ok(port as u16);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Asks `done` every few milliseconds until it says so.
///
/// # Errors
/// Where it does not within `limit`; `what` is waited for.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let started = Instant::now();
    while !done() {
        anyhow::ensure!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(started.elapsed())
}
