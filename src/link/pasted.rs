//! A link as a person pastes it: whole, without its scheme, only its path, or in its `<img>` tag. Pure.

/// What was pasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pasted<'a> {
    /// The path that would be asked for, without the query.
    pub path: String,
    /// The host in it, where it is another than that of `PIXELD_BASE_URL`.
    pub other_host: Option<&'a str>,
}

/// Reads what was pasted; `base_url` is `PIXELD_BASE_URL`.
#[must_use]
pub fn pasted<'a>(text: &'a str, base_url: &str) -> Pasted<'a> {
    // `pixeld link` prints the link and below it its tag.
    let text = text.trim().split(['\r', '\n']).next().unwrap_or_default();
    let text = source_of(text.trim_end());
    let text = text.split(['?', '#']).next().unwrap_or(text);
    let (host, path) = match text.split_once("://") {
        Some((_, rest)) => host_and_path(rest),
        None if text.starts_with('/') => (None, text),
        // Without a scheme: what stands before the first slash is a host if it looks like one.
        None => match host_and_path(text) {
            (Some(host), path) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
            _ => (None, text),
        },
    };
    let base = base_url.split_once("://").map_or(base_url, |(_, rest)| rest);
    let (base_host, base_path) = host_and_path(base);
    let is_same = |host: &str| {
        let plain = |host: &str| {
            let port = if base_url.starts_with("https:") { ":443" } else { ":80" };
            let host = host.to_ascii_lowercase();
            host.strip_suffix(port).map_or(host.clone(), ToOwned::to_owned)
        };
        plain(host) == plain(base_host.unwrap_or_default())
    };
    let base_path = base_path.trim_end_matches('/');
    let path = path.strip_prefix(base_path).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Pasted { path, other_host: host.filter(|host| !is_same(host)) }
}

/// What stands in `src` of an `<img>` tag; all of it where it is none.
fn source_of(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let Some((_, rest)) = text.split_once("src=") else { return text };
    match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest.get(1..).and_then(|rest| rest.split(quote).next()).unwrap_or(rest),
        _ => rest.split([' ', '>']).next().unwrap_or(rest),
    }
}

fn host_and_path(text: &str) -> (Option<&str>, &str) {
    let at = text.find('/').unwrap_or(text.len());
    (Some(&text[..at]).filter(|host| !host.is_empty()), &text[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_link_is_read_however_it_is_pasted() {
        for (text, path, other_host) in [
            ("https://px.example.com/image/x.gif", "/image/x.gif", None),
            (" HTTPS://PX.example.com:443/image/x.gif?utm=1#x\n", "/image/x.gif", None),
            ("px.example.com/image/x.gif", "/image/x.gif", None),
            ("/image/x.gif", "/image/x.gif", None),
            ("image/x.gif", "/image/x.gif", None),
            ("<img src=\"https://px.example.com/image/x.gif\" alt=\"\">", "/image/x.gif", None),
            ("<img width='1' src='/image/x.gif'>", "/image/x.gif", None),
            ("<img src=/image/x.gif>", "/image/x.gif", None),
            ("http://localhost:8080/image/x.gif", "/image/x.gif", Some("localhost:8080")),
            ("evil.example/image/x.gif", "/image/x.gif", Some("evil.example")),
            ("https://px.example.com", "/", None),
            ("", "/", None),
        ] {
            let expected = Pasted { path: path.to_owned(), other_host };
            assert_eq!(pasted(text, "https://px.example.com"), expected, "{text}");
        }
        assert_eq!(pasted("https://x.org/p/image/a.gif", "https://x.org/p").path, "/image/a.gif");
        assert_eq!(pasted("https://x.org/pimage/a.gif", "https://x.org/p").path, "/pimage/a.gif");
    }

    proptest! {
        #[test]
        fn whatever_is_pasted_has_a_path(text: String, front in "(<img src=[\"']?)?(https?://)?") {
            let text = format!("{front}{text}");
            prop_assert!(pasted(&text, "http://localhost").path.starts_with('/'));
        }
    }
}
