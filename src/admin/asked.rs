//! What a page is asked: who asks, and with which words.
//!
//! Guarantees: a form is read up to [`FORM_BYTES_MAX`] and not a byte further. Gives up: what is no UTF-8 becomes �.

use std::net::IpAddr;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderMap, USER_AGENT};

use super::guard::Site;
use super::refusal::Refusal;
use super::session::Token;
use super::view::Zone;
use crate::db::sessions::SignedIn;

/// Most bytes of a form.
pub const FORM_BYTES_MAX: usize = 64 << 10;

/// A request, as a page sees it.
pub struct Asked {
    /// The name that it came to.
    pub site: Site,
    /// Who asks; nobody where nobody is signed in.
    pub user: Option<SignedIn>,
    /// The token that says so; also one that has ended.
    pub token: Option<Token>,
    /// The client's address.
    pub address: IpAddr,
    /// The browser, as it calls itself.
    pub user_agent: String,
    /// What the pattern of the path left open, by name.
    pub parameters: Vec<(&'static str, String)>,
    /// What stands behind the `?`.
    pub query: Fields,
    /// What was filled in; nothing where the page takes an upload, which it reads itself.
    pub form: Fields,
    /// The zone that times are shown in.
    pub zone: Zone,
}

impl Asked {
    /// What the path has in this place.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The name that changes are written down under; only pages that ask for a user change anything.
    #[must_use]
    pub fn actor(&self) -> &str {
        self.user.as_ref().map_or("nobody", |user| &user.name)
    }
}

/// A request to a page without guards.
pub struct Stranger {
    /// The client's address.
    pub address: IpAddr,
    /// What the pattern of the path left open, by name.
    pub parameters: Vec<(&'static str, String)>,
    /// What was filled in; nothing where it came in another form than browsers use.
    pub form: Fields,
    /// `Accept-Language`.
    pub languages: String,
}

impl Stranger {
    /// What the path has in this place.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Named values of a form or a query.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `name=value&…`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Fields {
        Fields(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Adds a value to those that were read.
    pub fn add(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    /// The first value of a name; empty where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The first value of a name, where there is one.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a form.
///
/// # Errors
/// Where it is too large, of another kind, or does not come whole.
pub async fn read_form<B>(headers: &HeaderMap, body: B) -> Result<Fields, Refusal>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if !is_form(headers) {
        return Err(Refusal::NoForm);
    }
    match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(body) => Ok(Fields::parse(&body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::FormTooLarge),
        Err(_) => Err(Refusal::NoForm),
    }
}

/// Reads what a stranger sent: a form, or nothing where it is of another kind, which is read all the same, so that the answer is not lost
/// with the connection.
///
/// # Errors
/// Where it is too large, or does not come whole.
pub async fn read_any<B>(headers: &HeaderMap, body: B) -> Result<Fields, Refusal>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(body) if is_form(headers) => Ok(Fields::parse(&body.to_bytes())),
        Ok(_) => Ok(Fields::default()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::FormTooLarge),
        Err(_) => Err(Refusal::NoForm),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The languages that a reader likes; nothing where the header is no text.
#[must_use]
pub fn languages(headers: &HeaderMap) -> String {
    headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What a browser calls itself.
#[must_use]
pub fn user_agent(headers: &HeaderMap) -> String {
    let bytes = headers.get(USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    // PostgreSQL's text has no NUL, and hyper lets none through; the rest is only shown.
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    async fn form(media_type: &str, body: impl Into<Bytes>) -> Result<Fields, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
        read_form(&headers, Full::new(body.into())).await
    }

    #[tokio::test]
    async fn a_form_is_read_to_its_bound() {
        let kind = "application/x-www-form-urlencoded";
        let fields = form(kind, "name=J%C3%A4ne+D&empty=&name=2&x").await.unwrap();
        assert_eq!([fields.get("name"), fields.get("empty"), fields.get("x"), fields.get("y")], ["Jäne D", "", "", ""]);
        assert!(form("Application/X-www-form-urlencoded; charset=UTF-8", "a=b").await.is_ok());
        assert!(form(kind, "x".repeat(FORM_BYTES_MAX)).await.is_ok());
        assert!(matches!(form(kind, "x".repeat(FORM_BYTES_MAX + 1)).await, Err(Refusal::FormTooLarge)));
        assert!(matches!(form("multipart/form-data; boundary=x", "a=b").await, Err(Refusal::NoForm)));
        assert!(form(kind, &b"a=%ff%00&\xff"[..]).await.is_ok());
    }
}
