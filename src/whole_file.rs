//! Small files that are replaced whole.
//!
//! Guarantees: a reader finds either the old file or the new one, whatever was killed in between, even after a power
//! cut; only its owner may read it. Gives up: two writers of the same file at a time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces the file at `path` with these bytes. Its folder must exist.
///
/// # Errors
/// The old file stays then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // A file that another start left half written may have other permissions.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone_whatever_a_former_start_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        for leftover in ["", "half of something longer"] {
            fs::write(path.with_extension("new"), leftover).unwrap();
            fs::set_permissions(path.with_extension("new"), fs::Permissions::from_mode(0o644)).unwrap();
            replace(&path, b"whole").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!path.with_extension("new").exists());
        }
        replace(&folder.path().join("none/list"), b"whole").unwrap_err();
    }
}
