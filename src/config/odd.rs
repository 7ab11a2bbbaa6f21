//! Finds texts in which a piece of a password would be taken for a host or a name, and so be shown.
//!
//! Guarantees: if a text passes these checks, logs and errors may show its host, database and user. A URL is read as
//! its client reads it: `postgresql://u:p@ss@host/db` gives the host `ss@host`, which is not a host name. Gives up: if
//! the real host is missing, a password that looks like a host is taken for one
//! (`postgresql://user:password@hunter2/db`).

use tokio_postgres::config::Host;

/// Whether this is a host name or an address.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:%[]".contains(&byte))
}

/// Whether this is the path of a socket, and nothing else is attached to it.
fn is_socket_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(['@', '=', '&', ';', '?', '#']) && !text.contains(char::is_control)
}

/// Whether a name contains nothing that separates parts of a URL or of a connection string.
fn is_name(text: &str) -> bool {
    !text.contains([':', '/', '=', '&', ';', '?', '#', ','])
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// The part of a PostgreSQL connection string that cannot be what it is taken for, if there is one.
pub(super) fn of_database(text: &str, target: &tokio_postgres::Config) -> Option<&'static str> {
    let is_host_odd = |host: &Host| match host {
        Host::Tcp(name) => !is_host(name),
        Host::Unix(path) => !path.to_str().is_some_and(is_socket_path),
    };
    if target.get_hosts().iter().any(is_host_odd) {
        return Some("host");
    }
    // The client takes all before the first @ for user and password, even if it is among the options.
    let credentials = text.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(front, _)| front);
    if credentials.is_some_and(|front| front.contains("password=")) {
        return Some("password");
    }
    if target.get_user().is_some_and(|user| !is_name(user)) {
        return Some("user");
    }
    target.get_dbname().is_some_and(|name| !is_name(name) || name.contains('@')).then_some("database")
}

/// The same for Redis.
pub(super) fn of_redis(text: &str, address: &redis::ConnectionAddr) -> bool {
    // After the host, no part has an @ that is not percent-encoded, except a password that contains a / or a #.
    let behind = text.split_once("://").and_then(|(_, rest)| rest.find(['/', '?', '#']).map(|end| &rest[end..]));
    let is_socket = matches!(address, redis::ConnectionAddr::Unix(_));
    if !is_socket && behind.is_some_and(|behind| behind.contains('@')) {
        return true;
    }
    match address {
        redis::ConnectionAddr::Tcp(host, _) => !is_host(host),
        redis::ConnectionAddr::TcpTls { host, .. } => !is_host(host),
        redis::ConnectionAddr::Unix(path) => !path.to_str().is_some_and(is_socket_path),
        _ => true,
    }
}

/// Whether a text may contain a password in a place where none belongs; errors do not repeat such a text.
pub(crate) fn may_hold_password(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    (lower.contains("://") && lower.contains('@'))
        || ["password=", "password:", "passwd=", "pwd=", "pass="].iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use crate::config::check_database_url;

    #[test]
    fn a_misplaced_piece_of_a_password_is_refused_and_not_shown() {
        for text in [
            "postgresql://pix:p@hunter2@db/x",
            "postgresql://pix:p@hunter2@db:5432/x",
            "postgresql://pix:p@hunter2%40db/x",
            "postgresql://pix:p@ss,hunter2@db/x",
            "postgresql://pix:p@h/hunter2@db/x",
            "postgresql://pix:p@h?hunter2@db/x",
            "postgresql://pix:p@h?user=hunter2@db/x",
            "postgresql://pix:p@h#hunter2@db/x",
            "postgresql://pix;hunter2@db/x",
            "postgresql://pix:p@db/x&password=hunter2",
            "postgresql://pix:p@db/x;password=hunter2",
            "postgresql://db:5432/x?user=pix&password=hunter2@more",
            "postgresql://db/x?user=pix&password=p@hunter2",
            "host=db;user=pix;password=hunter2",
            "host=db,password=hunter2",
            "host='db password=hunter2'",
            "host=pix:hunter2@db dbname=x",
            "host=db dbname='postgresql://pix:hunter2@db/x'",
            "host=db user=pix dbname=x,password=hunter2",
            "host=/run/postgresql&password=hunter2",
            "host=db password=hunter2 hunter2 dbname=x",
        ] {
            let error = check_database_url(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
        for text in [
            "postgresql://pix:se%40cret@db.example.com:5432/pixeld_2?application_name=a",
            "postgresql://pix:se?c=ret&@db.example.com/pixeld",
            "postgresql://pix%40server:secret@[2001:db8::1]:5432,10.0.0.1/my-db",
            "host=my_container user=pix@server password='a b@c=d' dbname=pixeld",
            "postgresql://pix@/pixeld?host=/tmp/a.b-c_d/socket",
        ] {
            assert_eq!(check_database_url(text), Ok(()), "{text}");
        }
    }
}
