//! From a hit on disk to a row in PostgreSQL: the loader, the housekeeper, and the eraser. Each has its own thread;
//! they wait for the database without delaying a pixel.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{Notify, watch};

use super::claim::Claimed;
use super::database;
use super::options::{eraser_options, housekeeper_options, loader_options};
use super::recording::Spools;
use super::supervise::Supervisor;
use crate::clocks::Clocks;
use crate::config::Config;
use crate::erasure::disk::{Eraser, EraserOptions};
use crate::ingest::housekeeper::Housekeeper;
use crate::ingest::loader::Loader;
use pixeld_core::drain::{self, DrainTrigger};
use pixeld_core::metrics::Task;
use pixeld_edge::Edge;
use pixeld_spool::disk::RealDisk;

/// The threads, and their signals to others.
pub(super) struct Loading {
    pub(super) loader: JoinHandle<u64>,
    pub(super) loader_trigger: DrainTrigger,
    pub(super) eraser_trigger: DrainTrigger,
    /// Stops when it is dropped.
    pub(super) housekeeper: Housekeeper,
    /// Notified after each committed batch.
    pub(super) committed: Arc<Notify>,
    pub(super) clocks: Arc<Clocks>,
}

impl Loading {
    /// Starts them.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(super) fn start(
        config: &Config,
        supervisor: &Supervisor,
        claimed: &Claimed,
        spools: Spools,
        edge: &Edge,
        erasing: EraserOptions,
        database_ready: &watch::Receiver<bool>,
    ) -> anyhow::Result<Loading> {
        let (db, metrics) = (&claimed.db, &edge.metrics);
        let (folder, all_spools) = (claimed.data.spools(), spools.all());
        let (committed, clocks) = (Arc::new(Notify::new()), Arc::<Clocks>::default());
        let disk = Arc::new(RealDisk);
        let orphans = Arc::clone(&spools.orphans);
        let eraser = Eraser::new(erasing, db.clone(), Arc::clone(metrics), disk, all_spools.clone(), orphans);
        let Spools { recovered, spool, room, orphans, .. } = spools;
        let options = loader_options(config, &folder);
        let loader = Loader::new(options, db.clone(), Arc::clone(metrics), recovered, Some(spool), orphans);
        // After the loader has read the hints: on a full disk they say what may be removed.
        let keep = housekeeper_options(config, db, &folder);
        let housekeeper = Housekeeper::start(keep, all_spools, room, Arc::clone(metrics), |keep| {
            supervisor.thread(Task::Housekeeper, "house", keep)
        })?;
        let loader = loader
            .with_images(Arc::clone(&edge.images))
            .with_clocks(Arc::clone(&clocks))
            .with_commit_notifier(Arc::clone(&committed))
            .with_opt_outs(Arc::clone(&edge.suppressed));
        let (loader_trigger, loader_drain) = drain::drain();
        let until_ready = database::until(database_ready.clone());
        let loader = supervisor.background_thread(Task::Loader, loader.run(until_ready, loader_drain))?;
        let (eraser_trigger, eraser_drain) = drain::drain();
        let until_ready = database::until(database_ready.clone());
        // Its thread is not awaited: its files are consistent at every moment, and the next start continues.
        drop(supervisor.background_thread(Task::Eraser, eraser.run(until_ready, eraser_drain))?);
        Ok(Loading { loader, loader_trigger, eraser_trigger, housekeeper, committed, clocks })
    }
}

/// The eraser's options; made before anything runs, since this creates the node's id.
pub(super) fn erasing(claimed: &Claimed, spools: &Spools) -> anyhow::Result<EraserOptions> {
    eraser_options(&claimed.data, spools.left_alone)
}
