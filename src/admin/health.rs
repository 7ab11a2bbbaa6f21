//! The state of this pixeld in sentences: green, or what is wrong and what to do. Pure; the numbers are those of
//! `/metrics`.

use super::probes::LAG_SECONDS_MAX;
use super::view::{counted, number};
use pixeld_core::clock::micros::Micros;
use pixeld_core::metrics::{DropReason, Metrics};
use pixeld_edge::unrecorded::Reason;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// All is well, but could be better.
    Hint,
    /// Nothing is lost, but something needs attention.
    Warning,
    /// Hits are lost or soon will be.
    Trouble,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad.
    pub weight: Weight,
    /// What is wrong, in a sentence.
    pub wrong: String,
    /// What to do, in a sentence.
    pub todo: &'static str,
}

/// What is wrong now, the worst first; empty if all is well.
pub(crate) fn findings(metrics: &Metrics, now: Micros) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |weight, wrong, todo| found.push(Finding { weight, wrong, todo });
    of_loading(metrics, now, &mut note);
    of_tasks(metrics, now, &mut note);
    of_the_disk(metrics, now, &mut note);
    of_what_came(metrics, &mut note);
    of_clocks(metrics, &mut note);
    of_networks(metrics, now, &mut note);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    found
}

/// Takes a finding: its weight, what is wrong, what to do.
type Note<'a> = &'a mut dyn FnMut(Weight, String, &'static str);

/// Findings about hits on their way to PostgreSQL.
fn of_loading(metrics: &Metrics, now: Micros, note: Note<'_>) {
    let waiting = metrics.waiting().max(0);
    let lag = metrics.load_lag_seconds(now);
    if let Some(problem) = metrics.database_problem.load_full() {
        let wrong = format!("PostgreSQL cannot be used: {problem}. Hits waiting on disk: {}.", number(waiting));
        let todo = "Fix this. pixeld tries again every second, and no hit is lost while the disk has room.";
        note(Weight::Trouble, wrong, todo);
    } else if let Some(code) = metrics.load_refused.load_full() {
        let waiting = number(waiting);
        let wrong =
            format!("PostgreSQL refuses a statement of the loader (SQLSTATE {code}). Hits waiting on disk: {waiting}.");
        let todo = "The log says which statement. No hit is lost while the disk has room.";
        note(Weight::Trouble, wrong, todo);
    } else if metrics.database_up.get() == 0 {
        let wrong = format!("The loader has no connection to PostgreSQL. Hits waiting on disk: {}.", number(waiting));
        note(Weight::Warning, wrong, "Start PostgreSQL or look at the log. No hit is lost while the disk has room.");
    } else if lag > LAG_SECONDS_MAX {
        let wrong = format!("Hits reach PostgreSQL {lag:.0} s late. Hits waiting on disk: {}.", number(waiting));
        note(Weight::Warning, wrong, "Give PostgreSQL time to catch up. If it does not, look in the log.");
    }
}

/// Findings about what runs after the loader: the rollup, erasures, retention, Redis.
fn of_tasks(metrics: &Metrics, now: Micros, note: Note<'_>) {
    let behind = metrics.rollup_lag_seconds(now);
    if behind > ROLLUP_LAG_SECONDS_MAX {
        let why = metrics.stuck.rollup.load_full().map_or(String::new(), |why| format!(": {why}"));
        let wrong = format!("Opens and counts are {behind:.0} s late{why}.");
        let todo =
            "The log says why. A long deletion or pixeld reclassify also delays them. They catch up automatically.";
        note(Weight::Warning, wrong, todo);
    }
    let stuck = [
        (&metrics.stuck.erasing, "Erasures cannot be carried out on this node's disk"),
        (&metrics.stuck.finishing, "Erasures cannot be finished in the database"),
        (&metrics.stuck.retention, "Hits older than PIXELD_RETENTION_DAYS cannot be deleted"),
    ];
    for (why, what) in stuck {
        if let Some(why) = why.load_full() {
            let todo = "Fix this. pixeld tries again within a minute; the data stay until then.";
            note(Weight::Warning, format!("{what}: {why}."), todo);
        }
    }
    if metrics.redis_up.get() == 0 {
        let wrong =
            "Redis is not answering. Each node throttles alone, so a repeated fetch may be recorded once on each node.";
        let todo = "Start Redis or correct REDIS_URL; the log says why. Nothing is lost, and pixeld tries again automatically.";
        note(Weight::Warning, wrong.to_owned(), todo);
    }
}

/// Findings about the spool, and hits that wait in it.
fn of_the_disk(metrics: &Metrics, now: Micros, note: Note<'_>) {
    let lag = metrics.load_lag_seconds(now);
    let minutes = metrics.outage_minutes.get();
    if let Some(problem) = metrics.spool_problem.load_full() {
        let todo = "Fix this. Pixels are still served, and recording resumes automatically.";
        note(Weight::Trouble, format!("New hits are dropped: {problem}."), todo);
    } else if metrics.spool_room.get() <= 0 && metrics.spool_bytes.get() > 0 {
        let todo = "Free disk space, raise PIXELD_SPOOL_BYTES_MAX, or start PostgreSQL, which empties the spool.";
        note(Weight::Trouble, "The disk has no room for more hits, so new hits are dropped.".to_owned(), todo);
    } else if (0..60).contains(&minutes) && lag > LAG_SECONDS_MAX {
        let wrong = format!("At this rate the spool is full in {minutes} minutes.");
        note(Weight::Trouble, wrong, "Start PostgreSQL, free disk space or raise PIXELD_SPOOL_BYTES_MAX.");
    }
    let missing = metrics.segments_missing.get() as i64;
    if missing > 0 {
        let wrong =
            format!("Another program or person deleted {} of the spool while pixeld ran.", counted(missing, "file"));
        let todo = "Do not change the folder spool: pixeld itself removes loaded files. It now records into a new folder \
                    and counts the lost hits as damaged.";
        note(Weight::Trouble, wrong, todo);
    }
    let unreadable = metrics.unreadable();
    if unreadable > 0 {
        let wrong = format!("{} cannot be read from the disk; the hits there wait.", counted(unreadable, "spool"));
        let todo = "The log names the file and the error. Repair the file, then restart pixeld.";
        note(Weight::Trouble, wrong, todo);
    }
    let aside = metrics.orphans.get();
    if aside > 0 {
        let wrong = format!("{} wait on disk for images that the database does not have.", counted(aside, "hit"));
        let todo = "The log names the images. Add each again under its id: pixeld image add FILE --id ID. \
                    pixeld then loads the hits; none is lost.";
        note(Weight::Warning, wrong, todo);
    }
    if metrics.sync_failures.get() > 0 {
        let wrong =
            format!("{} to the disk failed since the start.", counted(metrics.sync_failures.get() as i64, "sync"));
        note(
            Weight::Trouble,
            wrong,
            "Check the disk, which may be failing. pixeld rewrote the affected hits to another file.",
        );
    }
}

/// Findings about hits that are not recorded, and requests of a proxy that is not trusted.
fn of_what_came(metrics: &Metrics, note: Note<'_>) {
    for (reason, weight, what) in LOSSES {
        let dropped = metrics.dropped(reason);
        if dropped > 0 {
            let [_, todo] = drop_sentences(reason);
            note(weight, format!("{} not recorded since the start: {what}.", counted(dropped as i64, "hit")), todo);
        }
    }
    let forwarded: u64 = metrics.cores.iter().map(|core| core.forwarded_untrusted.get()).sum();
    if forwarded > 0 {
        let wrong =
            format!("{} had X-Forwarded-For from a peer that is not trusted.", counted(forwarded as i64, "request"));
        let todo = "If you run a proxy in front of pixeld, add its address to PIXELD_TRUSTED_PROXIES. \
                    Without it all readers seem to have the proxy's address.";
        note(Weight::Warning, wrong, todo);
    }
}

/// Findings about this machine's clock and the database's.
fn of_clocks(metrics: &Metrics, note: Note<'_>) {
    if metrics.clocks_disbelieved.get() > 0 {
        let ahead_s = metrics.clock_ahead_s.get();
        let wrong = if ahead_s.unsigned_abs() > crate::clocks::APART_MAX.as_secs() {
            let side = if ahead_s > 0 { "ahead of" } else { "behind" };
            let days = ahead_s.unsigned_abs() / 86_400;
            format!("This machine's clock is {} {side} the database's.", counted(days as i64, "day"))
        } else {
            "The clocks jumped by more than a day while pixeld ran.".to_owned()
        };
        let todo = "Set the clocks (NTP). If they are right now, restart pixeld. Until then pixeld deletes nothing because of its age.";
        note(Weight::Trouble, wrong, todo);
    }
}

/// Findings about published address lists.
fn of_networks(metrics: &Metrics, now: Micros, note: Note<'_>) {
    if metrics.networks_refused.get() > 0 {
        let wrong = "An address list could not be read.".to_owned();
        note(Weight::Warning, wrong, "Run pixeld networks status, which names the file and the line.");
    }
    let (missing, oldest_s) = (metrics.networks_missing.get(), metrics.networks_oldest_s.get());
    let days = (now.seconds() - oldest_s) / 86_400;
    if oldest_s > 0 && days > LIST_DAYS_MAX {
        let todo = "Run pixeld networks update, or set PIXELD_NETWORKS_UPDATE=daily. If that is set, the log says why it fails.";
        note(Weight::Warning, format!("A published address list is {days} days old."), todo);
    } else if missing > 0 {
        let todo = "Run pixeld networks update, or set PIXELD_NETWORKS_UPDATE=daily, to recognise Apple and Google more reliably.";
        let have = if missing == 1 { "has" } else { "have" };
        let wrong = format!("{} {have} not been downloaded.", counted(missing, "published address list"));
        note(Weight::Hint, wrong, todo);
    }
}

/// Lag of opens and counts after the hits from which on it is reported, in s.
const ROLLUP_LAG_SECONDS_MAX: f64 = 120.0;

/// Days after which a published list is old: providers change theirs about once a week.
const LIST_DAYS_MAX: i64 = 30;

/// Drops that lose hits, and what happened to those hits; the other drops are intended by a person or a setting. The
/// last two are warnings: a stranger's made-up id can cause one on a new node, and importing an old log causes the
/// other.
const LOSSES: [(DropReason, Weight, &str); 9] = [
    (DropReason::QueueFull, Weight::Trouble, "the queue was full"),
    (DropReason::SpoolFull, Weight::Trouble, "the spool was full"),
    (DropReason::DiskFull, Weight::Trouble, "the disk was full"),
    (DropReason::DiskError, Weight::Trouble, "the disk refused them"),
    (DropReason::Damaged, Weight::Trouble, "they were damaged on disk"),
    (DropReason::Quarantined, Weight::Trouble, "PostgreSQL refused them"),
    (DropReason::AddressRate, Weight::Trouble, "too many came from one address"),
    (DropReason::UnknownImage, Weight::Warning, "the database does not have their image"),
    (DropReason::Expired, Weight::Warning, "they were older than PIXELD_RETENTION_DAYS"),
];

/// Why hits were dropped, and what to do, each in a sentence.
pub(crate) fn drop_sentences(reason: DropReason) -> [&'static str; 2] {
    match reason {
        DropReason::AddressRate => Reason::AddressRate.sentences(),
        DropReason::QueueFull => Reason::QueueFull.sentences(),
        DropReason::SpoolFull => ["The spool was full.", "Raise PIXELD_SPOOL_BYTES_MAX, or restart PostgreSQL sooner."],
        DropReason::DiskFull => ["The disk was full.", "Free disk space where PIXELD_DATA_DIR is."],
        DropReason::DiskError => ["The disk refused them.", "Check the disk; the log has its errors."],
        DropReason::Suppressed => [
            "The recipient opted out.",
            "Nothing: the recipient asked for this. Not even this list shows their requests.",
        ],
        DropReason::Throttled => [
            "The same reader fetched the same pixel again within the time of PIXELD_THROTTLE.",
            "Nothing: the first fetch is recorded. To record every fetch, for example in a test, set PIXELD_THROTTLE=off.",
        ],
        DropReason::UnknownImage => [
            "The database does not have their image and, as far as this node knows, never had it; or there was no room to set the hits aside.",
            "Compare the image's id in your links with the page Images. If images are missing there, \
                 check that DATABASE_URL names the right database. If the log says that hits cannot be set aside, make room.",
        ],
        DropReason::Expired => [
            "They were older than PIXELD_RETENTION_DAYS when they were loaded.",
            "Raise PIXELD_RETENTION_DAYS, restart PostgreSQL sooner after an outage, and check this machine's clock. \
             After an import of old hits there is nothing to do.",
        ],
        DropReason::Quarantined => {
            ["PostgreSQL refused them.", "The log says why. The hits are kept in the folder quarantine."]
        }
        DropReason::Damaged => {
            ["They were damaged on disk.", "Check the disk. The hits are kept in the folder quarantine."]
        }
        DropReason::Erased => ["The recipient was erased after they were recorded.", "Nothing: an erasure does that."],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> std::sync::Arc<Metrics> {
        let metrics = Metrics::new(1);
        metrics.database_up.set(1);
        metrics.spool_room.set(1 << 30);
        metrics
    }

    #[test]
    fn if_all_is_well_there_are_no_findings() {
        assert_eq!(findings(&well(), Micros(0)), []);
        // Dropped because a setting says so.
        let metrics = well();
        metrics.drop_hits(DropReason::Throttled, 7);
        metrics.drop_hits(DropReason::Suppressed, 7);
        metrics.drop_hits(DropReason::Erased, 7);
        assert_eq!(findings(&metrics, Micros(0)), []);
    }

    #[test]
    fn hits_that_wait_for_an_image_are_reported_with_what_to_do() {
        let metrics = well();
        metrics.orphans.set(206);
        let found = findings(&metrics, Micros(0));
        assert_eq!((found.len(), found[0].weight), (1, Weight::Warning));
        assert!(found[0].wrong.starts_with("206 hits wait on disk for images") && found[0].todo.contains("--id ID"));
    }

    #[test]
    fn every_reason_that_loses_hits_is_documented_and_has_an_alert() {
        let alerts = include_str!("../../docs/monitoring/alerts.yml");
        for &reason in DropReason::ALL {
            let metrics = well();
            metrics.drop_hits(reason, 1);
            let found = findings(&metrics, Micros(0));
            let is_asked_for = matches!(reason, DropReason::Suppressed | DropReason::Throttled | DropReason::Erased);
            assert_eq!(found.len(), usize::from(!is_asked_for), "{reason:?}: {found:?}");
            let label = reason.label();
            let has_alert =
                [format!("\"{label}\""), format!("\"{label}|"), format!("|{label}|"), format!("|{label}\"")]
                    .iter()
                    .any(|quoted| alerts.contains(quoted));
            assert_eq!(has_alert, !is_asked_for, "{label} in docs/monitoring/alerts.yml");
        }
    }

    #[test]
    fn a_refused_statement_is_not_a_lost_connection() {
        let metrics = well();
        metrics.database_up.set(0);
        metrics.load_refused.store(Some(std::sync::Arc::new("42P01".to_owned())));
        let found = findings(&metrics, Micros(0));
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].wrong,
            "PostgreSQL refuses a statement of the loader (SQLSTATE 42P01). Hits waiting on disk: 0."
        );
    }

    #[test]
    fn lists_that_are_old_are_a_fault_and_those_that_are_missing_a_hint() {
        let metrics = well();
        let now = Micros::of_seconds(1_000 * 86_400);
        let weighed =
            || findings(&metrics, now).into_iter().map(|found| (found.weight, found.wrong)).collect::<Vec<_>>();
        metrics.networks_missing.set(4);
        assert_eq!(weighed(), [(Weight::Hint, "4 published address lists have not been downloaded.".to_owned())]);
        metrics.networks_missing.set(1);
        metrics.networks_oldest_s.set((1_000 - 31) * 86_400);
        assert_eq!(weighed(), [(Weight::Warning, "A published address list is 31 days old.".to_owned())]);
        metrics.networks_missing.set(0);
        metrics.networks_oldest_s.set((1_000 - 30) * 86_400);
        assert_eq!(weighed(), []);
    }

    #[test]
    fn each_problem_is_listed_with_what_to_do_the_worst_first() {
        let metrics = well();
        metrics.database_up.set(0);
        metrics.spooled.set(12);
        metrics.spool_room.set(0);
        metrics.spool_bytes.set(100);
        metrics.drop_hits(DropReason::SpoolFull, 3);
        metrics.cores[0].forwarded_untrusted.one();
        metrics.networks_refused.one();
        metrics.redis_up.set(0);
        let found = findings(&metrics, Micros(0));
        let wrong: Vec<&str> = found.iter().map(|finding| finding.wrong.as_str()).collect();
        assert_eq!(
            wrong,
            [
                "The disk has no room for more hits, so new hits are dropped.",
                "3 hits not recorded since the start: the spool was full.",
                "The loader has no connection to PostgreSQL. Hits waiting on disk: 12.",
                "Redis is not answering. Each node throttles alone, so a repeated fetch may be recorded once on each node.",
                "1 request had X-Forwarded-For from a peer that is not trusted.",
                "An address list could not be read.",
            ]
        );
        assert!(found.iter().all(|finding| finding.todo.len() > 20));
    }

    #[test]
    fn problems_with_the_spools_files_are_reported() {
        let metrics = well();
        metrics.spool_room.set(0);
        metrics.spool_bytes.set(1);
        metrics.spool_problem.store(Some(std::sync::Arc::new("/data/spool cannot be written: read-only".to_owned())));
        metrics.segments_missing.add(2);
        metrics.spools_left_alone.set(1);
        let wrong: Vec<String> = findings(&metrics, Micros(0)).into_iter().map(|found| found.wrong).collect();
        assert_eq!(
            wrong,
            [
                "New hits are dropped: /data/spool cannot be written: read-only.",
                "Another program or person deleted 2 files of the spool while pixeld ran.",
                "1 spool cannot be read from the disk; the hits there wait.",
            ]
        );
    }

    #[test]
    fn opens_that_do_not_follow_the_hits_are_a_fault_after_two_minutes() {
        let metrics = well();
        metrics.rollup_oldest_us.store(1_000_000, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(findings(&metrics, Micros(121_000_000)), []);
        let found = findings(&metrics, Micros(131_000_000));
        assert_eq!(found[0].wrong, "Opens and counts are 130 s late.");
    }

    #[test]
    fn retained_days_that_cannot_go_are_reported_with_the_reason() {
        let metrics = well();
        let why = || Some(std::sync::Arc::new("ERROR: must be owner of table hits".to_owned()));
        metrics.stuck.rollup.store(why());
        assert_eq!(findings(&metrics, Micros(0)), [], "a rollup that is on time may have failed once");
        for stuck in [&metrics.stuck.erasing, &metrics.stuck.finishing, &metrics.stuck.retention] {
            stuck.store(why());
            let [found] = &findings(&metrics, Micros(0))[..] else { panic!("one finding") };
            assert!(found.wrong.ends_with("ERROR: must be owner of table hits."), "{}", found.wrong);
            stuck.store(None);
        }
        metrics.rollup_oldest_us.store(1, std::sync::atomic::Ordering::Relaxed);
        let found = findings(&metrics, Micros(200_000_000));
        assert_eq!(found[0].wrong, "Opens and counts are 200 s late: ERROR: must be owner of table hits.");
    }

    #[test]
    fn a_backlog_counts_once_it_is_a_minute_old() {
        let metrics = well();
        metrics.spooled.set(5);
        metrics.oldest_at_us.store(1_000_000, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(findings(&metrics, Micros(60_000_000)), []);
        let found = findings(&metrics, Micros(91_000_000));
        assert_eq!(found[0].wrong, "Hits reach PostgreSQL 90 s late. Hits waiting on disk: 5.");
    }
}
