//! The settings as people may see them.
//!
//! Guarantees: a secret is shown only as set or not set, or as an address without credentials. All of
//! [`super::SETTINGS`] are here, in the same order.

use super::{Config, Durability, redis};
use pixeld_core::privacy::IpPrivacy;

impl Config {
    /// Each setting's variable and its value in words, without secrets.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        let secret = |is_set: bool| if is_set { "set (not shown)" } else { "not set" }.to_owned();
        let switch = |on: bool, word: &str| if on { word.to_owned() } else { "off".to_owned() };
        let list = |words: Vec<String>| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        vec![
            ("PIXELD_LISTEN", self.listen.public.to_string()),
            ("PIXELD_ADMIN_LISTEN", self.listen.private.to_string()),
            ("PIXELD_BASE_URL", self.listen.base_url.clone()),
            ("PIXELD_ADMIN_BASE_URL", self.listen.admin_base_url.clone()),
            ("PIXELD_TRUSTED_PROXIES", list(self.listen.trusted_proxies.iter().map(ToString::to_string).collect())),
            ("PIXELD_SIGNING_KEYS", secret(!self.signing.keys.is_empty())),
            ("PIXELD_REQUIRE_SIGNED", self.signing.is_required.to_string()),
            ("PIXELD_DATA_DIR", self.storage.data_dir.display().to_string()),
            (
                "DATABASE_URL",
                match &self.storage.database_url {
                    Some(_) => secret(true),
                    None => "not set: pixeld runs PostgreSQL itself".to_owned(),
                },
            ),
            ("PIXELD_REQUIRE_DATABASE_URL", self.storage.require_database_url.to_string()),
            ("PG_BIN", self.storage.pg_bin.as_ref().map_or("not set".to_owned(), |path| path.display().to_string())),
            (
                "PIXELD_DURABILITY",
                match self.storage.durability {
                    Durability::Written => "written".to_owned(),
                    Durability::Synced => "synced".to_owned(),
                },
            ),
            ("PIXELD_SPOOL_BYTES_MAX", size(self.storage.spool_bytes_max)),
            (
                "PIXELD_SPOOL_KEEP",
                format!("{:?}, {}", self.storage.spool_keep.age, size(self.storage.spool_keep.bytes)),
            ),
            (
                "REDIS_URL",
                self.limits.redis_url.as_ref().map_or("not set: each node throttles alone".to_owned(), redis::shown),
            ),
            ("PIXELD_THROTTLE", self.limits.throttle.map_or("off".to_owned(), |time| format!("{time:?}"))),
            ("PIXELD_ADDRESS_RATE", self.limits.address_rate.map_or("off".to_owned(), |rate| format!("{rate}/s"))),
            ("PIXELD_CONNECTIONS_MAX", self.limits.connections_max.to_string()),
            ("PIXELD_THREADS", self.limits.threads.to_string()),
            ("PIXELD_DRAIN_SECONDS", self.limits.drain.as_secs().to_string()),
            ("PIXELD_NETWORKS_DIR", self.networks.folder.display().to_string()),
            ("PIXELD_NETWORKS_UPDATE", switch(self.networks.is_daily, "daily")),
            (
                "PIXELD_IP_PRIVACY",
                match self.privacy.addresses {
                    IpPrivacy::Full => "full".to_owned(),
                    IpPrivacy::Truncated => "truncated".to_owned(),
                    IpPrivacy::None => "none".to_owned(),
                },
            ),
            ("PIXELD_RETENTION_DAYS", self.privacy.retention_days.map_or("off".to_owned(), |days| days.to_string())),
            ("PIXELD_LOG", self.telemetry.log.clone()),
            ("SENTRY_DSN", secret(self.telemetry.sentry_dsn.is_some())),
            ("DJANGO_DATABASE_URL", secret(self.former.database_url.is_some())),
        ]
    }
}

/// A number of bytes in the largest unit that divides it.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|&(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    unit.map_or(format!("{bytes} B"), |(shift, name)| format!("{} {name}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn every_setting_is_shown_and_no_secret_is() {
        let vars = [
            ("DATABASE_URL", "postgresql://u:geheim@db/x"),
            ("REDIS_URL", "redis://geheim:geheim@redis.example.com/2"),
            ("SENTRY_DSN", "https://geheim@sentry.example.com/1"),
            ("PIXELD_SIGNING_KEYS", "1:Z2VoZWltZ2VoZWltZ2VoZWlt"),
            ("PIXELD_SPOOL_BYTES_MAX", "67108865"),
        ];
        let config = Config::from_vars(vars.map(|(name, value)| (name.into(), value.into()))).unwrap();
        let shown = config.shown();
        let names: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names, known);
        let text = format!("{shown:?}");
        assert!(!text.contains("geheim") && !text.contains("Z2Vo"), "{text}");
        assert!(text.contains("redis.example.com:6379, database 2 (password not shown)"), "{text}");
        assert!(text.contains("67108865 B") && text.contains("3600s, 1 GiB"), "{text}");
    }
}
