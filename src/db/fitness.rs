//! Whether a database can hold what pixeld keeps, asked before anything is locked or changed.
//!
//! Guarantees: what is wrong is said in one sentence that names it and what to do. Gives up: it says how the database is
//! at this moment; whoever runs it may change it a second later.

use tokio_postgres::Client;

use super::{DbError, QUERY_TIMEOUT, within};

/// The one encoding that holds every user agent and name.
const ENCODING: &str = "UTF8";

/// Why a database cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Texts of readers and senders would be refused, or stored unchecked.
    #[error(
        "the database {database:?} has the encoding {encoding}, and pixeld needs {ENCODING}; make another one with \
         createdb --encoding=UTF8 --template=template0 and name it in DATABASE_URL"
    )]
    Encoding {
        /// Its name.
        database: String,
        /// As PostgreSQL calls it.
        encoding: String,
    },
}

/// Looks at the database that `client` is connected to.
///
/// # Errors
/// [`DbError::Unfit`] with the first thing that is wrong; connection errors.
pub async fn check(client: &Client) -> Result<(), DbError> {
    let select = "SELECT current_database()::text, current_setting('server_encoding')";
    let row = within(QUERY_TIMEOUT, "looking at the database", client.query_one(select, &[])).await?;
    let (database, encoding): (String, String) = (row.get(0), row.get(1));
    if encoding != ENCODING {
        return Err(Unfit::Encoding { database, encoding }.into());
    }
    Ok(())
}
