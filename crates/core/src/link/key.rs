//! Keys: a sender's own ids that are not UUIDs, such as a subscriber's number or a hash.
//!
//! A key is 1 to [`KEY_BYTES_MAX`] bytes. A UUID stays itself; any other key becomes the version 5 UUID of its bytes
//! under this installation's namespace, so that keys of two installations never collide, and nobody can compute a key's
//! id without the namespace. Values that a sender's program did not fill in (see `merge_tag`) are rejected, since they
//! would make one recipient of all.
//! Guarantees: one reading, wherever a key is read: in a link, in a cell of a list, typed on a page or into a command.
//! It is percent-decoded until nothing encoded is left; invisible characters and line breaks are removed; other blanks
//! become plain ones; those at both ends are removed. So reading the result again changes nothing, and a link that is
//! made from it names the same key.
//! Gives up: a key that literally contains a percent sign and two hexadecimal digits, and a key that was encoded more
//! than [`READINGS_MAX`] times, which is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use uuid::Uuid;

use super::merge_tag::is_unfilled;
use super::parse_uuid;

/// Maximum bytes of a key, after percent-decoding.
pub const KEY_BYTES_MAX: usize = 128;

/// How often a key is decoded and cleaned at most, until nothing changes.
const READINGS_MAX: usize = 5;

/// The namespace that turns this installation's keys into UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace(pub Uuid);

impl Namespace {
    /// The id of a key.
    pub fn id_of<Id: From<Uuid>>(self, key: &Key<'_>) -> Id {
        match key {
            Key::Id(id) => *id,
            Key::Text(text) => Uuid::new_v5(&self.0, text),
        }
        .into()
    }
}

/// A key that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key<'a> {
    /// A UUID, which stays itself; nil means absent.
    Id(Uuid),
    /// Its bytes.
    Text(Cow<'a, [u8]>),
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The sender's program did not replace its merge tag.
    #[error("it is a merge tag that was not replaced, or a word like null")]
    Unmerged,
    /// Nothing is left of it without blanks and invisible characters.
    #[error("it is empty; a key has 1 to {KEY_BYTES_MAX} bytes")]
    Empty,
    /// It is too long.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Length,
    /// It is still encoded after the maximum number of decodings.
    #[error("it is percent-encoded more than {READINGS_MAX} times")]
    Encoded,
}

impl<'a> Key<'a> {
    /// Reads a part of a path. A percent sign before anything but two hexadecimal digits is literal, as in all
    /// browsers.
    pub fn in_path(part: &'a str) -> Result<Key<'a>, KeyError> {
        Key::read(part.as_bytes())
    }

    /// Reads a typed text, or a cell of a list: like a part of a link, since it may have been copied from one.
    pub fn typed(text: &'a str) -> Result<Key<'a>, KeyError> {
        Key::read(text.as_bytes())
    }

    /// How a typed text is read, if that differs from the text.
    pub fn reading(text: &str) -> Option<String> {
        match Key::typed(text).ok()? {
            Key::Text(read) => (*read != *text.as_bytes()).then(|| String::from_utf8_lossy(&read).into_owned()),
            Key::Id(id) => parse_uuid::<Uuid>(text.as_bytes()).is_none().then(|| id.to_string()),
        }
    }

    fn read(text: &'a [u8]) -> Result<Key<'a>, KeyError> {
        let mut read = Cow::Borrowed(text);
        // Tags are searched each time: decoding removes the first letters of `%%FACE%%`.
        for _ in 0..READINGS_MAX {
            let next = cleaned(&read);
            if is_unfilled(next.as_deref().unwrap_or(&read)) {
                return Err(KeyError::Unmerged);
            }
            let clean = next.is_none();
            read = next.map_or(read, Cow::Owned);
            match Cow::from(percent_decode(&read)) {
                Cow::Owned(decoded) => read = Cow::Owned(decoded),
                Cow::Borrowed(_) if clean => return Key::of(read),
                Cow::Borrowed(_) => {}
            }
        }
        Err(KeyError::Encoded)
    }

    /// The same, with its own bytes.
    pub(super) fn into_owned(self) -> Key<'static> {
        match self {
            Key::Id(id) => Key::Id(id),
            Key::Text(text) => Key::Text(text.into_owned().into()),
        }
    }

    fn of(bytes: Cow<'a, [u8]>) -> Result<Key<'a>, KeyError> {
        if let Some(id) = parse_uuid(&bytes) {
            return Ok(Key::Id(id));
        }
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Key::Text(bytes)),
            _ => Err(KeyError::Length),
        }
    }
}

/// A text without invisible characters, line breaks, and blanks at its ends; `None` if it is unchanged.
fn cleaned(text: &[u8]) -> Option<Vec<u8>> {
    let is_plain = text.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic());
    if is_plain && text.trim_ascii().len() == text.len() {
        return None;
    }
    let mut clean = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_blank(c) {
                clean.push(b' ');
            } else if !is_invisible(c) {
                clean.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        match chunk.invalid() {
            // The non-breaking space in the older encodings of Western Europe.
            [0xa0] => clean.push(b' '),
            other => clean.extend_from_slice(other),
        }
    }
    let clean = clean.trim_ascii().to_vec();
    (clean != text).then_some(clean)
}

/// A blank that counts as a plain space. Line breaks do not: mail transports insert them.
fn is_blank(c: char) -> bool {
    c == '\t' || (c.is_whitespace() && !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}'))
}

/// Invisible characters: controls, direction marks, joiners, soft hyphens, byte order marks.
fn is_invisible(c: char) -> bool {
    let is_mark = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    is_mark || c.is_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMESPACE: Namespace = Namespace(Uuid::from_u128(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8));

    fn text(bytes: &[u8]) -> Result<Key<'_>, KeyError> {
        Ok(Key::Text(bytes.into()))
    }

    #[test]
    fn keys_are_decoded_and_uuids_stay_themselves() {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let long = "x".repeat(KEY_BYTES_MAX);
        for (part, expected) in [
            ("4711", text(b"4711")),
            ("jane%40example.com", text(b"jane@example.com")),
            ("a%2Fb%00c", text(b"a/bc")),
            ("50%", text(b"50%")),
            ("50%zz", text(b"50%zz")),
            ("0123456789ABCDEF0123456789abcdef", Ok(Key::Id(id))),
            ("01234567-89ab-cdef-0123-456789abcdef", Ok(Key::Id(id))),
            ("01234567%2D89ab-cdef-0123-456789abcdef", Ok(Key::Id(id))),
            ("{01234567-89ab-cdef-0123-456789abcdef}", text(b"{01234567-89ab-cdef-0123-456789abcdef}")),
            ("00000000000000000000000000000000", Ok(Key::Id(Uuid::nil()))),
            ("", Err(KeyError::Empty)),
            (&long, text(long.as_bytes())),
            (&format!("{long}x"), Err(KeyError::Length)),
            (&"%41".repeat(KEY_BYTES_MAX), text(&[b'A'; KEY_BYTES_MAX])),
        ] {
            assert_eq!(Key::in_path(part), expected, "{part}");
        }
    }

    #[test]
    fn blanks_invisible_characters_and_encodings_mean_the_same_recipient() {
        let same = [
            (
                "4711",
                &[
                    "4711 ",
                    " 4711",
                    "%204711%0D%0A",
                    "4711%00",
                    "%C2%A04711",
                    "4711%A0",
                    "4711\u{a0}",
                    "%E2%80%8B4711",
                    "47%E2%80%8B11",
                    "\u{feff}4711",
                    "%EF%BB%BF4711",
                    "4711\u{200c}\u{200d}",
                    "%34711",
                    "%2534711",
                    "4711%09",
                    "4711%C2%85",
                    "47\u{ad}11",
                    "\u{202a}4711\u{202c}",
                    "4711%E3%80%80",
                    "4711%7F",
                    "4711%250A",
                    "47%0D%0A11",
                ][..],
            ),
            (
                "jane@example.com",
                &[
                    "jane%40example.com",
                    "jane%2540example.com",
                    "jane%252540example.com",
                    "%20jane@example.com",
                    "jane\u{200b}@example.com",
                ],
            ),
            (
                "Jane Doe",
                &[
                    "Jane%20Doe",
                    "Jane\u{a0}Doe",
                    "Jane%C2%A0Doe",
                    "Jane%09Doe",
                    "Jane%2520Doe",
                    " Jane\u{2003}Doe\t",
                    "Jane%0D%0A%20Doe",
                ],
            ),
            ("m\u{fc}ller", &["m%C3%BCller", "m%25C3%25BCller", "m\u{fc}ller "]),
            ("50%", &["50%25", "50%2525", "50% "]),
        ];
        for (key, spellings) in same {
            for spelling in spellings {
                assert_eq!(Key::in_path(spelling), text(key.as_bytes()), "{spelling:?}");
                assert_eq!(Key::typed(spelling), text(key.as_bytes()), "{spelling:?}");
            }
        }
        let id = "0123456789ABCDEF0123456789abcdef";
        assert_eq!(Key::typed(&format!("\u{feff} {id}\u{200b}\n")), Ok(Key::Id(id.parse().unwrap())));
    }

    #[test]
    fn other_differences_make_other_recipients_and_blanks_alone_none() {
        for (one, other) in
            [("Jane Doe", "JaneDoe"), ("Jane  Doe", "Jane Doe"), ("4711.50", "4711"), ("a+b", "a b"), ("Jane", "jane")]
        {
            assert_ne!(Key::typed(one), Key::typed(other), "{one:?}");
        }
        for empty in [" ", "%20", "\u{200b}", "%0D%0A", "%C2%A0%EF%BB%BF", "%2520"] {
            assert_eq!(Key::typed(empty), Err(KeyError::Empty), "{empty:?}");
        }
        assert_eq!(Key::typed(&format!("a%{}41", "25".repeat(9))), Err(KeyError::Encoded));
    }

    #[test]
    fn an_id_is_the_standards_version_5() {
        // From Python: uuid.uuid5(uuid.NAMESPACE_DNS, "python.org").
        let id: Uuid = NAMESPACE.id_of(&Key::typed("python.org").unwrap());
        assert_eq!(id.to_string(), "886313e1-3b8a-5372-9b90-0c9aee199e5d");
    }

    proptest! {
        #[test]
        fn any_part_is_a_key_or_refused(part: String) {
            if let Ok(Key::Text(bytes)) = Key::in_path(&part) {
                prop_assert!((1..=KEY_BYTES_MAX).contains(&bytes.len()));
            }
        }

        #[test]
        fn a_key_that_was_read_is_itself_again_however_often_it_is_encoded(part: String, bytes in prop::collection::vec(any::<u8>(), 0..40), signs in "[%0-4aA\u{200b} ]{0,12}") {
            let encoded = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
            for part in [part, encoded(&bytes), signs] {
                let Ok(Key::Text(key)) = Key::in_path(&part) else { continue };
                let once = encoded(&key);
                for again in [once.replace('%', "%25"), once] {
                    prop_assert_eq!(Key::in_path(&again), Ok(Key::Text(key.clone())), "{}", again);
                }
            }
        }

        #[test]
        fn plain_keys_keep_the_bytes_that_they_always_had(key in "[A-Za-z0-9._~+=@,;!'()/&-]([A-Za-z0-9._~+=@,;!'()/& -]{0,60}[A-Za-z0-9._~+=@,;!'()/&-])?") {
            prop_assume!(!is_unfilled(key.as_bytes()) && parse_uuid::<Uuid>(key.as_bytes()).is_none());
            prop_assert_eq!(Key::typed(&key), text(key.as_bytes()));
        }
    }
}
