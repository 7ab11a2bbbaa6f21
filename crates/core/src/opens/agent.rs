//! What a user agent says: the kind of program, and the mail client or proxy.
//!
//! Special cases come before the list of crawlers, which includes Google's and Yahoo's mail proxies. Reading a text
//! takes about 10 µs, so callers that read many remember the answer (`ingest::known`).

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::RegexSet;

/// The kind of program that a user agent names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is none.
    Absent,
    /// Gmail, before anyone looked.
    GmailPrefetch,
    /// Gmail's image proxy.
    GmailProxy,
    /// Another mailbox provider's image proxy.
    MailProxy,
    /// A mailbox provider's fetcher that may or may not wait for a reader.
    UnsureProxy,
    /// Fetches before anyone looked.
    PrefetchProxy,
    /// `Mozilla/5.0` and nothing else.
    BareMozilla,
    /// A security gateway.
    Scanner,
    /// A crawler, monitor or script.
    Bot,
    /// A mail program.
    MailClient,
    /// A browser, or a program that looks like one.
    Browser,
    /// None that we know.
    Other,
}

macro_rules! clients {
    ($($variant:ident = $number:literal $name:literal),* $(,)?) => {
        /// The mail program or proxy that a user agent names. The numbers are stored in PostgreSQL and never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum Client {
            $(#[doc = $name] $variant = $number),*
        }

        impl Client {
            /// All of them, by number.
            pub const ALL: &[Client] = &[$(Client::$variant),*];

            /// The name for people.
            pub const fn name(self) -> &'static str {
                match self { $(Client::$variant => $name),* }
            }
        }
    };
}

clients! {
    Unknown = 0 "not known",
    Gmail = 1 "Gmail",
    Yahoo = 2 "Yahoo Mail",
    AppleMail = 3 "Apple Mail",
    AppleHidden = 4 "Apple Mail (privacy protection)",
    Outlook = 5 "Outlook for Windows",
    OutlookMac = 6 "Outlook for Mac",
    OutlookMobile = 7 "Outlook (phone)",
    OutlookWeb = 8 "Outlook (web)",
    WindowsMail = 9 "Windows Mail",
    Thunderbird = 10 "Thunderbird",
    Yandex = 11 "Yandex Mail",
    Seznam = 12 "Seznam Email",
    AndroidMail = 13 "Android mail program",
    EmClient = 14 "eM Client",
    Lotus = 15 "Lotus Notes",
    Postbox = 16 "Postbox",
    TheBat = 17 "The Bat!",
    OtherClient = 18 "other mail program",
    OtherProxy = 19 "other mailbox provider",
    Chrome = 30 "Chrome",
    Firefox = 31 "Firefox",
    Safari = 32 "Safari",
    Edge = 33 "Edge",
    OtherBrowser = 34 "other browser",
}

impl Client {
    /// The number in PostgreSQL.
    pub const fn number(self) -> i16 {
        self as i16
    }
}

/// What a user agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// The kind of program.
    pub kind: Kind,
    /// The program.
    pub client: Client,
}

/// Gmail's own agent for fetches before anyone looked, letter for letter.
const GMAIL_PREFETCH: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                              Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0";

/// Words that name one program, at any position and in either case; the leftmost one decides, and the longest of
/// several. mail-user-agents.tsv has user agents with these words, and their sources.
const NAMED: &[(&str, Kind, Client)] = &[
    // Mailbox providers' image proxies.
    ("googleimageproxy", Kind::GmailProxy, Client::Gmail),
    ("yahoomailproxy", Kind::MailProxy, Client::Yahoo),
    ("seznamemailproxy/", Kind::MailProxy, Client::Seznam),
    ("wpimageproxy", Kind::MailProxy, Client::OtherProxy),
    ("ramblermail/", Kind::MailProxy, Client::OtherProxy),
    ("mail.ukr.net proxy", Kind::MailProxy, Client::OtherProxy),
    ("hey.com/imageproxy", Kind::MailProxy, Client::OtherProxy),
    ("fastmailua/", Kind::MailProxy, Client::OtherProxy),
    // Fetchers that are seen both with readers and without.
    ("yandeximageresizer/", Kind::UnsureProxy, Client::Yandex),
    // Security gateways, and previews that are made when a mail arrives.
    ("gmail-content-sampling", Kind::Scanner, Client::Gmail),
    ("barracuda", Kind::Scanner, Client::Unknown),
    ("mimecast", Kind::Scanner, Client::Unknown),
    ("proofpoint", Kind::Scanner, Client::Unknown),
    ("messagelabs", Kind::Scanner, Client::Unknown),
    ("safelinks", Kind::Scanner, Client::Unknown),
    ("microsoft exchange/", Kind::Scanner, Client::Unknown),
    ("office 365 connectors", Kind::Scanner, Client::Unknown),
    ("bingpreview/", Kind::Scanner, Client::OutlookWeb),
    ("microsoftpreview/", Kind::Scanner, Client::OutlookWeb),
    ("skypeuripreview", Kind::Scanner, Client::Unknown),
    ("yahoo link preview", Kind::Scanner, Client::Yahoo),
    ("privacy preserving prefetch proxy", Kind::PrefetchProxy, Client::Unknown),
    // Mail programs.
    ("ms-office", Kind::MailClient, Client::Outlook),
    ("msoffice ", Kind::MailClient, Client::Outlook),
    ("microsoft office/", Kind::MailClient, Client::Outlook),
    ("microsoft outlook", Kind::MailClient, Client::Outlook),
    ("oneoutlook", Kind::MailClient, Client::Outlook),
    ("microsoft office outlook/", Kind::MailClient, Client::OutlookMac),
    ("macoutlook/", Kind::MailClient, Client::OutlookMac),
    ("outlook-ios/", Kind::MailClient, Client::OutlookMobile),
    ("outlook-android/", Kind::MailClient, Client::OutlookMobile),
    ("outlook-express/", Kind::MailClient, Client::WindowsMail),
    ("windowsmail/", Kind::MailClient, Client::WindowsMail),
    ("windows-live-mail", Kind::MailClient, Client::WindowsMail),
    ("thunderbird/", Kind::MailClient, Client::Thunderbird),
    ("icedove/", Kind::MailClient, Client::Thunderbird),
    ("seamonkey/", Kind::MailClient, Client::OtherClient),
    ("iceape/", Kind::MailClient, Client::OtherClient),
    ("postbox", Kind::MailClient, Client::Postbox),
    ("em client/", Kind::MailClient, Client::EmClient),
    ("emclient/", Kind::MailClient, Client::EmClient),
    ("lotus-notes/", Kind::MailClient, Client::Lotus),
    ("the bat!", Kind::MailClient, Client::TheBat),
    ("com.google.gmail/", Kind::MailClient, Client::Gmail),
    ("yahoo%20mail/", Kind::MailClient, Client::Yahoo),
    ("yahoomobilemail/", Kind::MailClient, Client::Yahoo),
    ("yahoomobilemessenger/", Kind::MailClient, Client::Yahoo),
    ("yahoomobile/", Kind::MailClient, Client::Yahoo),
    ("jp.co.yahoo.ymail/", Kind::MailClient, Client::Yahoo),
    ("airmail ", Kind::MailClient, Client::OtherClient),
    ("barca/", Kind::MailClient, Client::OtherClient),
    ("barcapro/", Kind::MailClient, Client::OtherClient),
    ("mailbar/", Kind::MailClient, Client::OtherClient),
    ("mailspring/", Kind::MailClient, Client::OtherClient),
    ("mailbird/", Kind::MailClient, Client::OtherClient),
    ("bluemail/", Kind::MailClient, Client::OtherClient),
    ("foxmail/", Kind::MailClient, Client::OtherClient),
    ("mailmasterpc/", Kind::MailClient, Client::OtherClient),
    ("mailmaster/", Kind::MailClient, Client::OtherClient),
    ("navermailapp/", Kind::MailClient, Client::OtherClient),
    (" mailapp/", Kind::MailClient, Client::OtherClient),
    ("franz/", Kind::MailClient, Client::OtherClient),
    ("ramboxpro/", Kind::MailClient, Client::OtherClient),
    ("kmail/", Kind::MailClient, Client::OtherClient),
    ("sylpheed", Kind::MailClient, Client::OtherClient),
    ("claws mail", Kind::MailClient, Client::OtherClient),
];

/// A browser's own words, the more specific first: Edge says Chrome too, and Chrome says Safari.
const BROWSERS: &[(&str, Client)] = &[
    ("edg/", Client::Edge),
    ("edge/", Client::Edge),
    ("edga/", Client::Edge),
    ("edgios/", Client::Edge),
    ("opr/", Client::OtherBrowser),
    ("opera", Client::OtherBrowser),
    ("samsungbrowser/", Client::OtherBrowser),
    ("firefox/", Client::Firefox),
    ("fxios/", Client::Firefox),
    ("chrome/", Client::Chrome),
    ("crios/", Client::Chrome),
    ("trident/", Client::OtherBrowser),
    ("msie ", Client::OtherBrowser),
    ("safari/", Client::Safari),
    ("applewebkit/", Client::OtherBrowser),
    ("gecko/", Client::OtherBrowser),
];

static NAMES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let words = NAMED.iter().map(|(word, _, _)| word);
    AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::LeftmostLongest).build(words).ok()
});

/// Patterns of the list of crawlers that also match ordinary programs, and what to search for instead: an Android
/// build, makers and models of phones and screens, and a library that mail programs on Android use.
const INSTEAD: &[(&str, Option<&str>)] = &[
    ("AP3A\\.240617\\.008", None),
    ("okhttp", None),
    ("Sonic", Some("(^|[^A-Za-z])Sonic/|RankSonic")),
    ("Butterfly", Some("Butterfly/")),
    ("Fever", Some("Fever/")),
    ("Sogou", Some("Sogou (web|inst|Pic|head|Orion|News|blog)")),
    ("008\\/", Some("(^|[ ;])008/")),
    ("Fluid", None),
    ("Expanse", Some("^Expanse")),
    ("Magellan", Some("Magellan/|^Magellan")),
    ("Viber", Some("^Viber")),
    // The sender's own cache in front of pixeld, which hides the client: nothing is known then.
    ("Amazon CloudFront", None),
];

/// The patterns of the package crawler-user-agents. Mail proxies and programs were recognised before.
static CRAWLERS: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
    let json = include_str!("crawler-user-agents/crawler-user-agents.json");
    let entries: Vec<serde_json::Value> = serde_json::from_str(json).ok()?;
    let patterns = entries.iter().filter_map(|entry| entry.get("pattern")?.as_str());
    let patterns = patterns.filter_map(|pattern| match INSTEAD.iter().find(|(listed, _)| *listed == pattern) {
        Some((_, instead)) => *instead,
        None => Some(pattern),
    });
    RegexSet::new(patterns).ok()
});

impl Agent {
    /// Reads a user agent.
    pub fn read(text: &str) -> Agent {
        let text = text.trim();
        if text.is_empty() {
            return Agent { kind: Kind::Absent, client: Client::Unknown };
        }
        if text == GMAIL_PREFETCH {
            return Agent { kind: Kind::GmailPrefetch, client: Client::Gmail };
        }
        if text == "Mozilla/5.0" {
            return Agent { kind: Kind::BareMozilla, client: Client::AppleHidden };
        }
        if let Some(agent) = named(text)
            // A crawler may use a mail program's name.
            && (agent.kind != Kind::MailClient || !is_crawler(text))
        {
            return agent;
        }
        // Programs on older Macs fetch through the system's own library.
        if text.contains(" CFNetwork/") {
            let of_mac = [("Mail/", Client::AppleMail), ("Outlook/", Client::OutlookMac)];
            if let Some(&(_, client)) = of_mac.iter().find(|(word, _)| text.starts_with(word)) {
                return Agent { kind: Kind::MailClient, client };
            }
        }
        if is_crawler(text) {
            return Agent { kind: Kind::Bot, client: Client::Unknown };
        }
        browser(text).unwrap_or(Agent { kind: Kind::Other, client: Client::Unknown })
    }
}

fn is_crawler(text: &str) -> bool {
    CRAWLERS.as_ref().is_some_and(|crawlers| crawlers.is_match(text))
}

fn named(text: &str) -> Option<Agent> {
    let found = NAMES.as_ref()?.find(text)?;
    let &(_, kind, client) = NAMED.get(found.pattern().as_usize())?;
    Some(Agent { kind, client })
}

fn browser(text: &str) -> Option<Agent> {
    if !text.starts_with("Mozilla/") && !text.starts_with("Opera/") {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let client = BROWSERS.iter().find(|(word, _)| lower.contains(word)).map(|&(_, client)| client)?;
    let is_apple = lower.contains("mac os x") && lower.contains("applewebkit/");
    // A web view of Apple's without its version and without Safari: Apple Mail.
    if is_apple && client == Client::OtherBrowser {
        return Some(Agent { kind: Kind::MailClient, client: Client::AppleMail });
    }
    // Android's web view, in which mail programs show their mails.
    if lower.contains("android") && lower.contains("; wv)") {
        return Some(Agent { kind: Kind::MailClient, client: Client::AndroidMail });
    }
    Some(Agent { kind: Kind::Browser, client })
}
