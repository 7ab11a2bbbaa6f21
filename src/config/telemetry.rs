//! What is logged and reported about this process, and where.

use sentry::types::Dsn;
use tracing_subscriber::EnvFilter;

use super::Secret;
use super::value::{Parsed, quote};
use super::vars::{Setting, Vars};

pub(super) const LOG: Setting = Setting::new(
    "PIXELD_LOG",
    "error, warn, info, debug, trace or off, also for a single part, like info,pixeld::ingest=debug",
);
pub(super) const SENTRY_DSN: Setting = Setting::secret("SENTRY_DSN", "a DSN, like https://key@o1.ingest.sentry.io/2");

const LOG_DEFAULT: &str = "info";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged and reported about this process, and where.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// `PIXELD_LOG`: what is logged; parses as a `tracing_subscriber` `EnvFilter`. Default `info`.
    pub log: String,
    /// `SENTRY_DSN` or `SENTRY_DSN_FILE`: where errors are reported. `None`: nowhere.
    pub sentry_dsn: Option<Secret>,
}

impl Telemetry {
    pub(super) fn read(vars: &mut Vars) -> Telemetry {
        let check_dsn = |text: &str| match text.parse::<Dsn>() {
            Ok(_) => Ok(()),
            Err(_) => Err("is not a Sentry DSN (its value is not shown)".to_owned()),
        };
        Telemetry {
            log: vars.read(&LOG, LOG_DEFAULT.to_owned(), parse_log),
            sentry_dsn: vars.secret(&SENTRY_DSN, check_dsn),
        }
    }
}

fn parse_log(text: &str) -> Parsed<String> {
    // The filter takes a word that is not a level for a module's name, so that `inof` would log almost nothing.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let mut words =
        text.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains(['=', '[', '{', ']', '}']));
    if let Some(word) = words.find(|word| !is_level(word)) {
        return Err(format!("has {}, which is not a level", quote(word)));
    }
    EnvFilter::try_new(text).map_err(|error| format!("is {}, which is not a filter: {error}", quote(text)))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken() {
        for text in ["info", "WARN", "off", "info,pixeld::ingest=debug", "pixeld=trace, warn", "info,[span{a=1}]=debug"]
        {
            assert_eq!(parse_log(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for (text, wrong) in
            [("inof", "\"inof\", which is not a level"), ("info,pixeld", "\"pixeld\", which is not a level")]
        {
            assert!(parse_log(text).unwrap_err().contains(wrong), "{text}");
        }
        for text in ["pixeld=inof", "a=b=c", "[span"] {
            assert!(parse_log(text).is_err(), "{text}");
        }
    }
}
