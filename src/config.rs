//! Settings from the environment, the settings file of the data directory, and, for commands, what `serve` left there; checked before
//! a port is bound.
//!
//! Guarantees: a [`Config`] holds only values that were checked; all wrong settings are reported at once, each with its
//! variable, what was wrong and what is allowed; a misspelt `PIXELD_…` variable is an error, not a setting that silently
//! does nothing; a secret's value is never printed, in an error or by `Debug`. Gives up: nothing is read again after
//! the start, and whether a host answers or a directory can be written is not asked here.
//!
//! Each section of settings has a file of its own in `config/`. A setting is a `Setting` there, an entry in `SETTINGS`, a field of [`Config`], and a
//! line in `.env.example`.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

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

use pixeld_core::privacy::IpPrivacy;

pub use database_url::{CertificateCheck, DatabaseUrl};
pub use odd::may_hold_password;
pub use problem::{ConfigError, Problem};
pub use secret::Secret;
pub use served::Served;
pub use storage::{Durability, SpoolKeep, check_database_url};
use vars::{Setting, Vars};

use crate::whole_file;
use layer::{Layer, Origin};
use pixeld_core::link::token::SigningKeys;

/// The exit status of a start that bad settings prevented (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;

/// The settings file, in the data directory.
pub const SETTINGS_FILE: &str = "pixeld.env";

/// Who reads the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `serve`, whose settings count.
    Serve,
    /// Any other command, which does as the `serve` of its data directory where nothing else is said.
    Command,
}

/// Every setting there is, in the order in which problems are reported.
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

/// The settings of one process, checked. Each field names its variable.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PIXELD_LISTEN`: where pixels are served; default `0.0.0.0:8080`. The port is never 0.
    pub listen: SocketAddr,
    /// `PIXELD_ADMIN_LISTEN`: where metrics and admin pages are served; default `127.0.0.1:8081`. Never the same as
    /// `listen`; the port is never 0.
    pub admin_listen: SocketAddr,
    /// `PIXELD_BASE_URL`: what links in emails begin with; `http://` or `https://`, the host in lower case, no default
    /// port, no trailing slash. Default: from `listen`.
    pub base_url: String,
    /// `PIXELD_ADMIN_BASE_URL`: where people reach the admin listener, in the form of `base_url`. Default: from
    /// `admin_listen`.
    pub admin_base_url: String,
    /// `PIXELD_DATA_DIR`: the directory of spool, embedded database and lists; absolute. Default `./data`.
    pub data_dir: PathBuf,
    /// `DATABASE_URL` or `DATABASE_URL_FILE`: an external PostgreSQL, with at least one host. `None`: the embedded one.
    pub database_url: Option<Secret>,
    /// `PIXELD_REQUIRE_DATABASE_URL`: never the embedded one; `database_url` is set then. Default false.
    pub require_database_url: bool,
    /// `REDIS_URL` or `REDIS_URL_FILE`: the Redis through which nodes share their throttle. `None`: each has its own.
    pub redis_url: Option<Secret>,
    /// `PG_BIN`: the directory of PostgreSQL's programs for the embedded database; absolute. `None`: they are looked for.
    pub pg_bin: Option<PathBuf>,
    /// `SENTRY_DSN` or `SENTRY_DSN_FILE`: where errors are reported. `None`: nowhere.
    pub sentry_dsn: Option<Secret>,
    /// `PIXELD_TRUSTED_PROXIES`: the peers whose X-Forwarded-For is believed. No IPv4-mapped IPv6 among them, so
    /// compare with addresses in canonical form. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// `PIXELD_SIGNING_KEYS` or `PIXELD_SIGNING_KEYS_FILE`: the keys of signed links, the newest first. Default: none.
    pub signing_keys: SigningKeys,
    /// `PIXELD_REQUIRE_SIGNED`: only signed links are recorded; there is a key then. Default false.
    pub require_signed: bool,
    /// `PIXELD_DURABILITY`: what is done with a hit before its request is answered. Default `written`.
    pub durability: Durability,
    /// `PIXELD_THROTTLE`: of the same fetch by the same client, at most one hit is kept in this time. `None`: all are.
    /// Default 1 h.
    pub throttle: Option<Duration>,
    /// `PIXELD_ADDRESS_RATE`: hits a second that one client address may have recorded. `None`: no bound. Default 1000.
    pub address_rate: Option<NonZeroU32>,
    /// `PIXELD_NETWORKS_DIR`: the directory of lists of providers' networks; absolute. Default: `networks` in `data_dir`.
    pub networks_dir: PathBuf,
    /// `PIXELD_NETWORKS_UPDATE`: whether `serve` fetches the lists that providers publish once a day. Default: no.
    pub networks_daily: bool,
    /// `PIXELD_IP_PRIVACY`: how much of a client's address is kept. Default `full`.
    pub ip_privacy: IpPrivacy,
    /// `PIXELD_RETENTION_DAYS`: days after which hits are deleted. `None`, the default: never.
    pub retention_days: Option<NonZeroU32>,
    /// `PIXELD_SPOOL_BYTES_MAX`: bytes of disk that the spools may take. Default 8 GiB.
    pub spool_bytes_max: u64,
    /// `PIXELD_SPOOL_KEEP`: how long, and how many bytes of, loaded segments are kept. Default 1 h and 1 GiB.
    pub spool_keep: SpoolKeep,
    /// `PIXELD_CONNECTIONS_MAX`: open connections to the public listener, all threads together. Default 20000.
    pub connections_max: usize,
    /// `PIXELD_THREADS`: threads that serve pixels. Default: the cores that this process may use.
    pub threads: usize,
    /// `PIXELD_DRAIN_SECONDS`: the time that accepted work gets to finish before exit. Default 10 s.
    pub drain: Duration,
    /// `PIXELD_LOG`: what is logged; parses as a `tracing_subscriber` `EnvFilter`. Default `info`.
    pub log: String,
    /// `DJANGO_DATABASE_URL` or `DJANGO_DATABASE_URL_FILE`: the Django app's PostgreSQL, for `pixeld import django`.
    pub django_database_url: Option<Secret>,
    /// What the `serve` of this data directory left for commands; nothing for `serve` itself, or where none ever ran.
    pub served: Option<Served>,
    /// Whether something says what links begin with, and not the default.
    pub is_base_url_set: bool,
    /// Settings that the environment and the settings file both have, with different values.
    pub overridden: Vec<&'static str>,
    /// What to leave for commands: settings of the environment, and the names of secrets that stand in it alone.
    to_leave: (Vec<(String, String)>, Vec<&'static str>),
    /// What to tell at the start of variables that look like the Django app's; nothing where there are none.
    pub former_names: Option<String>,
}

impl Config {
    /// The settings in this process's environment, and in the files of its data directory. Also reads the files that `…_FILE`
    /// variables name.
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
            // A directory that only happens to be called ./data is not asked.
            let is_asked = is_named || !has_database || std::fs::metadata(&path).is_ok();
            match if is_asked { Layer::read(&path, origin) } else { Ok(None) } {
                Ok(layer) => behind.extend(layer),
                Err(problems) => wrong.extend(problems.into_iter().map(|(of, why)| (path.clone(), of, why))),
            }
        }
        Config::read(Vars::of(environment, behind), wrong)
    }

    /// The settings among `vars`, pairs of variable and value. Variables of other programs are ignored, unknown ones
    /// that begin with `PIXELD_` are not.
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
        let (listen, admin_listen) = listen::addresses(&mut vars);
        let data_dir = storage::data_dir(&mut vars);
        let (signing_keys, require_signed) = links::signing(&mut vars);
        let (database_url, require_database_url) = storage::database_url(&mut vars);
        let config = Config {
            base_url: listen::base_url(&mut vars, listen),
            admin_base_url: listen::admin_base_url(&mut vars, admin_listen),
            trusted_proxies: listen::trusted_proxies(&mut vars),
            signing_keys,
            require_signed,
            database_url,
            require_database_url,
            pg_bin: storage::pg_bin(&mut vars),
            durability: storage::durability(&mut vars),
            spool_bytes_max: storage::spool_bytes_max(&mut vars),
            spool_keep: storage::spool_keep(&mut vars),
            redis_url: redis::redis_url(&mut vars),
            throttle: limits::throttle(&mut vars),
            address_rate: limits::address_rate(&mut vars),
            connections_max: limits::connections_max(&mut vars),
            threads: limits::threads(&mut vars),
            drain: limits::drain(&mut vars),
            networks_dir: networks::folder(&mut vars, &data_dir),
            networks_daily: networks::daily(&mut vars),
            ip_privacy: privacy::ip_privacy(&mut vars),
            retention_days: privacy::retention_days(&mut vars),
            log: telemetry::log(&mut vars),
            sentry_dsn: telemetry::sentry_dsn(&mut vars),
            django_database_url: former::django_database_url(&mut vars),
            former_names: former::note(&vars),
            served: vars.served(),
            is_base_url_set: vars.is_set(&[listen::BASE_URL.name, listen::LISTEN.name]) || vars.is_after_serve(),
            overridden: vars.overridden(),
            to_leave: vars.to_leave(),
            listen,
            admin_listen,
            data_dir,
        };
        vars::refuse_unknown(&mut vars);
        vars.finish()?;
        Ok(config)
    }

    /// Leaves in the data directory what commands there need of these settings; `database` is where that is, without who connects.
    ///
    /// # Errors
    /// As the disk says.
    pub fn leave_for_commands(&self, database: &str) -> io::Result<()> {
        let (given, secrets) = &self.to_leave;
        let text = served::text(given, secrets, database, &self.signing_keys.digests());
        whole_file::replace(&self.data_dir.join(served::NAME), text.as_bytes())
    }

    /// The settings file of this data directory.
    #[must_use]
    pub fn settings_file(&self) -> PathBuf {
        self.data_dir.join(SETTINGS_FILE)
    }
}
