//! Sessions of the admin page, by the SHA-256 of their tokens.
//!
//! Guarantees: a session ends 12 hours after its last use and 7 days after its start, at "sign out everywhere", with a
//! new password, and with its user. A sign-in with the old password during a change of the password starts no session.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::users::Role;

/// Maximum sessions of one user; the oldest end first.
pub(crate) const OF_A_USER_MAX: i64 = 20;

/// A digest of a token.
pub(crate) type TokenDigest = [u8; 32];

/// A user who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedIn {
    /// The user's number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The zone for times.
    pub zone: String,
}

const FRESH: &str = "s.used_at > clock_timestamp() - interval '12 hours' \
                     AND s.created_at > clock_timestamp() - interval '7 days'";

/// The user of a session; `None` if it has ended or never existed.
pub(crate) async fn look(client: &Client, token: &TokenDigest) -> Result<Option<SignedIn>, Error> {
    let select = format!(
        "SELECT u.id, u.name, u.role, u.zone, s.used_at < clock_timestamp() - interval '1 minute' \
         FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.token_sha256 = $1 AND u.disabled_at IS NULL AND s.created_at >= u.sessions_valid_from AND {FRESH}"
    );
    let Some(row) = client.query_opt(&select, &[&token.as_slice()]).await? else { return Ok(None) };
    // Once a minute, so that reading pages does not write a row version each time.
    if row.get(4) {
        let update = "UPDATE sessions SET used_at = clock_timestamp() WHERE token_sha256 = $1";
        match client.execute(update, &[&token.as_slice()]).await {
            // Pages can still be read then.
            Err(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {}
            updated => {
                updated?;
            }
        }
    }
    let role = Role::of(row.get(2)).unwrap_or(Role::Viewer);
    Ok(Some(SignedIn { id: row.get(0), name: row.get(1), role, zone: row.get(3) }))
}

/// Starts a session of a user whose password was just checked. Returns whether it did: not if the password or the user
/// changed in the meantime.
pub(crate) async fn begin(
    client: &Client,
    user: i64,
    password_hash: &str,
    token: &TokenDigest,
    user_agent: &str,
) -> Result<bool, Error> {
    let tidy = format!(
        "DELETE FROM sessions s WHERE s.user_id = $1 AND (NOT ({FRESH}) OR s.token_sha256 NOT IN ( \
           SELECT token_sha256 FROM sessions WHERE user_id = $1 ORDER BY used_at DESC LIMIT $2))"
    );
    client.execute(&tidy, &[&user, &(OF_A_USER_MAX - 1)]).await?;
    // The lock waits for a concurrent change of the password; after that the hash differs.
    let insert = "INSERT INTO sessions (token_sha256, user_id, user_agent) \
                  SELECT $1, id, left($4, 200) FROM users \
                  WHERE id = $2 AND password_hash = $3 AND disabled_at IS NULL FOR SHARE";
    Ok(client.execute(insert, &[&token.as_slice(), &user, &password_hash, &user_agent]).await? > 0)
}

/// Ends a session.
pub(crate) async fn end(client: &Client, token: &TokenDigest) -> Result<(), Error> {
    client.execute("DELETE FROM sessions WHERE token_sha256 = $1", &[&token.as_slice()]).await?;
    Ok(())
}

/// Ends all sessions of a user.
pub(crate) async fn end_all(client: &Client, user: &SignedIn) -> Result<(), Error> {
    let update = "WITH ended AS (DELETE FROM sessions WHERE user_id = $1), \
                  moved AS (UPDATE users SET sessions_valid_from = clock_timestamp() WHERE id = $1) \
                  INSERT INTO audit (actor, action, subject) VALUES ($2, 'signed out everywhere', $2)";
    client.execute(update, &[&user.id, &user.name]).await?;
    Ok(())
}
