//! The zone that times are shown in. Pure: the rules of all zones are built in.
//!
//! Guarantees: no two times that are a minute apart look alike. When clocks are put back they show an hour (in one
//! zone, half of one) twice; the difference from UTC then follows the time. Gives up: a field of a form has no room for
//! it; see [`Zone::typed`].

use std::sync::{LazyLock, OnceLock};

use jiff::Timestamp;
use jiff::tz::{AmbiguousTimestamp, TimeZone, TimeZoneDatabase};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A zone by its IANA name, like Europe/Berlin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone(usize);

struct Known {
    name: String,
    rules: OnceLock<TimeZone>,
}

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// All of them, sorted, with UTC first. A zone's rules are read when they are first needed.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    // Names with a place; the others are old spellings, or aliases.
    let named = DATABASE.available().map(|name| name.as_str().to_owned());
    let mut names: Vec<String> = named.filter(|name| name.contains('/') && !name.starts_with("Etc/")).collect();
    names.sort_unstable();
    names.insert(0, "UTC".to_owned());
    names.into_iter().map(|name| Known { name, rules: OnceLock::new() }).collect()
});

impl Zone {
    /// UTC.
    pub(crate) const UTC: Zone = Zone(0);

    /// The zone with a name; `None` if there is none.
    pub(crate) fn named(name: &str) -> Option<Zone> {
        KNOWN.iter().position(|known| known.name.eq_ignore_ascii_case(name)).map(Zone)
    }

    /// The names of all zones, UTC first.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|known| known.name.as_str())
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        &KNOWN[self.0].name
    }

    fn rules(self) -> &'static TimeZone {
        let known = &KNOWN[self.0];
        known.rules.get_or_init(|| DATABASE.get(&known.name).unwrap_or(TimeZone::UTC))
    }

    /// A time as clocks show it here.
    pub(crate) fn local(self, at: OffsetDateTime) -> OffsetDateTime {
        let seconds = Timestamp::from_second(at.unix_timestamp()).map_or(0, |at| self.rules().to_offset(at).seconds());
        UtcOffset::from_whole_seconds(seconds).ok().and_then(|offset| at.checked_to_offset(offset)).unwrap_or(at)
    }

    /// When the hour of `at` began here, by the offset that clocks had at `at`: a zone at half hours has its own hours.
    pub(crate) fn hour_of(self, at: OffsetDateTime) -> OffsetDateTime {
        let local = self.local(at);
        at - time::Duration::seconds(i64::from(local.minute()) * 60 + i64::from(local.second()))
            - time::Duration::nanoseconds(local.nanosecond().into())
    }

    /// When the day of `at` began here.
    pub(crate) fn day_of(self, at: OffsetDateTime) -> OffsetDateTime {
        self.instant(PrimitiveDateTime::new(self.local(at).date(), time::Time::MIDNIGHT))
    }

    /// The starts of the last `days` days here, and of the day after; `last` is in the last of them. A day may have 23
    /// or 25 hours.
    pub(crate) fn days_till(self, last: OffsetDateTime, days: u16) -> Vec<OffsetDateTime> {
        let today = self.local(last).date();
        let midnight = |back: i64| {
            let date = today.checked_sub(time::Duration::days(back)).unwrap_or(today);
            self.instant(PrimitiveDateTime::new(date, time::Time::MIDNIGHT))
        };
        (0..=i64::from(days)).rev().map(|left| midnight(left - 1)).collect()
    }

    /// The instant at which clocks show this time here: the first of two, or the one after a gap.
    pub(crate) fn instant(self, local: PrimitiveDateTime) -> OffsetDateTime {
        self.instant_by(local, AmbiguousTimestamp::compatible)
    }

    fn instant_by(
        self,
        local: PrimitiveDateTime,
        choose: impl FnOnce(AmbiguousTimestamp) -> Result<Timestamp, jiff::Error>,
    ) -> OffsetDateTime {
        let at = self.looked_up(local).and_then(|found| choose(found).ok());
        at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.as_second()).ok()).unwrap_or(local.assume_utc())
    }

    /// What the rules say about a time that clocks show here.
    fn looked_up(self, local: PrimitiveDateTime) -> Option<AmbiguousTimestamp> {
        let at = Timestamp::from_second(local.assume_utc().unix_timestamp()).ok()?;
        Some(self.rules().to_ambiguous_timestamp(TimeZone::UTC.to_datetime(at)))
    }

    /// The time in a `datetime-local` field of a form; the first one if clocks show it twice.
    pub(crate) fn typed(self, text: &str) -> Option<OffsetDateTime> {
        typed_local(text).map(|local| self.instant(local))
    }

    /// The same for the field that ends a window: the second one if clocks show it twice, so that the window includes
    /// both.
    pub(crate) fn typed_end(self, text: &str) -> Option<OffsetDateTime> {
        typed_local(text).map(|local| self.instant_by(local, AmbiguousTimestamp::later))
    }

    /// The reverse: the value that such a field is filled with.
    pub(crate) fn field(self, at: OffsetDateTime) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]");
        self.local(at).format(&format).unwrap_or_default()
    }

    /// The date of a time here: 4 May 2026.
    pub(crate) fn date(self, at: OffsetDateTime) -> String {
        let format = format_description!("[day padding:none] [month repr:short] [year]");
        self.local(at).format(&format).unwrap_or_default()
    }

    /// A time here: 4 May 2026, 09:01; or 25 Oct 2026, 02:30 UTC+1, if clocks show it twice.
    pub(crate) fn time(self, at: OffsetDateTime) -> String {
        let format = format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute]");
        let local = self.local(at);
        let shown = local.format(&format).unwrap_or_default();
        let comes_twice = self.looked_up(PrimitiveDateTime::new(local.date(), local.time()));
        if comes_twice.is_some_and(|found| found.is_ambiguous()) {
            format!("{shown} {}", from_utc(local.offset()))
        } else {
            shown
        }
    }
}

fn typed_local(text: &str) -> Option<PrimitiveDateTime> {
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    PrimitiveDateTime::parse(text, &minutes).or_else(|_| PrimitiveDateTime::parse(text, &seconds)).ok()
}

/// A clock's difference from UTC: UTC+2, UTC-3:30.
fn from_utc(offset: UtcOffset) -> String {
    let minutes = offset.whole_minutes();
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
    if minutes == 0 { format!("UTC{sign}{hours}") } else { format!("UTC{sign}{hours}:{minutes:02}") }
}

/// The exact time in UTC, for machines and for tooltips.
pub(crate) fn exact(at: OffsetDateTime) -> String {
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
    fn the_repeated_hour_in_autumn_is_unambiguous() {
        for (name, first, second, shown) in [
            (
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                ["25 Oct 2026, 02:30 UTC+2", "25 Oct 2026, 02:30 UTC+1"],
            ),
            (
                "Europe/London",
                "2026-10-25T00:00:00Z",
                "2026-10-25T01:00:00Z",
                ["25 Oct 2026, 01:00 UTC+1", "25 Oct 2026, 01:00 UTC+0"],
            ),
            (
                "America/St_Johns",
                "2026-11-01T04:20:00Z",
                "2026-11-01T04:40:00Z",
                ["1 Nov 2026, 01:50 UTC-2:30", "1 Nov 2026, 01:10 UTC-3:30"],
            ),
            // Half an hour only.
            (
                "Australia/Lord_Howe",
                "2026-04-04T14:30:00Z",
                "2026-04-04T15:00:00Z",
                ["5 Apr 2026, 01:30 UTC+11", "5 Apr 2026, 01:30 UTC+10:30"],
            ),
            // The very midnight.
            (
                "America/Havana",
                "2024-11-03T04:00:00Z",
                "2024-11-03T05:00:00Z",
                ["3 Nov 2024, 00:00 UTC-4", "3 Nov 2024, 00:00 UTC-5"],
            ),
        ] {
            assert_eq!([first, second].map(|time| zone(name).time(at(time))), shown, "{name}");
        }
        let berlin = zone("Europe/Berlin");
        // Before, after, on another day, and at the hour that is skipped in spring.
        for (time, shown) in [
            ("2026-10-24T23:59:59Z", "25 Oct 2026, 01:59"),
            ("2026-10-25T02:00:00Z", "25 Oct 2026, 03:00"),
            ("2026-10-26T01:30:00Z", "26 Oct 2026, 02:30"),
            ("2026-03-29T00:59:00Z", "29 Mar 2026, 01:59"),
            ("2026-03-29T01:00:00Z", "29 Mar 2026, 03:00"),
        ] {
            assert_eq!(berlin.time(at(time)), shown);
        }
    }

    #[test]
    fn a_window_that_is_typed_has_both_hours_that_clocks_show_alike() {
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.typed("2026-10-25T02:00"), Some(at("2026-10-25T00:00:00Z")));
        assert_eq!(berlin.typed_end("2026-10-25T02:45"), Some(at("2026-10-25T01:45:00Z")));
        assert_eq!(berlin.typed_end("2026-05-04T02:45"), berlin.typed("2026-05-04T02:45"));
        // There is no such time; both say half past three.
        assert_eq!(berlin.typed_end("2026-03-29T02:30"), Some(at("2026-03-29T01:30:00Z")));
        assert_eq!(berlin.typed("2026-03-29T02:30"), Some(at("2026-03-29T01:30:00Z")));
    }

    #[test]
    fn hours_are_those_of_the_zones_clocks() {
        for (name, time, began) in [
            ("Europe/Berlin", "2026-05-04T09:01:05.5Z", "2026-05-04T09:00:00Z"),
            ("Asia/Kolkata", "2026-05-04T09:01:05.5Z", "2026-05-04T08:30:00Z"),
            ("Asia/Kathmandu", "2026-05-04T09:10:00Z", "2026-05-04T08:15:00Z"),
            ("America/St_Johns", "2026-05-04T09:30:00Z", "2026-05-04T09:30:00Z"),
        ] {
            assert_eq!(zone(name).hour_of(at(time)), at(began), "{name}");
        }
    }

    #[test]
    fn every_day_of_every_zone_begins_with_a_quarter_of_an_hour() {
        for name in Zone::names() {
            for day in zone(name).days_till(at("2027-01-01T12:00:00Z"), 380) {
                assert_eq!(day.unix_timestamp() % 900, 0, "{name}: {day}");
            }
        }
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
