//! Hits whose image the database lost: set aside when a batch skips them.
//!
//! Guarantees: the mark passes such a hit only after it is on disk in `spool/orphans.rs`, and in the transaction that
//! records its waiting in the table `orphans`. `loader/orphans.rs` loads it once the image exists again. Gives up: hits
//! for which the bound or the disk has no room for longer than [`NO_ROOM_MAX`]; they are dropped as `unknown_image`,
//! which is logged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::connected::patiently;
use super::origin::Piece;
use crate::ingest::batch::BatchRecord;
use crate::ingest::judge::Judged;
use crate::ingest::known::Known;
use crate::ingest::orphan_notes as notes;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, SpoolId};
use pixeld_core::metrics::Metrics;
use pixeld_spool::orphans::{Orphans, Waiting};

/// How long hits that cannot be set aside may delay the others.
const NO_ROOM_MAX: Duration = Duration::from_secs(30);

/// What the loader knows about hits that are set aside.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) orphans: Arc<Orphans>,
    /// How long they are kept after they were loaded.
    pub(super) keep: Duration,
    /// When it last looked for images that exist again.
    pub(super) looked: Option<Instant>,
    /// Another connection held a mark then, so some loadable hits may be left.
    pub(super) is_held: bool,
    /// Notes that this connection wrote and can still extend, by the spool's number and the image.
    open: HashMap<(i32, ImageId), Waiting>,
    no_room_since: Option<Instant>,
    has_logged_no_room: bool,
    /// Images that the log has named.
    named_images: HashSet<ImageId>,
    /// Marks of spools that the log has named.
    pub(super) named_marks: HashSet<SpoolId>,
}

impl Aside {
    /// Sets hits aside here, and keeps them this long after they were loaded.
    pub(super) fn new(orphans: Arc<Orphans>, keep: Duration) -> Aside {
        Aside {
            orphans,
            keep,
            looked: None,
            is_held: false,
            open: HashMap::new(),
            no_room_since: None,
            has_logged_no_room: false,
            named_images: HashSet::new(),
            named_marks: HashSet::new(),
        }
    }

    /// Reads what earlier starts left, and counts it until the database is asked.
    pub(super) fn begin(&self, metrics: &Metrics) {
        self.orphans.read_all();
        let count = self.orphans.count_all() as i64;
        metrics.orphans.add(count);
        metrics.recovered.add(count);
    }

    /// For a new connection, which may lead to another database.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.looked = None;
    }

    /// Closes the notes of images that exist again: their hits are loaded from here on, so the notes must end before
    /// them.
    pub(super) fn close_notes(&mut self, known: &Known) {
        self.open.retain(|(_, image), _| !known.has_image(*image));
    }

    /// Whether to drop hits that could not be set aside; otherwise the batch is tried again.
    fn gives_up(&mut self, error: &io::Error) -> bool {
        let since = *self.no_room_since.get_or_insert_with(Instant::now);
        let gives_up = error.kind() == io::ErrorKind::QuotaExceeded || since.elapsed() >= NO_ROOM_MAX;
        if gives_up && !std::mem::replace(&mut self.has_logged_no_room, true) {
            tracing::error!(
                %error,
                "hits whose image the database does not have cannot be set aside and are dropped (unknown_image)"
            );
        }
        gives_up
    }

    fn name(&mut self, images: impl Iterator<Item = ImageId>) {
        for image in images {
            if self.named_images.len() < 1000 && self.named_images.insert(image) {
                tracing::error!(
                    %image,
                    "the database does not have an image that this node has served; its hits are set aside in the folder quarantine \
                     and come in once it is there again: pixeld image add FILE --id {image}"
                );
            }
        }
    }

    /// Within a batch's transaction: sets the hits aside whose image the database lost, and records that they wait.
    pub(super) async fn set_aside(
        &mut self,
        client: &Client,
        mark: SpoolId,
        piece: Piece<'_>,
        judged: &Judged,
        record: &mut BatchRecord,
        patience: &mut Duration,
    ) -> anyhow::Result<()> {
        let first_seq = piece.first_hit();
        let numbered = |&place: &usize| Some((first_seq + place as u64, piece.hits.get(place)?));
        let hits: Vec<(u64, &Hit<'_>)> = judged.orphans.iter().filter_map(numbered).collect();
        if hits.is_empty() {
            return Ok(());
        }
        let count = hits.len() as u64;
        if let Err(error) = self.orphans.add(mark, &hits) {
            anyhow::ensure!(self.gives_up(&error), "hits cannot be set aside: {error}");
            record.unknown_image += count;
            return Ok(());
        }
        (self.no_room_since, self.has_logged_no_room) = (None, false);
        record.orphans = count;
        let mut firsts: BTreeMap<ImageId, u64> = BTreeMap::new();
        for (seq, hit) in hits {
            firsts.entry(hit.image).or_insert(seq);
        }
        self.name(firsts.keys().copied());
        for (image, first_seq) in firsts {
            // Up to the batch's end: it loads no hit of this image.
            let waiting = Waiting { mark, spool: record.spool, image, first_seq, next_seq: record.next_seq };
            let open = self.open.get(&(record.spool, image));
            let noted = patiently(patience, notes::note(client, &waiting, open)).await??;
            self.open.insert((record.spool, image), noted);
        }
        Ok(())
    }
}
