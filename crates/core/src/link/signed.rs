//! Bytes and their MAC as one text: what the tokens of links and of opt-out links share.
//!
//! Guarantees: each token has one spelling. Padding, the other alphabet, or bits set after the last byte are not read, since lenient
//! decoders would read sixteen spellings of one token. A comparison takes the same time wherever the bytes differ.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a MAC: the first of HMAC-SHA256.
pub(super) const MAC_BYTES: usize = 16;

/// The characters of this many bytes.
const fn chars(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// The room that reading this many bytes takes: the decoder needs it for whole groups of four characters.
pub(super) const fn room(bytes: usize) -> usize {
    chars(bytes).div_ceil(4) * 3
}

/// `signed` and its MAC as a text. The MAC is of `domain`, too.
pub(super) fn write(key: &Hmac<Sha256>, domain: &[u8], mut signed: Vec<u8>) -> String {
    let mac = key.clone().chain_update(domain).chain_update(&signed).finalize().into_bytes();
    signed.extend(mac.into_iter().take(MAC_BYTES));
    URL_SAFE_NO_PAD.encode(signed)
}

/// Decodes a text of exactly `bytes` bytes: they are the first ones of the result. `ROOM` is `room(bytes)`.
pub(super) fn read<const ROOM: usize>(text: &str, bytes: usize) -> Option<[u8; ROOM]> {
    let mut decoded = [0; ROOM];
    let is_whole = text.len() == chars(bytes) && URL_SAFE_NO_PAD.decode_slice(text, &mut decoded) == Ok(bytes);
    is_whole.then_some(decoded)
}

/// Whether `mac` is what [`write()`] appended to `signed` for this key and domain.
pub(super) fn is_of(key: &Hmac<Sha256>, domain: &[u8], signed: &[u8], mac: &[u8]) -> bool {
    key.clone().chain_update(domain).chain_update(signed).verify_truncated_left(mac).is_ok()
}
