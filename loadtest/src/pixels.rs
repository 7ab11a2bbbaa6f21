//! The requested pixels. Every request has a number, and its recipient contains that number, so that a row in
//! PostgreSQL shows which request made it. A keyed link's recipient is derived from the key, so those are found in a
//! table of all.

use std::collections::HashMap;

use pixeld_core::hit::USER_AGENT_BYTES_MAX;
use pixeld_core::ids::{ImageId, MessageId, RecipientId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::token::{SigningKeys, Token};
use uuid::Uuid;

/// User agents as mail clients and image proxies send them, most frequent ones more than once.
pub const USER_AGENTS: [&str; 12] = [
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; .NET4.0C; .NET4.0E; ms-office; MSOffice 16)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Thunderbird/140.2.0",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9 Build/AP4A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Outlook-iOS/729.2.0.21 (iPhone; iOS 18.5)",
];

/// The messages of a load.
const MESSAGES: u64 = 8;

/// The send time in signed links: 2026-01-01, in s since 1970.
const SENT_AT_S: u32 = 1_767_225_600;

/// The kinds of links that a load requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// `/image/{image}_{message}_{recipient}`.
    Plain,
    /// `/t/{image}/{key}/{key}`.
    Keyed,
    /// `/o/{token}`.
    Signed,
    /// One after the other.
    Mixed,
}

/// What a server's keyed and signed links need.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The namespace of its keys.
    pub namespace: Namespace,
    /// The keys of its tokens.
    pub signing_keys: SigningKeys,
}

/// The pixels of one load.
#[derive(Debug, Clone)]
pub struct Pixels {
    run: u64,
    image: ImageId,
    /// The beginning of every plain path, up to the message.
    front: String,
    /// Whether each request has its own client address in X-Forwarded-For.
    forwarded: bool,
    /// Minimum bytes of each user agent.
    user_agent_bytes_min: usize,
    links: Option<(Links, Secrets)>,
}

impl Pixels {
    /// Pixels of `image`, under new messages and recipients.
    pub fn of(image: ImageId) -> Pixels {
        let run = Uuid::new_v4().as_u128() as u64;
        Pixels { run, image, front: format!("/image/{image}_"), forwarded: false, user_agent_bytes_min: 0, links: None }
    }

    /// The same pixels with links of these kinds.
    #[must_use]
    pub fn with_links(self, links: Links, secrets: Secrets) -> Pixels {
        Pixels { links: Some((links, secrets)), ..self }
    }

    /// The same pixels, each requested from its own client address: X-Forwarded-For, for a server that trusts us.
    #[must_use]
    pub fn with_forwarded_addresses(self) -> Pixels {
        Pixels { forwarded: true, ..self }
    }

    /// The same pixels, requested with user agents of the maximum stored length: hits that soon fill a disk.
    #[must_use]
    pub fn with_long_user_agents(self) -> Pixels {
        Pixels { user_agent_bytes_min: USER_AGENT_BYTES_MAX, ..self }
    }

    /// The messages of this load.
    pub fn messages(&self) -> Vec<MessageId> {
        let mut messages: Vec<MessageId> = (0..MESSAGES).map(|message| self.message(message)).collect();
        if let Some((_, secrets)) = &self.links {
            messages.extend((0..MESSAGES).map(|message| id_of::<MessageId>(secrets, &self.message_key(message))));
        }
        messages
    }

    /// The kind of a request's link.
    fn link(&self, number: u64) -> Links {
        match self.links.as_ref().map_or(Links::Plain, |(links, _)| *links) {
            // Not in step with the messages and user agents, so that each occurs with each kind.
            Links::Mixed => [Links::Plain, Links::Keyed, Links::Signed][(number / 24 % 3) as usize],
            links => links,
        }
    }

    fn message_key(&self, number: u64) -> String {
        format!("load-{:x}-{}", self.run, number % MESSAGES)
    }

    fn recipient_key(&self, number: u64) -> String {
        format!("{number}@{:x}.example.com", self.run)
    }

    fn message(&self, number: u64) -> MessageId {
        MessageId::of(Uuid::from_u64_pair(self.run, 0x8000_0000_0000_0000 | (number % MESSAGES)))
    }

    /// The recipient of a request.
    pub fn recipient(&self, number: u64) -> RecipientId {
        match &self.links {
            Some((_, secrets)) if self.link(number) == Links::Keyed => id_of(secrets, &self.recipient_key(number)),
            _ => self.numbered(number),
        }
    }

    fn numbered(&self, number: u64) -> RecipientId {
        RecipientId::of(Uuid::from_u64_pair(self.run, number + 1))
    }

    /// The requests up to a number whose recipients are derived from keys.
    pub fn keyed(&self, until: u64) -> HashMap<RecipientId, u64> {
        let keyed = (0..until).filter(|&number| self.link(number) == Links::Keyed);
        keyed.map(|number| (self.recipient(number), number)).collect()
    }

    /// The request with this recipient, except for keyed ones; `None` if it is not of this load.
    pub fn number(&self, recipient: RecipientId) -> Option<u64> {
        let (run, number) = recipient.as_uuid().as_u64_pair();
        if run == self.run { number.checked_sub(1) } else { None }
    }

    /// The path of a request.
    pub fn path(&self, number: u64) -> String {
        match &self.links {
            Some(_) if self.link(number) == Links::Keyed => {
                format!("/t/{}/{}/{}.gif", self.image, self.message_key(number), self.recipient_key(number))
            }
            Some((_, secrets)) if self.link(number) == Links::Signed => {
                let (message, recipient) = (self.message(number), self.numbered(number));
                let token = Token { sent_at_s: SENT_AT_S, image: self.image, message, recipient };
                format!("/o/{}.gif", secrets.signing_keys.sign(&token).unwrap_or_default())
            }
            _ => format!("{}{}_{}.gif", self.front, self.message(number), self.numbered(number)),
        }
    }

    /// Appends a request to `out`. `close` asks the server to close the connection after it.
    pub fn put_request(&self, out: &mut Vec<u8>, number: u64, close: bool) {
        out.extend_from_slice(b"GET ");
        if self.link(number) == Links::Plain {
            out.extend_from_slice(self.front.as_bytes());
            let mut id = [0; 36];
            out.extend_from_slice(self.message(number).as_uuid().hyphenated().encode_lower(&mut id).as_bytes());
            out.push(b'_');
            out.extend_from_slice(self.numbered(number).as_uuid().hyphenated().encode_lower(&mut id).as_bytes());
            out.extend_from_slice(b".gif");
        } else {
            out.extend_from_slice(self.path(number).as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\nHost: pixels.example.com\r\nUser-Agent: ");
        let user_agent = USER_AGENTS[(number % USER_AGENTS.len() as u64) as usize];
        out.extend_from_slice(user_agent.as_bytes());
        out.resize(out.len() + self.user_agent_bytes_min.saturating_sub(user_agent.len()), b'x');
        out.extend_from_slice(
            b"\r\nAccept: image/avif,image/webp,image/*,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n",
        );
        if self.forwarded {
            // Spread by a multiplication that reaches each of them once before any twice; one in five is IPv6.
            let [b, c, d] = [16, 8, 0].map(|shift| (number.wrapping_mul(0x9e37_79b1) >> shift) as u8);
            let line = match number % 5 {
                0 => format!("X-Forwarded-For: 2a00:1450:{b:x}:{c:x}::{d:x}\r\n"),
                _ => format!("X-Forwarded-For: 11.{b}.{c}.{d}\r\n"),
            };
            out.extend_from_slice(line.as_bytes());
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn id_of<Id: From<Uuid>>(secrets: &Secrets, key: &str) -> Id {
    secrets.namespace.id_of(&Key::Text(key.as_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_links_are_of_all_kinds_and_keyed_recipients_are_found() {
        let signing_keys = SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").unwrap();
        let secrets = Secrets { namespace: Namespace(Uuid::from_u128(3)), signing_keys };
        let pixels = Pixels::of(ImageId::from_u128(5)).with_links(Links::Mixed, secrets);
        for front in ["/image/", "/t/", "/o/"] {
            assert_eq!((0..72).filter(|&number| pixels.path(number).starts_with(front)).count(), 24, "{front}");
        }
        let keyed = pixels.keyed(72);
        assert_eq!(keyed.len(), 24);
        for number in 0..72 {
            let recipient = pixels.recipient(number);
            assert_eq!(keyed.get(&recipient).copied().or_else(|| pixels.number(recipient)), Some(number));
        }
        assert_eq!(pixels.messages().len(), 16);
    }

    #[test]
    fn a_recipient_identifies_its_request_and_no_other_loads() {
        let (one, other) = (Pixels::of(ImageId::NONE), Pixels::of(ImageId::NONE));
        for number in [0, 1, 77, u64::from(u32::MAX)] {
            assert_eq!(one.number(one.recipient(number)), Some(number));
            assert_eq!(other.number(one.recipient(number)), None);
        }
    }

    #[test]
    fn a_request_asks_for_its_path() {
        let pixels = Pixels::of(ImageId::from_u128(5)).with_forwarded_addresses();
        let mut out = Vec::new();
        pixels.put_request(&mut out, 9, true);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("GET {} HTTP/1.1\r\n", pixels.path(9))), "{text}");
        assert!(text.contains("X-Forwarded-For: 11.") && text.ends_with("Connection: close\r\n\r\n"), "{text}");
    }
}
