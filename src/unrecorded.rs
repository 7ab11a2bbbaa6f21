//! The last requests that made no hit, each with its reason, for whoever wonders why nothing is recorded.
//!
//! Guarantees: at most [`NOTES_MAX`] of them, in memory only, with as much of an address as `PIXELD_IP_PRIVACY` lets be kept, and texts
//! cut to [`TEXT_CHARS_MAX`]. At most [`NOTES_A_SECOND_MAX`] are taken a second, and none waits for another, so that a flood of such
//! requests costs nearly nothing; a request that makes a hit never comes here. Gives up: those beyond that are only counted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Notes that are kept.
pub const NOTES_MAX: usize = 100;

/// Notes that are taken a second.
pub const NOTES_A_SECOND_MAX: u32 = 200;

/// Characters of a path and of a user agent that are kept.
pub const TEXT_CHARS_MAX: usize = 200;

/// Why a request made no hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The message or recipient can be no id or key.
    Malformed,
    /// A merge tag was left in the link.
    Unmerged,
    /// The link is not signed, and `PIXELD_REQUIRE_SIGNED` is on.
    Unsigned,
    /// A token that is none of ours.
    Forged,
    /// No image id stands where one has to.
    NoImageId,
    /// No image has this id.
    UnknownImage,
    /// The image was deleted.
    DeletedImage,
    /// No such path.
    WrongPath,
    /// HEAD, which reads no picture.
    Head,
    /// A method other than GET and HEAD.
    Method,
    /// A request with a body.
    Body,
    /// Too many came from one address.
    AddressRate,
    /// The queue in memory was full.
    QueueFull,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 13] = [
        Reason::Malformed,
        Reason::Unmerged,
        Reason::Unsigned,
        Reason::Forged,
        Reason::NoImageId,
        Reason::UnknownImage,
        Reason::DeletedImage,
        Reason::WrongPath,
        Reason::Head,
        Reason::Method,
        Reason::Body,
        Reason::AddressRate,
        Reason::QueueFull,
    ];

    /// What was wrong, and what to do, each in a sentence.
    #[must_use]
    pub fn sentences(self) -> [&'static str; 2] {
        match self {
            Reason::Malformed => [
                "The message or recipient in the link can be no id.",
                "Put UUIDs there, or use a /t/ link, which takes keys of your own.",
            ],
            Reason::Unmerged => [
                "A merge tag was left in the link.",
                "Check how your mail program spells its tags; a test mail often leaves them as they are.",
            ],
            Reason::Unsigned => [
                "The link is not signed.",
                "Make signed links, or set PIXELD_REQUIRE_SIGNED=false to record this one, too.",
            ],
            Reason::Forged => [
                "The link's signature is not one of ours.",
                "Check that the link was copied whole, and that PIXELD_SIGNING_KEYS still has the key that signed it.",
            ],
            Reason::NoImageId => [
                "No image's id stands in the link where it has to.",
                "Copy the link again from the page of the image; it ends like .png or .gif.",
            ],
            Reason::UnknownImage => {
                ["There is no image with this id.", "Upload it here, or use the id of one that is there."]
            }
            Reason::DeletedImage => {
                ["The image was deleted.", "Use another image; old mails get a transparent one in its place."]
            }
            Reason::WrongPath => [
                "There is nothing under this path.",
                "A pixel's path begins with /image/, /t/ or /o/; check what your proxy passes on.",
            ],
            Reason::Head => {
                ["It only asked for the headers (HEAD).", "Nothing: link checkers do that, and nobody saw the picture."]
            }
            Reason::Method => {
                ["It was neither GET nor HEAD.", "Nothing, as long as no mail client of yours does that."]
            }
            Reason::Body => {
                ["It had a body, which no mail client sends.", "Nothing, as long as no proxy of yours does that."]
            }
            Reason::AddressRate => [
                "Too many came from this address.",
                "If they were real, raise PIXELD_ADDRESS_RATE or name your proxy in PIXELD_TRUSTED_PROXIES.",
            ],
            Reason::QueueFull => {
                ["The queue was full.", "The disk or the machine is too slow for so many; look at its load."]
            }
        }
    }
}

/// A request that made no hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When, in µs since 1970.
    pub at_us: i64,
    /// Why not.
    pub reason: Reason,
    /// Its method.
    pub method: String,
    /// Its path and query, the front of it.
    pub path: String,
    /// As much of the client's address as is kept.
    pub address: Option<IpAddr>,
    /// Its user agent, the front of it.
    pub user_agent: String,
}

/// The last ones.
#[derive(Debug, Default)]
pub struct Unrecorded {
    ring: Mutex<Ring>,
    unlisted: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    notes: VecDeque<Note>,
    second: i64,
    in_second: u32,
}

impl Unrecorded {
    /// Takes a note, if there is room for one in this second and nobody else is at it. Only then is it made.
    pub fn note(&self, at_us: i64, make: impl FnOnce() -> Note) {
        if !self.try_note(at_us, make) {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_note(&self, at_us: i64, make: impl FnOnce() -> Note) -> bool {
        let Ok(mut ring) = self.ring.try_lock() else { return false };
        let second = at_us.div_euclid(1_000_000);
        if ring.second != second {
            (ring.second, ring.in_second) = (second, 0);
        }
        if ring.in_second >= NOTES_A_SECOND_MAX {
            return false;
        }
        ring.in_second += 1;
        if ring.notes.len() >= NOTES_MAX {
            ring.notes.pop_back();
        }
        ring.notes.push_front(make());
        true
    }

    /// The notes, newest first.
    #[must_use]
    pub fn latest(&self) -> Vec<Note> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).notes.iter().cloned().collect()
    }

    /// How many came too fast for a note.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }
}

/// The front of a text of a stranger's choosing.
#[must_use]
pub fn cut(text: &[u8]) -> String {
    // A character has four bytes at most.
    let front = &text[..text.len().min(4 * TEXT_CHARS_MAX)];
    let text = String::from_utf8_lossy(front);
    let mut kept: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(n: i64) -> Note {
        let (method, path) = ("GET".to_owned(), format!("/{n}"));
        Note { at_us: n, reason: Reason::WrongPath, method, path, address: None, user_agent: String::new() }
    }

    #[test]
    fn a_flood_keeps_the_last_of_each_second_and_counts_the_rest() {
        let unrecorded = Unrecorded::default();
        for n in 0..1000 {
            unrecorded.note(5_000_000, || note(n));
        }
        let paths: Vec<String> = unrecorded.latest().into_iter().map(|note| note.path).collect();
        assert_eq!(paths, (100..200).rev().map(|n| format!("/{n}")).collect::<Vec<_>>());
        assert_eq!(unrecorded.unlisted(), 800);
        unrecorded.note(6_000_000, || note(7));
        assert_eq!((unrecorded.latest()[0].path.as_str(), unrecorded.latest().len()), ("/7", NOTES_MAX));
    }

    #[test]
    fn nobody_waits_for_a_note() {
        let unrecorded = Unrecorded::default();
        let held = unrecorded.ring.lock().unwrap();
        unrecorded.note(0, || unreachable!("the ring is held"));
        drop(held);
        assert_eq!((unrecorded.latest().len(), unrecorded.unlisted()), (0, 1));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut(b"/x\xff"), "/x\u{fffd}");
        let long = "ä".repeat(500);
        assert_eq!(cut(long.as_bytes()), format!("{}…", "ä".repeat(TEXT_CHARS_MAX)));
        assert!(cut(&[0xff; 2000]).chars().count() <= TEXT_CHARS_MAX + 1);
        assert_eq!(cut("𝄞".repeat(TEXT_CHARS_MAX).as_bytes()), "𝄞".repeat(TEXT_CHARS_MAX));
    }
}
