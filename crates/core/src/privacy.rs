//! Rights of recipients: not to be recorded, to be erased, to see what is held.
//!
//! Guarantees: a list of people who used these rights contains keyed hashes ([`RecipientHash`]) and no ids, so that it
//! may outlive an erasure and reveals nothing to a reader without the installation's key. Gives up: going back from a
//! hash to an id; code that needs that hashes every known id.

use std::fmt;

use crate::clock::micros::Micros;
use crate::digest::{self, Hex};
use crate::ids::RecipientId;

/// How much of a client's address is kept. Applied before a hit reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpPrivacy {
    /// All of it.
    Full,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Truncated,
    /// Nothing.
    None,
}

/// The installation's key for these hashes: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivacyKey(pub [u8; 32]);

impl fmt::Debug for PrivacyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivacyKey")
    }
}

/// A recipient on such a list: the first 16 bytes of `sha256(key || id)`; in SQL
/// `substring(sha256(key || uuid_send(recipient)) FOR 16)`. Key and id have fixed lengths, so that no HMAC is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecipientHash(pub [u8; 16]);

impl RecipientHash {
    /// The hash in a column; the database checks its length.
    pub fn of_column(bytes: &[u8]) -> RecipientHash {
        let mut hash = [0; 16];
        hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        RecipientHash(hash)
    }
}

impl fmt::Display for RecipientHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// The time for which a recipient is opted out: a row of `suppressions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppression {
    /// The recipient.
    pub hash: RecipientHash,
    /// Hits from then on are not recorded, by the database's clock.
    pub since: Micros,
    /// Hits from then on are recorded again; `None` while the recipient is opted out.
    pub until: Option<Micros>,
    /// Grows with every change of any row.
    pub change: i64,
}

impl Suppression {
    /// For a recipient whose time of opting out is unknown: any row in the database is later.
    pub fn out_since_ever(hash: RecipientHash) -> Suppression {
        Suppression { hash, since: Micros::MIN, until: None, change: 0 }
    }

    /// When the recipient last opted out or in.
    pub fn last_at(&self) -> Micros {
        self.until.unwrap_or(self.since)
    }
}

impl PrivacyKey {
    /// The hash of a recipient's id.
    pub fn hash(&self, recipient: RecipientId) -> RecipientHash {
        RecipientHash(digest::prefix(&[&self.0, recipient.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_sql() {
        // SELECT substring(sha256(decode(repeat('01', 32), 'hex') || uuid_send('00000000-0000-4000-8000-000000000001')) FOR 16);
        let hash = PrivacyKey([1; 32]).hash(RecipientId::from_u128(0x4000_8000_0000_0000_0001));
        assert_eq!(hash.to_string(), "eb20d3fcfe5322a3c1358c3666530cda");
    }
}
