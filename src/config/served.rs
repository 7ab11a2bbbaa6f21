//! What `serve` leaves in its data directory for commands that run there: the settings that its environment gave it,
//! the paths of secrets in files, and the names of secrets that only its environment has.
//!
//! Guarantees: it contains no secret or piece of one; signing keys are identified by a digest. Gives up: being current.
//! It says how `serve` last started, and stays after `serve` has ended.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Its name in the data directory.
pub(super) const NAME: &str = "serve.env";

/// The names of entries that are not settings.
const DATABASE: &str = "served_database";
const SIGNING_KEYS: &str = "served_signing_keys";
const IN_ENVIRONMENT: &str = "served_from_environment";

/// Settings that every command has for itself.
pub(super) const NOT_LEFT: [&str; 4] = ["PIXELD_DATA_DIR", "PIXELD_LOG", "SENTRY_DSN", "DJANGO_DATABASE_URL"];

const HEAD: &str = "\
# How `pixeld serve` last started, for the commands of this data directory. It is written at each start: to change a setting, use
# pixeld.env beside it. No secret is in here.
";

/// What a `serve` of this data directory left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Its database's address, without credentials.
    pub database: String,
    /// The digests of its signing keys, the newest first.
    pub signing_keys: Vec<String>,
    /// The secrets that a command does not have, and why.
    pub missing: BTreeMap<String, String>,
}

impl Served {
    /// The entries of `serve.env` that are not settings, each looked up by its name.
    pub(super) fn of<'a>(setting: impl Fn(&str) -> Option<&'a OsStr>) -> Served {
        let text = |name| setting(name).and_then(|value| value.to_str()).unwrap_or_default();
        let words = |name| text(name).split_whitespace().map(str::to_owned);
        let why = "is set only in the environment of `pixeld serve`";
        Served {
            database: text(DATABASE).to_owned(),
            signing_keys: words(SIGNING_KEYS).collect(),
            missing: words(IN_ENVIRONMENT).map(|name| (name, why.to_owned())).collect(),
        }
    }
}

/// The file's bytes. `given` are the settings of the environment, `secrets` those that have no file.
pub(super) fn text(given: &[(String, String)], secrets: &[&str], database: &str, signing_keys: &[String]) -> String {
    let mut text = HEAD.to_owned();
    let mut line = |name: &str, value: &str| {
        // A value of several lines means the same on one line.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("{name}={value}\n"));
    };
    for (name, value) in given {
        line(name, value);
    }
    line(DATABASE, database);
    line(SIGNING_KEYS, &signing_keys.join(" "));
    line(IN_ENVIRONMENT, &secrets.join(" "));
    text
}

/// Whether a name is an entry of a served file that is not a setting.
pub(super) fn is_own(name: &str) -> bool {
    [DATABASE, SIGNING_KEYS, IN_ENVIRONMENT].contains(&name)
}

/// A path that means the same for every command.
pub(super) fn absolute(path: &str) -> String {
    let absolute = std::path::absolute(Path::new(path)).map(|path| OsString::from(path).into_string());
    absolute.ok().and_then(Result::ok).unwrap_or_else(|| path.to_owned())
}
