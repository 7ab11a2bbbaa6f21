//! What `pixeld serve` claims before anything runs: its data directory, its ports, and its database. If one of them is
//! not available, nothing is left behind.

use anyhow::Context;

use super::{DataDir, open_files};
use crate::config::Config;
use crate::db::Database;
use pixeld_edge::listener;

/// What was claimed.
pub(super) struct Claimed {
    pub(super) connections_max: usize,
    /// Locked until this is dropped.
    pub(super) data: DataDir,
    /// One per core.
    pub(super) public: Vec<std::net::TcpListener>,
    pub(super) private: std::net::TcpListener,
    pub(super) db: Database,
}

impl Claimed {
    /// Claims all of it.
    ///
    /// # Errors
    /// Which of them is not available, and why.
    pub(super) fn claim(config: &Config) -> anyhow::Result<Claimed> {
        let connections_max = open_files::allow(config.limits.connections_max);
        let data = DataDir::lock(&config.storage.data_dir)?;
        let public = listener::bind(config.listen.public, config.limits.threads).with_context(|| {
            format!(
                "cannot listen on PIXELD_LISTEN={}; set it to another port if that one is taken",
                config.listen.public
            )
        })?;
        let private = std::net::TcpListener::bind(config.listen.private).with_context(|| {
            format!(
                "cannot listen on PIXELD_ADMIN_LISTEN={}; set it to another port if that one is taken",
                config.listen.private
            )
        })?;
        private.set_nonblocking(true)?;
        let db = Database::new(config)?;
        leave_for_commands(config, &db);
        Ok(Claimed { connections_max, data, public, private, db })
    }
}

/// Notes the settings on disk, so that commands use the same database and make links of the same form. Pixels are
/// served even if this fails.
fn leave_for_commands(config: &Config, db: &Database) {
    if let Err(error) = config.leave_for_commands(&db.place()) {
        tracing::warn!(%error, "the settings could not be saved for commands of this data directory; set them in the commands' environment");
    }
    for name in &config.overridden {
        tracing::warn!(
            file = %config.settings_file().display(),
            "{name} differs between the environment and the settings file; pixeld uses the environment here, but commands without it use the file"
        );
    }
}
