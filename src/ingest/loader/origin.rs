//! Where a batch's hits come from: a spool, or hits that were set aside and now have numbers under their own mark.

use tokio_postgres::Client;
use tracing::Span;

use crate::ingest::batch::BatchError;
use crate::ingest::orphan_notes as notes;
use pixeld_core::hit::Hit;
use pixeld_core::ids::SpoolId;
use pixeld_spool::orphans::Waiting;

/// Consecutive numbers of one spool: first missing ones, then hits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) first_seq: u64,
    pub(super) missing: u64,
    pub(super) hits: &'a [Hit<'a>],
}

impl Piece<'_> {
    /// The number of its first hit.
    pub(super) fn first_hit(&self) -> u64 {
        self.first_seq + self.missing
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.first_hit() + self.hits.len() as u64
    }

    /// The span for logging its way into PostgreSQL, within its spool's span.
    pub(super) fn span(&self) -> Span {
        tracing::error_span!("batch", first_seq = self.first_seq, hits = self.hits.len())
    }
}

/// The source of hits, and its identity in PostgreSQL.
#[derive(Debug)]
pub(super) struct Origin {
    /// The UUID of its mark.
    pub(super) mark: SpoolId,
    /// Its number in `spool_marks`.
    pub(super) spool: i32,
    pub(super) kind: OriginKind,
}

#[derive(Debug)]
pub(super) enum OriginKind {
    /// A spool with this UUID.
    Spool(SpoolId),
    /// Hits that were set aside.
    Orphans(Taken),
}

impl Origin {
    /// The UUID in the names of its quarantined files.
    pub(super) fn uuid(&self) -> SpoolId {
        match self.kind {
            OriginKind::Spool(uuid) => uuid,
            OriginKind::Orphans(_) => self.mark,
        }
    }
}

/// Hits that were set aside and are being loaded.
#[derive(Debug)]
pub(super) struct Taken {
    /// The note that records their waiting.
    pub(super) waiting: Waiting,
    /// Their own numbers, ascending.
    pub(super) numbers: Vec<u64>,
    /// The number that the first of them gets.
    pub(super) first_seq: u64,
    /// Whether the note covers no other hits.
    pub(super) is_all: bool,
}

impl Taken {
    /// The own number of the hit that gets the number `seq`.
    pub(super) fn own_number(&self, seq: u64) -> u64 {
        let place = (seq - self.first_seq) as usize;
        self.numbers.get(place).copied().unwrap_or(u64::MAX)
    }

    /// The number that the hit with this own number gets.
    pub(super) fn number_of(&self, own: u64) -> u64 {
        self.first_seq + self.numbers.partition_point(|&number| number < own) as u64
    }

    /// In the transaction that loads them: removes the note for those that get numbers before `seq`.
    pub(super) async fn take_to(&mut self, client: &Client, seq: u64) -> Result<(), BatchError> {
        let next = self.numbers.get((seq - self.first_seq) as usize).copied();
        let after_all = || self.numbers.last().map(|last| last + 1).filter(|_| !self.is_all);
        let rest = next.or_else(after_all);
        notes::take(client, &self.waiting, rest).await?;
        self.waiting.first_seq = rest.unwrap_or(self.waiting.next_seq);
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use pixeld_core::ids::ImageId;

    #[test]
    fn hits_that_were_set_aside_keep_their_own_numbers_beside_those_that_they_get() {
        let waiting = Waiting { mark: SpoolId::NONE, spool: 1, image: ImageId::NONE, first_seq: 0, next_seq: 100 };
        let taken = Taken { waiting, numbers: vec![3, 4, 70], first_seq: 500, is_all: true };
        for (own, number) in [(3, 500), (4, 501), (70, 502)] {
            assert_eq!((taken.own_number(number), taken.number_of(own)), (own, number));
        }
    }
}
