//! A request as a page sees it: who sent it, and its fields.
//!
//! Guarantees: a form is read up to [`FORM_BYTES_MAX`] and no further. Gives up: bytes that are not UTF-8 become �.

use std::net::IpAddr;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderMap, USER_AGENT};

use super::guard::Site;
use super::refusal::Refusal;
use super::session::Token;
use super::view::Zone;
use crate::db::sessions::SignedIn;

/// Maximum bytes of a form.
pub(crate) const FORM_BYTES_MAX: usize = 64 << 10;

/// A request, as a page sees it.
pub(crate) struct PageRequest {
    /// The name under which it arrived.
    pub site: Site,
    /// The user; `None` if nobody is signed in.
    pub user: Option<SignedIn>,
    /// The session's token, even if the session has ended.
    pub token: Option<Token>,
    /// The client's address.
    pub address: IpAddr,
    /// The browser's user agent.
    pub user_agent: String,
    /// The values of the pattern's parameters, by name.
    pub parameters: Vec<(&'static str, String)>,
    /// The query, after the `?`.
    pub query: Fields,
    /// The form's fields; empty if the page takes an upload, which it reads itself.
    pub form: Fields,
    /// The zone that times are shown in.
    pub zone: Zone,
}

impl PageRequest {
    /// The value of a path parameter.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The name under which changes are logged in the audit; only pages that require a user change anything.
    pub(crate) fn actor(&self) -> &str {
        self.user.as_ref().map_or("nobody", |user| &user.name)
    }
}

/// A request to a page without guards.
pub(crate) struct PublicRequest {
    /// The client's address.
    pub address: IpAddr,
    /// The values of the pattern's parameters, by name.
    pub parameters: Vec<(&'static str, String)>,
    /// The form's fields; empty if the form was sent in a format that browsers do not use.
    pub form: Fields,
    /// `Accept-Language`.
    pub languages: String,
}

impl PublicRequest {
    /// The value of a path parameter.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Named values of a form or a query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `name=value&…`.
    pub(crate) fn parse(text: &[u8]) -> Fields {
        Fields(form_urlencoded::parse(text).into_owned().collect())
    }

    /// Adds a value.
    pub(crate) fn add(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    /// The first value of a name; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The first value of a name, if there is one.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a form.
///
/// # Errors
/// If the form is too large, of another type, or incomplete.
pub(crate) async fn read_form<B>(headers: &HeaderMap, body: B) -> Result<Fields, Refusal>
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

/// Reads a stranger's form. One of another type gives no fields; it is still read to the end, since otherwise the
/// answer could be lost with the connection.
///
/// # Errors
/// If it is too large or incomplete.
pub(crate) async fn read_any<B>(headers: &HeaderMap, body: B) -> Result<Fields, Refusal>
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

/// The languages that a reader prefers; empty if the header is not text.
pub(crate) fn languages(headers: &HeaderMap) -> String {
    headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The browser's user agent.
pub(crate) fn user_agent(headers: &HeaderMap) -> String {
    let bytes = headers.get(USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    // PostgreSQL's text allows no NUL, and hyper lets none through; the text is only shown.
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
