//! The data directory: what lies where, and that one process writes to it at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::ingest::spool::disk::sync_parent;

/// A data directory. Locked, it is this process's until it is dropped or dies.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Option<File>,
}

impl DataDir {
    /// The directory for looking only.
    #[must_use]
    pub fn look(path: &Path) -> DataDir {
        DataDir { path: path.to_owned(), _lock: None }
    }

    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// Where it cannot be made, or another process has it.
    pub fn lock(path: &Path) -> anyhow::Result<DataDir> {
        let data = DataDir { path: path.to_owned(), _lock: None };
        for folder in [path, &data.spools()] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {} (PIXELD_DATA_DIR)", folder.display()))?;
            // Best effort on file systems that cannot: what is synced inside needs its folder after a power cut.
            if let Err(error) = sync_parent(folder) {
                tracing::debug!(%error, "a folder's name could not be made durable");
            }
        }
        let name = path.join("pixeld.lock");
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&name);
        let file = options.with_context(|| format!("cannot open {}", name.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(DataDir { _lock: Some(file), ..data }),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another pixeld is using {} (it holds {}); stop it first, or give this one a PIXELD_DATA_DIR of its own",
                path.display(),
                name.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", name.display())),
        }
    }

    /// Where spools lie.
    #[must_use]
    pub fn spools(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Where the namespace of keys is kept.
    #[must_use]
    pub fn namespace(&self) -> PathBuf {
        self.path.join("namespace")
    }

    /// Where it is kept who opted out.
    #[must_use]
    pub fn opt_outs(&self) -> PathBuf {
        self.path.join("opt-outs")
    }

    /// Where the ids of all images are kept.
    #[must_use]
    pub fn known_images(&self) -> PathBuf {
        self.path.join("images").join("known.bin")
    }
}
