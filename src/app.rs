//! The only place where the parts are wired together: the start order, the drain order, and the supervision of tasks.
//!
//! Start ([`serve()`]): settings, lock, ports (`claim.rs`); spools of earlier starts, writer, edge (`recording.rs`):
//! from here on pixels are answered and recorded; loader, housekeeper, eraser (`loading.rs`); then PostgreSQL and the
//! tasks that follow it (`following.rs`), so that pixels are answered before the database is up.
//!
//! Drain (`drain.rs`): edge (no new hits), writer (all written and synced), loader (all in PostgreSQL, or left for
//! the next start), rollup (once more), the private listener, the embedded PostgreSQL.
//!
//! What happens when one of them ends or panics before the drain: the table in `supervise.rs`.

mod claim;
mod command_line;
mod commands;
mod data_dir;
mod database;
mod drain;
mod following;
mod health;
mod loading;
mod namespace;
mod open_files;
mod options;
pub mod parts;
mod program;
mod recording;
mod sample;
mod serve;
mod supervise;
mod systemd;
mod which;

pub use command_line::main;
pub(crate) use data_dir::DataDir;
pub(crate) use serve::serve;
pub use serve::serve_ending;
pub(crate) use which::NoInstallation;
