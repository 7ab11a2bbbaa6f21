//! What can fetch a pixel, and how much its fetch says about a reader.

/// What fetched a pixel. The numbers are stored in PostgreSQL and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum Class {
    /// There is no evidence.
    Unknown = 0,
    /// A mail client or browser, for its user.
    Human = 1,
    /// A mailbox provider's image proxy, for a person whose address it hides.
    Proxied = 2,
    /// Apple Mail Privacy Protection: fetched whether or not anyone looked.
    PrivacyPrefetch = 3,
    /// A browser or provider, before anyone looked.
    Prefetch = 4,
    /// A security gateway.
    Scanner = 5,
    /// A crawler or script.
    Bot = 6,
}

/// How certain a hit is to be a person's: the three numbers that people see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// A person looked.
    Confirmed,
    /// Perhaps a person looked; leaving these out would undercount Apple's readers.
    Possible,
    /// A machine fetched it.
    Machine,
}

impl Class {
    /// All of them, by number.
    pub const ALL: [Class; 7] = [
        Class::Unknown,
        Class::Human,
        Class::Proxied,
        Class::PrivacyPrefetch,
        Class::Prefetch,
        Class::Scanner,
        Class::Bot,
    ];

    /// The number in PostgreSQL.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The class of a number; `None` if there is none.
    pub fn of(number: i16) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.number() == number)
    }

    /// The name for people and in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Unknown => "unknown",
            Class::Human => "human",
            Class::Proxied => "proxied",
            Class::PrivacyPrefetch => "privacy_prefetch",
            Class::Prefetch => "prefetch",
            Class::Scanner => "scanner",
            Class::Bot => "bot",
        }
    }

    /// Which of the three numbers it counts in.
    pub const fn certainty(self) -> Certainty {
        match self {
            Class::Human | Class::Proxied => Certainty::Confirmed,
            Class::Unknown | Class::PrivacyPrefetch => Certainty::Possible,
            Class::Prefetch | Class::Scanner | Class::Bot => Certainty::Machine,
        }
    }

    /// Its rank among the hits of an open, 0 the best; the same as SQL's `class_rank`.
    pub const fn rank(self) -> i16 {
        match self {
            Class::Human => 0,
            Class::Proxied => 1,
            Class::Unknown => 2,
            Class::PrivacyPrefetch => 3,
            Class::Prefetch => 4,
            Class::Scanner => 5,
            Class::Bot => 6,
        }
    }
}
