//! The data directory: the paths in it, and the lock that lets one process at a time write to it.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pixeld_core::ids::NodeId;
use pixeld_spool::disk::sync_parent;
use uuid::Uuid;

/// A data directory. A locked one is this process's until it is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: Option<File>,
}

impl DataDir {
    /// The directory, for reading only.
    pub(crate) fn look(path: &Path) -> DataDir {
        DataDir { path: path.to_owned(), _lock: None }
    }

    /// Creates the directory if it is missing, and locks it. If it was used before and is now read-only, it is locked
    /// as it is: its contents are enough to serve pixels.
    ///
    /// # Errors
    /// If it cannot be created, or another process has it.
    pub(crate) fn lock(path: &Path) -> anyhow::Result<DataDir> {
        let data = DataDir { path: path.to_owned(), _lock: None };
        for folder in [path, &data.spools()] {
            match fs::create_dir_all(folder) {
                Err(error) if is_read_only(&error) && path.is_dir() => continue,
                made => made.with_context(|| format!("cannot make {} (PIXELD_DATA_DIR)", folder.display()))?,
            }
            // Best effort on file systems that do not support it: after a power cut, synced files need their folder.
            if let Err(error) = sync_parent(folder) {
                tracing::debug!(%error, "a folder's name could not be synced to disk");
            }
        }
        let name = path.join("pixeld.lock");
        let opened = match File::options().read(true).write(true).create(true).truncate(false).open(&name) {
            Err(error) if is_read_only(&error) && name.exists() => {
                tracing::error!(path = %path.display(), "the data directory is read-only; pixels are served, but hits are dropped");
                File::open(&name)
            }
            opened => opened,
        };
        let file = opened.with_context(|| format!("cannot open {}", name.display()))?;
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

    /// The directory of the spools.
    pub(crate) fn spools(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Whether there are any spools.
    pub(crate) fn has_spools(&self) -> bool {
        fs::read_dir(self.spools()).is_ok_and(|mut spools| spools.next().is_some())
    }

    /// The directory's identity: it names this node to the others, and moves with the directory. Created on first use.
    ///
    /// # Errors
    /// On a disk error, or if the file holds no id.
    pub(crate) fn node(&self) -> anyhow::Result<NodeId> {
        let path = self.path.join("node");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| {
                format!("{} does not hold the identity of a node; remove it to get a new one", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh = path.with_extension(Uuid::new_v4().to_string());
                let made = NodeId::random();
                let write = || -> std::io::Result<()> {
                    let mut file = File::create_new(&fresh)?;
                    writeln!(file, "{made}")?;
                    file.sync_all()?;
                    // Another process may create it at the same time; the first one wins.
                    let linked = fs::hard_link(&fresh, &path);
                    fs::remove_file(&fresh)?;
                    match linked {
                        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                        _ => sync_parent(&path),
                    }
                };
                write().with_context(|| format!("cannot make {}", path.display()))?;
                Ok(fs::read_to_string(&path)?.trim().parse()?)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The file that remembers erasures.
    pub(crate) fn erasures(&self) -> PathBuf {
        self.path.join("erasures")
    }

    /// The file with the namespace of keys.
    pub(crate) fn namespace(&self) -> PathBuf {
        self.path.join("namespace")
    }

    /// The file with the recipients who opted out.
    pub(crate) fn opt_outs(&self) -> PathBuf {
        self.path.join("opt-outs")
    }

    /// The file with the ids of all images.
    pub(crate) fn known_images(&self) -> PathBuf {
        self.path.join("images").join("known.bin")
    }
}

fn is_read_only(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ReadOnlyFilesystem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::look(folder.path());
        let node = data.node().unwrap();
        assert_eq!((data.node().unwrap(), fs::read_dir(folder.path()).unwrap().count()), (node, 1));
        fs::write(folder.path().join("node"), "x").unwrap();
        let error = data.node().unwrap_err().to_string();
        assert!(error.contains("remove it to get a new one"), "{error}");
    }
}
