//! The ids of all images on disk, so that a node that starts while the database is down knows which exist.
//!
//! ```text
//! magic 7 "PXKNOWN" | version u8 | count u32 LE | count × (id 16, state u8) | crc32c u32 LE of all before it
//! ```
//!
//! The state is 0: there, 1: deleted, 2: lost, which means that this node knew the image and the database does not have it any more.
//! (A program from before that took 2 for 0.)
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

/// What a node knows of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// The database has it.
    There,
    /// Somebody deleted it.
    Deleted,
    /// The database had it and does not have it any more, though nobody deleted it: it was put back to an earlier state, or is another
    /// one.
    Lost,
}

impl Knowledge {
    fn byte(self) -> u8 {
        match self {
            Knowledge::There => 0,
            Knowledge::Deleted => 1,
            Knowledge::Lost => 2,
        }
    }

    fn of_byte(byte: u8) -> Knowledge {
        match byte {
            1 => Knowledge::Deleted,
            2 => Knowledge::Lost,
            _ => Knowledge::There,
        }
    }
}

/// Writes the list.
///
/// # Errors
/// As the disk says; the old list stays then.
pub fn write(path: &Path, ids: &[(Uuid, Knowledge)]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    whole_file::replace(path, &encode(ids))
}

/// Reads the list; nothing where there is none, or it is damaged.
#[must_use]
pub fn read(path: &Path) -> Option<Vec<(Uuid, Knowledge)>> {
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

fn encode(ids: &[(Uuid, Knowledge)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + ids.len() * ENTRY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(ids.len() as u32).to_le_bytes());
    for (id, knowledge) in ids {
        bytes.extend_from_slice(id.as_bytes());
        bytes.push(knowledge.byte());
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<(Uuid, Knowledge)>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (count, entries) = body.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let is_whole = entries.len() == u32::from_le_bytes(*count) as usize * ENTRY_BYTES;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) || !is_whole {
        return None;
    }
    entries
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let (id, state) = entry.split_first_chunk::<16>()?;
            Some((Uuid::from_bytes(*id), Knowledge::of_byte(*state.first()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(ids: Vec<(u128, u8)>, at: prop::sample::Index, bit in 0u8..8) {
            let ids: Vec<(Uuid, Knowledge)> =
                ids.into_iter().map(|(id, state)| (Uuid::from_u128(id), Knowledge::of_byte(state))).collect();
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
            let ids: Vec<(Uuid, Knowledge)> =
                (0..count).map(|n| (Uuid::from_u128(n), Knowledge::of_byte(n as u8))).collect();
            write(&path, &ids).unwrap();
            assert_eq!(read(&path), Some(ids));
        }
    }
}
