//! Keys: a sender's own ids that are no UUIDs, like a subscriber's number or a hash.
//!
//! A key is 1 to [`KEY_BYTES_MAX`] bytes, percent-decoded. One that is a UUID stays itself; any other becomes the UUID of
//! version 5 of its bytes under this installation's namespace, so that keys of two installations never meet, and nobody can
//! tell a key from its id without the namespace. A merge tag that the sender's program left in the link (`*|UNIQID|*`) is
//! told apart, since it would make one recipient of all.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::parse_uuid;

/// The longest key, in bytes after percent-decoding.
pub const KEY_BYTES_MAX: usize = 128;

/// What this installation's keys are made UUIDs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace(pub Uuid);

impl Namespace {
    /// The id of a key.
    #[must_use]
    pub fn id_of(self, key: &Key<'_>) -> Uuid {
        match key {
            Key::Id(id) => *id,
            Key::Text(text) => Uuid::new_v5(&self.0, text),
        }
    }
}

/// A key that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key<'a> {
    /// It is a UUID, and stays itself; nil means absent.
    Id(Uuid),
    /// Its bytes.
    Text(Cow<'a, [u8]>),
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The sender's program did not replace its merge tag.
    #[error("it is a merge tag that was not replaced")]
    Unmerged,
    /// It is empty or too long.
    #[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
    Length,
}

impl<'a> Key<'a> {
    /// Reads a part of a path. A percent sign that begins no pair of hexadecimal digits is itself, as in all browsers.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn in_path(part: &'a str) -> Result<Key<'a>, KeyError> {
        let decoded: Cow<'a, [u8]> = percent_decode_str(part).into();
        // Looked for in the raw text too: `%%FACE%%` would lose its first letters to the decoding.
        if has_merge_tag(part.as_bytes()) || has_merge_tag(&decoded) {
            return Err(KeyError::Unmerged);
        }
        Key::of(decoded)
    }

    /// Reads what a person typed, as it is.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn typed(text: &'a str) -> Result<Key<'a>, KeyError> {
        if has_merge_tag(text.as_bytes()) {
            return Err(KeyError::Unmerged);
        }
        Key::of(text.as_bytes().into())
    }

    /// The same, with bytes of its own.
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
        if (1..=KEY_BYTES_MAX).contains(&bytes.len()) { Ok(Key::Text(bytes)) } else { Err(KeyError::Length) }
    }
}

/// Whether a text holds `*|…|*` (Mailchimp), `{{…}}` (listmonk, HubSpot, many others) or `%%…%%` (Salesforce), or is `[…]`
/// (Brevo's older ones, SendGrid).
#[must_use]
pub fn has_merge_tag(text: &[u8]) -> bool {
    let holds = |open: &[u8; 2], close: &[u8; 2]| {
        let find = |text: &[u8], what: &[u8; 2]| text.windows(2).position(|pair| pair == what);
        find(text, open).is_some_and(|at| find(&text[at + 2..], close).is_some())
    };
    holds(b"*|", b"|*") || holds(b"{{", b"}}") || holds(b"%%", b"%%") || matches!(text, [b'[', .., b']'])
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
            ("a%2Fb%00c", text(b"a/b\0c")),
            ("50%", text(b"50%")),
            ("50%zz", text(b"50%zz")),
            ("0123456789ABCDEF0123456789abcdef", Ok(Key::Id(id))),
            ("01234567-89ab-cdef-0123-456789abcdef", Ok(Key::Id(id))),
            ("01234567%2D89ab-cdef-0123-456789abcdef", Ok(Key::Id(id))),
            ("{01234567-89ab-cdef-0123-456789abcdef}", text(b"{01234567-89ab-cdef-0123-456789abcdef}")),
            ("00000000000000000000000000000000", Ok(Key::Id(Uuid::nil()))),
            ("", Err(KeyError::Length)),
            (&long, text(long.as_bytes())),
            (&format!("{long}x"), Err(KeyError::Length)),
            (&"%41".repeat(KEY_BYTES_MAX), text(&[b'A'; KEY_BYTES_MAX])),
        ] {
            assert_eq!(Key::in_path(part), expected, "{part}");
        }
    }

    #[test]
    fn merge_tags_are_recognised_in_every_spelling() {
        for part in [
            "*|UNIQID|*",
            "*%7CUNIQID%7C*",
            "%2A%7CUNIQID%7C%2A",
            "{{ subscriber.id }}",
            "%7B%7B%20.Subscriber.UUID%20%7D%7D",
            "campaign-{{id}}",
            "%%FACE%%",
            "%%EMAIL%%",
            "%25%25EMAIL%25%25",
            "[UNIQID]",
            "%5BUNIQID%5D",
        ] {
            assert_eq!(Key::in_path(part), Err(KeyError::Unmerged), "{part}");
        }
        for part in ["*", "|*x*|", "{id}", "{{id}", "%%", "%%x", "[", "[x", "a[1]", "*|*"] {
            assert_ne!(Key::in_path(part), Err(KeyError::Unmerged), "{part}");
        }
    }

    #[test]
    fn an_id_is_the_standards_version_5() {
        // From Python: uuid.uuid5(uuid.NAMESPACE_DNS, "python.org").
        let id = NAMESPACE.id_of(&Key::typed("python.org").unwrap());
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
        fn what_is_percent_encoded_reads_back(bytes in prop::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX)) {
            let part: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            let key = Key::in_path(&part);
            prop_assume!(key != Err(KeyError::Unmerged) && !matches!(key, Ok(Key::Id(_))));
            prop_assert_eq!(key, Ok(Key::Text(bytes.into())));
        }
    }
}
