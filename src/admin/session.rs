//! The token of a session, and its cookie.
//!
//! Guarantees: a token has 256 random bits, and only its SHA-256 reaches the database. No script reads the cookie, no
//! foreign page sends it, and over HTTPS no other host can set it. Gives up: on localhost any program of this machine
//! may listen on another port and be sent the cookie, since cookies do not know ports.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{COOKIE, HeaderMap, HeaderValue};

use super::guard::Way;
use crate::db::sessions::TokenDigest;
use pixeld_core::digest;

/// How long a browser keeps the cookie, in s: no session lasts longer.
const AGE_MAX: u32 = 7 * 86_400;

/// A session's token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no randomness left.
    pub(crate) fn random() -> anyhow::Result<Token> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        Ok(Token(bytes))
    }

    /// The one in a request's cookies.
    pub(crate) fn sent(headers: &HeaderMap, way: Way) -> Option<Token> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == cookie_name(way)).map(|(_, value)| value);
        values.find_map(|value| {
            let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
            Some(Token(bytes.try_into().ok()?))
        })
    }

    /// What the database stores of it.
    pub(crate) fn digest(&self) -> TokenDigest {
        digest::prefix(&[&self.0])
    }

    /// The header that sets it in the browser.
    pub(crate) fn cookie(&self, way: Way) -> HeaderValue {
        cookie(way, &URL_SAFE_NO_PAD.encode(self.0), AGE_MAX)
    }
}

/// The header that removes a token from the browser.
pub(crate) fn cookie_gone(way: Way) -> HeaderValue {
    cookie(way, "", 0)
}

fn cookie_name(way: Way) -> &'static str {
    match way {
        Way::Encrypted => "__Host-pixeld",
        Way::Local | Way::Open => "pixeld",
    }
}

fn cookie(way: Way, value: &str, age: u32) -> HeaderValue {
    let secure = if way == Way::Encrypted { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}", cookie_name(way));
    // Base64 and our own words contain only bytes that a header allows; otherwise nobody would be signed in.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(way: Way, cookies: &[&str]) -> Option<Token> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        Token::sent(&headers, way)
    }

    #[test]
    fn a_token_comes_back_as_it_was_given() {
        for (way, name) in [(Way::Encrypted, "__Host-pixeld="), (Way::Local, "pixeld=")] {
            let token = Token::random().unwrap();
            let header = token.cookie(way);
            let pair = header.to_str().unwrap().split(';').next().unwrap();
            assert!(pair.starts_with(name), "{pair}");
            assert!(sent(way, &[pair]) == Some(token.clone()));
            assert!(sent(way, &["a=b; c", &format!("{name}; {pair}; x=y")]) == Some(token));
        }
        assert!(Token::random().unwrap() != Token::random().unwrap());
    }

    #[test]
    fn only_a_token_is_a_token() {
        let short = format!("pixeld={}", "A".repeat(42));
        let long = format!("pixeld={}", "A".repeat(44));
        let padded = format!("pixeld={}=", "A".repeat(43));
        for cookie in ["", "pixeld", "pixeld=", "pixeld=../..", &short, &long, &padded] {
            assert!(sent(Way::Local, &[cookie]).is_none(), "{cookie}");
        }
        // Over HTTPS, ignore a cookie that any page of a sibling host could set.
        assert!(sent(Way::Encrypted, &[&format!("pixeld={}", "A".repeat(43))]).is_none());
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let header = Token::random().unwrap().cookie(Way::Encrypted);
        for attribute in ["; Path=/;", "; HttpOnly", "; SameSite=Strict", "; Secure", "; Max-Age=604800;"] {
            assert!(header.to_str().unwrap().contains(attribute), "{attribute}");
        }
        assert!(!header.to_str().unwrap().contains("Domain"));
        let gone = cookie_gone(Way::Local);
        assert_eq!(gone, "pixeld=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }
}
