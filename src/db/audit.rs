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
    /// When.
    pub at: OffsetDateTime,
    /// A user's name, or [`COMMAND_LINE`].
    pub actor: String,
    /// What was done.
    pub action: String,
    /// With whom or what.
    pub subject: String,
}

/// The latest entries.
///
/// # Errors
/// As PostgreSQL says.
pub async fn latest(client: &Client, most: i64) -> Result<Vec<Entry>, Error> {
    let select = "SELECT at, actor, action, subject FROM audit ORDER BY id DESC LIMIT $1";
    let rows = client.query(select, &[&most]).await?;
    let entry = |row: &tokio_postgres::Row| Entry {
        at: row.get(0),
        actor: row.get(1),
        action: row.get(2),
        subject: row.get(3),
    };
    Ok(rows.iter().map(entry).collect())
}
