//! From a signal, or the loss of a task, to a clean end.
//!
//! This order loses nothing: the edge (no new hits), the writer (all written and synced), the loader (all in
//! PostgreSQL, or left for the next start), the rollup (once more), the private listener, the embedded PostgreSQL.
//! Gives up: waiting for a stage beyond `PIXELD_DRAIN_SECONDS`; what it holds is on disk by then, and the next start
//! continues.

use std::time::Duration;

use tokio::time::Instant;

use super::following::Following;
use super::loading::Loading;
use super::recording::Recording;
use crate::config::Config;

/// Part of the drain's time that is reserved for stopping what comes after the loader.
const DRAIN_RESERVE: Duration = Duration::from_millis(1500);

/// Ends all that runs, in order.
///
/// # Errors
/// If a stage panicked, or the embedded PostgreSQL cannot be stopped.
pub(super) async fn drain(
    config: &Config,
    recording: Recording,
    loading: Loading,
    following: Following,
) -> anyhow::Result<()> {
    let Following { database_task, database_trigger, rollup_task, rollup_trigger, admin, systemd, others } = following;
    if let Some((systemd, notifying)) = systemd {
        notifying.abort();
        systemd.notify_stopping(config.limits.drain);
    }
    let deadline = Instant::now() + config.limits.drain;
    // A chunk of a deletion holds the lock that the last rollup needs.
    admin.end_jobs();
    let housekeeper = drain_hits(config, recording, loading, deadline).await?;
    rollup_trigger.ask((deadline - Instant::now()).saturating_sub(DRAIN_RESERVE / 2).max(DRAIN_RESERVE / 6));
    rollup_task.await?;
    others.iter().for_each(tokio::task::JoinHandle::abort);
    database_trigger.ask((deadline - Instant::now()).max(DRAIN_RESERVE));
    // If it ended before, it has logged why.
    if !database_task.is_finished() {
        database_task.await??;
    }
    drop(housekeeper);
    Ok(())
}

/// Finishes what was accepted, stage by stage. The housekeeper makes room until the end.
async fn drain_hits(
    config: &Config,
    recording: Recording,
    loading: Loading,
    deadline: Instant,
) -> anyhow::Result<crate::ingest::housekeeper::Housekeeper> {
    let Loading { loader, loader_trigger, eraser_trigger, housekeeper, .. } = loading;
    recording.edge_trigger.ask(config.limits.drain / 2);
    // Not awaited: its files are consistent at every moment, and the next start continues.
    eraser_trigger.ask(Duration::ZERO);
    let Recording { cores, writer, edge_trigger: _edge_trigger } = recording;
    let written = tokio::task::spawn_blocking(move || {
        for core in cores {
            match core.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a core could not run"),
                Err(_) => tracing::error!("a core panicked"),
            }
        }
        writer.finish();
    });
    match tokio::time::timeout_at(deadline - DRAIN_RESERVE.min(config.limits.drain), written).await {
        Ok(written) => written?,
        Err(_) => tracing::error!("the disk does not accept the last hits; pixeld no longer waits for it"),
    }
    let rest = (deadline - Instant::now()).saturating_sub(DRAIN_RESERVE).max(Duration::from_millis(100));
    loader_trigger.ask(rest);
    let loaded = tokio::task::spawn_blocking(move || loader.join());
    let Ok(loaded) = tokio::time::timeout(rest + DRAIN_RESERVE / 3, loaded).await else {
        tracing::warn!("the loader does not end; the next start loads the hits that are left");
        return Ok(housekeeper);
    };
    match loaded? {
        Ok(0) => tracing::info!("every hit is in PostgreSQL"),
        Ok(left) => tracing::warn!(left, "hits wait in the spool; the next start loads them"),
        Err(_) => tracing::error!("the loader panicked; hits wait in the spool"),
    }
    Ok(housekeeper)
}
