//! The variables of the environment, and the problems found while they are read.
//!
//! Guarantees: reading never stops at a problem (the reader goes on with the default, and [`Vars::finish`] fails), so all
//! problems come together; no text made here holds a secret's value. An empty value is an unset one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::value::Parsed;
use super::{ConfigError, Problem, Secret};

/// One setting: its variable and what it may be.
#[derive(Debug)]
pub(super) struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Its value must not be shown, and may stand in a file that `NAME_FILE` names.
    pub secret: bool,
    /// What it may be, with an example.
    pub allowed: &'static str,
}

impl Setting {
    /// A setting whose value may be shown.
    pub(super) const fn new(name: &'static str, allowed: &'static str) -> Setting {
        Setting { name, secret: false, allowed }
    }

    /// A setting whose value must not be shown.
    pub(super) const fn secret(name: &'static str, allowed: &'static str) -> Setting {
        Setting { name, secret: true, allowed }
    }

    /// The variable that names a file with the value; for secrets only.
    pub(super) fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
}

/// The variables, and what is wrong with them so far.
pub(super) struct Vars {
    values: BTreeMap<OsString, OsString>,
    problems: Vec<Problem>,
}

impl Vars {
    pub(super) fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Vars {
        Vars { values: vars.into_iter().collect(), problems: Vec::new() }
    }

    /// Every variable and its value as they are.
    pub(super) fn all(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.values.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Whether a problem with this setting, or with the file that holds it, was found.
    pub(super) fn is_refused(&self, setting: &Setting) -> bool {
        let file_name = setting.file_name();
        let is_its = |variable: &str| variable == setting.name || Some(variable) == file_name.as_deref();
        self.problems.iter().any(|problem| is_its(&problem.variable))
    }

    /// Notes a problem.
    pub(super) fn refuse(&mut self, variable: &str, wrong: impl Into<String>, allowed: impl Into<String>) {
        let variable = variable.to_owned();
        self.problems.push(Problem { variable, wrong: wrong.into(), allowed: allowed.into() });
    }

    /// The setting as `parse` reads it; `default` where it is unset, or wrong (and then noted).
    pub(super) fn read<T>(&mut self, setting: &Setting, default: T, parse: impl FnOnce(&str) -> Parsed<T>) -> T {
        let Some(text) = self.text(setting.name, setting.allowed) else { return default };
        // Editors and env files leave blanks and carriage returns at the ends, where no value of ours has any.
        match parse(text.trim()) {
            Ok(value) => value,
            Err(wrong) => {
                self.refuse(setting.name, wrong, setting.allowed);
                default
            }
        }
    }

    /// The secret from its variable or its file, after `check`, whose words must not hold any of it.
    pub(super) fn secret(&mut self, setting: &Setting, check: impl FnOnce(&str) -> Parsed<()>) -> Option<Secret> {
        let file_name = setting.file_name()?;
        let direct = self.text(setting.name, setting.allowed);
        let path = self.text(&file_name, "the path of a file that can be read");
        let (variable, text) = match (direct, path) {
            (Some(_), Some(_)) => {
                let wrong = format!("and {file_name} are both set");
                self.refuse(setting.name, wrong, "one of the two");
                return None;
            }
            (Some(text), None) => (setting.name.to_owned(), text),
            (None, Some(path)) => match Secret::of_file(&path) {
                Ok(secret) => (file_name, secret.expose().to_owned()),
                Err(wrong) => {
                    self.refuse(&file_name, wrong, "the path of a file that can be read");
                    return None;
                }
            },
            (None, None) => return None,
        };
        match check(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(wrong) => {
                self.refuse(&variable, wrong, setting.allowed);
                None
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// With all problems, where there is one.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError::new(self.problems)) }
    }

    /// A variable's text; nothing where it is unset, empty, or (then noted) no UTF-8.
    fn text(&mut self, name: &str, allowed: &str) -> Option<String> {
        let value = self.values.get(OsStr::new(name)).filter(|value| !value.is_empty())?;
        let text = value.to_str().map(str::to_owned);
        if text.is_none() {
            self.refuse(name, "is not UTF-8", allowed);
        }
        text
    }
}
