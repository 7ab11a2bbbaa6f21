//! Logs to standard error; errors also go to Sentry if a DSN is set.
//!
//! Guarantees: reports to Sentry contain no address, user, request, host name or environment. At `info` and above our
//! own messages contain no recipient, address or token. A line names the spool, batch, request of a page or turn of the
//! rollup that it is about: their spans have the level of errors, so that lines have them at every `PIXELD_LOG`. The
//! edge has no spans: each pixel would pay for them. Gives up: reports while the DSN cannot be reached.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config;

/// Keeps Sentry's transport alive; reports are flushed when it is dropped.
#[must_use]
pub struct Telemetry {
    _sentry: Option<sentry::ClientInitGuard>,
}

/// Starts logging. Call once.
pub fn start(config: &config::Telemetry) -> Telemetry {
    let sentry = config.sentry_dsn.as_ref().map(|dsn| {
        let options = sentry::ClientOptions::new()
            .dsn(dsn.expose())
            .release(concat!("pixeld@", env!("CARGO_PKG_VERSION")))
            .send_default_pii(false)
            .max_breadcrumbs(0)
            .server_name("")
            .before_send(|mut event| {
                event.user = None;
                event.request = None;
                event.server_name = None;
                event.extra.clear();
                // Sentry receives a log line's fields as a separate context: they contain paths, and texts of
                // strangers.
                event.contexts.retain(|name, _| name == "os" || name == "rust");
                Some(event)
            });
        sentry::init(options)
    });
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // It warns about each connection that ends with its server, including every clean stop of the embedded one; the
    // code that uses the connection logs the failure and its meaning as well.
    let filter = match "deadpool=error".parse() {
        Ok(quiet) if !config.log.contains("deadpool") => filter.add_directive(quiet),
        _ => filter,
    };
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(to_stderr);
    let started = if sentry.is_some() {
        let errors = sentry::integrations::tracing::ErrorLayer::new().with_filter(LevelFilter::ERROR);
        registry.with(errors).try_init()
    } else {
        registry.try_init()
    };
    if let Err(error) = started {
        eprintln!("logging was started already: {error}");
    }
    Telemetry { _sentry: sentry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_for_pixeld_is_for_all_of_its_crates() {
        let subscriber = tracing_subscriber::registry().with(EnvFilter::new("warn,pixeld=debug"));
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::enabled!(target: "pixeld::db", tracing::Level::DEBUG));
            assert!(tracing::enabled!(target: "pixeld_edge::listener", tracing::Level::DEBUG));
            assert!(tracing::enabled!(target: "pixeld_spool::recovery", tracing::Level::DEBUG));
            assert!(!tracing::enabled!(target: "hyper::proto", tracing::Level::DEBUG));
        });
    }
}
