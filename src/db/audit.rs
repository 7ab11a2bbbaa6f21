//! Who changed what. The statements that change something write the entries; this module reads them.

use time::OffsetDateTime;
use tokio_postgres::{Client, Error};

/// The actor of commands.
pub(crate) const COMMAND_LINE: &str = "command line";

/// The actor of what a recipient does on the opt-out page.
pub(crate) const OPT_OUT_PAGE: &str = "opt-out page";

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its number; later ones have higher numbers.
    pub id: i64,
    /// The time.
    pub at: OffsetDateTime,
    /// A user's name, or [`COMMAND_LINE`].
    pub actor: String,
    /// The action.
    pub action: String,
    /// Its object: a name, an id, or the hash of a recipient.
    pub subject: String,
    /// Details: a JSON object, usually empty.
    pub detail: String,
}

/// The latest entries, or those before one, the newest first.
pub(crate) async fn latest(client: &Client, before: Option<i64>, max: i64) -> Result<Vec<Entry>, Error> {
    let select =
        "SELECT id, at, actor, action, subject, detail::text FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = client.query(select, &[&before.unwrap_or(i64::MAX), &max]).await?;
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
