//! Frames that no sync has covered yet, kept in memory so that they can be written again.

use std::collections::VecDeque;

/// Maximum bytes of frames kept in memory until a sync has made them safe.
const UNSYNCED_BYTES_MAX: usize = 64 << 20;

/// Frames that no sync has covered yet, in order, without gaps.
#[derive(Default)]
pub(super) struct Unsynced {
    pub(super) bytes: Vec<u8>,
    /// For each frame: its length in bytes and the number after its last hit.
    pub(super) frames: VecDeque<(usize, u64)>,
    /// Frames were removed, since there were too many.
    pub(super) incomplete: bool,
}

impl Unsynced {
    /// Removes the oldest frames if there are too many bytes.
    pub(super) fn bound(&mut self) {
        if self.bytes.len() <= UNSYNCED_BYTES_MAX {
            return;
        }
        let mut bytes = 0;
        // Half of them at once, so that the rest is not moved for every group while the disk stalls.
        while self.bytes.len() - bytes > UNSYNCED_BYTES_MAX / 2 {
            let Some((length, _)) = self.frames.pop_front() else { break };
            bytes += length;
            self.incomplete = true;
        }
        self.bytes.drain(..bytes);
    }
}
