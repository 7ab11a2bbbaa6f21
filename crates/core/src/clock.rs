//! This machine's clock. It is read here and nowhere else (`clippy.toml` forbids it), so that whatever depends on the time of day names this room.
//!
//! Gives up: it may jump; nothing is ordered by it, and what must not be fooled asks `clocks`. Spans of time are measured by `Instant`.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// The time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time now, in microseconds since 1970-01-01 UTC.
#[must_use]
pub fn now_us() -> i64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The time now, as a date and time in UTC.
#[must_use]
pub fn now_utc() -> OffsetDateTime {
    now().into()
}
