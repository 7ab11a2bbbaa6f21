//! The private listener: metrics and health, for those who run pixeld.
//!
//! Guarantees: `/readyz` is 200 only while new hits reach PostgreSQL soon: the database answers, the spool has room, and the
//! oldest hit that waits is younger than [`LAG_SECONDS_MAX`]. Gives up: speed; nobody loads this listener.

pub mod password;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::db::Database;
use crate::metrics::Metrics;

/// Connections at most.
const CONNECTIONS_MAX: usize = 256;

/// Age of the oldest waiting hit beyond which this node is not ready, in seconds.
const LAG_SECONDS_MAX: f64 = 60.0;

/// How long the database may take to answer a question about its health.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

type Answer = Response<Full<Bytes>>;

/// What the private listener shows.
pub struct Admin {
    /// The numbers of this process.
    pub metrics: Arc<Metrics>,
    /// The database.
    pub db: Database,
}

/// Serves until it is dropped.
pub async fn run(admin: Arc<Admin>, listener: TcpListener) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { std::future::pending().await };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection to the private listener can be accepted now");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::trace!(%error, "a connection to the private listener ended");
            }
            drop(place);
        });
    }
}

impl Admin {
    async fn answer(&self, request: &Request<hyper::body::Incoming>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready().await,
            "/metrics" => self.metrics(),
            "/" => text(StatusCode::OK, "pixeld: /metrics, /healthz, /readyz\n"),
            _ => text(StatusCode::NOT_FOUND, "no such page; there are /metrics, /healthz and /readyz\n"),
        }
    }

    fn metrics(&self) -> Answer {
        match self.metrics.render() {
            Ok(shown) => {
                let mut answer = text(StatusCode::OK, shown);
                let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openmetrics));
                answer
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
        }
    }

    async fn ping(&self) -> anyhow::Result<()> {
        self.db.pool().get().await?.simple_query("SELECT 1").await?;
        Ok(())
    }

    async fn ready(&self) -> Answer {
        let database = match tokio::time::timeout(DATABASE_WAIT, self.ping()).await {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => format!("not ok: {error:#}"),
            Err(_) => format!("not ok: no answer within {DATABASE_WAIT:?}"),
        };
        let room = self.metrics.spool_room.get();
        let spool = if room > 0 { "ok".to_owned() } else { "not ok: no room".to_owned() };
        let seconds = self.metrics.load_lag_seconds(crate::hit::now_us());
        let state = if seconds <= LAG_SECONDS_MAX { "ok" } else { "not ok" };
        let is_ready = database == "ok" && room > 0 && seconds <= LAG_SECONDS_MAX;
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("database: {database}\nspool: {spool}\nlag: {state} ({seconds:.1} s)\n"))
    }
}

fn text(status: StatusCode, words: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(words.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
