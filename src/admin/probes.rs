//! The addresses for monitoring: open to everybody who reaches the listener, under any name.
//!
//! Guarantees: `/readyz` is 200 only while new hits reach PostgreSQL soon. That needs three things: the database
//! answers, is this node's installation with the tables of this version, and can be used; the spool has room; and the
//! oldest hit that waits is younger than [`LAG_SECONDS_MAX`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::Admin;
use super::answer::{self, Answer};
use super::view::counted;
use pixeld_core::metrics::DropReason;

/// Age of the oldest waiting hit beyond which this node is not ready, in seconds.
pub(crate) const LAG_SECONDS_MAX: f64 = 60.0;

/// How long a drop keeps this node from being ready: long enough for probes that run once a minute.
pub(crate) const DROPS_REMEMBERED: Duration = Duration::from_secs(60);

/// How long the database may take to answer a health check.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// `/healthz`.
pub(crate) fn healthy() -> Answer {
    answer::text(StatusCode::OK, "ok\n")
}

/// `/metrics`.
pub(crate) fn metrics(admin: &Admin) -> Answer {
    match admin.options.metrics.render() {
        Ok(shown) => {
            let mut answer = answer::text(StatusCode::OK, shown);
            let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openmetrics));
            answer
        }
        Err(_) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
    }
}

/// `/readyz`.
pub(crate) async fn ready(admin: &Admin) -> Answer {
    let problem = admin.options.metrics.database_problem.load_full();
    let database = match tokio::time::timeout(DATABASE_WAIT, ping(admin)).await {
        Ok(Ok(())) if problem.is_none() && !admin.options.metrics.tables_are_current.load(Ordering::Relaxed) => {
            "not ok: its tables are not yet this version's".to_owned()
        }
        Ok(Ok(())) => problem.map_or_else(|| "ok".to_owned(), |problem| format!("not ok: {problem}")),
        Ok(Err(_)) if let Some(problem) = problem => format!("not ok: {problem}"),
        Ok(Err(error)) => format!("not ok: {}", crate::db::describe(&error)),
        Err(_) => format!("not ok: no answer within {DATABASE_WAIT:?}"),
    };
    let spool = match (admin.options.metrics.spool_problem.load_full(), admin.options.metrics.spool_room.get()) {
        (Some(problem), _) => format!("not ok: {problem}"),
        (None, ..=0) => "not ok: no room".to_owned(),
        (None, _) if admin.options.metrics.unreadable() > 0 => {
            "not ok: a segment cannot be read; the log names it".to_owned()
        }
        (None, _) => "ok".to_owned(),
    };
    let recording = recording(admin.options.metrics.last_unrecorded());
    let seconds = admin.options.metrics.load_lag_seconds(pixeld_core::clock::now_micros());
    let lag = if seconds <= LAG_SECONDS_MAX { "ok" } else { "not ok" };
    let is_ready = [&*database, &*spool, &*recording, lag].iter().all(|&state| state == "ok");
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let lag = format!("{lag} ({seconds:.1} s)");
    let images = match admin.options.metrics.orphans.get() {
        ..=0 => String::new(),
        // None of them is lost, and new hits do reach PostgreSQL.
        aside => format!("images: {} wait for images that the database does not have\n", counted(aside, "hit")),
    };
    answer::text(status, format!("database: {database}\nspool: {spool}\nrecording: {recording}\nlag: {lag}\n{images}"))
}

/// Whether all hits of the last [`DROPS_REMEMBERED`] reached the disk.
fn recording(last_drop: Option<(DropReason, Duration)>) -> String {
    match last_drop {
        Some((reason, ago)) if ago < DROPS_REMEMBERED => {
            format!("not ok: hits were dropped {} s ago ({})", ago.as_secs(), reason.label())
        }
        _ => "ok".to_owned(),
    }
}

async fn ping(admin: &Admin) -> anyhow::Result<()> {
    // A table that it needs: if the tables are dropped while pixeld runs, this notices at once.
    admin.options.db.pool().get().await?.simple_query("SELECT FROM spool_marks LIMIT 0").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixeld_core::metrics::Metrics;

    #[test]
    fn a_hit_that_found_no_way_to_the_disk_counts_for_a_minute() {
        for &reason in DropReason::ALL {
            let metrics = Metrics::new(1);
            assert_eq!(recording(metrics.last_unrecorded()), "ok");
            metrics.drop_hits(reason, 0);
            assert_eq!(recording(metrics.last_unrecorded()), "ok", "none was dropped");
            metrics.drop_hits(reason, 1);
            let counts = matches!(reason.label(), "queue_full" | "spool_full" | "disk_full" | "disk_error");
            assert_eq!(recording(metrics.last_unrecorded()) != "ok", counts, "{reason:?}");
        }
        let last = |seconds| recording(Some((DropReason::DiskFull, Duration::from_secs(seconds))));
        assert_eq!(last(59), "not ok: hits were dropped 59 s ago (disk_full)");
        assert_eq!(last(60), "ok");
    }
}
