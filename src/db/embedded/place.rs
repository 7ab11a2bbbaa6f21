//! Where the embedded cluster is. The choice depends only on what is on disk and on the user, so that every command
//! finds the place that `serve` uses:
//!
//! 1. `{data}/postgres`, if it exists; if it is a symbolic link, its target;
//! 2. not as root: `{data}/postgres`;
//! 3. as root (which PostgreSQL refuses to run as): `{data}/postgres` for the user `postgres`, if that user can enter
//!    the data directory; otherwise a directory for this data directory in `/var/lib/pixeld`, with a link to it at
//!    `{data}/postgres`, so that it is found even after the data directory was moved.
//!
//! The socket is in the cluster's own directory (mode 0700), unless its path would be longer than a Unix socket's may
//! be, or contains a comma, at which libpq would split it; then it is in a private directory in /tmp.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::EmbeddedError;
use super::programs::RunAs;
use pixeld_core::digest::{self, Hex};

/// PostgreSQL's port; for a Unix socket only a part of its name.
pub(super) const PORT: u16 = 5432;

/// The longest path that a Unix socket can have, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The user that runs the server when pixeld is root.
const USER_FOR_ROOT: &str = "postgres";

/// The directory of clusters whose data directory that user cannot enter.
const PLACE_FOR_ROOT: &str = "/var/lib/pixeld";

/// The paths of the cluster, its socket and its locks, and the user who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The cluster's directory, without symbolic links.
    pub(super) cluster: PathBuf,
    /// The socket's directory; often the cluster's directory itself.
    pub(super) socket_dir: PathBuf,
    /// The user who runs the server, if it is not the current one.
    pub(super) run_as: Option<RunAs>,
    /// The link to create in the data directory, if the cluster is elsewhere.
    pub(super) link: Option<PathBuf>,
    /// What people should know about the choice.
    pub(super) note: Option<String>,
}

impl Place {
    pub(super) fn socket_path(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{PORT}"))
    }

    /// A file or directory beside the cluster.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.cluster.with_file_name(name)
    }

    /// The directory that contains the cluster.
    pub(super) fn parent(&self) -> &Path {
        self.cluster.parent().unwrap_or(Path::new("/"))
    }
}

/// Chooses the place; creates nothing.
pub(super) fn choose(data_dir: &Path) -> Result<Place, EmbeddedError> {
    let user_for_root = if nix::unistd::geteuid().is_root() { user_for_root()? } else { None };
    choose_with(data_dir, nix::unistd::geteuid().is_root(), user_for_root, Path::new(PLACE_FOR_ROOT))
}

fn choose_with(
    data_dir: &Path,
    root: bool,
    user_for_root: Option<RunAs>,
    place_for_root: &Path,
) -> Result<Place, EmbeddedError> {
    let data_dir = resolved(data_dir)?;
    let usual = data_dir.join("postgres");
    if let Ok(metadata) = fs::symlink_metadata(&usual)
        && (!is_empty_dir(&usual) || metadata.is_symlink())
    {
        let cluster = if metadata.is_symlink() { resolved(&follow(&usual)?)? } else { usual.clone() };
        let owner = fs::metadata(&cluster).ok().map(|metadata| RunAs { uid: metadata.uid(), gid: metadata.gid() });
        let run_as = match (root, owner) {
            (false, _) => None,
            (true, Some(owner)) if owner.uid != 0 => Some(owner),
            (true, _) => Some(user_for_root.ok_or_else(no_user_for_root)?),
        };
        let note = (cluster != usual).then(|| elsewhere(&cluster, &data_dir));
        return place(cluster, run_as, None, note);
    }
    if !root {
        return place(usual, None, None, None);
    }
    let user = user_for_root.ok_or_else(no_user_for_root)?;
    if user.can_enter(nearest_existing(&data_dir)) {
        return place(usual, Some(user), None, None);
    }
    let cluster = place_for_root.join(short_hash(&data_dir)).join("postgres");
    let note = format!("{}, because the user {USER_FOR_ROOT} cannot enter that", elsewhere(&cluster, &data_dir));
    place(cluster, Some(user), Some(usual), Some(note))
}

fn place(
    cluster: PathBuf,
    run_as: Option<RunAs>,
    link: Option<PathBuf>,
    note: Option<String>,
) -> Result<Place, EmbeddedError> {
    let mut place = Place { socket_dir: cluster.clone(), cluster, run_as, link, note };
    let path = place.socket_path();
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > SOCKET_PATH_BYTES_MAX || bytes.contains(&b',') {
        place.socket_dir = PathBuf::from(format!("/tmp/pixeld-{}", short_hash(&place.cluster)));
        let note = format!(
            "PostgreSQL's socket is in {}, because a path in {} is too long for one, or has a comma",
            place.socket_dir.display(),
            place.cluster.display()
        );
        place.note = Some(place.note.map_or(note.clone(), |before| format!("{before}. {note}")));
    }
    Ok(place)
}

fn elsewhere(cluster: &Path, data_dir: &Path) -> String {
    format!("the database is in {}, not in the data directory {}", cluster.display(), data_dir.display())
}

fn user_for_root() -> Result<Option<RunAs>, EmbeddedError> {
    match nix::unistd::User::from_name(USER_FOR_ROOT) {
        Ok(user) => Ok(user.map(|user| RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
        Err(error) => Err(EmbeddedError::Place(format!("cannot look up the user {USER_FOR_ROOT}: {error}"))),
    }
}

fn no_user_for_root() -> EmbeddedError {
    EmbeddedError::Place(format!(
        "PostgreSQL does not run as root, and there is no user {USER_FOR_ROOT} to run it as: install PostgreSQL from the \
         system's packages (Debian, Ubuntu: apt-get install postgresql), run pixeld as another user, or set DATABASE_URL"
    ))
}

/// Creates the socket's directory, if it is a separate one, or checks that no other user created it.
pub(super) fn prepare_socket_dir(place: &Place) -> Result<(), EmbeddedError> {
    let dir = &place.socket_dir;
    if *dir == place.cluster {
        return Ok(());
    }
    let error = |what| move |source| EmbeddedError::file(what, dir, source);
    let owner = place.run_as.map_or(nix::unistd::geteuid().as_raw(), |run_as| run_as.uid);
    match fs::DirBuilder::new().create(dir) {
        Ok(()) => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(error("cannot make private"))?;
            give_to(dir, place.run_as)?;
        }
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(EmbeddedError::file("cannot make", dir, source)),
    }
    let metadata = fs::symlink_metadata(dir).map_err(error("cannot look at"))?;
    if !metadata.is_dir() || metadata.uid() != owner || metadata.mode() & 0o077 != 0 {
        return Err(EmbeddedError::Place(format!(
            "{} must hold PostgreSQL's socket, but it is not a private directory of user {owner}: remove it, or use a \
             data directory with a shorter path",
            dir.display()
        )));
    }
    Ok(())
}

/// Gives what root just created to the user who runs the server.
pub(super) fn give_to(path: &Path, run_as: Option<RunAs>) -> Result<(), EmbeddedError> {
    match run_as {
        Some(RunAs { uid, gid }) => std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(|source| EmbeddedError::file("cannot change the owner of", path, source)),
        None => Ok(()),
    }
}

/// Without symbolic links, as PostgreSQL itself reports its directory; missing parts of the path stay unchanged.
fn resolved(path: &Path) -> Result<PathBuf, EmbeddedError> {
    let existing = nearest_existing(path);
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    let start = fs::canonicalize(existing).map_err(|source| EmbeddedError::file("cannot look at", existing, source))?;
    Ok(if rest.as_os_str().is_empty() { start } else { start.join(rest) })
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn follow(link: &Path) -> Result<PathBuf, EmbeddedError> {
    let target = fs::read_link(link).map_err(|source| EmbeddedError::file("cannot read the link", link, source))?;
    Ok(link.parent().unwrap_or(Path::new("/")).join(target))
}

fn is_empty_dir(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// 16 hexadecimal digits that identify a path.
fn short_hash(path: &Path) -> String {
    Hex(&digest::prefix::<8>(&[path.as_os_str().as_bytes()])).to_string()
}

/// A path as a value in a URL's query.
pub(super) fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let bytes = OsStr::as_bytes(path.as_os_str()).iter();
    bytes.map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: RunAs = RunAs { uid: 12_345, gid: 12_345 };

    fn open_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn a_user_that_is_not_root_has_its_cluster_in_the_data_directory() {
        let dir = open_dir();
        let place = choose_with(&dir.path().join("data"), false, None, Path::new("/nowhere")).unwrap();
        assert_eq!(place.cluster, fs::canonicalize(dir.path()).unwrap().join("data/postgres"));
        assert_eq!((place.socket_dir.clone(), place.run_as, place.note), (place.cluster, None, None));
    }

    #[test]
    fn root_without_a_user_to_run_the_server_gets_an_explanation() {
        let dir = open_dir();
        let error = choose_with(dir.path(), true, None, Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("apt-get install postgresql"), "{error}");
    }

    #[test]
    fn a_cluster_behind_a_link_is_found_and_reported() {
        let (dir, other) = (open_dir(), open_dir());
        std::os::unix::fs::symlink(other.path().join("postgres"), dir.path().join("postgres")).unwrap();
        let place = choose_with(dir.path(), false, None, Path::new("/nowhere")).unwrap();
        assert_eq!(place.cluster, fs::canonicalize(other.path()).unwrap().join("postgres"));
        assert!(place.note.unwrap().contains("the database is in"));
    }

    #[test]
    fn a_path_that_no_socket_can_have_gets_a_private_directory() {
        let is_private = |place: &Place| place.socket_dir.as_os_str().as_bytes().starts_with(b"/tmp/pixeld-");
        let dir = open_dir();
        let comma = choose_with(&dir.path().join("a,b"), false, None, Path::new("/nowhere")).unwrap();
        assert!(is_private(&comma) && comma.note.is_some());
        let long = dir.path().join("d".repeat(100));
        let place = choose_with(&long, false, None, Path::new("/nowhere")).unwrap();
        assert!(is_private(&place) && place.socket_path().as_os_str().len() <= 107);
        assert_eq!(place, choose_with(&long, false, None, Path::new("/nowhere")).unwrap());
    }

    #[test]
    fn a_directory_that_postgres_cannot_enter_sends_root_elsewhere() {
        if !nix::unistd::geteuid().is_root() {
            // Only root can check what another user may do; the choice is made for root alone.
            return;
        }
        let dir = open_dir();
        let data_dir = dir.path().join("data");
        let near = choose_with(&data_dir, true, Some(USER), Path::new("/elsewhere")).unwrap();
        assert!(near.cluster.ends_with("data/postgres") && near.link.is_none());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let far = choose_with(&data_dir, true, Some(USER), Path::new("/elsewhere")).unwrap();
        assert!(far.cluster.starts_with("/elsewhere") && far.link.is_some());
        assert!(far.note.unwrap().contains("cannot enter"));
    }

    #[test]
    fn odd_bytes_in_a_path_are_encoded_for_a_url() {
        assert_eq!(percent_encoded(Path::new("/a b/ü&c")), "/a%20b/%C3%BC%26c");
    }
}
