//! The throttle: at most one hit of the same fetcher, message and recipient in `PIXELD_THROTTLE`.
//!
//! Guarantees: two hits that differ in image, message, recipient, address, user agent or prefetch tag never suppress each
//! other, and a hit without a recipient is never suppressed, so that all readers behind one mail provider's proxy stay
//! apart; a token is spent only by a hit that PostgreSQL committed. Judged by the hits' own times, so that a backlog loads as
//! it would have at once. Gives up: memory is bounded ([`TOKENS_MAX`]), and when it is full, after a restart, or with more
//! than one node (but see [`super::shared_throttle`]), a repeated hit is recorded again. 64-bit fingerprints can collide, once in about 10^19 pairs.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::hit::Hit;

/// Hits that are remembered at most, over both generations (about 25 MB).
pub const TOKENS_MAX: usize = 1 << 20;

/// Key of the fingerprints: a secret of the installation, so that what is remembered says nothing of anybody.
pub type ThrottleKey = [u8; 16];

/// A hit as the throttle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    fingerprint: u64,
    at_us: i64,
}

impl Token {
    /// Of what the hit is the same fetch as others, hashed.
    #[must_use]
    pub fn fingerprint(self) -> u64 {
        self.fingerprint
    }

    /// The hit's own time, in µs since 1970.
    #[must_use]
    pub fn at_us(self) -> i64 {
        self.at_us
    }
}

/// What was recorded lately.
#[derive(Debug)]
pub struct Throttle {
    window_us: i64,
    key: ThrottleKey,
    young: Tokens,
    old: Tokens,
    tokens_max: usize,
}

type Tokens = HashMap<u64, i64, BuildHasherDefault<AsItIs>>;

/// Fingerprints are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed")
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

impl Throttle {
    /// A throttle that remembers for `window`.
    #[must_use]
    pub fn new(window: Duration, key: ThrottleKey) -> Throttle {
        Throttle::with_tokens_max(window, key, TOKENS_MAX)
    }

    fn with_tokens_max(window: Duration, key: ThrottleKey, tokens_max: usize) -> Throttle {
        let window_us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        Throttle { window_us, key, young: Tokens::default(), old: Tokens::default(), tokens_max }
    }

    /// The token of a hit; none where it is never throttled. `user_agent` is its user agent's id.
    #[must_use]
    pub fn token(&self, hit: &Hit<'_>, user_agent: i64) -> Option<Token> {
        if hit.recipient.is_nil() {
            return None;
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(hit.image.as_bytes());
        hasher.write(hit.message.as_bytes());
        hasher.write(hit.recipient.as_bytes());
        match hit.address {
            None => hasher.write_u8(0),
            Some(IpAddr::V4(address)) => hasher.write(&address.octets()),
            Some(IpAddr::V6(address)) => hasher.write(&address.octets()),
        }
        hasher.write_i64(user_agent);
        hasher.write_u8(u8::from(hit.prefetch));
        Some(Token { fingerprint: hasher.finish(), at_us: hit.at_us })
    }

    /// Whether a hit with this token was recorded within the window, before or after it.
    #[must_use]
    pub fn holds_back(&self, token: Token) -> bool {
        let last = self.young.get(&token.fingerprint).or_else(|| self.old.get(&token.fingerprint));
        last.is_some_and(|last| self.is_near(*last, token.at_us))
    }

    /// Whether two times lie within one window.
    #[must_use]
    pub fn is_near(&self, one_us: i64, other_us: i64) -> bool {
        one_us.abs_diff(other_us) < self.window_us.unsigned_abs()
    }

    /// Remembers what PostgreSQL has committed.
    pub fn spend(&mut self, tokens: impl IntoIterator<Item = Token>) {
        for token in tokens {
            if self.young.len() >= self.tokens_max / 2 {
                // Two generations: forgetting half at once costs nothing a hit, and what was used lately stays.
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(token.fingerprint, token.at_us);
        }
    }
}

/// The tokens of one batch, which count for its own later hits before they are spent.
#[derive(Debug, Default)]
pub struct BatchTokens(Tokens);

impl BatchTokens {
    /// Takes the token unless the throttle or an earlier hit of the batch holds it back. Says whether it was taken.
    pub fn take(&mut self, throttle: &Throttle, token: Token) -> bool {
        let is_free = !self.holds_back(throttle, token);
        if is_free {
            self.0.insert(token.fingerprint, token.at_us);
        }
        is_free
    }

    /// Whether the throttle or an earlier hit of the batch holds this token back.
    #[must_use]
    pub fn holds_back(&self, throttle: &Throttle, token: Token) -> bool {
        let earlier = self.0.get(&token.fingerprint);
        throttle.holds_back(token) || earlier.is_some_and(|&at_us| throttle.is_near(at_us, token.at_us))
    }

    /// All that were taken.
    pub fn into_tokens(self) -> impl Iterator<Item = Token> {
        self.0.into_iter().map(|(fingerprint, at_us)| Token { fingerprint, at_us })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn hit(recipient: u128, at_s: i64) -> Hit<'static> {
        Hit {
            at_us: at_s * 1_000_000,
            sent_at_s: 0,
            image: Uuid::from_u128(1),
            message: Uuid::from_u128(2),
            recipient: Uuid::from_u128(recipient),
            network: 0,
            prefetch: false,
            address: Some(IpAddr::from([66, 249, 84, 1])),
            keys: None,
            is_erased: false,
            user_agent: "",
        }
    }

    fn take(throttle: &Throttle, batch: &mut BatchTokens, hit: &Hit<'_>, user_agent: i64) -> bool {
        throttle.token(hit, user_agent).is_none_or(|token| batch.take(throttle, token))
    }

    #[test]
    fn readers_behind_one_proxy_address_stay_apart() {
        let throttle = Throttle::new(HOUR, [1; 16]);
        let mut batch = BatchTokens::default();
        assert!((1..1000).all(|recipient| take(&throttle, &mut batch, &hit(recipient, 0), 9)));
        assert!((1..1000).all(|recipient| !take(&throttle, &mut batch, &hit(recipient, 1), 9)));
    }

    #[test]
    fn another_user_agent_prefetch_tag_or_address_is_another_fetch() {
        let throttle = Throttle::new(HOUR, [1; 16]);
        let mut batch = BatchTokens::default();
        assert!(take(&throttle, &mut batch, &hit(1, 0), 9));
        assert!(take(&throttle, &mut batch, &hit(1, 0), 10));
        assert!(take(&throttle, &mut batch, &Hit { prefetch: true, ..hit(1, 0) }, 9));
        assert!(take(&throttle, &mut batch, &Hit { address: None, ..hit(1, 0) }, 9));
        assert!(!take(&throttle, &mut batch, &hit(1, 0), 9));
    }

    #[test]
    fn a_hit_without_a_recipient_is_never_held_back() {
        let throttle = Throttle::new(HOUR, [1; 16]);
        let mut batch = BatchTokens::default();
        assert!((0..100).all(|_| take(&throttle, &mut batch, &hit(0, 0), 9)));
    }

    #[test]
    fn the_window_is_judged_by_the_hits_own_times_in_both_directions() {
        let mut throttle = Throttle::new(HOUR, [1; 16]);
        throttle.spend(throttle.token(&hit(1, 10_000), 9));
        let mut batch = BatchTokens::default();
        assert!(!take(&throttle, &mut batch, &hit(1, 13_599), 9));
        assert!(!take(&throttle, &mut batch, &hit(1, 6_401), 9));
        assert!(take(&throttle, &mut batch, &hit(1, 13_600), 9));
    }

    #[test]
    fn a_token_that_was_not_spent_holds_nothing_back() {
        let throttle = Throttle::new(HOUR, [1; 16]);
        let mut failed = BatchTokens::default();
        assert!(take(&throttle, &mut failed, &hit(1, 0), 9));
        drop(failed);
        assert!(take(&throttle, &mut BatchTokens::default(), &hit(1, 1), 9));
    }

    #[test]
    fn memory_is_bounded_and_full_means_recorded_again() {
        let mut throttle = Throttle::with_tokens_max(HOUR, [1; 16], 100);
        for recipient in 1..=1000 {
            throttle.spend(throttle.token(&hit(recipient, 0), 9));
            assert!(throttle.young.len() + throttle.old.len() <= 100);
        }
        let held = |recipient| throttle.token(&hit(recipient, 1), 9).is_some_and(|token| throttle.holds_back(token));
        assert!(held(1000) && !held(1), "the latest are remembered, the oldest are not");
    }
}
