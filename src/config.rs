//! Settings from the environment, the settings file of the data directory and, for commands, what `serve` left there;
//! checked before a port is bound.
//!
//! Guarantees: a [`Config`] holds only checked values. All wrong settings are reported at once, each with its variable,
//! what was wrong and what is allowed. A misspelt `PIXELD_…` variable is an error, not a setting that silently does
//! nothing. A secret's value is never printed, in an error or by `Debug`. Gives up: reading anything again after the
//! start; checking whether a host answers or a directory is writable.
//!
//! Each section of settings is a struct in its own file in `config/`, which reads it; the part that uses it receives
//! it. A setting is a `Setting` and a field there, an entry in `SETTINGS`, a line of `shown.rs`, and a line in
//! `.env.example`.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

mod database_url;
mod former;
mod layer;
mod limits;
mod links;
mod listen;
mod names;
mod networks;
mod odd;
mod privacy;
mod problem;
mod redis;
mod secret;
mod served;
mod shown;
mod storage;
mod telemetry;
mod value;
mod vars;

#[cfg(test)]
mod tests;

pub(crate) use database_url::{CertificateCheck, DatabaseUrl};
pub(crate) use former::Former;
pub(crate) use limits::Limits;
pub(crate) use links::Signing;
pub(crate) use listen::Listen;
pub(crate) use networks::Networks;
pub(crate) use odd::may_hold_password;
pub(crate) use privacy::Privacy;
pub(crate) use problem::{ConfigError, Problem};
pub use secret::Secret;
pub(crate) use served::Served;
pub(crate) use storage::{Durability, SpoolKeep, Storage, check_database_url};
pub(crate) use telemetry::Telemetry;
use vars::{Setting, Vars};

use crate::whole_file;
use layer::{Layer, Origin};

/// The exit status of a start that bad settings prevented (`EX_USAGE` of sysexits.h).
pub(crate) const EXIT_CONFIG: u8 = 64;

/// The settings file, in the data directory.
pub(crate) const SETTINGS_FILE: &str = "pixeld.env";

/// Who reads the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `serve`: its settings count.
    Serve,
    /// Any other command: it uses the settings of the data directory's `serve`, unless its own say otherwise.
    Command,
}

/// All settings, in the order in which problems are reported.
const SETTINGS: [&Setting; 27] = [
    &listen::LISTEN,
    &listen::ADMIN_LISTEN,
    &listen::BASE_URL,
    &listen::ADMIN_BASE_URL,
    &listen::TRUSTED_PROXIES,
    &links::SIGNING_KEYS,
    &links::REQUIRE_SIGNED,
    &storage::DATA_DIR,
    &storage::DATABASE_URL,
    &storage::REQUIRE_DATABASE_URL,
    &storage::PG_BIN,
    &storage::DURABILITY,
    &storage::SPOOL_BYTES_MAX,
    &storage::SPOOL_KEEP,
    &redis::REDIS_URL,
    &limits::THROTTLE,
    &limits::ADDRESS_RATE,
    &limits::CONNECTIONS_MAX,
    &limits::THREADS,
    &limits::DRAIN_SECONDS,
    &networks::NETWORKS_DIR,
    &networks::NETWORKS_UPDATE,
    &privacy::IP_PRIVACY,
    &privacy::RETENTION_DAYS,
    &telemetry::LOG,
    &telemetry::SENTRY_DSN,
    &former::DJANGO_DATABASE_URL,
];

/// The settings of one process, checked: a section for each part that uses them.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listeners, and the addresses that lead there.
    pub listen: Listen,
    /// The signing of links.
    pub signing: Signing,
    /// Where hits are stored, and how safely.
    pub storage: Storage,
    /// Bounds on clients and on this process.
    pub limits: Limits,
    /// Where lists of networks are stored, and whether they are fetched.
    pub networks: Networks,
    /// What is kept about people, and for how long.
    pub privacy: Privacy,
    /// What is logged and reported about this process, and where.
    pub telemetry: Telemetry,
    /// The Django app, for the import.
    pub former: Former,
    /// What the `serve` of this data directory left for commands; `None` for `serve` itself, or if none ever ran.
    pub served: Option<Served>,
    /// Settings that the environment and the settings file set to different values.
    pub overridden: Vec<&'static str>,
    /// What to leave for commands: settings of the environment, and the names of secrets that only the environment has.
    to_leave: (Vec<(String, String)>, Vec<&'static str>),
}

impl Config {
    /// Reads the settings in this process's environment, and in the files of its data directory. Also reads the files
    /// that `…_FILE` variables name.
    ///
    /// # Errors
    /// [`ConfigError`] with every setting that is wrong.
    pub fn load(reader: Reader) -> Result<Config, ConfigError> {
        let environment = Layer::environment(std::env::vars_os());
        let is_named = environment.get(storage::DATA_DIR.name).is_some();
        let has_database = ["DATABASE_URL", "DATABASE_URL_FILE"].iter().any(|name| environment.get(name).is_some());
        let data_dir = storage::data_dir(&mut Vars::new(environment.values.clone()));
        let mut wrong = Vec::new();
        let mut behind = Vec::new();
        let files = [(SETTINGS_FILE, Origin::File), (served::NAME, Origin::Served)];
        for (name, origin) in
            files.into_iter().filter(|(_, origin)| *origin == Origin::File || reader == Reader::Command)
        {
            let path = data_dir.join(name);
            // A directory that happens to be called ./data is not read.
            let is_asked = is_named || !has_database || std::fs::metadata(&path).is_ok();
            match if is_asked { Layer::read(&path, origin) } else { Ok(None) } {
                Ok(layer) => behind.extend(layer),
                Err(problems) => wrong.extend(problems.into_iter().map(|(of, why)| (path.clone(), of, why))),
            }
        }
        Config::read(Vars::of(environment, behind), wrong)
    }

    /// Reads the settings among `vars`, pairs of variable and value. Variables of other programs are ignored; unknown
    /// ones that begin with `PIXELD_` are errors.
    ///
    /// # Errors
    /// [`ConfigError`] with every setting that is wrong.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, ConfigError> {
        Config::read(Vars::new(vars), Vec::new())
    }

    /// `wrong` are lines of files: the file, the name, and what is wrong with it.
    fn read(mut vars: Vars, wrong: Vec<(PathBuf, String, String)>) -> Result<Config, ConfigError> {
        for (path, of, why) in wrong {
            let of = if of == path.display().to_string() { of } else { format!("{} in {}", of, path.display()) };
            vars.refuse(&of, why, "settings as .env.example lists them, in a file of yours");
        }
        // Problems are reported in the order of reading.
        let (listen, signing, storage) = (Listen::read(&mut vars), Signing::read(&mut vars), Storage::read(&mut vars));
        let config = Config {
            limits: Limits::read(&mut vars),
            networks: Networks::read(&mut vars, &storage.data_dir),
            privacy: Privacy::read(&mut vars),
            telemetry: Telemetry::read(&mut vars),
            former: Former::read(&mut vars),
            served: vars.served(),
            overridden: vars.overridden(),
            to_leave: vars.to_leave(),
            listen,
            signing,
            storage,
        };
        vars::refuse_unknown(&mut vars);
        vars.finish()?;
        Ok(config)
    }

    /// Leaves in the data directory what commands there need of these settings; `database` is its address, without
    /// credentials.
    pub fn leave_for_commands(&self, database: &str) -> io::Result<()> {
        let (given, secrets) = &self.to_leave;
        let text = served::text(given, secrets, database, &self.signing.keys.digests());
        whole_file::replace(&self.storage.data_dir.join(served::NAME), text.as_bytes())
    }

    /// The settings file of this data directory.
    pub fn settings_file(&self) -> PathBuf {
        self.storage.data_dir.join(SETTINGS_FILE)
    }
}
