//! The throttle: at most one hit of the same client, message and recipient in `PIXELD_THROTTLE`.
//!
//! Guarantees: two hits that differ in image, message, recipient, address, user agent or prefetch mark never hold each
//! other back, and a hit without a recipient is never held back, so that all readers behind one mail provider's proxy
//! stay separate. A token is spent only by a hit that PostgreSQL committed. Hits are judged by their own times, so that
//! a backlog loads as it would have at once. A hit that the database lost again (a restored backup, a failover) holds
//! nothing back: the caller that notices reports how far a spool is loaded now, and later recorded hits are forgotten.
//! Gives up: completeness. Memory is bounded ([`TOKENS_MAX`]); when it is full, after a restart, or with more than one
//! node (but see [`super::shared_throttle`]), a repeated hit is recorded again. 64-bit fingerprints can collide, once
//! in about 10^19 pairs.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::ids::SpoolId;

/// Maximum hits that are remembered, over both generations (about 50 MB).
pub const TOKENS_MAX: usize = 1 << 20;

/// The key of the fingerprints: a secret of the installation, so that the memory reveals nothing about anybody.
pub type ThrottleKey = [u8; 16];

/// A hit as the throttle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    fingerprint: u64,
    at: Micros,
}

impl Token {
    /// Hash of the fields that make two hits the same fetch.
    pub fn fingerprint(self) -> u64 {
        self.fingerprint
    }

    /// The hit's own time.
    pub fn at(self) -> Micros {
        self.at
    }
}

/// The hits that were recorded lately.
#[derive(Debug)]
pub struct Throttle {
    window_us: i64,
    key: ThrottleKey,
    young: Tokens,
    old: Tokens,
    tokens_max: usize,
    /// The spools of the recorded hits, and how far each was recorded.
    spools: Vec<(SpoolId, u64)>,
}

type Tokens = HashMap<u64, Recorded, BuildHasherDefault<AsItIs>>;

/// A hit that was recorded.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    at: Micros,
    id: RecordedId,
}

/// The hit's identity: its spool's index in the high 16 bits, its number below. Packed, since there may be a million.
#[derive(Debug, Clone, Copy)]
struct RecordedId(u64);

impl RecordedId {
    /// Spools from this index on are not distinguished.
    const SPOOLS_MAX: usize = 0xffff;

    fn new(spool: usize, seq: u64) -> RecordedId {
        RecordedId((spool.min(Self::SPOOLS_MAX) as u64) << 48 | seq & 0xffff_ffff_ffff)
    }

    fn spool(self) -> usize {
        (self.0 >> 48) as usize
    }

    fn seq(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }
}

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
    pub fn new(window: Duration, key: ThrottleKey) -> Throttle {
        Throttle::with_tokens_max(window, key, TOKENS_MAX)
    }

    fn with_tokens_max(window: Duration, key: ThrottleKey, tokens_max: usize) -> Throttle {
        let window_us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        let (young, old) = (Tokens::default(), Tokens::default());
        Throttle { window_us, key, young, old, tokens_max, spools: Vec::new() }
    }

    /// The token of a hit; `None` if it is never throttled. `user_agent` is its user agent's id.
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
        Some(Token { fingerprint: hasher.finish(), at: hit.at })
    }

    /// Whether a hit with this token was recorded within the window, before or after it.
    pub fn holds_back(&self, token: Token) -> bool {
        let last = self.young.get(&token.fingerprint).or_else(|| self.old.get(&token.fingerprint));
        last.is_some_and(|last| self.is_near(last.at, token.at))
    }

    /// Whether two times are within one window.
    pub fn is_near(&self, one: Micros, other: Micros) -> bool {
        one.0.abs_diff(other.0) < self.window_us.unsigned_abs()
    }

    /// Remembers what PostgreSQL has committed of `spool`: tokens, each with the number of its hit.
    pub fn spend(&mut self, spool: SpoolId, tokens: impl IntoIterator<Item = (Token, u64)>) {
        let known = self.spools.iter().position(|(known, _)| *known == spool);
        let index = known.unwrap_or_else(|| {
            self.spools.push((spool, 0));
            self.spools.len() - 1
        });
        for (token, seq) in tokens {
            self.spools[index].1 = self.spools[index].1.max(seq + 1);
            if self.young.len() >= self.tokens_max / 2 {
                // Two generations: forgetting half at once costs nothing per hit, and recently used ones stay.
                self.old = std::mem::take(&mut self.young);
            }
            let recorded = Recorded { at: token.at, id: RecordedId::new(index, seq) };
            self.young.insert(token.fingerprint, recorded);
        }
    }

    /// The spools of the recorded hits.
    pub fn spools(&self) -> Vec<SpoolId> {
        self.spools.iter().map(|(spool, _)| *spool).collect()
    }

    /// The database has `spool` only up to `next_seq`: forgets what was recorded beyond that. Returns the number of
    /// forgotten hits.
    pub fn forget_from(&mut self, spool: SpoolId, next_seq: u64) -> usize {
        let Some(index) = self.spools.iter().position(|&(known, end)| known == spool && next_seq < end) else {
            return 0;
        };
        self.spools[index].1 = next_seq;
        let index = index.min(RecordedId::SPOOLS_MAX);
        let is_kept = |recorded: &Recorded| recorded.id.spool() != index || recorded.id.seq() < next_seq;
        let before = self.young.len() + self.old.len();
        self.young.retain(|_, recorded| is_kept(recorded));
        self.old.retain(|_, recorded| is_kept(recorded));
        before - self.young.len() - self.old.len()
    }
}

/// The tokens of one batch, which count for its own later hits before they are spent.
#[derive(Debug, Default)]
pub struct BatchTokens(Tokens);

impl BatchTokens {
    /// Takes the token for the hit `seq` unless the throttle or an earlier hit of the batch holds it back. Returns
    /// whether it was taken.
    pub fn take(&mut self, throttle: &Throttle, token: Token, seq: u64) -> bool {
        let is_free = !self.holds_back(throttle, token);
        if is_free {
            self.0.insert(token.fingerprint, Recorded { at: token.at, id: RecordedId::new(0, seq) });
        }
        is_free
    }

    /// Whether the throttle or an earlier hit of the batch holds this token back.
    pub fn holds_back(&self, throttle: &Throttle, token: Token) -> bool {
        let earlier = self.0.get(&token.fingerprint);
        throttle.holds_back(token) || earlier.is_some_and(|earlier| throttle.is_near(earlier.at, token.at))
    }

    /// All that were taken, each with the number of its hit.
    pub fn into_tokens(self) -> impl Iterator<Item = (Token, u64)> {
        let token = |(fingerprint, Recorded { at, id })| (Token { fingerprint, at }, id.seq());
        self.0.into_iter().map(token)
    }
}

#[cfg(test)]
mod tests {
    use pixeld_core::hit::fixture::carrying;

    use super::*;
    use pixeld_core::ids::RecipientId;

    const HOUR: Duration = Duration::from_secs(3600);

    fn hit(recipient: u128, at_s: i64) -> Hit<'static> {
        let address = Some(IpAddr::from([66, 249, 84, 1]));
        Hit { at: Micros::of_seconds(at_s), recipient: RecipientId::from_u128(recipient), address, ..carrying(0, "") }
    }

    fn take(throttle: &Throttle, batch: &mut BatchTokens, hit: &Hit<'_>, user_agent: i64) -> bool {
        throttle.token(hit, user_agent).is_none_or(|token| batch.take(throttle, token, 0))
    }

    const SPOOL: SpoolId = SpoolId::from_u128(70);

    fn spend(throttle: &mut Throttle, hit: &Hit<'_>, seq: u64) {
        let token = throttle.token(hit, 9).map(|token| (token, seq));
        throttle.spend(SPOOL, token);
    }

    #[test]
    fn lost_hits_hold_nothing_back_and_kept_ones_still_do() {
        let mut throttle = Throttle::new(HOUR, [1; 16]);
        for seq in 0..100 {
            spend(&mut throttle, &hit(u128::from(seq) + 1, 0), seq);
        }
        let other = SpoolId::from_u128(71);
        let of_other = throttle.token(&hit(500, 0), 9).map(|token| (token, 90));
        throttle.spend(other, of_other);
        let held = |throttle: &Throttle, recipient| !take(throttle, &mut BatchTokens::default(), &hit(recipient, 1), 9);
        assert_eq!(throttle.forget_from(SPOOL, 100), 0, "nothing is lost");
        assert_eq!(throttle.forget_from(SPOOL, 40), 60);
        let all = (1..=100).filter(|&recipient| held(&throttle, recipient)).collect::<Vec<u128>>();
        assert_eq!(all, (1..=40).collect::<Vec<u128>>());
        assert!(held(&throttle, 500), "another spool's numbers are its own");
        // It is loaded again, and lost again.
        spend(&mut throttle, &hit(60, 0), 59);
        assert!(held(&throttle, 60));
        assert_eq!((throttle.forget_from(SPOOL, 59), held(&throttle, 60)), (1, false));
        assert_eq!(throttle.forget_from(SpoolId::from_u128(72), 0), 0);
        assert_eq!(throttle.spools(), [SPOOL, other]);
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
        spend(&mut throttle, &hit(1, 10_000), 0);
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
            spend(&mut throttle, &hit(recipient, 0), 0);
            assert!(throttle.young.len() + throttle.old.len() <= 100);
        }
        let held = |recipient| throttle.token(&hit(recipient, 1), 9).is_some_and(|token| throttle.holds_back(token));
        assert!(held(1000) && !held(1), "the latest are remembered, the oldest are not");
    }
}
