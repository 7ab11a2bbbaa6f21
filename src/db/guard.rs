//! Remembers which installation this node belongs to, and keeps it away from every other one.
//!
//! Guarantees: a node that knows its installation gets no connection to the database of another one, or to one without
//! tables: it loads nothing there, creates no tables, and puts no opt-outs or erasures back. A restored dump is the
//! same installation. A node's installation is one small file in its data directory, written when it first reaches a
//! database, and after that only by `pixeld migrate --new-installation`. Gives up: checking open connections again;
//! their database does not become another installation.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwapOption;
use tokio_postgres::{Client, Error};

use super::fitness::Unfit;
use super::installation::{self, InstallationId};
use crate::whole_file;

/// The file's name in the data directory.
const FILE: &str = "installation";

/// What a node remembers.
#[derive(Debug, Default)]
pub struct Guard {
    /// Without it nothing is remembered.
    path: Option<PathBuf>,
    known: ArcSwapOption<InstallationId>,
}

impl Guard {
    /// What the node with this data directory remembers.
    #[must_use]
    pub fn of(data_dir: &Path) -> Guard {
        let path = data_dir.join(FILE);
        let known = match fs::read_to_string(&path) {
            Ok(text) => {
                let known = InstallationId::parse(text.trim());
                if known.is_none() {
                    tracing::error!(path = %path.display(), "this file does not name an installation; the node joins the next database that it connects to");
                }
                known
            }
            Err(_) => None,
        };
        Guard { path: Some(path), known: ArcSwapOption::from(known.map(Into::into)) }
    }

    /// Checks whether a connection leads to the known installation. If none is known, it does.
    pub async fn check(&self, client: &Client) -> Result<Result<(), Unfit>, Error> {
        let Some(known) = self.known.load_full() else { return Ok(Ok(())) };
        let known = *known;
        Ok(match installation::id_if_any(client).await? {
            Some(found) if found == known => Ok(()),
            Some(found) => Err(Unfit::OtherInstallation { known, found }),
            None => Err(Unfit::NoInstallation { known }),
        })
    }

    /// Remembers the first installation that is reached.
    ///
    /// # Errors
    /// On a disk error; it is then remembered in this process only.
    pub fn learn(&self, found: InstallationId) -> io::Result<()> {
        if self.known.load().is_some() { Ok(()) } else { self.accept(found) }
    }

    /// Remembers this installation in place of another.
    ///
    /// # Errors
    /// On a disk error; it is then remembered in this process only.
    pub fn accept(&self, found: InstallationId) -> io::Result<()> {
        self.known.store(Some(found.into()));
        match &self.path {
            Some(path) if path.parent().is_some_and(Path::is_dir) => {
                whole_file::replace(path, format!("{}\n", found.digits()).as_bytes())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_installation_is_remembered_until_another_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let known = |guard: &Guard| guard.known.load_full().map(|known| *known);
        let [one, other] = [InstallationId([7; 16]), InstallationId([0xf8; 16])];
        let guard = Guard::of(folder.path());
        assert_eq!(known(&guard), None);
        guard.learn(one).unwrap();
        guard.learn(other).unwrap();
        assert_eq!((known(&guard), known(&Guard::of(folder.path()))), (Some(one), Some(one)));
        guard.accept(other).unwrap();
        assert_eq!((known(&guard), known(&Guard::of(folder.path()))), (Some(other), Some(other)));
        fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert_eq!(known(&Guard::of(folder.path())), None);
    }
}
