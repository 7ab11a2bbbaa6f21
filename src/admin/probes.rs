//! What monitoring asks: open to whoever reaches the listener, under any name.
//!
//! Guarantees: `/readyz` is 200 only while new hits reach PostgreSQL soon: the database
//! answers and can be used, the spool has room, and the
//! oldest hit that waits is younger than [`LAG_SECONDS_MAX`].

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::Admin;
use super::answer::{self, Answer};

/// Age of the oldest waiting hit beyond which this node is not ready, in seconds.
pub const LAG_SECONDS_MAX: f64 = 60.0;

/// How long the database may take to answer a question about its health.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// `/healthz`.
#[must_use]
pub fn healthy() -> Answer {
    answer::text(StatusCode::OK, "ok\n")
}

/// `/metrics`.
#[must_use]
pub fn metrics(admin: &Admin) -> Answer {
    match admin.metrics.render() {
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
pub async fn ready(admin: &Admin) -> Answer {
    let problem = admin.metrics.database_problem.load_full();
    let database = match tokio::time::timeout(DATABASE_WAIT, ping(admin)).await {
        Ok(Ok(())) => problem.map_or_else(|| "ok".to_owned(), |problem| format!("not ok: {problem}")),
        Ok(Err(error)) => format!("not ok: {error:#}"),
        Err(_) => format!("not ok: no answer within {DATABASE_WAIT:?}"),
    };
    let room = admin.metrics.spool_room.get();
    let spool = if room > 0 { "ok".to_owned() } else { "not ok: no room".to_owned() };
    let seconds = admin.metrics.load_lag_seconds(crate::hit::now_us());
    let state = if seconds <= LAG_SECONDS_MAX { "ok" } else { "not ok" };
    let is_ready = database == "ok" && room > 0 && seconds <= LAG_SECONDS_MAX;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::text(status, format!("database: {database}\nspool: {spool}\nlag: {state} ({seconds:.1} s)\n"))
}

async fn ping(admin: &Admin) -> anyhow::Result<()> {
    admin.db.pool().get().await?.simple_query("SELECT 1").await?;
    Ok(())
}
