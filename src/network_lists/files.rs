//! Lists of networks: the built-in ones, and the files of `PIXELD_NETWORKS_DIR`.
//!
//! ```text
//! {folder}/{network}.txt      one prefix or address a line, # begins a comment
//! ```
//!
//! The file's name is the network's. Files add to the built-in lists. Each file is read whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use ipnet::IpNet;

use pixeld_core::networks::{Network, Networks};

/// The longest list, in bytes; Apple's has about 12 MB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The widest prefixes that a list may contain: one that covers half of the internet is a mistake or an attack.
const WIDEST: (u8, u8) = (8, 16);

/// Networks that providers document themselves and do not change.
static BUILT_IN: LazyLock<Vec<(IpNet, Network)>> = LazyLock::new(|| {
    let lines = include_str!("built-in.txt").lines().filter_map(content);
    lines.filter_map(|line| entry(line).ok()).collect()
});

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A disk error.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// It is not named after a network.
    #[error("{}: this network does not exist; allowed: {}", path.display(), names())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than a list can be.
    #[error("{}: longer than {FILE_BYTES_MAX} bytes", .0.display())]
    Long(PathBuf),
    /// A line is not a prefix.
    #[error("{}, line {line}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        error: String,
    },
}

/// The lists of a folder: the last good version of each file.
#[derive(Debug, Default)]
pub struct Lists {
    lists: BTreeMap<Network, List>,
    /// Refused files with their state then; `None` if the disk refused them.
    refused: HashMap<PathBuf, Option<Seen>>,
}

#[derive(Debug)]
struct List {
    prefixes: Vec<IpNet>,
    seen: Seen,
}

/// A file's state when it was read.
type Seen = (SystemTime, u64);

/// One list of a folder, for people.
#[derive(Debug, Clone)]
pub struct ListStatus {
    /// The network.
    pub network: Network,
    /// Ranges in it, neighbours joined.
    pub ranges: usize,
    /// When its file was written.
    pub written: SystemTime,
}

impl Lists {
    /// Reads what changed in `folder` since the last time. Returns whether anything did, and which files were refused;
    /// a refused file leaves its list unchanged.
    pub fn read_changes(&mut self, folder: &Path) -> (bool, Vec<FileError>) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (self.forget_all(), Vec::new()),
            Err(source) => return (false, vec![FileError::Read { path: folder.to_owned(), source }]),
        };
        let (mut changed, mut errors, mut there) = (false, Vec::new(), Vec::new());
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let network = path.file_stem().and_then(|stem| stem.to_str()).and_then(Network::of_name);
            // Whatever is wrong with the file now, its list stays while the file exists.
            there.extend(network);
            let seen = fs::metadata(&path).and_then(|meta| {
                // Opening a pipe would block forever.
                if !meta.is_file() {
                    return Err(io::Error::other("it is not a file"));
                }
                Ok((meta.modified()?, meta.len()))
            });
            let seen = seen.map_err(|source| FileError::Read { path: path.clone(), source });
            let is_known = seen.as_ref().is_ok_and(|seen| {
                network.and_then(|network| self.lists.get(&network)).is_some_and(|list| list.seen == *seen)
                    || self.refused.get(&path) == Some(&Some(*seen))
            });
            if is_known {
                continue;
            }
            let list = seen.and_then(|seen| {
                let network = network.ok_or_else(|| FileError::Name { path: path.clone() })?;
                Ok((network, List { prefixes: read(&path)?, seen }))
            });
            match list {
                Ok((network, list)) => {
                    self.refused.remove(&path);
                    self.lists.insert(network, list);
                    changed = true;
                }
                Err(error) => {
                    // A disk error may disappear without a change of the file, so it is tried again, and logged once.
                    let seen = match &error {
                        FileError::Read { .. } => None,
                        _ => fs::metadata(&path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len()))),
                    };
                    if self.refused.insert(path, seen) != Some(seen) {
                        errors.push(error);
                    }
                }
            }
        }
        let before = self.lists.len();
        self.lists.retain(|network, _| there.contains(network));
        (changed || self.lists.len() != before, errors)
    }

    fn forget_all(&mut self) -> bool {
        let had = !self.lists.is_empty();
        self.lists.clear();
        had
    }

    /// The built-in networks and what these lists add. Among equal prefixes a gateway's wins over a data centre's, and
    /// that over a mailbox provider's.
    pub fn networks(&self) -> Networks {
        let mut prefixes = BUILT_IN.clone();
        for (&network, list) in &self.lists {
            prefixes.extend(list.prefixes.iter().map(|&prefix| (prefix, network)));
        }
        prefixes.sort_by_key(|&(_, network)| network);
        Networks::new(&prefixes)
    }

    /// Each list.
    pub fn status(&self) -> Vec<ListStatus> {
        let status = |(&network, list): (&Network, &List)| ListStatus {
            network,
            ranges: list.prefixes.len(),
            written: list.seen.0,
        };
        self.lists.iter().map(status).collect()
    }
}

/// Reads one list; neighbours are joined.
///
/// # Errors
/// [`FileError`] with the first line that is wrong.
pub fn read(path: &Path) -> Result<Vec<IpNet>, FileError> {
    let refused = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(refused)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::Long(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| refused(io::Error::other(error)))?;
    parse(text).map_err(|(line, error)| FileError::Line { path: path.to_owned(), line, error })
}

/// Reads the text of a list.
///
/// # Errors
/// The number of the first wrong line, and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<IpNet>, (usize, String)> {
    let mut prefixes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(line) = content(line) {
            prefixes.push(prefix(line).map_err(|error| (number, error))?);
        }
    }
    Ok(IpNet::aggregate(&prefixes))
}

/// One prefix or address, as written in lists.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| {
            let shown: String = text.chars().take(60).collect();
            format!("{shown:?} is not a prefix like 192.0.2.0/24 or 2001:db8::/32")
        })?,
    };
    let (widest, length) = match prefix {
        IpNet::V4(prefix) => (WIDEST.0, prefix.prefix_len()),
        IpNet::V6(prefix) => (WIDEST.1, prefix.prefix_len()),
    };
    if length < widest {
        return Err(format!("{prefix} is too wide; use /{widest} or narrower"));
    }
    Ok(prefix.trunc())
}

/// A line without its comment and blanks; `None` if nothing is left.
fn content(line: &str) -> Option<&str> {
    let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
    (!line.is_empty()).then_some(line)
}

/// A line of the built-in list: a network's name and a prefix.
fn entry(line: &str) -> Result<(IpNet, Network), String> {
    let (name, rest) = line.split_once(char::is_whitespace).ok_or(format!("{line:?} has no prefix"))?;
    let network = Network::of_name(name).ok_or(format!("{name:?} is not a network"))?;
    Ok((prefix(rest.trim())?, network))
}

fn names() -> String {
    let names: Vec<String> = Network::ALL.iter().map(|network| format!("{}.txt", network.name())).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &Lists, address: &str) -> Option<Network> {
        lists.networks().of(address.parse().unwrap())
    }

    #[test]
    fn every_built_in_line_is_read() {
        let lines = include_str!("built-in.txt").lines();
        for (number, line) in (1..).zip(lines) {
            if let Some(line) = content(line) {
                entry(line).unwrap_or_else(|error| panic!("line {number}: {error}"));
            }
        }
        let none = Lists::default();
        assert_eq!(of(&none, "17.1.2.3"), Some(Network::Apple));
        assert_eq!(of(&none, "66.249.84.7"), Some(Network::Google));
        assert_eq!(of(&none, "127.0.0.1"), None);
    }

    #[test]
    fn a_list_is_read_whole_or_refused_with_its_line() {
        assert_eq!(parse("# none\n\n").unwrap(), []);
        let prefixes = parse("192.0.2.0/25 # half\n192.0.2.128/25\n 2001:db8::1\r\n").unwrap();
        assert_eq!(prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.0/24", "2001:db8::1/128"]);
        for (text, line, said) in [
            ("192.0.2.0/24\n192.0.2.0/33\n", 2, "not a prefix like"),
            ("0.0.0.0/0\n", 1, "too wide"),
            ("2000::/3\n", 1, "too wide"),
            ("\n\nnonsense\n", 3, "nonsense"),
        ] {
            let (at, error) = parse(text).unwrap_err();
            assert!(at == line && error.contains(said), "{text}: {at} {error}");
        }
    }

    #[test]
    fn a_bad_file_leaves_the_list_as_it_was_until_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scanners.txt");
        let mut lists = Lists::default();
        let write = |text: &str| {
            // A different length each time, so that the change is noticed even if the disk's clock is coarse.
            fs::write(&file, text).unwrap();
        };
        write("192.0.2.0/24\n");
        assert!(lists.read_changes(folder.path()).0);
        assert!(!lists.read_changes(folder.path()).0, "nothing changed");
        write("192.0.2.0/24\nnonsense\n");
        let (changed, errors) = lists.read_changes(folder.path());
        assert!(!changed && errors.len() == 1 && errors[0].to_string().contains("line 2"), "{errors:?}");
        assert_eq!(lists.read_changes(folder.path()).1.len(), 0, "told once");
        assert_eq!(of(&lists, "192.0.2.1"), Some(Network::Scanners));
        write("198.51.100.0/24\n198.51.101.0/24\n");
        assert!(lists.read_changes(folder.path()).0);
        assert_eq!(of(&lists, "192.0.2.1"), None);
        assert_eq!(of(&lists, "198.51.100.1"), Some(Network::Scanners));
        // A file that cannot be read keeps its list, too, and is reported once.
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let (changed, errors) = lists.read_changes(folder.path());
        assert!(!changed && errors.len() == 1, "{errors:?}");
        assert_eq!(lists.read_changes(folder.path()).1.len(), 0, "told once");
        assert_eq!(of(&lists, "198.51.100.1"), Some(Network::Scanners));
        fs::write(folder.path().join("unheard_of.txt"), "192.0.2.0/24\n").unwrap();
        let (_, errors) = lists.read_changes(folder.path());
        assert!(errors[0].to_string().contains("allowed: google.txt"), "{errors:?}");
        fs::remove_file(&file).unwrap();
        assert!(lists.read_changes(folder.path()).0);
        assert_eq!(of(&lists, "198.51.100.1"), None);
        assert!(!lists.read_changes(&folder.path().join("none")).0);
    }
}
