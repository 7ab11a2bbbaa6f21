//! How hits are cut into batches by their times. Pure.
//!
//! A batch covers a short time, since a later search for its hits reads all that came in that time.

use std::ops::Range;
use std::time::Duration;

use pixeld_core::clock::micros::Micros;

/// Consecutive ranges whose `times` are within `span_max` of each other, without gaps. At most `spans_max` of them:
/// if times jump more often, the last one holds the rest. An item without a time belongs to the range before it.
pub(crate) fn spans(
    times: impl ExactSizeIterator<Item = Option<Micros>>,
    span_max: Duration,
    spans_max: usize,
) -> Vec<Range<usize>> {
    let count = times.len();
    let mut spans = Vec::new();
    let (mut from, mut earliest, mut latest) = (0, Micros::MAX, Micros::MIN);
    for (place, at) in times.enumerate() {
        let Some(at) = at else { continue };
        let (wider, later) = (earliest.min(at), latest.max(at));
        if place > from && later.since(wider) > span_max && spans.len() + 1 < spans_max {
            spans.push(from..place);
            (from, earliest, latest) = (place, at, at);
        } else {
            (earliest, latest) = (wider, later);
        }
    }
    if from < count {
        spans.push(from..count);
    }
    spans
}
