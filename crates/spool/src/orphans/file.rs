//! The bytes and the name of a file of hits that wait for their image. Pure.
//!
//! Guarantees: damage is skipped, and the hits around it are read. Gives up: counting the hits in a damaged part.

use std::path::Path;

use super::ORPHANS;
use crate::frame::{self, FRAME_PAYLOAD_BYTES_MAX, FrameKey};
use crate::segment::SEGMENT_HEADER_BYTES;
use pixeld_core::hit::{self, Hit};
use pixeld_core::ids::SpoolId;

/// Encodes hits as frames, one per run of consecutive numbers.
pub(super) fn frames(key: FrameKey, hits: &[(u64, &Hit<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = hits;
    while let Some(&(first_seq, _)) = rest.first() {
        let start = frame::begin(&mut bytes);
        let (mut count, payload) = (0, bytes.len());
        while let Some((seq, hit)) = rest.get(count)
            && *seq == first_seq + count as u64
            && bytes.len() - payload + hit::ENCODED_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX
        {
            hit.encode(&mut bytes);
            count += 1;
        }
        frame::finish(&mut bytes, start, key, first_seq, count as u32);
        rest = &rest[count..];
    }
    bytes
}

/// Passes each hit of a file with its number and its bytes to `each`; damage is skipped. Returns where the last whole
/// frame ends.
pub(super) fn each_hit(mark: SpoolId, bytes: &[u8], mut each: impl FnMut(u64, &Hit<'_>, &[u8])) -> usize {
    let key = FrameKey::of(mark);
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    let mut end = offset;
    loop {
        while let Ok(frame) = frame::decode(key, &bytes[offset..]) {
            let mut rest = frame.payload;
            for seq in frame.first_seq.. {
                let Ok((hit, behind)) = Hit::decode(rest) else { break };
                each(seq, &hit, &rest[..rest.len() - behind.len()]);
                rest = behind;
            }
            offset += frame.bytes();
            end = offset;
        }
        let Some(found) = bytes.get(offset + 1..).and_then(|rest| frame::find(key, rest, 0)) else { return end };
        offset += 1 + found;
    }
}

/// The mark's UUID and the first number in a file's name.
pub(super) fn parse(path: &Path) -> Option<(SpoolId, u64)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(ORPHANS)?.strip_suffix('.')?;
    let (mark, first_seq) = stem.rsplit_once('-')?;
    Some((mark.parse().ok()?, first_seq.parse().ok()?))
}
