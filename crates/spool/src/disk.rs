//! The disk behind one small trait, so that a test can make it full, fail or tear a write.
//!
//! Only the writer goes through it; the reader reads files, and its tests damage real files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// What the writer needs of a disk.
pub trait Disk: Send + Sync + 'static {
    /// Creates a new file, and its folder if that is missing, and makes both names durable. Fails if the name is in
    /// use.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file; its name may come back after a power cut.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Replaces a file by another, and makes that durable. The old file is whole until it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// What the writer, the syncer and the reader need of a file.
pub trait DiskFile: Send + Sync {
    /// Reads some bytes at `offset` and returns how many; 0 at the file's end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset` and returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes everything that was written survive a power cut.
    ///
    /// # Errors
    /// On an error of the operating system; then everything that was not synced must count as lost.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        // 0600: the spool contains addresses.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = match (options.open(path), path.parent()) {
            // A spool's folder is created with its first segment, so that a start on a full disk still serves; and
            // again if somebody deleted it.
            (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)?;
                sync_parent(folder)?;
                if let Some(spools) = folder.parent() {
                    sync_parent(spools)?;
                }
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
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

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

/// Makes the names in the directory that contains `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// A file system's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Its total bytes.
    pub total: u64,
    /// Bytes that this process may still write to it; `u64::MAX` if the file system does not report it.
    pub free: u64,
    /// It accepts no writes.
    pub is_read_only: bool,
}

/// The file system that contains `path` or, if that is missing, its nearest existing parent directory.
pub fn space(path: &Path) -> io::Result<DiskSpace> {
    let mut stat = Err(io::ErrorKind::NotFound.into());
    for path in path.ancestors() {
        stat = rustix::fs::statvfs(path).map_err(io::Error::from);
        if !stat.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    let stat = stat?;
    // Some virtual and network file systems report 0 of 0.
    let free = if stat.f_blocks == 0 { u64::MAX } else { stat.f_bavail.saturating_mul(stat.f_frsize) };
    let is_read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    Ok(DiskSpace { total: stat.f_blocks.saturating_mul(stat.f_frsize), free, is_read_only })
}

/// Whether files can be created in this directory.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    use rustix::fs::Access;
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
}

/// Writes all of `bytes`, even if the disk accepts them in parts.
pub fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
