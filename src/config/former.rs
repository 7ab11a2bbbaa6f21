//! The Django app that pixeld replaces: where its database is, for the import, and the names that its `.env` has.
//!
//! Guarantees: none of those names changes anything here. Many programs have most of them (`DEBUG`, `DSN`), so nothing
//! is reported unless at least [`TELLING_MIN`] of the typical ones are set. Values are never shown.

use std::collections::BTreeSet;

use super::Secret;
use super::storage::check_database_url;
use super::vars::{Setting, Vars};

pub(super) const DJANGO_DATABASE_URL: Setting = Setting::secret(
    "DJANGO_DATABASE_URL",
    "postgresql://user:password@host:5432/database, special characters in the password percent-encoded",
);

/// Number of typical names that make it the Django app's `.env`.
const TELLING_MIN: usize = 2;

/// Typical names, and what they are called now; names with the same meaning share an entry.
const TELLING: [(&[&str], &str); 3] = [
    (
        &["DATABASE_HOST", "DATABASE_NAME", "DATABASE_PASSWORD", "DATABASE_PORT", "DATABASE_USER"],
        "now DATABASE_URL=postgresql://user:password@host:port/name, a database of pixeld's own \
         (DJANGO_DATABASE_URL, of the same form, is the Django app's, for `pixeld import django`)",
    ),
    (&["LOCATION"], "now REDIS_URL, but not needed: pixeld keeps images in its own memory"),
    (&["DSN"], "now SENTRY_DSN"),
];

/// Names that any program may have; reported only beside typical ones.
const OTHERS: [(&[&str], &str); 4] = [
    (&["ALLOWED_HOSTS"], "not needed: pixeld serves pixels under every name"),
    (&["CSRF_TRUSTED_ORIGINS"], "now PIXELD_ADMIN_BASE_URL"),
    (&["DEBUG"], "now PIXELD_LOG=debug"),
    (&["SECRET_KEY"], "not needed"),
];

/// The Django app.
#[derive(Debug, Clone)]
pub struct Former {
    /// `DJANGO_DATABASE_URL` or `DJANGO_DATABASE_URL_FILE`: the Django app's PostgreSQL, for `pixeld import django`.
    pub database_url: Option<Secret>,
    /// What to print at the start about variables that look like the Django app's; `None` if there are none.
    pub note: Option<String>,
}

impl Former {
    pub(super) fn read(vars: &mut Vars) -> Former {
        Former { database_url: vars.secret(&DJANGO_DATABASE_URL, check_database_url), note: note(vars) }
    }
}

/// What to tell users who start pixeld with the Django app's `.env`; `None` if it does not look like it.
fn note(vars: &Vars) -> Option<String> {
    let set: BTreeSet<&str> =
        vars.all().filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.to_str()).collect();
    let of_these = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| set.contains(name)).collect()
    };
    let told: usize = TELLING.iter().map(|(names, _)| of_these(names).len()).sum();
    if told < TELLING_MIN {
        return None;
    }
    let said = TELLING.iter().chain(&OTHERS).filter_map(|(names, now)| {
        let names = of_these(names);
        (!names.is_empty()).then(|| format!("{}: {now}", names.join(", ")))
    });
    let said: Vec<String> = said.collect();
    Some(format!(
        "these variables look like the Django app's settings; pixeld does not read them. {}. See docs/moving-from-django.md",
        said.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note_of(names: &[&str]) -> Option<String> {
        note(&Vars::new(names.iter().map(|name| (name.into(), "geheim".into()))))
    }

    #[test]
    fn the_django_apps_names_are_listed_with_their_new_names() {
        let all = [
            "DATABASE_NAME",
            "DATABASE_USER",
            "DATABASE_PASSWORD",
            "DATABASE_HOST",
            "DATABASE_PORT",
            "LOCATION",
            "DSN",
            "SECRET_KEY",
            "DEBUG",
        ];
        let note = note_of(&all).unwrap();
        for name in all {
            assert!(note.contains(name), "{name} is missing in {note}");
        }
        for now in ["now DATABASE_URL=postgresql://", "REDIS_URL", "DSN: now SENTRY_DSN", "SECRET_KEY: not needed"] {
            assert!(note.contains(now), "{now} is missing in {note}");
        }
        assert!(!note.contains("geheim"), "{note}");
        assert!(note_of(&["LOCATION", "DSN"]).is_some() && note_of(&["DATABASE_NAME", "DATABASE_USER"]).is_some());
    }

    #[test]
    fn names_that_any_program_may_have_are_not_talked_about() {
        for names in [
            &[][..],
            &["DSN"],
            &["LOCATION", "DEBUG", "SECRET_KEY", "ALLOWED_HOSTS"],
            &["DATABASE_NAME", "DATABASE_URL"],
        ] {
            assert_eq!(note_of(names), None, "{names:?}");
        }
        let empty = [("LOCATION".into(), "".into()), ("DSN".into(), "".into())];
        assert_eq!(note(&Vars::new(empty)), None);
    }
}
