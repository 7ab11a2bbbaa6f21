//! An erasure: everything that pixeld holds about one recipient is deleted, on every node, and a receipt says when it
//! was gone.
//!
//! All steps, in order:
//! 1. **The request.** The page (`admin/erasing.rs`) or `pixeld erase` calls [`request::request`]. It locks out all
//!    loaders ([`db::locks`](crate::db::locks)), opts the recipient out if requested, and records the erasure under a
//!    number, with the recipient's keyed hash instead of the id.
//! 2. **No older hit comes back.** Every loader reads [`erased`] when it prepares a batch, and leaves out hits of the
//!    recipient from before the request. The batch's transaction is refused if an erasure was recorded since
//!    (`ingest/batch.rs`).
//! 3. **The database.** [`request::delete`] deletes hits, opens and counts through
//!    [`rollup::change`](crate::rollup::change), chunk by chunk. If it is interrupted, [`leftovers`] of any node
//!    continues it, and also deletes user agents that only the recipient had.
//! 4. **Each node's disk.** [`disk`], a thread of each node, rewrites every file of the spool and of the quarantine
//!    without the recipient ([`spool::rewrite`](pixeld_spool::rewrite) with
//!    [`spool::tombstone`](pixeld_spool::tombstone)), and reports to [`nodes`] when the node is done. A node that was
//!    down does it at its next start, before it loads.
//! 5. **The receipt is final** ([`receipts`]) once all nodes have reported.
//! 6. **A disk or a database that goes back in time** (a backup) is erased from again: each node remembers the erasures
//!    that it has seen ([`remembered`]) and requests again those that the database has lost.
//!
//! Guarantees: after the final receipt no table, segment, quarantined file or log of any node that reported holds the
//! recipient's hits.
//! Gives up: backups, which are the operator's; and a node whose disk is lost forever: an operator must remove it.

pub(crate) mod disk;
pub(crate) mod erased;
pub(crate) mod leftovers;
pub(crate) mod nodes;
pub(crate) mod receipts;
pub(crate) mod remembered;
pub(crate) mod request;

use std::time::Duration;

/// The longest wait between two attempts after a failure.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
