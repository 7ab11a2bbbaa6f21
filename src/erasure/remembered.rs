//! The erasures that a node remembers on disk, so that they are not lost with a database that is restored from a backup.
//!
//! A [`kept_list`] named "PXERASE", version 1, without a count. Its head is the installation (8 bytes): a digest of the
//! key of the hashes, since hashes of another installation mean nothing. (Not of the database's URL, which changes when
//! a backup is restored elsewhere.) A row is a recipient's hash (16 bytes) and the time of the request (i64 LE, µs
//! since 1970). At most [`ERASURES_MAX`]; beyond that the oldest are removed, which is logged. A damaged file counts as
//! none, and is kept beside the new one under another name.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::kept_list::{self, Format, ReadError, Row};
use pixeld_core::clock::micros::Micros;
use pixeld_core::digest;
use pixeld_core::privacy::{PrivacyKey, RecipientHash};

/// Maximum erasures that are remembered (12 MB).
pub(crate) const ERASURES_MAX: usize = 500_000;

const FORMAT: Format<8, 24> = Format { magic: b"PXERASE\x01", is_counted: false };

/// A recipient's hash, and the time of the request.
pub(crate) type Entry = (RecipientHash, Micros);

impl Row<24> for Entry {
    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let fields = self.0.0.iter().copied().chain(self.1.0.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    fn decode(bytes: &[u8; 24]) -> Option<Entry> {
        let (hash, asked_at) = bytes.split_first_chunk::<16>()?;
        Some((RecipientHash(*hash), Micros(i64::from_le_bytes(*asked_at.first_chunk()?))))
    }
}

/// The remembered erasures of the installation with this key.
pub(crate) fn read(path: &Path, key: &PrivacyKey) -> io::Result<Vec<Entry>> {
    match kept_list::read(path, |bytes| FORMAT.decode(bytes)) {
        Ok(Some((installation, entries))) if installation == digest(key) => Ok(entries),
        Ok(_) => Ok(Vec::new()),
        Err(ReadError::Io(error)) => Err(error),
        Err(ReadError::Damaged) => {
            tracing::error!(path = %path.display(), "the list of erasures is damaged; pixeld uses only the database's list");
            fs::rename(path, path.with_extension("damaged"))?;
            Ok(Vec::new())
        }
    }
}

/// Remembers these, too.
///
/// # Errors
/// The old list stays then.
pub(crate) fn remember(path: &Path, key: &PrivacyKey, more: &[Entry]) -> io::Result<()> {
    let before = read(path, key)?;
    let mut latest: HashMap<RecipientHash, Micros> = HashMap::new();
    for (hash, asked_at) in before.iter().chain(more) {
        let known = latest.entry(*hash).or_insert(*asked_at);
        *known = (*known).max(*asked_at);
    }
    let mut entries: Vec<Entry> = latest.into_iter().collect();
    entries.sort_unstable_by_key(|(hash, asked_at)| (*asked_at, *hash));
    if entries.len() > ERASURES_MAX {
        let gone = entries.len() - ERASURES_MAX;
        tracing::warn!(gone, "this node no longer remembers the oldest erasures; the database still has them");
        entries.drain(..gone);
    }
    if entries == before {
        return Ok(());
    }
    FORMAT.write(path, &digest(key), &entries)
}

fn digest(key: &PrivacyKey) -> [u8; 8] {
    digest::prefix(&[b"erasures of ", &key.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept_list::from_hex;

    const KEY: PrivacyKey = PrivacyKey([1; 32]);

    fn entry(n: u8, asked_at_us: i64) -> Entry {
        (RecipientHash([n; 16]), Micros(asked_at_us))
    }

    #[test]
    fn a_list_that_an_earlier_version_wrote_is_read_and_written_the_same() {
        let bytes = from_hex(
            "5058455241534501 2ec1aa2a7478cd56 01010101010101010101010101010101 0a00000000000000
             02020202020202020202020202020202 00401e18240a0600 aca97eb9",
        );
        let entries = [entry(1, 10), entry(2, 1_700_000_000_000_000)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasures");
        remember(&path, &KEY, &entries).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(read(&path, &KEY).unwrap(), entries);
    }

    #[test]
    fn a_list_grows_and_a_later_erasure_of_the_same_person_takes_the_place_of_the_earlier() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasures");
        assert_eq!(read(&path, &KEY).unwrap(), []);
        remember(&path, &KEY, &[entry(1, 10), entry(2, 20)]).unwrap();
        remember(&path, &KEY, &[entry(1, 30), entry(2, 5)]).unwrap();
        assert_eq!(read(&path, &KEY).unwrap(), [entry(2, 20), entry(1, 30)]);
        assert_eq!(read(&path, &PrivacyKey([2; 32])).unwrap(), [], "another installation's hashes say nothing");
    }

    #[test]
    fn a_damaged_list_is_set_aside_and_a_new_one_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasures");
        fs::write(&path, b"PXERASE\x01damaged").unwrap();
        remember(&path, &KEY, &[entry(1, 10)]).unwrap();
        assert_eq!(read(&path, &KEY).unwrap(), [entry(1, 10)]);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn the_oldest_go_beyond_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasures");
        let many: Vec<Entry> = (0..ERASURES_MAX as i64 + 5)
            .map(|n| {
                let mut hash = [0; 16];
                hash[..8].copy_from_slice(&n.to_le_bytes());
                (RecipientHash(hash), Micros(n))
            })
            .collect();
        remember(&path, &KEY, &many).unwrap();
        assert!(read(&path, &KEY).unwrap() == many[5..]);
    }
}
