//! The Redis that nodes share.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::Secret;
use super::odd;
use super::value::Parsed;
use super::vars::{Setting, Vars};

pub(super) const REDIS_URL: Setting = Setting::secret(
    "REDIS_URL",
    "redis://:password@host:6379/0, rediss:// for TLS, or redis+unix:///path/of/socket, special characters in the \
     password percent-encoded",
);

pub(super) fn redis_url(vars: &mut Vars) -> Option<Secret> {
    vars.secret(&REDIS_URL, |text| parse(text).map(|_| ()))
}

/// The address in a URL, without credentials.
pub(super) fn shown(url: &Secret) -> String {
    let Ok(target) = parse(url.expose()) else { return "set (not shown)".to_owned() };
    let tls = if matches!(target.addr(), ConnectionAddr::TcpTls { .. }) { " over TLS" } else { "" };
    format!("{}{tls}, database {} (password not shown)", target.addr(), target.redis_settings().db())
}

/// The client's own error is not repeated: it may quote a piece of a password.
fn parse(text: &str) -> Parsed<ConnectionInfo> {
    let wrong = || "is not the URL of a Redis (its value is not shown)".to_owned();
    let target = text.into_connection_info().map_err(|_| wrong())?;
    if odd::of_redis(text, target.addr()) {
        return Err("has a character in its host or path that is not allowed: in a password, write @ as %40, / as %2F, # as %23 (its value \
                    is not shown)"
            .to_owned());
    }
    match target.addr() {
        ConnectionAddr::Tcp(host, _) if host.is_empty() => Err(wrong()),
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err("ends with #insecure, which is not supported: the certificate is always checked".to_owned())
        }
        _ if target.redis_settings().db() < 0 => Err(wrong()),
        _ => Ok(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_a_redis_are_taken_and_shown_without_their_password() {
        for (text, expected) in [
            ("redis://redis.example.com", "redis.example.com:6379, database 0 (password not shown)"),
            ("redis://:hunter2@127.0.0.1:7000/3", "127.0.0.1:7000, database 3 (password not shown)"),
            ("redis://hunter2:hunter2@[::1]", "::1:6379, database 0 (password not shown)"),
            ("rediss://:hunter2%40@redis", "redis:6379 over TLS, database 0 (password not shown)"),
            ("redis+unix:///run/redis.sock?db=2&pass=hunter2", "/run/redis.sock, database 2 (password not shown)"),
        ] {
            assert_eq!(shown(&Secret::new(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_a_piece_of_it() {
        for text in [
            "hunter2",
            "hunter2:6379",
            "redis://",
            "redis://:hunter2@",
            "redis://:hunter2@h:hunter2",
            "redis://h/hunter2",
            "redis://:hunter2@0.0.0.0",
            "redis://h/-1",
            "rediss://:hunter2@h#insecure",
            "rediss://:hunter2@h#hunter2",
            "https://hunter2@h",
            "redis://:p/hunter2@h",
            "redis://u:12#hunter2@h",
            "redis://u:12/0?x=hunter2@h",
            "redis+unix:///run/redis.sock&pass=hunter2",
            "redis+unix:///run/redis.sock;pass=hunter2",
            "redis://h;password=hunter2",
            "redis://h/0&password=hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
