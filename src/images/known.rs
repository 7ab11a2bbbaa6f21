//! The ids of all images on disk, so that a node that starts while the database is down knows which exist.
//!
//! ```text
//! magic 7 "PXKNOWN" | version u8 | count u32 LE | count × (id 16, deleted u8) | crc32c u32 LE of all before it
//! ```
//!
//! Written to a file beside it and renamed, so that it is whole or not there. Damaged bytes count as no list at all.

use std::fs;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::whole_file;

const MAGIC: &[u8; 8] = b"PXKNOWN\x01";
const ENTRY_BYTES: usize = 17;
const FRAME_BYTES: usize = 8 + 4 + 4;

/// Writes the list.
///
/// # Errors
/// As the disk says; the old list stays then.
pub fn write(path: &Path, ids: &[(Uuid, bool)]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    whole_file::replace(path, &encode(ids))
}

/// Reads the list; nothing where there is none, or it is damaged.
#[must_use]
pub fn read(path: &Path) -> Option<Vec<(Uuid, bool)>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the list of images cannot be read");
            return None;
        }
    };
    let ids = decode(&bytes);
    if ids.is_none() {
        tracing::warn!(path = %path.display(), "the list of images is damaged; it is fetched anew");
    }
    ids
}

fn encode(ids: &[(Uuid, bool)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + ids.len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(ids.len() as u32).to_le_bytes());
    for (id, is_deleted) in ids {
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(u8::from(*is_deleted));
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<(Uuid, bool)>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (count, entries) = body.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let is_whole = entries.len() == u32::from_le_bytes(*count) as usize * ENTRY_BYTES;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || !is_whole {
        return None;
    }
    entries
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let (id, deleted) = entry.split_first_chunk::<16>()?;
            Some((Uuid::from_bytes(*id), deleted == [1]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(ids: Vec<(u128, bool)>, at: prop::sample::Index, bit in 0u8..8) {
            let ids: Vec<(Uuid, bool)> = ids.into_iter().map(|(id, deleted)| (Uuid::from_u128(id), deleted)).collect();
            let mut bytes = encode(&ids);
            prop_assert_eq!(decode(&bytes), Some(ids));
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
    fn a_list_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images").join("known.bin");
        assert_eq!(read(&path), None);
        for count in [3, 1] {
            let ids: Vec<(Uuid, bool)> = (0..count).map(|n| (Uuid::from_u128(n), n == 1)).collect();
            write(&path, &ids).unwrap();
            assert_eq!(read(&path), Some(ids));
        }
    }
}
