//! The only place where the parts are wired together: start order and drain order.
//!
//! Start: settings, lock, ports, spool, writer, edge; then PostgreSQL in the background, so that a pixel is answered before
//! the database is there. Drain: edge (no new hits), writer (all written and synced), loader (all in PostgreSQL, or left for
//! the next start), rollup (once more), the private listener, the embedded PostgreSQL.

pub mod commands;
mod data_dir;
mod database;
mod health;
mod namespace;
mod open_files;
mod program;
mod sample;
mod systemd;
mod which;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::admin::{self, Admin, AdminOptions, Links};
use crate::clocks::Clocks;
use crate::config::Config;
use crate::db::Database;
use crate::edge::limits::Limits;
use crate::edge::{Edge, client_address, listener};
use crate::erasure::disk::{Eraser, EraserOptions};
use crate::images::{self, ImageCache};
use crate::ingest::housekeeper::{House, HouseOptions};
use crate::ingest::loader::{Loader, LoaderOptions};
use crate::ingest::queue::queue;
use crate::ingest::writer::{Target, Writer};
use crate::metrics::Metrics;
use crate::networks::follow::Follower;
use crate::networks::update;
use crate::opt_outs::follow as opt_outs;
use crate::rollup::retention::Retention;
use crate::rollup::task::Rollup;
use crate::shutdown::{self, DrainTrigger};
use crate::spool::disk::RealDisk;
use crate::spool::orphans::Orphans;
use crate::spool::{Published, Spool, SpoolRoom, recovery};
use crate::unrecorded::Unrecorded;

pub use data_dir::DataDir;
pub use which::NoInstallation;

/// Bytes of images that are cached.
const IMAGE_CACHE_BYTES_MAX: usize = 256 << 20;

/// How much the loader and the eraser step back behind the threads that serve (0 is not at all, 19 the most).
const LOADER_NICE: i32 = 10;

/// Part of the drain's time that is kept for stopping what comes after the loader.
const DRAIN_RESERVE: Duration = Duration::from_millis(1500);

/// `pixeld serve`: runs until SIGTERM, SIGINT or SIGHUP, then drains. With `sample`, adds a sample image if there is none and
/// prints what to try.
///
/// # Errors
/// Why it could not start; nothing is left running then.
pub fn serve(config: &Config, sample: bool) -> anyhow::Result<()> {
    // First of all: what is started below must be stopped by whoever stops this, however early.
    let _hold = shutdown::hold().context("signals cannot be taken")?;
    if let Some(note) = &config.former_names {
        tracing::warn!("{note}");
    }
    let connections_max = open_files::allow(config.connections_max);
    let data = DataDir::lock(&config.data_dir)?;
    let public = listener::bind(config.listen, config.threads).with_context(|| {
        format!("cannot listen on PIXELD_LISTEN={}; set it to another port if that one is taken", config.listen)
    })?;
    let private = std::net::TcpListener::bind(config.admin_listen).with_context(|| {
        format!(
            "cannot listen on PIXELD_ADMIN_LISTEN={}; set it to another port if that one is taken",
            config.admin_listen
        )
    })?;
    private.set_nonblocking(true)?;
    let db = Database::new(config)?;
    leave_for_commands(config, &db);

    let metrics = Metrics::new(config.threads);
    let spools = data.spools();
    let recovered = recovery::recover(&spools)?;
    metrics.spools_left_alone.set(recovered.left_alone.len() as i64);
    metrics.damages.add(recovered.moved_aside);
    let erasing = eraser_options(&data, recovered.left_alone.len())?;
    let recovered = recovered.spools;
    if let Some(signal) = shutdown::came() {
        tracing::info!(signal, "stopped before anything was started");
        return Ok(());
    }
    let orphans = Arc::new(Orphans::find(recovery::quarantine(&spools)));
    let room = Arc::new(SpoolRoom::new(bytes_of(&recovered) + orphans.bytes(), config.spool_bytes_max));
    orphans.share(&room);
    let spool = Spool::new(&spools, Uuid::new_v4(), Published::default());
    let (queue, intake) = queue(config.threads, &metrics);
    let target = Target {
        spool: Arc::clone(&spool),
        room: Arc::clone(&room),
        disk: Arc::new(RealDisk),
        durability: config.durability,
    };
    let writer = Writer::start(target, intake, Arc::clone(&metrics))?;
    let known = data.known_images();
    let (images, wanted) = ImageCache::new(IMAGE_CACHE_BYTES_MAX);
    images::sync::recall(&images, &known);
    let daily = if config.networks_daily { update::published() } else { Vec::new() };
    let (follower, networks) = Follower::new(config.networks_dir.clone(), daily, Arc::clone(&metrics));
    let kept_namespace = data.namespace();
    let kept_opt_outs = data.opt_outs();
    let suppressed = opt_outs::recall(&kept_opt_outs);
    let unrecorded = Arc::new(Unrecorded::new(Arc::clone(&suppressed)));
    let edge = Arc::new(Edge {
        images: Arc::clone(&images),
        limits: Limits::new(config.address_rate, config.threads),
        metrics: Arc::clone(&metrics),
        trusted_proxies: config.trusted_proxies.clone(),
        ip_privacy: config.ip_privacy,
        connections_max,
        networks: ArcSwap::from_pointee(networks),
        namespace: ArcSwapOption::from(namespace::read(&kept_namespace, &db).map(Arc::new)),
        suppressed: Arc::clone(&suppressed),
        signing_keys: config.signing_keys.clone(),
        require_signed: config.require_signed,
        unrecorded: Arc::clone(&unrecorded),
    });
    let (edge_trigger, edge_drain) = shutdown::drain();
    let mut cores = Vec::new();
    for (number, socket) in public.into_iter().enumerate() {
        let (edge, queue, thread) = (Arc::clone(&edge), queue.clone(), writer.thread.clone());
        cores.push(listener::start_core(number, edge, socket, queue, thread, edge_drain.clone())?);
    }
    drop(queue);
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, data = %config.data_dir.display(), "pixels are served");

    let (ready, database_ready) = watch::channel(false);
    let options = loader_options(config, &spools);
    let committed = Arc::new(Notify::new());
    let all_spools: Vec<_> = recovered.iter().cloned().chain([Arc::clone(&spool)]).collect();
    let keep = house_options(config, &db, &spools);
    let disk = Arc::new(RealDisk);
    let eraser = Eraser::new(erasing, db.clone(), Arc::clone(&metrics), disk, all_spools.clone(), Arc::clone(&orphans));
    let loader = Loader::new(options, db.clone(), Arc::clone(&metrics), recovered, Some(spool), orphans)
        .knowing(Arc::clone(&images));
    // After the loader has read the hints: on a full disk they say what may go.
    let house = House::start(keep, all_spools, room, Arc::clone(&metrics))?;
    let clocks = Arc::<Clocks>::default();
    let loader =
        loader.with_clocks(Arc::clone(&clocks)).telling(Arc::clone(&committed)).heeding(Arc::clone(&suppressed));
    let (loader_trigger, loader_drain) = shutdown::drain();
    let loading = start_behind("loader", loader.run(database::until(database_ready.clone()), loader_drain))?;
    let (eraser_trigger, eraser_drain) = shutdown::drain();
    let erasing = start_behind("eraser", eraser.run(database::until(database_ready.clone()), eraser_drain))?;

    let running = Running { config, cores, writer, loading, erasing, edge_trigger, loader_trigger, eraser_trigger };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (closing, close) = shutdown::drain();
        let mut keeper = tokio::spawn(database::keep(db.clone(), Arc::clone(&metrics), ready, close));
        let sync = images::sync::run(images, wanted, db.clone(), known, database::until(database_ready.clone()));
        let sync = tokio::spawn(sync);
        let (rollup_trigger, rollup_drain) = shutdown::drain();
        let rollup = Rollup::new(db.clone(), Arc::clone(&metrics), committed);
        let rolling = tokio::spawn(rollup.run(database::until(database_ready.clone()), rollup_drain));
        let (_retention_trigger, retention_drain) = shutdown::drain();
        let retaining = config.retention_days.map(|days| {
            let retention = Retention::new(db.clone(), Arc::clone(&metrics), days, Arc::clone(&clocks));
            tokio::spawn(retention.run(database::until(database_ready.clone()), retention_drain))
        });
        let admin = Arc::new(Admin::new(admin_options(config, &metrics, &db, unrecorded)));
        let private = TcpListener::from_std(private)?;
        let shown = tokio::spawn(admin::listener::run(Arc::clone(&admin), private));
        let named =
            namespace::keep(Arc::clone(&edge), db.clone(), kept_namespace, database::until(database_ready.clone()));
        let named = tokio::spawn(named);
        let until_ready = database::until(database_ready.clone());
        let heeding = tokio::spawn(opt_outs::run(suppressed, db.clone(), kept_opt_outs, until_ready));
        let put = Arc::clone(&edge);
        let following = tokio::spawn(follower.run(move |networks| put.networks.store(Arc::new(networks))));
        let cleaning = tokio::spawn(clean(edge, metrics));
        let systemd = systemd::Notifier::from_env().map(Arc::new);
        let telling = systemd.clone().map(|systemd| tokio::spawn(systemd.tell_of(config.listen)));
        if sample {
            tokio::spawn(sample::show(db, config.clone(), database_ready));
        }
        let outcome = tokio::select! {
            signal = shutdown::signal() => Ok(signal),
            kept = &mut keeper => match kept {
                Ok(Err(error)) => Err(error.context("PostgreSQL cannot be used")),
                _ => Err(anyhow::anyhow!("the keeper of the database ended")),
            },
            name = running.any_ended() => Err(anyhow::anyhow!("the {name} ended; the log says why")),
        };
        if let (Some(systemd), Some(telling)) = (systemd, telling) {
            telling.abort();
            systemd.tell_stopping(config.drain);
        }
        if let Ok(signal) = &outcome {
            tracing::info!(signal, seconds = config.drain.as_secs(), "draining; a second signal ends it at once");
        }
        let deadline = Instant::now() + config.drain;
        // A chunk of a deletion holds the lock that the last rollup needs.
        admin.end_jobs();
        running.drain(deadline).await?;
        rollup_trigger.ask((deadline - Instant::now()).saturating_sub(DRAIN_RESERVE / 2).max(DRAIN_RESERVE / 6));
        rolling.await?;
        sync.abort();
        named.abort();
        // Whatever it is at is one transaction, which is undone.
        retaining.iter().for_each(tokio::task::JoinHandle::abort);
        heeding.abort();
        following.abort();
        cleaning.abort();
        shown.abort();
        closing.ask((deadline - Instant::now()).max(DRAIN_RESERVE));
        if !keeper.is_finished() {
            keeper.await??;
        }
        drop((house, data));
        outcome.map(|_| ())
    });
    // A name that is being resolved, or a program that is waited for, must not hold the end up.
    runtime.shutdown_background();
    outcome
}

/// So that commands work on the same database and make links of the same form. Pixels are served without it, too.
fn leave_for_commands(config: &Config, db: &Database) {
    if let Err(error) = config.leave_for_commands(&db.place()) {
        tracing::warn!(%error, "commands of this data directory cannot be left the settings; they need them in their environment");
    }
    for name in &config.overridden {
        tracing::warn!(
            file = %config.settings_file().display(),
            "{name} differs in the environment and in the settings file; the environment counts here, and commands called without it have the file's"
        );
    }
}

/// The threads between a request and PostgreSQL.
struct Running<'a> {
    config: &'a Config,
    cores: Vec<JoinHandle<std::io::Result<()>>>,
    writer: Writer,
    loading: JoinHandle<u64>,
    erasing: JoinHandle<()>,
    edge_trigger: DrainTrigger,
    loader_trigger: DrainTrigger,
    eraser_trigger: DrainTrigger,
}

impl Running<'_> {
    /// Resolves when a thread ends that should not.
    async fn any_ended(&self) -> &'static str {
        loop {
            if self.cores.iter().any(JoinHandle::is_finished) {
                return "edge";
            }
            if self.writer.is_finished() {
                return "writer";
            }
            if self.loading.is_finished() {
                return "loader";
            }
            if self.erasing.is_finished() {
                return "eraser";
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Finishes what was accepted, stage by stage.
    async fn drain(self, deadline: Instant) -> anyhow::Result<()> {
        self.edge_trigger.ask(self.config.drain / 2);
        // Not waited for: whatever it is at is whole at every moment, and goes on after the next start.
        self.eraser_trigger.ask(Duration::ZERO);
        let (cores, writer) = (self.cores, self.writer);
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
        match tokio::time::timeout_at(deadline - DRAIN_RESERVE.min(self.config.drain), written).await {
            Ok(written) => written?,
            Err(_) => tracing::error!("the disk does not take what was accepted; it is not waited for any longer"),
        }
        let rest = (deadline - Instant::now()).saturating_sub(DRAIN_RESERVE).max(Duration::from_millis(100));
        self.loader_trigger.ask(rest);
        let loading = self.loading;
        let loaded = tokio::task::spawn_blocking(move || loading.join());
        let Ok(loaded) = tokio::time::timeout(rest + DRAIN_RESERVE / 3, loaded).await else {
            tracing::warn!("the loader does not end; the next start loads what is left");
            return Ok(());
        };
        match loaded? {
            Ok(0) => tracing::info!("every hit is in PostgreSQL"),
            Ok(left) => tracing::warn!(left, "hits wait in the spool; the next start loads them"),
            Err(_) => tracing::error!("the loader panicked; hits wait in the spool"),
        }
        Ok(())
    }
}

/// Forgets quiet addresses, and sets the levels that nobody else sets.
async fn clean(edge: Arc<Edge>, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        edge.limits.clean();
        edge.images.tick();
        metrics.opted_out.set(edge.suppressed.count() as i64);
        metrics.image_cache_bytes.set(edge.images.bytes() as i64);
    }
}

/// Runs what reads files and encodes rows on a thread and runtime of its own: it must not hold up a pixel.
fn start_behind<T: Send + 'static>(
    name: &str,
    work: impl Future<Output = T> + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        // Pixels first: a batch takes milliseconds of a core, which may be one that serves.
        if let Err(error) = rustix::process::nice(LOADER_NICE) {
            tracing::debug!(%error, "a thread keeps its priority");
        }
        let outcome = runtime.block_on(work);
        // A name that is being resolved must not hold the end up.
        runtime.shutdown_background();
        outcome
    })
}

fn bytes_of(spools: &[Arc<Spool>]) -> u64 {
    spools.iter().flat_map(|spool| spool.published().segments.clone()).map(|segment| segment.length).sum()
}

fn admin_options(config: &Config, metrics: &Arc<Metrics>, db: &Database, unrecorded: Arc<Unrecorded>) -> AdminOptions {
    let trusted = config.trusted_proxies.clone();
    AdminOptions {
        metrics: Arc::clone(metrics),
        db: db.clone(),
        listen: config.admin_listen,
        base_url: config.admin_base_url.clone(),
        settings: config.shown(),
        links: Links { base_url: config.base_url.clone(), signing_keys: config.signing_keys.clone() },
        require_signed: config.require_signed,
        hits_throttle: config.throttle,
        unrecorded,
        data_dir: config.data_dir.clone(),
        program: program::typed(config),
        client_address: Box::new(move |peer, headers| {
            let forwarded: Vec<&[u8]> =
                headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
            client_address::client_address(peer, forwarded.into_iter(), &trusted).address
        }),
    }
}

fn loader_options(config: &Config, spools: &Path) -> LoaderOptions {
    LoaderOptions {
        spools: spools.to_owned(),
        throttle: config.throttle,
        redis: config.redis_url.clone(),
        retention: config.retention_days.map(|days| Duration::from_secs(86_400 * u64::from(days.get()))),
        keep: config.spool_keep.age,
        node: node_name(),
    }
}

fn house_options(config: &Config, db: &Database, spools: &Path) -> HouseOptions {
    let postgres = db.embedded_place().map(Path::to_owned);
    HouseOptions { spools: spools.to_owned(), keep: config.spool_keep, postgres }
}

fn eraser_options(data: &DataDir, left_alone: usize) -> anyhow::Result<EraserOptions> {
    Ok(EraserOptions {
        spools: data.spools(),
        kept: data.erasures(),
        node: data.node()?,
        name: node_name(),
        left_alone,
    })
}

/// This machine's name, as the mark tells it.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
