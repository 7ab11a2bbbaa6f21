//! Who changed what. Entries are written by the statements that change something; here they are read.

use time::OffsetDateTime;
use tokio_postgres::{Client, Error};

/// The actor of what is done by a command.
pub const COMMAND_LINE: &str = "command line";

/// The actor of what a recipient does on the page behind an opt-out link.
pub const OPT_OUT_PAGE: &str = "opt-out page";

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// When.
    pub at: OffsetDateTime,
    /// A user's name, or [`COMMAND_LINE`].
    pub actor: String,
    /// What was done.
    pub action: String,
    /// With whom or what: a name, an id, or the hash of a recipient.
    pub subject: String,
    /// More of it: an object of JSON, empty as a rule.
    pub detail: String,
}

/// The latest entries, or those before one, the newest first.
///
/// # Errors
/// As PostgreSQL says.
pub async fn latest(client: &Client, before: Option<i64>, most: i64) -> Result<Vec<Entry>, Error> {
    let select =
        "SELECT id, at, actor, action, subject, detail::text FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = client.query(select, &[&before.unwrap_or(i64::MAX), &most]).await?;
    let entry = |row: &tokio_postgres::Row| Entry {
        id: row.get(0),
        at: row.get(1),
        actor: row.get(2),
        action: row.get(3),
        subject: row.get(4),
        detail: row.get(5),
    };
    Ok(rows.iter().map(entry).collect())
}
