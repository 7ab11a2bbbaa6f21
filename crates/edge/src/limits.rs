//! Limits the hits of one client address: `PIXELD_ADDRESS_RATE`.
//!
//! Guarantees: an address beyond the rate is still served; its hits are dropped and counted. Memory is bounded: when
//! [`ADDRESSES_MAX`] are known, all hits are let through until the clean-up has made room (failing open: a flood must
//! not hide real opens). Gives up: exactness. IPv6 is counted by /64, so that neighbours in one network share a rate;
//! and an address may make up to a quarter more hits than its rate, since only addresses that may be busy are counted
//! exactly ([`Sketch`]).

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use pixeld_core::networks::{Network, Use};

/// Maximum addresses whose rate is known (about 10 MB).
pub const ADDRESSES_MAX: usize = 100_000;

/// The rate of each client address.
#[derive(Debug)]
pub struct Limits {
    addresses: Option<RateLimiter<u64, DashMapStateStore<u64>, DefaultClock>>,
    /// Too many addresses are known; all hits are let through until some are forgotten.
    crowded: AtomicBool,
    addresses_max: usize,
    /// Hits of this second in an address's bucket of one core up to which the address cannot be beyond its rate.
    quiet_max: u16,
}

/// One core's rough count of this second's hits: addresses share buckets, so that a bucket with few hits contains no
/// busy address. Even at a high overall rate, this one check of 8 KiB lets nearly all hits through.
#[derive(Debug)]
pub struct Sketch(RefCell<Box<[u16; BUCKETS]>>);

const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 12;

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch(RefCell::new(Box::new([0; BUCKETS])))
    }
}

impl Sketch {
    /// Counts a hit, and returns how many its bucket had before.
    fn count(&self, key: u64) -> u16 {
        let bucket = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKET_BITS);
        let mut buckets = self.0.borrow_mut();
        let count = &mut buckets[bucket as usize];
        let before = *count;
        *count = before.saturating_add(1);
        before
    }

    /// A second has passed.
    pub fn clear(&self) {
        self.0.borrow_mut().fill(0);
    }
}

impl Limits {
    /// Limits of `rate` hits a second and address, over `cores` cores; `None` is off.
    pub fn new(rate: Option<NonZeroU32>, cores: usize) -> Limits {
        Limits::with_addresses_max(rate, cores, ADDRESSES_MAX)
    }

    fn with_addresses_max(rate: Option<NonZeroU32>, cores: usize, addresses_max: usize) -> Limits {
        let quiet_max = rate.map_or(0, |rate| rate.get() as usize / (4 * cores.max(1)));
        let quiet_max = u16::try_from(quiet_max).unwrap_or(u16::MAX);
        let addresses = rate.map(|rate| RateLimiter::dashmap(Quota::per_second(rate)));
        Limits { addresses, crowded: AtomicBool::new(false), addresses_max, quiet_max }
    }

    /// Whether a hit from `address` may be recorded now; `sketch` is the calling core's. Very many readers share an
    /// address of a mailbox provider, so these have no limit.
    pub fn allows(&self, sketch: &Sketch, address: IpAddr, network: Option<Network>) -> bool {
        let Some(addresses) = &self.addresses else { return true };
        let key = key(address);
        sketch.count(key) < self.quiet_max
            || self.crowded.load(Ordering::Relaxed)
            || network.is_some_and(|network| network.used_for() == Use::Mailbox)
            || addresses.check_key(&key).is_ok()
    }

    /// Forgets addresses that were quiet. Call about once a second.
    pub fn clean(&self) {
        let Some(addresses) = &self.addresses else { return };
        if addresses.len() > self.addresses_max / 2 || self.crowded.load(Ordering::Relaxed) {
            addresses.retain_recent();
            addresses.shrink_to_fit();
        }
        let crowded = addresses.len() > self.addresses_max;
        if crowded && !self.crowded.swap(crowded, Ordering::Relaxed) {
            tracing::warn!(
                known = addresses.len(),
                "too many client addresses at once; the address rate is off until there are fewer"
            );
        }
        self.crowded.store(crowded, Ordering::Relaxed);
    }
}

/// The key of those who share a rate: an IPv4 address, or an IPv6 /64. IPv4 keys are in a range that no IPv6 client's
/// network has.
pub(super) fn key(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => 0xffff_0000_0000_0000 | u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_beyond_the_rate_is_held_back_and_others_are_not() {
        let limits = Limits::new(NonZeroU32::new(10), 1);
        let sketch = Sketch::default();
        let allowed = (0..1000).filter(|_| limits.allows(&sketch, address("192.0.2.1"), None)).count();
        assert!((10..100).contains(&allowed), "{allowed}");
        assert!(limits.allows(&sketch, address("192.0.2.2"), None));
    }

    #[test]
    fn a_whole_ipv6_network_shares_a_rate() {
        let limits = Limits::new(NonZeroU32::new(1), 1);
        let sketch = Sketch::default();
        assert!(limits.allows(&sketch, address("2001:db8::1"), None));
        assert!(!limits.allows(&sketch, address("2001:db8::2"), None));
        assert!(limits.allows(&sketch, address("2001:db8:0:1::1"), None));
    }

    #[test]
    fn a_mail_providers_proxy_is_never_held_back() {
        let limits = Limits::new(NonZeroU32::new(1), 1);
        let sketch = Sketch::default();
        assert!((0..100).all(|_| limits.allows(&sketch, address("66.249.84.7"), Some(Network::Google))));
    }

    #[test]
    fn too_many_addresses_let_everybody_through_until_they_are_forgotten() {
        let limits = Limits::with_addresses_max(NonZeroU32::new(1), 1, 100);
        let sketch = Sketch::default();
        for n in 0..200u32 {
            assert!(limits.allows(&sketch, IpAddr::from((0x0a00_0000 + n).to_be_bytes()), None));
        }
        assert!(!limits.allows(&sketch, address("10.0.0.1"), None));
        limits.clean();
        assert!(limits.allows(&sketch, address("10.0.0.1"), None) && limits.allows(&sketch, address("10.0.0.1"), None));
        // An address is forgotten once it equals a new one, which takes two seconds at this rate.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        limits.clean();
        assert!(
            limits.allows(&sketch, address("10.0.0.1"), None) && !limits.allows(&sketch, address("10.0.0.1"), None),
            "the rate is back"
        );
    }

    #[test]
    fn off_is_off() {
        let limits = Limits::new(None, 1);
        let sketch = Sketch::default();
        assert!((0..10_000).all(|_| limits.allows(&sketch, address("192.0.2.1"), None)));
    }

    #[test]
    fn of_very_many_quiet_addresses_none_is_remembered_and_a_busy_one_among_them_is_held_back() {
        let limits = Limits::new(NonZeroU32::new(1000), 2);
        let sketch = Sketch::default();
        let quiet = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        assert!((0..100_000).all(|n| limits.allows(&sketch, quiet(n), None)));
        assert_eq!(limits.addresses.as_ref().map(|known| known.len()), Some(0));
        let allowed = (0..10_000).filter(|_| limits.allows(&sketch, address("192.0.2.1"), None)).count();
        assert!((1000..1300).contains(&allowed), "{allowed}");
        assert!(limits.allows(&sketch, address("192.0.2.2"), None));
    }
}
