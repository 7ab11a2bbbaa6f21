//! The rules that say what fetched a pixel: each has a stable number, a name, a class, the evidence it uses, and a
//! sentence for people.
//!
//! Numbers are stored in `hits.rule` and never given to another rule; a rule that is no longer used keeps its line.

use super::class::Class;

/// A kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceKind {
    /// The user agent.
    UserAgent,
    /// The network of the client's address.
    Network,
    /// Headers that mark a prefetch.
    Headers,
    /// Seconds between sending and the fetch.
    SinceSent,
}

macro_rules! rules {
    ($($variant:ident = $number:literal $name:literal $class:ident [$($kind:ident),*] $sentence:literal),* $(,)?) => {
        /// A rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum Rule {
            $(#[doc = $sentence] $variant = $number),*
        }

        impl Rule {
            /// All of them, by number.
            pub const ALL: &[Rule] = &[$(Rule::$variant),*];

            /// The name for people and in SQL.
            pub const fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name),* }
            }

            /// The class that it gives.
            pub const fn class(self) -> Class {
                match self { $(Rule::$variant => Class::$class),* }
            }

            /// The evidence that it uses.
            pub const fn evidence(self) -> &'static [EvidenceKind] {
                match self { $(Rule::$variant => &[$(EvidenceKind::$kind),*]),* }
            }

            /// The sentence that explains it.
            pub const fn sentence(self) -> &'static str {
                match self { $(Rule::$variant => $sentence),* }
            }
        }
    };
}

rules! {
    NotJudged = 0 "not_judged" Unknown []
        "Recorded by a version that did not judge; pixeld reclassify does.",
    GmailProxy = 10 "gmail_proxy" Proxied [UserAgent, Network]
        "Gmail's image proxy, from Google's network: somebody opened the message in Gmail.",
    GmailProxyElsewhere = 11 "gmail_proxy_elsewhere" Proxied [UserAgent, Network]
        "It calls itself Gmail's image proxy, but its address is not on Google's list.",
    MailProxy = 12 "mail_proxy" Proxied [UserAgent]
        "A mailbox provider's image proxy, for a person who opened the message there.",
    MailProxyUnsure = 13 "mail_proxy_unsure" Unknown [UserAgent]
        "A mailbox provider's image fetcher; it is not known whether it waits for a reader.",
    ApplePrivacy = 20 "apple_privacy" PrivacyPrefetch [UserAgent, Network]
        "Apple Mail Privacy Protection loaded it, whether or not anyone looked.",
    BareMozilla = 21 "bare_mozilla" Unknown [UserAgent, Network]
        "Looks like Apple's privacy relay, but comes from an address that is not on Apple's list.",
    GmailPrefetch = 30 "gmail_prefetch" Prefetch [UserAgent]
        "Gmail loaded it before anyone looked.",
    PrefetchHeader = 31 "prefetch_header" Prefetch [Headers]
        "A header of the request says that it was loaded before anyone looked.",
    PrefetchProxy = 32 "prefetch_proxy" Prefetch [UserAgent]
        "A proxy that loads images before anyone looks.",
    ScannerAgent = 40 "scanner_agent" Scanner [UserAgent]
        "A security gateway's scanner, by its user agent.",
    ScannerNetwork = 41 "scanner_network" Scanner [Network]
        "It came from a security gateway's network.",
    ScannerEarly = 42 "scanner_early" Scanner [UserAgent, Network, SinceSent]
        "A browser in a data centre or Microsoft's mail network, within a minute of sending: a gateway that scans messages as they arrive.",
    Bot = 50 "bot" Bot [UserAgent]
        "A crawler, monitor or script, by its user agent.",
    MailClient = 60 "mail_client" Human [UserAgent]
        "A mail program fetched it for its user.",
    Browser = 61 "browser" Human [UserAgent]
        "A browser, or a mail program that looks like one, fetched it for its user.",
    BrowserInDataCentre = 62 "browser_in_data_centre" Unknown [UserAgent, Network]
        "A browser in a data centre: a reader behind a VPN, or a machine that looks like one.",
    BrowserAtOnce = 63 "browser_at_once" Unknown [UserAgent, SinceSent]
        "A browser within seconds of sending, faster than people read: perhaps a scanner in disguise.",
    BrowserAtMicrosoft = 64 "browser_at_microsoft" Unknown [UserAgent, Network]
        "A browser's user agent from Microsoft's mail network: Outlook's image proxy for a reader, or Safe Links.",
    MailClientEarly = 65 "mail_client_early" Unknown [UserAgent, Network, SinceSent]
        "A mail program's user agent from a data centre or Microsoft's mail network, within a minute of sending: a reader, or a gateway in disguise.",
    NoUserAgent = 70 "no_user_agent" Unknown []
        "It did not say what it is.",
    NothingKnown = 71 "nothing_known" Unknown [UserAgent]
        "Its user agent is not known.",
}

impl Rule {
    /// The number in PostgreSQL.
    pub const fn number(self) -> i16 {
        self as i16
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_has_a_number_a_name_and_a_sentence_of_its_own() {
        let numbers: HashSet<i16> = Rule::ALL.iter().map(|rule| rule.number()).collect();
        let names: HashSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        let sentences: HashSet<&str> = Rule::ALL.iter().map(|rule| rule.sentence()).collect();
        assert_eq!([numbers.len(), names.len(), sentences.len()], [Rule::ALL.len(); 3]);
        assert!(Rule::ALL.is_sorted_by_key(|rule| rule.number()));
    }

    #[test]
    fn the_docs_have_every_rule_as_it_is() {
        let page = include_str!("../../../../docs/classes.md");
        for rule in Rule::ALL {
            let looks: Vec<&str> = rule
                .evidence()
                .iter()
                .map(|looks| match looks {
                    EvidenceKind::UserAgent => "user agent",
                    EvidenceKind::Network => "network",
                    EvidenceKind::Headers => "headers",
                    EvidenceKind::SinceSent => "time",
                })
                .collect();
            let looks = if looks.is_empty() { "–".to_owned() } else { looks.join(", ") };
            let (number, name, class) = (rule.number(), rule.name(), rule.class().name());
            let row = format!("| {number} | `{name}` | {class} | {looks} | {} |", rule.sentence());
            assert!(page.lines().any(|line| line == row), "docs/classes.md lacks: {row}");
        }
        let rows =
            page.lines().filter(|line| line.split('|').nth(1).is_some_and(|cell| cell.trim().parse::<i16>().is_ok()));
        assert_eq!(rows.count(), Rule::ALL.len());
    }

    /// Databases contain these numbers; changing one changes the meaning of stored hits.
    #[test]
    fn numbers_of_rules_stay() {
        let told: Vec<String> = Rule::ALL.iter().map(|rule| format!("{} {}", rule.number(), rule.name())).collect();
        assert_eq!(
            told.join(", "),
            "0 not_judged, 10 gmail_proxy, 11 gmail_proxy_elsewhere, 12 mail_proxy, 13 mail_proxy_unsure, 20 apple_privacy, 21 bare_mozilla, \
             30 gmail_prefetch, 31 prefetch_header, 32 prefetch_proxy, 40 scanner_agent, 41 scanner_network, 42 scanner_early, 50 bot, \
             60 mail_client, 61 browser, 62 browser_in_data_centre, 63 browser_at_once, 64 browser_at_microsoft, 65 mail_client_early, 70 no_user_agent, 71 nothing_known"
        );
    }
}
