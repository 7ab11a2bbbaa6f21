//! A segment: one spool file, a header and then frames. Pure: names and bytes in, values out.
//!
//! ```text
//! magic 7 "PXSPOOL" | version u8 | spool UUID 16 | first_seq u64 LE | crc32c u32 LE of all before it
//! ```
//!
//! Version 2 is version 1 with tombstones; a segment becomes version 2 when a recipient is erased from it. A later
//! version is refused.
//!
//! Its name is its first sequence number in twenty digits, so that names sort in the stream's order. A segment that
//! repeats what a failed sync may have lost has a name that ends in `-1`, `-2`, …: its hits are in segments before it,
//! too.

use pixeld_core::ids::SpoolId;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 7 + 1 + 16 + 8 + 4;

const MAGIC: &[u8; 7] = b"PXSPOOL";
const VERSION: u8 = 1;
const VERSION_WITH_TOMBSTONES: u8 = 2;

/// A segment of its spool; sorts by the first number, which is the stream's order if nothing was written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The sequence number of its first hit.
    pub first_seq: u64,
    /// 0, or the count of segments that were written again from the same number on.
    pub rewrite: u32,
}

impl SegmentId {
    /// Whether other segments can contain the same hits.
    pub fn may_overlap(self) -> bool {
        self.rewrite > 0
    }

    /// The segment's file name.
    pub fn file_name(self) -> String {
        match self.rewrite {
            0 => format!("{:020}.seg", self.first_seq),
            rewrite => format!("{:020}-{rewrite}.seg", self.first_seq),
        }
    }

    /// Reads a file name; `None` if it is not a segment's.
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
pub fn header(spool: SpoolId, first_seq: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    header_of(VERSION, spool, first_seq)
}

/// The header of a segment with tombstones.
pub fn header_with_tombstones(spool: SpoolId, first_seq: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    header_of(VERSION_WITH_TOMBSTONES, spool, first_seq)
}

fn header_of(version: u8, spool: SpoolId, first_seq: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..7].copy_from_slice(MAGIC);
    bytes[7] = version;
    bytes[8..24].copy_from_slice(spool.as_bytes());
    bytes[24..32].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether `bytes` begin with the header of a segment of `spool` that starts at `first_seq`.
pub fn header_is_right(bytes: &[u8], spool: SpoolId, first_seq: u64) -> bool {
    [VERSION, VERSION_WITH_TOMBSTONES].iter().any(|&version| bytes.starts_with(&header_of(version, spool, first_seq)))
}

/// Refuses a segment whose valid header has a version that this program does not know: treating its frames as damaged
/// would lose them.
///
/// # Errors
/// `Unsupported`, with what to do.
pub fn refuse_newer(bytes: &[u8]) -> std::io::Result<()> {
    let Some((header, _)) = bytes.split_first_chunk::<SEGMENT_HEADER_BYTES>() else { return Ok(()) };
    let is_whole = header.starts_with(MAGIC) && crc32c::crc32c(&header[..32]).to_le_bytes() == header[32..];
    if !is_whole || header[7] <= VERSION_WITH_TOMBSTONES {
        return Ok(());
    }
    let error = format!("a newer pixeld wrote this spool (version {} of its format); start that one", header[7]);
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, error))
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
    fn a_strange_name_is_not_a_segment() {
        for name in
            ["", ".seg", "7.seg", "00000000000000000007.tmp", "00000000000000000007-0.seg", "0000000000000000000x.seg"]
        {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_later_version_is_refused_and_damage_is_not_taken_for_one() {
        let spool = SpoolId::from_u128(5);
        for version in 0..=VERSION_WITH_TOMBSTONES {
            refuse_newer(&header_of(version, spool, 9)).unwrap();
        }
        let newer = header_of(VERSION_WITH_TOMBSTONES + 1, spool, 9);
        assert!(!header_is_right(&newer, spool, 9));
        let error = refuse_newer(&newer).unwrap_err();
        assert!(error.to_string().contains("version 3"), "{error}");
        let mut damaged = header(spool, 9);
        damaged[7] = 9;
        refuse_newer(&damaged).unwrap();
        refuse_newer(&newer[..20]).unwrap();
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_wrong() {
        let spool = SpoolId::from_u128(5);
        let right = header(spool, 9);
        assert!(header_is_right(&right, spool, 9) && !header_is_right(&right, spool, 8));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut wrong = right;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!header_is_right(&wrong, spool, 9), "bit {bit}");
        }
    }
}
