//! Accepts connections to the private listener.
//!
//! Guarantees: at most [`CONNECTIONS_MAX`] at a time. A connection ends at the latest [`AGE_MAX`] and [`LAST_WAIT`]
//! after it began, so that a client that does not take its answer cannot hold one forever. Gives up: speed; this
//! listener has little load.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::gate::Gate;
use super::{Admin, UPLOAD_WAIT};

/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 256;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// Age after which a connection accepts no further request.
const AGE_MAX: Duration = Duration::from_secs(600);

/// How long the last request may take: a file upload, and its answer.
const LAST_WAIT: Duration = Duration::from_secs(UPLOAD_WAIT.as_secs() + 120);

/// Serves until it is dropped.
pub(crate) async fn run(admin: Arc<Admin>, listener: &TcpListener) -> Infallible {
    let gate = Gate::new(CONNECTIONS_MAX);
    loop {
        let Some(place) = gate.wait().await else { std::future::pending().await };
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, "the private listener cannot accept connections now");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        #[expect(clippy::disallowed_methods, reason = "a task a connection, as many as there are places")]
        tokio::spawn(async move {
            if let Err(error) = serve(admin, stream, peer).await {
                tracing::trace!(%error, "a connection to the private listener ended");
            }
            drop(place);
        });
    }
}

async fn serve(admin: Arc<Admin>, stream: TcpStream, peer: IpAddr) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if let Ok(served) = tokio::time::timeout(AGE_MAX, connection.as_mut()).await {
        return served;
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(LAST_WAIT, connection).await.unwrap_or(Ok(()))
}
