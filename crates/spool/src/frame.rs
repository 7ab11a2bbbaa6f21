//! A frame: one checksummed group of hits in a segment. Pure: bytes in, values out.
//!
//! ```text
//! length u32 (of the payload) | crc u32 | first_seq u64 | count u32 | payload: `count` encoded hits
//! ```
//!
//! Little-endian. The CRC32C covers first_seq, count and payload, and starts from the spool's UUID: strangers choose
//! the bytes of a user agent, and without the UUID in the sum it could contain a forged frame, which a reader that
//! looks for the next valid frame after damage would accept.

use pixeld_core::hit;
use pixeld_core::ids::SpoolId;

/// Bytes before a payload.
pub const FRAME_HEADER_BYTES: usize = 4 + 4 + 8 + 4;

/// Maximum payload of one frame, in bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The initial value of all checksums of one spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameKey(u32);

impl FrameKey {
    /// The key of the spool with this UUID.
    pub fn of(spool: SpoolId) -> FrameKey {
        FrameKey(crc32c::crc32c(spool.as_bytes()))
    }
}

/// A frame that was read and whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The sequence number of its first hit.
    pub first_seq: u64,
    /// The number of its hits; at least one.
    pub count: u32,
    /// Their bytes, without gaps.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes that the frame takes in a segment.
    pub fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }

    /// The sequence number after its last hit.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end before the frame does.
    #[error("the frame is cut short: {need} bytes needed, {have} there")]
    Short {
        /// Bytes that the frame needs.
        need: usize,
        /// Bytes that are available.
        have: usize,
    },
    /// A length or count that no writer writes.
    #[error("the frame's header is impossible: {count} hits in {length} bytes")]
    Impossible {
        /// Its claimed payload bytes.
        length: u32,
        /// Its claimed number of hits.
        count: u32,
    },
    /// The checksum is wrong.
    #[error("the frame's checksum is wrong")]
    Checksum,
}

/// Starts a frame at the end of `out`: append the payload, then call [`finish`]. Returns where the frame starts.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    start
}

/// Fills in the header of the frame that [`begin`] put at `start` and whose payload reaches to the end of `out`.
pub fn finish(out: &mut [u8], start: usize, key: FrameKey, first_seq: u64, count: u32) {
    let length = out.len() - start - FRAME_HEADER_BYTES;
    debug_assert!(plausible(length as u32, count), "a writer never makes what a reader refuses");
    let frame = &mut out[start..];
    frame[8..16].copy_from_slice(&first_seq.to_le_bytes());
    frame[16..20].copy_from_slice(&count.to_le_bytes());
    let crc = crc32c::crc32c_append(key.0, &frame[8..]);
    frame[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the front of `bytes`.
///
/// # Errors
/// [`FrameError`] if there is none, or its checksum is wrong.
pub fn decode(key: FrameKey, bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let short = |need| FrameError::Short { need, have: bytes.len() };
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(short(FRAME_HEADER_BYTES))?;
    let (length, crc, first_seq, count) = fields(header);
    if !plausible(length, count) || first_seq.checked_add(u64::from(count)).is_none() {
        return Err(FrameError::Impossible { length, count });
    }
    let payload = rest.get(..length as usize).ok_or(short(FRAME_HEADER_BYTES + length as usize))?;
    if crc32c::crc32c_append(key.0, &bytes[8..FRAME_HEADER_BYTES + length as usize]) != crc {
        return Err(FrameError::Checksum);
    }
    Ok(Frame { first_seq, count, payload })
}

/// Finds the next valid frame in `bytes`, and where it starts. Frames before `seq_min` do not count: after damage they
/// would be old bytes, not the stream's.
pub fn find(key: FrameKey, bytes: &[u8], seq_min: u64) -> Option<usize> {
    (0..bytes.len().saturating_sub(FRAME_HEADER_BYTES))
        .find(|&at| decode(key, &bytes[at..]).is_ok_and(|frame| frame.next_seq() > seq_min))
}

/// Whether a writer could have written `count` hits in `length` bytes.
fn plausible(length: u32, count: u32) -> bool {
    let (length, count) = (length as usize, count as usize);
    count >= 1
        && length <= FRAME_PAYLOAD_BYTES_MAX
        && count <= length / hit::ENCODED_BYTES_MIN
        && length.div_ceil(hit::ENCODED_BYTES_MAX) <= count
}

fn fields(header: &[u8; FRAME_HEADER_BYTES]) -> (u32, u32, u64, u32) {
    let [l0, l1, l2, l3, c0, c1, c2, c3, s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = *header;
    (
        u32::from_le_bytes([l0, l1, l2, l3]),
        u32::from_le_bytes([c0, c1, c2, c3]),
        u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        u32::from_le_bytes([n0, n1, n2, n3]),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pixeld_core::hit::fixture::carrying;

    fn payload(count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..count {
            let user_agent = "x".repeat(n as usize % 500);
            carrying(n.into(), &user_agent).encode(&mut bytes);
        }
        bytes
    }

    fn frame(key: FrameKey, first_seq: u64, count: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let start = begin(&mut out);
        out.extend_from_slice(&payload(count));
        finish(&mut out, start, key, first_seq, count);
        out
    }

    proptest! {
        #[test]
        fn every_frame_reads_back(spool: u128, first_seq in 0..u64::MAX / 2, count in 1u32..50, rest: Vec<u8>) {
            let key = FrameKey::of(SpoolId::from_u128(spool));
            let mut bytes = frame(key, first_seq, count);
            let length = bytes.len();
            bytes.extend_from_slice(&rest);
            let read = decode(key, &bytes).unwrap();
            prop_assert_eq!((read.first_seq, read.count, read.bytes()), (first_seq, count, length));
            prop_assert_eq!(read.payload, &payload(count)[..]);
        }

        #[test]
        fn a_cut_frame_is_short_at_every_byte(count in 1u32..20, cut: prop::sample::Index) {
            let key = FrameKey::of(SpoolId::from_u128(1));
            let bytes = frame(key, 7, count);
            let cut = cut.index(bytes.len());
            prop_assert!(matches!(decode(key, &bytes[..cut]), Err(FrameError::Short { .. })), "cut at {cut}");
        }

        #[test]
        fn any_flipped_bit_is_found(count in 1u32..20, at: prop::sample::Index, bit in 0u8..8) {
            let key = FrameKey::of(SpoolId::from_u128(1));
            let mut bytes = frame(key, 7, count);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(key, &bytes).is_err());
        }

        #[test]
        fn any_bytes_decode_or_are_refused_without_a_panic(bytes: Vec<u8>) {
            let key = FrameKey::of(SpoolId::from_u128(1));
            prop_assert!(decode(key, &bytes).is_err());
            prop_assert_eq!(find(key, &bytes, 0), None);
        }

        #[test]
        fn the_next_frame_is_found_after_any_damage(damage in prop::collection::vec(any::<u8>(), 0..300), count in 1u32..5) {
            let key = FrameKey::of(SpoolId::from_u128(1));
            let mut bytes = damage.clone();
            bytes.extend_from_slice(&frame(key, 7, count));
            prop_assert_eq!(find(key, &bytes, 7), Some(damage.len()));
            prop_assert_eq!(find(key, &bytes, 7 + u64::from(count)), None, "an old frame is not the stream's next");
        }
    }

    #[test]
    fn a_frame_of_another_spool_is_refused() {
        let bytes = frame(FrameKey::of(SpoolId::from_u128(1)), 0, 3);
        assert_eq!(decode(FrameKey::of(SpoolId::from_u128(2)), &bytes), Err(FrameError::Checksum));
    }
}
