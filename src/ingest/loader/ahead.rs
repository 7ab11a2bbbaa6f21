//! Finds out why a mark is further than this process has loaded its spool, and what to do.
//!
//! Guarantees: no answered hit is skipped because of it. If the hits before the mark are our own, somebody loaded them
//! from a copy of this spool, and they count as loaded. If they are different, the spool has two histories: a machine
//! was restored to a snapshot while pixeld ran, or its disk was cloned, and both went on giving the same numbers. Then
//! the common part stays as it is, and the rest of ours gets its own mark under a new UUID, which is on disk before the
//! first hit is loaded under it. So files are never renamed and the writer never stops: only the name under which the
//! database knows the spool's numbers is new. Gives up: hits that the other history dropped (throttled, for example)
//! leave no row to compare; those after the last common row are judged again.

use std::collections::HashMap;

use super::Loader;
use super::connected::Connected;
use crate::db::within;
use crate::ingest::marks::{self, HitIdentity};
use pixeld_core::hit::Hit;
use pixeld_core::link::key::Namespace;

/// What a mark ahead means.
pub(super) enum Ahead {
    /// Our hits were loaded from a copy.
    OurHits,
    /// From this number on the hits there are different from ours.
    OtherHits(u64),
}

impl Loader {
    /// Compares our hits from what we have loaded up to `mark` with the rows that the database has under `number`.
    pub(super) async fn look_ahead(
        &mut self,
        connected: &Connected,
        place: usize,
        number: i32,
        mark: u64,
    ) -> anyhow::Result<Ahead> {
        let client = connected.client();
        let source = &self.sources[place];
        let (loaded_seq, is_live) = (source.loaded_seq, source.is_live);
        let end = source.spool.published().next_seq;
        let listing = marks::batches_between(client, number, loaded_seq, mark.min(end));
        let batches = within(self.patience, "listing batches", listing).await?;
        let (mut last_same, mut are_others) = (None, false);
        // From the end: if the last row is ours, so are all before it.
        for batch in batches {
            let (from, to) = (batch.first_seq.max(loaded_seq), batch.next_seq.min(mark).min(end));
            let ours = self.own_hits(connected.namespace, place, from, to)?;
            let reading = marks::hits_of_batch(client, number, &batch);
            let rows = within(self.patience, "reading a batch", reading).await?;
            for (seq, row) in rows {
                match ours.get(&seq) {
                    Some(own) if is_same(own, &row) => last_same = last_same.max(Some(seq)),
                    Some(_) => are_others = true,
                    None => {}
                }
            }
            if last_same.is_some() {
                break;
            }
        }
        // Only this process appends to its live spool. So a mark beyond its end, or without any of our hits, is another
        // history's.
        let is_forked = are_others || is_live && (mark > end || last_same.is_none());
        Ok(if is_forked { Ahead::OtherHits(last_same.map_or(loaded_seq, |seq| seq + 1)) } else { Ahead::OurHits })
    }

    /// Gives a spool's hits from `from` on their own mark.
    pub(super) fn fork(&mut self, place: usize, from: u64) -> anyhow::Result<()> {
        let source = &mut self.sources[place];
        let (spool, hits) = (source.mark.uuid, source.spool.published().next_seq.saturating_sub(from));
        let fresh = source.begin_mark(from)?;
        tracing::error!(
            %spool, from, hits, %fresh,
            "the database has other hits under this spool's numbers: this machine was restored to a snapshot, or is a clone \
             of another that runs; its hits go on under a fresh mark, and none is skipped"
        );
        self.metrics.spool_forks.one();
        self.pass_over(place, from);
        Ok(())
    }

    /// Our hits with numbers from `from` to before `to`.
    fn own_hits(
        &mut self,
        namespace: Namespace,
        place: usize,
        from: u64,
        to: u64,
    ) -> anyhow::Result<HashMap<u64, HitIdentity>> {
        let reader = &mut self.sources[place].reader;
        let mut hits = HashMap::new();
        reader.seek(from);
        loop {
            let chunk = reader.read(to.saturating_sub(reader.next_seq()).max(1))?;
            // Damage is counted when its hits are loaded.
            reader.take_damages();
            if chunk.is_empty() || chunk.first_seq >= to {
                return Ok(hits);
            }
            let mut rest = &chunk.bytes[..];
            for seq in chunk.first_seq + chunk.missing.. {
                if rest.is_empty() || seq >= to {
                    break;
                }
                let (mut hit, behind) = Hit::decode(rest)?;
                rest = behind;
                hit.resolve(namespace);
                if !hit.is_erased {
                    let Hit { at, image, message, recipient, .. } = hit;
                    hits.insert(seq, HitIdentity { at, image, message, recipient });
                }
            }
        }
    }
}

/// Whether a row is this hit. Impossible times are moved when a hit is loaded.
fn is_same(own: &HitIdentity, row: &HitIdentity) -> bool {
    let ids = |hit: &HitIdentity| (hit.image, hit.message, hit.recipient);
    let was_moved = own.at < crate::BUILT_AT || own.at > pixeld_core::clock::now_micros();
    ids(own) == ids(row) && (own.at == row.at || was_moved)
}
