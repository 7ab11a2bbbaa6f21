//! One recorded fetch of a pixel, and its bytes on the way from the edge to PostgreSQL.
//!
//! The edge encodes a hit once; only the loader decodes it. The encoding is little-endian, its own length comes first,
//! and every length is checked before it is used:
//!
//! ```text
//! length u16 (of what follows) | at i64 µs since 1970 | sent_at u32 s since 1970, 0 = unknown
//! | image 16 | message 16 | recipient 16 (nil = absent) | network u16 | flags u8 | address 0, 4 or 16
//! | two keys, if flagged: each length u8 (0 = the id above holds), bytes | user agent rest
//! ```
//!
//! An erased hit is a tombstone: it has the old length, the hour of its time, the flag that marks it, and zeros. So
//! frames keep their lengths and hits their numbers.
//!
//! Only hits of an edge that never learnt its installation's namespace contain keys; the loader turns them into ids.
//!
//! A user agent is made safe here, before the spool: lossy UTF-8, no NUL, at most [`USER_AGENT_BYTES_MAX`] bytes, so
//! that PostgreSQL never refuses it.

#[cfg(feature = "fixture")]
pub mod fixture;
mod parcel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::clock::micros::Micros;
use crate::ids::{ImageId, MessageId, RecipientId};
use crate::link::key::{KEY_BYTES_MAX, Key, Namespace};
pub use parcel::Parcel;

/// Maximum bytes of a stored user agent; longer ones are cut at a character boundary.
pub const USER_AGENT_BYTES_MAX: usize = 512;

/// Bytes of an encoded hit before its address and user agent, without the length prefix.
const FIXED_BYTES: usize = 8 + 4 + 16 * 3 + 2 + 1;

/// Bytes of the length prefix of an encoded hit.
const LENGTH_BYTES: usize = 2;

/// Maximum bytes of one encoded hit.
pub const ENCODED_BYTES_MAX: usize = LENGTH_BYTES + FIXED_BYTES + 16 + 2 * (1 + KEY_BYTES_MAX) + USER_AGENT_BYTES_MAX;

/// Minimum bytes of one encoded hit.
pub const ENCODED_BYTES_MIN: usize = LENGTH_BYTES + FIXED_BYTES;

const FLAG_PREFETCH: u8 = 1;
const FLAG_IPV4: u8 = 2;
const FLAG_IPV6: u8 = 4;
const FLAG_KEYS: u8 = 8;
const FLAG_ERASED: u8 = 16;

/// Position of the recipient in an encoded hit.
pub const RECIPIENT_AT: usize = LENGTH_BYTES + 8 + 4 + 2 * 16;
/// Position of the flags.
const FLAGS_AT: usize = LENGTH_BYTES + FIXED_BYTES - 1;

/// Precision of a tombstone's time.
const TOMBSTONE_TIME_US: i64 = 3_600_000_000;

/// One recorded fetch. It borrows its user agent, so that reading one from a frame copies nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit<'a> {
    /// When it was answered: µs since 1970-01-01 UTC, by this machine's clock.
    pub at: Micros,
    /// When its message was sent, in seconds since 1970-01-01 UTC; 0 if the link does not say.
    pub sent_at_s: u32,
    /// The requested image.
    pub image: ImageId,
    /// The sender's id of the message; nil if the link has none.
    pub message: MessageId,
    /// The sender's id of the recipient; nil if the link has none.
    pub recipient: RecipientId,
    /// The provider network of the full address; 0 is none that we know.
    pub network: u16,
    /// Whether a request header marked it as a prefetch, so no person has looked yet.
    pub prefetch: bool,
    /// The client's address, as far as `PIXELD_IP_PRIVACY` allows.
    pub address: Option<IpAddr>,
    /// The keys of message and recipient that are not ids yet; `None` on an edge that knows its namespace.
    pub keys: Option<Keys<'a>>,
    /// The user agent, already made safe.
    pub user_agent: &'a str,
    /// Whether it is a tombstone: its recipient was erased, and nothing of it must be kept.
    pub is_erased: bool,
}

/// Keys that the edge could not turn into ids; if one is empty, the id counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys<'a> {
    /// The message's.
    pub message: &'a [u8],
    /// The recipient's.
    pub recipient: &'a [u8],
}

/// Why bytes are not a hit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HitError {
    /// There are fewer bytes than the length prefix, or the fixed part, requires.
    #[error("a hit is cut short: {need} bytes needed, {have} there")]
    Short {
        /// Bytes that the hit needs.
        need: usize,
        /// Bytes that are available.
        have: usize,
    },
    /// The length prefix is larger than any hit.
    #[error("a hit claims {0} bytes; at most {max} are possible", max = ENCODED_BYTES_MAX - LENGTH_BYTES)]
    Long(usize),
    /// Flags that this version does not write.
    #[error("a hit has unknown flags {0:#04x}")]
    Flags(u8),
    /// A key is longer than a key can be.
    #[error("a hit has a key of {0} bytes; at most {KEY_BYTES_MAX} are possible")]
    Key(usize),
    /// The user agent is not UTF-8, although it was made so before it was written.
    #[error("a hit's user agent is not UTF-8")]
    UserAgent,
}

impl<'a> Hit<'a> {
    /// Appends the hit's bytes to `out`. A user agent that was not made safe is cut to the bound.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.is_erased {
            return self.encode_tombstone(out);
        }
        let user_agent = cut_at_char(self.user_agent, USER_AGENT_BYTES_MAX);
        let (address_flag, address_bytes) = match self.address {
            None => (0, 0),
            Some(IpAddr::V4(_)) => (FLAG_IPV4, 4),
            Some(IpAddr::V6(_)) => (FLAG_IPV6, 16),
        };
        let keys = self.keys.map(|keys| [keys.message, keys.recipient].map(|key| &key[..key.len().min(KEY_BYTES_MAX)]));
        let keys_bytes = keys.map_or(0, |keys| keys.iter().map(|key| 1 + key.len()).sum());
        let length = FIXED_BYTES + address_bytes + keys_bytes + user_agent.len();
        out.reserve(LENGTH_BYTES + length);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&self.sent_at_s.to_le_bytes());
        out.extend_from_slice(self.image.as_bytes());
        out.extend_from_slice(self.message.as_bytes());
        out.extend_from_slice(self.recipient.as_bytes());
        out.extend_from_slice(&self.network.to_le_bytes());
        let prefetch_flag = if self.prefetch { FLAG_PREFETCH } else { 0 };
        let keys_flag = if keys.is_some() { FLAG_KEYS } else { 0 };
        out.push(address_flag | prefetch_flag | keys_flag);
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
            Some(IpAddr::V6(address)) => out.extend_from_slice(&address.octets()),
        }
        for key in keys.iter().flatten() {
            out.push(key.len() as u8);
            out.extend_from_slice(key);
        }
        out.extend_from_slice(user_agent.as_bytes());
    }

    fn encode_tombstone(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + LENGTH_BYTES + FIXED_BYTES, 0);
        out[start..start + LENGTH_BYTES].copy_from_slice(&(FIXED_BYTES as u16).to_le_bytes());
        out[start + LENGTH_BYTES..start + LENGTH_BYTES + 8].copy_from_slice(&hour_of(self.at.0).to_le_bytes());
        out[start + FLAGS_AT] = FLAG_ERASED;
    }

    /// Turns it into a tombstone.
    pub fn erase(&mut self) {
        *self = Hit::tombstone(self.at);
    }

    fn tombstone(at: Micros) -> Hit<'a> {
        Hit {
            at,
            sent_at_s: 0,
            image: ImageId::NONE,
            message: MessageId::NONE,
            recipient: RecipientId::NONE,
            network: 0,
            prefetch: false,
            address: None,
            keys: None,
            user_agent: "",
            is_erased: true,
        }
    }

    /// Turns its keys into ids, if it has any.
    pub fn resolve(&mut self, namespace: Namespace) {
        let Some(keys) = self.keys.take() else { return };
        if !keys.message.is_empty() {
            self.message = namespace.id_of(&Key::Text(keys.message.into()));
        }
        if !keys.recipient.is_empty() {
            self.recipient = namespace.id_of(&Key::Text(keys.recipient.into()));
        }
    }

    /// Reads one hit from the beginning of `bytes` and returns it with the rest.
    ///
    /// # Errors
    /// [`HitError`] if [`Hit::encode`] does not write such bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<(Hit<'a>, &'a [u8]), HitError> {
        let short = |need| HitError::Short { need, have: bytes.len() };
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(short(LENGTH_BYTES))?;
        let length = usize::from(u16::from_le_bytes(*length));
        if length > ENCODED_BYTES_MAX - LENGTH_BYTES {
            return Err(HitError::Long(length));
        }
        let (mut body, rest) = rest.split_at_checked(length).ok_or(short(LENGTH_BYTES + length))?;
        let need = || HitError::Short { need: FIXED_BYTES, have: length };
        let at = Micros(i64::from_le_bytes(*take(&mut body).ok_or_else(need)?));
        let sent_at_s = u32::from_le_bytes(*take(&mut body).ok_or_else(need)?);
        let image = ImageId::from_bytes(*take(&mut body).ok_or_else(need)?);
        let message = MessageId::from_bytes(*take(&mut body).ok_or_else(need)?);
        let recipient = RecipientId::from_bytes(*take(&mut body).ok_or_else(need)?);
        let network = u16::from_le_bytes(*take(&mut body).ok_or_else(need)?);
        let [flags] = *take(&mut body).ok_or_else(need)?;
        if flags == FLAG_ERASED {
            return Ok((Hit::tombstone(at), rest));
        }
        let address = match flags & !(FLAG_PREFETCH | FLAG_KEYS) {
            0 => None,
            FLAG_IPV4 => Some(IpAddr::V4(Ipv4Addr::from(*take::<4>(&mut body).ok_or_else(need)?))),
            FLAG_IPV6 => Some(IpAddr::V6(Ipv6Addr::from(*take::<16>(&mut body).ok_or_else(need)?))),
            _ => return Err(HitError::Flags(flags)),
        };
        let mut key = || -> Result<&'a [u8], HitError> {
            let [length] = *take(&mut body).ok_or_else(need)?;
            let length = usize::from(length);
            if length > KEY_BYTES_MAX {
                return Err(HitError::Key(length));
            }
            let (key, rest) = body.split_at_checked(length).ok_or_else(need)?;
            body = rest;
            Ok(key)
        };
        let keys = match flags & FLAG_KEYS {
            0 => None,
            _ => Some(Keys { message: key()?, recipient: key()? }),
        };
        let user_agent = std::str::from_utf8(body).map_err(|_| HitError::UserAgent)?;
        let prefetch = flags & FLAG_PREFETCH != 0;
        let is_erased = false;
        let hit =
            Hit { at, sent_at_s, image, message, recipient, network, prefetch, address, keys, user_agent, is_erased };
        Ok((hit, rest))
    }
}

/// Turns an encoded hit into a tombstone, in place.
pub fn entomb(encoded: &mut [u8]) {
    let Some((at_us, rest)) = encoded.get_mut(LENGTH_BYTES..).and_then(|body| body.split_first_chunk_mut::<8>()) else {
        return;
    };
    *at_us = hour_of(i64::from_le_bytes(*at_us)).to_le_bytes();
    rest.fill(0);
    if let Some(flags) = encoded.get_mut(FLAGS_AT) {
        *flags = FLAG_ERASED;
    }
}

/// The part of a time that a tombstone keeps.
fn hour_of(at_us: i64) -> i64 {
    at_us.div_euclid(TOMBSTONE_TIME_US).saturating_mul(TOMBSTONE_TIME_US)
}

/// A user agent in its stored form: lossy UTF-8 without NUL, at most [`USER_AGENT_BYTES_MAX`] bytes.
pub fn safe_user_agent(raw: &[u8]) -> std::borrow::Cow<'_, str> {
    // Three times the bound is enough input: each invalid byte can grow to three, and no byte shrinks.
    let raw = &raw[..raw.len().min(3 * USER_AGENT_BYTES_MAX)];
    match std::str::from_utf8(raw) {
        Ok(text) if !raw.contains(&0) => cut_at_char(text, USER_AGENT_BYTES_MAX).into(),
        _ => {
            let text: String = String::from_utf8_lossy(raw).chars().filter(|&c| c != '\0').collect();
            cut_at_char(&text, USER_AGENT_BYTES_MAX).to_owned().into()
        }
    }
}

/// Takes the first `N` bytes off `bytes`; `None` if there are fewer.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(first)
}

/// The longest prefix of `text` that is at most `bytes_max` bytes and ends between characters.
fn cut_at_char(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use uuid::Uuid;

    use super::*;

    fn any_address() -> impl Strategy<Value = Option<IpAddr>> {
        prop_oneof![
            Just(None),
            any::<[u8; 4]>().prop_map(|b| Some(IpAddr::from(b))),
            any::<[u8; 16]>().prop_map(|b| Some(IpAddr::from(b))),
        ]
    }

    proptest! {
        #[test]
        fn every_hit_reads_back_as_it_was_written(
            at_us: i64, sent_at_s: u32, image: [u8; 16], message: [u8; 16], recipient: [u8; 16], network: u16,
            prefetch: bool, address in any_address(), raw in prop::collection::vec(any::<u8>(), 0..700), rest: Vec<u8>,
            keys in prop::option::of((prop::collection::vec(any::<u8>(), 0..=KEY_BYTES_MAX), prop::collection::vec(any::<u8>(), 0..=KEY_BYTES_MAX))),
        ) {
            let user_agent = safe_user_agent(&raw);
            let keys = keys.as_ref().map(|(message, recipient)| Keys { message, recipient });
            let hit = Hit {
                at: Micros(at_us), sent_at_s, network, prefetch, address, keys, user_agent: &user_agent, is_erased: false,
                image: ImageId::from_bytes(image), message: MessageId::from_bytes(message), recipient: RecipientId::from_bytes(recipient),
            };
            let mut bytes = Vec::new();
            hit.encode(&mut bytes);
            prop_assert!(bytes.len() >= ENCODED_BYTES_MIN && bytes.len() <= ENCODED_BYTES_MAX);
            let length = bytes.len();
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(Hit::decode(&bytes), Ok((hit.clone(), &rest[..])));

            entomb(&mut bytes[..length]);
            let (tombstone, behind) = Hit::decode(&bytes).unwrap();
            prop_assert_eq!(behind, &rest[..], "it is as long as the hit was");
            prop_assert!(tombstone.is_erased && tombstone.recipient.is_nil() && tombstone.user_agent.is_empty());
            prop_assert!(bytes[LENGTH_BYTES + 8..FLAGS_AT].iter().chain(&bytes[FLAGS_AT + 1..length]).all(|&byte| byte == 0));
            let mut again = Vec::new();
            tombstone.encode(&mut again);
            prop_assert_eq!(Hit::decode(&again), Ok((tombstone, &[][..])));

            let mut erased = Hit { user_agent: "", ..hit };
            erased.erase();
            let mut written = Vec::new();
            erased.encode(&mut written);
            prop_assert_eq!(written, again, "an erased hit that is written keeps what one erased in its place keeps: the hour");
        }

        #[test]
        fn any_bytes_decode_or_are_refused_without_a_panic(bytes: Vec<u8>) {
            if let Ok((hit, rest)) = Hit::decode(&bytes) && !hit.is_erased {
                let mut again = Vec::new();
                hit.encode(&mut again);
                prop_assert_eq!(&bytes[..bytes.len() - rest.len()], &again[..]);
            }
        }

        #[test]
        fn a_user_agent_is_made_safe(raw in prop::collection::vec(any::<u8>(), 0..3000)) {
            let safe = safe_user_agent(&raw);
            prop_assert!(safe.len() <= USER_AGENT_BYTES_MAX && !safe.contains('\0'));
        }
    }

    #[test]
    fn keys_become_the_ids_that_an_edge_with_a_namespace_makes() {
        let namespace = Namespace(Uuid::from_u128(7));
        let id = MessageId::from_u128(8);
        let mut hit = Hit {
            at: Micros(0),
            sent_at_s: 0,
            image: ImageId::from_u128(9),
            message: id,
            recipient: RecipientId::NONE,
            network: 0,
            prefetch: false,
            address: None,
            keys: Some(Keys { message: b"", recipient: b"4711" }),
            user_agent: "",
            is_erased: false,
        };
        hit.resolve(namespace);
        assert_eq!((hit.message, hit.recipient, hit.keys), (id, namespace.id_of(&Key::typed("4711").unwrap()), None));
    }

    #[test]
    fn an_ordinary_user_agent_is_kept_as_it_is() {
        assert_eq!(safe_user_agent(b"Mozilla/5.0 \xe2\x98\x83"), "Mozilla/5.0 \u{2603}");
        assert_eq!(safe_user_agent(b"a\0b\xff"), "ab\u{fffd}");
    }
}
