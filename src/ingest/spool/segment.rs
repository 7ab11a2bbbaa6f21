//! A segment: one spool file, a header and then frames. Pure: names and bytes in, values out.
//!
//! ```text
//! magic 7 "PXSPOOL" | version u8 | spool UUID 16 | first_seq u64 LE | crc32c u32 LE of all before it
//! ```
//!
//! Its name is its first sequence number in twenty digits, so that names sort as the stream runs. One that holds again what
//! a failed sync may have lost has a name that ends in `-1`, `-2`, …: its hits are in segments before it too.

use uuid::Uuid;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 7 + 1 + 16 + 8 + 4;

const MAGIC: &[u8; 7] = b"PXSPOOL";
const VERSION: u8 = 1;

/// Which segment of its spool; sorts by the first number, and so as the stream runs where nothing was written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The sequence number of its first hit.
    pub first_seq: u64,
    /// 0, or which of those that were written again from the same number on it is.
    pub rewrite: u32,
}

impl SegmentId {
    /// Whether other segments can hold the same hits.
    #[must_use]
    pub fn may_overlap(self) -> bool {
        self.rewrite > 0
    }

    /// The segment's file name.
    #[must_use]
    pub fn file_name(self) -> String {
        match self.rewrite {
            0 => format!("{:020}.seg", self.first_seq),
            rewrite => format!("{:020}-{rewrite}.seg", self.first_seq),
        }
    }

    /// Reads a file name; nothing where it is no segment's.
    #[must_use]
    pub fn parse(name: &str) -> Option<SegmentId> {
        let stem = name.strip_suffix(".seg")?;
        let (digits, rewrite) = match stem.split_once('-') {
            None => (stem, 0),
            Some((digits, rewrite)) => (digits, rewrite.parse().ok()?),
        };
        let id = SegmentId { first_seq: digits.parse().ok()?, rewrite };
        (id.file_name() == name).then_some(id)
    }
}

/// The header of a segment of `spool` whose first hit has `first_seq`.
#[must_use]
pub fn header(spool: Uuid, first_seq: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..7].copy_from_slice(MAGIC);
    bytes[7] = VERSION;
    bytes[8..24].copy_from_slice(spool.as_bytes());
    bytes[24..32].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether `bytes` begin with the header of a segment of `spool` that starts at `first_seq`.
#[must_use]
pub fn header_is_right(bytes: &[u8], spool: Uuid, first_seq: u64) -> bool {
    bytes.starts_with(&header(spool, first_seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_sort_as_the_stream_runs() {
        let ids = [(0, 0), (7, 0), (7, 1), (7, 2), (8, 0), (u64::MAX, 3)]
            .map(|(first_seq, rewrite)| SegmentId { first_seq, rewrite });
        for id in ids {
            assert_eq!(SegmentId::parse(&id.file_name()), Some(id));
        }
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_strange_name_is_no_segment() {
        for name in
            ["", ".seg", "7.seg", "00000000000000000007.tmp", "00000000000000000007-0.seg", "0000000000000000000x.seg"]
        {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_wrong() {
        let spool = Uuid::from_u128(5);
        let right = header(spool, 9);
        assert!(header_is_right(&right, spool, 9) && !header_is_right(&right, spool, 8));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut wrong = right;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!header_is_right(&wrong, spool, 9), "bit {bit}");
        }
    }
}
