//! The disk behind one small trait, so that a test can make it full, fail or tear a write.
//!
//! Only what the writer does goes through it; the reader reads files, and damage there is tried on real files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What the writer asks of a disk.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new file, its folder if that is missing, and makes both names durable. Fails where the name is taken.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file; its name may come back after a power cut.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Puts a file in the place of another, and makes that durable. The other is whole until it is gone.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// What the writer and the syncer ask of a file.
pub trait DiskFile: Send + Sync {
    /// Writes some of `bytes` at `offset` and says how many.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes all that was written survive a power cut.
    ///
    /// # Errors
    /// As the operating system says; after one, what was not synced yet must be taken for lost.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        // 0600: the spool holds addresses.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = match (options.open(path), path.parent()) {
            // A spool's folder comes with its first segment, so that a start on a full disk still serves.
            (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(folder)?;
                sync_parent(folder)?;
                options.open(path)?
            }
            (opened, _) => opened?,
        };
        sync_parent(path)?;
        Ok(Arc::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_parent(to)
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Makes the names in the directory that holds `path` durable.
///
/// # Errors
/// As the operating system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Bytes that this process may still write to the file system that holds `path`.
///
/// # Errors
/// As the operating system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
