//! Keeps the namespace of keys on disk, so that a node that starts while the database is down knows it.
//!
//! Beside it stands a digest of where the database lies (hosts, ports, its name; a new password changes nothing): a data directory
//! that is used with another database later must not make ids of the first one's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::db::{Database, DbError, installation};
use crate::whole_file;
use pixeld_core::digest::{self, Hex};
use pixeld_core::link::key::Namespace;
use pixeld_edge::Edge;

/// Wait before it is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// What is kept of this database; nothing where nothing is.
#[must_use]
pub fn read(path: &Path, db: &Database) -> Option<Namespace> {
    let text = fs::read_to_string(path).ok()?;
    let (namespace, target) = text.trim().split_once(' ')?;
    (target == digest(db)).then(|| namespace.parse().ok().map(Namespace)).flatten()
}

/// Tells databases apart: 16 hexadecimal digits.
fn digest(db: &Database) -> String {
    Hex(&digest::prefix::<8>(&[db.place().as_bytes()])).to_string()
}

/// Asks the database once it is `ready`, tells the edge, and keeps the answer.
pub async fn keep(edge: Arc<Edge>, db: Database, path: PathBuf, ready: impl Future<Output = ()>) {
    ready.await;
    let namespace = loop {
        match ask(&db).await {
            Ok(namespace) => break namespace,
            Err(error) => tracing::debug!(error = error.for_log(), "cannot read the namespace of keys now"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let before = edge.namespace.swap(Some(Arc::new(namespace)));
    match before.as_deref() {
        Some(before) if *before == namespace => return,
        Some(_) => tracing::warn!(
            "the database's namespace changed: hits of links with keys that came since the start have ids of the old namespace"
        ),
        None => {}
    }
    let kept = tokio::task::spawn_blocking(move || write(&path, namespace, &digest(&db))).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "the namespace of keys could not be saved to disk");
    }
}

async fn ask(db: &Database) -> Result<Namespace, DbError> {
    let session = db.connect("pixeld namespace").await?;
    Ok(installation::namespace(&session.client).await?)
}

fn write(path: &Path, namespace: Namespace, target: &str) -> io::Result<()> {
    whole_file::replace(path, format!("{} {target}\n", namespace.0).as_bytes())
}
