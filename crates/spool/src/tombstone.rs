//! Replaces hits in a segment's bytes by tombstones. Pure: bytes in, bytes of the same length out.
//!
//! Guarantees: the lengths, positions and numbers of all hits and frames stay, so that a reader of the segment goes on
//! where it was; frames that contained an erased hit get a new checksum. In damaged bytes, or copies of them, hits
//! cannot be recognised: there every run of 16 bytes counts as an id, and every counted run as a key, and around an
//! erased recipient's id everything that can belong to its hit is zeroed. Gives up: an id that is partly damaged; the
//! rest is no longer an id.

use super::frame::{self, FrameKey};
use super::segment::{self, SEGMENT_HEADER_BYTES};
use pixeld_core::hit::{self, Hit};
use pixeld_core::ids::{RecipientId, SpoolId};
use pixeld_core::link::key::{KEY_BYTES_MAX, Key, Namespace};

/// The recipients to erase.
pub trait Erasing {
    /// Whether this hit is erased; its keys have been turned into ids. Each yes is counted.
    fn takes(&mut self, hit: &Hit<'_>) -> bool;

    /// Whether this is the id of a recipient whose hits are erased.
    fn takes_id(&mut self, id: RecipientId) -> bool;
}

/// Replaces the erased hits in a segment of the spool `spool` by tombstones. Returns whether a byte has changed.
pub fn erase_segment(
    bytes: &mut [u8],
    spool: SpoolId,
    first_seq: u64,
    namespace: Namespace,
    who: &mut impl Erasing,
) -> bool {
    let key = FrameKey::of(spool);
    let mut changed = false;
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    while offset < bytes.len() {
        let Ok(frame) = frame::decode(key, &bytes[offset..]) else {
            let rest = bytes.get(offset + 1..).unwrap_or_default();
            let end = frame::find(key, rest, 0).map_or(bytes.len(), |at| offset + 1 + at);
            changed |= erase_loose(&mut bytes[offset..end], namespace, who);
            offset = end;
            continue;
        };
        let (frame_seq, count, end) = (frame.first_seq, frame.count, offset + frame.bytes());
        let gone = hits_that_go(frame.payload, namespace, who);
        if !gone.is_empty() {
            let payload = offset + frame::FRAME_HEADER_BYTES;
            gone.iter().for_each(|at| hit::entomb(&mut bytes[payload + at.start..payload + at.end]));
            frame::finish(&mut bytes[..end], offset, key, frame_seq, count);
            changed = true;
        }
        offset = end;
    }
    if changed && segment::header_is_right(bytes, spool, first_seq) {
        bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&segment::header_with_tombstones(spool, first_seq));
    }
    changed
}

/// The positions of the erased hits in a payload.
fn hits_that_go(payload: &[u8], namespace: Namespace, who: &mut impl Erasing) -> Vec<std::ops::Range<usize>> {
    let mut gone = Vec::new();
    let mut rest = payload;
    while let Ok((mut hit, behind)) = Hit::decode(rest) {
        let start = payload.len() - rest.len();
        if !hit.is_erased {
            hit.resolve(namespace);
            if !hit.recipient.is_nil() && who.takes(&hit) {
                gone.push(start..payload.len() - behind.len());
            }
        }
        rest = behind;
    }
    gone
}

/// Zeroes what can belong to an erased recipient's hit in bytes that are not whole frames. Returns whether a byte has
/// changed.
pub fn erase_loose(bytes: &mut [u8], namespace: Namespace, who: &mut impl Erasing) -> bool {
    let mut found = Vec::new();
    for at in 0..bytes.len() {
        if let Some(id) = bytes[at..].first_chunk::<16>()
            && *id != [0; 16]
            && who.takes_id(RecipientId::from_bytes(*id))
        {
            let start = at.saturating_sub(hit::RECIPIENT_AT);
            let end =
                Hit::decode(&bytes[start..]).map_or(at + hit::ENCODED_BYTES_MAX, |(_, rest)| bytes.len() - rest.len());
            found.push(start..end.max(at + 16).min(bytes.len()));
        }
        let length = usize::from(bytes[at]);
        if (1..=KEY_BYTES_MAX).contains(&length)
            && let Some(key) = bytes.get(at + 1..at + 1 + length)
            && who.takes_id(namespace.id_of(&Key::Text(key.into())))
        {
            let start = at.saturating_sub(hit::ENCODED_BYTES_MIN + 16 + 1 + KEY_BYTES_MAX);
            found.push(start..(at + 1 + length + hit::USER_AGENT_BYTES_MAX).min(bytes.len()));
        }
    }
    found.iter().for_each(|at| bytes[at.clone()].fill(0));
    !found.is_empty()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use pixeld_core::hit::Keys;
    use pixeld_core::hit::fixture::carrying;

    const NAMESPACE: Namespace = Namespace(Uuid::from_u128(77));
    const SPOOL: SpoolId = SpoolId::from_u128(9);

    /// One id; its hits may have any time.
    struct One(RecipientId, u64);

    impl Erasing for One {
        fn takes(&mut self, hit: &Hit<'_>) -> bool {
            self.1 += u64::from(hit.recipient == self.0);
            hit.recipient == self.0
        }

        fn takes_id(&mut self, id: RecipientId) -> bool {
            id == self.0
        }
    }

    fn id(n: u128) -> RecipientId {
        RecipientId::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7700 + n)
    }

    fn holds(bytes: &[u8], what: &[u8]) -> bool {
        bytes.windows(what.len()).any(|window| window == what)
    }

    /// Two frames of three hits each: of recipients 0, 1, 2 and again.
    fn segment() -> Vec<u8> {
        let mut bytes = segment::header(SPOOL, 4).to_vec();
        for frame in 0..2 {
            let start = frame::begin(&mut bytes);
            for n in 0..3 {
                Hit { recipient: id(n), ..carrying(7, "agent") }.encode(&mut bytes);
            }
            frame::finish(&mut bytes, start, FrameKey::of(SPOOL), 4 + 3 * frame, 3);
        }
        bytes
    }

    #[test]
    fn only_the_erased_hits_change_and_all_keep_their_places() {
        let before = segment();
        let mut bytes = before.clone();
        let mut who = One(id(1), 0);
        assert!(erase_segment(&mut bytes, SPOOL, 4, NAMESPACE, &mut who));
        assert_eq!((bytes.len(), who.1), (before.len(), 2));
        assert!(!holds(&bytes, id(1).as_bytes()) && holds(&bytes, id(0).as_bytes()));
        assert!(segment::header_is_right(&bytes, SPOOL, 4));
        let mut offset = SEGMENT_HEADER_BYTES;
        for seq in [4, 7] {
            let frame = frame::decode(FrameKey::of(SPOOL), &bytes[offset..]).unwrap();
            let mut rest = frame.payload;
            let erased = [false, true, false].map(|expected| {
                let (hit, behind) = Hit::decode(rest).unwrap();
                rest = behind;
                hit.is_erased == expected
            });
            assert_eq!((frame.first_seq, frame.count, erased, rest.len()), (seq, 3, [true; 3], 0));
            offset += frame.bytes();
        }
        let once = bytes.clone();
        assert!(!erase_segment(&mut bytes, SPOOL, 4, NAMESPACE, &mut who), "a second time there is nothing to do");
        assert!(bytes == once);
    }

    #[test]
    fn a_hit_with_a_key_goes_with_the_id_that_the_key_makes() {
        let mut bytes = segment::header(SPOOL, 0).to_vec();
        let start = frame::begin(&mut bytes);
        for key in [&b"jane@example.com"[..], b"joe@example.com"] {
            let keys = Some(Keys { message: b"", recipient: key });
            Hit { recipient: RecipientId::NONE, keys, ..carrying(7, "agent") }.encode(&mut bytes);
        }
        frame::finish(&mut bytes, start, FrameKey::of(SPOOL), 0, 2);
        let jane = NAMESPACE.id_of(&Key::typed("jane@example.com").unwrap());
        assert!(erase_segment(&mut bytes, SPOOL, 0, NAMESPACE, &mut One(jane, 0)));
        assert!(!holds(&bytes, b"jane@") && holds(&bytes, b"joe@"));
    }

    #[test]
    fn in_damaged_bytes_ids_and_keys_are_found_anywhere() {
        let mut bytes = segment();
        // The first frame's checksum.
        bytes[SEGMENT_HEADER_BYTES + 5] ^= 1;
        assert!(erase_segment(&mut bytes, SPOOL, 4, NAMESPACE, &mut One(id(1), 0)));
        assert!(!holds(&bytes, id(1).as_bytes()) && holds(&bytes, id(0).as_bytes()) && holds(&bytes, id(2).as_bytes()));

        let mut loose = Vec::new();
        let keys = Some(Keys { message: b"may", recipient: b"jane@example.com" });
        Hit { recipient: RecipientId::NONE, keys, ..carrying(7, "agent") }.encode(&mut loose);
        let mut loose = [&[3; 50], &loose[..], &[4; 5]].concat();
        let jane = NAMESPACE.id_of(&Key::typed("jane@example.com").unwrap());
        assert!(erase_loose(&mut loose, NAMESPACE, &mut One(jane, 0)));
        assert!(!holds(&loose, b"jane") && !holds(&loose, b"agent"));
    }
}
