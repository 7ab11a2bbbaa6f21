//! The source of a setting: the environment, the settings file of the data directory, or what `serve` left there.
//!
//! Guarantees: a file is accepted whole, or refused with every line that is wrong. No text made here contains a piece
//! of a value. A file that anybody may write, or that another user put there, is refused; so are programs that another
//! user names for root. Gives up: escapes in values, and values of several lines.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{names, served};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Settings whose value is a path, which must not depend on the directory in which a command runs.
pub(super) const PATHS: [&str; 2] = ["PG_BIN", "PIXELD_NETWORKS_DIR"];

/// The kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// This process's environment.
    Environment,
    /// The settings file.
    File,
    /// What `serve` left for commands.
    Served,
}

/// The settings of one source.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) origin: Origin,
    /// Its file; empty for the environment.
    pub(super) path: PathBuf,
    pub(super) values: BTreeMap<OsString, OsString>,
}

/// What is wrong with a file: the name or line, and the rest of a sentence about it.
pub(super) type Wrong = (String, String);

impl Layer {
    pub(super) fn environment(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Layer {
        Layer { origin: Origin::Environment, path: PathBuf::new(), values: vars.into_iter().collect() }
    }

    /// The value of this name; `None` if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.values.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(OsString::as_os_str)
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(path: &Path, origin: Origin) -> Result<Option<Layer>, Vec<Wrong>> {
        let cannot = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; run this as the user who runs pixeld, or as root",
                _ => "",
            };
            vec![(path.display().to_string(), format!("cannot be read: {error}{hint}"))]
        };
        let (text, is_trusted) = match open(path) {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        let mut layer = Layer { origin, path: path.to_owned(), values: BTreeMap::new() };
        let mut wrong = Vec::new();
        for (name, value) in lines(&text, &mut wrong) {
            if origin == Origin::Served && served::is_own(&name) {
                layer.values.insert(name.into(), value.into());
            } else if let Some(reason) = refused(&name, &value, is_trusted) {
                wrong.push((name, reason));
            } else if layer.values.insert(name.clone().into(), value.into()).is_some() {
                wrong.push((name, "appears twice".to_owned()));
            }
        }
        if origin == Origin::Served {
            // Perhaps written by another version; serve checks its own settings.
            return Ok(Some(layer));
        }
        if wrong.is_empty() { Ok(Some(layer)) } else { Err(wrong) }
    }
}

/// The text of a file that can be trusted, and whether its owner may name programs for us.
fn open(path: &Path) -> io::Result<Option<(String, bool)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(None);
        }
        opened => opened?,
    };
    let (metadata, folder) = (file.metadata()?, std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?);
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let us = nix::unistd::geteuid().as_raw();
    let is_ours = metadata.uid() == us || metadata.uid() == 0;
    if !is_ours && metadata.uid() != folder.uid() {
        return Err(io::Error::other("it must belong to you, root or the owner of the data directory"));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(io::Error::other("everybody may write to it: run chmod 600 on it"));
    }
    let mut text = String::new();
    let read = (&file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    read.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::other("it is not UTF-8"),
        _ => error,
    })?;
    Ok(Some((text, is_ours)))
}

/// Names and values, line by line, as in `.env.example`.
fn lines(text: &str, wrong: &mut Vec<Wrong>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        match line.split_once('=') {
            Some((name, value)) if is_name(name.trim()) => {
                found.push((name.trim().to_owned(), unquoted(value.trim()).to_owned()));
            }
            // Not quoted: it may be the second line of a secret.
            _ => wrong.push((format!("line {number}"), "is not NAME=value".to_owned())),
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The value without its quotes, if it has a pair of them.
fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Why this setting cannot be in a file.
fn refused(name: &str, value: &str, is_trusted: bool) -> Option<String> {
    if name == "PIXELD_DATA_DIR" {
        return Some("says where this file is, so it cannot be in it".to_owned());
    }
    if !names::is_known(name) {
        return Some("is not a setting".to_owned());
    }
    if name == "PG_BIN" && !is_trusted {
        return Some(
            "names programs that would run as you, but the file belongs to another user; set it in the environment"
                .to_owned(),
        );
    }
    let is_path = PATHS.contains(&name) || name.ends_with("_FILE");
    (is_path && !value.is_empty() && !value.starts_with('/'))
        .then(|| "must be an absolute path there, because commands run in any directory".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn layer(text: &str) -> Result<BTreeMap<OsString, OsString>, Vec<Wrong>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pixeld.env");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Layer::read(&path, Origin::File).map(|layer| layer.unwrap().values)
    }

    #[test]
    fn a_settings_file_is_read_as_the_example_is_written() {
        let text = "\u{feff}# a comment\r\n\r\nPIXELD_LISTEN=127.0.0.1:8080\r\n  export PIXELD_BASE_URL = \"https://a.example\" \n\
                    REDIS_URL='redis://:a=b#c@r'\nPIXELD_LOG=\nSENTRY_DSN_FILE=/run/dsn";
        let values = layer(text).unwrap();
        let expected = [
            ("PIXELD_BASE_URL", "https://a.example"),
            ("PIXELD_LISTEN", "127.0.0.1:8080"),
            ("PIXELD_LOG", ""),
            ("REDIS_URL", "redis://:a=b#c@r"),
            ("SENTRY_DSN_FILE", "/run/dsn"),
        ];
        assert_eq!(values, expected.map(|(name, value)| (name.into(), value.into())).into());
        let mut wrong = Vec::new();
        lines(include_str!("../../.env.example"), &mut wrong);
        assert_eq!(wrong, []);
    }

    #[test]
    fn every_wrong_line_of_a_settings_file_is_named_without_its_value() {
        let text = "PIXELD_LISTN=hunter2\nhunter2\nPIXELD_DATA_DIR=/hunter2\nPIXELD_LOG=hunter2\nPIXELD_LOG=hunter2\n\
                    PIXELD_SIGNING_KEYS_FILE=hunter2\n=hunter2\nPATH=/hunter2\nhunter2 x=1";
        let wrong = layer(text).unwrap_err();
        let of: Vec<&str> = wrong.iter().map(|(of, _)| of.as_str()).collect();
        let lines = ["line 2", "line 7", "line 9"];
        let names = ["PIXELD_LISTN", "PIXELD_DATA_DIR", "PIXELD_LOG", "PIXELD_SIGNING_KEYS_FILE", "PATH"];
        assert_eq!(of, [&lines[..], &names].concat());
        assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
    }

    #[test]
    fn a_settings_file_that_anybody_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pixeld.env");
        assert!(Layer::read(&path, Origin::File).unwrap().is_none());
        fs::write(&path, "PIXELD_LOG=info").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o644, true), (0o660, true), (0o666, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Layer::read(&path, Origin::File).is_ok(), is_taken, "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        Layer::read(&path, Origin::File).unwrap_err();
    }

    #[test]
    fn nobody_else_names_programs() {
        assert!(refused("PG_BIN", "/opt/bin", false).is_some() && refused("PG_BIN", "/opt/bin", true).is_none());
    }
}
