//! What is remembered from one batch to the next, and the one way to copy a batch by it. The loader and the import share it.
//!
//! Guarantees: a batch is copied by what was learnt of erasures, and by the opt-outs that its own transaction read. It outlives
//! connections: a new one may lead to another database, and then what was learnt of the last one must be forgotten
//! ([`Memory::forget_database`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::batch::{BatchError, BatchTransaction, RowsCopied};
use super::judge::{Day, Judged, Judging};
use super::known::Known;
use super::throttle::Throttle;
use crate::db::{DbError, partitions, within};
use crate::erasure::erased::Erased;
use crate::opt_outs::follow::Reader;
use pixeld_core::hit::Hit;
use pixeld_edge::suppressed::Suppressed;

/// What hits are judged by, and which days have partitions.
pub struct Memory {
    /// User agents, images and send times.
    pub known: Known,
    /// Who was erased.
    pub erased: Erased,
    /// Keeps `known` in step with who opted out.
    pub opt_outs: Reader,
    /// Days that have partitions.
    pub partitions: Partitions,
    /// What holds hits of the same fetch back.
    pub throttle: Option<Throttle>,
}

impl Memory {
    /// Remembers nothing yet but what `known` holds, and keeps `suppressed` in step with who opted out.
    #[must_use]
    pub fn new(known: Known, suppressed: Arc<Suppressed>) -> Memory {
        let (opt_outs, erased, partitions) = (Reader::default(), Erased::default(), Partitions::default());
        let mut memory = Memory { known, erased, opt_outs, partitions, throttle: None };
        memory.use_opt_outs(suppressed);
        memory
    }

    /// From now on keeps `suppressed` in step, and judges by it.
    pub fn use_opt_outs(&mut self, suppressed: Arc<Suppressed>) {
        self.known.use_opt_outs(&suppressed);
        self.opt_outs = Reader::new(suppressed);
    }

    /// This is another connection, and may be another database.
    pub fn forget_database(&mut self) {
        self.erased.forget();
        self.known.forget_images();
    }

    /// Makes tombstones of hits of people who were erased. Before anything else is learnt of them, so that nothing of an erased hit
    /// reaches a table. `ahead_us` is how far the clock that timed them is ahead of the database's.
    pub async fn leave_erased_out(
        &mut self,
        client: &Client,
        hits: &mut [Hit<'_>],
        ahead_us: i64,
        limit: Duration,
    ) -> Result<(), DbError> {
        if within(limit, "looking at erasures", self.erased.learn(client)).await? {
            self.known.forget_user_agents();
        }
        within(limit, "looking at erasures", self.erased.mark(client, hits, ahead_us)).await
    }

    /// Learns what else hits are judged by.
    pub async fn learn(&mut self, client: &Client, hits: &[Hit<'_>], limit: Duration) -> Result<(), DbError> {
        within(limit, "looking at user agents and images", self.known.learn(client, hits)).await
    }

    /// Copies a batch that begins at `first_seq`, and whose hits `judging` holds.
    ///
    /// # Errors
    /// [`BatchError`], as [`BatchTransaction`] says.
    pub async fn copy<'c>(
        &self,
        client: &'c Client,
        spool: i32,
        first_seq: u64,
        judging: Judging<'_, Known>,
    ) -> Result<(BatchTransaction<'c, RowsCopied>, Judged), BatchError> {
        let open = BatchTransaction::begin(client, spool, first_seq, self.erased.version()).await?;
        let open = open.with_opt_outs(&self.opt_outs).await?;
        open.copy(judging).await
    }
}

/// Days that are known to have a partition. One that is dropped meanwhile (retention) is noticed when its rows are refused
/// ([`BatchError::Partition`]), and then all must be forgotten.
#[derive(Debug, Default)]
pub struct Partitions(HashSet<Day>);

impl Partitions {
    /// Makes the partitions of `days` that are not known. Each may take `limit`.
    pub async fn make(
        &mut self,
        client: &Client,
        days: impl IntoIterator<Item = Day>,
        limit: Duration,
    ) -> Result<(), DbError> {
        for day in days {
            if !self.0.contains(&day) {
                within(limit, "making a partition", partitions::make(client, day.date())).await?;
                self.0.insert(day);
            }
        }
        Ok(())
    }

    /// Forgets which days have one: some may be gone.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}
