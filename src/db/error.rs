//! What can go wrong between us and PostgreSQL.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::embedded::EmbeddedError;

/// Why PostgreSQL could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// `DATABASE_URL` cannot be used, whatever the server does.
    #[error("DATABASE_URL: {0}")]
    Url(String),
    /// No connection; it may come back.
    #[error("cannot connect to PostgreSQL at {to}: {reason}", reason = reason(source))]
    Connect {
        /// Host and database, without the password.
        to: String,
        /// What tokio-postgres says.
        source: tokio_postgres::Error,
    },
    /// Our own limit ran out; whether the work was done is not known.
    #[error("PostgreSQL: {what} took longer than {limit:?}")]
    Timeout {
        /// What was under way.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// A statement failed, or the connection did while it ran.
    #[error("PostgreSQL: {}", reason(.0))]
    Query(#[from] tokio_postgres::Error),
    /// The pool has no connection to give.
    #[error("PostgreSQL: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// Another node held the lock of the migrations for the whole wait.
    #[error("another node has been migrating the database for more than {waited:?}; try again when it is done")]
    MigrationLock {
        /// How long was waited.
        waited: Duration,
    },
    /// A migration failed or does not fit what the database has.
    #[error("migration: {0}")]
    Migration(String),
    /// The embedded PostgreSQL could not be found, made, started or stopped.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl DbError {
    /// What may be logged, and so reported to Sentry: the first line. The others are the embedded server's own log, which
    /// may quote a row, and with it an address.
    #[must_use]
    pub fn for_log(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// What the server answered, where it did.
    #[must_use]
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            DbError::Connect { source, .. } | DbError::Query(source) => source.code(),
            DbError::Pool(deadpool_postgres::PoolError::Backend(source)) => source.code(),
            _ => None,
        }
    }
}

/// tokio-postgres says only "db error"; what happened is in its source.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
