//! Keeps on disk who opted out and when, so that a node that starts while the database is down knows it, and so that it
//! is not lost with a database that is restored from a backup.
//!
//! A [`kept_list`] named "PXOPTED", version 2, counted. Its head is the key of the hashes (32 bytes). A row is a
//! recipient's hash (16 bytes), the start and end of the opt-out, and the number of its change (i64 LE each). Times are
//! in µs since 1970; the end is the maximum while the opt-out lasts. Version 1 is read too: 16 bytes that identified
//! the database's URL preceded the key, and a row was only the hash of a recipient who was opted out.
//!
//! Damaged bytes count as no list at all. Only the owner may read it: anyone who has the key and a recipient's id could
//! check whether that recipient is in it. The key also identifies the installation: once the database's key is known, a
//! list with another key is removed. Until then the list is in force, wherever the database is by now: a new password
//! or a move must not lose an opt-out.

use std::io;
use std::path::Path;

use crate::kept_list::{self, Format, ReadError, Row};
use pixeld_core::clock::micros::Micros;
use pixeld_core::privacy::{PrivacyKey, RecipientHash, Suppression};

const FORMAT: Format<32, 40> = Format { magic: b"PXOPTED\x02", is_counted: true };
const FORMAT_V1: Format<48, 16> = Format { magic: b"PXOPTED\x01", is_counted: true };

impl Row<40> for Suppression {
    fn encode(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let numbers = [self.since.0, self.until.unwrap_or(Micros::MAX).0, self.change].map(i64::to_le_bytes);
        let fields = self.hash.0.iter().chain(numbers.as_flattened());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = *from);
        bytes
    }

    fn decode(bytes: &[u8; 40]) -> Option<Suppression> {
        let (hash, numbers) = bytes.split_first_chunk::<16>()?;
        let [since, until, change] = *numbers.as_chunks::<8>().0 else { return None };
        let until = Micros(i64::from_le_bytes(until));
        Some(Suppression {
            hash: RecipientHash(*hash),
            since: Micros(i64::from_le_bytes(since)),
            until: (until < Micros::MAX).then_some(until),
            change: i64::from_le_bytes(change),
        })
    }
}

impl Row<16> for RecipientHash {
    fn encode(&self) -> [u8; 16] {
        self.0
    }

    fn decode(bytes: &[u8; 16]) -> Option<RecipientHash> {
        Some(RecipientHash(*bytes))
    }
}

/// Writes the list.
///
/// # Errors
/// The old list stays then.
pub(crate) fn write(path: &Path, key: &PrivacyKey, rows: &[Suppression]) -> io::Result<()> {
    FORMAT.write(path, &key.0, rows)
}

/// Reads the list; `None` if there is none, or it is damaged.
pub(crate) fn read(path: &Path) -> Option<(PrivacyKey, Vec<Suppression>)> {
    match kept_list::read(path, decode) {
        Ok(list) => list,
        Err(ReadError::Io(error)) => {
            tracing::warn!(%error, path = %path.display(), "the list of opt-outs cannot be read");
            None
        }
        Err(ReadError::Damaged) => {
            tracing::warn!(path = %path.display(), "the list of opt-outs is damaged; until pixeld has fetched it again, only the loader filters recipients who opted out");
            None
        }
    }
}

fn decode(bytes: &[u8]) -> Option<(PrivacyKey, Vec<Suppression>)> {
    if let Some((key, rows)) = FORMAT.decode(bytes) {
        return Some((PrivacyKey(key), rows));
    }
    let (head, hashes) = FORMAT_V1.decode(bytes)?;
    let rows = hashes.into_iter().map(Suppression::out_since_ever).collect();
    Some((PrivacyKey(*head.last_chunk()?), rows))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::kept_list::from_hex;

    const KEY: PrivacyKey = PrivacyKey([3; 32]);

    fn row(n: u8, until: Option<Micros>) -> Suppression {
        Suppression { hash: RecipientHash([n; 16]), since: Micros(i64::from(n)), until, change: i64::from(n) + 64 }
    }

    proptest! {
        #[test]
        fn every_row_reads_back(hash: [u8; 16], since_us: i64, until: Option<u32>, change: i64) {
            let row = Suppression {
                hash: RecipientHash(hash),
                since: Micros(since_us),
                until: until.map(|us| Micros(i64::from(us))),
                change,
            };
            prop_assert_eq!(Suppression::decode(&row.encode()), Some(row));
        }
    }

    #[test]
    fn a_list_that_an_earlier_version_wrote_is_read_and_written_the_same() {
        let bytes = from_hex(
            "50584f5054454402 0303030303030303030303030303030303030303030303030303030303030303 02000000
             01010101010101010101010101010101 0100000000000000 ffffffffffffff7f 4100000000000000
             02020202020202020202020202020202 0200000000000000 0900000000000000 4200000000000000 be162b39",
        );
        let rows = [row(1, None), row(2, Some(Micros(9)))];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("opt-outs");
        assert_eq!(read(&path), None);
        write(&path, &KEY, &rows).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(read(&path), Some((KEY, rows.to_vec())));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "damaged").unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn a_list_of_version_1_holds_without_its_times() {
        let bytes = from_hex(
            "50584f5054454401 30313233343536373839616263646566
             0303030303030303030303030303030303030303030303030303030303030303 02000000
             01010101010101010101010101010101 02020202020202020202020202020202 228972cb",
        );
        let out = [1, 2].map(|n| Suppression::out_since_ever(RecipientHash([n; 16])));
        assert_eq!(decode(&bytes), Some((KEY, out.to_vec())));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
