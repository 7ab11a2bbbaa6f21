//! Limits how often anybody may try a password, by account and by client address, and how often anybody may opt out.
//!
//! Guarantees: memory is fixed, whatever names and addresses arrive; a wrong name counts like a right one. Gives up:
//! accounts and addresses share [`PLACES`] places, so that two of them may, rarely, slow each other down. An attacker
//! who keeps trying passwords of an account keeps its owner out for as long. Nobody can choose whose place they share.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use pixeld_core::privacy::RecipientHash;
use pixeld_core::text;

/// Number of distinct places for accounts, and for addresses.
const PLACES: usize = 4096;

/// Attempts that an account has at once, and the time after which it gets another one.
const ACCOUNT: (u32, Duration) = (10, Duration::from_secs(30));

/// The same for an address: an office has one address and many people.
const ADDRESS: (u32, Duration) = (30, Duration::from_secs(10));

/// Requests to opt-out pages that an address has at once, and the time after which it gets another one: a mailbox
/// provider opts many people out from few addresses.
const OPT_OUT_ADDRESS: (u32, Duration) = (200, Duration::from_millis(50));

/// The same for changes of one recipient.
const OPT_OUT_RECIPIENT: (u32, Duration) = (10, Duration::from_secs(30));

/// The attempts of all accounts and addresses.
pub(crate) struct SignInThrottle {
    accounts: Box<[DefaultDirectRateLimiter]>,
    addresses: Box<[DefaultDirectRateLimiter]>,
    seed: RandomState,
    clock: DefaultClock,
}

impl Default for SignInThrottle {
    fn default() -> Self {
        SignInThrottle {
            accounts: places(ACCOUNT),
            addresses: places(ADDRESS),
            seed: RandomState::new(),
            clock: DefaultClock::default(),
        }
    }
}

fn places((burst, every): (u32, Duration)) -> Box<[DefaultDirectRateLimiter]> {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(every).unwrap_or_else(|| Quota::per_minute(burst)).allow_burst(burst);
    (0..PLACES).map(|_| RateLimiter::direct(quota)).collect()
}

impl SignInThrottle {
    /// Counts an attempt.
    ///
    /// # Errors
    /// The time to wait, if there were too many. An address over its limit does not use up the account's attempts.
    pub(crate) fn count(&self, name: &str, address: IpAddr) -> Result<(), Duration> {
        take(&self.addresses, self.seed.hash_one(network(address)), &self.clock)?;
        take(&self.accounts, self.seed.hash_one(text::fold(name)), &self.clock)
    }
}

/// The opt-outs of all addresses and recipients. Places are shared as above.
pub(crate) struct OptOutThrottle {
    addresses: Box<[DefaultDirectRateLimiter]>,
    recipients: Box<[DefaultDirectRateLimiter]>,
    seed: RandomState,
    clock: DefaultClock,
}

impl Default for OptOutThrottle {
    fn default() -> Self {
        OptOutThrottle {
            addresses: places(OPT_OUT_ADDRESS),
            recipients: places(OPT_OUT_RECIPIENT),
            seed: RandomState::new(),
            clock: DefaultClock::default(),
        }
    }
}

impl OptOutThrottle {
    /// Counts a request.
    ///
    /// # Errors
    /// The time to wait, if there were too many.
    pub(crate) fn count_address(&self, address: IpAddr) -> Result<(), Duration> {
        take(&self.addresses, self.seed.hash_one(network(address)), &self.clock)
    }

    /// Counts a change of a recipient.
    ///
    /// # Errors
    /// The time to wait, if there were too many.
    pub(crate) fn count_recipient(&self, recipient: RecipientHash) -> Result<(), Duration> {
        take(&self.recipients, self.seed.hash_one(recipient), &self.clock)
    }
}

fn take(places: &[DefaultDirectRateLimiter], hash: u64, clock: &DefaultClock) -> Result<(), Duration> {
    let Some(place) = places.get(hash as usize % PLACES) else { return Ok(()) };
    place.check().map_err(|early| early.wait_time_from(clock.now()))
}

/// The network of an IPv6 address: a client that has one of its addresses has all of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_account_has_ten_attempts_from_any_client_in_any_spelling() {
        let throttle = SignInThrottle::default();
        for n in 0..10 {
            throttle.count(if n % 2 == 0 { "ann" } else { "ANN" }, address(n)).unwrap();
        }
        let wait = throttle.count("ann", address(10)).unwrap_err();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
    }

    #[test]
    fn a_recipient_changes_ten_times_and_an_address_asks_two_hundred_times_at_once() {
        let throttle = OptOutThrottle::default();
        for n in 0..10 {
            throttle.count_recipient(RecipientHash([1; 16])).unwrap();
            throttle.count_address(address(n)).unwrap();
        }
        let wait = throttle.count_recipient(RecipientHash([1; 16])).unwrap_err();
        assert!(wait > Duration::from_secs(20) && wait <= Duration::from_secs(30), "{wait:?}");
        let asked = (0..1000).filter(|_| throttle.count_address(address(200)).is_ok()).count();
        assert!((200..300).contains(&asked), "{asked}");
    }

    #[test]
    fn an_address_has_thirty_attempts_and_then_uses_none_of_an_account() {
        let throttle = SignInThrottle::default();
        let ours = |n: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 0, 0, 1));
        for n in 0..30 {
            throttle.count(&format!("nobody{n}"), ours(n)).unwrap();
        }
        for n in 0..100 {
            throttle.count("ann", ours(n)).unwrap_err();
        }
        throttle.count("ann", address(1)).unwrap();
    }
}
