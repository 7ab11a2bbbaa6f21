//! PostgreSQL, and the tasks that follow it, on one runtime, each under its name.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use super::loading::Loading;
use super::options::admin_options;
use super::recording::{EdgeParts, follower};
use super::supervise::Supervisor;
use super::{DataDir, database, namespace, systemd};
use crate::admin::{self, Admin};
use crate::config::Config;
use crate::db::Database;
use crate::images;
use crate::network_lists::follow::Follower;
use crate::opt_outs::follow as opt_outs;
use crate::rollup::retention::Retention;
use crate::rollup::task::Rollup;
use pixeld_core::drain::{self, DrainTrigger};
use pixeld_core::metrics::{Metrics, Task};
use pixeld_edge::Edge;
use pixeld_edge::images::cache::Wanted;

/// What all of them need.
pub(super) struct Common<'a> {
    pub(super) config: &'a Config,
    pub(super) supervisor: &'a Supervisor,
    pub(super) data: &'a DataDir,
    pub(super) db: &'a Database,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) database_ready: &'a watch::Receiver<bool>,
}

/// The running tasks.
pub(super) struct Following {
    pub(super) database_task: JoinHandle<anyhow::Result<()>>,
    pub(super) database_trigger: DrainTrigger,
    pub(super) rollup_task: JoinHandle<()>,
    pub(super) rollup_trigger: DrainTrigger,
    pub(super) admin: Arc<Admin>,
    pub(super) systemd: Option<(Arc<systemd::Notifier>, JoinHandle<()>)>,
    /// Those that may be cut off at any moment.
    pub(super) others: Vec<JoinHandle<()>>,
}

impl Following {
    /// Starts them, on the runtime that this is called on.
    pub(super) fn start(
        common: &Common<'_>,
        parts: EdgeParts,
        loading: &Loading,
        private: std::net::TcpListener,
        ready: watch::Sender<bool>,
    ) -> anyhow::Result<Following> {
        let EdgeParts { edge, wanted, networks } = parts;
        let (database_task, database_trigger) = database_task(common, ready);
        let (rollup_task, rollup_trigger) = rollup_task(common, loading);
        let options = admin_options(common.config, common.metrics, common.db, Arc::clone(&edge.unrecorded));
        let admin = Arc::new(Admin::new(options));
        let mut others = vec![
            images_task(common, &edge, wanted),
            admin_task(common, &admin, private)?,
            namespace_task(common, &edge),
            opt_outs_task(common, &edge),
            networks_task(common, &edge, networks),
            cleaning_task(common, &edge),
        ];
        others.extend(retention_task(common, loading));
        let systemd = systemd_task(common);
        Ok(Following { database_task, database_trigger, rollup_task, rollup_trigger, admin, systemd, others })
    }

    /// Why pixeld cannot go on without `task`.
    pub(super) async fn why(&mut self, task: Task) -> anyhow::Error {
        if task == Task::Database
            && let Ok(Err(error)) = (&mut self.database_task).await
        {
            return error.context("PostgreSQL cannot be used");
        }
        anyhow::anyhow!("the {} ended; the log says why", task.label().replace('_', " "))
    }
}

impl Common<'_> {
    /// Waits for the database.
    fn until_ready(&self) -> impl Fn() -> UntilReady + Send + 'static {
        let ready = self.database_ready.clone();
        move || Box::pin(database::until(ready.clone()))
    }
}

type UntilReady = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn database_task(common: &Common<'_>, ready: watch::Sender<bool>) -> (JoinHandle<anyhow::Result<()>>, DrainTrigger) {
    let (trigger, close) = drain::drain();
    let keeping = database::keep(common.db.clone(), Arc::clone(common.metrics), ready, close);
    (common.supervisor.once(Task::Database, keeping), trigger)
}

fn images_task(common: &Common<'_>, edge: &Arc<Edge>, wanted: mpsc::Receiver<Wanted>) -> JoinHandle<()> {
    let (cache, db, known) = (Arc::clone(&edge.images), common.db.clone(), common.data.known_images());
    let (wanted, until_ready) = (Arc::new(Mutex::new(wanted)), common.until_ready());
    common.supervisor.restarted(Task::Images, move || {
        let (cache, db, known, wanted) = (Arc::clone(&cache), db.clone(), known.clone(), Arc::clone(&wanted));
        let until_ready = until_ready();
        async move { images::sync::run(cache, &mut *wanted.lock().await, db, known, until_ready).await }
    })
}

fn rollup_task(common: &Common<'_>, loading: &Loading) -> (JoinHandle<()>, DrainTrigger) {
    let (trigger, drain) = drain::drain();
    let (db, metrics, committed) = (common.db.clone(), Arc::clone(common.metrics), Arc::clone(&loading.committed));
    let until_ready = common.until_ready();
    let task = common.supervisor.restarted(Task::Rollup, move || {
        let rollup = Rollup::new(db.clone(), Arc::clone(&metrics), Arc::clone(&committed));
        rollup.run(until_ready(), drain.clone())
    });
    (task, trigger)
}

/// `None` if hits are kept forever. It may be cut off: its work is one transaction, which is rolled back.
fn retention_task(common: &Common<'_>, loading: &Loading) -> Option<JoinHandle<()>> {
    let days = common.config.privacy.retention_days?;
    let (db, metrics, clocks) = (common.db.clone(), Arc::clone(common.metrics), Arc::clone(&loading.clocks));
    let until_ready = common.until_ready();
    Some(common.supervisor.restarted(Task::Retention, move || {
        let retention = Retention::new(db.clone(), Arc::clone(&metrics), days, Arc::clone(&clocks));
        let until_ready = until_ready();
        async move {
            // Nothing asks it to drain.
            let (_trigger, drain) = drain::drain();
            retention.run(until_ready, drain).await;
        }
    }))
}

fn opt_outs_task(common: &Common<'_>, edge: &Arc<Edge>) -> JoinHandle<()> {
    let (suppressed, db, kept) = (Arc::clone(&edge.suppressed), common.db.clone(), common.data.opt_outs());
    let until_ready = common.until_ready();
    common.supervisor.restarted(Task::OptOuts, move || {
        opt_outs::run(Arc::clone(&suppressed), db.clone(), kept.clone(), until_ready())
    })
}

fn namespace_task(common: &Common<'_>, edge: &Arc<Edge>) -> JoinHandle<()> {
    let (edge, db, kept) = (Arc::clone(edge), common.db.clone(), common.data.namespace());
    let until_ready = common.until_ready();
    common
        .supervisor
        .restarted(Task::Namespace, move || namespace::keep(Arc::clone(&edge), db.clone(), kept.clone(), until_ready()))
}

fn networks_task(common: &Common<'_>, edge: &Arc<Edge>, first: Follower) -> JoinHandle<()> {
    let (edge, config, metrics) = (Arc::clone(edge), common.config.clone(), Arc::clone(common.metrics));
    let mut first = Some(first);
    common.supervisor.restarted(Task::Networks, move || {
        let (first, edge, config, metrics) = (first.take(), Arc::clone(&edge), config.clone(), Arc::clone(&metrics));
        async move {
            let put = |networks| edge.networks.store(Arc::new(networks));
            let follower = match first {
                Some(first) => first,
                None => {
                    let read = tokio::task::spawn_blocking(move || follower(&config, &metrics)).await;
                    // If that panicked, the first task logged it.
                    let Ok((follower, networks)) = read else { return };
                    put(networks);
                    follower
                }
            };
            follower.run(put).await;
        }
    })
}

fn admin_task(
    common: &Common<'_>,
    admin: &Arc<Admin>,
    private: std::net::TcpListener,
) -> std::io::Result<JoinHandle<()>> {
    let (admin, private) = (Arc::clone(admin), Arc::new(TcpListener::from_std(private)?));
    Ok(common.supervisor.restarted(Task::Admin, move || {
        let (admin, private) = (Arc::clone(&admin), Arc::clone(&private));
        async move { match admin::listener::run(admin, &private).await {} }
    }))
}

/// Forgets quiet addresses, and updates the gauges that no other task sets.
fn cleaning_task(common: &Common<'_>, edge: &Arc<Edge>) -> JoinHandle<()> {
    let (edge, metrics) = (Arc::clone(edge), Arc::clone(common.metrics));
    common.supervisor.restarted(Task::Cleaning, move || {
        let (edge, metrics) = (Arc::clone(&edge), Arc::clone(&metrics));
        async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                edge.limits.clean();
                edge.images.tick();
                metrics.opted_out.set(edge.suppressed.count() as i64);
                metrics.image_cache_bytes.set(edge.images.bytes() as i64);
            }
        }
    })
}

fn systemd_task(common: &Common<'_>) -> Option<(Arc<systemd::Notifier>, JoinHandle<()>)> {
    let (notifier, listen) = (Arc::new(systemd::Notifier::from_env()?), common.config.listen.public);
    let notifying = Arc::clone(&notifier);
    let task = common.supervisor.restarted(Task::Systemd, move || Arc::clone(&notifying).notify_while_serving(listen));
    Some((notifier, task))
}
