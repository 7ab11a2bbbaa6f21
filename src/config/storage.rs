//! Where hits are stored: the data directory, PostgreSQL, the spool.

use std::path::PathBuf;
use std::time::Duration;

use super::Secret;
use super::database_url::DatabaseUrl;
use super::value::{self, Parsed, quote};
use super::vars::{Setting, Vars};

pub(super) const DATA_DIR: Setting = Setting::new("PIXELD_DATA_DIR", "the path of a directory, like /var/lib/pixeld");
pub(super) const DATABASE_URL: Setting = Setting::secret(
    "DATABASE_URL",
    "postgresql://user:password@host:5432/database, special characters in the password percent-encoded",
);
pub(super) const REQUIRE_DATABASE_URL: Setting = Setting::new("PIXELD_REQUIRE_DATABASE_URL", "`true` or `false`");
pub(super) const PG_BIN: Setting =
    Setting::new("PG_BIN", "the directory of PostgreSQL's programs, like /usr/lib/postgresql/17/bin");
pub(super) const DURABILITY: Setting = Setting::new("PIXELD_DURABILITY", "`written` or `synced`");
pub(super) const SPOOL_BYTES_MAX: Setting =
    Setting::new("PIXELD_SPOOL_BYTES_MAX", "a size from 64 MiB to 1024 TiB, like 8GiB, 512MiB or plain bytes");
pub(super) const SPOOL_KEEP: Setting =
    Setting::new("PIXELD_SPOOL_KEEP", "a duration up to 30d, a slash and a size up to 1024 TiB, like 1h/1GiB");

const DATA_DIR_DEFAULT: &str = "./data";
const SPOOL_BYTES_MAX_DEFAULT: u64 = 8 << 30;
const SPOOL_BYTES_MAX_LEAST: u64 = 64 << 20;
const SPOOL_BYTES_MAX_MOST: u64 = 1 << 50;
const SPOOL_KEEP_DEFAULT: SpoolKeep = SpoolKeep { age: Duration::from_secs(3600), bytes: 1 << 30 };
const SPOOL_KEEP_AGE_MOST: Duration = Duration::from_secs(30 * 86_400);

/// Where hits are stored, and how safely.
#[derive(Debug, Clone)]
pub struct Storage {
    /// `PIXELD_DATA_DIR`: the directory of spool, embedded database and lists; absolute. Default `./data`.
    pub data_dir: PathBuf,
    /// `DATABASE_URL` or `DATABASE_URL_FILE`: an external PostgreSQL, with at least one host. `None`: the embedded one.
    pub database_url: Option<Secret>,
    /// `PIXELD_REQUIRE_DATABASE_URL`: never use the embedded one; `database_url` is set then. Default false.
    pub require_database_url: bool,
    /// `PG_BIN`: the directory of PostgreSQL's programs for the embedded database; absolute. `None`: pixeld searches
    /// for them.
    pub pg_bin: Option<PathBuf>,
    /// `PIXELD_DURABILITY`: how safely a hit is stored before its request is answered. Default `written`.
    pub durability: Durability,
    /// `PIXELD_SPOOL_BYTES_MAX`: maximum bytes of the spools on disk. Default 8 GiB.
    pub spool_bytes_max: u64,
    /// `PIXELD_SPOOL_KEEP`: how long, and how many bytes of, loaded segments are kept. Default 1 h and 1 GiB.
    pub spool_keep: SpoolKeep,
}

impl Storage {
    pub(super) fn read(vars: &mut Vars) -> Storage {
        let data_dir = data_dir(vars);
        let (database_url, require_database_url) = database_url(vars);
        let durabilities = [("written", Durability::Written), ("synced", Durability::Synced)];
        let spool_bytes = SPOOL_BYTES_MAX_LEAST..=SPOOL_BYTES_MAX_MOST;
        Storage {
            data_dir,
            database_url,
            require_database_url,
            pg_bin: vars.read(&PG_BIN, None, |text| absolute(text).map(Some)),
            durability: vars.read(&DURABILITY, Durability::Written, |text| value::word(text, &durabilities)),
            spool_bytes_max: vars
                .read(&SPOOL_BYTES_MAX, SPOOL_BYTES_MAX_DEFAULT, |text| value::size(text, spool_bytes)),
            spool_keep: vars.read(&SPOOL_KEEP, SPOOL_KEEP_DEFAULT, parse_spool_keep),
        }
    }
}

/// How safely a hit is stored before its request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written: survives the death of this process; a power cut costs at most the last second.
    Written,
    /// Written and synced to the disk: also survives a power cut.
    Synced,
}

/// How long loaded segments are kept; the bound that is reached first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolKeep {
    /// Since they were loaded.
    pub age: Duration,
    /// Of all loaded segments together.
    pub bytes: u64,
}

pub(super) fn data_dir(vars: &mut Vars) -> PathBuf {
    let default = absolute(DATA_DIR_DEFAULT);
    let unknown = default.as_ref().err().cloned();
    let data_dir = vars.read(&DATA_DIR, default.ok(), |text| absolute(text).map(Some));
    if data_dir.is_none() && !vars.is_refused(&DATA_DIR) {
        vars.refuse(DATA_DIR.name, unknown.unwrap_or_default(), DATA_DIR.allowed);
    }
    data_dir.unwrap_or_default()
}

/// The URL, and whether one is required.
fn database_url(vars: &mut Vars) -> (Option<Secret>, bool) {
    let url = vars.secret(&DATABASE_URL, check_database_url);
    let is_required =
        vars.read(&REQUIRE_DATABASE_URL, false, |text| value::word(text, &[("true", true), ("false", false)]));
    // A command may learn it from `serve`.
    if is_required && url.is_none() && !vars.is_refused(&DATABASE_URL) && !vars.is_after_serve() {
        vars.refuse(
            DATABASE_URL.name,
            "is not set, and PIXELD_REQUIRE_DATABASE_URL is true (containers and the systemd unit set it): pixeld runs no PostgreSQL here",
            format!("{}; or DATABASE_URL_FILE, the path of a file with that", DATABASE_URL.allowed),
        );
    }
    (url, is_required)
}

/// A path that stays the same when the working directory changes.
pub(super) fn absolute(text: &str) -> Parsed<PathBuf> {
    if text.contains("://") {
        return Err("is a URL, not a path (its value is not shown)".to_owned());
    }
    std::path::absolute(text).map_err(|error| format!("is {}, which cannot be made absolute: {error}", quote(text)))
}

fn parse_spool_keep(text: &str) -> Parsed<SpoolKeep> {
    let (age, bytes) = text.split_once('/').ok_or_else(|| format!("is {}, which has no slash in it", quote(text)))?;
    let age = value::duration(age.trim(), Duration::ZERO..=SPOOL_KEEP_AGE_MOST)?;
    Ok(SpoolKeep { age, bytes: value::size(bytes.trim(), 0..=SPOOL_BYTES_MAX_MOST)? })
}

/// Whether a text is a PostgreSQL URL, as the rest of a sentence that contains nothing of it: the client's own error
/// may quote a piece of a password.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_database_url(text: &str) -> Result<(), String> {
    DatabaseUrl::parse(text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_spool_keeps_is_a_duration_and_a_size() {
        let keep = |seconds, bytes| Ok(SpoolKeep { age: Duration::from_secs(seconds), bytes });
        assert_eq!(parse_spool_keep("1h/1GiB"), keep(3600, 1 << 30));
        assert_eq!(parse_spool_keep("30m / 512 MiB"), keep(1800, 512 << 20));
        assert_eq!(parse_spool_keep("0s/0"), keep(0, 0));
        for text in ["1h", "1h/", "/1GiB", "1GiB/1h", "1h/1GiB/1", "31d/1GiB", "off", "1h,1GiB", "1h/1025TiB"] {
            assert!(parse_spool_keep(text).is_err(), "{text}");
        }
    }
}
