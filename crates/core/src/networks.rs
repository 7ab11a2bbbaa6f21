//! Which provider's network an address belongs to: evidence that the edge collects before the address is cut.
//!
//! Guarantees: a look-up is one binary search over ranges that do not overlap, in which the longest prefix has won. A
//! list with any error is refused whole, and the previous one stays. Gives up: addresses change hands, so a hit keeps
//! the network of its address at the time of the hit, and no later list changes it.

use std::net::IpAddr;

use ipnet::IpNet;

/// What a network is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A mailbox provider fetches images from there for its readers; very many share an address.
    Mailbox,
    /// A security gateway checks mail there.
    Gateway,
    /// Servers of anybody: mostly scanners and scripts, and people behind a VPN.
    Hosting,
}

/// Networks by number, name and use; the numbers are stored in `hits.network` and never change.
macro_rules! networks {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal $use:ident),* $(,)?) => {
        /// The owner of a network.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Network { $($(#[$doc])* $variant = $number),* }

        impl Network {
            /// All of them.
            pub const ALL: &[Network] = &[$(Network::$variant),*];

            /// The name, in lists and for people.
            pub const fn name(self) -> &'static str {
                match self { $(Network::$variant => $name),* }
            }

            /// What it is used for.
            pub const fn used_for(self) -> Use {
                match self { $(Network::$variant => Use::$use),* }
            }
        }
    };
}

networks! {
    /// Google's own: Gmail's image proxy.
    Google = 1 "google" Mailbox,
    /// Apple's relays and Apple itself.
    Apple = 2 "apple" Mailbox,
    /// Microsoft's mail: Outlook.com, Exchange Online and its protection.
    Microsoft = 3 "microsoft" Mailbox,
    /// Yahoo and AOL.
    Yahoo = 4 "yahoo" Mailbox,
    /// Google Cloud's customers.
    GoogleCloud = 5 "google_cloud" Hosting,
    /// Amazon Web Services' customers.
    Amazon = 6 "amazon" Hosting,
    /// Other data centres.
    Hosting = 7 "hosting" Hosting,
    /// Proofpoint.
    Proofpoint = 8 "proofpoint" Gateway,
    /// Mimecast.
    Mimecast = 9 "mimecast" Gateway,
    /// Barracuda.
    Barracuda = 10 "barracuda" Gateway,
    /// Cisco (IronPort).
    Cisco = 11 "cisco" Gateway,
    /// Symantec (MessageLabs).
    Symantec = 12 "symantec" Gateway,
    /// Trend Micro.
    TrendMicro = 13 "trend_micro" Gateway,
    /// Sophos.
    Sophos = 14 "sophos" Gateway,
    /// Gateways that only this installation knows.
    Scanners = 15 "scanners" Gateway,
}

impl Network {
    /// The number in hits; 0 is no network that we know.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The network of a number.
    pub fn of_number(number: u16) -> Option<Network> {
        Network::ALL.iter().copied().find(|network| network.number() == number)
    }

    /// The network of a name.
    pub fn of_name(name: &str) -> Option<Network> {
        Network::ALL.iter().copied().find(|network| network.name() == name)
    }
}

/// The networks of all addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Where the network changes, in the order of addresses: `networks[n]` applies from `starts[n]` to the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges<A> {
    starts: Vec<A>,
    networks: Vec<Option<Network>>,
}

impl Networks {
    /// The networks of these prefixes: among several that contain an address the longest wins, and among equal ones the
    /// last.
    pub fn new(prefixes: &[(IpNet, Network)]) -> Networks {
        let v4 = prefixes.iter().filter_map(|&(prefix, network)| match prefix {
            IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()), network)),
            IpNet::V6(_) => None,
        });
        let v6 = prefixes.iter().filter_map(|&(prefix, network)| match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((u128::from(net.network()), u128::from(net.broadcast()), network)),
        });
        Networks {
            v4: Ranges::new(v4.collect(), |last| last.checked_add(1)),
            v6: Ranges::new(v6.collect(), |last| last.checked_add(1)),
        }
    }

    /// The network of an address, in canonical form.
    pub fn of(&self, address: IpAddr) -> Option<Network> {
        match address {
            IpAddr::V4(address) => self.v4.of(u32::from(address)),
            IpAddr::V6(address) => self.v6.of(u128::from(address)),
        }
    }

    /// Ranges with a network.
    pub fn known_ranges(&self) -> usize {
        let known = |networks: &[Option<Network>]| networks.iter().flatten().count();
        known(&self.v4.networks) + known(&self.v6.networks)
    }
}

impl<A: Copy + Ord> Ranges<A> {
    /// From prefixes as first and last address. Two prefixes are either nested or disjoint, so those that contain the
    /// address of the sweep form a stack, the longest on top.
    fn new(mut prefixes: Vec<(A, A, Network)>, next: impl Fn(A) -> Option<A>) -> Ranges<A> {
        // The wider one first if two begin together; the sort is stable, so the last of equal ones is on top.
        prefixes.sort_by(|(first, last, _), (other_first, other_last, _)| {
            first.cmp(other_first).then(other_last.cmp(last))
        });
        let mut ranges = Ranges { starts: Vec::new(), networks: Vec::new() };
        let mut open: Vec<(A, Network)> = Vec::new();
        for &(first, last, network) in &prefixes {
            ranges.close(&mut open, Some(first), &next);
            open.push((last, network));
            ranges.begin(first, Some(network));
        }
        ranges.close(&mut open, None, &next);
        ranges.starts.shrink_to_fit();
        ranges.networks.shrink_to_fit();
        ranges
    }

    /// Ends the prefixes that end before `until`.
    fn close(&mut self, open: &mut Vec<(A, Network)>, until: Option<A>, next: &impl Fn(A) -> Option<A>) {
        while let Some(&(last, _)) = open.last()
            && until.is_none_or(|until| last < until)
        {
            open.pop();
            if let Some(behind) = next(last) {
                self.begin(behind, open.last().map(|&(_, network)| network));
            }
        }
    }

    fn begin(&mut self, start: A, network: Option<Network>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.networks.pop();
        }
        if self.networks.last().copied().flatten() != network {
            self.starts.push(start);
            self.networks.push(network);
        }
    }

    fn of(&self, address: A) -> Option<Network> {
        let behind = self.starts.partition_point(|&start| start <= address);
        *self.networks.get(behind.checked_sub(1)?)?
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn any_network() -> impl Strategy<Value = Network> {
        prop::sample::select(Network::ALL)
    }

    /// Few addresses, so that prefixes meet: the high bits are fixed, the low ones free.
    fn any_prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u8>(), 24u8..=32).prop_map(|(low, length)| {
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(255, 255, 255, low), length).trunc())
        });
        let v6 = (any::<u8>(), 120u8..=128).prop_map(|(low, length)| {
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(u128::MAX - u128::from(low)), length).trunc())
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins_for_every_address(
            prefixes in prop::collection::vec((any_prefix(), any_network()), 0..12)
        ) {
            let networks = Networks::new(&prefixes);
            let addresses = (0..=255u8).flat_map(|low| {
                [IpAddr::from([255, 255, 255, low]), IpAddr::V6(Ipv6Addr::from(u128::MAX - u128::from(low)))]
            });
            for address in addresses.chain(["0.0.0.0".parse().unwrap(), "255.255.254.255".parse().unwrap(), "::".parse().unwrap()]) {
                let expected = prefixes
                    .iter()
                    .enumerate()
                    .filter(|(_, (prefix, _))| prefix.contains(&address))
                    .max_by_key(|(place, (prefix, _))| (prefix.prefix_len(), *place))
                    .map(|(_, &(_, network))| network);
                prop_assert_eq!(networks.of(address), expected, "{} in {:?}", address, prefixes);
            }
        }
    }

    #[test]
    fn neighbours_of_one_network_are_one_range() {
        let prefix = |text: &str, network| (text.parse().unwrap(), network);
        let networks = Networks::new(&[
            prefix("10.0.0.0/9", Network::Apple),
            prefix("10.128.0.0/9", Network::Apple),
            prefix("0.0.0.0/0", Network::Hosting),
        ]);
        assert_eq!(networks.known_ranges(), 3);
        assert_eq!(networks.of("10.200.0.1".parse().unwrap()), Some(Network::Apple));
        assert_eq!(networks.of("255.255.255.255".parse().unwrap()), Some(Network::Hosting));
        assert_eq!(networks.of("::".parse().unwrap()), None);
    }

    #[test]
    fn numbers_and_names_are_each_ones_own() {
        let numbers: HashSet<u16> = Network::ALL.iter().map(|network| network.number()).collect();
        assert_eq!(numbers.len(), Network::ALL.len());
        for &network in Network::ALL {
            assert_eq!(Network::of_number(network.number()), Some(network));
            assert_eq!(Network::of_name(network.name()), Some(network));
        }
        assert_eq!((Network::of_number(0), Network::of_name("")), (None, None));
    }
}
