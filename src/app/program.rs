//! This program, as people type it in a shell, from any directory.

use crate::config::Config;

/// Its path.
pub(super) fn path() -> String {
    std::env::current_exe().map_or("pixeld".to_owned(), |path| quoted(&path.display().to_string()))
}

/// The start of a command for this installation: `serve` has noted the other settings in its data directory.
pub(super) fn typed(config: &Config) -> String {
    format!("PIXELD_DATA_DIR={} {}", quoted(&config.storage.data_dir.display().to_string()), path())
}

/// Quoted as one word for a shell.
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
