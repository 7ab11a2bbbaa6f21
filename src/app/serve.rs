//! `pixeld serve`, phase by phase; [`crate::app`] has their order.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use super::claim::Claimed;
use super::drain::drain;
use super::following::{Common, Following};
use super::loading::{self, Loading};
use super::recording::{EdgeParts, Recording, Spools};
use super::sample;
use super::supervise::Supervisor;
use crate::config::Config;
use crate::signals;
use pixeld_core::metrics::{Metrics, Task};

/// `pixeld serve`: runs until SIGTERM, SIGINT or SIGHUP, then drains. With `sample`, adds a sample image if there is none and
/// prints what to try.
///
/// # Errors
/// Why it could not start; then nothing keeps running. Or which indispensable task ended; then it has drained.
pub(crate) fn serve(config: &Config, sample: bool) -> anyhow::Result<()> {
    serve_ending(config, sample, None)
}

/// The same with one task that panics once, for the tests of supervision. The program cannot request it.
///
/// # Errors
/// As [`serve`].
pub fn serve_ending(config: &Config, sample: bool, ends_on_purpose: Option<Task>) -> anyhow::Result<()> {
    // First of all: a signal must stop all that is started below, however early it comes.
    let _hold = signals::hold().context("cannot receive signals")?;
    if let Some(note) = &config.former.note {
        tracing::warn!("{note}");
    }
    let mut claimed = Claimed::claim(config)?;
    let metrics = Metrics::new(config.limits.threads);
    let supervisor = Supervisor::new(Arc::clone(&metrics), ends_on_purpose);
    let spools = Spools::recover(config, &claimed.data, &metrics)?;
    let erasing = loading::erasing(&claimed, &spools)?;
    if let Some(signal) = signals::came() {
        tracing::info!(signal, "stopped before anything started");
        return Ok(());
    }
    let parts = EdgeParts::recall(config, &claimed, &metrics);
    let public = std::mem::take(&mut claimed.public);
    let recording = Recording::start(config, &supervisor, &spools, &parts.edge, public)?;
    tracing::info!(listen = %config.listen.public, admin = %config.listen.private, data = %config.storage.data_dir.display(), "pixels are served");
    let (ready, database_ready) = watch::channel(false);
    let loading = Loading::start(config, &supervisor, &claimed, spools, &parts.edge, erasing, &database_ready)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Claimed { data, private, db, .. } = claimed;
    let outcome = runtime.block_on(async {
        let common = Common {
            config,
            supervisor: &supervisor,
            data: &data,
            db: &db,
            metrics: &metrics,
            database_ready: &database_ready,
        };
        let mut following = Following::start(&common, parts, &loading, private, ready)?;
        if sample {
            show_sample(&common);
        }
        let outcome = run_until_signal(config, &supervisor, &mut following).await;
        drain(config, recording, loading, following).await?;
        outcome
    });
    // A name that is being resolved, or a program that is still running, must not delay the end.
    runtime.shutdown_background();
    drop(data);
    outcome
}

/// Runs until a signal comes.
///
/// # Errors
/// Which indispensable task ended.
async fn run_until_signal(config: &Config, supervisor: &Supervisor, following: &mut Following) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        signal = signals::signal() => Ok(signal),
        task = supervisor.lost() => Err(task),
    };
    supervisor.begin_drain();
    match outcome {
        Ok(signal) => {
            tracing::info!(
                signal,
                seconds = config.limits.drain.as_secs(),
                "draining; a second signal stops pixeld at once"
            );
            Ok(())
        }
        Err(task) => Err(following.why(task).await),
    }
}

/// Adds the sample image, once. A failure does not affect serving.
#[expect(clippy::disallowed_methods, reason = "it ends by itself")]
fn show_sample(common: &Common<'_>) {
    tokio::spawn(sample::show(common.db.clone(), common.config.clone(), common.database_ready.clone()));
}
