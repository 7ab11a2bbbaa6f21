//! The checks that a request passes before any page looks at it. Pure.
//!
//! Guarantees: a page answers only under the name that `PIXELD_ADMIN_BASE_URL` gives it, or as localhost, so that a
//! foreign name that points here (DNS rebinding) reads nothing. A request that changes something comes from one of our
//! own pages.

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;

/// How far the connection between browser and pixeld can be trusted with a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTPS.
    Encrypted,
    /// Within this machine, or through the user's own tunnel.
    Local,
    /// Plain HTTP over a network.
    Open,
}

/// A name that pages answer under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// As browsers write it in `Origin`.
    pub origin: String,
    /// How it is reached.
    pub way: Way,
    /// As browsers write it in `Host`.
    authority: String,
}

impl Site {
    /// The site of an origin or a base URL, whose path is left out.
    fn of(url: &str) -> Option<Site> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or(rest).to_owned();
        let host =
            authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(&*authority, |(host, _)| host);
        let way = match scheme {
            "https" => Way::Encrypted,
            _ if LOCAL_HOSTS.contains(&host) => Way::Local,
            _ => Way::Open,
        };
        Some(Site { origin: format!("{scheme}://{authority}"), way, authority })
    }

    /// Its host without the port.
    pub(crate) fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.authority,
        }
    }
}

const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// All names that pages answer under.
#[derive(Debug, Clone)]
pub(crate) struct Sites(Vec<Site>);

impl Sites {
    /// The base URL's, and localhost with the listener's port.
    pub(crate) fn new(base_url: &str, listen: SocketAddr) -> Sites {
        let port = if listen.port() == 80 { String::new() } else { format!(":{}", listen.port()) };
        let local = LOCAL_HOSTS.iter().map(|host| format!("http://{host}{port}"));
        Sites(std::iter::once(base_url.to_owned()).chain(local).filter_map(|url| Site::of(&url)).collect())
    }

    /// The one that is shown to people.
    pub(crate) fn first(&self) -> Option<&Site> {
        self.0.first()
    }

    /// The one that a request is for; `None` if it is for none, or for two at once.
    pub(crate) fn asked(&self, parts: &Parts) -> Option<&Site> {
        let host = one(&parts.headers, HOST.as_str())?.to_ascii_lowercase();
        if parts.uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(&host)) {
            return None;
        }
        let named = |site: &&Site| {
            let usual = if site.way == Way::Encrypted { ":443" } else { ":80" };
            site.authority == host || host.strip_suffix(usual) == Some(&site.authority)
        };
        self.0.iter().find(named)
    }
}

/// The value of a header that occurs exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::to_str)?.ok()?;
    values.next().is_none().then_some(first)
}

/// Whether a request that would change something comes from a page of this site. `Sec-Fetch-Site` says so, and no page
/// can forge it; browsers without it send `Origin`. A client that sends neither is not a browser that is signed in.
pub(crate) fn is_from_own_page(headers: &HeaderMap, site: &Site) -> bool {
    if headers.contains_key("sec-fetch-site") {
        return one(headers, "sec-fetch-site") == Some("same-origin");
    }
    one(headers, ORIGIN.as_str()) == Some(&site.origin)
}

/// Whether this is a click on a link on another site: the browser then leaves out a `SameSite=Strict` cookie, and sends
/// it when our own page repeats the request.
pub(crate) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    matches!(one(headers, "sec-fetch-site"), Some("cross-site" | "same-site"))
        && one(headers, "sec-fetch-mode") == Some("navigate")
}

/// A path of our own for after the sign-in; the start page for anything else.
pub(crate) fn safe_next(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//") && next.len() <= 1024;
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_path && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn sites() -> Sites {
        Sites::new("https://admin.example.com", "127.0.0.1:8081".parse().unwrap())
    }

    #[test]
    fn pages_answer_under_the_base_url_and_as_localhost_with_their_port_only() {
        let sites = sites();
        for (host, way) in [
            ("admin.example.com", Way::Encrypted),
            ("Admin.Example.COM", Way::Encrypted),
            ("admin.example.com:443", Way::Encrypted),
            ("localhost:8081", Way::Local),
            ("127.0.0.1:8081", Way::Local),
            ("[::1]:8081", Way::Local),
        ] {
            assert_eq!(sites.asked(&parts("/", &[("host", host)])).unwrap().way, way, "{host}");
        }
        for host in [
            "evil.example",
            "admin.example.com.evil.example",
            "admin.example.com:8081",
            "admin.example.com.",
            "localhost",
            "localhost:80",
            "127.0.0.1:8080",
            "127.0.0.2:8081",
            "[::1]",
            "",
            "admin.example.com, evil.example",
        ] {
            assert_eq!(sites.asked(&parts("/", &[("host", host)])), None, "{host}");
        }
        assert_eq!(sites.asked(&parts("/", &[])), None);
        assert_eq!(sites.asked(&parts("/", &[("host", "localhost:8081"), ("host", "evil.example")])), None);
        let absolute = "http://evil.example/";
        assert_eq!(sites.asked(&parts(absolute, &[("host", "localhost:8081")])), None);
    }

    #[test]
    fn plain_http_off_localhost_is_an_open_way() {
        for (url, way, host) in [
            ("http://pixels.example.com:8081/", Way::Open, "pixels.example.com"),
            ("http://10.0.0.5", Way::Open, "10.0.0.5"),
            ("http://localhost.evil.example", Way::Open, "localhost.evil.example"),
            ("http://[::1]:8081", Way::Local, "[::1]"),
            ("http://[::1]", Way::Local, "[::1]"),
            ("http://127.0.0.1:9", Way::Local, "127.0.0.1"),
            ("https://[2001:db8::1]:8443/x", Way::Encrypted, "[2001:db8::1]"),
        ] {
            let site = Site::of(url).unwrap();
            assert_eq!((site.way, site.host()), (way, host), "{url}");
        }
        let sites = Sites::new("http://localhost", "0.0.0.0:80".parse().unwrap());
        assert_eq!(sites.asked(&parts("/", &[("host", "127.0.0.1")])).unwrap().way, Way::Local);
    }

    #[test]
    fn only_our_own_pages_change_anything() {
        let sites = sites();
        let site = sites.first().unwrap();
        let own = |headers: &[(&str, &str)]| is_from_own_page(&parts("/", headers).headers, site);
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("origin", "https://admin.example.com")]));
        for headers in [
            &[][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://admin.example.com")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("origin", "null")],
            &[("origin", "http://admin.example.com")],
            &[("origin", "https://admin.example.com.evil.example")],
            &[("origin", "https://admin.example.com"), ("origin", "https://evil.example")],
            &[("referer", "https://admin.example.com/settings")],
        ] {
            assert!(!own(headers), "{headers:?}");
        }
    }

    #[test]
    fn after_the_sign_in_nobody_is_sent_elsewhere() {
        for next in ["/", "/settings", "/messages?before=1&x=%20", "/a//b"] {
            assert_eq!(safe_next(next), next);
        }
        for next in [
            "",
            "settings",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\r\nSet-Cookie: x",
            "/ä",
            "javascript:alert(1)",
            &format!("/{}", "x".repeat(1024)),
        ] {
            assert_eq!(safe_next(next), "/", "{next:?}");
        }
    }
}
