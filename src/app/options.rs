//! The settings that each part gets: whole sections, so that a new setting is a field of its section and is used in the
//! part, with nothing to change here. The edge is below the settings and takes values (`recording.rs`).

use std::path::Path;
use std::sync::Arc;

use super::{DataDir, program};
use crate::admin::AdminOptions;
use crate::config::Config;
use crate::db::Database;
use crate::erasure::disk::EraserOptions;
use crate::ingest::housekeeper::HousekeeperOptions;
use crate::ingest::loader::LoaderOptions;
use pixeld_core::metrics::Metrics;
use pixeld_edge::client_address;
use pixeld_edge::unrecorded::Unrecorded;

/// Of the private listener.
pub(super) fn admin_options(
    config: &Config,
    metrics: &Arc<Metrics>,
    db: &Database,
    unrecorded: Arc<Unrecorded>,
) -> AdminOptions {
    let trusted = config.listen.trusted_proxies.clone();
    AdminOptions {
        metrics: Arc::clone(metrics),
        db: db.clone(),
        listen: config.listen.clone(),
        signing: config.signing.clone(),
        limits: config.limits.clone(),
        settings: config.shown(),
        unrecorded,
        data_dir: config.storage.data_dir.clone(),
        program: program::typed(config),
        client_address: Box::new(move |peer, headers| {
            let forwarded: Vec<&[u8]> =
                headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes()).collect();
            client_address::client_address(peer, forwarded.into_iter(), &trusted).address
        }),
    }
}

/// Of the loader.
pub(super) fn loader_options(config: &Config, spools: &Path) -> LoaderOptions {
    LoaderOptions {
        spools: spools.to_owned(),
        node: node_name(),
        limits: config.limits.clone(),
        privacy: config.privacy.clone(),
        keep: config.storage.spool_keep,
    }
}

/// Of the housekeeper.
pub(super) fn housekeeper_options(config: &Config, db: &Database, spools: &Path) -> HousekeeperOptions {
    let postgres = db.embedded_place().map(Path::to_owned);
    HousekeeperOptions { spools: spools.to_owned(), keep: config.storage.spool_keep, postgres }
}

/// Of the eraser.
///
/// # Errors
/// If this node's id cannot be read or stored.
pub(super) fn eraser_options(data: &DataDir, left_alone: usize) -> anyhow::Result<EraserOptions> {
    Ok(EraserOptions {
        spools: data.spools(),
        kept: data.erasures(),
        node: data.node()?,
        name: node_name(),
        left_alone,
    })
}

/// This machine's name, as stored with the mark.
pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
