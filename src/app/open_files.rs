//! How many files this process may have open: every connection is one, and most systems allow 1,024 unless a program
//! asks for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides connections: segments, listeners, connections to PostgreSQL.
const RESERVE: u64 = 256;

/// Raises the limit as far as the system allows, and returns how many of `connections` fit.
pub(super) fn allow(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return connections };
    let room = usize::try_from(files.saturating_sub(RESERVE).max(files / 2)).unwrap_or(usize::MAX);
    if room < connections {
        tracing::warn!(
            files,
            allowed = room,
            asked = connections,
            "the limit of open files is too low for PIXELD_CONNECTIONS_MAX"
        );
    }
    connections.min(room)
}
