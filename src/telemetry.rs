//! Logs to standard error, and errors to Sentry where a DSN is set.
//!
//! Guarantees: what goes to Sentry holds no address, user, request, host name or environment; at `info` and above our own
//! messages name no recipient, address or token. A line says which spool, batch, request of a page or turn of the rollup it is about: their spans
//! have the level of errors, so that lines have them at every `PIXELD_LOG`. The edge has no spans: they would cost each pixel. Gives up: a DSN that cannot be reached costs nothing but the report.

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
                // The fields of a log line come as a context of their own: paths, and words of others.
                event.contexts.retain(|name, _| name == "os" || name == "rust");
                Some(event)
            });
        sentry::init(options)
    });
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    // It warns of each connection that ends with its server, as at every clean end of the embedded one; whoever uses the
    // connection says so as well, and what it means.
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
