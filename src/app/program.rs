//! This program, as people type it in a shell.

use crate::config::Config;
use crate::db::Database;

/// Its path.
#[must_use]
pub fn path() -> String {
    std::env::current_exe().map_or("pixeld".to_owned(), |path| quoted(&path.display().to_string()))
}

/// The beginning of a command that finds the same database. A URL of the user's own may hold a password, and is left to who types.
#[must_use]
pub fn typed(config: &Config, db: &Database) -> String {
    let is_default = std::env::current_dir().is_ok_and(|here| config.data_dir == here.join("data"));
    if db.is_embedded() && !is_default {
        return format!("PIXELD_DATA_DIR={} {}", quoted(&config.data_dir.display().to_string()), path());
    }
    path()
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_path_for_one_word() {
        for (text, word) in [("/opt/pixeld", "/opt/pixeld"), ("/my data", "'/my data'"), ("a'b", r"'a'\''b'")] {
            assert_eq!(quoted(text), word);
        }
    }
}
