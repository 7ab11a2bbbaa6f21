//! The machine, and the cores of processes.

use std::fs;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The core that a compared server has for itself.
pub const SERVER_CORE: usize = 0;

/// Keeps this process, and everything that it starts from now on, off the server's core. Returns whether there are two
/// cores: on a machine with one, the client and the server share it.
pub fn leave_the_servers_core() -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        return Ok(false);
    }
    let mut others = CpuSet::new();
    for core in (0..cores).filter(|&core| core != SERVER_CORE) {
        others.set(core)?;
    }
    sched_setaffinity(Pid::from_raw(0), &others)?;
    Ok(true)
}

/// Gives the calling thread, and those that it starts, priority over everything else on its core, especially
/// PostgreSQL: a client that has to wait measures itself. Returns whether that was allowed; it requires root.
pub fn go_first() -> bool {
    rustix::process::setpriority_process(None, -10).is_ok()
}

/// The words before a command that make it run on the server's core.
pub fn on_the_servers_core() -> Vec<String> {
    ["taskset", "-c", &SERVER_CORE.to_string()].map(str::to_owned).to_vec()
}

/// The machine in words.
pub fn described() -> String {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    // The machine's cores, not this process's, which may be restricted to some of them.
    let cores = fs::read_to_string("/proc/cpuinfo").unwrap_or_default().matches("\nprocessor").count() + 1;
    let memory = line("/proc/meminfo", "MemTotal").and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    format!(
        "{}, {cores} cores, {} GiB, Linux {}",
        line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
        memory.unwrap_or(0).div_ceil(1 << 20),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
    )
}

/// Raises the limit of open files as far as the system allows: each connection is one.
pub fn allow_open_files() -> anyhow::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}
