//! What the shared throttle is asked before a batch is judged. Pure.

use super::{Bounds, Facts, admit};
use crate::ingest::throttle::{Throttle, Token};
use pixeld_core::hit::Hit;

/// A question to the shared throttle about a hit that may become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Its number in its spool.
    pub seq: u64,
    /// Its token.
    pub token: Token,
}

/// The questions about `hits`, the first of which has the number `first_seq`: all hits that have a token and that
/// nothing else drops. A hit that an earlier one of them would hold back is included: that one may be held back itself.
pub fn questions(
    hits: &[Hit<'_>],
    first_seq: u64,
    bounds: Bounds,
    throttle: &Throttle,
    facts: &impl Facts,
) -> Vec<Question> {
    let oldest = bounds.oldest();
    let question = |(seq, hit): (u64, &Hit<'_>)| {
        let user_agent = admit(hit, bounds.clamp(hit.at), oldest, facts).ok()?;
        let token = throttle.token(hit, user_agent.own).filter(|&token| !throttle.holds_back(token))?;
        Some(Question { seq, token })
    };
    (first_seq..).zip(hits).filter_map(question).collect()
}
