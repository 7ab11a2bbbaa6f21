//! Hits whose image the database had lost (`loader/aside.rs`): loaded once the image exists again.
//!
//! Guarantees: such a hit is loaded in the transaction that removes the note about its waiting. So it is in once,
//! whatever is killed, and whatever earlier state a database is restored to: that state itself says which hits it
//! lacks. These hits have numbers under their own mark, in the order in which they are loaded. Gives up: hits that a
//! database never skipped, of a spool that is no longer on the disk (a database from before they were set aside, longer
//! ago than `PIXELD_SPOOL_KEEP`): they stay in their file, which is logged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tracing::Instrument;
use uuid::Uuid;

use super::Loader;
use super::claim::Claimed;
use super::connected::Connected;
use super::load::Loaded;
use super::origin::{Origin, OriginKind, Piece, Taken};
use crate::db::{images, within};
use crate::ingest::source::MarkName;
use crate::ingest::{marks, orphan_notes as notes};
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, SpoolId};
use pixeld_core::metrics::DropReason;
use pixeld_spool::orphans::Waiting;

/// Interval between checks for images that exist again.
const LOOK: Duration = Duration::from_secs(1);

/// Maximum hits that are loaded at once.
const AT_ONCE_MAX: usize = 10_000;

impl Loader {
    /// Loads some hits whose image exists again. Returns whether there were any.
    pub(super) async fn load_orphans(&mut self, connected: &mut Connected) -> anyhow::Result<bool> {
        let is_early = self.aside.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if is_early || self.aside.orphans.is_empty() && self.metrics.orphans.get() == 0 {
            return Ok(false);
        }
        match &self.pending {
            // The database's current state may include a batch that is not counted yet.
            Some(pending) if !pending.is_of_orphans => return Ok(false),
            Some(pending) => {
                let mark = pending.spool;
                if self.claim_mark_of_orphans(connected, mark).await?.is_none() {
                    return Ok(false);
                }
            }
            None => {}
        }
        self.aside.looked = Some(Instant::now());
        self.aside.is_held = false;
        let all = self.recount(connected.client()).await?;
        let images: Vec<ImageId> =
            all.iter().map(|waiting| waiting.image).collect::<HashSet<_>>().into_iter().collect();
        if images.is_empty() {
            return Ok(false);
        }
        let asking = images::existing(connected.client(), &images);
        let existing = within(self.patience, "looking for images", asking).await?;
        let there: HashSet<ImageId> = existing.into_iter().map(|(image, _)| image).collect();
        let orphans = Arc::clone(&self.aside.orphans);
        let is_back = |waiting: &&Waiting| there.contains(&waiting.image) && orphans.count(&[**waiting]) > 0;
        let Some(waiting) = all.iter().find(is_back).copied() else { return Ok(false) };
        let has_changed = self.load_waiting(connected, waiting).instrument(pixeld_spool::span(waiting.mark)).await?;
        if has_changed {
            self.aside.looked = None;
        }
        Ok(has_changed)
    }

    /// Loads waiting hits. Returns whether something has changed.
    async fn load_waiting(&mut self, connected: &mut Connected, waiting: Waiting) -> anyhow::Result<bool> {
        let mark = SpoolId::of(Uuid::new_v5(&waiting.mark.as_uuid(), b"orphans"));
        let Some((spool, first_seq)) = self.claim_mark_of_orphans(connected, mark).await? else { return Ok(false) };
        let kept = self.aside.orphans.read(&waiting, AT_ONCE_MAX)?;
        let numbers: Vec<u64> = kept.iter().map(|(seq, _)| *seq).collect();
        let Some(last) = numbers.last() else { return Ok(true) };
        let rest = Waiting { first_seq: last + 1, ..waiting };
        let is_all = rest.first_seq >= rest.next_seq || self.aside.orphans.count(&[rest]) == 0;
        let mut hits = Vec::with_capacity(kept.len());
        for (_, bytes) in &kept {
            hits.push(Hit::decode(bytes)?.0);
        }
        self.prepare(connected, &mut hits).await?;
        if !self.memory.known.has_image(waiting.image) {
            return Ok(false);
        }
        let taken = Taken { waiting, numbers, first_seq, is_all };
        let mut origin = Origin { mark, spool, kind: OriginKind::Orphans(taken) };
        match self.load_hits(connected, &mut origin, Piece { first_seq, missing: 0, hits: &hits }).await? {
            Loaded::All => {}
            Loaded::Outdated { .. } | Loaded::MarkMoved => return Ok(true),
        }
        tracing::info!(image = %waiting.image, hits = hits.len(), "an image is back: the hits that waited for it are loaded");
        Ok(true)
    }

    /// Claims the mark under which hits that were set aside are loaded; `None` if another connection holds it.
    async fn claim_mark_of_orphans(
        &mut self,
        connected: &mut Connected,
        uuid: SpoolId,
    ) -> anyhow::Result<Option<(i32, u64)>> {
        match self.claim_mark(connected, MarkName { uuid, first_seq: 0 }).await? {
            Claimed::Mark(mark) => {
                self.forget_lost(uuid, mark.next_seq);
                Ok(Some((mark.spool, mark.next_seq)))
            }
            Claimed::Held { ended } => {
                self.aside.is_held = true;
                if self.aside.named_marks.insert(uuid) {
                    tracing::warn!(mark = %uuid, ended, "another connection holds the mark of hits that wait for their image");
                }
                Ok(None)
            }
        }
    }

    /// Asks the database which hits wait, counts those that are here, and removes files that are no longer needed.
    async fn recount(&mut self, client: &Client) -> anyhow::Result<Vec<Waiting>> {
        let orphans = &self.aside.orphans;
        let ends = orphans.ends();
        let marks: Vec<SpoolId> = ends.keys().copied().collect();
        let waiting = within(self.patience, "looking for hits that wait", notes::waiting(client, &marks)).await?;
        let loaded = within(self.patience, "reading marks", marks::loaded_to(client, &marks)).await?;
        let loaded: HashMap<SpoolId, u64> = loaded.into_iter().collect();
        // Read before the count: what is erased in between is counted the next time.
        let erased = orphans.take_erased() as i64;
        let change = orphans.count(&waiting) as i64 - self.metrics.orphans.get();
        let of_erasures = erased.min(-change).max(0);
        self.metrics.drop_hits(DropReason::Erased, of_erasures as u64);
        // The rest comes from a database that was restored, or is another one.
        self.metrics.recovered.add(change + of_erasures);
        self.metrics.orphans.add(change);
        orphans.remove_done(&waiting, &loaded, self.aside.keep);
        for (mark, end) in ends {
            let is_here = self.sources.iter().any(|source| source.mark.uuid == mark);
            if !is_here && loaded.get(&mark).is_some_and(|&loaded| loaded < end) && self.aside.named_marks.insert(mark)
            {
                tracing::error!(
                    %mark,
                    "hits that were set aside are from a time that the database does not know, and their spool is gone; they stay in \
                     the folder quarantine"
                );
            }
        }
        Ok(waiting)
    }
}
