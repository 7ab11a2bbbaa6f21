//! Opens a connection according to `sslmode`.
//!
//! Guarantees: under `prefer`, a failed TLS handshake is repeated without TLS, as in libpq, and that is logged once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Connector {
    tls: MakeRustlsConnect,
    told: Arc<AtomicBool>,
}

impl Connector {
    pub(super) fn new(tls: MakeRustlsConnect) -> Connector {
        Connector { tls, told: Arc::default() }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// As tokio-postgres says.
    pub(super) async fn open(&self, target: &Config) -> Result<(Client, Connection<Socket, Stream>), Error> {
        let may_be_plain =
            target.get_ssl_mode() == SslMode::Prefer && target.get_channel_binding() != ChannelBinding::Require;
        match target.connect(self.tls.clone()).await {
            Err(error) if may_be_plain && tls::is_of_tls(&error) => {
                let mut plain = target.clone();
                plain.ssl_mode(SslMode::Disable);
                // If both fail, the first error is closer to the cause.
                let opened = plain.connect(self.tls.clone()).await.map_err(|_| error)?;
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "the connection to PostgreSQL has no TLS because the handshake failed and sslmode=prefer allows that; \
                         sslmode=require says why it fails"
                    );
                }
                Ok(opened)
            }
            opened => opened,
        }
    }
}

impl Connect for Connector {
    fn connect(
        &self,
        target: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let target = target.clone();
        Box::pin(async move {
            let (client, connection) = self.open(&target).await?;
            #[expect(
                clippy::disallowed_methods,
                reason = "a connection's driver: the pool ends it with the connection"
            )]
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(reason = super::reason::reason(&error), "a connection of the pool was lost");
                }
            });
            Ok((client, task))
        })
    }
}
