//! The listeners, the beginning of links, and the proxies whose X-Forwarded-For is trusted.
//!
//! Guarantees: the two listeners cannot overlap. A base URL can be followed by `/` and a path, and equals a browser's
//! `Origin` header byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;
use ipnet::{IpNet, Ipv4Net};

use super::value::{Parsed, quote};
use super::vars::{Setting, Vars};

pub(super) const LISTEN: Setting =
    Setting::new("PIXELD_LISTEN", "an IP address and a port, like 0.0.0.0:8080 or [::]:8080");
pub(super) const ADMIN_LISTEN: Setting =
    Setting::new("PIXELD_ADMIN_LISTEN", "an IP address and a port other than PIXELD_LISTEN's, like 127.0.0.1:8081");
pub(super) const BASE_URL: Setting =
    Setting::new("PIXELD_BASE_URL", "an http:// or https:// URL, like https://pixels.example.com");
pub(super) const ADMIN_BASE_URL: Setting = Setting::new(
    "PIXELD_ADMIN_BASE_URL",
    "an http:// or https:// URL without a path, like https://pixel-admin.example.com",
);
pub(super) const TRUSTED_PROXIES: Setting = Setting::new(
    "PIXELD_TRUSTED_PROXIES",
    "up to 1024 addresses or CIDRs, separated by commas, like 10.0.0.0/8, 2001:db8::/32, 192.0.2.7",
);

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const ADMIN_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Longest base URL, in bytes: mail programs break long links.
const BASE_URL_BYTES_MAX: usize = 512;

/// Maximum number of trusted networks; each request from a proxy may be compared with all of them.
const TRUSTED_PROXIES_MAX: usize = 1024;

/// The listeners, and the addresses that lead there.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `PIXELD_LISTEN`: where pixels are served; default `0.0.0.0:8080`. The port is never 0.
    pub public: SocketAddr,
    /// `PIXELD_ADMIN_LISTEN`: where metrics and admin pages are served; default `127.0.0.1:8081`. Never the same as
    /// `public`; the port is never 0.
    pub private: SocketAddr,
    /// `PIXELD_BASE_URL`: the beginning of links in emails; `http://` or `https://`, the host in lower case, no default
    /// port, no trailing slash. A proxy removes the path in it, if any. Default: from `public`.
    pub base_url: String,
    /// Whether the base URL was set, and is not the default.
    pub is_base_url_set: bool,
    /// `PIXELD_ADMIN_BASE_URL`: where people reach the admin listener, in the form of `base_url`. Default: from `private`.
    pub admin_base_url: String,
    /// `PIXELD_TRUSTED_PROXIES`: the peers whose X-Forwarded-For is trusted. None of them is IPv4-mapped IPv6, so
    /// compare with addresses in canonical form. Default: none.
    pub trusted_proxies: Vec<IpNet>,
}

impl Listen {
    pub(super) fn read(vars: &mut Vars) -> Listen {
        let (public, private) = addresses(vars);
        Listen {
            public,
            private,
            base_url: vars.read(&BASE_URL, url_of(public), parse_base_url),
            is_base_url_set: vars.is_set(&[BASE_URL.name, LISTEN.name]) || vars.is_after_serve(),
            admin_base_url: vars.read(&ADMIN_BASE_URL, url_of(private), parse_admin_base_url),
            trusted_proxies: vars.read(&TRUSTED_PROXIES, Vec::new(), parse_networks),
        }
    }
}

/// The public and the private listener's address.
fn addresses(vars: &mut Vars) -> (SocketAddr, SocketAddr) {
    let listen = vars.read(&LISTEN, LISTEN_DEFAULT, parse_listen);
    let admin_listen = vars.read(&ADMIN_LISTEN, ADMIN_LISTEN_DEFAULT, parse_listen);
    if overlap(listen, admin_listen) && !vars.is_refused(&LISTEN) && !vars.is_refused(&ADMIN_LISTEN) {
        let wrong = format!("is {admin_listen}, but PIXELD_LISTEN ({listen}) already listens there");
        vars.refuse(ADMIN_LISTEN.name, wrong, ADMIN_LISTEN.allowed);
    }
    (listen, admin_listen)
}

/// The page's links, cookies and checks apply to a whole host: under a path it would share them with other programs
/// there.
fn parse_admin_base_url(text: &str) -> Parsed<String> {
    let url = parse_base_url(text)?;
    match url.split_once("://").is_some_and(|(_, rest)| rest.contains('/')) {
        true => Err(format!("is {}, which has a path; the admin page needs its own host or port", quote(text))),
        false => Ok(url),
    }
}

fn parse_listen(text: &str) -> Parsed<SocketAddr> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("is {}, which is not an IP address with a port", quote(text)))?;
    // Links and health checks must know the port.
    if address.port() == 0 { Err(format!("is {}, but the port cannot be 0", quote(text))) } else { Ok(address) }
}

/// Whether two listeners use the same port of the same address. `[::]` covers all addresses of both kinds.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip))
}

fn url_of(listen: SocketAddr) -> String {
    let host = match listen.ip().to_canonical() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    match listen.port() {
        80 => format!("http://{host}"),
        port => format!("http://{host}:{port}"),
    }
}

/// A URL in the form that browsers send as an origin: lower case, without the scheme's default port or a slash.
fn parse_base_url(text: &str) -> Parsed<String> {
    if text.contains('@') {
        return Err("has an @: a user name or password would be in every link".to_owned());
    }
    let is = |what: &str| format!("is {}, which {what}", quote(text));
    if text.len() > BASE_URL_BYTES_MAX {
        return Err(is(&format!("is longer than {BASE_URL_BYTES_MAX} bytes")));
    }
    if text.contains(['?', '#']) {
        return Err(is("has a query or a fragment"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]!$&'()*+,;=%".contains(c);
    if let Some(odd) = text.chars().find(|&c| !allowed(c)) {
        return Err(is(&format!("has a {odd:?} (percent-encode it; a host in other letters is written as xn--…)")));
    }
    let uri: Uri = text.parse().map_err(|_| is("is not a URL"))?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
    let (Some(scheme), Some(authority)) = (scheme, uri.authority()) else {
        return Err(is("does not begin with http:// or https://"));
    };
    let host = authority.host();
    if !is_host(host) {
        return Err(is("has no valid host name"));
    }
    let port = match authority.as_str()[host.len()..].strip_prefix(':').map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port != 0 => Some(port),
        Some(_) => return Err(is("has no valid port")),
    };
    let usual = if scheme == "http" { 80 } else { 443 };
    let port = port.filter(|&port| port != usual).map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{scheme}://{}{port}{}", host.to_ascii_lowercase(), uri.path().trim_end_matches('/')))
}

/// Whether this is a host name or an address, an IPv6 one in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // Strictly, host names have no underscore, but those of containers do.
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    host.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(letter))
}

fn parse_networks(text: &str) -> Parsed<Vec<IpNet>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let networks = entries.map(parse_network).collect::<Parsed<Vec<_>>>()?;
    match networks.len() > TRUSTED_PROXIES_MAX {
        true => Err(format!("has {} entries", networks.len())),
        false => Ok(IpNet::aggregate(&networks)),
    }
}

/// A network; a single address is a network of its own. IPv4-mapped IPv6 becomes IPv4, as clients' addresses do.
fn parse_network(text: &str) -> Parsed<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("has {}, which is not an address or CIDR", quote(text)))?;
    match (network.addr().to_canonical(), network) {
        (IpAddr::V4(address), IpNet::V6(mapped)) => {
            let length = mapped.prefix_len().checked_sub(96).and_then(|length| Ipv4Net::new(address, length).ok());
            let network = length.ok_or_else(|| format!("has {}, which covers more than all of IPv4", quote(text)))?;
            Ok(IpNet::V4(network.trunc()))
        }
        _ => Ok(network.trunc()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_listener_is_an_ip_address_and_a_port() {
        for text in ["0.0.0.0:8080", "127.0.0.1:1", "[::]:8080", "[::1]:65535"] {
            assert_eq!(parse_listen(text).unwrap().to_string(), text);
        }
        for text in ["", "8080", ":8080", "localhost:8080", "0.0.0.0", "1.2.3.4:65536", "::1:80", "http://1.2.3.4:80"] {
            assert!(parse_listen(text).unwrap_err().contains("not an IP address with a port"), "{text}");
        }
        assert!(parse_listen("0.0.0.0:0").unwrap_err().contains("port cannot be 0"));
    }

    #[test]
    fn listeners_that_would_share_a_port_overlap() {
        let overlap = |a: &str, b: &str| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(a, b), overlap(b, a), "{a} {b}");
            overlap(a, b)
        };
        assert!(overlap("127.0.0.1:80", "127.0.0.1:80"));
        assert!(overlap("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "[::1]:80"));
        assert!(overlap("[::]:80", "0.0.0.0:80"));
        assert!(overlap("[::ffff:127.0.0.1]:80", "127.0.0.1:80"));
        assert!(!overlap("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!overlap("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlap("0.0.0.0:80", "[::1]:80"));
    }

    #[test]
    fn a_base_url_comes_from_its_listener() {
        for (listen, url) in [
            ("0.0.0.0:8080", "http://localhost:8080"),
            ("[::]:8080", "http://localhost:8080"),
            ("127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("[::1]:8081", "http://[::1]:8081"),
            ("192.0.2.1:80", "http://192.0.2.1"),
        ] {
            assert_eq!(url_of(listen.parse().unwrap()), url);
        }
    }

    #[test]
    fn a_base_url_is_brought_to_the_form_of_an_origin() {
        for (text, url) in [
            ("https://pixels.example.com", "https://pixels.example.com"),
            ("https://pixels.example.com/", "https://pixels.example.com"),
            ("HTTPS://Pixels.Example.COM:443//", "https://pixels.example.com"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://example.com:8443/Mail/pixels/", "https://example.com:8443/Mail/pixels"),
            ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://my_container:8080", "http://my_container:8080"),
        ] {
            assert_eq!(parse_base_url(text).as_deref(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_links_cannot_begin_with_is_refused() {
        for (text, wrong) in [
            ("", "not a URL"),
            ("pixels.example.com", "does not begin with http"),
            ("/pixels", "does not begin with http"),
            ("ftp://example.com", "does not begin with http"),
            ("https://", "not a URL"),
            ("https:///path", "not a URL"),
            ("https://example.com?a=b", "query"),
            ("https://example.com/#top", "fragment"),
            ("https://example.com:0", "no valid port"),
            ("https://example.com:", "no valid port"),
            ("https://example.com:65536", "no valid port"),
            ("https://exa mple.com", "has a ' '"),
            ("https://bücher.example", "has a 'ü'"),
            ("https://example.com/\"><script>", "has a '\"'"),
            ("https://example..com", "no valid host"),
            ("https://[::1", "not a URL"),
            ("https://[1.2.3.4]", "no"),
        ] {
            let error = parse_base_url(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
        assert!(parse_base_url(&format!("https://example.com/{}", "a".repeat(600))).unwrap_err().contains("longer"));
    }

    #[test]
    fn the_admin_page_is_under_no_path() {
        for text in ["https://example.com/admin", "https://example.com:8443/a/b/", "http://[::1]:8081/x"] {
            assert!(parse_admin_base_url(text).unwrap_err().contains("has a path"), "{text}");
        }
        for text in ["https://admin.example.com", "https://admin.example.com:8443/"] {
            assert_eq!(parse_admin_base_url(text).as_deref(), Ok(text.trim_end_matches('/')));
        }
    }

    #[test]
    fn a_password_in_a_base_url_is_refused_and_not_shown() {
        let error = parse_base_url("https://user:hunter2@example.com").unwrap_err();
        assert!(error.contains('@') && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn trusted_networks_are_read_with_bare_addresses_and_mapped_ones() {
        let read = |text| parse_networks(text).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (text, networks) in [
            ("10.0.0.0/8", vec!["10.0.0.0/8"]),
            ("10.1.2.3/8", vec!["10.0.0.0/8"]),
            ("192.0.2.7", vec!["192.0.2.7/32"]),
            ("2001:db8::1", vec!["2001:db8::1/128"]),
            (" 10.0.0.0/8 ,2001:db8::/32, ", vec!["10.0.0.0/8", "2001:db8::/32"]),
            ("::ffff:10.0.0.0/104", vec!["10.0.0.0/8"]),
            ("::ffff:192.0.2.7", vec!["192.0.2.7/32"]),
            ("::ffff:0:0/96", vec!["0.0.0.0/0"]),
            ("10.0.0.0/8,10.1.0.0/16", vec!["10.0.0.0/8"]),
            (",", vec![]),
        ] {
            assert_eq!(read(text), Ok(networks.into_iter().map(str::to_owned).collect()), "{text}");
        }
        for text in
            ["10.0.0.0/33", "10.0.0", "localhost", "10.0.0.0/8 10.1.0.0/16", "10.0.0.0/8;", "::/129", "1.2.3.4:80"]
        {
            assert!(parse_networks(text).unwrap_err().contains("not an address or CIDR"), "{text}");
        }
        assert!(parse_networks("::ffff:10.0.0.0/95").unwrap_err().contains("more than all of IPv4"));
        assert!(parse_networks(&"10.0.0.1,".repeat(1025)).unwrap_err().contains("1025 entries"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text: String, rest in "[ -~]{0,40}") {
            for text in [text, rest.clone(), format!("http://{rest}")] {
                drop((parse_listen(&text), parse_networks(&text)));
                if let Ok(url) = parse_base_url(&text) {
                    prop_assert_eq!(parse_base_url(&url), Ok(url.clone()));
                }
            }
        }
    }
}
