//! When a message was opened: bars by hour or by day of the viewer's zone. Pure.
//!
//! Guarantees: never more than [`BARS_MAX`] bars, and so a bounded number of hours to read. Gives up: opens after the
//! first 180 days, which the caption says; and, in zones at half hours, full hours where hits were counted by hour of
//! UTC: bars then begin at half past.

use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use crate::admin::view::Zone;
use crate::admin::view::chart::{BARS_MAX, Bar, stacked};
use crate::db::messages::Message;

/// The times between which opens are counted together.
pub(super) struct Times {
    /// One more than there are bars.
    pub bounds: Vec<OffsetDateTime>,
    by_hour: bool,
    /// Whether hits came after the last one.
    is_cut: bool,
}

impl Times {
    /// Hours from the first hit to the last one; days if there are too many hours; the first ones if there are too many
    /// days. Hits from `quarters_from` on are counted by quarter of an hour, and earlier ones by hour.
    pub(super) fn of(message: &Message, zone: Zone, quarters_from: OffsetDateTime) -> Times {
        let (Some(first), Some(last)) = (message.first_at, message.last_at) else {
            return Times { bounds: Vec::new(), by_hour: true, is_cut: false };
        };
        // No bar may split what is counted together.
        let first = if first < quarters_from { Zone::UTC.hour_of(first) } else { zone.hour_of(first) };
        let hours = (last - first).whole_hours() + 1;
        if hours <= BARS_MAX as i64 {
            let bounds = (0..=hours).map(|n| first + Duration::hours(n)).collect();
            return Times { bounds, by_hour: true, is_cut: false };
        }
        let days = (zone.local(last).date() - zone.local(first).date()).whole_days() + 1;
        let shown = days.min(BARS_MAX as i64);
        // At noon no change of clocks leads to another day.
        let last = zone.day_of(first) + Duration::hours(12) + Duration::days(shown - 1);
        Times { bounds: zone.days_till(last, shown as u16), by_hour: false, is_cut: days > shown }
    }
}

/// The chart of opens between these times.
pub(super) fn chart(times: &Times, opened: &[[i64; 3]], zone: Zone) -> Markup {
    let is_one_day = times.bounds.len() <= 25;
    let bars: Vec<Bar> = times
        .bounds
        .iter()
        .zip(opened)
        .map(|(&at, &values)| {
            let time = zone.time(at);
            let (date, clock) = time.split_once(", ").unwrap_or((&time, ""));
            let day = date.rsplit_once(' ').map_or(date, |(day, _)| day);
            let (label, time) = match (times.by_hour, is_one_day) {
                (true, true) => (clock.to_owned(), time.clone()),
                (true, false) => (format!("{day} {clock}"), time.clone()),
                (false, _) => (day.to_owned(), date.to_owned()),
            };
            Bar { label, time, values }
        })
        .collect();
    let caption = match times {
        Times { by_hour: true, .. } => "Recipients who opened it, by hour of their first open",
        Times { is_cut: false, .. } => "Recipients who opened it, by day of their first open",
        Times { is_cut: true, .. } => "Recipients who opened it, by day of their first open; first 180 days",
    };
    html! {
        h2 { @if times.by_hour { "Opens by hour" } @else { "Opens by day" } }
        (stacked(caption, "opens", &bars))
        p.muted { "Somebody who was scanned first and read later appears twice here: under Machines and under Confirmed." }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::db::messages::Place;
    use pixeld_core::ids::MessageId;

    fn times(first: OffsetDateTime, last: OffsetDateTime, zone: &str) -> Times {
        times_since(first, last, zone, OffsetDateTime::UNIX_EPOCH)
    }

    fn times_since(first: OffsetDateTime, last: OffsetDateTime, zone: &str, quarters_from: OffsetDateTime) -> Times {
        let message = Message {
            id: MessageId::MAX,
            name: String::new(),
            sent_at: None,
            sent_count: None,
            confirmed: 0,
            possible: 0,
            machine: 0,
            hits: 1,
            first_at: Some(first),
            last_at: Some(last),
            place: Place { at: last, id: MessageId::MAX },
        };
        Times::of(&message, Zone::named(zone).unwrap(), quarters_from)
    }

    #[test]
    fn all_hours_from_the_first_hit_to_the_last_have_a_bar() {
        let found = times(datetime!(2026-05-04 09:59:59.5 UTC), datetime!(2026-05-04 10:00 UTC), "UTC");
        assert!(found.by_hour);
        assert_eq!(found.bounds, [9, 10, 11].map(|hour| datetime!(2026-05-04 0:00 UTC) + Duration::hours(hour)));
        let first = datetime!(2026-05-04 09:30 UTC);
        let found = times(first, first + Duration::hours(179), "UTC");
        assert!(found.by_hour && found.bounds.len() == BARS_MAX + 1);
        assert!(!times(first, first + Duration::hours(180), "UTC").by_hour);
    }

    #[test]
    fn days_are_those_of_the_zone_and_the_first_ones_where_there_are_too_many() {
        // Half past eleven in the evening there, and ten minutes past midnight.
        for (first, bounds) in [(datetime!(2026-05-04 18:00 UTC), 18), (datetime!(2026-05-04 18:40 UTC), 17)] {
            let found = times(first, datetime!(2026-05-20 12:00 UTC), "Asia/Kolkata");
            let day = datetime!(2026-05-21 18:30 UTC) - Duration::days(bounds);
            assert_eq!((found.bounds[0], found.bounds.len() as i64), (day, bounds));
        }
        for first in [datetime!(2026-03-01 00:10 UTC), datetime!(2026-03-01 23:50 UTC), datetime!(2026-09-01 22:10 UTC)]
        {
            let found = times(first, first + Duration::days(400), "Europe/Berlin");
            let zone = Zone::named("Europe/Berlin").unwrap();
            assert!(found.is_cut && found.bounds.len() == BARS_MAX + 1, "{first}");
            assert_eq!(found.bounds[0], zone.day_of(first));
        }
    }

    #[test]
    fn hours_are_those_of_the_zone_and_whole_where_hits_were_counted_by_hour() {
        let [first, last] = [datetime!(2026-05-04 18:40 UTC), datetime!(2026-05-04 20:10 UTC)];
        let bounds = |zone, since| times_since(first, last, zone, since).bounds;
        let from_half_past = [30, 90, 150].map(|minutes| datetime!(2026-05-04 18:00 UTC) + Duration::minutes(minutes));
        assert_eq!(bounds("Asia/Kolkata", first), from_half_past);
        let from_a_quarter_past = from_half_past.map(|at| at - Duration::minutes(15));
        assert_eq!(bounds("Asia/Kathmandu", first), from_a_quarter_past);
        let by_hour = [18, 19, 20, 21].map(|hour| datetime!(2026-05-04 0:00 UTC) + Duration::hours(hour));
        assert_eq!(bounds("Asia/Kolkata", first + Duration::SECOND), by_hour);
        // Ten past midnight was counted with the hour that began half an hour before midnight.
        let found = times_since(first, first + Duration::days(10), "Asia/Kolkata", first + Duration::days(1));
        assert_eq!(found.bounds[0], datetime!(2026-05-03 18:30 UTC));
    }

    #[test]
    fn both_hours_that_clocks_show_alike_have_a_bar_and_a_name_of_their_own() {
        let (first, last) = (datetime!(2026-10-24 23:10 UTC), datetime!(2026-10-25 02:10 UTC));
        let found = times(first, last, "Europe/Berlin");
        let opened = [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]];
        let text = chart(&found, &opened, Zone::named("Europe/Berlin").unwrap()).into_string();
        for said in [
            "25 Oct 2026, 01:00: 1 confirmed",
            "25 Oct 2026, 02:00 UTC+2: 2 confirmed",
            "25 Oct 2026, 02:00 UTC+1: 3 confirmed",
            "25 Oct 2026, 03:00: 4 confirmed",
            ">02:00 UTC+2<",
            ">02:00 UTC+1<",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        // Half an hour occurs twice there: the hour that it starts with is as long as all others.
        let (first, last) = (datetime!(2026-04-04 14:10 UTC), datetime!(2026-04-04 16:10 UTC));
        let found = times(first, last, "Australia/Lord_Howe");
        let text = chart(&found, &[[1, 0, 0], [2, 0, 0], [3, 0, 0]], Zone::named("Australia/Lord_Howe").unwrap())
            .into_string();
        for said in ["5 Apr 2026, 01:00: 1 c", "5 Apr 2026, 01:30 UTC+10:30: 2 c", "5 Apr 2026, 02:30: 3 c"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_day_of_23_or_25_hours_has_as_many_bars_and_days_of_any_length_one() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        for (day, hours) in [(datetime!(2026-03-29 12:00 UTC), 23), (datetime!(2026-10-25 12:00 UTC), 25)] {
            let (from, to) = (berlin.day_of(day), berlin.day_of(day + Duration::days(1)));
            assert_eq!((to - from).whole_hours(), hours);
            let found = times(from, to - Duration::SECOND, "Europe/Berlin");
            assert_eq!((found.bounds.len() as i64 - 1, found.bounds.last()), (hours, Some(&to)));
            let around = times(day - Duration::days(9), day + Duration::days(9), "Europe/Berlin");
            assert!(!around.by_hour && around.bounds.contains(&from) && around.bounds.contains(&to));
            assert_eq!(around.bounds.len(), 20);
        }
    }

    #[test]
    fn a_bar_shows_its_day_and_its_hour() {
        let found = times(datetime!(2026-05-04 21:59 UTC), datetime!(2026-05-04 22:10 UTC), "Europe/Berlin");
        let text = chart(&found, &[[1, 0, 0], [0, 2, 0]], Zone::named("Europe/Berlin").unwrap()).into_string();
        assert!(
            text.contains("4 May 2026, 23:00: 1 confirmed") && text.contains("5 May 2026, 00:00: 0 confirmed"),
            "{text}"
        );
        assert!(text.contains(">23:00<") && text.contains("Opens by hour"), "{text}");
    }
}
