//! Reads a PostgreSQL URL, including the options that libpq has and our client lacks.
//!
//! Guarantees: pure. Every refusal names what is wrong and what to write instead; of the URL it contains only option
//! names that are known here, since an unknown option may be a piece of a password. Gives up: client certificates, and
//! what libpq reads from its own files (`service`, `passfile`).

use std::borrow::Cow;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::SslMode;

use super::odd;

/// A URL that was read.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl {
    /// Where to connect, and as whom.
    pub target: tokio_postgres::Config,
    /// How the server's certificate is checked.
    pub check: CertificateCheck,
}

/// How a server's certificate is checked if TLS is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CertificateCheck {
    /// Not at all: this stops eavesdroppers, but not an attacker between client and server.
    Nothing,
    /// Against the system's roots, with the host's name.
    System,
    /// Against the certificates of a file.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether the host's name is checked.
        with_name: bool,
    },
}

/// Options of other programs, and what to do instead.
const OTHERS: [(&[&str], &str); 8] = [
    (
        &["schema", "currentschema", "search_path"],
        "leave it out; another schema is options=-csearch_path%3DNAME, or ALTER ROLE … SET search_path",
    ),
    (
        &[
            "pgbouncer",
            "prepared_statements",
            "preparethreshold",
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "statement_cache_size",
            "statement_cache_capacity",
            "default_query_exec_mode",
        ],
        "leave it out; a pooler must be in session mode",
    ),
    (
        &[
            "connection_limit",
            "pool_size",
            "pool_timeout",
            "pool_max_conns",
            "pool_min_conns",
            "pool_recycle",
            "max_overflow",
            "maxpoolsize",
            "minpoolsize",
            "pooling",
            "conn_max_age",
        ],
        "leave it out; pixeld has a fixed number of connections",
    ),
    (
        &["charset", "encoding", "client_encoding", "characterencoding", "useunicode"],
        "leave it out; pixeld always uses UTF8",
    ),
    (
        &["ssl", "usessl", "sslaccept", "sslfactory", "ssl_mode", "requiressl", "tls"],
        "write sslmode=disable, prefer, require, verify-ca or verify-full instead",
    ),
    (
        &["sslcert", "sslkey", "sslpassword", "sslidentity", "ssl_cert", "ssl_key"],
        "client certificates are not supported; leave it out and let the role sign in with a password",
    ),
    (&["sslca", "ssl_ca", "sslrootcertificate", "root_cert", "ca"], "write sslrootcert=/path/to/ca.crt instead"),
    (
        &[
            "sslcrl",
            "sslcrldir",
            "sslcompression",
            "sslsni",
            "ssl_min_protocol_version",
            "ssl_max_protocol_version",
            "passfile",
            "service",
            "gssencmode",
            "gssdelegation",
            "gsslib",
            "krbsrvname",
            "fallback_application_name",
            "require_auth",
            "requirepeer",
            "replication",
            "statement_timeout",
            "lock_timeout",
            "socket_timeout",
            "logintimeout",
            "sockettimeout",
            "applicationname",
            "timezone",
            "supa",
        ],
        "leave it out",
    ),
];

/// The beginnings of other kinds of URLs, and what to write.
const OTHER_FORMS: [(&[&str], &str); 6] = [
    (&["jdbc:"], "is a JDBC URL; begin with postgresql:// and put user and password before the host"),
    (&["postgresql+", "postgres+"], "names a driver of another language; leave out the part from + to ://"),
    (
        &["mysql:", "mariadb:", "sqlite:", "mssql:", "sqlserver:", "mongodb:", "oracle:", "cockroachdb:"],
        "is the URL of another kind of database; pixeld needs PostgreSQL",
    ),
    (
        &["pgsql:", "ecto:", "postgis:", "psql:", "pg:", "prisma:", "prisma+postgres:"],
        "begins with a word for another program; begin with postgresql://",
    ),
    (&["psql ", "database_url=", "export "], "begins with a piece of a command; begin with postgresql://"),
    (&["\"", "'", "`"], "has quotes around it; leave them out"),
];

impl DatabaseUrl {
    /// Reads a URL, or a connection string such as `host=…`.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub(crate) fn parse(text: &str) -> Result<DatabaseUrl, String> {
        let lower = text.trim_start().to_ascii_lowercase();
        for (forms, what) in OTHER_FORMS {
            if forms.iter().any(|form| lower.starts_with(form)) {
                return Err(format!("{what} (its value is not shown)"));
            }
        }
        let mut words = Words::default();
        let plain = match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            Some(rest) => words.take_from_url(text, rest)?,
            None if lower.starts_with("postgresql://") || lower.starts_with("postgres://") => {
                return Err("begins in capitals; begin with postgresql:// (its value is not shown)".to_owned());
            }
            None => words.take_from_pairs(text)?,
        };
        let unreadable = || "is not a PostgreSQL connection string (its value is not shown)".to_owned();
        let mut target: tokio_postgres::Config = plain.parse().map_err(|_| unreadable())?;
        if target.get_hosts().is_empty() && target.get_hostaddrs().is_empty() {
            return Err("names no host; write postgresql://user:password@host:5432/database (its value is not shown)"
                .to_owned());
        }
        if let Some(part) = odd::of_database(text, &target) {
            return Err(format!(
                "has a character in its {part} that is not allowed: in a password, write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 \
                 (its value is not shown)"
            ));
        }
        let (mode, check) = words.tls()?;
        target.ssl_mode(mode);
        Ok(DatabaseUrl { target, check })
    }
}

/// The options that we interpret.
#[derive(Default)]
struct Words {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Words {
    /// Whether an option is ours; an error if it is known to be another program's.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "sslmode" => self.sslmode = Some(value.to_owned()),
            "sslrootcert" => self.sslrootcert = Some(value.to_owned()),
            _ => {
                let lower = name.to_ascii_lowercase();
                for (names, what) in OTHERS {
                    // Show the known name instead of the typed one, which may be anything.
                    if let Some(known) = names.iter().find(|known| **known == lower) {
                        return Err(format!(
                            "has the option {known}, which pixeld does not support: {what} (its value is not shown)"
                        ));
                    }
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The URL without our options. Credentials reach to the first `@`, whatever they contain.
    fn take_from_url(&mut self, text: &str, rest: &str) -> Result<String, String> {
        let behind = rest.find('@').map_or(rest, |at| &rest[at + 1..]);
        let place = behind.split('?').next().unwrap_or_default();
        if place.contains('@') {
            return Err(
                "has more than one @; in a user or a password write it as %40 (its value is not shown)".to_owned()
            );
        }
        let Some((_, options)) = behind.split_once('?') else { return Ok(text.to_owned()) };
        let mut others = Vec::new();
        for option in options.split('&') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(""));
            if !self.take(&decoded(name), &decoded(value))? {
                others.push(option);
            }
        }
        let base = &text[..text.len() - options.len() - 1];
        Ok(if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) })
    }

    /// The options without ours.
    fn take_from_pairs(&mut self, text: &str) -> Result<String, String> {
        let mut others = String::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let unreadable = || "is not a PostgreSQL connection string (its value is not shown)".to_owned();
            let (name, behind) = rest.split_once('=').ok_or_else(unreadable)?;
            let length = value_length(behind.trim_start()).ok_or_else(unreadable)?;
            let (value, behind) = behind.trim_start().split_at(length);
            if !self.take(name.trim(), &unquoted(value))? {
                others.push_str(&format!("{}={value} ", name.trim()));
            }
            rest = behind.trim_start();
        }
        Ok(others)
    }

    fn tls(self) -> Result<(SslMode, CertificateCheck), String> {
        use CertificateCheck::{File, Nothing, System};
        let mode = self.sslmode.as_deref().unwrap_or("prefer");
        let file = |path: &str, with_name| File { path: path.into(), with_name };
        Ok(match (mode, self.sslrootcert.as_deref().filter(|path| !path.is_empty())) {
            ("disable", _) => (SslMode::Disable, Nothing),
            ("allow" | "prefer", None) => (SslMode::Prefer, Nothing),
            ("require" | "verify-ca" | "verify-full", None) => (SslMode::Require, System),
            ("allow" | "prefer" | "require" | "verify-ca" | "verify-full", Some("system")) => {
                (SslMode::Require, System)
            }
            // Naming a root certificate requests a check.
            ("allow" | "prefer" | "require" | "verify-ca", Some(path)) => (SslMode::Require, file(path, false)),
            ("verify-full", Some(path)) => (SslMode::Require, file(path, true)),
            _ => {
                return Err(
                    "has a wrong sslmode; use disable, allow, prefer, require, verify-ca or verify-full (its value \
                     is not shown)"
                        .to_owned(),
                );
            }
        })
    }
}

/// The length of the value at a text's beginning, in quotes or up to the next blank; `None` if the quotes do not end.
fn value_length(text: &str) -> Option<usize> {
    let is_quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(is_quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if is_quoted => return Some(at + 1),
            c if c.is_whitespace() && !is_quoted => return Some(at),
            _ => {}
        }
    }
    (!is_quoted).then_some(text.len())
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\'')).unwrap_or(value);
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (SslMode, CertificateCheck) {
        let url = DatabaseUrl::parse(text).unwrap();
        (url.target.get_ssl_mode(), url.check)
    }

    #[test]
    fn connection_strings_of_postgresql_are_taken() {
        for text in [
            "postgresql://pixeld:secret@db.example.com:5432/pixeld",
            "postgresql://pixeld:se?c=ret&@db.example.com/pixeld",
            "postgresql://pixeld:sslcert=x@db.example.com/pixeld",
            "postgres://db.example.com/pixeld?sslmode=require&connect_timeout=3",
            "postgresql://pixeld@db.example.com/pixeld?sslmode=verify-full",
            "host=db.example.com sslmode=verify-ca user=pixeld",
            "postgresql://pixeld@/pixeld?host=/run/postgresql",
            "host=/run/postgresql user=pixeld dbname=pixeld",
            "host = db password = 'sslcert=\\'x y' user=pixeld",
            "postgresql://pixeld@a.example.com,b.example.com/pixeld?target_session_attrs=read-write",
            "postgresql://pixeld@db/pixeld?options=-csearch_path%3Dmail&channel_binding=require&application_name=x",
        ] {
            assert!(DatabaseUrl::parse(text).is_ok(), "{text}: {:?}", DatabaseUrl::parse(text).err());
        }
        let url = DatabaseUrl::parse("host=db password='a b\\'c' sslrootcert='/a b.crt' user=x").unwrap();
        assert_eq!(url.target.get_password(), Some(&b"a b'c"[..]));
        assert_eq!(url.check, CertificateCheck::File { path: "/a b.crt".into(), with_name: false });
    }

    #[test]
    fn a_bad_connection_string_is_refused_without_a_piece_of_it() {
        for (text, wrong) in [
            ("hunter2", "not a PostgreSQL connection string"),
            ("mysql://user:hunter2@db/pixeld", "another kind of database"),
            ("postgresql://user:p@hunter2:hunter2@db/pixeld", "write it as %40"),
            ("postgresql://user:p@hunter2/hunter2@db/pixeld", "write it as %40"),
            ("postgresql://user:hunter2@db:hunter2/pixeld", "not a PostgreSQL connection string"),
            ("postgresql://user:hunter2@db/pixeld?hunter2=1", "not a PostgreSQL connection string"),
            ("postgresql://user:hunter2@db/pixeld?sslmode=hunter2", "use disable, allow, prefer"),
            ("postgresql://user:hunter2@db/pixeld?sslmode=require&sslcert=/hunter2.pem", "the option sslcert"),
            ("host=db password=hunter2 passfile=hunter2", "the option passfile"),
            ("host=db password='hunter2", "not a PostgreSQL connection string"),
            ("postgresql://user:hunter2@/pixeld", "names no host"),
            ("password=hunter2", "names no host"),
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn what_other_tools_write_is_named_with_what_to_write_instead() {
        for (text, said) in [
            (
                "postgresql://u:hunter2@db/x?schema=hunter2",
                "the option schema, which pixeld does not support: leave it out",
            ),
            (
                "postgresql://u:hunter2@db/x?sslmode=require&pgbouncer=true",
                "the option pgbouncer, which pixeld does not support: leave it out; a pooler must be in session mode",
            ),
            ("postgresql://u:hunter2@db/x?connection_limit=1", "the option connection_limit"),
            ("postgresql://u:hunter2@db/x?charset=utf8", "the option charset"),
            ("postgresql://u:hunter2@db/x?client_encoding=utf8", "always uses UTF8"),
            ("postgresql://u:hunter2@db/x?ssl=true", "write sslmode="),
            ("postgresql://u:hunter2@db/x?useSSL=true", "the option usessl"),
            ("postgresql://u:hunter2@db/x?sslkey=/hunter2", "client certificates"),
            ("postgresql://u:hunter2@db/x?statement_cache_size=0", "session mode"),
            ("postgresql://u:hunter2@db/x?pool_timeout=5", "fixed number of connections"),
            ("postgresql://u:hunter2@db/x?%73chema=public", "the option schema"),
            ("jdbc:postgresql://db/x?user=u&password=hunter2", "is a JDBC URL"),
            ("postgresql+asyncpg://u:hunter2@db/x", "leave out the part from +"),
            ("postgres+psycopg2://u:hunter2@db/x", "leave out the part from +"),
            ("pgsql://u:hunter2@db/x", "begin with postgresql://"),
            ("ecto://u:hunter2@db/x", "begin with postgresql://"),
            ("POSTGRESQL://u:hunter2@db/x", "capitals"),
            ("psql 'postgresql://u:hunter2@db/x'", "piece of a command"),
            ("\"postgresql://u:hunter2@db/x\"", "has quotes around it"),
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("u:"), "{text}: {error}");
        }
    }

    #[test]
    fn sslmode_and_sslrootcert_say_how_certificates_are_checked() {
        use CertificateCheck::{File, Nothing, System};
        let file = |with_name| File { path: "/ca.crt".into(), with_name };
        for (options, expected) in [
            ("", (SslMode::Prefer, Nothing)),
            ("?sslmode=allow", (SslMode::Prefer, Nothing)),
            ("?sslmode=disable&sslrootcert=/ca.crt", (SslMode::Disable, Nothing)),
            ("?sslmode=require", (SslMode::Require, System)),
            ("?sslmode=verify-ca", (SslMode::Require, System)),
            ("?sslmode=verify-full", (SslMode::Require, System)),
            ("?sslrootcert=system", (SslMode::Require, System)),
            ("?sslrootcert=%2Fca.crt", (SslMode::Require, file(false))),
            ("?sslmode=require&sslrootcert=/ca.crt", (SslMode::Require, file(false))),
            ("?sslmode=verify-ca&sslrootcert=/ca.crt", (SslMode::Require, file(false))),
            ("?sslrootcert=/ca.crt&connect_timeout=3&sslmode=verify-full", (SslMode::Require, file(true))),
        ] {
            assert_eq!(check(&format!("postgresql://u@db/x{options}")), expected, "{options}");
        }
    }
}
