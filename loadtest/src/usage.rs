//! The resources that processes have used: CPU time and memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use pixeld_testkit::process::children;

/// The resources that a process and its children have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, including that of children that have ended.
    pub cpu: Duration,
    /// Current resident memory, in bytes; shared pages count for each process.
    pub rss_bytes: u64,
}

impl Usage {
    /// For a process and all below it.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn of_tree(pid: u32) -> anyhow::Result<Usage> {
        let mut usage = Usage::of(pid)?;
        for child in children(pid) {
            // A process that ended in between is in its parent's sum.
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
/// If the process is gone.
pub fn threads(pid: u32) -> anyhow::Result<BTreeMap<String, [Duration; 2]>> {
    let mut threads: BTreeMap<String, [Duration; 2]> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread that ended in between is not counted.
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
