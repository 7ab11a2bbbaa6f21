//! What is asked for. Every request has a number, and its recipient holds that number, so that a row in PostgreSQL tells
//! which request made it.

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

/// The messages that a load is spread over.
const MESSAGES: u64 = 8;

/// The pixels of one load.
#[derive(Debug, Clone)]
pub struct Pixels {
    run: u64,
    /// What every path begins with, up to the message.
    front: String,
    /// Whether each request names a client of its own in X-Forwarded-For.
    forwarded: bool,
}

impl Pixels {
    /// Pixels of `image`, under messages and recipients that nobody used before.
    #[must_use]
    pub fn of(image: Uuid) -> Pixels {
        let run = Uuid::new_v4().as_u128() as u64;
        Pixels { run, front: format!("/image/{image}_"), forwarded: false }
    }

    /// The same pixels, each asked for by a client address of its own: X-Forwarded-For, for a server that trusts us.
    #[must_use]
    pub fn with_forwarded_addresses(self) -> Pixels {
        Pixels { forwarded: true, ..self }
    }

    /// The messages of this load.
    #[must_use]
    pub fn messages(&self) -> Vec<Uuid> {
        (0..MESSAGES).map(|message| self.message(message)).collect()
    }

    fn message(&self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.run, 0x8000_0000_0000_0000 | (number % MESSAGES))
    }

    /// The recipient of a request.
    #[must_use]
    pub fn recipient(&self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.run, number + 1)
    }

    /// The request whose recipient this is; nothing where it is none of this load.
    #[must_use]
    pub fn number(&self, recipient: Uuid) -> Option<u64> {
        let (run, number) = recipient.as_u64_pair();
        if run == self.run { number.checked_sub(1) } else { None }
    }

    /// The path of a request.
    #[must_use]
    pub fn path(&self, number: u64) -> String {
        format!("{}{}_{}.gif", self.front, self.message(number), self.recipient(number))
    }

    /// Puts a request behind what `out` holds. `close` asks the server to end the connection after it.
    pub fn put_request(&self, out: &mut Vec<u8>, number: u64, close: bool) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.front.as_bytes());
        let mut id = [0; 36];
        out.extend_from_slice(self.message(number).hyphenated().encode_lower(&mut id).as_bytes());
        out.push(b'_');
        out.extend_from_slice(self.recipient(number).hyphenated().encode_lower(&mut id).as_bytes());
        out.extend_from_slice(b".gif HTTP/1.1\r\nHost: pixels.example.com\r\nUser-Agent: ");
        out.extend_from_slice(USER_AGENTS[(number % USER_AGENTS.len() as u64) as usize].as_bytes());
        out.extend_from_slice(
            b"\r\nAccept: image/avif,image/webp,image/*,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n",
        );
        if self.forwarded {
            // Spread by a multiplication that visits each of them once before any twice; one in five is IPv6.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_tells_its_request_and_no_other_loads() {
        let (one, other) = (Pixels::of(Uuid::nil()), Pixels::of(Uuid::nil()));
        for number in [0, 1, 77, u64::from(u32::MAX)] {
            assert_eq!(one.number(one.recipient(number)), Some(number));
            assert_eq!(other.number(one.recipient(number)), None);
        }
    }

    #[test]
    fn a_request_asks_for_its_path() {
        let pixels = Pixels::of(Uuid::from_u128(5)).with_forwarded_addresses();
        let mut out = Vec::new();
        pixels.put_request(&mut out, 9, true);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("GET {} HTTP/1.1\r\n", pixels.path(9))), "{text}");
        assert!(text.contains("X-Forwarded-For: 11.") && text.ends_with("Connection: close\r\n\r\n"), "{text}");
    }
}
