//! All data held about a recipient, as a file to download.
//!
//! Guarantees: it is sent while it is read, so that memory does not grow with it. A client that takes nothing for
//! [`TAKE_WAIT`] is cut off, and the transaction that reads ends. It has its own connection, so that a slow line never
//! keeps a page waiting. Gives up: reporting an error once the answer has begun. The answer then ends without its last
//! chunk, so clients see that it is incomplete.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::Admin;
use super::answer::{self, Answer};
use super::gate::Gate;
use super::refusal::Refusal;
use crate::db::Session;
use crate::db::export::{Export, Sink};
use pixeld_core::ids::RecipientId;

/// Exports that are sent at a time.
pub(crate) const EXPORTS_MAX: usize = 2;

/// How long a client may take nothing.
pub(crate) const TAKE_WAIT: Duration = Duration::from_secs(25);

/// Parts that wait to be sent; each has about [`crate::db::export::PART_BYTES`].
const PARTS_MAX: usize = 4;

/// The limit of exports at a time.
pub(crate) struct Exports(Gate);

impl Default for Exports {
    fn default() -> Self {
        Exports(Gate::new(EXPORTS_MAX))
    }
}

impl Exports {
    /// Starts one for `actor`, who is named in the audit from now on.
    ///
    /// # Errors
    /// On a database error, or if too many exports run.
    pub(crate) async fn begin(&self, admin: &Admin, actor: &str, recipient: RecipientId) -> Result<Answer, Refusal> {
        let place = self.0.enter().ok_or(Refusal::Busy)?;
        let hash = admin.opt_outs.keys(admin).await?.privacy.hash(recipient);
        let session = admin.options.db.connect("pixeld export").await?;
        let export = Export::begin(&session.client, actor, recipient, hash).await?;
        let (parts, sent) = mpsc::channel(PARTS_MAX);
        let sending = async move {
            send(session, &export, Sending(parts)).await;
            drop(place);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "an answer's body comes while it is sent; it ends with its reader"
        )]
        tokio::spawn(sending.in_current_span());
        // The name has the date and not the recipient: downloaded files are left lying about.
        let name = format!("recipient-{}.json", pixeld_core::clock::now_utc().date());
        Ok(answer::download("application/json", &name, body(sent)))
    }
}

/// Takes the whole session: its connection ends with it.
async fn send(session: Session, export: &Export, mut out: Sending) {
    if let Err(error) = export.write(&session.client, &mut out).await {
        tracing::warn!(error = crate::db::describe(&error), "an export was not sent completely");
        // If the client is gone, nobody is left to inform.
        drop(out.send(Err(io::Error::other("the export broke off"))).await);
    }
}

struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Sending {
    async fn send(&self, part: io::Result<Bytes>) -> io::Result<()> {
        let taken = tokio::time::timeout(TAKE_WAIT, self.0.send(part)).await;
        let taken = taken.map_err(|_| io::Error::other("the browser read nothing for too long"))?;
        taken.map_err(|_| io::Error::other("the export is no longer waiting for its reader"))
    }
}

impl Sink for Sending {
    async fn take(&mut self, part: Bytes) -> io::Result<()> {
        self.send(Ok(part)).await
    }
}

fn body(sent: mpsc::Receiver<io::Result<Bytes>>) -> impl Body<Data = Bytes, Error = io::Error> + Send + 'static {
    StreamBody::new(stream::unfold(sent, |mut sent| async move {
        let part = sent.recv().await?;
        Some((part.map(Frame::data), sent))
    }))
}
