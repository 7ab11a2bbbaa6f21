//! The task that drives a connection to PostgreSQL: it ends with the session that owns it.

use std::future::{Future, poll_fn};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Connection, Socket};

use super::reason::reason;

/// A task that ends with its owner.
pub(super) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    #[expect(clippy::disallowed_methods, reason = "a connection's driver: it ends with the session that owns it")]
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
        AbortOnDrop(tokio::spawn(work))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a connection to its end. It then drops `notices`, which ends the receiver.
pub(super) async fn drive<T>(
    mut connection: Connection<Socket, T>,
    application_name: String,
    notices: Option<mpsc::Sender<String>>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(notices) = &notices
                    && notices.try_send(notification.payload().to_owned()).is_err()
                {
                    tracing::debug!(application_name, "a notice was dropped: its receiver is full or gone");
                }
            }
            Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!(application_name, %notice, "PostgreSQL says"),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // Running statements only learn that the connection closed; the reason is known only here.
                tracing::info!(application_name, reason = reason(&error), "connection to PostgreSQL lost");
                return;
            }
            None => return,
        }
    }
}
