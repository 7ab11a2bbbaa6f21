//! Looks after the spools: removes what is loaded and need not be kept, and sets the levels that people watch.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::source::Source;
use super::spool::SpoolRoom;
use super::spool::disk::free_bytes;
use super::spool::segment::SegmentId;
use crate::config::SpoolKeep;
use crate::metrics::Metrics;

/// How often it looks.
pub const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Minutes of traffic that the estimate of the outage left looks back on.
const RATE_MINUTES: f64 = 3.0;

/// The house of all spools.
#[derive(Debug)]
pub struct House {
    spools: PathBuf,
    keep: SpoolKeep,
    room: Arc<SpoolRoom>,
    metrics: Arc<Metrics>,
    kept: Option<Instant>,
    /// Since when each loaded segment is seen as such by this process; a restart begins anew.
    loaded_since: HashMap<(Uuid, SegmentId), Instant>,
    appended: (Instant, u64),
    bytes_a_minute: f64,
}

impl House {
    /// The house of the spools in `spools`.
    #[must_use]
    pub fn new(spools: PathBuf, keep: SpoolKeep, room: Arc<SpoolRoom>, metrics: Arc<Metrics>) -> House {
        House {
            spools,
            keep,
            room,
            metrics,
            kept: None,
            loaded_since: HashMap::new(),
            appended: (Instant::now(), 0),
            bytes_a_minute: 0.0,
        }
    }

    /// Looks after `sources`, if it is time; spools that are gone leave the list.
    pub fn keep(&mut self, sources: &mut Vec<Source>) {
        if self.kept.is_some_and(|at| at.elapsed() < HOUSEKEEPING) {
            return;
        }
        self.kept = Some(Instant::now());
        let kept_bytes = self.remove_loaded(sources);
        self.set_levels(kept_bytes);
    }

    /// Returns the bytes of loaded segments that are kept.
    fn remove_loaded(&mut self, sources: &mut Vec<Source>) -> u64 {
        let mut kept_bytes = 0;
        // What waits must always find room beside what is only kept.
        let kept_bytes_max = self.keep.bytes.min(self.room.bytes_max / 2);
        let mut gone = Vec::new();
        let mut still_kept = HashMap::new();
        // Newest first, so that the bound on bytes takes the oldest.
        for (at, source) in sources.iter().enumerate().rev() {
            // Only the mark says what is loaded; until it was read, there is but a hint.
            if source.number.is_none() {
                continue;
            }
            for kept in source.kept().into_iter().rev() {
                let name = (source.spool.uuid, kept.id);
                let since = self.loaded_since.get(&name).copied().unwrap_or_else(Instant::now);
                let is_crowded = self.room.bytes() > self.room.bytes_max / 10 * 9;
                if !is_crowded && since.elapsed() < self.keep.age && kept_bytes + kept.bytes <= kept_bytes_max {
                    kept_bytes += kept.bytes;
                    still_kept.insert(name, since);
                    continue;
                }
                match source.remove(kept) {
                    Ok(is_gone) => {
                        self.room.give_back(kept.bytes);
                        gone.extend(is_gone.then_some(at));
                    }
                    Err(error) => tracing::warn!(%error, "a loaded segment could not be removed"),
                }
            }
        }
        self.loaded_since = still_kept;
        for at in gone {
            sources.remove(at);
        }
        kept_bytes
    }

    fn set_levels(&mut self, kept_bytes: u64) {
        let bytes = self.room.bytes();
        let free = free_bytes(&self.spools).unwrap_or(u64::MAX);
        let waiting_bytes = bytes.saturating_sub(kept_bytes);
        let room = self.room.bytes_max.saturating_sub(waiting_bytes).min(free.saturating_add(kept_bytes));
        self.metrics.spool_bytes.set(bytes as i64);
        self.metrics.spool_room.set(room as i64);
        let (since, before) = self.appended;
        let minutes = since.elapsed().as_secs_f64() / 60.0;
        if minutes > 0.0 {
            let appended = self.metrics.spool_appended.get();
            let rate = (appended - before) as f64 / minutes;
            self.bytes_a_minute += (rate - self.bytes_a_minute) * (minutes / RATE_MINUTES).min(1.0);
            self.appended = (Instant::now(), appended);
        }
        let left = if self.bytes_a_minute < 1.0 { -1 } else { (room as f64 / self.bytes_a_minute) as i64 };
        self.metrics.outage_minutes.set(left);
    }
}
