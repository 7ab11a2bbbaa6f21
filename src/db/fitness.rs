//! Whether a database can hold what pixeld keeps, asked before anything is locked or changed, and every few seconds after.
//!
//! Guarantees: what is wrong is said in one sentence that names it and what to do; what a role may not do comes with the
//! statements that allow it. Gives up: it says how the database is at this moment; whoever runs it may change it a second
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
        /// As PostgreSQL calls it.
        encoding: String,
    },
    /// Each transaction would be another session.
    #[error(
        "a pooler in transaction mode answers at {to}, but pixeld needs its own sessions (settings, LISTEN, advisory \
         locks): use session mode (PgBouncer: pool_mode=session), or name PostgreSQL itself in DATABASE_URL"
    )]
    Pooler {
        /// Host and database, without the password.
        to: String,
    },
    /// It follows another server, and takes changes from that one only.
    #[error("the database {database:?} is read-only: it is a standby; name its primary in DATABASE_URL, or promote it")]
    Standby {
        /// Its name.
        database: String,
    },
    /// Its hits, opt-outs and ids are others.
    #[error(
        "the database is the installation {found}, but this node belongs to {known}, so pixeld loads nothing into it: name the \
         right database in DATABASE_URL, or take this one for good with pixeld migrate --new-installation and a restart"
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
    /// Somebody made it so.
    #[error(
        "the database {database:?} is read-only: default_transaction_read_only is on for new connections; set it to off \
         (ALTER DATABASE, ALTER ROLE or postgresql.conf)"
    )]
    ReadOnly {
        /// Its name.
        database: String,
    },
    /// The role may not do what pixeld does.
    #[error("the role {role} lacks rights; run as a superuser in this database: {}", grants.join("; "))]
    Rights {
        /// Its name, quoted where SQL needs it.
        role: String,
        /// The statements that give them.
        grants: Vec<String>,
    },
    /// Its tables are somebody else's.
    #[error(
        "the table {table} belongs to {owner}, and the role {role} must own all tables of pixeld; run as a superuser: \
         ALTER TABLE {table} OWNER TO {role}, and so for each (docs/database.md has one statement for all)"
    )]
    Owner {
        /// The first of them.
        table: String,
        /// Whose it is.
        owner: String,
        /// Who connects.
        role: String,
    },
}

impl Unfit {
    /// Whether it is not the installation that this node belongs to.
    #[must_use]
    pub fn is_of_installation(&self) -> bool {
        matches!(self, Unfit::OtherInstallation { .. } | Unfit::NoInstallation { .. })
    }

    /// Whether it can be read, and changes nothing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Unfit::Standby { .. } | Unfit::ReadOnly { .. })
    }
}

const LOOK: &str = include_str!("fitness/look.sql");

/// Looks at the database that `client` is connected to.
///
/// # Errors
/// [`DbError::Unfit`] with the first thing that is wrong; connection errors.
pub async fn check(client: &Client) -> Result<(), DbError> {
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
