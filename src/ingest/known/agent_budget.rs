//! Limits the new user agents per hour: each is a permanent row, and a stranger can make one up for every hit. Pure.
//!
//! Guarantees: at most [`NEW_USER_AGENTS_PER_HOUR`] an hour. One network of addresses gets [`NETWORK_SHARE`] of them,
//! and [`LATE_NETWORK_SHARE`] once half of the hour's are gone: a flood from ten networks takes half, and needs
//! hundreds of networks for the rest. Memory is bounded by the same number. Gives up: a share for hits without an
//! address (`PIXELD_IP_PRIVACY=none`): they count as one network without a limit of its own, since it contains all
//! readers.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::quality::RandomState;

/// New user agents stored in an hour.
pub(super) const NEW_USER_AGENTS_PER_HOUR: u64 = 10_000;

/// Maximum of these from one IPv4 /24 or IPv6 /48.
const NETWORK_SHARE: u64 = 500;

/// The same, once half of the hour's are stored.
const LATE_NETWORK_SHARE: u64 = 20;

/// What is left of an hour's new user agents.
#[derive(Debug, Clone)]
pub(super) struct AgentBudget {
    max: u64,
    used: u64,
    networks: HashMap<u64, u64, RandomState>,
}

impl AgentBudget {
    /// A whole hour's budget.
    pub(super) fn new() -> AgentBudget {
        AgentBudget { max: NEW_USER_AGENTS_PER_HOUR, used: 0, networks: HashMap::default() }
    }

    /// For hits that no stranger can make up.
    pub(super) fn unbounded() -> AgentBudget {
        AgentBudget { max: u64::MAX, ..AgentBudget::new() }
    }

    /// Begins the next hour.
    pub(super) fn renew(&mut self) {
        self.used = 0;
        self.networks = HashMap::default();
    }

    /// Whether a new user agent from this address could be stored.
    pub(super) fn has_room(&self, address: Option<IpAddr>) -> bool {
        if self.max == u64::MAX {
            return true;
        }
        let share = if self.used < self.max / 2 { NETWORK_SHARE } else { LATE_NETWORK_SHARE };
        let taken = |network: u64| self.networks.get(&network).copied().unwrap_or(0);
        self.used < self.max && address.is_none_or(|address| taken(network(address)) < share)
    }

    /// Takes one for this address; returns whether there was room.
    pub(super) fn take(&mut self, address: Option<IpAddr>) -> bool {
        let has_room = self.has_room(address);
        if has_room && self.max < u64::MAX {
            self.used += 1;
            if let Some(address) = address {
                *self.networks.entry(network(address)).or_default() += 1;
            }
        }
        has_room
    }
}

/// The key of those who share: an IPv4 /24, or an IPv6 /48. IPv4 keys are in a range that no IPv6 client's network has.
/// Also works for an address that `PIXELD_IP_PRIVACY` has cut.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 0xffff_0000_0000_0000 | u64::from(u32::from(address) >> 8),
        IpAddr::V6(address) => (u128::from(address) >> 80) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn taken(budget: &mut AgentBudget, address: Option<IpAddr>, tries: u64) -> u64 {
        (0..tries).filter(|_| budget.take(address)).count() as u64
    }

    #[test]
    fn a_flood_from_one_network_takes_its_share_and_leaves_the_rest() {
        for (flood, neighbour, other) in [
            ("203.0.113.7", "203.0.113.200", "203.0.114.1"),
            ("2001:db8:1:2::3", "2001:db8:1:ffff::", "2001:db8:2::1"),
            ("::ffff:203.0.113.7", "203.0.113.9", "2001:db8::1"),
        ] {
            let mut budget = AgentBudget::new();
            assert_eq!(taken(&mut budget, address(flood), 50_000), NETWORK_SHARE);
            assert!(!budget.take(address(neighbour)), "{neighbour} is in the same network as {flood}");
            assert!(budget.take(address(other)) && budget.take(None), "{other}");
        }
    }

    #[test]
    fn a_flood_from_many_networks_takes_half_and_then_little_from_each() {
        let mut budget = AgentBudget::new();
        let flood = |n: u64| address(&format!("198.51.{n}.1"));
        assert_eq!((0..100).map(|n| taken(&mut budget, flood(n), 1000)).sum::<u64>(), 5_000 + 90 * LATE_NETWORK_SHARE);
        assert_eq!(taken(&mut budget, address("192.0.2.1"), 1000), LATE_NETWORK_SHARE);
        assert_eq!(taken(&mut budget, None, 50_000), 10_000 - 5_000 - 91 * LATE_NETWORK_SHARE);
        assert!(!budget.take(address("192.0.3.1")), "an hour's are gone");
        budget.renew();
        assert_eq!(taken(&mut budget, flood(1), 1000), NETWORK_SHARE);
    }

    #[test]
    fn an_import_has_no_bound() {
        let mut budget = AgentBudget::unbounded();
        assert_eq!(taken(&mut budget, address("192.0.2.1"), 20_000), 20_000);
        assert!(budget.networks.is_empty());
    }
}
