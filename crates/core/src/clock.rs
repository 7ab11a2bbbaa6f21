//! This machine's clock. It is read only here (`clippy.toml` forbids it elsewhere), so that all code that depends on
//! the time of day imports this room.
//!
//! Gives up: reliability. The clock may jump; nothing is ordered by it, and code that must detect jumps uses `clocks`.
//! Durations are measured with `Instant`.

pub mod micros;

use std::time::{SystemTime, UNIX_EPOCH};

use micros::Micros;
use time::OffsetDateTime;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time now, in µs since 1970.
pub fn now_micros() -> Micros {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The time now, as a date and time in UTC.
pub fn now_utc() -> OffsetDateTime {
    now().into()
}
