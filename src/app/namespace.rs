//! Keeps the namespace of keys on disk, so that a node that starts while the database is down knows it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::db::{Database, DbError, installation};
use crate::edge::Edge;
use crate::ingest::spool::disk::sync_parent;
use crate::link::key::Namespace;

/// Wait before it is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// What is kept; nothing where nothing is, or it is no UUID.
#[must_use]
pub fn read(path: &Path) -> Option<Namespace> {
    let text = fs::read_to_string(path).ok()?;
    text.trim().parse().ok().map(Namespace)
}

/// Asks the database once it is `ready`, tells the edge, and keeps the answer.
pub async fn keep(edge: Arc<Edge>, db: Database, path: PathBuf, ready: impl Future<Output = ()>) {
    ready.await;
    let namespace = loop {
        match ask(&db).await {
            Ok(namespace) => break namespace,
            Err(error) => tracing::debug!(error = error.for_log(), "the namespace of keys cannot be read now"),
        }
        tokio::time::sleep(RETRY).await;
    };
    let before = edge.namespace.swap(Some(Arc::new(namespace)));
    match before.as_deref() {
        Some(before) if *before == namespace => return,
        Some(_) => tracing::warn!(
            "the data directory had the namespace of another installation: hits of keyed links that came since the start have ids of it"
        ),
        None => {}
    }
    let kept = tokio::task::spawn_blocking(move || write(&path, namespace)).await;
    if let Ok(Err(error)) = kept {
        tracing::warn!(%error, "the namespace of keys could not be kept on disk");
    }
}

async fn ask(db: &Database) -> Result<Namespace, DbError> {
    let session = db.connect("pixeld namespace").await?;
    Ok(installation::namespace(&session.client).await?)
}

fn write(path: &Path, namespace: Namespace) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{}", namespace.0)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_parent(path)
}
