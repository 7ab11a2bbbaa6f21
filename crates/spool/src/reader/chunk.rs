//! A run of consecutive numbers of a spool. Pure.

use crate::frame;
use pixeld_core::hit::Hit;

/// A run of consecutive numbers, each a hit or missing.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Its first number.
    pub first_seq: u64,
    /// How many numbers, from the first on, have no hit: their bytes are damaged.
    pub missing: u64,
    /// How many hits follow.
    pub count: u64,
    /// The hits' bytes.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// The number after its last one.
    pub fn next_seq(&self) -> u64 {
        self.first_seq + self.missing + self.count
    }

    /// Whether it has no numbers.
    pub fn is_empty(&self) -> bool {
        self.missing + self.count == 0
    }
}

/// The result of taking a frame.
pub(super) enum Taken {
    All,
    /// The frame begins after the next number, and the chunk already has hits: it must start a new chunk.
    GapAhead,
    /// The checksum is right but the hits are not: none of our writers made it.
    Unreadable,
}

impl Chunk {
    pub(super) fn take_frame(&mut self, frame: &frame::Frame<'_>) -> Taken {
        let next = self.next_seq();
        if frame.next_seq() <= next {
            return Taken::All;
        }
        if frame.first_seq > next {
            if self.count > 0 {
                return Taken::GapAhead;
            }
            self.missing += frame.first_seq - next;
        }
        let skip = self.next_seq() - frame.first_seq;
        let mut rest = frame.payload;
        for n in 0..u64::from(frame.count) {
            if n == skip {
                let payload = rest;
                // All are checked before any is taken, so that a chunk never contains half a frame.
                for _ in n..u64::from(frame.count) {
                    let Ok((_, behind)) = Hit::decode(rest) else { return Taken::Unreadable };
                    rest = behind;
                }
                if !rest.is_empty() {
                    return Taken::Unreadable;
                }
                self.bytes.extend_from_slice(payload);
                self.count += u64::from(frame.count) - skip;
                return Taken::All;
            }
            let Ok((_, behind)) = Hit::decode(rest) else { return Taken::Unreadable };
            rest = behind;
        }
        Taken::All
    }
}
