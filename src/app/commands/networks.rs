//! `pixeld networks`: the lists of providers' networks.

use crate::app::which;
use crate::cli::NetworksUpdateArgs;
use crate::config::Config;
use crate::network_lists::files::Lists;
use crate::network_lists::update;
use pixeld_core::networks::Network;

/// `pixeld networks update`.
///
/// # Errors
/// If a list could not be fetched; the others are fetched.
pub(crate) fn networks_update(config: &Config, args: &NetworksUpdateArgs) -> anyhow::Result<()> {
    which::check_networks(config)?;
    let mut failed = 0;
    for mut list in update::published() {
        let instead = match list.network {
            Network::Apple => &args.apple_url,
            Network::Google => &args.google_url,
            Network::GoogleCloud => &args.google_cloud_url,
            Network::Amazon => &args.amazon_url,
            _ => &None,
        };
        if let Some(url) = instead {
            list.url.clone_from(url);
        }
        match update::update(&config.networks.folder, &list) {
            Ok(ranges) => println!("{}: {ranges} ranges", list.network.name()),
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}; the old list stays", list.network.name());
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} lists were not updated");
    Ok(())
}

/// `pixeld networks status`.
///
/// # Errors
/// If a list is refused.
pub(crate) fn networks_status(config: &Config) -> anyhow::Result<()> {
    which::check_networks(config)?;
    let mut lists = Lists::default();
    let (_, errors) = lists.read_changes(&config.networks.folder);
    println!("{:<14}  {:>9}  {:>10}", "network", "ranges", "age, hours");
    for list in lists.status() {
        let age = pixeld_core::clock::now().duration_since(list.written).unwrap_or_default().as_secs() / 3600;
        println!("{:<14}  {:>9}  {age:>10}", list.network.name(), list.ranges);
    }
    println!("{} ranges, built-in ranges included", lists.networks().known_ranges());
    for error in &errors {
        eprintln!("refused: {error}");
    }
    anyhow::ensure!(errors.is_empty(), "{} lists are refused", errors.len());
    Ok(())
}
