//! Checks whether a database can hold pixeld's data, before anything is locked or changed, and every few seconds after.
//!
//! Guarantees: each problem is described in one sentence with its solution; missing rights come with the statements
//! that grant them. Gives up: the future. It describes the database at this moment; its operator may change it a second
//! later.

use tokio_postgres::Client;

use super::installation::InstallationId;
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
        /// PostgreSQL's name for it.
        encoding: String,
    },
    /// Each transaction would run in another session.
    #[error(
        "a pooler in transaction mode answers at {to}, but pixeld needs its own sessions (settings, LISTEN, advisory \
         locks): use session mode (PgBouncer: pool_mode=session), or name PostgreSQL itself in DATABASE_URL"
    )]
    Pooler {
        /// Host and database, without the password.
        to: String,
    },
    /// It is a standby, which accepts changes only from its primary.
    #[error("the database {database:?} is read-only: it is a standby; name its primary in DATABASE_URL, or promote it")]
    Standby {
        /// Its name.
        database: String,
    },
    /// It has other hits, opt-outs and ids.
    #[error(
        "the database is the installation {found}, but this node belongs to {known}, so pixeld loads nothing into it: name the \
         right database in DATABASE_URL, or join this one with pixeld migrate --new-installation and a restart"
    )]
    OtherInstallation {
        /// The node's.
        known: InstallationId,
        /// The database's.
        found: InstallationId,
    },
    /// It is new, or its tables were dropped.
    #[error(
        "the database has no tables of pixeld, but this node belongs to the installation {known}, so pixeld makes none: restore \
         its backup, name the right database in DATABASE_URL, or begin a new installation with pixeld migrate \
         --new-installation and a restart"
    )]
    NoInstallation {
        /// The node's.
        known: InstallationId,
    },
    /// It was set to read-only.
    #[error(
        "the database {database:?} is read-only: default_transaction_read_only is on for new connections; set it to off \
         (ALTER DATABASE, ALTER ROLE or postgresql.conf)"
    )]
    ReadOnly {
        /// Its name.
        database: String,
    },
    /// The role lacks rights that pixeld needs.
    #[error("the role {role} lacks rights; run as a superuser in this database: {}", grants.join("; "))]
    Rights {
        /// Its name, quoted if SQL needs that.
        role: String,
        /// The statements that grant them.
        grants: Vec<String>,
    },
    /// Its tables belong to another role.
    #[error(
        "the table {table} belongs to {owner}, and the role {role} must own all tables of pixeld; run as a superuser: \
         ALTER TABLE {table} OWNER TO {role}, and so for each (docs/database.md has one statement for all)"
    )]
    Owner {
        /// The first of them.
        table: String,
        /// Its owner.
        owner: String,
        /// The role that connects.
        role: String,
    },
}

impl Unfit {
    /// Whether it is not the installation that this node belongs to.
    pub fn is_of_installation(&self) -> bool {
        matches!(self, Unfit::OtherInstallation { .. } | Unfit::NoInstallation { .. })
    }

    /// Whether it can be read but not changed.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Unfit::Standby { .. } | Unfit::ReadOnly { .. })
    }
}

const LOOK: &str = include_str!("fitness/look.sql");

/// Checks the database of the connection `client`.
///
/// # Errors
/// [`DbError::Unfit`] with the first problem; connection errors.
pub(crate) async fn check(client: &Client) -> Result<(), DbError> {
    let row = within(QUERY_TIMEOUT, "looking at the database", client.query_one(LOOK, &[])).await?;
    let text = |column: usize| row.get::<_, String>(column);
    let (database, encoding) = (text(0), text(1));
    if encoding != ENCODING {
        return Err(Unfit::Encoding { database, encoding }.into());
    }
    if row.get(2) {
        return Err(Unfit::Standby { database }.into());
    }
    if row.get(3) {
        return Err(Unfit::ReadOnly { database }.into());
    }
    let (role, quoted, schema) = (text(4), text(5), text(6));
    let mut grants = Vec::new();
    if !row.get::<_, bool>(7) {
        grants.push(format!("GRANT TEMPORARY ON DATABASE {quoted} TO {role}"));
    }
    if !row.get::<_, bool>(8) {
        grants.push(format!("CREATE SCHEMA {schema} AUTHORIZATION {role}"));
    } else if !row.get::<_, bool>(9) {
        grants.push(format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"));
    }
    if !grants.is_empty() {
        return Err(Unfit::Rights { role, grants }.into());
    }
    match (row.get(10), row.get(11)) {
        (Some(table), Some(owner)) => Err(Unfit::Owner { table, owner, role }.into()),
        _ => Ok(()),
    }
}
