//! What becomes of each hit of a batch: a row, or a counted drop. Pure: hits and what is known in, rows and counts out.
//!
//! A hit is thrown away for its age or its image before the throttle sees it, so that a token is never spent by a hit that
//! is dropped for another reason. Nothing is dropped for what fetched it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use uuid::Uuid;

use super::copy::{self, Row};
use super::throttle::{BatchTokens, Throttle};
use crate::hit::Hit;

/// How far ahead of the database's clock a hit's time may be, in µs.
const FUTURE_MAX_US: i64 = 3_600_000_000;

/// What a batch is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The database's clock, in µs since 1970.
    pub now_us: i64,
    /// No hit can be older than the program that records it, in µs since 1970.
    pub built_us: i64,
    /// Hits older than this are not kept.
    pub retention: Option<Duration>,
}

/// What is known of a user agent.
#[derive(Debug, Clone, Copy)]
pub struct UserAgentId {
    /// The id that its text has.
    pub own: i64,
    /// The id to store: its own, or 0 where the text is not kept.
    pub stored: i64,
}

/// A day in UTC, counted from 1970: what a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day of a time in µs since 1970.
    #[must_use]
    pub fn of(at_us: i64) -> Day {
        Day(at_us.div_euclid(86_400_000_000))
    }

    /// The day after it.
    #[must_use]
    pub fn next(self) -> Day {
        Day(self.0 + 1)
    }

    /// Its date.
    ///
    /// # Errors
    /// Beyond the year 9999.
    pub fn date(self) -> Result<time::Date, time::error::ComponentRange> {
        Ok(time::OffsetDateTime::from_unix_timestamp(self.0.saturating_mul(86_400))?.date())
    }
}

/// A judged batch.
#[derive(Debug, Default)]
pub struct Judged {
    /// The rows, a whole COPY stream.
    pub rows: BytesMut,
    /// How many rows.
    pub loaded: u64,
    /// Hits held back by the throttle.
    pub throttled: u64,
    /// Hits of images that do not exist.
    pub unknown_image: u64,
    /// Hits beyond the retention.
    pub expired: u64,
    /// Rows whose time was moved into what can be true.
    pub clamped: u64,
    /// Rows whose user agent is not kept.
    pub user_agents_capped: u64,
    /// The earliest row, in µs since 1970.
    pub min_at_us: i64,
    /// The latest row.
    pub max_at_us: i64,
    /// The days that have rows.
    pub days: BTreeSet<Day>,
    /// To be spent once the rows are committed.
    pub tokens: BatchTokens,
}

/// Judges `hits`, of which the first has the number `first_seq` in `spool`.
pub fn judge(
    hits: &[Hit<'_>],
    first_seq: u64,
    spool: i32,
    bounds: Bounds,
    throttle: Option<&Throttle>,
    existed: impl Fn(Uuid, i64) -> bool,
    user_agent: impl Fn(&str) -> UserAgentId,
) -> Judged {
    let mut judged = Judged { min_at_us: i64::MAX, max_at_us: i64::MIN, ..Judged::default() };
    let retention_us = bounds.retention.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    let oldest_us = retention_us.map_or(i64::MIN, |age| bounds.now_us.saturating_sub(age));
    judged.rows.reserve(64 + hits.len() * 192);
    copy::begin(&mut judged.rows);
    let mut last_day = None;
    for (seq, hit) in (first_seq..).zip(hits) {
        let at_us = hit.at_us.clamp(bounds.built_us.min(bounds.now_us), bounds.now_us.saturating_add(FUTURE_MAX_US));
        if at_us < oldest_us {
            judged.expired += 1;
            continue;
        }
        if !existed(hit.image, hit.at_us) {
            judged.unknown_image += 1;
            continue;
        }
        let user_agent = user_agent(hit.user_agent);
        let token = throttle.and_then(|throttle| throttle.token(hit, user_agent.own).map(|token| (throttle, token)));
        if token.is_some_and(|(throttle, token)| !judged.tokens.take(throttle, token)) {
            judged.throttled += 1;
            continue;
        }
        judged.clamped += u64::from(at_us != hit.at_us);
        judged.user_agents_capped += u64::from(user_agent.own != user_agent.stored);
        judged.loaded += 1;
        judged.min_at_us = judged.min_at_us.min(at_us);
        judged.max_at_us = judged.max_at_us.max(at_us);
        let day = Day::of(at_us);
        if last_day != Some(day) {
            judged.days.insert(day);
            last_day = Some(day);
        }
        let row = Row {
            at_us,
            seq: seq as i64,
            user_agent: user_agent.stored,
            sent_at_s: hit.sent_at_s,
            message: hit.message,
            recipient: hit.recipient,
            image: hit.image,
            spool,
            // Every hit is `unknown` by rule 0, "not judged yet", until there are rules.
            class: 0,
            rule: 0,
            network: hit.network as i16,
            prefetch: hit.prefetch,
            address: hit.address,
        };
        copy::put(&mut judged.rows, &row);
    }
    copy::end(&mut judged.rows);
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 2_000_000_000_000_000;
    const DAY: i64 = 86_400_000_000;

    fn hit(recipient: u128, at_us: i64) -> Hit<'static> {
        Hit {
            at_us,
            sent_at_s: 0,
            image: Uuid::from_u128(1),
            message: Uuid::from_u128(2),
            recipient: Uuid::from_u128(recipient),
            network: 0,
            prefetch: false,
            address: None,
            user_agent: "",
        }
    }

    fn judge_all(hits: &[Hit<'_>], throttle: Option<&Throttle>, retention_days: Option<u64>) -> Judged {
        let retention = retention_days.map(|days| Duration::from_secs(days * 86_400));
        let bounds = Bounds { now_us: NOW, built_us: NOW - 100 * DAY, retention };
        let ids = |_: &str| UserAgentId { own: 1, stored: 1 };
        judge(hits, 0, 1, bounds, throttle, |image, _| image == Uuid::from_u128(1), ids)
    }

    #[test]
    fn a_time_that_cannot_be_true_is_moved_and_counted() {
        let judged = judge_all(&[hit(1, 0), hit(2, i64::MAX), hit(3, NOW), hit(4, i64::MIN)], None, None);
        assert_eq!((judged.loaded, judged.clamped), (4, 3));
        assert_eq!((judged.min_at_us, judged.max_at_us), (NOW - 100 * DAY, NOW + FUTURE_MAX_US));
        assert_eq!(judged.days.len(), 2, "a partition for each day with a row, none for those between");
    }

    #[test]
    fn a_hit_beyond_the_retention_is_expired() {
        let judged = judge_all(&[hit(1, NOW - 31 * DAY), hit(2, NOW - 29 * DAY)], None, Some(30));
        assert_eq!((judged.loaded, judged.expired), (1, 1));
    }

    #[test]
    fn a_hit_of_an_unknown_image_spends_no_token() {
        let throttle = Throttle::new(Duration::from_secs(3600), [0; 16]);
        let unknown = Hit { image: Uuid::from_u128(9), ..hit(1, NOW) };
        let judged = judge_all(&[unknown.clone(), unknown, hit(1, NOW), hit(1, NOW)], Some(&throttle), None);
        assert_eq!((judged.loaded, judged.unknown_image, judged.throttled), (1, 2, 1));
        assert_eq!(judged.tokens.into_tokens().count(), 1);
    }
}
