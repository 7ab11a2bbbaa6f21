//! Whether a row of a list says that its recipient may be named in a link: for the command and the page alike. Pure.
//!
//! Guarantees: a slip is never taken for consent, nor is an empty cell.

/// What says yes, in any case.
pub const YES: [&str; 7] = ["yes", "y", "ja", "j", "oui", "true", "1"];

/// What says no, in any case; an empty cell does, too.
pub const NO: [&str; 6] = ["no", "n", "nein", "non", "false", "0"];

/// What a cell says; nothing where it says neither.
#[must_use]
pub fn read(cell: &[u8]) -> Option<bool> {
    let text = cell.trim_ascii();
    let is_one_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    match text.is_empty() || is_one_of(&NO) {
        true => Some(false),
        false => is_one_of(&YES).then_some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_slip_is_taken_for_consent() {
        for no in ["no", "No", " N ", "NEIN", "non", "FALSE", "0", "", "  "] {
            assert_eq!(read(no.as_bytes()), Some(false), "{no:?}");
        }
        for yes in ["yes", " Y", "1", "Ja", "TRUE", "oui"] {
            assert_eq!(read(yes.as_bytes()), Some(true), "{yes:?}");
        }
        for slip in ["nope", "yess", "2026-05-04", "-", "no no"] {
            assert_eq!(read(slip.as_bytes()), None, "{slip:?}");
        }
    }
}
