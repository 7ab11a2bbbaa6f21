//! Errors in the use of PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::error::SqlState;

use super::embedded::EmbeddedError;
use super::fitness::Unfit;
use super::reason::{reason, without_values};
use super::tls;

/// Why PostgreSQL could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// `DATABASE_URL` cannot work, whatever the server does.
    #[error("DATABASE_URL: {0}")]
    Url(String),
    /// No connection; it may return.
    #[error("cannot connect to PostgreSQL at {to}: {reason}", reason = reason_with_way_out(cause, grant))]
    Connect {
        /// Host and database, without the password.
        to: String,
        /// The statement that lets the role in, in case it lacks that right.
        grant: String,
        /// The error of tokio-postgres. Not a `source`: this error's text already includes it.
        cause: tokio_postgres::Error,
    },
    /// Our own limit ran out; whether the work was done is unknown.
    #[error("PostgreSQL: {what} took longer than {limit:?}")]
    Timeout {
        /// The work.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// A statement failed, or the connection did while it ran.
    #[error("PostgreSQL: {}", reason(.0))]
    Query(#[from] tokio_postgres::Error),
    /// The pool has no connection.
    #[error("PostgreSQL: {}", pool_reason(.0))]
    Pool(#[from] PoolError),
    /// The database can be reached, but cannot hold pixeld's data.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Another node held the lock of the migrations for the whole wait.
    #[error("another node has been migrating the database for more than {waited:?}; try again when it is done")]
    MigrationLock {
        /// How long this node waited.
        waited: Duration,
    },
    /// A migration failed or does not match the database.
    #[error("migration: {0}")]
    Migration(String),
    /// Changes of a table are published, and it lacks the replica identity that PostgreSQL requires for that.
    #[error(
        "changes of the table {table} are published, so PostgreSQL changes its rows only with a replica identity, and that could \
         not be set ({reason}); pixeld continues once this is fixed, or run as its owner: ALTER TABLE {table} REPLICA IDENTITY FULL"
    )]
    Identity {
        /// Its name, as SQL accepts it.
        table: String,
        /// PostgreSQL's error.
        reason: String,
    },
    /// The embedded PostgreSQL could not be found, created, started or stopped.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
}

impl DbError {
    /// The text for the log, and so for Sentry: the first line. The others are the embedded server's own log, which may
    /// quote a row, and with it an address.
    pub fn for_log(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// The same for a statement that should have given a table its replica identity.
    pub(super) fn of_identity(self, table: String) -> DbError {
        match &self {
            DbError::Query(refused) if !self.is_of_connection() => DbError::Identity { table, reason: reason(refused) },
            _ => self,
        }
    }

    /// Whether the connection failed, and not a statement: the database is down, or too busy to accept another
    /// connection, and may return by itself.
    pub fn is_of_connection(&self) -> bool {
        match self {
            DbError::Connect { .. } | DbError::Timeout { .. } | DbError::Embedded(_) => true,
            DbError::Query(source)
            | DbError::Pool(PoolError::Backend(source) | PoolError::PostCreateHook(HookError::Backend(source))) => {
                is_lost(source)
            }
            DbError::Pool(PoolError::PostCreateHook(_)) => false,
            DbError::Pool(_) => true,
            DbError::Url(_)
            | DbError::Unfit(_)
            | DbError::MigrationLock { .. }
            | DbError::Migration(_)
            | DbError::Identity { .. } => false,
        }
    }

    /// What the log, and so Sentry, may contain about a refused statement: the code, and the message if its class
    /// quotes no values.
    pub fn for_log_of_statement(&self) -> String {
        let Some(code) = self.sql_state().map(SqlState::code) else { return self.for_log() };
        match code.get(..2) {
            Some("22" | "23" | "P0") => format!("PostgreSQL: SQLSTATE {code}"),
            _ => format!("{} (SQLSTATE {code})", self.for_log()),
        }
    }

    /// Whether the database belongs to another installation than this node, or to none.
    pub fn is_of_installation(&self) -> bool {
        matches!(self, DbError::Unfit(unfit) if unfit.is_of_installation())
    }

    /// The server's SQLSTATE, if it answered.
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            DbError::Connect { cause: source, .. } | DbError::Query(source) => source.code(),
            DbError::Pool(PoolError::Backend(source) | PoolError::PostCreateHook(HookError::Backend(source))) => {
                source.code()
            }
            _ => None,
        }
    }
}

/// The code of a statement that PostgreSQL refused, if that is the reason for the failure and the connection works.
pub(crate) fn refused_with(error: &anyhow::Error) -> Option<String> {
    let source = error.chain().find_map(|cause| match cause.downcast_ref::<DbError>() {
        Some(DbError::Query(source)) => Some(source),
        Some(_) => None,
        None => cause.downcast_ref::<tokio_postgres::Error>(),
    })?;
    source.code().filter(|_| !is_lost(source)).map(|code| code.code().to_owned())
}

/// The reason for a failure in one line, unless the connection failed: that is reported elsewhere.
pub(crate) fn problem(error: &anyhow::Error) -> Option<Arc<String>> {
    let is_of_connection = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<DbError>().is_some_and(DbError::is_of_connection)
            || cause.downcast_ref::<tokio_postgres::Error>().is_some_and(is_lost)
    };
    (!error.chain().any(is_of_connection)).then(|| Arc::new(describe(error).replace('\n', " ")))
}

/// Whether an error means that the connection is lost, or was not established: no answer at all, or one of the answers
/// with which a server sends clients away (class 08, shutting down, starting, no connection free).
fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => ["08", "57P", "53300"].iter().any(|class| code.code().starts_with(class)),
        None => {
            error.is_closed() || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
        }
    }
}

/// The same, with what to do.
fn reason_with_way_out(error: &tokio_postgres::Error, grant: &str) -> String {
    let reason = reason(error).replace('\n', " ");
    match (error.code(), tls::way_out(error)) {
        (Some(&SqlState::INSUFFICIENT_PRIVILEGE), _) => format!("{reason}; run as a superuser: {grant}"),
        (_, Some(way_out)) => format!("{reason}; {way_out}"),
        _ => reason,
    }
}

fn pool_reason(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => reason(error),
        _ => error.to_string(),
    }
}

/// An error with its causes, in the format of anyhow's `{:#}`, but without the values that PostgreSQL quotes.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    with_causes(error.as_ref())
}

/// The same for any error.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let (part, is_last) = match (cause.downcast_ref::<tokio_postgres::Error>(), cause.downcast_ref::<DbError>()) {
            // Both include their causes themselves.
            (Some(error), _) => (reason(error), true),
            (_, Some(error)) => (error.to_string(), true),
            _ => match cause.downcast_ref::<tokio_postgres::error::DbError>() {
                Some(answer) => (without_values(answer), true),
                None => (cause.to_string(), false),
            },
        };
        // An error whose text is its cause's, or ends with it, adds nothing.
        if !parts.last().is_some_and(|before| before.ends_with(&part)) {
            parts.push(part);
        }
        if is_last {
            break;
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_come_back_by_itself_is_of_the_connection() {
        let limit = Duration::from_secs(1);
        assert!(DbError::Timeout { what: "a test", limit }.is_of_connection());
        assert!(DbError::Pool(PoolError::Closed).is_of_connection());
        let encoding = Unfit::Encoding { database: "d".to_owned(), encoding: "LATIN1".to_owned() };
        assert!(!DbError::from(encoding).is_of_connection());
        assert!(!DbError::Migration("x".to_owned()).is_of_connection());
        assert!(!DbError::Pool(PoolError::PostCreateHook(HookError::message("x"))).is_of_connection());
    }
}
