//! What the spool's tests share: hits, parcels, and a spool read to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::appender::Appender;
use super::fake_disk::FakeDisk;
use super::reader::{Chunk, Reader};
use super::recovery::{quarantine, recover};
use super::{Published, Spool, SpoolRoom};
use pixeld_core::hit::fixture::carrying;
use pixeld_core::hit::{Hit, Parcel};
use pixeld_core::ids::SpoolId;
use pixeld_core::metrics::Metrics;

/// A hit's bytes; `n` makes it unique, `filler` is the length of its content.
pub fn hit(n: u64, filler: usize) -> Vec<u8> {
    let user_agent = "x".repeat(filler);
    let mut bytes = Vec::new();
    carrying(n, &user_agent).encode(&mut bytes);
    bytes
}

/// A parcel of encoded hits.
pub fn parcel(hits: &[Vec<u8>]) -> Parcel {
    Parcel { core: 0, number: 1, count: hits.len() as u32, bytes: hits.concat() }
}

/// Folders as in the program: the spools in one, the quarantine beside it.
pub struct Folders {
    root: TempDir,
}

impl Folders {
    /// Empty ones.
    pub fn make() -> Folders {
        // In memory if the system supports that: the tests' many small syncs are slow on a disk, and no power is lost
        // here.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::fs::create_dir(root.path().join("spools")).unwrap();
        Folders { root }
    }

    /// The folder of the spools.
    pub fn spools(&self) -> PathBuf {
        self.root.path().join("spools")
    }

    /// A new spool with its folder, as a start makes it.
    pub fn begin(&self, uuid: u128) -> Arc<Spool> {
        let spool = Spool::new(&self.spools(), SpoolId::from_u128(uuid), Published::default());
        std::fs::create_dir(&spool.folder).unwrap();
        spool
    }

    /// A copy of everything on disk, as a kill at this moment would leave it.
    pub fn copy(&self) -> Folders {
        let copy = Folders::make();
        for (path, bytes) in self.files() {
            let to = copy.root.path().join(path.strip_prefix(self.root.path()).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, bytes).unwrap();
        }
        copy
    }

    /// All files and their bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        found.sort();
        found
    }

    /// All files of the quarantine.
    pub fn quarantined(&self) -> Vec<Vec<u8>> {
        let quarantine = quarantine(&self.spools());
        self.files().into_iter().filter(|(path, _)| path.starts_with(&quarantine)).map(|(_, bytes)| bytes).collect()
    }

    /// The one spool that recovery finds, if any.
    pub fn recover_one(&self) -> Option<Arc<Spool>> {
        let recovered = recover(&self.spools()).unwrap();
        assert_eq!(recovered.left_alone.len(), 0, "{recovered:?}");
        let mut spools = recovered.spools;
        assert!(spools.len() <= 1);
        spools.pop()
    }

    /// A reader of `spool` that starts at `seq`.
    pub fn reader(&self, spool: &Arc<Spool>, seq: u64) -> Reader {
        Reader::new(Arc::clone(spool), quarantine(&self.spools()), seq)
    }

    /// An appender to `spool` on `disk`, with room for anything.
    pub fn appender(&self, spool: &Arc<Spool>, disk: &FakeDisk) -> Appender {
        let room = Arc::new(SpoolRoom::new(0, u64::MAX));
        Appender::new(Arc::clone(spool), room, Arc::new(disk.clone()), Metrics::new(1))
    }
}

/// What a reader returned: for each number its hit, or `None` if it is missing.
pub type ReadHits = Vec<Option<Vec<u8>>>;

/// Adds the hits of `chunk`.
pub fn add_hits(read: &mut ReadHits, chunk: &Chunk) {
    read.extend((0..chunk.missing).map(|_| None));
    let before = read.len();
    let mut rest = &chunk.bytes[..];
    while !rest.is_empty() {
        let (_, behind) = Hit::decode(rest).unwrap();
        read.push(Some(rest[..rest.len() - behind.len()].to_vec()));
        rest = behind;
    }
    assert_eq!((read.len() - before) as u64, chunk.count, "a chunk counts what it holds");
}

/// Reads on, `rows_max` at a time, until nothing comes, and appends the results to `told`.
pub fn read_on(reader: &mut Reader, rows_max: u64, read: &mut ReadHits) {
    loop {
        let seq = reader.next_seq();
        let chunk = reader.read(rows_max).unwrap();
        assert_eq!((chunk.first_seq, chunk.next_seq()), (seq, reader.next_seq()), "numbers run on without a hole");
        if chunk.is_empty() {
            return;
        }
        add_hits(read, &chunk);
    }
}

/// All hits of `spool` from `seq` on.
pub fn read_from(folders: &Folders, spool: &Arc<Spool>, seq: u64, rows_max: u64) -> ReadHits {
    let mut reader = folders.reader(spool, seq);
    let mut read = ReadHits::new();
    read_on(&mut reader, rows_max, &mut read);
    assert!(!spool.published().closed || reader.is_at_end(), "all of a closed spool is read");
    read
}

/// The bytes of the segment file at `path`.
pub fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
