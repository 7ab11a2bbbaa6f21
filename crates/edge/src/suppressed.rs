//! The recipients who opted out, in memory: the edge checks it for each hit, and the loader once more.
//!
//! Guarantees: a check never waits; while nobody is opted out, it is one load of a number and hashes nothing. A
//! repeated or late message changes nothing: a row is replaced only by a later change. Gives up: a bound; all rows are
//! held, about 50 bytes each.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;
use tokio::sync::Notify;

use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::RecipientId;
use pixeld_core::privacy::{PrivacyKey, RecipientHash, Suppression};

/// The recipients who opted out, and those who opted in again.
#[derive(Debug, Default)]
pub struct Suppressed {
    /// `None` until this node has learnt it; then nobody is known to be out.
    key: ArcSwapOption<PrivacyKey>,
    rows: DashMap<RecipientHash, Period, RandomState>,
    /// The number of rows: the map itself would have to count each of its shards.
    all: AtomicUsize,
    /// Rows of recipients that are out now.
    out: AtomicUsize,
    /// Notified when a row changes, whichever task learnt it.
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Period {
    since: Micros,
    /// The maximum while it lasts.
    until: Micros,
    change: i64,
}

impl Period {
    fn of(row: &Suppression) -> Period {
        Period { since: row.since, until: row.until.unwrap_or(Micros::MAX), change: row.change }
    }

    fn is_open(&self) -> bool {
        self.until == Micros::MAX
    }

    fn row(self, hash: RecipientHash) -> Suppression {
        let until = (!self.is_open()).then_some(self.until);
        Suppression { hash, since: self.since, until, change: self.change }
    }
}

impl Suppressed {
    /// Whether a recipient is out now, as far as this node knows. The nil UUID is nobody.
    pub fn is_out(&self, recipient: RecipientId) -> bool {
        if self.out.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.period(recipient).is_some_and(|period| period.is_open())
    }

    /// Whether a recipient was out at a time.
    pub fn was_out(&self, recipient: RecipientId, at: Micros) -> bool {
        if self.all.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.period(recipient).is_some_and(|period| (period.since..period.until).contains(&at))
    }

    fn period(&self, recipient: RecipientId) -> Option<Period> {
        if recipient.is_nil() {
            return None;
        }
        let hash = self.key.load().as_ref()?.hash(recipient);
        self.rows.get(&hash).as_deref().copied()
    }

    /// How many recipients are out now.
    pub fn count(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// The installation's key; `None` until this node has learnt it.
    pub fn key(&self) -> Option<Arc<PrivacyKey>> {
        self.key.load_full()
    }

    /// Sets the key. With a different key the old rows would match nobody, so they are removed.
    pub fn know(&self, key: PrivacyKey) {
        let key = Arc::new(key);
        let before = self.key.swap(Some(Arc::clone(&key)));
        if before.as_ref() != Some(&key) {
            self.retain(|_, _| false);
            // That nobody is out is also worth saving for the next start.
            self.changed.notify_one();
        }
    }

    /// Loads what was on disk.
    pub fn recall(&self, key: PrivacyKey, rows: &[Suppression]) {
        self.know(key);
        self.apply(rows);
    }

    /// Applies rows in their current state.
    pub fn apply(&self, rows: &[Suppression]) {
        rows.iter().for_each(|row| self.note(row, |there| there.change >= row.change));
    }

    /// Applies a row of a full list, whatever its number, since a database that was restored from a backup reuses
    /// numbers. Returns our own row if it is the later one, by its number and by its time: the database lacks it.
    pub fn apply_listed(&self, row: &Suppression) -> Option<Suppression> {
        let mut ours = None;
        self.note(row, |there| {
            let our_row = there.row(row.hash);
            let is_later = our_row.change > row.change && our_row.last_at() > row.last_at();
            ours = is_later.then_some(our_row);
            is_later || our_row == *row
        });
        ours
    }

    /// Rows that were not listed and that could be put back: their times are known.
    pub fn unlisted(&self, listed: &HashSet<RecipientHash>) -> Vec<Suppression> {
        let rows = self.rows.iter().filter(|row| row.since > Micros::MIN && !listed.contains(row.key()));
        rows.map(|row| row.value().row(*row.key())).collect()
    }

    /// The highest known number of a change; 0 if there is none.
    pub fn last_change(&self) -> i64 {
        self.rows.iter().map(|row| row.change).max().unwrap_or(0)
    }

    /// All rows up to the change `complete` were listed: removes those that were not among them, unless they came
    /// later.
    pub fn keep_listed(&self, listed: &HashSet<RecipientHash>, complete: i64) {
        self.retain(|hash, period| period.change > complete || listed.contains(hash));
    }

    /// Waits until a row has changed since the last wait. For one waiting task at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All rows, for the disk.
    pub fn rows(&self) -> Vec<Suppression> {
        self.rows.iter().map(|row| row.value().row(*row.key())).collect()
    }

    /// Stores a row, unless the existing one is to stay.
    fn note(&self, row: &Suppression, stays: impl FnOnce(&Period) -> bool) {
        let period = Period::of(row);
        let was_open = match self.rows.entry(row.hash) {
            Entry::Occupied(there) if stays(there.get()) => return,
            Entry::Occupied(mut there) => there.insert(period).is_open(),
            Entry::Vacant(place) => {
                place.insert(period);
                self.all.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        match (was_open, period.is_open()) {
            (false, true) => self.out.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.out.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        self.changed.notify_one();
    }

    fn retain(&self, keep: impl Fn(&RecipientHash, &Period) -> bool) {
        let (mut gone, mut gone_out) = (0, 0);
        self.rows.retain(|hash, period| {
            let is_kept = keep(hash, period);
            gone += usize::from(!is_kept);
            gone_out += usize::from(!is_kept && period.is_open());
            is_kept
        });
        self.all.fetch_sub(gone, Ordering::Relaxed);
        self.out.fetch_sub(gone_out, Ordering::Relaxed);
        if gone > 0 {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const KEY: PrivacyKey = PrivacyKey([7; 32]);

    fn row(recipient: u128, since: i64, until: Option<i64>, change: i64) -> Suppression {
        let hash = KEY.hash(RecipientId::from_u128(recipient));
        Suppression { hash, since: Micros(since), until: until.map(Micros), change }
    }

    fn knowing() -> Suppressed {
        let suppressed = Suppressed::default();
        suppressed.know(KEY);
        suppressed
    }

    #[test]
    fn an_opt_out_lasts_from_its_time_until_it_is_undone() {
        let suppressed = knowing();
        let recipient = RecipientId::from_u128(1);
        assert!(!suppressed.is_out(recipient));
        suppressed.apply(&[row(1, 100, None, 1)]);
        assert!(suppressed.is_out(recipient) && !suppressed.is_out(RecipientId::from_u128(2)));
        assert!(!suppressed.was_out(recipient, Micros(99)) && suppressed.was_out(recipient, Micros(100)));
        suppressed.apply(&[row(1, 100, Some(200), 2)]);
        assert!(!suppressed.is_out(recipient) && suppressed.count() == 0);
        assert!(suppressed.was_out(recipient, Micros(199)) && !suppressed.was_out(recipient, Micros(200)));
        suppressed.apply(&[row(1, 100, None, 1)]);
        assert!(!suppressed.is_out(recipient), "an earlier change is no news");
    }

    #[test]
    fn nil_is_nobody_and_without_a_key_nobody_is_known() {
        let suppressed = Suppressed::default();
        suppressed.apply(&[row(1, 0, None, 1)]);
        assert!(!suppressed.is_out(RecipientId::from_u128(1)));
        suppressed.know(KEY);
        suppressed.apply(&[row(0, 0, None, 2), row(1, 0, None, 3)]);
        assert!(suppressed.is_out(RecipientId::from_u128(1)) && !suppressed.is_out(RecipientId::NONE));
        suppressed.know(KEY);
        assert_eq!(suppressed.count(), 2);
        suppressed.know(PrivacyKey([8; 32]));
        assert!(suppressed.count() == 0 && suppressed.rows().is_empty(), "rows under another key mean nobody");
    }

    #[test]
    fn rows_on_disk_without_times_hold_until_the_database_differs() {
        let suppressed = Suppressed::default();
        suppressed.recall(KEY, &[1, 2, 3].map(|n| Suppression::out_since_ever(KEY.hash(RecipientId::from_u128(n)))));
        assert_eq!((suppressed.count(), suppressed.last_change()), (3, 0));
        assert_eq!(suppressed.unlisted(&HashSet::new()), [], "nobody could say since when");
        let rows = [row(1, 10, None, 1), row(2, 20, Some(30), 2)];
        suppressed.apply(&rows);
        // It arrived while the list was read.
        suppressed.apply(&[row(4, 40, None, 3)]);
        suppressed.keep_listed(&rows.iter().map(|row| row.hash).collect(), 2);
        let out = [1, 2, 3, 4].map(|n| suppressed.is_out(RecipientId::from_u128(n)));
        assert_eq!(out, [true, false, false, true]);
        assert!(!suppressed.was_out(RecipientId::from_u128(1), Micros(9)), "since is the database's");
        suppressed.keep_listed(&HashSet::new(), 3);
        assert!(suppressed.count() == 0 && suppressed.rows().is_empty());
    }

    #[test]
    fn a_restored_databases_missing_rows_are_returned_and_later_ones_applied() {
        let suppressed = Suppressed::default();
        // Opted out before the backup; since then 1 opted in, 2 opted out again, 3 opted out.
        let remembered = [row(1, 100, Some(500), 5), row(2, 600, None, 6), row(3, 700, None, 7), row(4, 100, None, 4)];
        suppressed.recall(KEY, &remembered);
        assert_eq!(suppressed.last_change(), 7);
        // As in the backup; and 5 and 4 were changed after the restore, under numbers that had been used before.
        let listed = [row(1, 100, None, 1), row(2, 200, Some(300), 3), row(4, 100, Some(900), 5), row(5, 950, None, 6)];
        let ours: Vec<_> = listed.iter().filter_map(|row| suppressed.apply_listed(row)).collect();
        assert_eq!(ours, remembered[..2]);
        let listed = listed.iter().map(|row| row.hash).collect();
        assert_eq!(suppressed.unlisted(&listed), remembered[2..3]);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|n| suppressed.is_out(RecipientId::from_u128(n))),
            [false, true, true, false, true]
        );
        assert_eq!(suppressed.count(), 3);
    }

    #[tokio::test]
    async fn the_task_that_saves_it_is_notified_of_changes_only() {
        let suppressed = knowing();
        suppressed.changed().await;
        for (rows, wakes) in [
            ([row(1, 10, None, 1), row(2, 10, None, 2)], true),
            ([row(1, 10, None, 1), row(2, 10, None, 2)], false),
            ([row(1, 10, Some(20), 3), row(3, 10, Some(20), 4)], true),
            ([row(1, 10, Some(20), 3), row(3, 10, Some(20), 4)], false),
            ([row(1, 10, Some(20), 3), row(4, 10, Some(20), 5)], true),
        ] {
            suppressed.apply(&rows);
            let told = tokio::time::timeout(std::time::Duration::from_millis(10), suppressed.changed()).await;
            assert_eq!(told.is_ok(), wakes, "{rows:?}");
        }
    }

    proptest! {
        #[test]
        fn in_whatever_order_and_however_often_rows_come_the_latest_of_each_holds(
            changes in prop::collection::vec((0u128..6, any::<bool>()), 0..40), order: Vec<prop::sample::Index>,
        ) {
            let rows: Vec<Suppression> = changes.iter().zip(1..).map(|(&(recipient, is_out), change)| {
                row(recipient + 1, change, (!is_out).then_some(change), change)
            }).collect();
            let suppressed = knowing();
            if !rows.is_empty() {
                order.iter().for_each(|at| suppressed.apply(&[*at.get(&rows)]));
            }
            suppressed.apply(&rows);
            let latest: HashMap<RecipientHash, Suppression> = rows.iter().map(|row| (row.hash, *row)).collect();
            let out = latest.values().filter(|row| row.until.is_none()).count();
            prop_assert_eq!((suppressed.count(), suppressed.all.load(Ordering::Relaxed)), (out, latest.len()));
            suppressed.keep_listed(&HashSet::new(), i64::MAX);
            prop_assert_eq!((suppressed.count(), suppressed.all.load(Ordering::Relaxed)), (0, 0));
            suppressed.apply(&rows);
            let rows: HashMap<RecipientHash, Suppression> =
                suppressed.rows().into_iter().map(|row| (row.hash, row)).collect();
            prop_assert_eq!(rows, latest);
        }
    }
}
