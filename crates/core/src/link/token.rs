//! Signed link tokens: ids and send time that nobody can forge or change without the key.
//!
//! ```text
//! base64url without padding of
//!   version u8 = 1 | key id u8 | sent_at u32 big-endian, s since 1970, 0 = unknown
//!   | image 16 | message 16 | recipient 16 (nil = absent)
//!   | the first 16 bytes of HMAC-SHA256(key, all before it)
//! ```
//!
//! 70 bytes, 94 characters. Each token has one spelling (`signed.rs`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::signed;
use crate::digest::Hex;
use crate::ids::{ImageId, MessageId, RecipientId};

/// Characters of a token.
pub const TOKEN_CHARS: usize = 94;

/// The shortest signing key, in bytes.
pub const KEY_BYTES_MIN: usize = 16;

const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 1 + 4 + 3 * 16;
const TOKEN_BYTES: usize = SIGNED_BYTES + signed::MAC_BYTES;
/// Nothing but the token is signed.
const DOMAIN: &[u8] = b"";

/// The number of the key that a token names, even if the token is invalid.
pub fn key_id(text: &str) -> Option<u8> {
    // The first three bytes contain the version and the number.
    let front = URL_SAFE_NO_PAD.decode(text.get(..4)?).ok()?;
    front.get(1).copied()
}

/// The contents of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// When its message was sent, in seconds since 1970-01-01 UTC; 0 is unknown.
    pub sent_at_s: u32,
    /// The image.
    pub image: ImageId,
    /// The message; nil if absent.
    pub message: MessageId,
    /// The recipient; nil if absent.
    pub recipient: RecipientId,
}

/// A text is not a token of ours: forged, altered, respelt, or signed with a key that we do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token was not signed with a key of this installation")]
pub struct Forged;

/// The keys of tokens, the newest first: it signs, all of them verify.
#[derive(Clone, Default)]
pub struct SigningKeys(Vec<SigningKey>);

#[derive(Clone)]
struct SigningKey {
    id: u8,
    /// The state after the key's own block, so that a token costs two blocks of SHA-256 instead of four.
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

impl SigningKeys {
    /// Reads `id:base64,…`, the newest first; an id is 0 to 255, a key at least [`KEY_BYTES_MIN`] bytes.
    ///
    /// # Errors
    /// What is wrong, without any of the keys in it.
    pub fn parse(text: &str) -> Result<SigningKeys, String> {
        let mut keys = Vec::new();
        for (place, entry) in (1..).zip(text.split(',')) {
            let (id, key) = entry.trim().split_once(':').ok_or(format!("has no colon in its entry {place}"))?;
            let id: u8 =
                id.trim().parse().map_err(|_| format!("has an id in its entry {place} that is not 0 to 255"))?;
            let key = key.trim();
            // Accept every base64 spelling of a key: the tool that made it may use any.
            let bytes = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
                .iter()
                .find_map(|engine| engine.decode(key).ok())
                .ok_or(format!("has a key in its entry {place} that is not base64"))?;
            if bytes.len() < KEY_BYTES_MIN {
                let have = bytes.len();
                return Err(format!("has a key of {have} bytes in its entry {place}; the minimum is {KEY_BYTES_MIN}"));
            }
            if keys.iter().any(|key: &SigningKey| key.id == id) {
                return Err(format!("has the id {id} twice"));
            }
            let keyed = Hmac::new_from_slice(&bytes)
                .map_err(|_| format!("has a key in its entry {place} of a wrong length"))?;
            keys.push(SigningKey { id, keyed });
        }
        Ok(SigningKeys(keys))
    }

    /// Whether there is no key: then no token is ours.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Digests that identify the keys without revealing them, the newest first: the id, and the first bytes of a
    /// signature.
    pub fn digests(&self) -> Vec<String> {
        let digest = |key: &SigningKey| {
            let mac = key.keyed.clone().chain_update(b"which key").finalize().into_bytes();
            format!("{}:{}", key.id, Hex(&mac[..8]))
        };
        self.0.iter().map(digest).collect()
    }

    /// The key that signs, and its id.
    pub(super) fn newest(&self) -> Option<(u8, &Hmac<Sha256>)> {
        self.0.first().map(|key| (key.id, &key.keyed))
    }

    /// The key with this id.
    pub(super) fn of(&self, id: u8) -> Option<&Hmac<Sha256>> {
        self.0.iter().find(|key| key.id == id).map(|key| &key.keyed)
    }

    /// The token, signed with the newest key; `None` if there is no key.
    pub fn sign(&self, token: &Token) -> Option<String> {
        let (id, key) = self.newest()?;
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.extend_from_slice(&[VERSION, id]);
        bytes.extend_from_slice(&token.sent_at_s.to_be_bytes());
        for id in [token.image.as_bytes(), token.message.as_bytes(), token.recipient.as_bytes()] {
            bytes.extend_from_slice(id);
        }
        Some(signed::write(key, DOMAIN, bytes))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`Forged`], whatever is wrong with it.
    pub fn verify(&self, text: &str) -> Result<Token, Forged> {
        let decoded: [u8; signed::room(TOKEN_BYTES)] = signed::read(text, TOKEN_BYTES).ok_or(Forged)?;
        let (signed, mac) = decoded[..TOKEN_BYTES].split_at(SIGNED_BYTES);
        let [VERSION, id, rest @ ..] = signed else { return Err(Forged) };
        let key = self.of(*id).filter(|key| signed::is_of(key, DOMAIN, signed, mac));
        key.ok_or(Forged)?;
        let (sent_at, ids) = rest.split_first_chunk::<4>().ok_or(Forged)?;
        let mut ids = ids.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok());
        let mut next = || ids.next().ok_or(Forged);
        Ok(Token {
            sent_at_s: u32::from_be_bytes(*sent_at),
            image: next()?.into(),
            message: next()?.into(),
            recipient: next()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 32 bytes from 0 up, and 32 from 32 up.
    const KEYS: &str = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn keys() -> SigningKeys {
        SigningKeys::parse(KEYS).unwrap()
    }

    fn any_token() -> impl Strategy<Value = Token> {
        any::<(u32, u128, u128, u128)>().prop_map(|(sent_at_s, image, message, recipient)| Token {
            sent_at_s,
            image: ImageId::from_u128(image),
            message: MessageId::from_u128(message),
            recipient: RecipientId::from_u128(recipient),
        })
    }

    proptest! {
        #[test]
        fn what_was_signed_reads_back_and_no_other_text_does(token in any_token(), at in 0..TOKEN_CHARS, other in "[-A-Za-z0-9_=+/. ]") {
            let text = keys().sign(&token).unwrap();
            prop_assert_eq!(text.len(), TOKEN_CHARS);
            prop_assert_eq!(keys().verify(&text), Ok(token));
            let mut altered = text.clone();
            altered.replace_range(at..=at, &other);
            if altered != text {
                prop_assert_eq!(keys().verify(&altered), Err(Forged), "{} for {}", altered, text);
            }
            prop_assert_eq!(keys().verify(&text[..at]), Err(Forged));
            prop_assert_eq!(keys().verify(&format!("{text}{other}")), Err(Forged));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String, long in "[-A-Za-z0-9_]{94}") {
            prop_assert_eq!(keys().verify(&text), Err(Forged));
            prop_assert_eq!(keys().verify(&long), Err(Forged));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_spelling_is_forged() {
        let token = Token {
            sent_at_s: 7,
            image: ImageId::from_u128(1),
            message: MessageId::from_u128(2),
            recipient: RecipientId::NONE,
        };
        let text = keys().sign(&token).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys().verify(&URL_SAFE_NO_PAD.encode(flipped)), Err(Forged), "bit {bit}");
        }
        // The last character carries four bits; the two left over must be zero.
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let spelled = ALPHABET.iter().filter(|&&last| {
            let other = format!("{}{}", &text[..TOKEN_CHARS - 1], char::from(last));
            keys().verify(&other).is_ok()
        });
        assert_eq!(spelled.count(), 1);
        assert_eq!(keys().verify(&format!("{text}==")), Err(Forged));
    }

    #[test]
    fn an_older_key_verifies_and_a_removed_one_does_not() {
        let token = Token {
            sent_at_s: 7,
            image: ImageId::from_u128(1),
            message: MessageId::NONE,
            recipient: RecipientId::NONE,
        };
        let (newer, older) = KEYS.split_once(',').unwrap();
        let text = SigningKeys::parse(older).unwrap().sign(&token).unwrap();
        assert_eq!(keys().verify(&text), Ok(token));
        assert_eq!(SigningKeys::parse(newer).unwrap().verify(&text), Err(Forged));
        // The same id with another key.
        let other = SigningKeys::parse(&newer.replace("2:", "1:")).unwrap();
        assert_eq!(other.verify(&text), Err(Forged));
        assert_eq!(SigningKeys::default().verify(&text), Err(Forged));
        assert_eq!(SigningKeys::default().sign(&token), None);
    }

    #[test]
    fn wrong_keys_are_refused_without_showing_them() {
        for (text, said) in [
            ("", "no colon in its entry 1"),
            ("geheimgeheimgeheimgeheim", "no colon"),
            ("256:AAECAwQFBgcICQoLDA0ODw==", "not 0 to 255"),
            ("1:geheim!", "not base64"),
            ("1:Z2VoZWlt", "6 bytes"),
            ("1:AAECAwQFBgcICQoLDA0ODw==,1:AAECAwQFBgcICQoLDA0ODx==", "entry 2"),
            ("1:AAECAwQFBgcICQoLDA0ODw==,1:AAECAwQFBgcICQoLDA0ODw==", "id 1 twice"),
            ("1:AAECAwQFBgcICQoLDA0ODw==,", "no colon in its entry 2"),
        ] {
            let error = SigningKeys::parse(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("geheim"), "{text}: {error}");
        }
        assert_eq!(format!("{:?}", keys()), "[2, 1]");
    }
}
