//! Who opted out and when, on disk: so that a node that starts while the database is down knows it, and so that it is not
//! lost with a database that is restored from a backup.
//!
//! ```text
//! magic 7 "PXOPTED" | version u8 = 2 | key 32 | count u32 LE
//! | count × (hash 16, since i64 LE, until i64 LE, change i64 LE) | crc32c u32 LE of all before it
//! ```
//!
//! Times are in µs since 1970; `until` is the end of time while the opt-out lasts. Version 1, which is read too, had 16
//! bytes that told of the database's URL before the key, and the hashes of those who were out, without times.
//!
//! Written to a file beside it and renamed, so that it is whole or not there; damaged bytes count as no list at all. For
//! its owner only: with the key that it holds, whoever has a recipient's id could look whether that one is in it. The key
//! also tells installations apart: once the database's is known, what was kept under another one goes. Until then the
//! list holds, wherever the database lies by now: a new password or a move must not make anybody forget an opt-out.

use std::fs;
use std::io;
use std::path::Path;

use crate::privacy::{PrivacyKey, RecipientHash, Suppression};
use crate::whole_file;

const MAGIC: &[u8; 8] = b"PXOPTED\x02";
const MAGIC_V1: &[u8; 8] = b"PXOPTED\x01";
const ROW_BYTES: usize = 16 + 3 * 8;

/// Writes the list.
///
/// # Errors
/// As the disk says; the old list stays then.
pub fn write(path: &Path, key: &PrivacyKey, rows: &[Suppression]) -> io::Result<()> {
    whole_file::replace(path, &encode(key, rows))
}

/// Reads the list; nothing where there is none, or it is damaged.
#[must_use]
pub fn read(path: &Path) -> Option<(PrivacyKey, Vec<Suppression>)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the list of opt-outs cannot be read");
            return None;
        }
    };
    let kept = decode(&bytes);
    if kept.is_none() {
        tracing::warn!(path = %path.display(), "the list of opt-outs is damaged; until it is fetched anew, the loader alone holds opted-out recipients back");
    }
    kept
}

fn encode(key: &PrivacyKey, rows: &[Suppression]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + 32 + 4 + rows.len() * ROW_BYTES + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    for row in rows {
        bytes.extend_from_slice(&row.hash.0);
        for number in [row.since_us, row.until_us.unwrap_or(i64::MAX), row.change] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(PrivacyKey, Vec<Suppression>)> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (rest, is_v1) = match body.strip_prefix(MAGIC) {
        Some(rest) => (rest, false),
        None => (body.strip_prefix(MAGIC_V1)?.get(16..)?, true),
    };
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (count, rows) = rest.split_first_chunk::<4>()?;
    let (rows, behind): (Vec<Suppression>, _) = if is_v1 {
        let (hashes, behind) = rows.as_chunks::<16>();
        (hashes.iter().map(|hash| Suppression::out_since_ever(RecipientHash(*hash))).collect(), behind)
    } else {
        let (rows, behind) = rows.as_chunks::<ROW_BYTES>();
        (rows.iter().map(row_in).collect::<Option<_>>()?, behind)
    };
    let is_whole = behind.is_empty() && rows.len() == u32::from_le_bytes(*count) as usize;
    is_whole.then_some((PrivacyKey(*key), rows))
}

fn row_in(bytes: &[u8; ROW_BYTES]) -> Option<Suppression> {
    let (hash, numbers) = bytes.split_first_chunk::<16>()?;
    let mut numbers = numbers.as_chunks::<8>().0.iter().map(|number| i64::from_le_bytes(*number));
    let (since_us, until_us, change) = (numbers.next()?, numbers.next()?, numbers.next()?);
    Some(Suppression {
        hash: RecipientHash(*hash),
        since_us,
        until_us: (until_us < i64::MAX).then_some(until_us),
        change,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const KEY: PrivacyKey = PrivacyKey([3; 32]);

    fn row(n: u8, until_us: Option<i64>) -> Suppression {
        Suppression { hash: RecipientHash([n; 16]), since_us: i64::from(n), until_us, change: i64::from(n) }
    }

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(
            key: [u8; 32], rows: Vec<([u8; 16], i64, Option<u32>, i64)>, at: prop::sample::Index, bit in 0u8..8,
        ) {
            let rows: Vec<Suppression> = rows.into_iter().map(|(hash, since_us, until, change)| {
                Suppression { hash: RecipientHash(hash), since_us, until_us: until.map(i64::from), change }
            }).collect();
            let mut bytes = encode(&PrivacyKey(key), &rows);
            prop_assert_eq!(decode(&bytes), Some((PrivacyKey(key), rows)));
            let at = at.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes), None);
            for magic in [MAGIC, MAGIC_V1] {
                let mut bytes = [&magic[..], &bytes].concat();
                prop_assert_eq!(decode(&bytes), None);
                bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
                decode(&bytes);
            }
        }
    }

    #[test]
    fn a_list_is_replaced_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opt-outs");
        assert_eq!(read(&path), None);
        fs::write(path.with_extension("new"), "half").unwrap();
        for count in [3, 1, 0] {
            let rows: Vec<Suppression> = (0..count).map(|n| row(n, (n == 1).then_some(9))).collect();
            write(&path, &KEY, &rows).unwrap();
            assert_eq!(read(&path), Some((KEY, rows)));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "damaged").unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn a_list_of_version_1_holds_without_its_times() {
        let mut bytes = [&MAGIC_V1[..], b"0123456789abcdef", &KEY.0, &2u32.to_le_bytes(), &[1; 16], &[2; 16]].concat();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let out = [1, 2].map(|n| Suppression::out_since_ever(RecipientHash([n; 16])));
        assert_eq!(decode(&bytes), Some((KEY, out.to_vec())));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
