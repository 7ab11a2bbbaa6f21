//! Whether recipients opened a message.

use time::OffsetDateTime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::{DbError, QUERY_TIMEOUT, within};

/// What an open says of its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Who.
    pub recipient: Uuid,
    /// The first hit of all.
    pub first_at: OffsetDateTime,
    /// The first that was confirmed.
    pub confirmed_first_at: Option<OffsetDateTime>,
    /// The number of the best class.
    pub best: i16,
}

/// The opens of some recipients; those who have none are left out. One look into the primary key each.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn of_recipients(client: &Client, message: Uuid, recipients: &[Uuid]) -> Result<Vec<Opened>, DbError> {
    let select = "SELECT recipient, first_at, confirmed_first_at, best FROM opens \
                  WHERE message = $1 AND recipient = ANY($2)";
    let asked = async {
        // With their types, so that one round trip is enough: a list takes a thousand of these.
        let rows = client.query_typed(select, &[(&message, Type::UUID), (&recipients, Type::UUID_ARRAY)]).await?;
        let opened = |row: &tokio_postgres::Row| Opened {
            recipient: row.get(0),
            first_at: row.get(1),
            confirmed_first_at: row.get(2),
            best: row.get(3),
        };
        Ok::<_, Error>(rows.iter().map(opened).collect())
    };
    within(QUERY_TIMEOUT, "looking opens up", asked).await
}

/// What people call a message; empty where they have not named it, or it is not known.
///
/// # Errors
/// As PostgreSQL says, or does not within [`QUERY_TIMEOUT`].
pub async fn name_of(client: &Client, message: Uuid) -> Result<String, DbError> {
    let select = "SELECT name FROM messages WHERE id = $1";
    let row = within(QUERY_TIMEOUT, "reading a message's name", client.query_opt(select, &[&message])).await?;
    Ok(row.map_or_else(String::new, |row| row.get(0)))
}
