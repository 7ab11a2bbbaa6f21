use pixeld_core::hit::fixture::carrying;
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};

use super::*;

const NOW: Micros = Micros::of_seconds(2_000_000_000);
const DAY: Duration = Duration::from_hours(24);

fn hit(recipient: u128, at: Micros) -> Hit<'static> {
    Hit { at, recipient: RecipientId::from_u128(recipient), ..carrying(0, "") }
}

/// Opted out since [`NOW`].
const OUT: u128 = u128::MAX;

/// Only image 1 exists; image 99 was lost.
struct OneImage;

impl Facts for OneImage {
    fn image(&self, image: ImageId, _: Micros) -> ImageThen {
        match image.as_uuid().as_u128() {
            1 => ImageThen::There,
            99 => ImageThen::Lost,
            _ => ImageThen::Unknown,
        }
    }

    fn user_agent(&self, text: &str) -> UserAgent {
        UserAgent { own: 1, stored: 1, agent: Agent::read(text) }
    }

    fn sent_at_s(&self, _: MessageId) -> u32 {
        0
    }

    fn had_opted_out(&self, recipient: RecipientId, at: Micros) -> bool {
        recipient == RecipientId::from_u128(OUT) && at >= NOW
    }
}

fn judge_all(hits: &[Hit<'_>], throttle: Option<&Throttle>, retention_days: Option<u64>) -> Judged {
    let retention = retention_days.map(|days| Duration::from_secs(days * 86_400));
    let bounds = Bounds { now: NOW, built_at: NOW - 100 * DAY, retention };
    let mut judging = Judging::new(hits, 0, 1, bounds, throttle, &OneImage);
    while judging.next_rows().is_some() {}
    judging.finish()
}

#[test]
fn a_time_that_cannot_be_true_is_moved_and_counted() {
    let judged = judge_all(&[hit(1, Micros(0)), hit(2, Micros::MAX), hit(3, NOW), hit(4, Micros::MIN)], None, None);
    assert_eq!((judged.loaded, judged.clamped), (4, 3));
    assert_eq!((judged.min_at, judged.max_at), (NOW - 100 * DAY, NOW + FUTURE_MAX));
}

#[test]
fn a_hit_beyond_the_retention_is_expired() {
    let judged = judge_all(&[hit(1, NOW - 31 * DAY), hit(2, NOW - 29 * DAY)], None, Some(30));
    assert_eq!((judged.loaded, judged.expired), (1, 1));
}

#[test]
fn a_tombstone_is_counted_as_erased_and_needs_no_partition() {
    let mut erased = hit(1, NOW);
    erased.erase();
    let hits = [erased, hit(2, NOW)];
    let judged = judge_all(&hits, None, None);
    assert_eq!((judged.loaded, judged.erased, judged.unknown_image), (1, 1, 0));
    let bounds = Bounds { now: NOW, built_at: NOW - 100 * DAY, retention: None };
    assert!(bounds.days(&hits[..1]).is_empty());
}

#[test]
fn a_hit_of_a_lost_image_is_set_aside_unless_its_recipient_opted_out_and_spends_no_token() {
    let throttle = Throttle::new(Duration::from_secs(60), [1; 16]);
    let lost = |recipient| Hit { image: ImageId::from_u128(99), ..hit(recipient, NOW) };
    let mut erased = lost(1);
    erased.erase();
    let hits = [hit(1, NOW), lost(1), lost(1), erased, lost(OUT), Hit { at: NOW - 40 * DAY, ..lost(1) }];
    let judged = judge_all(&hits, Some(&throttle), Some(30));
    assert_eq!(judged.orphans, [1, 2]);
    let others =
        [judged.loaded, judged.unknown_image, judged.throttled, judged.erased, judged.suppressed, judged.expired];
    assert_eq!(others, [1, 0, 0, 1, 1, 1]);
    let bounds = Bounds { now: NOW, built_at: NOW - 100 * DAY, retention: None };
    assert_eq!(questions(&hits[1..3], 0, bounds, &throttle, &OneImage), [], "nor is the shared throttle asked");
}

#[test]
fn a_hit_of_an_unknown_image_spends_no_token() {
    let throttle = Throttle::new(Duration::from_secs(3600), [0; 16]);
    let unknown = Hit { image: ImageId::from_u128(9), ..hit(1, NOW) };
    let judged = judge_all(&[unknown.clone(), unknown, hit(1, NOW), hit(1, NOW)], Some(&throttle), None);
    assert_eq!((judged.loaded, judged.unknown_image, judged.throttled), (1, 2, 1));
    assert_eq!(judged.tokens.into_tokens().count(), 1);
}

/// Numbers of the hits about which there is a question.
fn asked(hits: &[Hit<'_>], throttle: &Throttle) -> Vec<u64> {
    let bounds = Bounds { now: NOW, built_at: Micros(0), retention: Some(Duration::from_secs(30 * 86_400)) };
    questions(hits, 70, bounds, throttle, &OneImage).into_iter().map(|question| question.seq).collect()
}

#[test]
fn the_shared_throttle_is_asked_about_what_nothing_else_drops() {
    let mut throttle = Throttle::new(Duration::from_secs(3600), [0; 16]);
    let spent = throttle.token(&hit(5, NOW), 1).map(|token| (token, 0));
    throttle.spend(SpoolId::from_u128(70), spent);
    let unknown = Hit { image: ImageId::from_u128(9), ..hit(1, NOW) };
    let hits = [hit(1, NOW - 31 * DAY), unknown, hit(0, NOW), hit(5, NOW), hit(1, NOW), hit(1, NOW), hit(2, NOW)];
    assert_eq!(asked(&hits, &throttle), [74, 75, 76], "also about the second of two");
}

#[test]
fn what_is_recorded_elsewhere_is_held_back_and_does_not_hold_back_here() {
    let throttle = Throttle::new(Duration::from_secs(3600), [0; 16]);
    let minute = Duration::from_mins(1);
    // Another node recorded one at -10 minutes: the first is near it, the second only near the first.
    let hits = [hit(1, NOW), hit(1, NOW + 55 * minute), hit(2, NOW), hit(2, NOW + minute), hit(0, NOW)];
    let bounds = Bounds { now: NOW, built_at: Micros(0), retention: None };
    let mut judging = Judging::new(&hits, 70, 1, bounds, Some(&throttle), &OneImage).holding_back(vec![70, 73]);
    while judging.next_rows().is_some() {}
    let judged = judging.finish();
    assert_eq!((judged.loaded, judged.throttled, judged.throttled_elsewhere), (3, 2, 1));
    assert_eq!(judged.tokens.into_tokens().count(), 2);
}

#[test]
fn a_hit_after_an_opt_out_is_suppressed_one_before_is_kept_and_no_token_is_spent() {
    let throttle = Throttle::new(Duration::from_secs(3600), [0; 16]);
    let a_moment = Duration::from_micros(1);
    let hits = [hit(OUT, NOW), hit(OUT, NOW + a_moment), hit(OUT, NOW - a_moment), hit(12, NOW)];
    let judged = judge_all(&hits, Some(&throttle), None);
    assert_eq!((judged.loaded, judged.suppressed, judged.throttled), (2, 2, 0));
}

#[test]
fn a_partition_is_made_for_each_day_with_a_hit_and_none_for_those_between() {
    let bounds = Bounds { now: NOW, built_at: NOW - 100 * DAY, retention: Some(Duration::from_secs(50 * 86_400)) };
    let hits = [hit(1, NOW), hit(2, NOW - 10 * DAY), hit(3, NOW), hit(4, Micros(0))];
    let days: Vec<Day> = bounds.days(&hits).into_iter().collect();
    assert_eq!(days, [Day::of(NOW - 10 * DAY), Day::of(NOW)], "the one beyond the retention needs none");
}

#[test]
fn slices_of_rows_are_one_stream_with_consecutive_numbers() {
    for count in [0, 1, SLICE_HITS - 1, SLICE_HITS, SLICE_HITS + 1, 3 * SLICE_HITS] {
        let hits: Vec<Hit<'_>> = (1..=count as u128).map(|recipient| hit(recipient, NOW)).collect();
        let bounds = Bounds { now: NOW, built_at: Micros(0), retention: None };
        let mut judging = Judging::new(&hits, 70, 1, bounds, None, &OneImage);
        let mut stream = Vec::new();
        while let Some(rows) = judging.next_rows() {
            stream.extend_from_slice(&rows);
        }
        assert_eq!(judging.finish().loaded, count as u64);
        if count == 0 {
            assert!(stream.is_empty());
            continue;
        }
        let (begin, end) = (19, stream.len() - 2);
        assert!(stream.starts_with(b"PGCOPY\n") && stream.ends_with(&[0xff, 0xff]));
        let row = (end - begin) / count;
        for n in 0..count {
            // After the number of columns and the time: the length of the number, then the number.
            let seq = begin + n * row + 2 + 12 + 4;
            assert_eq!(stream[seq..seq + 8], (70 + n as i64).to_be_bytes());
        }
    }
}
