//! Keeps the ids of all images on disk, so that a node that starts while the database is down knows which exist.
//!
//! A [`kept_list`] named "PXKNOWN", version 1, counted. A row is an id (16 bytes) and a state (1 byte): 0 exists, 1
//! deleted, 2 lost, which means that this node knew the image and the database no longer has it. (Earlier versions read
//! 2 as 0.) Damaged bytes count as no list at all.

use std::fs;
use std::io;
use std::path::Path;

use pixeld_edge::images::Knowledge;

use crate::kept_list::{self, Format, ReadError, Row};
use pixeld_core::ids::ImageId;

const FORMAT: Format<0, 17> = Format { magic: b"PXKNOWN\x01", is_counted: true };

impl Row<17> for (ImageId, Knowledge) {
    fn encode(&self) -> [u8; 17] {
        let mut bytes = [0; 17];
        let [id @ .., state] = &mut bytes;
        *id = *self.0.as_bytes();
        *state = match self.1 {
            Knowledge::There => 0,
            Knowledge::Deleted => 1,
            Knowledge::Lost => 2,
        };
        bytes
    }

    fn decode(bytes: &[u8; 17]) -> Option<(ImageId, Knowledge)> {
        let [id @ .., state] = *bytes;
        let knowledge = match state {
            1 => Knowledge::Deleted,
            2 => Knowledge::Lost,
            _ => Knowledge::There,
        };
        Some((ImageId::from_bytes(id), knowledge))
    }
}

/// Writes the list.
///
/// # Errors
/// The old list stays then.
pub(crate) fn write(path: &Path, ids: &[(ImageId, Knowledge)]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    FORMAT.write(path, &[], ids)
}

/// Reads the list; `None` if there is none, or it is damaged.
pub(crate) fn read(path: &Path) -> Option<Vec<(ImageId, Knowledge)>> {
    match kept_list::read(path, |bytes| FORMAT.decode(bytes)) {
        Ok(list) => list.map(|([], ids)| ids),
        Err(ReadError::Io(error)) => {
            tracing::warn!(%error, path = %path.display(), "the list of images cannot be read");
            None
        }
        Err(ReadError::Damaged) => {
            tracing::warn!(path = %path.display(), "the list of images is damaged; pixeld fetches it again");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept_list::from_hex;

    #[test]
    fn a_list_that_an_earlier_version_wrote_is_read_and_written_the_same() {
        let bytes = from_hex(
            "50584b4e4f574e01 03000000 0102030405060708090a0b0c0d0e0f0000 0102030405060708090a0b0c0d0e0f0101
             0102030405060708090a0b0c0d0e0f0202 a8bd86cc",
        );
        let id = |n: u8| ImageId::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f00 + u128::from(n));
        let ids = [(id(0), Knowledge::There), (id(1), Knowledge::Deleted), (id(2), Knowledge::Lost)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images").join("known.bin");
        assert_eq!(read(&path), None);
        write(&path, &ids).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(read(&path).unwrap(), ids);
        fs::write(&path, "damaged").unwrap();
        assert_eq!(read(&path), None);
    }
}
