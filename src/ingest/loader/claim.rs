//! A spool's mark is claimed before its first batch, and after every reconnection and every error: then its value is
//! certain.
//!
//! Guarantees: a batch whose COMMIT got no answer is counted if the mark shows that it is in. What the database lacks
//! is loaded again, and throttles nothing. Gives up: waiting for a spool whose mark another connection holds; it is
//! left alone for [`HELD_PAUSE`].

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::Loader;
use super::ahead::Ahead;
use super::connected::{Clock, Connected};
use crate::db::within;
use crate::ingest::marks::{self, Mark};
use crate::ingest::source::MarkName;
use pixeld_core::ids::SpoolId;

/// How long a spool is left alone while another connection holds its mark.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// The result of claiming a mark.
pub(super) enum Claimed {
    Mark(Mark),
    /// Another connection holds it. `ended`: it was a loading one, and was ended.
    Held {
        ended: bool,
    },
}

impl Loader {
    /// Reads a source's mark and moves its reader there. Returns the spool's number; `None` if that is not possible
    /// now.
    pub(super) async fn claim(&mut self, connected: &mut Connected, place: usize) -> anyhow::Result<Option<i32>> {
        let name = self.sources[place].mark;
        let mark = match self.claim_mark(connected, name).await? {
            Claimed::Mark(mark) => mark,
            Claimed::Held { ended } => {
                tracing::warn!(spool = %name.uuid, ended, "another connection holds the mark");
                self.sources[place].held_until = Some(Instant::now() + HELD_PAUSE);
                return Ok(None);
            }
        };
        let loaded_seq = self.sources[place].loaded_seq;
        if mark.next_seq > loaded_seq
            && let Ahead::OtherHits(from) = self.look_ahead(connected, place, mark.spool, mark.next_seq).await?
        {
            self.fork(place, from)?;
            return Ok(None);
        }
        if mark.next_seq != loaded_seq {
            self.mark_is_elsewhere(place, mark.next_seq);
        }
        let source = &mut self.sources[place];
        source.reader.seek(source.loaded_seq);
        // Not earlier: from here on loaded segments may be removed.
        source.mark_is_known(mark.spool);
        Ok(Some(mark.spool))
    }

    /// Claims a mark, and counts its batch whose answer was lost. Ends the connection that holds it.
    pub(super) async fn claim_mark(&mut self, connected: &mut Connected, name: MarkName) -> anyhow::Result<Claimed> {
        let claiming = marks::claim(connected.client(), name, &self.options.node);
        let mark = match within(self.patience, "claiming a mark", claiming).await {
            Ok(mark) => mark,
            Err(error) if error.sql_state() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let ending = marks::end_predecessor(connected.client(), name.uuid);
                let ended = within(self.patience, "ending the connection that holds a mark", ending).await?;
                return Ok(Claimed::Held { ended });
            }
            Err(error) => return Err(error.into()),
        };
        connected.clock = Clock::at(mark.now);
        self.settle_pending(name.uuid, mark.next_seq);
        Ok(Claimed::Mark(mark))
    }

    /// PostgreSQL has a source at another number than we thought: PostgreSQL is right.
    fn mark_is_elsewhere(&mut self, place: usize, mark: u64) {
        let source = &self.sources[place];
        let (spool, thought) = (source.mark.uuid, source.loaded_seq);
        if mark < thought {
            tracing::warn!(%spool, thought, mark, "the database was restored to an earlier state: pixeld loads the missing hits again");
        } else {
            tracing::info!(%spool, thought, mark, "the database's mark is ahead: these hits were loaded from a copy");
        }
        self.pass_over(place, mark);
        self.forget_lost(spool, mark);
    }

    /// Goes on at `mark`, up to which another process loaded a source's hits.
    pub(super) fn pass_over(&mut self, place: usize, mark: u64) {
        let source = &mut self.sources[place];
        let published = source.spool.published().next_seq;
        let moved = mark.min(published) as i64 - source.loaded_seq.min(published) as i64;
        // This process neither loaded nor dropped them, so they were not a backlog of its own.
        self.metrics.recovered.add(-moved);
        self.metrics.spooled.add(-moved);
        source.loaded(mark);
        source.reader.seek(mark);
    }

    /// The database has a spool up to `mark`: later recorded hits must not hold their own repetition back.
    pub(super) fn forget_lost(&mut self, spool: SpoolId, mark: u64) {
        let forgotten = self.memory.throttle.as_mut().map_or(0, |throttle| throttle.forget_from(spool, mark));
        if forgotten > 0 {
            tracing::info!(%spool, mark, forgotten, "the throttle forgets hits that the database lost");
        }
    }
}
