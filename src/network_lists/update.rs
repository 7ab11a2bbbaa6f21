//! Fetches the lists that providers publish.
//!
//! Guarantees: a list is replaced whole, by a file that was synced and renamed, and only if it was read without errors;
//! after any failure the old one stays. A failing list does not stop the others. Blocks its thread, for at most
//! [`FETCH_WAIT`] per list.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::files::{FILE_BYTES_MAX, prefix};
use pixeld_core::networks::Network;

/// Maximum time for one list.
pub(crate) const FETCH_WAIT: Duration = Duration::from_secs(60);

/// The format in which a provider publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Lines of comma-separated values, the prefix first.
    Csv,
    /// JSON with `prefixes`, each with `ipv4Prefix` or `ipv6Prefix` (Google).
    GoogleJson,
    /// JSON with `prefixes` of `ip_prefix` and `ipv6_prefixes` of `ipv6_prefix` (Amazon).
    AmazonJson,
}

/// One list and its URL.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// The network.
    pub network: Network,
    /// Its URL.
    pub url: String,
    format: Format,
}

/// The published lists, at their providers' URLs.
pub(crate) fn published() -> Vec<Published> {
    let list = |network, url: &str, format| Published { network, url: url.to_owned(), format };
    vec![
        list(Network::Apple, "https://mask-api.icloud.com/egress-ip-ranges.csv", Format::Csv),
        // Google's own list contains its cloud's customers, too, and only this one distinguishes them: it comes first.
        list(Network::GoogleCloud, "https://www.gstatic.com/ipranges/cloud.json", Format::GoogleJson),
        list(Network::Google, "https://www.gstatic.com/ipranges/goog.json", Format::GoogleJson),
        list(Network::Amazon, "https://ip-ranges.amazonaws.com/ip-ranges.json", Format::AmazonJson),
    ]
}

/// Fetches one list into `folder`. Returns its number of ranges, neighbours joined.
///
/// # Errors
/// Why the old list stays.
pub(crate) fn update(folder: &Path, list: &Published) -> anyhow::Result<usize> {
    if list.network == Network::Google && !folder.join("google_cloud.txt").exists() {
        anyhow::bail!("{}: without the list of Google Cloud, its customers would look like Google", list.url);
    }
    let text = fetch(&list.url)?;
    let prefixes = read(&text, list.format).map_err(|error| anyhow::anyhow!("{}: {error}", list.url))?;
    let name = list.network.name();
    replace(&folder.join(format!("{name}.txt")), &list.url, &prefixes)?;
    Ok(prefixes.len())
}

fn fetch(url: &str) -> anyhow::Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_WAIT))
        .user_agent(concat!("pixeld/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots()?).build())
        .build()
        .into();
    let said = |error: ureq::Error| match error.to_string() {
        text if text.contains("UnknownIssuer") => anyhow::anyhow!(
            "{url}: {text}: the certificate comes from an unknown authority (a proxy's?); name that authority's \
             certificate in SSL_CERT_FILE"
        ),
        text => anyhow::anyhow!("{url}: {text}"),
    };
    let mut answer = agent.get(url).call().map_err(said)?;
    let body = answer.body_mut().with_config().limit(FILE_BYTES_MAX).read_to_string();
    body.map_err(said)
}

/// The system's roots, or those that `SSL_CERT_FILE` or `SSL_CERT_DIR` names; built-in ones if the system has none.
fn roots() -> anyhow::Result<RootCerts> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).into());
    }
    let is_named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    anyhow::ensure!(
        !is_named,
        "SSL_CERT_FILE or SSL_CERT_DIR is set, but no certificate can be read there: {}",
        reasons.join("; ")
    );
    Ok(RootCerts::WebPki)
}

fn read(text: &str, format: Format) -> Result<Vec<IpNet>, String> {
    let mut prefixes = Vec::new();
    match format {
        Format::Csv => {
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
                let first = line.split(',').next().unwrap_or_default().trim();
                prefixes.push(prefix(first).map_err(|error| format!("line {number}: {error}"))?);
            }
        }
        Format::GoogleJson => collect(text, &[("prefixes", &["ipv4Prefix", "ipv6Prefix"])], &mut prefixes)?,
        Format::AmazonJson => {
            collect(text, &[("prefixes", &["ip_prefix"]), ("ipv6_prefixes", &["ipv6_prefix"])], &mut prefixes)?;
        }
    }
    if prefixes.is_empty() {
        return Err("it holds no prefix".to_owned());
    }
    Ok(IpNet::aggregate(&prefixes))
}

/// Collects the prefixes of JSON lists; each entry must have exactly one of the list's fields.
fn collect(text: &str, lists: &[(&str, &[&str])], prefixes: &mut Vec<IpNet>) -> Result<(), String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    for (list, fields) in lists {
        let entries =
            json.get(list).and_then(|entries| entries.as_array()).ok_or(format!("it has no list {list:?}"))?;
        for (number, entry) in (1..).zip(entries) {
            let text = fields.iter().find_map(|&field| entry.get(field)?.as_str());
            let text = text.ok_or(format!("entry {number} of {list:?} has none of {}", fields.join(", ")))?;
            prefixes.push(prefix(text).map_err(|error| format!("entry {number} of {list:?}: {error}"))?);
        }
    }
    Ok(())
}

fn replace(path: &Path, url: &str, prefixes: &[IpNet]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // A name of its own, in case two processes update at once.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = io::BufWriter::new(File::create(&fresh)?);
    writeln!(file, "# From {url}; `pixeld networks update` replaces this file.")?;
    for prefix in prefixes {
        writeln!(file, "{prefix}")?;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_their_providers_publish_them() {
        for (format, text) in [
            (Format::Csv, "192.0.2.0/31,GB,GB-EN,London,\n192.0.2.2/31,GB,GB-EN,London,\n2001:db8::/64,US,US-CA,,\n"),
            (
                Format::GoogleJson,
                r#"{"syncToken": "1", "creationTime": "2026-11-01T00:00:00", "prefixes": [
                    {"ipv4Prefix": "192.0.2.0/30", "service": "Google Cloud", "scope": "x"}, {"ipv6Prefix": "2001:db8::/64"}]}"#,
            ),
            (
                Format::AmazonJson,
                r#"{"prefixes": [{"ip_prefix": "192.0.2.0/30", "region": "x", "service": "EC2"}],
                    "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/64"}]}"#,
            ),
        ] {
            let prefixes: Vec<String> = read(text, format).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(prefixes, ["192.0.2.0/30", "2001:db8::/64"], "{format:?}");
        }
    }

    #[test]
    fn one_mistake_refuses_the_whole_list() {
        for (format, text, said) in [
            (Format::Csv, "192.0.2.0/24,GB\n<html>\n", "line 2"),
            (Format::Csv, "", "no prefix"),
            (Format::Csv, "0.0.0.0/0,US\n", "too wide"),
            (Format::GoogleJson, "<html>", "not JSON"),
            (Format::GoogleJson, "{}", "\"prefixes\""),
            (Format::GoogleJson, r#"{"prefixes": []}"#, "no prefix"),
            (Format::GoogleJson, r#"{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}, {"ip": "x"}]}"#, "entry 2"),
            (Format::AmazonJson, r#"{"prefixes": [{"ip_prefix": "x"}], "ipv6_prefixes": []}"#, "entry 1"),
        ] {
            let error = read(text, format).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
