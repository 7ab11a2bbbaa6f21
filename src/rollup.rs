//! From hits to opens and counts: one node at a time keeps them in step, also when hits are reclassified, deleted or
//! dropped by age.
//!
//! In order:
//! 1. A loader commits a batch, whose row in `batches` is not yet published.
//! 2. [`task`] wakes and takes turns. Each [`turn`] is one transaction: it takes the lock, chooses batches, adds their
//!    hits to opens and counts through [`tally`], and gives the batches the numbers under which readers find them.
//! 3. [`change`] changes loaded hits: it reclassifies, deletes, or drops them by age. Each of its chunks holds the same
//!    lock and first rolls up what is pending, so a hit is never added after it was removed.
//! 4. [`retention`] is the task that drops whole days of hits; [`retention_day`] is the transaction that drops one.
//! 5. [`deletions`] are the receipts.
//!
//! Longer statements are `.sql` files beside the code that runs them; `statement` fills them in.
//!
//! Guarantees: opens and counts are those of the published hits, after each commit; [`tally`]'s head defines every number. Gives up:
//! counts follow hits by a moment.

pub mod change;
pub(crate) mod deletions;
pub mod retention;
pub mod retention_day;
mod statement;
pub mod tally;
pub mod task;
pub mod turn;
