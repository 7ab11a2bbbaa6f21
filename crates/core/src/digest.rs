//! The first bytes of a SHA-256, and hexadecimal digits. Pure.

use std::fmt;

use sha2::{Digest, Sha256};

/// The first `N` bytes of the SHA-256 of all `parts`, one after the other. The parts' lengths must be fixed; otherwise
/// different parts could give the same bytes.
pub fn prefix<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    const { assert!(N <= 32, "SHA-256 has 32 bytes") };
    let digest = parts.iter().fold(Sha256::new(), Digest::chain_update).finalize();
    let mut first = [0; N];
    first.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    first
}

/// Bytes as lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_sha256sum_begins_with() {
        // printf abc | sha256sum
        let first = prefix::<10>(&[b"a", b"", b"bc"]);
        assert_eq!(Hex(&first).to_string(), "ba7816bf8f01cfea4141");
        let whole = prefix::<32>(&[]);
        assert_eq!(Hex(&whole).to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
