//! Hits whose image the database lost: set aside when a batch passes over them, and brought in once the image is there again.
//!
//! Guarantees: the mark passes over such a hit only after it is on disk in `spool/orphans.rs`, and in the transaction that notes
//! in the table `orphans` that it waits; it is brought in the transaction that takes this note away. So it comes in once, whatever is killed,
//! and to whatever earlier state a database is restored: that state says itself which hits it lacks. Brought in, hits have numbers
//! under a mark of their own, in the order in which they come. Gives up: hits for which the bound or the disk has no room for longer than
//! [`NO_ROOM_MAX`]; they are dropped as `unknown_image`, which is logged. And what a database never passed over of a spool that is
//! not on the disk any more (one from before they were set aside, longer ago than `PIXELD_SPOOL_KEEP`): it stays in its file, which is logged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tracing::Instrument;
use uuid::Uuid;

use super::bring::{Brought, Origin, OriginKind, Piece, patiently, spans};
use super::{Clock, Loader, within};
use crate::hit::Hit;
use crate::ingest::judge::Judged;
use crate::ingest::known::Known;
use crate::ingest::orphan_notes as notes;
use crate::ingest::shared_throttle::QUESTION_HITS_MAX;
use crate::ingest::source::MarkName;
use crate::ingest::transaction as queries;
use crate::ingest::transaction::{BatchError, BatchRecord};
use crate::metrics::{DropReason, Metrics};
use crate::spool::orphans::{Orphans, Waiting};

/// How often it is looked for images that are there again.
const LOOK: Duration = Duration::from_secs(1);

/// Hits that are brought in at once at most.
const BACK_MAX: usize = 10_000;

/// How long hits that cannot be set aside hold up the others.
const NO_ROOM_MAX: Duration = Duration::from_secs(30);

/// What the loader knows of hits that are set aside.
#[derive(Debug)]
pub(super) struct Aside {
    orphans: Arc<Orphans>,
    /// How long they are kept after they were brought in.
    keep: Duration,
    looked: Option<Instant>,
    /// Notes that this connection wrote and that can be made longer, by the spool's number and the image.
    open: HashMap<(i32, Uuid), Waiting>,
    no_room_since: Option<Instant>,
    has_said_no_room: bool,
    /// Images, and marks of spools, that the log has named.
    named: HashSet<Uuid>,
}

/// Hits that were set aside and are being brought in.
#[derive(Debug)]
pub(super) struct Taken {
    /// The note that says that they wait.
    pub(super) waiting: Waiting,
    /// Their own numbers, ascending.
    numbers: Vec<u64>,
    /// The number that the first of them gets.
    first_seq: u64,
    /// The note is about no others.
    is_all: bool,
}

impl Taken {
    /// The own number of the one that gets the number `seq`.
    pub(super) fn own_number(&self, seq: u64) -> u64 {
        let at = (seq - self.first_seq) as usize;
        self.numbers.get(at).copied().unwrap_or(u64::MAX)
    }

    /// The number that the one with this own number gets.
    pub(super) fn number_of(&self, own: u64) -> u64 {
        self.first_seq + self.numbers.partition_point(|&number| number < own) as u64
    }

    /// Takes the note away of those that get numbers before `seq`.
    pub(super) async fn take_to(&mut self, client: &Client, seq: u64) -> Result<(), BatchError> {
        let next = self.numbers.get((seq - self.first_seq) as usize).copied();
        let behind_all = || self.numbers.last().map(|last| last + 1).filter(|_| !self.is_all);
        let rest = next.or_else(behind_all);
        notes::take(client, &self.waiting, rest).await?;
        self.waiting.first_seq = rest.unwrap_or(self.waiting.next_seq);
        Ok(())
    }
}

impl Aside {
    /// Sets hits aside here, and keeps them this long after they were brought in.
    pub(super) fn new(orphans: Arc<Orphans>, keep: Duration) -> Aside {
        Aside {
            orphans,
            keep,
            looked: None,
            open: HashMap::new(),
            no_room_since: None,
            has_said_no_room: false,
            named: HashSet::new(),
        }
    }

    /// Reads what earlier starts left, and counts it until the database is asked.
    pub(super) fn begin(&self, metrics: &Metrics) {
        self.orphans.read_all();
        let count = self.orphans.count_all() as i64;
        metrics.orphans.add(count);
        metrics.recovered.add(count);
    }

    /// This is another connection, and may be another database.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.looked = None;
    }

    /// What was learnt of images may say that hits of one are loaded from here on: its notes end before them.
    pub(super) fn close_notes(&mut self, known: &Known) {
        self.open.retain(|(_, image), _| !known.has_image(*image));
    }

    /// Whether hits that could not be set aside are to be dropped; else the batch is tried again.
    fn gives_up(&mut self, error: &io::Error) -> bool {
        let since = *self.no_room_since.get_or_insert_with(Instant::now);
        let gives_up = error.kind() == io::ErrorKind::QuotaExceeded || since.elapsed() >= NO_ROOM_MAX;
        if gives_up && !std::mem::replace(&mut self.has_said_no_room, true) {
            tracing::error!(
                %error,
                "hits whose image the database does not have cannot be set aside and are dropped (unknown_image)"
            );
        }
        gives_up
    }

    fn name(&mut self, images: impl Iterator<Item = Uuid>) {
        for image in images {
            if self.named.len() < 1000 && self.named.insert(image) {
                tracing::error!(
                    %image,
                    "the database does not have an image that this node has served; its hits are set aside in the folder quarantine \
                     and come in once it is there again: pixeld image add FILE --id {image}"
                );
            }
        }
    }
}

impl Loader {
    /// Within the transaction of a batch: sets the hits aside whose image the database lost, and notes that they wait.
    pub(super) async fn set_aside(
        &mut self,
        mark: Uuid,
        piece: Piece<'_>,
        judged: &Judged,
        record: &mut BatchRecord,
    ) -> anyhow::Result<()> {
        let first_seq = piece.first_seq + piece.missing;
        let numbered = |&at: &usize| Some((first_seq + at as u64, piece.hits.get(at)?));
        let hits: Vec<(u64, &Hit<'_>)> = judged.orphans.iter().filter_map(numbered).collect();
        if hits.is_empty() {
            return Ok(());
        }
        let count = hits.len() as u64;
        if let Err(error) = self.aside.orphans.add(mark, &hits) {
            anyhow::ensure!(self.aside.gives_up(&error), "hits cannot be set aside: {error}");
            record.unknown_image += count;
            return Ok(());
        }
        (self.aside.no_room_since, self.aside.has_said_no_room) = (None, false);
        record.orphans = count;
        let mut firsts: BTreeMap<Uuid, u64> = BTreeMap::new();
        for (seq, hit) in hits {
            firsts.entry(hit.image).or_insert(seq);
        }
        self.aside.name(firsts.keys().copied());
        let Some(session) = &self.session else { anyhow::bail!("the connection is gone") };
        for (image, first_seq) in firsts {
            // To the batch's end: it loads no hit of this image.
            let waiting = Waiting { mark, spool: record.spool, image, first_seq, next_seq: record.next_seq };
            let open = self.aside.open.get(&(record.spool, image));
            let noted = patiently(&mut self.patience, notes::note(&session.client, &waiting, open)).await??;
            self.aside.open.insert((record.spool, image), noted);
        }
        Ok(())
    }

    /// Brings in some hits whose image is there again. Says whether there were any.
    pub(super) async fn bring_back(&mut self) -> anyhow::Result<bool> {
        let is_early = self.aside.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if is_early || self.aside.orphans.is_empty() && self.metrics.orphans.get() == 0 {
            return Ok(false);
        }
        match &self.pending {
            // What the database says now may hold a batch that is not counted yet.
            Some(pending) if !pending.is_of_orphans => return Ok(false),
            Some(pending) => {
                let mark = pending.spool;
                if self.claim_own_mark(mark).await?.is_none() {
                    return Ok(false);
                }
            }
            None => {}
        }
        self.aside.looked = Some(Instant::now());
        let all = self.recount().await?;
        let images: Vec<Uuid> = all.iter().map(|waiting| waiting.image).collect::<HashSet<_>>().into_iter().collect();
        if images.is_empty() {
            return Ok(false);
        }
        let existing = within(self.patience, queries::existing_images(&self.session()?.client, &images)).await?;
        let there: HashSet<Uuid> = existing.into_iter().map(|(image, _)| image).collect();
        let orphans = Arc::clone(&self.aside.orphans);
        let is_back = |waiting: &&Waiting| there.contains(&waiting.image) && orphans.count(&[**waiting]) > 0;
        let Some(waiting) = all.iter().find(is_back).copied() else { return Ok(false) };
        let is_brought = self.bring_waiting(waiting).instrument(crate::spool::span(waiting.mark)).await?;
        if is_brought {
            self.aside.looked = None;
        }
        Ok(is_brought)
    }

    /// Brings in hits that wait. Says whether something has changed.
    async fn bring_waiting(&mut self, waiting: Waiting) -> anyhow::Result<bool> {
        let mark = Uuid::new_v5(&waiting.mark, b"orphans");
        let Some((spool, first_seq)) = self.claim_own_mark(mark).await? else { return Ok(false) };
        let kept = self.aside.orphans.read(&waiting, BACK_MAX)?;
        let numbers: Vec<u64> = kept.iter().map(|(seq, _)| *seq).collect();
        let Some(last) = numbers.last() else { return Ok(true) };
        let rest = Waiting { first_seq: last + 1, ..waiting };
        let is_all = rest.first_seq >= rest.next_seq || self.aside.orphans.count(&[rest]) == 0;
        let mut hits = Vec::with_capacity(kept.len());
        for (_, bytes) in &kept {
            hits.push(Hit::decode(bytes)?.0);
        }
        self.prepare(&mut hits).await?;
        if !self.known.has_image(waiting.image) {
            return Ok(false);
        }
        let taken = Taken { waiting, numbers, first_seq, is_all };
        let mut origin = Origin { mark, spool, kind: OriginKind::Orphans(taken) };
        let hits_max = if self.shared_throttle.is_some() { QUESTION_HITS_MAX } else { usize::MAX };
        let mut ranges = spans(&hits, hits_max);
        ranges.reverse();
        while let Some((from, to)) = ranges.pop() {
            let piece = Piece { first_seq: first_seq + from as u64, missing: 0, hits: &hits[from..to] };
            match self.bring(&mut origin, piece).instrument(piece.span()).await? {
                Brought::Committed => {}
                Brought::Refused(reason) if to - from <= 1 => {
                    self.quarantine(&mut origin, piece, &reason).instrument(piece.span()).await?
                }
                Brought::Refused(_) => {
                    let middle = from + (to - from) / 2;
                    ranges.extend([(middle, to), (from, middle)]);
                }
                Brought::Outdated => {
                    self.erased.forget();
                    return Ok(true);
                }
                Brought::Elsewhere => return Ok(true),
            }
        }
        tracing::info!(image = %waiting.image, hits = hits.len(), "an image is there again: hits that waited for it are in");
        Ok(true)
    }

    /// Reads the mark under which hits that were set aside are brought in; nothing where another connection holds it.
    async fn claim_own_mark(&mut self, uuid: Uuid) -> anyhow::Result<Option<(i32, u64)>> {
        let name = MarkName { uuid, first_seq: 0 };
        let claimed = within(self.patience, async {
            anyhow::Ok(queries::claim_mark(&self.session()?.client, name, &self.options.node).await)
        });
        let mark = match claimed.await? {
            Ok(mark) => mark,
            Err(error) if queries::is_held(&error) => {
                within(self.patience, queries::end_predecessor(&self.session()?.client, uuid)).await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.clock = Clock { database_us: mark.now_us, read: Instant::now() };
        self.settle_pending(uuid, mark.next_seq);
        self.forget_lost(uuid, mark.next_seq);
        Ok(Some((mark.spool, mark.next_seq)))
    }

    /// Asks the database which hits wait, counts those that are here, and removes files that nobody needs any more.
    async fn recount(&mut self) -> anyhow::Result<Vec<Waiting>> {
        let orphans = &self.aside.orphans;
        let ends = orphans.ends();
        let marks: Vec<Uuid> = ends.keys().copied().collect();
        let client = &self.session()?.client;
        let waiting = within(self.patience, notes::waiting(client, &marks)).await?;
        let loaded: HashMap<Uuid, u64> =
            within(self.patience, queries::marks(client, &marks)).await?.into_iter().collect();
        // Asked for before the count: what is erased in between is counted the next time.
        let erased = orphans.take_erased() as i64;
        let change = orphans.count(&waiting) as i64 - self.metrics.orphans.get();
        let of_erasures = erased.min(-change).max(0);
        self.metrics.drop_hits(DropReason::Erased, of_erasures as u64);
        // The rest is what a database that was put back, or is another one, says of them.
        self.metrics.recovered.add(change + of_erasures);
        self.metrics.orphans.add(change);
        orphans.remove_done(&waiting, &loaded, self.aside.keep);
        for (mark, end) in ends {
            let is_here = self.sources.iter().any(|source| source.mark.uuid == mark);
            if !is_here && loaded.get(&mark).is_some_and(|&loaded| loaded < end) && self.aside.named.insert(mark) {
                tracing::error!(
                    %mark,
                    "hits that were set aside are of a time that the database knows nothing of, and their spool is gone; they stay in \
                     the folder quarantine"
                );
            }
        }
        Ok(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_that_are_brought_in_keep_their_own_numbers_beside_those_that_they_get() {
        let waiting = Waiting { mark: Uuid::nil(), spool: 1, image: Uuid::nil(), first_seq: 0, next_seq: 100 };
        let taken = Taken { waiting, numbers: vec![3, 4, 70], first_seq: 500, is_all: true };
        for (own, number) in [(3, 500), (4, 501), (70, 502)] {
            assert_eq!((taken.own_number(number), taken.number_of(own)), (own, number));
        }
    }
}
