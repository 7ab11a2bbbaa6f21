//! Whether a row of a list allows naming its recipient in a link, and which column says so. Pure.
//!
//! Guarantees: neither a typing error nor an empty cell is taken for consent. A column with one of [`NAMES`] is never
//! overlooked; for a column whose name only sounds like it, the sender is asked. Gives up: names in languages that are
//! not among the stems, and unspecific names (`status`).

/// Words for yes, in any case; including what spreadsheets write for a true value in German and French.
pub(crate) const YES: [&str; 9] = ["yes", "y", "ja", "j", "oui", "true", "1", "wahr", "vrai"];

/// Words for no, in any case; an empty cell also means no.
pub(crate) const NO: [&str; 8] = ["no", "n", "nein", "non", "false", "0", "falsch", "faux"];

/// Names of a column of consents, without case and without anything that is neither a letter nor a digit (`Opt-In` is
/// `optin`).
pub(crate) const NAMES: [&str; 16] = [
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

/// The column of a list with links that says whether a link names its recipient. It counts as the consent column until
/// the sender names another one.
pub(crate) const IN_LINK: &str = "pixeld_recipient_in_link";

/// Parts of the name of a column that may say who agreed, in the languages of the opt-out page and Dutch: `Email
/// consent`, `Einwilligung erteilt`, `DOUBLE_OPT-IN`.
const STEMS: [&str; 14] = [
    "consen",
    "agreed",
    "agreement",
    "permission",
    "subscribed",
    "subscriptionstatus",
    "optin",
    "optedin",
    "gdpr",
    "dsgvo",
    "rgpd",
    "einwillig",
    "zustimm",
    "toestemming",
];

/// Parts of the name of a column that may say the opposite.
const OPPOSITE_STEMS: [&str; 23] = [
    "optout",
    "optedout",
    "unsub",
    "donottrack",
    "noconsent",
    "notrack",
    "nottrack",
    "revoked",
    "withdraw",
    "blocklist",
    "blacklist",
    "suppress",
    "widerspr",
    "widerruf",
    "abgemeldet",
    "abmeld",
    "keineinwillig",
    "désabonn",
    "desabonn",
    "désinscri",
    "desinscri",
    "disiscri",
    "afgemeld",
];

/// Endings of the name of a column with the address of a page.
const ADDRESSES: [&str; 3] = ["url", "link", "token"];

/// What a column's name says about consents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sounds {
    /// It holds them.
    Certain,
    /// It may hold them.
    Maybe,
    /// It may hold the opposite.
    Opposite,
    /// Nothing.
    Nothing,
}

/// Judges a name.
pub(crate) fn sounds(name: &str) -> Sounds {
    let name = plain_name(name);
    let has = |stems: &[&str]| stems.iter().any(|stem| name.contains(stem));
    match () {
        () if NAMES.contains(&&*name) => Sounds::Certain,
        () if ADDRESSES.iter().any(|end| name.ends_with(end)) => Sounds::Nothing,
        () if has(&OPPOSITE_STEMS) => Sounds::Opposite,
        () if has(&STEMS) => Sounds::Maybe,
        () => Sounds::Nothing,
    }
}

/// A column's name, in the form of [`NAMES`].
pub(crate) fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The meaning of a cell; `None` if it is neither yes nor no.
pub(crate) fn read(cell: &[u8]) -> Option<bool> {
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
    fn a_name_that_sounds_like_consents_or_their_opposite_is_never_overlooked() {
        use Sounds::{Certain, Maybe, Nothing, Opposite};
        for (sound, names) in [
            (Certain, &["Consent?", "con\u{200b}sent\u{a0}", "Opt-In", "OPT_IN"][..]),
            (Maybe, &["Email consent", "consent_status", "Einwilligung erteilt", "Marketing-Einwilligung (DSGVO)"]),
            (Maybe, &["DOUBLE_OPT-IN", "OPTIN_TIME", "Consent\n(yes/no)", "consenso", "Consentimiento", "toestemming"]),
            (Maybe, &["Marketing Permission", "subscribed", "Subscription status", "RGPD", "Consentement marketing"]),
            (Opposite, &["Unsubscribed from all email", "UNSUB_TIME", "blocklisted", "Widerrufen", "désabonné"]),
            (Opposite, &["do_not_track", "Opt-Out", "consent withdrawn", "no consent", "Abmeldedatum"]),
            (Nothing, &["id", "name", "Subscriber ID", "unsubscribe_url", "Unsubscribe link", "status", "Option", ""]),
        ] {
            for name in names {
                assert_eq!(sounds(name), sound, "{name:?}");
            }
        }
    }

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
