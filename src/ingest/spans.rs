//! How hits are cut into batches by their times. Pure.
//!
//! A batch covers a short time, since a later search for its hits reads all that came in that time.

use std::ops::Range;

/// Consecutive ranges whose `times` are within `span_max_us` of each other, without gaps. At most `spans_max` of them:
/// if times jump more often, the last one holds the rest. An item without a time belongs to the range before it.
#[must_use]
pub fn spans(
    times: impl ExactSizeIterator<Item = Option<i64>>,
    span_max_us: i64,
    spans_max: usize,
) -> Vec<Range<usize>> {
    let count = times.len();
    let mut spans = Vec::new();
    let (mut from, mut earliest, mut latest) = (0, i64::MAX, i64::MIN);
    for (place, at_us) in times.enumerate() {
        let Some(at_us) = at_us else { continue };
        let (wider, later) = (earliest.min(at_us), latest.max(at_us));
        if place > from && later.saturating_sub(wider) > span_max_us && spans.len() + 1 < spans_max {
            spans.push(from..place);
            (from, earliest, latest) = (place, at_us, at_us);
        } else {
            (earliest, latest) = (wider, later);
        }
    }
    if from < count {
        spans.push(from..count);
    }
    spans
}
