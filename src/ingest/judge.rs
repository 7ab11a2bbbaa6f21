//! Decides about each hit of a batch: a row, or a counted drop. Pure: hits and known facts in, rows and counts out.
//!
//! Rows come out in slices, so that PostgreSQL works on the previous one while the next is judged.
//!
//! A hit is dropped for its age, its image or its recipient's opt-out before the throttle sees it, so that a hit that
//! is dropped for another reason never spends a token. A hit whose image the database lost is neither: it is an orphan,
//! and set aside. No hit is dropped for what fetched it: it gets a class and a rule, which can be judged again.

mod question;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::time::Duration;

use bytes::BytesMut;

pub use self::question::{Question, questions};
use super::copy::{self, Row};
use super::throttle::{BatchTokens, Throttle};
use pixeld_core::clock::micros::Micros;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::networks::Network;
use pixeld_core::opens::agent::Agent;
use pixeld_core::opens::classify::{Evidence, classify};

/// How far ahead of the database's clock a hit's time may be.
const FUTURE_MAX: Duration = Duration::from_secs(3600);

/// Hits that are judged between two slices of rows.
const SLICE_HITS: usize = 512;

/// The bounds by which a batch is judged.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The database's clock.
    pub now: Micros,
    /// When this program was built: its hits cannot be older.
    pub built_at: Micros,
    /// Older hits are dropped.
    pub retention: Option<Duration>,
}

impl Bounds {
    /// A hit's time, moved to the nearest possible one.
    fn clamp(&self, at: Micros) -> Micros {
        at.clamp(self.built_at.min(self.now), self.now + FUTURE_MAX)
    }

    /// Earlier hits are expired.
    fn oldest(&self) -> Micros {
        self.retention.map_or(Micros::MIN, |age| self.now - age)
    }

    /// The days whose partitions the rows of these hits may need.
    pub fn days(&self, hits: &[Hit<'_>]) -> BTreeSet<Day> {
        let oldest = self.oldest();
        let mut days = BTreeSet::new();
        let mut last = None;
        let kept = hits.iter().filter(|hit| !hit.is_erased);
        for at in kept.map(|hit| self.clamp(hit.at)).filter(|&at| at >= oldest) {
            let day = Day::of(at);
            if last != Some(day) {
                days.insert(day);
                last = Some(day);
            }
        }
        days
    }
}

/// What is known about a user agent.
#[derive(Debug, Clone, Copy)]
pub struct UserAgent {
    /// The id of its text.
    pub own: i64,
    /// The id to store: its own, or 0 if the text is not kept.
    pub stored: i64,
    /// What its text says.
    pub agent: Agent,
}

/// The state of a hit's image in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageThen {
    /// It existed when the hit was recorded.
    There,
    /// It does not exist, or was deleted before.
    Unknown,
    /// It does not exist, although this node knew it: the database was restored to an earlier state, or is another one.
    Lost,
}

/// The facts by which a batch's hits are judged, besides their own contents.
pub trait Facts {
    /// The state of an image at a time.
    fn image(&self, image: ImageId, at: Micros) -> ImageThen;

    /// What is known about a user agent.
    fn user_agent(&self, text: &str) -> UserAgent;

    /// When a message was sent, in s since 1970, according to its sender; 0 if unknown.
    fn sent_at_s(&self, message: MessageId) -> u32;

    /// Whether a recipient had opted out at a time.
    fn had_opted_out(&self, recipient: RecipientId, at: Micros) -> bool;
}

/// A day in UTC, counted from 1970: each has one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// The day in which a moment lies.
    pub fn of(at: Micros) -> Day {
        Day(at.0.div_euclid(86_400_000_000))
    }

    /// The day after it.
    #[must_use]
    pub fn next(self) -> Day {
        Day(self.0 + 1)
    }

    /// Its date; after the year 9999, that year's last day.
    pub fn date(self) -> time::Date {
        let midnight = time::OffsetDateTime::from_unix_timestamp(self.0.saturating_mul(86_400));
        midnight.map_or(time::Date::MAX, time::OffsetDateTime::date)
    }
}

/// The result of judging a batch.
#[derive(Debug)]
pub struct Judged {
    /// The number of rows.
    pub loaded: u64,
    /// Hits held back by the throttle.
    pub throttled: u64,
    /// Those among them that only the shared throttle holds back.
    pub throttled_elsewhere: u64,
    /// Hits of recipients who had opted out.
    pub suppressed: u64,
    /// Hits of images that do not exist.
    pub unknown_image: u64,
    /// Hits of images that the database lost, by their positions in the batch.
    pub orphans: Vec<usize>,
    /// Hits older than the retention time.
    pub expired: u64,
    /// Hits whose recipients were erased.
    pub erased: u64,
    /// Rows whose time was moved to a possible one.
    pub clamped: u64,
    /// Rows whose user agent is not kept.
    pub user_agents_capped: u64,
    /// When the earliest row was answered.
    pub min_at: Micros,
    /// The latest row.
    pub max_at: Micros,
    /// Tokens to spend once the rows are committed.
    pub tokens: BatchTokens,
}

impl Default for Judged {
    fn default() -> Judged {
        Judged {
            loaded: 0,
            throttled: 0,
            throttled_elsewhere: 0,
            suppressed: 0,
            unknown_image: 0,
            orphans: Vec::new(),
            expired: 0,
            erased: 0,
            clamped: 0,
            user_agents_capped: 0,
            min_at: Micros::MAX,
            max_at: Micros::MIN,
            tokens: BatchTokens::default(),
        }
    }
}

/// Why a hit is dropped before the throttle sees it.
enum Dropped {
    Expired,
    UnknownImage,
    LostImage,
    Suppressed,
}

/// The hit's user agent, which the throttle needs, unless the hit is dropped before.
fn admit(hit: &Hit<'_>, at: Micros, oldest: Micros, facts: &impl Facts) -> Result<UserAgent, Dropped> {
    if at < oldest {
        return Err(Dropped::Expired);
    }
    let image = facts.image(hit.image, hit.at);
    if image == ImageThen::Unknown {
        return Err(Dropped::UnknownImage);
    }
    if facts.had_opted_out(hit.recipient, at) {
        return Err(Dropped::Suppressed);
    }
    if image == ImageThen::Lost {
        return Err(Dropped::LostImage);
    }
    Ok(facts.user_agent(hit.user_agent))
}

/// A batch that is being judged.
pub struct Judging<'a, F> {
    hits: &'a [Hit<'a>],
    /// How many are judged.
    done: usize,
    first_seq: u64,
    spool: i32,
    bounds: Bounds,
    throttle: Option<&'a Throttle>,
    facts: &'a F,
    /// The numbers of hits that the shared throttle holds back, in ascending order.
    held_back: Peekable<std::vec::IntoIter<u64>>,
    judged: Judged,
}

impl<'a, F: Facts> Judging<'a, F> {
    /// Begins with `hits`; the first one has the number `first_seq` in `spool`.
    #[must_use]
    pub fn new(
        hits: &'a [Hit<'a>],
        first_seq: u64,
        spool: i32,
        bounds: Bounds,
        throttle: Option<&'a Throttle>,
        facts: &'a F,
    ) -> Self {
        let held_back = Vec::new().into_iter().peekable();
        Judging { hits, done: 0, first_seq, spool, bounds, throttle, facts, held_back, judged: Judged::default() }
    }

    /// The same batch, with the numbers of the hits that the shared throttle holds back, in ascending order.
    #[must_use]
    pub fn holding_back(mut self, held_back: Vec<u64>) -> Self {
        self.held_back = held_back.into_iter().peekable();
        self
    }

    /// The next part of the COPY stream; `None` after its end, and at once if there are no hits.
    pub fn next_rows(&mut self) -> Option<BytesMut> {
        let slice = &self.hits[self.done..self.hits.len().min(self.done + SLICE_HITS)];
        if slice.is_empty() {
            return None;
        }
        let mut rows = BytesMut::with_capacity(64 + slice.len() * 192);
        if self.done == 0 {
            copy::begin(&mut rows);
        }
        let oldest = self.bounds.oldest();
        for (seq, hit) in (self.first_seq + self.done as u64..).zip(slice) {
            self.judge(seq, hit, oldest, &mut rows);
        }
        self.done += slice.len();
        if self.done == self.hits.len() {
            copy::end(&mut rows);
        }
        Some(rows)
    }

    fn judge(&mut self, seq: u64, hit: &Hit<'_>, oldest: Micros, rows: &mut BytesMut) {
        let judged = &mut self.judged;
        let is_held_back = self.held_back.next_if_eq(&seq).is_some();
        if hit.is_erased {
            judged.erased += 1;
            return;
        }
        let at = self.bounds.clamp(hit.at);
        let user_agent = match admit(hit, at, oldest, self.facts) {
            Ok(user_agent) => user_agent,
            Err(Dropped::Expired) => {
                judged.expired += 1;
                return;
            }
            Err(Dropped::UnknownImage) => {
                judged.unknown_image += 1;
                return;
            }
            Err(Dropped::LostImage) => {
                judged.orphans.push((seq - self.first_seq) as usize);
                return;
            }
            Err(Dropped::Suppressed) => {
                judged.suppressed += 1;
                return;
            }
        };
        let token = self.throttle.and_then(|throttle| Some((throttle, throttle.token(hit, user_agent.own)?)));
        if let Some((throttle, token)) = token {
            if is_held_back {
                judged.throttled += 1;
                judged.throttled_elsewhere += u64::from(!judged.tokens.holds_back(throttle, token));
                return;
            }
            if !judged.tokens.take(throttle, token, seq) {
                judged.throttled += 1;
                return;
            }
        }
        judged.clamped += u64::from(at != hit.at);
        judged.user_agents_capped += u64::from(user_agent.own != user_agent.stored);
        judged.loaded += 1;
        judged.min_at = judged.min_at.min(at);
        judged.max_at = judged.max_at.max(at);
        let sent_at_s = if hit.sent_at_s == 0 { self.facts.sent_at_s(hit.message) } else { hit.sent_at_s };
        let rule = classify(&Evidence {
            agent: user_agent.agent,
            network: Network::of_number(hit.network),
            prefetch: hit.prefetch,
            since_sent_s: (sent_at_s != 0).then(|| at.seconds() - i64::from(sent_at_s)),
        });
        let row = Row {
            at,
            seq: seq as i64,
            user_agent: user_agent.stored,
            sent_at_s: hit.sent_at_s,
            message: hit.message,
            recipient: hit.recipient,
            image: hit.image,
            spool: self.spool,
            class: rule.class().number(),
            rule: rule.number(),
            network: hit.network as i16,
            prefetch: hit.prefetch,
            address: hit.address,
            client: user_agent.agent.client.number(),
        };
        copy::put(rows, &row);
    }

    /// The result. All rows must have been taken.
    #[must_use]
    pub fn finish(self) -> Judged {
        debug_assert_eq!(self.done, self.hits.len(), "every hit is judged");
        self.judged
    }
}

#[cfg(test)]
mod tests;
