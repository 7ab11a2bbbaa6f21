//! All that is held on a recipient, as a file for the one who asked.
//!
//! Guarantees: it is sent as it is read, so that memory does not grow with it; whoever takes nothing of it for [`TAKE_WAIT`] is given up,
//! and with them the transaction that reads; it has a connection of its own, so that a slow line never keeps a page waiting. Gives up: telling of an
//! error once the answer has begun. It ends without its last chunk then: no whole answer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tracing::Instrument;
use uuid::Uuid;

use super::Admin;
use super::answer::{self, Answer};
use super::gate::Gate;
use super::refusal::Refusal;
use crate::db::Session;
use crate::db::export::{Export, Takes};

/// Exports that are sent at a time.
pub const EXPORTS_MAX: usize = 2;

/// How long whoever asked may take nothing.
pub const TAKE_WAIT: Duration = Duration::from_secs(25);

/// Parts that wait to be sent, of about [`crate::db::export::PART_BYTES`] each.
const PARTS_MAX: usize = 4;

/// Who may have one now.
pub struct Exports(Gate);

impl Default for Exports {
    fn default() -> Self {
        Exports(Gate::new(EXPORTS_MAX))
    }
}

impl Exports {
    /// Begins one, in the name of `actor`, who stands in the audit from now on.
    ///
    /// # Errors
    /// As the database says, or where too many do this at once.
    pub async fn begin(&self, admin: &Admin, actor: &str, recipient: Uuid) -> Result<Answer, Refusal> {
        let place = self.0.enter().ok_or(Refusal::Busy)?;
        let hash = admin.opt_outs.keys(admin).await?.privacy.hash(recipient);
        let session = admin.db.connect("pixeld export").await?;
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
        // The name says when, and not of whom: files lie about.
        let name = format!("recipient-{}.json", pixeld_core::clock::now_utc().date());
        Ok(answer::download("application/json", &name, body(sent)))
    }
}

/// Takes the session whole: its connection ends with it.
async fn send(session: Session, export: &Export, mut out: Sending) {
    if let Err(error) = export.write(&session.client, &mut out).await {
        tracing::warn!(error = crate::db::told(&error), "an export was not sent completely");
        // Where nobody takes it any more there is nobody to tell.
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

impl Takes for Sending {
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
