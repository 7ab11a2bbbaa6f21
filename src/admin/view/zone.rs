//! The zone that times are shown in. Pure: the rules of all zones are built in.

use std::sync::{LazyLock, OnceLock};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A zone by its IANA name, like Europe/Berlin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(usize);

struct Known {
    name: String,
    rules: OnceLock<TimeZone>,
}

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// All of them, sorted, with UTC first. The rules of one are read when they are first needed.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    // Names with a place; the others are old spellings, or change nothing.
    let named = DATABASE.available().map(|name| name.as_str().to_owned());
    let mut names: Vec<String> = named.filter(|name| name.contains('/') && !name.starts_with("Etc/")).collect();
    names.sort_unstable();
    names.insert(0, "UTC".to_owned());
    names.into_iter().map(|name| Known { name, rules: OnceLock::new() }).collect()
});

impl Zone {
    /// UTC.
    pub const UTC: Zone = Zone(0);

    /// The zone of a name; nothing where none is known.
    #[must_use]
    pub fn named(name: &str) -> Option<Zone> {
        KNOWN.iter().position(|known| known.name.eq_ignore_ascii_case(name)).map(Zone)
    }

    /// The names of all zones, UTC first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name.as_str())
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        &KNOWN[self.0].name
    }

    fn rules(self) -> &'static TimeZone {
        let known = &KNOWN[self.0];
        known.rules.get_or_init(|| DATABASE.get(&known.name).unwrap_or(TimeZone::UTC))
    }

    /// A time as clocks show it here.
    #[must_use]
    pub fn local(self, at: OffsetDateTime) -> OffsetDateTime {
        let seconds = Timestamp::from_second(at.unix_timestamp()).map_or(0, |at| self.rules().to_offset(at).seconds());
        UtcOffset::from_whole_seconds(seconds).ok().and_then(|offset| at.checked_to_offset(offset)).unwrap_or(at)
    }

    /// When the day of `at` began here.
    #[must_use]
    pub fn day_of(self, at: OffsetDateTime) -> OffsetDateTime {
        self.instant(PrimitiveDateTime::new(self.local(at).date(), time::Time::MIDNIGHT))
    }

    /// When so many days, and the one after the last, began here, where `last` lies in the last of them. A day may have 23 or 25 hours.
    #[must_use]
    pub fn days_till(self, last: OffsetDateTime, days: u16) -> Vec<OffsetDateTime> {
        let today = self.local(last).date();
        let midnight = |back: i64| {
            let date = today.checked_sub(time::Duration::days(back)).unwrap_or(today);
            self.instant(PrimitiveDateTime::new(date, time::Time::MIDNIGHT))
        };
        (0..=i64::from(days)).rev().map(|left| midnight(left - 1)).collect()
    }

    /// The instant at which clocks show this time here; the first of two, and the one after a gap.
    #[must_use]
    pub fn instant(self, local: PrimitiveDateTime) -> OffsetDateTime {
        let utc = local.assume_utc();
        let civil = Timestamp::from_second(utc.unix_timestamp()).map(|at| TimeZone::UTC.to_datetime(at));
        let at = civil.and_then(|civil| self.rules().to_ambiguous_timestamp(civil).compatible());
        at.ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at.as_second()).ok()).unwrap_or(utc)
    }

    /// The time that a `datetime-local` field of a form has.
    #[must_use]
    pub fn typed(self, text: &str) -> Option<OffsetDateTime> {
        let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
        let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
        let local = PrimitiveDateTime::parse(text, &minutes).or_else(|_| PrimitiveDateTime::parse(text, &seconds));
        local.ok().map(|local| self.instant(local))
    }

    /// The other way round: what such a field is filled with.
    #[must_use]
    pub fn field(self, at: OffsetDateTime) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]");
        self.local(at).format(&format).unwrap_or_default()
    }

    /// The date of a time here: 4 May 2026.
    #[must_use]
    pub fn date(self, at: OffsetDateTime) -> String {
        let format = format_description!("[day padding:none] [month repr:short] [year]");
        self.local(at).format(&format).unwrap_or_default()
    }

    /// A time here: 4 May 2026, 09:01.
    #[must_use]
    pub fn time(self, at: OffsetDateTime) -> String {
        let format = format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute]");
        self.local(at).format(&format).unwrap_or_default()
    }
}

/// A time in full, in UTC, for machines and those who hover over it.
#[must_use]
pub fn exact(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap()
    }

    #[test]
    fn zones_are_known_by_name() {
        assert_eq!(Zone::named("UTC"), Some(Zone::UTC));
        assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
        assert_eq!(Zone::named("Europe/Atlantis"), None);
        assert_eq!(Zone::named(""), None);
        assert!(Zone::names().count() > 300);
    }

    #[test]
    fn times_are_those_of_the_zones_clocks_winter_and_summer() {
        assert_eq!(zone("Europe/Berlin").time(at("2026-05-04T22:01:05Z")), "5 May 2026, 00:01");
        assert_eq!(zone("Europe/Berlin").time(at("2026-12-04T22:01:05Z")), "4 Dec 2026, 23:01");
        assert_eq!(zone("Asia/Kolkata").time(at("2026-05-04T09:01:05Z")), "4 May 2026, 14:31");
        assert_eq!(exact(at("2026-05-04T09:01:05Z")), "2026-05-04T09:01:05Z");
    }

    #[test]
    fn days_begin_at_midnight_also_when_clocks_change() {
        let berlin = zone("Europe/Berlin");
        let days = berlin.days_till(at("2026-03-30T05:00:00Z"), 3);
        let expected = ["2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z"];
        assert_eq!(days, expected.map(at));
        assert_eq!(berlin.day_of(at("2026-03-29T21:59:59Z")), at("2026-03-28T23:00:00Z"));
        // Clocks went from midnight to one o'clock there.
        assert_eq!(zone("America/Sao_Paulo").day_of(at("2018-11-04T12:00:00Z")), at("2018-11-04T03:00:00Z"));
    }

    #[test]
    fn a_forms_time_is_read_here_and_written_as_it_was() {
        let kolkata = zone("Asia/Kolkata");
        assert_eq!(kolkata.typed("2026-05-04T14:31"), Some(at("2026-05-04T09:01:00Z")));
        assert_eq!(kolkata.typed("2026-05-04T14:31:05"), Some(at("2026-05-04T09:01:05Z")));
        assert_eq!(kolkata.field(at("2026-05-04T09:01:00Z")), "2026-05-04T14:31");
        for wrong in ["", "2026-05-04", "2026-13-04T14:31", "x"] {
            assert_eq!(kolkata.typed(wrong), None, "{wrong}");
        }
    }
}
