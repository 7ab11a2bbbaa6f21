//! Opt-out links: a token that names a recipient, for the page on which that recipient opts out.
//!
//! ```text
//! base64url without padding of
//!   kind u8: 2 = signed with a key of PIXELD_SIGNING_KEYS, 3 = with the installation's own | key id u8 (of kind 3: 0)
//!   | recipient 16
//!   | the first 16 bytes of HMAC-SHA256(key, "pixeld opt-out" || all before it)
//! ```
//!
//! 34 bytes, 46 characters; each token has one spelling. It cannot be confused with the token of a pixel's link:
//! length, first byte and the signed bytes all differ. Links of both kinds stay valid side by side, so that signing
//! keys can be set later.

use hmac::{Hmac, KeyInit};
use sha2::Sha256;
use uuid::Uuid;

use super::signed;
use super::token::{Forged, SigningKeys};
use crate::ids::RecipientId;

/// The prefix of the path of such a link.
pub const PATH: &str = "/opt-out/";

/// Characters of a token.
pub const TOKEN_CHARS: usize = 46;

const DOMAIN: &[u8] = b"pixeld opt-out";
const KIND_SHARED: u8 = 2;
const KIND_OWN: u8 = 3;
const SIGNED_BYTES: usize = 1 + 1 + 16;
const TOKEN_BYTES: usize = SIGNED_BYTES + signed::MAC_BYTES;

/// The keys of opt-out links.
#[derive(Clone)]
pub struct OptOutKeys {
    shared: SigningKeys,
    own: Hmac<Sha256>,
}

impl OptOutKeys {
    /// The keys of `PIXELD_SIGNING_KEYS`, and the installation's own (`opt_out_key`).
    pub fn new(shared: SigningKeys, own: [u8; 32]) -> OptOutKeys {
        // HMAC pads a key with zeros to its block.
        let mut block = [0; 64];
        block.iter_mut().zip(own).for_each(|(to, from)| *to = from);
        OptOutKeys { shared, own: Hmac::new(&block.into()) }
    }

    /// The token of a recipient, signed with the newest signing key, or with the installation's own if there is none.
    pub fn sign(&self, recipient: RecipientId) -> String {
        let (kind, id, key) = match self.shared.newest() {
            Some((id, key)) => (KIND_SHARED, id, key),
            None => (KIND_OWN, 0, &self.own),
        };
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.extend_from_slice(&[kind, id]);
        bytes.extend_from_slice(recipient.as_bytes());
        signed::write(key, DOMAIN, bytes)
    }

    /// The recipient of a token.
    ///
    /// # Errors
    /// [`Forged`], whatever is wrong with it.
    pub fn verify(&self, text: &str) -> Result<RecipientId, Forged> {
        let decoded: [u8; signed::room(TOKEN_BYTES)] = signed::read(text, TOKEN_BYTES).ok_or(Forged)?;
        let (signed, mac) = decoded[..TOKEN_BYTES].split_at(SIGNED_BYTES);
        let key = match signed {
            [KIND_SHARED, id, ..] => self.shared.of(*id).ok_or(Forged)?,
            [KIND_OWN, 0, ..] => &self.own,
            _ => return Err(Forged),
        };
        let recipient = Uuid::from_slice(&signed[2..]).map(RecipientId::of).map_err(|_| Forged)?;
        if signed::is_of(key, DOMAIN, signed, mac) && !recipient.is_nil() { Ok(recipient) } else { Err(Forged) }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::Mac;
    use proptest::prelude::*;

    use super::*;
    use crate::link::token::{self, Token};

    const KEYS: &str = "2:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=,1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn shared() -> OptOutKeys {
        OptOutKeys::new(SigningKeys::parse(KEYS).unwrap(), [9; 32])
    }

    fn own() -> OptOutKeys {
        OptOutKeys::new(SigningKeys::default(), [9; 32])
    }

    proptest! {
        #[test]
        fn what_was_signed_reads_back_and_no_other_text_does(
            recipient in 1u128.., at in 0..TOKEN_CHARS, other in "[-A-Za-z0-9_=+/. ]",
        ) {
            let recipient = RecipientId::from_u128(recipient);
            for keys in [shared(), own()] {
                let text = keys.sign(recipient);
                prop_assert_eq!(text.len(), TOKEN_CHARS);
                prop_assert_eq!(keys.verify(&text), Ok(recipient));
                let mut altered = text.clone();
                altered.replace_range(at..=at, &other);
                if altered != text {
                    prop_assert_eq!(keys.verify(&altered), Err(Forged), "{} for {}", altered, text);
                }
                prop_assert_eq!(keys.verify(&text[..at]), Err(Forged));
                prop_assert_eq!(keys.verify(&format!("{text}{other}")), Err(Forged));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String, long in "[-A-Za-z0-9_]{46}") {
            prop_assert_eq!(shared().verify(&text), Err(Forged));
            prop_assert_eq!(shared().verify(&long), Err(Forged));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_other_spelling_is_forged() {
        for keys in [shared(), own()] {
            let text = keys.sign(RecipientId::from_u128(5));
            let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(keys.verify(&URL_SAFE_NO_PAD.encode(flipped)), Err(Forged), "bit {bit}");
            }
            const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let spelled = ALPHABET.iter().filter(|&&last| {
                let other = format!("{}{}", &text[..TOKEN_CHARS - 1], char::from(last));
                keys.verify(&other).is_ok()
            });
            assert_eq!(spelled.count(), 1);
        }
        assert_eq!(shared().verify(&shared().sign(RecipientId::NONE)), Err(Forged));
    }

    #[test]
    fn links_made_before_signing_keys_were_set_stay_good_and_a_removed_keys_do_not() {
        let recipient = RecipientId::from_u128(5);
        assert_eq!(shared().verify(&own().sign(recipient)), Ok(recipient));
        assert_eq!(own().verify(&shared().sign(recipient)), Err(Forged));
        let older = OptOutKeys::new(SigningKeys::parse(KEYS.split_once(',').unwrap().1).unwrap(), [8; 32]);
        assert_eq!(shared().verify(&older.sign(recipient)), Ok(recipient));
        assert_eq!(older.verify(&own().sign(recipient)), Err(Forged), "another installation's");
    }

    #[test]
    fn the_two_kinds_of_token_are_never_confused() {
        let recipient = RecipientId::from_u128(5);
        let signing = SigningKeys::parse(KEYS).unwrap();
        let link = signing
            .sign(&Token {
                sent_at_s: 0,
                image: recipient.as_uuid().into(),
                message: recipient.as_uuid().into(),
                recipient,
            })
            .unwrap();
        assert_eq!(shared().verify(&link), Err(Forged));
        assert_eq!(shared().verify(&link[..TOKEN_CHARS]), Err(Forged));
        let opt_out = shared().sign(recipient);
        assert_eq!(signing.verify(&opt_out), Err(Forged));
        assert_eq!(signing.verify(&format!("{opt_out}{opt_out}AA")[..token::TOKEN_CHARS]), Err(Forged));
        // With the same key and the same bytes: the signed bytes still differ.
        let (id, key) = signing.newest().unwrap();
        let mut bytes = vec![KIND_SHARED, id];
        bytes.extend_from_slice(recipient.as_bytes());
        bytes.extend(key.clone().chain_update(&bytes).finalize().into_bytes().into_iter().take(signed::MAC_BYTES));
        assert_eq!(shared().verify(&URL_SAFE_NO_PAD.encode(&bytes)), Err(Forged));
    }
}
