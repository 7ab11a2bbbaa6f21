//! What is remembered from one batch to the next, and the one way to copy a batch with it. The loader and the import
//! share it.
//!
//! Guarantees: a batch is copied with the known erasures, and with the opt-outs that its own transaction read. The
//! memory outlives connections: a new one may lead to another database, and then everything read from the last one must
//! be forgotten ([`Memory::forget_database`]).

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

/// The facts by which hits are judged, and the days that have partitions.
pub struct Memory {
    /// User agents, images and send times.
    pub known: Known,
    /// The erasures.
    pub erased: Erased,
    /// Keeps the opt-outs of `known` in step.
    pub opt_outs: Reader,
    /// Days that have partitions.
    pub partitions: Partitions,
    /// Holds back repeated hits of the same fetch.
    pub throttle: Option<Throttle>,
}

impl Memory {
    /// An empty memory except for `known`; keeps the opt-outs in `suppressed` in step.
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

    /// For a new connection, which may lead to another database.
    pub fn forget_database(&mut self) {
        self.erased.forget();
        self.known.forget_images();
    }

    /// Replaces hits of erased people by tombstones. This comes before anything else is looked up for them, so that
    /// nothing of an erased hit reaches a table. `ahead` is how far the clock that timed them is ahead of the
    /// database's.
    pub async fn leave_erased_out(
        &mut self,
        client: &Client,
        hits: &mut [Hit<'_>],
        ahead: Duration,
        limit: Duration,
    ) -> Result<(), DbError> {
        if within(limit, "looking at erasures", self.erased.learn(client)).await? {
            self.known.forget_user_agents();
        }
        within(limit, "looking at erasures", self.erased.mark(client, hits, ahead)).await
    }

    /// Reads the other facts by which hits are judged.
    pub async fn learn(&mut self, client: &Client, hits: &[Hit<'_>], limit: Duration) -> Result<(), DbError> {
        within(limit, "looking at user agents and images", self.known.learn(client, hits)).await
    }

    /// Copies the batch in `judging`, which begins at `first_seq`.
    ///
    /// # Errors
    /// [`BatchError`], as for [`BatchTransaction`].
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

/// Days that are known to have a partition. If one is dropped (retention), its rows are refused
/// ([`BatchError::Partition`]), and then all must be forgotten.
#[derive(Debug, Default)]
pub struct Partitions(HashSet<Day>);

impl Partitions {
    /// Makes the missing partitions of `days`. Each may take `limit`.
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

    /// Forgets which days have one: some may be dropped.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}
