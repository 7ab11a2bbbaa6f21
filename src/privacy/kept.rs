//! Who is opted out, on disk, so that a node that starts while the database is down knows it.
//!
//! ```text
//! magic 7 "PXOPTED" | version u8 | digest 16 of the database's URL | key 32 | count u32 LE | count × hash 16
//! | crc32c u32 LE of all before it
//! ```
//!
//! Written to a file beside it and renamed, so that it is whole or not there; damaged bytes count as no list at all. For its owner only: with the
//! key that it holds, whoever has a recipient's id could look whether that one is in it. The digest is there because a data directory
//! that is used with another database later must not go by the first one's list.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{PrivacyKey, RecipientHash};
use crate::ingest::spool::disk::sync_parent;

const MAGIC: &[u8; 8] = b"PXOPTED\x01";

/// What tells databases apart: hexadecimal digits.
pub type Digest = [u8; 16];

/// Writes the list.
///
/// # Errors
/// As the disk says; the old list stays then.
pub fn write(path: &Path, digest: &Digest, key: &PrivacyKey, hashes: &[RecipientHash]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // A file that another start left half written may have other rights.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(&encode(digest, key, hashes))?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_parent(path)
}

/// Reads the list; nothing where there is none, it is damaged, or it is another database's.
#[must_use]
pub fn read(path: &Path, digest: &Digest) -> Option<(PrivacyKey, Vec<RecipientHash>)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the list of opt-outs cannot be read");
            return None;
        }
    };
    let Some((kept_for, key, hashes)) = decode(&bytes) else {
        tracing::warn!(path = %path.display(), "the list of opt-outs is damaged; until it is fetched anew, the loader alone holds opted-out recipients back");
        return None;
    };
    (kept_for == *digest).then_some((key, hashes))
}

fn encode(digest: &Digest, key: &PrivacyKey, hashes: &[RecipientHash]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + 16 + 32 + 4 + hashes.len() * 16 + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(digest);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
    hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Digest, PrivacyKey, Vec<RecipientHash>)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (digest, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (count, hashes) = rest.split_first_chunk::<4>()?;
    let (hashes, behind) = hashes.as_chunks::<16>();
    let is_whole = behind.is_empty() && hashes.len() == u32::from_le_bytes(*count) as usize;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || !is_whole {
        return None;
    }
    Some((*digest, PrivacyKey(*key), hashes.iter().map(|hash| RecipientHash(*hash)).collect()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(
            digest: Digest, key: [u8; 32], hashes: Vec<[u8; 16]>, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let (key, hashes) = (PrivacyKey(key), hashes.into_iter().map(RecipientHash).collect::<Vec<_>>());
            let mut bytes = encode(&digest, &key, &hashes);
            prop_assert_eq!(decode(&bytes), Some((digest, key, hashes)));
            let at = at.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
            prop_assert_eq!(decode(&[&MAGIC[..], &bytes].concat()), None);
        }
    }

    #[test]
    fn a_list_is_replaced_whole_for_its_owner_only_and_another_databases_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opt-outs");
        let (digest, key) = (*b"0123456789abcdef", PrivacyKey([3; 32]));
        assert_eq!(read(&path, &digest), None);
        fs::write(path.with_extension("new"), "half").unwrap();
        for count in [3, 1, 0] {
            let hashes: Vec<RecipientHash> = (0..count).map(|n| RecipientHash([n; 16])).collect();
            write(&path, &digest, &key, &hashes).unwrap();
            assert_eq!(read(&path, &digest), Some((key.clone(), hashes)));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, b"fedcba9876543210"), None);
        fs::write(&path, "damaged").unwrap();
        assert_eq!(read(&path, &digest), None);
    }
}
