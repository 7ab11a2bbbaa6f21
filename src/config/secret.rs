//! Values that must not be shown.
//!
//! Guarantees: printing a secret, by `Debug` or `Display`, shows `***`. Gives up: its memory is not wiped.

use std::fmt;
use std::io::Read;

use super::value::shown_path;

/// Maximum size of a file with a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A value that logs and errors must not show.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The content of a file without its final newline.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence that begins with the variable that names the file.
    pub fn of_file(path: &str) -> Result<Secret, String> {
        let refused = |error: std::io::Error| format!("names {}, which cannot be read: {error}", shown_path(path));
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(refused)?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("names {}, which is longer than {FILE_BYTES_MAX} bytes", shown_path(path)));
        }
        read.map_err(refused)?;
        let end = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).len();
        text.truncate(end);
        // An error: without it, pixeld could start with an embedded database because a secret was not filled in yet.
        if text.is_empty() { Err(format!("names {}, which is empty", shown_path(path))) } else { Ok(Secret(text)) }
    }

    /// The value itself: for its user, never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
