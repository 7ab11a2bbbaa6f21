//! The settings as a whole; the grammars of single values are tested beside them.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pixeld_core::privacy::IpPrivacy;

use super::*;

const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example"));

const SECRETS: [&str; 5] = ["DATABASE_URL", "REDIS_URL", "SENTRY_DSN", "PIXELD_SIGNING_KEYS", "DJANGO_DATABASE_URL"];

fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(vars.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The one problem with these variables.
fn problem(vars: &[(&str, &str)]) -> Problem {
    let error = read(vars).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
    error.problems()[0].clone()
}

fn secret_file(content: &[u8]) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn without_settings_the_defaults_of_the_contract_hold() {
    let config = read(&[]).unwrap();
    assert_eq!(config.listen.public.to_string(), "0.0.0.0:8080");
    assert_eq!(config.listen.private.to_string(), "127.0.0.1:8081");
    assert_eq!(config.listen.base_url, "http://localhost:8080");
    assert_eq!(config.listen.admin_base_url, "http://127.0.0.1:8081");
    assert_eq!(config.storage.data_dir, std::env::current_dir().unwrap().join("data"));
    assert!(
        config.storage.database_url.is_none()
            && config.storage.pg_bin.is_none()
            && config.telemetry.sentry_dsn.is_none()
    );
    assert!(config.limits.redis_url.is_none());
    assert!(config.listen.trusted_proxies.is_empty());
    assert_eq!(config.storage.durability, Durability::Written);
    assert_eq!(config.limits.throttle, Some(Duration::from_secs(3600)));
    assert_eq!(config.limits.address_rate, NonZeroU32::new(1000));
    assert_eq!(config.privacy.addresses, IpPrivacy::Full);
    assert_eq!(config.privacy.retention_days, None);
    assert_eq!(config.storage.spool_bytes_max, 8 << 30);
    assert_eq!(config.storage.spool_keep, SpoolKeep { age: Duration::from_secs(3600), bytes: 1 << 30 });
    assert_eq!(config.limits.connections_max, 20_000);
    assert_eq!(config.limits.threads, std::thread::available_parallelism().unwrap().get());
    assert_eq!(config.limits.drain, Duration::from_secs(10));
    assert_eq!(config.telemetry.log, "info");
}

#[test]
fn each_setting_is_read_from_its_variable() {
    let config = read(&[
        ("PIXELD_LISTEN", "[::]:80"),
        ("PIXELD_ADMIN_LISTEN", "127.0.0.1:9000"),
        ("PIXELD_BASE_URL", "https://pixels.example.com/"),
        ("PIXELD_ADMIN_BASE_URL", "https://admin.example.com"),
        ("PIXELD_DATA_DIR", "/var/lib/pixeld"),
        ("DATABASE_URL", "postgresql://pixeld@db/pixeld"),
        ("PG_BIN", "/opt/pg/bin"),
        ("REDIS_URL", "redis://:password@redis.example.com:6380/1"),
        ("SENTRY_DSN", "https://key@sentry.example.com/1"),
        ("PIXELD_TRUSTED_PROXIES", "10.0.0.0/8"),
        ("PIXELD_DURABILITY", "synced"),
        ("PIXELD_THROTTLE", "500ms"),
        ("PIXELD_ADDRESS_RATE", "5/s"),
        ("PIXELD_IP_PRIVACY", "truncated"),
        ("PIXELD_RETENTION_DAYS", "365"),
        ("PIXELD_SPOOL_BYTES_MAX", "64 MiB"),
        ("PIXELD_SPOOL_KEEP", "10s/512MiB"),
        ("PIXELD_CONNECTIONS_MAX", "1"),
        ("PIXELD_THREADS", "3"),
        ("PIXELD_DRAIN_SECONDS", "0"),
        ("PIXELD_LOG", "warn,pixeld::ingest=debug"),
    ])
    .unwrap();
    assert_eq!(config.listen.public.to_string(), "[::]:80");
    assert_eq!(config.listen.private.to_string(), "127.0.0.1:9000");
    assert_eq!(config.listen.base_url, "https://pixels.example.com");
    assert_eq!(config.listen.admin_base_url, "https://admin.example.com");
    assert_eq!(config.storage.data_dir, PathBuf::from("/var/lib/pixeld"));
    assert_eq!(config.storage.database_url.unwrap().expose(), "postgresql://pixeld@db/pixeld");
    assert_eq!(config.limits.redis_url.unwrap().expose(), "redis://:password@redis.example.com:6380/1");
    assert_eq!(config.storage.pg_bin, Some("/opt/pg/bin".into()));
    assert_eq!(config.telemetry.sentry_dsn.unwrap().expose(), "https://key@sentry.example.com/1");
    assert_eq!(config.listen.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.storage.durability, Durability::Synced);
    assert_eq!(config.limits.throttle, Some(Duration::from_millis(500)));
    assert_eq!(config.limits.address_rate, NonZeroU32::new(5));
    assert_eq!(config.privacy.addresses, IpPrivacy::Truncated);
    assert_eq!(config.privacy.retention_days, NonZeroU32::new(365));
    assert_eq!(config.storage.spool_bytes_max, 64 << 20);
    assert_eq!(config.storage.spool_keep, SpoolKeep { age: Duration::from_secs(10), bytes: 512 << 20 });
    assert_eq!((config.limits.connections_max, config.limits.threads, config.limits.drain), (1, 3, Duration::ZERO));
    assert_eq!(config.telemetry.log, "warn,pixeld::ingest=debug");
}

#[test]
fn base_urls_follow_the_listeners_that_are_set() {
    let config = read(&[("PIXELD_LISTEN", "127.0.0.1:80"), ("PIXELD_ADMIN_LISTEN", "[::1]:9000")]).unwrap();
    assert_eq!(config.listen.base_url, "http://127.0.0.1");
    assert_eq!(config.listen.admin_base_url, "http://[::1]:9000");
}

#[test]
fn optional_settings_can_be_off() {
    let off = [("PIXELD_THROTTLE", "off"), ("PIXELD_ADDRESS_RATE", "off"), ("PIXELD_RETENTION_DAYS", "off")];
    let config = read(&off).unwrap();
    assert_eq!((config.limits.throttle, config.limits.address_rate, config.privacy.retention_days), (None, None, None));
}

#[test]
fn each_bad_value_is_refused_under_its_variable() {
    for (variable, bad) in [
        ("PIXELD_LISTEN", &["8080", "localhost:8080", "0.0.0.0:0", "off"][..]),
        ("PIXELD_ADMIN_LISTEN", &["8081", "0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080"]),
        ("PIXELD_BASE_URL", &["pixels.example.com", "https://example.com/?a", "https://example.com/#a", "ftp://a"]),
        ("PIXELD_ADMIN_BASE_URL", &["admin.example.com", "https://a b"]),
        ("PIXELD_DATA_DIR", &[" "]),
        ("DATABASE_URL", &["mysql://db/pixeld", "postgresql:///pixeld", " "]),
        (
            "REDIS_URL",
            &["redis.example.com:6379", "http://redis.example.com", "redis://h/x", "rediss://h#insecure", "off"],
        ),
        ("DJANGO_DATABASE_URL", &["mysql://db/app", "postgresql:///app", " "]),
        ("SENTRY_DSN", &["sentry.example.com", "https://sentry.example.com/1", "off"]),
        ("PIXELD_TRUSTED_PROXIES", &["10.0.0.0/33", "proxy", "off"]),
        ("PIXELD_REQUIRE_DATABASE_URL", &["yes", "1", "True"]),
        ("PIXELD_DURABILITY", &["Written", "sync", "off"]),
        ("PIXELD_THROTTLE", &["0s", "31d", "1", "none", "OFF"]),
        ("PIXELD_ADDRESS_RATE", &["1000", "0/s", "1000/m", "1000001/s", "4294967297/s", "/s", "-1/s"]),
        ("PIXELD_IP_PRIVACY", &["off", "/24", "Full"]),
        ("PIXELD_RETENTION_DAYS", &["0", "36501", "30d", "never", "4294967297"]),
        ("PIXELD_SPOOL_BYTES_MAX", &["63MiB", "67108863", "1025TiB", "8GB", "off"]),
        ("PIXELD_SPOOL_KEEP", &["1h", "1GiB", "1GiB/1h", "off"]),
        ("PIXELD_CONNECTIONS_MAX", &["0", "1000001", "many"]),
        ("PIXELD_THREADS", &["0", "1025", "cores", "1.5"]),
        ("PIXELD_DRAIN_SECONDS", &["3601", "10s", "-1", "off"]),
        ("PIXELD_LOG", &["inof", "pixeld=loud", "a=b=c"]),
    ] {
        for value in bad {
            let problem = problem(&[(variable, value)]);
            assert_eq!(problem.variable, variable, "{value}");
            assert!(!problem.wrong.is_empty() && !problem.allowed.is_empty(), "{problem}");
        }
    }
}

#[test]
fn the_ends_of_each_range_are_allowed() {
    for (variable, good) in [
        ("PIXELD_THROTTLE", &["1ms", "30d"][..]),
        ("PIXELD_ADDRESS_RATE", &["1/s", "1000000/s"]),
        ("PIXELD_RETENTION_DAYS", &["1", "36500"]),
        ("PIXELD_SPOOL_BYTES_MAX", &["64MiB", "67108864", "1024TiB"]),
        ("PIXELD_SPOOL_KEEP", &["0s/0", "30d/1024TiB"]),
        ("PIXELD_CONNECTIONS_MAX", &["1", "1000000"]),
        ("PIXELD_THREADS", &["1", "1024"]),
        ("PIXELD_DRAIN_SECONDS", &["0", "3600"]),
        ("PIXELD_IP_PRIVACY", &["full", "truncated", "none", " none\r"]),
    ] {
        for value in good {
            assert!(read(&[(variable, value)]).is_ok(), "{variable}={value}");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_tables_order() {
    let error = read(&[
        ("PIXELD_THREDS", "4"),
        ("PIXELD_LOG", "inof"),
        ("PIXELD_THREADS", "0"),
        ("PIXELD_LISTEN", "8080"),
        ("DATABASE_URL", "nonsense"),
        ("PIXELD_REQUIRE_SIGNED", "yes"),
    ])
    .unwrap_err();
    let named: BTreeSet<_> = error.problems().iter().map(|problem| problem.variable.as_str()).collect();
    assert_eq!(named.len(), 6, "{error}");
    let names: Vec<_> = error.problems().iter().map(|problem| problem.variable.as_str()).collect();
    let place = |name: &&str| SETTINGS.iter().position(|setting| setting.name == *name).unwrap_or(usize::MAX);
    assert!(names.is_sorted_by_key(place), "{names:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("6 settings are wrong:\n  PIXELD_LISTEN is \"8080\", which is not an IP address"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 7, "{text}");
}

#[test]
fn a_problem_names_the_variable_what_was_wrong_and_what_is_allowed() {
    let error = read(&[("PIXELD_THREADS", "0")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a setting is wrong:\n  PIXELD_THREADS is \"0\", which is too small; allowed: a whole number from 1 to 1024, \
         or unset for one a core"
    );
}

#[test]
fn a_bad_listener_is_not_blamed_on_the_other_one_too() {
    assert_eq!(problem(&[("PIXELD_LISTEN", "bad"), ("PIXELD_ADMIN_LISTEN", "0.0.0.0:8080")]).variable, "PIXELD_LISTEN");
    let both = [("PIXELD_LISTEN", "127.0.0.1:8081")];
    assert_eq!(problem(&both).variable, "PIXELD_ADMIN_LISTEN");
}

#[test]
fn an_empty_value_is_an_unset_one() {
    let vars: Vec<_> = names::all().map(|name| (OsString::from(name), OsString::new())).collect();
    let config = Config::from_vars(vars).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", read(&[]).unwrap()));
}

#[test]
fn a_value_that_is_not_utf8_is_refused() {
    for name in names::all() {
        let value = OsString::from_vec(b"\xff".to_vec());
        let error = Config::from_vars([(OsString::from(&name), value)]).unwrap_err();
        assert_eq!((error.problems().len(), error.problems()[0].variable.as_str()), (1, name.as_str()));
        assert!(error.problems()[0].wrong.contains("not UTF-8"), "{error}");
    }
}

#[test]
fn variables_of_other_programs_are_ignored_whatever_they_hold() {
    let other = (OsString::from_vec(b"LC_\xff".to_vec()), OsString::from_vec(b"\xff".to_vec()));
    let vars = [("PATH", "/bin"), ("DATABASE_NAME", "x"), ("XPIXELD_LISTEN", "x"), ("pixeld_listen", "x")];
    let vars = vars.map(|(name, value)| (name.into(), value.into())).into_iter().chain([other]);
    assert!(Config::from_vars(vars).is_ok());
}

#[test]
fn a_misspelt_variable_is_refused_with_a_guess_and_without_its_value() {
    let problem = problem(&[("PIXELD_DATABASE_URL", "postgresql://user:hunter2@db/pixeld")]);
    assert_eq!((problem.variable.as_str(), problem.wrong.as_str()), ("PIXELD_DATABASE_URL", "is not a setting"));
    assert!(problem.allowed.starts_with("DATABASE_URL"), "{problem}");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
    let unreadable = (OsString::from_vec(b"PIXELD_\xff".to_vec()), OsString::new());
    assert_eq!(Config::from_vars([unreadable]).unwrap_err().problems()[0].variable, "PIXELD_\u{fffd}");
    // Only secrets may be in files.
    assert!(read(&[("PIXELD_LISTEN_FILE", "/dev/null")]).is_err());
}

#[test]
fn kubernetes_variables_of_a_service_called_pixeld_are_no_misspelling() {
    let links = [
        ("PIXELD_SERVICE_HOST", "10.0.0.1"),
        ("PIXELD_SERVICE_PORT", "8080"),
        ("PIXELD_SERVICE_PORT_HTTP", "8080"),
        ("PIXELD_PORT", "tcp://10.0.0.1:8080"),
        ("PIXELD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PIXELD_PORT_8080_TCP_PROTO", "tcp"),
        ("PIXELD_PORT_8080_TCP_PORT", "8080"),
        ("PIXELD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PIXELD_ADMIN_SERVICE_HOST", "10.0.0.2"),
    ];
    assert_eq!(read(&links).unwrap_err().problems().len(), links.len());
    let in_kubernetes = [&links[..], &[("KUBERNETES_SERVICE_HOST", "10.0.0.9")]].concat();
    assert!(read(&in_kubernetes).is_ok());
    let misspelt = [&in_kubernetes[..], &[("PIXELD_PORT", "8080"), ("PIXELD_LISTN", "0.0.0.0:80")]].concat();
    assert_eq!(read(&misspelt).unwrap_err().problems().len(), 2);
}

#[test]
fn a_secret_is_read_from_the_file_that_is_named() {
    for content in ["host=db user=pixeld", "host=db user=pixeld\n", "host=db user=pixeld\r\n"] {
        let (_file, path) = secret_file(content.as_bytes());
        let config = read(&[("DATABASE_URL_FILE", &path)]).unwrap();
        assert_eq!(config.storage.database_url.unwrap().expose(), "host=db user=pixeld");
    }
    let (_file, path) = secret_file(b"rediss://:hunter2@redis.example.com\n");
    let config = read(&[("REDIS_URL_FILE", &path)]).unwrap();
    assert_eq!(config.limits.redis_url.unwrap().expose(), "rediss://:hunter2@redis.example.com");
    let (_file, path) = secret_file(b"postgresql://app@db/app\n");
    let config = read(&[("DJANGO_DATABASE_URL_FILE", &path)]).unwrap();
    assert_eq!(config.former.database_url.unwrap().expose(), "postgresql://app@db/app");
    let (_file, path) = secret_file(b"https://key@sentry.example.com/1\n");
    let config = read(&[("SENTRY_DSN_FILE", &path)]).unwrap();
    assert_eq!(config.telemetry.sentry_dsn.unwrap().expose(), "https://key@sentry.example.com/1");
}

#[test]
fn only_one_newline_at_the_end_of_a_secret_is_taken_off() {
    // Read without the check: the value is the file's content.
    let (_file, path) = secret_file(b" two \n\n");
    let mut vars = Vars::new([("DATABASE_URL_FILE".into(), path.into())]);
    assert_eq!(vars.secret(&storage::DATABASE_URL, |_| Ok(())).unwrap().expose(), " two \n");
}

#[test]
fn a_secret_that_is_set_twice_is_refused() {
    let (_file, path) = secret_file(b"host=hunter2");
    let problem = problem(&[("DATABASE_URL", "host=hunter2"), ("DATABASE_URL_FILE", &path)]);
    assert_eq!(problem.variable, "DATABASE_URL");
    assert!(problem.wrong.contains("DATABASE_URL_FILE are both set"), "{problem}");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
    // An empty value counts as unset here, too.
    assert!(read(&[("DATABASE_URL", ""), ("DATABASE_URL_FILE", &path)]).is_ok());
}

#[test]
fn a_secret_file_that_cannot_be_used_is_refused() {
    let (_empty, empty) = secret_file(b"\n");
    let (_long, long) = secret_file(&[b'a'; 70_000]);
    let (_binary, binary) = secret_file(b"\xff\xfe");
    for (path, wrong) in [
        ("/nonexistent/secret", "cannot be read"),
        ("/", "cannot be read"),
        (empty.as_str(), "is empty"),
        (long.as_str(), "is longer than 65536 bytes"),
        ("/dev/zero", "is longer than 65536 bytes"),
        (binary.as_str(), "cannot be read"),
    ] {
        let problem = problem(&[("DATABASE_URL_FILE", path)]);
        assert_eq!(problem.variable, "DATABASE_URL_FILE");
        assert!(problem.wrong.contains(wrong) && problem.wrong.contains(path), "{problem}");
    }
    let (_bad, bad) = secret_file(b"mysql://hunter2");
    let problem = problem(&[("DATABASE_URL_FILE", &bad)]);
    assert_eq!(problem.variable, "DATABASE_URL_FILE");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
}

#[test]
fn a_secret_is_never_printed() {
    for name in SECRETS {
        for value in ["hunter2", "postgresql://hunter2:hunter2@hunter2:hunter2/hunter2?hunter2=hunter2", "hunter2\u{0}"]
        {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(!format!("{error} {error:?} {error:#?}").contains("hunter2"), "{name}: {error:?}");
        }
    }
    let config = read(&[
        ("DATABASE_URL", "postgresql://pixeld:hunter2@db/pixeld"),
        ("REDIS_URL", "redis://:hunter2@redis/0"),
        ("SENTRY_DSN", "https://hunter2@sentry.example.com/1"),
    ])
    .unwrap();
    let shown =
        format!("{config:?} {config:#?} {} {}", config.storage.database_url.clone().unwrap(), Secret::new("hunter2"));
    assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
}

#[test]
fn signing_keys_are_read_and_without_them_signatures_cannot_be_required() {
    let keys = "2:ICEiIyQlJicoKSorLC0uLw==, 1:AAECAwQFBgcICQoLDA0ODw==";
    let config = read(&[("PIXELD_SIGNING_KEYS", keys), ("PIXELD_REQUIRE_SIGNED", "true")]).unwrap();
    assert!(config.signing.is_required);
    assert_eq!(format!("{:?}", config.signing.keys), "[2, 1]");
    assert!(problem(&[("PIXELD_REQUIRE_SIGNED", "true")]).wrong.contains("without PIXELD_SIGNING_KEYS"));
    let problem = problem(&[("PIXELD_SIGNING_KEYS", "1:AAAA"), ("PIXELD_REQUIRE_SIGNED", "true")]);
    assert!(problem.variable == "PIXELD_SIGNING_KEYS" && problem.wrong.contains("3 bytes in its entry 1"), "{problem}");
}

#[test]
fn a_missing_required_database_is_an_error_with_the_setting() {
    let required = ("PIXELD_REQUIRE_DATABASE_URL", "true");
    let missing = problem(&[required]);
    assert_eq!(missing.variable, "DATABASE_URL");
    assert!(missing.wrong.contains("PIXELD_REQUIRE_DATABASE_URL is true"), "{missing}");
    assert!(missing.allowed.contains("postgresql://") && missing.allowed.contains("DATABASE_URL_FILE"), "{missing}");
    // A problem is reported once.
    assert_eq!(problem(&[required, ("DATABASE_URL_FILE", "/nonexistent/secret")]).variable, "DATABASE_URL_FILE");
    assert_eq!(problem(&[required, ("DATABASE_URL", "mysql://db")]).variable, "DATABASE_URL");
    assert!(read(&[required, ("DATABASE_URL", "host=db")]).unwrap().storage.require_database_url);
    assert!(!read(&[("PIXELD_REQUIRE_DATABASE_URL", "false")]).unwrap().storage.require_database_url);
}

#[test]
fn networks_are_in_the_data_directory_by_default() {
    let config = read(&[("PIXELD_DATA_DIR", "/var/lib/pixeld")]).unwrap();
    assert_eq!((config.networks.folder.to_str(), config.networks.is_daily), (Some("/var/lib/pixeld/networks"), false));
    let config = read(&[("PIXELD_NETWORKS_DIR", "/etc/networks"), ("PIXELD_NETWORKS_UPDATE", "daily")]).unwrap();
    assert_eq!((config.networks.folder.to_str(), config.networks.is_daily), (Some("/etc/networks"), true));
}

/// The settings of .env.example for somebody who removed every `#`.
fn example() -> Vec<(String, String)> {
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("# ")?.split_once('=')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        is_name.then(|| (name.to_owned(), value.to_owned()))
    };
    EXAMPLE.lines().filter_map(setting).collect()
}

#[test]
fn the_example_lists_every_setting_once() {
    let listed: Vec<_> = example().into_iter().map(|(name, _)| name).collect();
    let known: BTreeSet<_> = names::all().collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), known);
    assert_eq!(listed.len(), known.len(), "{listed:?}");
    assert!(EXAMPLE.lines().all(|line| line.is_empty() || line.starts_with('#')), "a default is not commented out");
}

#[test]
fn the_values_of_the_example_are_the_defaults() {
    let config = Config::from_vars(example().into_iter().map(|(name, value)| (name.into(), value.into()))).unwrap();
    // Equal, except that they were set.
    let listen = Listen { is_base_url_set: false, ..config.listen };
    let config = Config { listen, to_leave: Default::default(), ..config };
    assert_eq!(format!("{config:#?}"), format!("{:#?}", read(&[]).unwrap()));
    // Only settings without a default, or with one that depends on the machine, may be empty there.
    let empty: BTreeSet<_> =
        example().into_iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| name).collect();
    let secrets = SECRETS.into_iter().flat_map(|name| [name.to_owned(), format!("{name}_FILE")]);
    let others = ["PIXELD_TRUSTED_PROXIES", "PG_BIN", "PIXELD_THREADS"].map(str::to_owned);
    assert_eq!(empty, secrets.chain(others).collect());
}

#[test]
fn the_settings_table_has_no_name_twice_and_knows_the_secrets() {
    let names: BTreeSet<_> = names::all().collect();
    assert_eq!(names.len(), SETTINGS.len() + SECRETS.len());
    let secrets: BTreeSet<_> = SETTINGS.iter().filter(|setting| setting.secret).map(|setting| setting.name).collect();
    assert_eq!(secrets, BTreeSet::from(SECRETS));
}
