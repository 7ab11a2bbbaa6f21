//! A disk for tests that gets full, fails, tears writes and loses power. Its files are real ones, since readers read those.
//!
//! A sync only records the file's length: [`FakeDisk::power_cut`] then removes from every file what no sync covered. A
//! file whose sync has failed once keeps nothing that is written later, and reports a second sync
//! ([`FakeDisk::asked_again`]).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// What fails from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// The disk accepts this many more bytes, then it is full.
    pub room: Option<u64>,
    /// After this many more bytes every write fails with EIO.
    pub write_error_after: Option<u64>,
    /// Every write panics.
    pub write_panics: bool,
    /// Creating a file fails.
    pub create: bool,
    /// Truncating a file fails.
    pub truncate: bool,
    /// Removing a file fails.
    pub remove: bool,
    /// Syncing a file fails.
    pub sync: bool,
    /// Every sync panics.
    pub sync_panics: bool,
    /// After this many more steps of any kind each one fails, as if the process had been killed.
    pub steps: Option<u64>,
}

impl Faults {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps {
            Some(0) => eio_if(true),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct State {
    faults: Faults,
    files: BTreeMap<PathBuf, Lengths>,
    fail_next_sync: bool,
    asked_again: u64,
    /// Called after a write has failed, since another thread could run there.
    after_failed_write: Option<Box<dyn FnMut() + Send>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lengths {
    written: u64,
    synced: u64,
    sync_failed: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct FakeDisk(Arc<Mutex<State>>);

struct FakeFile {
    disk: FakeDisk,
    path: PathBuf,
    file: File,
}

impl FakeDisk {
    /// Sets what fails from now on.
    pub fn set(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What fails now.
    pub fn faults(&self) -> Faults {
        self.lock().faults
    }

    /// Sets what is called after a write has failed.
    pub fn after_failed_write(&self, call: impl FnMut() + Send + 'static) {
        self.lock().after_failed_write = Some(Box::new(call));
    }

    /// Lets the next sync fail, and none after it.
    pub fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// Syncs of a file whose sync had failed before: a real one would report success.
    pub fn asked_again(&self) -> u64 {
        self.lock().asked_again
    }

    /// Removes from every file what no sync covered.
    pub fn power_cut(&self) {
        for (path, lengths) in &self.lock().files {
            if let Ok(file) = File::options().write(true).open(path) {
                file.set_len(lengths.synced).unwrap();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self, file: &FakeFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.lock();
        assert!(!state.faults.write_panics, "the disk panics");
        state.faults.step()?;
        let mut take = bytes.len();
        for (left, error) in [
            (state.faults.write_error_after, io::Error::from_raw_os_error(5)),
            (state.faults.room, io::ErrorKind::StorageFull.into()),
        ] {
            match left {
                Some(0) => return Err(error),
                Some(left) => take = take.min(left as usize),
                None => {}
            }
        }
        let faults = &mut state.faults;
        for left in [&mut faults.write_error_after, &mut faults.room].into_iter().flatten() {
            *left -= take as u64;
        }
        let end = offset + take as u64;
        let lengths = state.files.entry(file.path.clone()).or_default();
        lengths.written = lengths.written.max(end);
        FileExt::write_all_at(&file.file, &bytes[..take], offset)?;
        Ok(take)
    }
}

fn eio_if(fails: bool) -> io::Result<()> {
    if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

impl Disk for FakeDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.faults.step()?;
        eio_if(state.faults.create)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        state.files.insert(path.to_owned(), Lengths::default());
        Ok(Arc::new(FakeFile { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.step()?;
        eio_if(state.faults.remove)?;
        state.files.remove(path);
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.faults.step()?;
        std::fs::rename(from, to)?;
        let lengths = state.files.remove(from).unwrap_or_default();
        state.files.insert(to.to_owned(), lengths);
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let outcome = self.disk.write(self, bytes, offset);
        if outcome.is_err() {
            // Taken out first, so that it is called without the lock.
            let call = self.disk.lock().after_failed_write.take();
            if let Some(mut call) = call {
                call();
                self.disk.lock().after_failed_write = Some(call);
            }
        }
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        assert!(!state.faults.sync_panics, "the disk panics");
        state.faults.step()?;
        let fails = std::mem::take(&mut state.fail_next_sync) | state.faults.sync;
        let lengths = state.files.entry(self.path.clone()).or_default();
        let asked_again = lengths.sync_failed;
        lengths.sync_failed |= fails;
        if !lengths.sync_failed {
            lengths.synced = lengths.written;
        }
        state.asked_again += u64::from(asked_again);
        eio_if(fails)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.faults.step()?;
        eio_if(state.faults.truncate)?;
        let lengths = state.files.entry(self.path.clone()).or_default();
        lengths.written = lengths.written.min(length);
        lengths.synced = lengths.synced.min(length);
        self.file.set_len(length)
    }
}
