//! A list that is kept on disk and replaced whole.
//!
//! ```text
//! magic 8: the list's name and version | head, the same for all rows | count u32 LE, if counted | rows | crc32c u32 LE of all before
//! ```
//!
//! Guarantees: a reader finds either the old list or the new one, whatever was killed in between; damaged bytes are
//! never read as a list. Gives up: small changes; a change of one row writes all rows.

use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

use crate::whole_file;

/// A row of a fixed number of bytes.
pub(crate) trait Row<const BYTES: usize>: Sized {
    /// Its bytes.
    fn encode(&self) -> [u8; BYTES];

    /// Reads what [`Row::encode`] wrote; `None` if the bytes cannot be a row.
    fn decode(bytes: &[u8; BYTES]) -> Option<Self>;
}

/// The format of a list on disk: `HEAD` bytes of head, and `ROW` bytes per row.
pub(crate) struct Format<const HEAD: usize, const ROW: usize> {
    /// The list's name and version.
    pub magic: &'static [u8; 8],
    /// Whether the number of rows precedes them.
    pub is_counted: bool,
}

/// Why a list cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// A disk error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are damaged.
    #[error("it is damaged")]
    Damaged,
}

/// Reads a list, as one of the formats that `decode` tries; `None` if there is none.
///
/// # Errors
/// [`ReadError::Damaged`] if `decode` returns `None`.
pub(crate) fn read<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>, ReadError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or(ReadError::Damaged),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl<const HEAD: usize, const ROW: usize> Format<HEAD, ROW> {
    /// Replaces the list at `path`. Its folder must exist.
    ///
    /// # Errors
    /// The old list stays then.
    pub(crate) fn write<R: Row<ROW>>(&self, path: &Path, head: &[u8; HEAD], rows: &[R]) -> io::Result<()> {
        whole_file::replace(path, &self.encode(head, rows))
    }

    /// The list's bytes.
    pub(crate) fn encode<R: Row<ROW>>(&self, head: &[u8; HEAD], rows: &[R]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.magic.len() + HEAD + 4 + rows.len() * ROW + 4);
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(head);
        if self.is_counted {
            bytes.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        }
        for row in rows {
            bytes.extend_from_slice(&row.encode());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what [`Format::encode`] wrote; `None` if the bytes are damaged, or of another format.
    pub(crate) fn decode<R: Row<ROW>>(&self, bytes: &[u8]) -> Option<([u8; HEAD], Vec<R>)> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (head, rows) = body.strip_prefix(self.magic)?.split_first_chunk::<HEAD>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (count, rows) = if self.is_counted {
            rows.split_first_chunk::<4>().map(|(n, rows)| (Some(n), rows))?
        } else {
            (None, rows)
        };
        let (rows, rest) = rows.as_chunks::<ROW>();
        let is_whole = rest.is_empty() && count.is_none_or(|count| u32::from_le_bytes(*count) as usize == rows.len());
        let rows = rows.iter().map(R::decode).collect::<Option<_>>()?;
        is_whole.then_some((*head, rows))
    }
}

/// The bytes of a text of hexadecimal digits, for tests that contain old files.
#[cfg(test)]
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const COUNTED: Format<3, 2> = Format { magic: b"PXTRIAL\x01", is_counted: true };
    const UNCOUNTED: Format<3, 2> = Format { magic: b"PXTRIAL\x02", is_counted: false };
    const HEAD: [u8; 3] = *b"abc";

    #[derive(Debug, Clone, PartialEq)]
    struct Number(u16);

    impl Row<2> for Number {
        fn encode(&self) -> [u8; 2] {
            self.0.to_le_bytes()
        }

        fn decode(bytes: &[u8; 2]) -> Option<Number> {
            Some(Number(u16::from_le_bytes(*bytes))).filter(|number| number.0 != 7)
        }
    }

    proptest! {
        #[test]
        fn every_list_reads_back_and_every_damage_is_found(
            head: [u8; 3], rows in prop::collection::vec(8u16.., 0..99), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let rows: Vec<Number> = rows.into_iter().map(Number).collect();
            for (format, other) in [(COUNTED, UNCOUNTED), (UNCOUNTED, COUNTED)] {
                let mut bytes = format.encode(&head, &rows);
                prop_assert_eq!(format.decode(&bytes), Some((head, rows.clone())));
                prop_assert_eq!(other.decode::<Number>(&bytes), None);
                let at = at.index(bytes.len());
                prop_assert_eq!(format.decode::<Number>(&bytes[..at]), None);
                bytes[at] ^= 1 << bit;
                prop_assert_eq!(format.decode::<Number>(&bytes), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            for format in [COUNTED, UNCOUNTED] {
                prop_assert_eq!(format.decode::<Number>(&bytes), None);
                let mut bytes = [&format.magic[..], &bytes].concat();
                bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
                format.decode::<Number>(&bytes);
            }
        }
    }

    #[test]
    fn a_count_or_a_row_that_cannot_be_is_damage() {
        let sealed = |body: &[u8]| [body, &crc32c::crc32c(body).to_le_bytes()].concat();
        assert_eq!(UNCOUNTED.decode::<Number>(&sealed(b"PXTRIAL\x02abc\x08\0")), Some((HEAD, vec![Number(8)])));
        assert_eq!(UNCOUNTED.decode::<Number>(&sealed(b"PXTRIAL\x02abc\x08\0\0")), None);
        assert_eq!(UNCOUNTED.decode::<Number>(&sealed(b"PXTRIAL\x02abc\x07\0")), None);
        assert_eq!(COUNTED.decode::<Number>(&sealed(b"PXTRIAL\x01abc\x01\0\0\0\x08\0")), Some((HEAD, vec![Number(8)])));
        assert_eq!(COUNTED.decode::<Number>(&sealed(b"PXTRIAL\x01abc\x02\0\0\0\x08\0")), None);
    }

    #[test]
    fn a_list_is_replaced_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let list = || read(&path, |bytes| COUNTED.decode::<Number>(bytes));
        assert!(list().unwrap().is_none());
        fs::write(path.with_extension("new"), "half").unwrap();
        for count in [3, 1, 0] {
            let rows: Vec<Number> = (0..count).map(Number).collect();
            COUNTED.write(&path, &HEAD, &rows).unwrap();
            assert_eq!(list().unwrap(), Some((HEAD, rows)));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "damaged").unwrap();
        assert!(matches!(list().unwrap_err(), ReadError::Damaged));
    }
}
