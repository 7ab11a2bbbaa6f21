//! The data directory: what lies where, and that one process writes to it at a time.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use pixeld_spool::disk::sync_parent;

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

    /// Makes the directory if it is missing, and locks it. One that was used before and is read-only now is locked as it is: what
    /// is in it is enough to serve pixels.
    ///
    /// # Errors
    /// Where it cannot be made, or another process has it.
    pub fn lock(path: &Path) -> anyhow::Result<DataDir> {
        let data = DataDir { path: path.to_owned(), _lock: None };
        for folder in [path, &data.spools()] {
            match fs::create_dir_all(folder) {
                Err(error) if is_read_only(&error) && path.is_dir() => continue,
                made => made.with_context(|| format!("cannot make {} (PIXELD_DATA_DIR)", folder.display()))?,
            }
            // Best effort on file systems that cannot: what is synced inside needs its folder after a power cut.
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

    /// Where spools lie.
    #[must_use]
    pub fn spools(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Whether there are any.
    #[must_use]
    pub fn has_spools(&self) -> bool {
        fs::read_dir(self.spools()).is_ok_and(|mut spools| spools.next().is_some())
    }

    /// The directory's identity: it names this node to the others, and goes where the directory goes. Made when it is first
    /// asked for.
    ///
    /// # Errors
    /// As the disk says, or where the file holds none.
    pub fn node(&self) -> anyhow::Result<Uuid> {
        let path = self.path.join("node");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| {
                format!("{} does not hold the identity of a node; remove it to get a new one", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh = path.with_extension(Uuid::new_v4().to_string());
                let made = Uuid::new_v4();
                let write = || -> std::io::Result<()> {
                    let mut file = File::create_new(&fresh)?;
                    writeln!(file, "{made}")?;
                    file.sync_all()?;
                    // Another process may be making it at the same time; the first one counts.
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

    /// Where erasures are remembered.
    #[must_use]
    pub fn erasures(&self) -> PathBuf {
        self.path.join("erasures")
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
