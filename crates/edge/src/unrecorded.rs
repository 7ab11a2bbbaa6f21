//! The last requests that made no hit, each with its reason, for senders who wonder why nothing is recorded.
//!
//! Guarantees: no request is listed whose link may name somebody who opted out, whatever the reason, even if they opt
//! out later. Each reason has its own ring of the last [`NOTES_MAX`], so that probes for `/.env` push out nothing that
//! a sender looks for. The notes are in memory only, with as much of an address as `PIXELD_IP_PRIVACY` allows, and
//! texts cut to [`TEXT_CHARS_MAX`]. At most [`NOTES_A_SECOND_MAX`] of a reason are accepted a second, and none waits
//! for another, so that a flood of such requests costs almost nothing; a request that makes a hit never comes here.
//! Gives up: requests beyond that; they are only counted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::suppressed::Suppressed;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::RecipientId;
use pixeld_core::metrics::Outcome;

/// Notes of a reason that are kept.
pub const NOTES_MAX: usize = 30;

/// Notes of a reason that are accepted a second.
pub const NOTES_A_SECOND_MAX: u32 = 30;

/// Characters of a path and of a user agent that are kept.
pub const TEXT_CHARS_MAX: usize = 200;

/// Why a request made no hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The message or recipient is not a valid id or key.
    Malformed,
    /// A merge tag was left in the link.
    Unmerged,
    /// The link is not signed, and `PIXELD_REQUIRE_SIGNED` is on.
    Unsigned,
    /// A token that is not one of ours.
    Forged,
    /// The path has no image id in its place.
    NoImageId,
    /// No image has this id.
    UnknownImage,
    /// The image was deleted.
    DeletedImage,
    /// No such path.
    WrongPath,
    /// HEAD, which shows no image to anybody.
    Head,
    /// A method other than GET and HEAD.
    Method,
    /// A request with a body.
    Body,
    /// A request that is not HTTP.
    Unreadable,
    /// A request whose head is too long.
    TooLarge,
    /// Too many came from one address.
    AddressRate,
    /// The queue in memory was full.
    QueueFull,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 15] = [
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
        Reason::Unreadable,
        Reason::TooLarge,
        Reason::AddressRate,
        Reason::QueueFull,
    ];

    /// What such a request is counted as; `None` if it is answered like one that makes a hit, and counted as that.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Reason::Malformed => Some(Outcome::Malformed),
            Reason::Unmerged => Some(Outcome::Unmerged),
            Reason::Unsigned => Some(Outcome::Unsigned),
            Reason::Forged => Some(Outcome::Forged),
            Reason::NoImageId | Reason::UnknownImage => Some(Outcome::UnknownImage),
            Reason::DeletedImage => Some(Outcome::Deleted),
            Reason::WrongPath => Some(Outcome::NotFound),
            Reason::Method => Some(Outcome::MethodNotAllowed),
            Reason::Body => Some(Outcome::BodyRefused),
            Reason::Unreadable => Some(Outcome::Unreadable),
            Reason::TooLarge => Some(Outcome::TooLarge),
            Reason::Head | Reason::AddressRate | Reason::QueueFull => None,
        }
    }

    /// What was wrong, and what to do, each in a sentence.
    pub fn sentences(self) -> [&'static str; 2] {
        match self {
            Reason::Malformed => [
                "The message or recipient in the link is not a valid id.",
                "Use UUIDs, or a /t/ link, which takes your own keys.",
            ],
            Reason::Unmerged => [
                "The link still has a merge tag in it, or a word like null.",
                "Check how your mail program spells its merge tags, and whether every recipient has a value. Test emails often leave tags as they are.",
            ],
            Reason::Unsigned => [
                "The link is not signed.",
                "Make signed links, or set PIXELD_REQUIRE_SIGNED=false to record unsigned links, too.",
            ],
            Reason::Forged => [
                "The link's signature is wrong.",
                "Check that you copied the whole link, and that PIXELD_SIGNING_KEYS still has the key that signed it.",
            ],
            Reason::NoImageId => {
                ["The link has no image id.", "Copy the link again from the image's page. It ends like .png or .gif."]
            }
            Reason::UnknownImage => {
                ["There is no image with this id.", "Upload the image here, or use the id of an existing image."]
            }
            Reason::DeletedImage => {
                ["The image was deleted.", "Use another image. Old messages show a transparent image instead."]
            }
            Reason::WrongPath => [
                "This path does not exist.",
                "A pixel's path begins with /image/, /t/ or /o/. Check what your proxy passes on.",
            ],
            Reason::Head => [
                "The request asked only for the headers (HEAD).",
                "Nothing: link checkers do that, and nobody saw the image.",
            ],
            Reason::Method => {
                ["The request was neither GET nor HEAD.", "Nothing, unless one of your mail programs does that."]
            }
            Reason::Body => [
                "The request had a body, which no mail program sends.",
                "Nothing, unless one of your proxies does that.",
            ],
            Reason::Unreadable => [
                "The request is not valid HTTP, but its path could be read.",
                "Check the link for line breaks, and which headers your proxy adds.",
            ],
            Reason::TooLarge => [
                "The request's head was longer than 16 KiB.",
                "Check how long the link is, and whether your site sets many cookies for this name.",
            ],
            Reason::AddressRate => [
                "Too many requests came from this address.",
                "If these were real readers, raise PIXELD_ADDRESS_RATE or name your proxy in PIXELD_TRUSTED_PROXIES.",
            ],
            Reason::QueueFull => {
                ["The queue was full.", "The disk or the machine is too slow for this many requests. Look at its load."]
            }
        }
    }
}

/// A request that made no hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Micros,
    /// Why not.
    pub reason: Reason,
    /// Its method.
    pub method: String,
    /// The beginning of its path and query.
    pub path: String,
    /// As much of the client's address as is kept.
    pub address: Option<IpAddr>,
    /// The beginning of its user agent.
    pub user_agent: String,
}

/// The last ones.
#[derive(Debug)]
pub struct Unrecorded {
    suppressed: Arc<Suppressed>,
    /// Indexed by the reason's position in [`Reason::ALL`].
    rings: [Mutex<Ring>; Reason::ALL.len()],
    /// Paths that look like a link, but are not under one of our prefixes: scanners request many others.
    lost_links: Mutex<Ring>,
    unlisted: AtomicU64,
}

#[derive(Debug, Default)]
struct Ring {
    /// Each with the recipients whom it may name.
    notes: VecDeque<(Vec<RecipientId>, Note)>,
    second: i64,
    in_second: u32,
}

impl Unrecorded {
    /// No notes yet; recipients in `suppressed` are never noted.
    pub fn new(suppressed: Arc<Suppressed>) -> Unrecorded {
        let (rings, lost_links, unlisted) = Default::default();
        Unrecorded { suppressed, rings, lost_links, unlisted }
    }

    /// Notes a request for `path`, if this second has room for one and no other thread is writing. Only then does it
    /// find out whom the request may name, and make the note.
    pub fn note(
        &self,
        at: Micros,
        reason: Reason,
        path: &[u8],
        named: impl FnOnce() -> Vec<RecipientId>,
        make: impl FnOnce() -> Note,
    ) {
        let ring = match reason {
            Reason::WrongPath if is_like_a_link(path) => Some(&self.lost_links),
            reason => self.rings.get(reason as usize),
        };
        if ring.is_some_and(|ring| !self.try_note(ring, at, named, make)) {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_note(
        &self,
        ring: &Mutex<Ring>,
        at: Micros,
        named: impl FnOnce() -> Vec<RecipientId>,
        make: impl FnOnce() -> Note,
    ) -> bool {
        let Ok(mut ring) = ring.try_lock() else { return false };
        let second = at.seconds();
        if ring.second != second {
            (ring.second, ring.in_second) = (second, 0);
        }
        if ring.in_second >= NOTES_A_SECOND_MAX {
            return false;
        }
        ring.in_second += 1;
        let named = named();
        // Neither listed nor counted: leave no trace of a recipient who opted out.
        if self.names_somebody_out(&named) {
            return true;
        }
        if ring.notes.len() >= NOTES_MAX {
            ring.notes.pop_back();
        }
        ring.notes.push_front((named, make()));
        true
    }

    /// The notes, newest first. Those of recipients who opted out since are removed.
    pub fn latest(&self) -> Vec<Note> {
        let mut latest = Vec::new();
        for ring in self.rings.iter().chain([&self.lost_links]) {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.notes.retain(|(named, _)| !self.names_somebody_out(named));
            latest.extend(ring.notes.iter().map(|(_, note)| note.clone()));
        }
        latest.sort_by_key(|note| std::cmp::Reverse(note.at));
        latest
    }

    fn names_somebody_out(&self, named: &[RecipientId]) -> bool {
        named.iter().any(|&id| self.suppressed.is_out(id))
    }

    /// How many came too fast for a note.
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }
}

/// Whether a path has a part like a link's, under any prefix.
fn is_like_a_link(path: &[u8]) -> bool {
    let parts = [&b"/image/"[..], b"/t/", b"/o/", b"/opt-out/"];
    parts.iter().any(|part| path.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part)))
}

/// The beginning of a text that a stranger chose.
pub fn cut(text: &[u8]) -> String {
    // A character has at most four bytes.
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

    use pixeld_core::privacy::{PrivacyKey, Suppression};

    fn note(n: i64, reason: Reason) -> Note {
        let (method, path) = ("GET".to_owned(), format!("/{n}"));
        Note { at: Micros(n), reason, method, path, address: None, user_agent: String::new() }
    }

    fn unrecorded() -> Unrecorded {
        Unrecorded::new(Arc::default())
    }

    /// Notes a request for a path at the time `n`.
    fn take(unrecorded: &Unrecorded, n: i64, reason: Reason, path: &str) {
        unrecorded.note(Micros(n), reason, path.as_bytes(), Vec::new, || note(n, reason));
    }

    fn paths(unrecorded: &Unrecorded) -> Vec<String> {
        unrecorded.latest().into_iter().map(|note| note.path).collect()
    }

    #[test]
    fn a_flood_keeps_the_first_of_each_second_and_counts_the_rest() {
        let unrecorded = unrecorded();
        for n in 0..1000 {
            take(&unrecorded, 5_000_000 + n, Reason::WrongPath, "/.env");
        }
        assert_eq!(paths(&unrecorded), (5_000_000..5_000_030).rev().map(|n| format!("/{n}")).collect::<Vec<_>>());
        assert_eq!(unrecorded.unlisted(), 970);
        take(&unrecorded, 6_000_000, Reason::WrongPath, "/");
        let paths = paths(&unrecorded);
        assert_eq!((paths[0].as_str(), paths.len()), ("/6000000", NOTES_MAX));
    }

    #[test]
    fn scanners_requests_push_out_nothing_that_a_sender_looks_for() {
        let unrecorded = unrecorded();
        for (n, reason) in (0..).zip(Reason::ALL) {
            take(&unrecorded, n, reason, "/");
        }
        take(&unrecorded, 100, Reason::WrongPath, "/base/IMAGE/x.gif");
        for second in 1..1000 {
            for n in 0..20 {
                take(&unrecorded, second * 1_000_000 + n, Reason::WrongPath, "/.env");
            }
        }
        let latest = unrecorded.latest();
        for reason in Reason::ALL {
            assert!(latest.iter().any(|note| note.reason == reason), "{reason:?}");
        }
        assert!(latest.iter().any(|note| note.at == Micros(100)), "a link under a wrong path is none of them");
        assert_eq!(latest.len(), NOTES_MAX + Reason::ALL.len());
    }

    #[test]
    fn each_reason_has_its_own_ring() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
        }
    }

    #[test]
    fn nobody_who_opted_out_is_listed_even_if_they_did_so_later() {
        let suppressed = Arc::new(Suppressed::default());
        let key = PrivacyKey([7; 32]);
        suppressed.know(key.clone());
        let [early, late, other] = [1, 2, 3].map(RecipientId::from_u128);
        let unrecorded = Unrecorded::new(Arc::clone(&suppressed));
        let out = |id: RecipientId, change: i64| {
            suppressed.apply(&[Suppression { hash: key.hash(id), since: Micros(1), until: None, change }]);
        };
        out(early, 1);
        for (n, id) in (1..).zip([early, late, other]) {
            unrecorded.note(
                Micros(n),
                Reason::Head,
                b"/",
                || vec![RecipientId::from_u128(9), id],
                || note(n, Reason::Head),
            );
        }
        assert_eq!(paths(&unrecorded), ["/3", "/2"]);
        out(late, 2);
        assert_eq!((paths(&unrecorded), unrecorded.unlisted()), (vec!["/3".to_owned()], 0));
    }

    #[test]
    fn nobody_waits_for_a_note() {
        let unrecorded = unrecorded();
        let held = unrecorded.rings[Reason::WrongPath as usize].lock().unwrap();
        unrecorded.note(Micros(0), Reason::WrongPath, b"/", || unreachable!("the ring is held"), || unreachable!());
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
