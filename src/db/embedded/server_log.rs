//! The embedded server's own log. Guarantees: it takes at most twice [`BYTES_MAX`] on disk, if [`bound`] is called now
//! and then. Gives up: lines that are written while it is cut may be lost.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::programs::RunAs;
use super::{EmbeddedError, place};

/// Its name, inside the cluster, so that the user who runs the server can write it.
pub(super) const NAME: &str = "server.log";

/// Beyond this its contents are moved to `server.log.1`, over what was moved there before.
const BYTES_MAX: u64 = 16 << 20;
const TAIL_BYTES: u64 = 2048;

/// Keeps the log within its bounds. It is copied and cut instead of renamed, since the server has it open (for
/// appending).
pub(super) fn bound(cluster: &Path, owner: Option<RunAs>) -> Result<(), EmbeddedError> {
    let path = cluster.join(NAME);
    let Ok(mut log) = open_plain(&path, true) else { return Ok(()) };
    if log.metadata().map_or(0, |metadata| metadata.len()) <= BYTES_MAX {
        return Ok(());
    }
    let older = cluster.join(format!("{NAME}.1"));
    move_end(&mut log, &older).map_err(|source| EmbeddedError::file("cannot cut the log", &path, source))?;
    place::give_to(&older, owner)
}

fn move_end(log: &mut File, older: &Path) -> std::io::Result<()> {
    match fs::remove_file(older) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(older)?;
    log.seek(SeekFrom::End(-(BYTES_MAX as i64)))?;
    std::io::copy(&mut log.take(BYTES_MAX), &mut copy)?;
    log.set_len(0)
}

/// The end of the log, for an error's text.
pub(super) fn tail(cluster: &Path) -> String {
    let path = cluster.join(NAME);
    let read = || {
        let mut log = open_plain(&path, false)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => format!("the end of {}:\n{}", path.display(), String::from_utf8_lossy(&bytes).trim_end()),
        Err(error) => format!("(its log {} cannot be read: {error})", path.display()),
    }
}

/// Opens a file in the cluster, but never the target of a link there: root reads it, another user owns the directory.
fn open_plain(path: &Path, write: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(write).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_beyond_its_bound_is_cut_and_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), vec![b'a'; BYTES_MAX as usize]).unwrap();
        bound(dir.path(), None).unwrap();
        assert!(!dir.path().join("server.log.1").exists());
        let mut log = OpenOptions::new().append(true).open(dir.path().join(NAME)).unwrap();
        std::io::Write::write_all(&mut log, b"the end").unwrap();
        assert!(tail(dir.path()).ends_with("the end"));
        bound(dir.path(), None).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
        let moved = fs::read(dir.path().join("server.log.1")).unwrap();
        assert!(moved.len() as u64 == BYTES_MAX && moved.ends_with(b"the end"));
    }
}
