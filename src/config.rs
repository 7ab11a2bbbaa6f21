//! placeholder of branch db: only what src/db.rs uses.

use std::path::PathBuf;

/// A value that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The settings that src/db.rs uses.
#[derive(Clone)]
pub struct Config {
    /// Absolute.
    pub data_dir: PathBuf,
    /// External PostgreSQL.
    pub database_url: Option<Secret>,
    /// Where PostgreSQL's programs are.
    pub pg_bin: Option<PathBuf>,
}
