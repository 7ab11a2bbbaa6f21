//! Why a page does not do what was requested.

use hyper::StatusCode;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::password::PasswordError;
use crate::db::DbError;
use crate::lists::Problem;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No such page, or nothing with that name.
    #[error("This page does not exist.")]
    NotFound,
    /// The path exists, with other methods.
    #[error("This address accepts only {0} requests.")]
    Method(&'static str),
    /// The user is a viewer.
    #[error("Only an admin may do this. You are signed in as a viewer.")]
    ViewerOnly,
    /// The request names a host that is not ours.
    #[error("pixeld does not answer under this name.")]
    WrongHost,
    /// A request that changes something did not come from our own page.
    #[error("This form was not sent from a page of pixeld, so nothing changed. Reload the page and try again.")]
    NotOwnPage,
    /// A form of more than [`super::request::FORM_BYTES_MAX`].
    #[error("The form is too large. Maximum: 64 KiB.")]
    FormTooLarge,
    /// Not a form.
    #[error("This page could not read the form. Reload it and try again.")]
    NoForm,
    /// A file, or a field beside it, is not what the page needs.
    #[error("{0}")]
    Upload(String),
    /// Too much at once.
    #[error("Too many people are doing this at once. Wait a few seconds and try again.")]
    Busy,
    /// The disk has no room.
    #[error(
        "The disk with pixeld's data has too little room left for this answer, because some room is kept free for hits. Nothing was stored."
    )]
    NoRoom,
    /// It took too long.
    #[error(
        "This took too long, so pixeld stopped it. Try again. If it happens often, see the log and the first line of the overview."
    )]
    TookTooLong,
    /// The database cannot be reached.
    #[error("The database is not answering. Pixels are still served, and their hits wait on disk.")]
    Database(DbError),
    /// The database answered with an error.
    #[error("{}", refused(error, reference))]
    Statement {
        /// Its error.
        error: DbError,
        /// Finds the error in the log.
        reference: String,
    },
    /// A bug, or a failure of the system.
    #[error("Something went wrong. See the log.")]
    Broken(#[from] anyhow::Error),
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        if error.is_of_connection() {
            return Refusal::Database(error);
        }
        let reference = Uuid::new_v4().simple().to_string();
        Refusal::Statement { error, reference: reference.chars().take(REFERENCE_CHARS).collect() }
    }
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        DbError::from(error).into()
    }
}

/// Long enough to find a line in a log.
const REFERENCE_CHARS: usize = 8;

/// In words for those who see the page; the statement's contents stay secret.
fn refused(error: &DbError, reference: &str) -> String {
    let code = error.sql_state().map_or(String::new(), |code| format!(" (SQLSTATE {})", code.code()));
    let what = match error.sql_state().map(SqlState::code) {
        Some("25006") => "The database is read-only, so nothing can be changed",
        Some("53100") => "The database's disk is full",
        Some("55P03") => "Something else is using these data. Try again",
        Some("57014") => "The database took too long and stopped. Try again",
        _ => "The database refused this page's request",
    };
    format!("{what}{code}. For details, look in the log for the reference {reference}.")
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal::Upload(problem.to_string())
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Refusal::Busy,
            PasswordError::Hash(error) => Refusal::Broken(error),
        }
    }
}

impl Refusal {
    /// The answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::ViewerOnly | Refusal::NotOwnPage => StatusCode::FORBIDDEN,
            Refusal::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Refusal::FormTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::NoForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Upload(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Busy | Refusal::TookTooLong | Refusal::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Statement { .. } | Refusal::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Logs the refusal unless the client caused it.
    pub(crate) fn log(&self) {
        match self {
            Refusal::Database(error) => {
                tracing::warn!(error = error.for_log(), "a page could not be shown: the database is not answering");
            }
            Refusal::Statement { error, reference } => {
                let error = error.for_log_of_statement();
                tracing::error!(reference, error, "a page could not be shown: PostgreSQL refused a statement");
            }
            Refusal::Broken(error) => tracing::error!("a page could not be shown: {}", crate::db::describe(error)),
            Refusal::NoRoom => tracing::warn!("a list could not be answered: too little room in the data directory"),
            Refusal::TookTooLong => tracing::warn!("a page took too long"),
            _ => {}
        }
    }
}
