//! The erasures that a node remembers on disk, so that they are not lost with a database that is restored from a backup.
//!
//! ```text
//! magic 8 "PXERASE\x01" | installation 8 | count × (recipient's hash 16, asked i64 LE µs since 1970) | crc32c u32 LE of all before
//! ```
//!
//! `installation` is a digest of the key that the hashes were made with: those of another installation say nothing. (It is not
//! the database's URL, which changes when a backup is restored elsewhere.) Written to a file beside it and renamed, so that
//! it is whole or not there. At most [`ERASURES_MAX`]; beyond it the oldest go, which is logged. A damaged file counts as none, and
//! is kept beside the new one under another name.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::privacy::{PrivacyKey, RecipientHash};
use crate::whole_file;

/// Erasures that are remembered at most (12 MB).
pub const ERASURES_MAX: usize = 500_000;

const MAGIC: &[u8; 8] = b"PXERASE\x01";
const ENTRY_BYTES: usize = 16 + 8;

/// A recipient's hash, and when the erasure was asked for, in µs since 1970.
pub type Entry = (RecipientHash, i64);

/// What is remembered of the installation that has this key.
///
/// # Errors
/// As the disk says.
pub fn read(path: &Path, key: &PrivacyKey) -> io::Result<Vec<Entry>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match decode(&bytes) {
        Some((installation, entries)) if installation == digest(key) => Ok(entries),
        Some(_) => Ok(Vec::new()),
        None => {
            tracing::error!(path = %path.display(), "the list of erasures is damaged; the database's is used alone");
            fs::rename(path, path.with_extension("damaged"))?;
            Ok(Vec::new())
        }
    }
}

/// Remembers these too.
///
/// # Errors
/// As the disk says; the old list stays then.
pub fn remember(path: &Path, key: &PrivacyKey, more: &[Entry]) -> io::Result<()> {
    let before = read(path, key)?;
    let mut latest: HashMap<RecipientHash, i64> = HashMap::new();
    for (hash, asked_us) in before.iter().chain(more) {
        let known = latest.entry(*hash).or_insert(*asked_us);
        *known = (*known).max(*asked_us);
    }
    let mut entries: Vec<Entry> = latest.into_iter().collect();
    entries.sort_unstable_by_key(|(hash, asked_us)| (*asked_us, *hash));
    if entries.len() > ERASURES_MAX {
        let gone = entries.len() - ERASURES_MAX;
        tracing::warn!(
            gone,
            "the oldest erasures are not remembered on this node any more; the database still has them"
        );
        entries.drain(..gone);
    }
    if entries == before {
        return Ok(());
    }
    whole_file::replace(path, &encode(key, &entries))
}

fn digest(key: &PrivacyKey) -> [u8; 8] {
    let digest = Sha256::new().chain_update(b"erasures of ").chain_update(key.0).finalize();
    let mut first = [0; 8];
    first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    first
}

fn encode(key: &PrivacyKey, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + entries.len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&digest(key));
    for (hash, asked_us) in entries {
        bytes.extend_from_slice(&hash.0);
        bytes.extend_from_slice(&asked_us.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<([u8; 8], Vec<Entry>)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (installation, entries) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || entries.len() % ENTRY_BYTES != 0 {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (hash, asked_us) = entry.split_first_chunk::<16>()?;
        Some((RecipientHash(*hash), i64::from_le_bytes(asked_us.try_into().ok()?)))
    };
    Some((*installation, entries.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: PrivacyKey = PrivacyKey([1; 32]);

    fn entry(n: u8, asked_us: i64) -> Entry {
        (RecipientHash([n; 16]), asked_us)
    }

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(
            entries: Vec<([u8; 16], i64)>, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let entries: Vec<Entry> = entries.into_iter().map(|(hash, at)| (RecipientHash(hash), at)).collect();
            let mut bytes = encode(&KEY, &entries);
            prop_assert_eq!(decode(&bytes), Some((digest(&KEY), entries)));
            let at = at.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
        }
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
    fn a_damaged_list_is_kept_aside_and_begun_anew() {
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
                (RecipientHash(hash), n)
            })
            .collect();
        remember(&path, &KEY, &many).unwrap();
        assert!(read(&path, &KEY).unwrap() == many[5..]);
    }
}
