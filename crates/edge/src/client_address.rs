//! The client's address: the peer's, or the one that trusted proxies report. Pure.
//!
//! All X-Forwarded-For lines count as one list and are read from the right: the proxy to the right of an entry has
//! added it, so the first address that is not trusted is the client's, and what is to the left of it is only the
//! client's claim. An entry that cannot be read ends the walk. IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use pixeld_core::privacy::IpPrivacy;

/// Maximum entries that are read; no chain of proxies is that long.
const ENTRIES_MAX: usize = 64;

/// A client's address and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The address.
    pub address: IpAddr,
    /// An X-Forwarded-For came from a peer that is not trusted, and was ignored.
    pub untrusted_forwarded: bool,
}

/// The client's address; `forwarded` are the X-Forwarded-For lines in their order.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> ClientAddress {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut address = peer.to_canonical();
    let mut entries = forwarded.rev().flat_map(|line| line.rsplit(|&byte| byte == b',')).take(ENTRIES_MAX).peekable();
    if !is_trusted(address) {
        return ClientAddress { address, untrusted_forwarded: entries.peek().is_some() };
    }
    for entry in entries {
        let Some(next) = parse(entry) else { break };
        address = next;
        if !is_trusted(address) {
            break;
        }
    }
    ClientAddress { address, untrusted_forwarded: false }
}

/// The part of an address that may be kept.
pub fn kept(address: IpAddr, privacy: IpPrivacy) -> Option<IpAddr> {
    match (privacy, address) {
        (IpPrivacy::None, _) => None,
        (IpPrivacy::Full, _) => Some(address),
        (IpPrivacy::Truncated, IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, 0)))
        }
        (IpPrivacy::Truncated, IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            Some(IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)))
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`, in canonical form; nothing else.
pub fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())).or_else(bracketed);
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(peer: &str, lines: &[&str], trusted: &[&str]) -> (String, bool) {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let found = client_address(peer.parse().unwrap(), lines.iter().map(|line| line.as_bytes()), &trusted);
        (found.address.to_string(), found.untrusted_forwarded)
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48"];
        for (peer, lines, expected, untrusted) in [
            ("192.0.2.1", &[][..], "192.0.2.1", false),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1", true),
            ("10.0.0.1", &[], "10.0.0.1", false),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7", false),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7", false),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2"], "198.51.100.7", false),
            ("10.0.0.1", &["198.51.100.7", "10.0.0.2"], "198.51.100.7", false),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3", false),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2", false),
            ("10.0.0.1", &["198.51.100.7, "], "10.0.0.1", false),
            ("10.0.0.1", &["198.51.100.7:443"], "198.51.100.7", false),
            ("10.0.0.1", &["\t[2001:db8::1]:443 "], "2001:db8::1", false),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1", false),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7", false),
            ("2001:db8:ffff::1", &["2001:db8::1"], "2001:db8::1", false),
        ] {
            assert_eq!(found(peer, lines, &trusted), (expected.to_owned(), untrusted), "{peer} {lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_has_an_answer(lines: Vec<Vec<u8>>) {
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let found = client_address(IpAddr::from([10, 0, 0, 1]), lines.iter().map(Vec::as_slice), &trusted);
            prop_assert!(!found.untrusted_forwarded);
        }

        #[test]
        fn a_client_cannot_choose_its_address(spoofed in "[0-9., :a-f]{0,60}", real: [u8; 4]) {
            let real = IpAddr::from(real);
            prop_assume!(real.to_string().split('.').next() != Some("10"));
            let line = format!("{spoofed}, {real}");
            prop_assert_eq!(found("10.0.0.1", &[&line], &["10.0.0.0/8"]).0, real.to_string());
        }

        #[test]
        fn what_is_kept_names_at_most_a_network(v4: [u8; 4], v6: [u8; 16]) {
            let truncated = |address| kept(address, IpPrivacy::Truncated);
            prop_assert_eq!(truncated(IpAddr::from(v4)), Some(IpAddr::from([v4[0], v4[1], v4[2], 0])));
            let mut network = v6;
            network[6..].fill(0);
            prop_assert_eq!(truncated(IpAddr::from(v6)), Some(IpAddr::from(network)));
            prop_assert_eq!(kept(IpAddr::from(v4), IpPrivacy::None), None);
        }
    }
}
