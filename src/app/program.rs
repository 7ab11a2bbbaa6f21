//! This program, as people type it in a shell, wherever they are.

use crate::config::Config;

/// Its path.
#[must_use]
pub fn path() -> String {
    std::env::current_exe().map_or("pixeld".to_owned(), |path| quoted(&path.display().to_string()))
}

/// The beginning of a command of this installation: what `serve` left in its data directory tells it the rest.
#[must_use]
pub fn typed(config: &Config) -> String {
    format!("PIXELD_DATA_DIR={} {}", quoted(&config.storage.data_dir.display().to_string()), path())
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
