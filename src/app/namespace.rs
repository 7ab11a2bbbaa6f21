//! Keeps the namespace of keys on disk, so that a node that starts while the database is down knows it.
//!
//! The file also has a digest of the database's address (hosts, ports, name; a new password changes nothing): if the
//! data directory is later used with another database, the first one's namespace must not make ids.

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

/// Wait between two attempts to read it.
const RETRY: Duration = Duration::from_secs(1);

/// The stored namespace of this database; `None` if there is none.
pub(super) fn read(path: &Path, db: &Database) -> Option<Namespace> {
    let text = fs::read_to_string(path).ok()?;
    let (namespace, target) = text.trim().split_once(' ')?;
    (target == digest(db)).then(|| namespace.parse().ok().map(Namespace)).flatten()
}

/// Identifies a database: 16 hexadecimal digits.
fn digest(db: &Database) -> String {
    Hex(&digest::prefix::<8>(&[db.place().as_bytes()])).to_string()
}

/// Reads it from the database once that is `ready`, passes it to the edge, and stores it.
pub(super) async fn keep(edge: Arc<Edge>, db: Database, path: PathBuf, ready: impl Future<Output = ()>) {
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
