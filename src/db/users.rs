//! The users of the admin page. Each change is written to `audit` in the same statement.
//!
//! Guarantees: a name belongs to one user, in any case and language ([`text::fold`]). Earlier users whose names have
//! become equal still sign in, each by the exact name. [`set_enabled`] never disables the last admin who can sign in. A
//! new password, or disabling a user, ends the user's sessions.

use time::OffsetDateTime;
use tokio_postgres::{Client, Error, Row};

use pixeld_core::text;

/// What a user may do. A later role includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See everything.
    Viewer,
    /// And change it.
    Admin,
}

impl Role {
    /// Both.
    pub const ALL: [Role; 2] = [Role::Viewer, Role::Admin];

    /// The word in the database, on the command line and in forms.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Admin => "admin",
        }
    }

    /// The role of a word; `None` if there is none.
    pub fn of(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Sets the zone of a user's times.
pub(crate) async fn set_zone(client: &Client, user: i64, zone: &str) -> Result<(), Error> {
    client.execute("UPDATE users SET zone = $2 WHERE id = $1", &[&user, &zone]).await?;
    Ok(())
}

/// A user, for people.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The number that identifies a user in forms.
    pub id: i64,
    /// The name, as first written.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// When the user was added.
    pub created_at: OffsetDateTime,
    /// When the user was disabled.
    pub disabled_at: Option<OffsetDateTime>,
    /// When one of their sessions was last used, to about a minute.
    pub used_at: Option<OffsetDateTime>,
}

/// What a sign-in is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// The user's number.
    pub id: i64,
    /// The PHC string of the password.
    pub password_hash: String,
    /// Whether the user is disabled.
    pub is_disabled: bool,
}

/// What is wrong with a name; `None` if it is allowed.
pub(crate) fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.trim() != name {
        return Some("the name must not be empty or begin or end with a space");
    }
    if name.chars().count() > 64 || text::has_hidden(name) {
        return Some("the name may have up to 64 characters, and no control or invisible characters");
    }
    None
}

/// The user with a name: the one with exactly this name, otherwise the only one who has it in another case.
async fn id_of(client: &Client, name: &str) -> Result<Option<i64>, Error> {
    let users = client.query("SELECT id, name FROM users", &[]).await?;
    let exact = users.iter().find(|row| row.get::<_, &str>(1) == name);
    let folded = text::fold(name);
    let alike: Vec<&Row> = users.iter().filter(|row| text::fold(row.get(1)) == folded).collect();
    let only = match alike[..] {
        [one] => Some(one),
        _ => None,
    };
    Ok(exact.or(only).map(|row| row.get(0)))
}

/// Whether a user has this name, in any case.
async fn is_taken(client: &Client, name: &str) -> Result<bool, Error> {
    let folded = text::fold(name);
    Ok(client.query("SELECT name FROM users", &[]).await?.iter().any(|row| text::fold(row.get(0)) == folded))
}

/// Adds a user; `None` if the name is in use.
pub(crate) async fn add(
    client: &Client,
    actor: &str,
    name: &str,
    role: Role,
    hash: &str,
) -> Result<Option<i64>, Error> {
    let insert = include_str!("users/add.sql");
    // The index separates two users who are added at the same moment; it knows at least ASCII case.
    if is_taken(client, name).await? {
        return Ok(None);
    }
    let row = client.query_opt(insert, &[&actor, &name, &role.word(), &hash]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Removes a user and their sessions. Returns whether there was one.
pub(crate) async fn remove(client: &Client, actor: &str, name: &str) -> Result<bool, Error> {
    let delete = "WITH removed AS (DELETE FROM users WHERE id = $2 RETURNING name) \
                  INSERT INTO audit (actor, action, subject) SELECT $1, 'user removed', name FROM removed";
    let Some(id) = id_of(client, name).await? else { return Ok(false) };
    Ok(client.execute(delete, &[&actor, &id]).await? > 0)
}

/// Changes a user's password, and ends their sessions. Returns whether there is such a user.
pub(crate) async fn set_password(client: &Client, actor: &str, name: &str, hash: &str) -> Result<bool, Error> {
    let update = "WITH changed AS ( \
                    UPDATE users SET password_hash = $3, sessions_valid_from = clock_timestamp() \
                    WHERE id = $2 RETURNING id, name), \
                  ended AS (DELETE FROM sessions WHERE user_id IN (SELECT id FROM changed)) \
                  INSERT INTO audit (actor, action, subject) SELECT $1, 'password changed', name FROM changed";
    let Some(id) = id_of(client, name).await? else { return Ok(false) };
    Ok(client.execute(update, &[&actor, &id, &hash]).await? > 0)
}

/// Enables or disables a user. Returns whether that changed something; the last admin who can sign in stays enabled.
pub(crate) async fn set_enabled(client: &Client, actor: &str, id: i64, enabled: bool) -> Result<bool, Error> {
    let (update, action) = if enabled {
        (
            "UPDATE users SET disabled_at = NULL WHERE id = $3 AND disabled_at IS NOT NULL RETURNING id, name",
            "user enabled",
        )
    } else {
        // The lock makes two admins who disable each other wait for one another.
        (
            "UPDATE users SET disabled_at = clock_timestamp(), sessions_valid_from = clock_timestamp() \
             WHERE id = $3 AND disabled_at IS NULL AND (role <> 'admin' OR (SELECT count(*) FROM admins) > 1) \
             RETURNING id, name",
            "user disabled",
        )
    };
    let statement = format!(
        "WITH admins AS ( \
           SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id FOR UPDATE), \
         changed AS ({update}), \
         ended AS (DELETE FROM sessions WHERE user_id IN (SELECT id FROM changed)) \
         INSERT INTO audit (actor, action, subject) SELECT $1, $2, name FROM changed"
    );
    Ok(client.execute(&statement, &[&actor, &action, &id]).await? > 0)
}

/// All users, by name.
pub(crate) async fn list(client: &Client) -> Result<Vec<User>, Error> {
    let select = "SELECT u.id, u.name, u.role, u.created_at, u.disabled_at, max(s.used_at) \
                  FROM users u LEFT JOIN sessions s ON s.user_id = u.id GROUP BY u.id ORDER BY lower(u.name) LIMIT 1000";
    Ok(client.query(select, &[]).await?.iter().map(user).collect())
}

fn user(row: &Row) -> User {
    User {
        id: row.get(0),
        name: row.get(1),
        // The table's check allows no other word; a viewer has the fewest rights.
        role: Role::of(row.get(2)).unwrap_or(Role::Viewer),
        created_at: row.get(3),
        disabled_at: row.get(4),
        used_at: row.get(5),
    }
}

/// Whether there is any user.
pub(crate) async fn any(client: &Client) -> Result<bool, Error> {
    Ok(client.query_one("SELECT EXISTS (SELECT FROM users)", &[]).await?.get(0))
}

/// What a sign-in under this name is checked against; `None` if there is no such user.
pub(crate) async fn account(client: &Client, name: &str) -> Result<Option<Account>, Error> {
    let Some(id) = id_of(client, name).await? else { return Ok(None) };
    let select = "SELECT id, password_hash, disabled_at IS NOT NULL FROM users WHERE id = $1";
    let row = client.query_opt(select, &[&id]).await?;
    Ok(row.map(|row| Account { id: row.get(0), password_hash: row.get(1), is_disabled: row.get(2) }))
}
