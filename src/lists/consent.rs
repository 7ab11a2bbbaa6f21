//! Whether a row of a list says that its recipient may be named in a link, and which column says it. Pure.
//!
//! Guarantees: a slip is never taken for consent, nor is an empty cell; a column with one of [`NAMES`] is never overlooked.

/// What says yes, in any case: also what spreadsheets write for a truth in German and French.
pub const YES: [&str; 9] = ["yes", "y", "ja", "j", "oui", "true", "1", "wahr", "vrai"];

/// What says no, in any case; an empty cell does, too.
pub const NO: [&str; 8] = ["no", "n", "nein", "non", "false", "0", "falsch", "faux"];

/// What a column of consents is called, without its case and all that is neither a letter nor a digit (`Opt-In` is `optin`).
pub const NAMES: [&str; 16] = [
    "consent",
    "consents",
    "consented",
    "hasconsent",
    "hasconsented",
    "consentgiven",
    "trackingconsent",
    "gdprconsent",
    "gdpr",
    "dsgvo",
    "optin",
    "optedin",
    "agreed",
    "einwilligung",
    "zustimmung",
    "consentement",
];

/// What a column is called that may say the opposite.
pub const OPPOSITES: [&str; 8] =
    ["optout", "optedout", "unsubscribed", "donottrack", "noconsent", "notracking", "widerspruch", "abgemeldet"];

/// A column's name, as [`NAMES`] has it.
#[must_use]
pub fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What a cell says; nothing where it says neither.
#[must_use]
pub fn read(cell: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(cell).ok()?.trim();
    let is_one_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
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
        for no in ["no", "No", " N ", "NEIN", "non", "FALSE", "FALSCH", "0", "", "  ", "\u{a0}"] {
            assert_eq!(read(no.as_bytes()), Some(false), "{no:?}");
        }
        for yes in ["yes", " Y", "1", "Ja", "TRUE", "Wahr", "oui"] {
            assert_eq!(read(yes.as_bytes()), Some(true), "{yes:?}");
        }
        for slip in ["nope", "yess", "2026-05-04", "-", "no no"] {
            assert_eq!(read(slip.as_bytes()), None, "{slip:?}");
        }
    }
}
