//! From a request to a hit on disk: the spools of earlier starts, the writer, the edge. Once they run, pixels are answered.

use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc;

use super::claim::Claimed;
use super::supervise::Supervisor;
use super::{DataDir, namespace};
use crate::config::Config;
use crate::images;
use crate::ingest::writer::{Target, Writer};
use crate::network_lists::{follow::Follower, update};
use crate::opt_outs::follow as opt_outs;
use pixeld_core::drain::{self, DrainTrigger};
use pixeld_core::ids::SpoolId;
use pixeld_core::metrics::{Metrics, Task};
use pixeld_core::networks::Networks;
use pixeld_edge::images::ImageCache;
use pixeld_edge::images::cache::Wanted;
use pixeld_edge::limits::Limits;
use pixeld_edge::queue::{Queue, queue};
use pixeld_edge::unrecorded::Unrecorded;
use pixeld_edge::{Edge, listener};
use pixeld_spool::disk::RealDisk;
use pixeld_spool::orphans::Orphans;
use pixeld_spool::{Published, Spool, SpoolRoom, recovery};

/// Bytes of images that are cached.
const IMAGE_CACHE_BYTES_MAX: usize = 256 << 20;

/// What earlier starts left on disk, and the spool of this start.
pub(super) struct Spools {
    pub(super) recovered: Vec<Arc<Spool>>,
    /// The spool of this start.
    pub(super) spool: Arc<Spool>,
    /// Spools that cannot be read now.
    pub(super) left_alone: usize,
    pub(super) room: Arc<SpoolRoom>,
    pub(super) orphans: Arc<Orphans>,
}

impl Spools {
    /// Checks what is there, and quarantines damage.
    pub(super) fn recover(config: &Config, data: &DataDir, metrics: &Metrics) -> anyhow::Result<Spools> {
        let spools = data.spools();
        let found = recovery::recover(&spools)?;
        metrics.spools_left_alone.set(found.left_alone.len() as i64);
        metrics.damages.add(found.moved_aside);
        let orphans = Arc::new(Orphans::find(recovery::quarantine(&spools)));
        let room = Arc::new(SpoolRoom::new(bytes_of(&found.spools) + orphans.bytes(), config.storage.spool_bytes_max));
        orphans.share(&room);
        let spool = Spool::new(&spools, SpoolId::random(), Published::default());
        Ok(Spools { recovered: found.spools, spool, left_alone: found.left_alone.len(), room, orphans })
    }

    /// All spools.
    pub(super) fn all(&self) -> Vec<Arc<Spool>> {
        self.recovered.iter().cloned().chain([Arc::clone(&self.spool)]).collect()
    }
}

/// Their bytes on disk.
pub(super) fn bytes_of(spools: &[Arc<Spool>]) -> u64 {
    spools.iter().flat_map(|spool| spool.published().segments.clone()).map(|segment| segment.length).sum()
}

/// The parts of the edge that other tasks update.
pub(super) struct EdgeParts {
    pub(super) edge: Arc<Edge>,
    /// What the image cache requests.
    pub(super) wanted: mpsc::Receiver<Wanted>,
    pub(super) networks: Follower,
}

impl EdgeParts {
    /// Makes an edge that knows what is on disk: images, opt-outs, networks, the namespace.
    pub(super) fn recall(config: &Config, claimed: &Claimed, metrics: &Arc<Metrics>) -> EdgeParts {
        let data = &claimed.data;
        let (images, wanted) = ImageCache::new(IMAGE_CACHE_BYTES_MAX);
        images::sync::recall(&images, &data.known_images());
        let (follower, networks) = follower(config, metrics);
        let suppressed = opt_outs::recall(&data.opt_outs());
        let edge = Arc::new(Edge {
            images,
            limits: Limits::new(config.limits.address_rate, config.limits.threads),
            metrics: Arc::clone(metrics),
            trusted_proxies: config.listen.trusted_proxies.clone(),
            ip_privacy: config.privacy.addresses,
            connections_max: claimed.connections_max,
            networks: ArcSwap::from_pointee(networks),
            namespace: ArcSwapOption::from(namespace::read(&data.namespace(), &claimed.db).map(Arc::new)),
            suppressed: Arc::clone(&suppressed),
            signing_keys: config.signing.keys.clone(),
            require_signed: config.signing.is_required,
            unrecorded: Arc::new(Unrecorded::new(suppressed)),
        });
        EdgeParts { edge, wanted, networks: follower }
    }
}

/// Reads the lists of networks.
pub(super) fn follower(config: &Config, metrics: &Arc<Metrics>) -> (Follower, Networks) {
    let daily = if config.networks.is_daily { update::published() } else { Vec::new() };
    Follower::new(config.networks.folder.clone(), daily, Arc::clone(metrics))
}

/// The threads that answer and write.
pub(super) struct Recording {
    pub(super) cores: Vec<JoinHandle<std::io::Result<()>>>,
    pub(super) edge_trigger: DrainTrigger,
    pub(super) writer: Writer,
}

impl Recording {
    /// Starts them. Pixels are served when it returns.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(super) fn start(
        config: &Config,
        supervisor: &Supervisor,
        spools: &Spools,
        edge: &Arc<Edge>,
        public: Vec<std::net::TcpListener>,
    ) -> anyhow::Result<Recording> {
        let metrics = &edge.metrics;
        let (queue, intake) = queue(config.limits.threads, metrics);
        let target = Target {
            spool: Arc::clone(&spools.spool),
            room: Arc::clone(&spools.room),
            disk: Arc::new(RealDisk),
            durability: config.storage.durability,
        };
        let writer = Writer::start(target, intake, Arc::clone(metrics), |write| {
            supervisor.thread(Task::Writer, "writer", write)
        })?;
        let (edge_trigger, cores) = start_cores(supervisor, edge, public, &queue, &writer)?;
        // The writer ends when the last core's sender is dropped, too.
        drop(queue);
        Ok(Recording { cores, edge_trigger, writer })
    }
}

type Cores = Vec<JoinHandle<std::io::Result<()>>>;

fn start_cores(
    supervisor: &Supervisor,
    edge: &Arc<Edge>,
    public: Vec<std::net::TcpListener>,
    queue: &Queue,
    writer: &Writer,
) -> std::io::Result<(DrainTrigger, Cores)> {
    let (trigger, drain) = drain::drain();
    let start = |(number, socket)| {
        let (edge, queue, thread, drain) = (Arc::clone(edge), queue.clone(), writer.thread.clone(), drain.clone());
        supervisor.thread(Task::EdgeCore, &format!("edge-{number}"), move || {
            listener::run_core(number, edge, socket, queue, thread, drain)
        })
    };
    let cores = public.into_iter().enumerate().map(start).collect::<std::io::Result<Vec<_>>>()?;
    Ok((trigger, cores))
}
