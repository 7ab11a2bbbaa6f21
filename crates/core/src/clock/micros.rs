//! A moment, counted in µs since 1970-01-01 UTC. Pure.
//!
//! Guarantees: it costs as much as a number; sums and differences saturate. With the feature `postgres` it is a
//! `timestamptz`, parameter and column; reading one never fails, so that a row that someone wrote by hand cannot stop
//! what reads it. `infinity` is [`Micros::MAX`], `-infinity` is [`Micros::MIN`]. Gives up: the last 29 years that
//! PostgreSQL can count, after the year 294247: they are `infinity` here.

use std::ops::{Add, Sub};
use std::time::Duration;

use time::OffsetDateTime;

/// The start of PostgreSQL's wire format for times: 2000-01-01 UTC.
pub const POSTGRES_EPOCH: Micros = Micros(946_684_800_000_000);

const A_SECOND: i64 = 1_000_000;

/// A moment: µs since 1970-01-01 UTC, negative before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// The earliest moment.
    pub const MIN: Micros = Micros(i64::MIN);
    /// The latest moment.
    pub const MAX: Micros = Micros(i64::MAX);

    /// The start of a second, in s since 1970.
    pub const fn of_seconds(seconds: i64) -> Micros {
        Micros(seconds.saturating_mul(A_SECOND))
    }

    /// Its second, in s since 1970.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(A_SECOND)
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Micros) -> Duration {
        if self > earlier { Duration::from_micros(self.0.abs_diff(earlier.0)) } else { Duration::ZERO }
    }

    /// The µs since another moment; negative if that is later.
    pub const fn us_after(self, other: Micros) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// The moment this duration later; `None` if it overflows.
    #[must_use]
    pub fn checked_add(self, span: Duration) -> Option<Micros> {
        self.0.checked_add(i64::try_from(span.as_micros()).ok()?).map(Micros)
    }

    /// The moment this duration earlier; `None` if it overflows.
    #[must_use]
    pub fn checked_sub(self, span: Duration) -> Option<Micros> {
        self.0.checked_sub(i64::try_from(span.as_micros()).ok()?).map(Micros)
    }

    /// As a date and time in UTC; `None` after the year 9999, or as long before.
    pub fn utc(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).ok()
    }
}

impl From<OffsetDateTime> for Micros {
    fn from(at: OffsetDateTime) -> Micros {
        // Always fits: `time` counts the years from -9999 to 9999.
        Micros(i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX))
    }
}

impl Add<Duration> for Micros {
    type Output = Micros;

    fn add(self, span: Duration) -> Micros {
        self.checked_add(span).unwrap_or(Micros::MAX)
    }
}

impl Sub<Duration> for Micros {
    type Output = Micros;

    fn sub(self, span: Duration) -> Micros {
        self.checked_sub(span).unwrap_or(Micros::MIN)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::error::Error;

    use bytes::BytesMut;
    use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

    use super::{Micros, POSTGRES_EPOCH};

    impl ToSql for Micros {
        fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
            let us = match *self {
                // On the wire, the two ends are the infinities.
                Micros::MIN | Micros::MAX => self.0,
                // What PostgreSQL cannot count, it refuses itself; it must not become -infinity.
                Micros(us) => us.saturating_sub(POSTGRES_EPOCH.0).max(i64::MIN + 1),
            };
            us.to_sql(&Type::INT8, out)
        }

        accepts!(TIMESTAMPTZ);
        to_sql_checked!();
    }

    impl FromSql<'_> for Micros {
        fn from_sql(_: &Type, raw: &[u8]) -> Result<Micros, Box<dyn Error + Sync + Send>> {
            Ok(match i64::from_sql(&Type::INT8, raw)? {
                i64::MIN => Micros::MIN,
                us => Micros(us.saturating_add(POSTGRES_EPOCH.0)),
            })
        }

        accepts!(TIMESTAMPTZ);
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        fn read(bytes: &[u8]) -> Micros {
            Micros::from_sql(&Type::TIMESTAMPTZ, bytes).unwrap()
        }

        fn written(at: Micros) -> BytesMut {
            let mut out = BytesMut::new();
            at.to_sql_checked(&Type::TIMESTAMPTZ, &mut out).unwrap();
            out
        }

        proptest! {
            #[test]
            fn what_is_written_reads_back(us in i64::MIN + POSTGRES_EPOCH.0 + 1..) {
                prop_assert_eq!(read(&written(Micros(us))), Micros(us));
            }
        }

        #[test]
        fn the_ends_are_the_infinities_and_nothing_else_becomes_one_of_them_on_the_wire() {
            for end in [i64::MIN, i64::MAX] {
                assert_eq!(
                    (read(&end.to_be_bytes()), &written(Micros(end))[..]),
                    (Micros(end), &end.to_be_bytes()[..])
                );
            }
            assert_eq!(read(&(i64::MAX - 1).to_be_bytes()), Micros::MAX, "PostgreSQL counts further than we do");
            assert_eq!(written(Micros(i64::MIN + 1))[..], (i64::MIN + 1).to_be_bytes());
            assert_ne!(written(Micros(i64::MAX - 1))[..], i64::MAX.to_be_bytes());
            assert!(Micros::from_sql(&Type::TIMESTAMPTZ, &[0; 4]).is_err());
            assert!(!<Micros as ToSql>::accepts(&Type::INT8) && !<Micros as FromSql>::accepts(&Type::TIMESTAMP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stop_at_the_ends_and_differences_are_never_negative() {
        let (span, second) = (Duration::from_secs(3), Duration::from_secs(1));
        assert_eq!(Micros(-1) + span, Micros(2_999_999));
        assert_eq!(Micros(2_999_999) - span, Micros(-1));
        assert_eq!((Micros::MAX + second, Micros::MIN - second), (Micros::MAX, Micros::MIN));
        assert_eq!((Micros(0) + Duration::MAX, Micros(0) - Duration::MAX), (Micros::MAX, Micros::MIN));
        assert_eq!((Micros::MAX.checked_add(second), Micros::MIN.checked_sub(second)), (None, None));
        assert_eq!(Micros(0).checked_add(Duration::MAX), None);
        assert_eq!(Micros(5).since(Micros(3)), Duration::from_micros(2));
        assert_eq!(Micros(3).since(Micros(5)), Duration::ZERO);
        assert_eq!(Micros::MAX.since(Micros::MIN), Duration::from_micros(u64::MAX));
        assert_eq!((Micros(3).us_after(Micros(5)), Micros::MIN.us_after(Micros(1))), (-2, i64::MIN));
    }

    #[test]
    fn seconds_and_dates_are_those_of_the_calendar() {
        assert_eq!(
            (Micros(-1).seconds(), Micros(999_999).seconds(), Micros::of_seconds(-2)),
            (-1, 0, Micros(-2_000_000))
        );
        assert_eq!(Micros::of_seconds(i64::MAX), Micros::MAX);
        assert_eq!(POSTGRES_EPOCH.utc().unwrap().to_string(), "2000-01-01 0:00:00.0 +00:00:00");
        assert_eq!((Micros::MAX.utc(), Micros::MIN.utc()), (None, None));
        for at in [Micros(-1), Micros(0), POSTGRES_EPOCH + Duration::from_micros(7)] {
            assert_eq!(Micros::from(at.utc().unwrap()), at);
        }
    }
}
