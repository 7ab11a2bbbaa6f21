//! The variables of the environment and the layers below it (`layer.rs`), and the problems found while they are read.
//!
//! Guarantees: reading never stops at a problem (the reader goes on with the default, and [`Vars::finish`] fails), so
//! all problems are reported together. No text made here contains a secret's value. An empty value counts as unset.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::layer::{self, Layer, Origin};
use super::names::{self, PREFIX};
use super::served::{self, Served};
use super::value::Parsed;
use super::{ConfigError, Problem, SETTINGS, Secret};

/// One setting: its variable and what it may be.
#[derive(Debug)]
pub(super) struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Its value must not be shown, and may be in a file that `NAME_FILE` names.
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
    /// The environment first, then the layers below it: the first one that has a setting counts.
    layers: Vec<Layer>,
    problems: Vec<Problem>,
    missing: BTreeMap<String, String>,
}

impl Vars {
    pub(super) fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Vars {
        Vars::of(Layer::environment(vars), Vec::new())
    }

    /// The environment, with the layers below it.
    pub(super) fn of(environment: Layer, behind: Vec<Layer>) -> Vars {
        let layers = std::iter::once(environment).chain(behind).collect();
        Vars { layers, problems: Vec::new(), missing: BTreeMap::new() }
    }

    /// Every variable of the environment with its value, unchanged.
    pub(super) fn all(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let environment = self.layers.iter().filter(|layer| layer.origin == Origin::Environment);
        environment.flat_map(|layer| &layer.values).map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Whether a problem with this setting, or with the file that holds it, was found.
    pub(super) fn is_refused(&self, setting: &Setting) -> bool {
        let file_name = setting.file_name();
        let is_its = |variable: &str| variable == setting.name || Some(variable) == file_name.as_deref();
        self.problems.iter().any(|problem| is_its(&problem.variable))
    }

    /// Whether any of these is set.
    pub(super) fn is_set(&self, names: &[&str]) -> bool {
        self.layer_of(names).is_some()
    }

    /// Whether this process is a command and has what `serve` left.
    pub(super) fn is_after_serve(&self) -> bool {
        self.layers.iter().any(|layer| layer.origin == Origin::Served)
    }

    /// Records a problem.
    pub(super) fn refuse(&mut self, variable: &str, wrong: impl Into<String>, allowed: impl Into<String>) {
        self.refuse_in(None, variable, wrong.into(), allowed.into());
    }

    fn refuse_in(&mut self, layer: Option<usize>, variable: &str, wrong: String, allowed: String) {
        let file = layer.and_then(|layer| self.layers.get(layer));
        let file =
            file.filter(|layer| layer.origin != Origin::Environment).map(|layer| layer.path.display().to_string());
        self.problems.push(Problem { variable: variable.to_owned(), file, wrong, allowed });
    }

    /// The setting as `parse` reads it; `default` if it is unset or wrong; the latter is recorded.
    pub(super) fn read<T>(&mut self, setting: &Setting, default: T, parse: impl FnOnce(&str) -> Parsed<T>) -> T {
        let Some(layer) = self.layer_of(&[setting.name]) else { return default };
        let Some(text) = self.text(layer, setting.name, setting.allowed) else { return default };
        // Editors and env files leave blanks and carriage returns at the ends; none of our values has any.
        match parse(text.trim()) {
            Ok(value) => value,
            // Perhaps written by another version, which checked it.
            Err(_) if self.is_served(layer) => default,
            Err(wrong) => {
                self.refuse_in(Some(layer), setting.name, wrong, setting.allowed.to_owned());
                default
            }
        }
    }

    /// The secret from its variable or its file, after `check`, whose error must not contain any of it.
    pub(super) fn secret(&mut self, setting: &Setting, check: impl FnOnce(&str) -> Parsed<()>) -> Option<Secret> {
        const PATH: &str = "the path of a file that can be read";
        let file_name = setting.file_name()?;
        let layer = self.layer_of(&[setting.name, &file_name])?;
        let direct = self.text(layer, setting.name, setting.allowed);
        let path = self.text(layer, &file_name, PATH);
        let (variable, text) = match (direct, path) {
            (Some(_), Some(_)) => {
                let wrong = format!("and {file_name} are both set");
                self.refuse_in(Some(layer), setting.name, wrong, "only one of the two".to_owned());
                return None;
            }
            (Some(text), None) => (setting.name.to_owned(), text),
            (None, Some(path)) => match Secret::of_file(&path) {
                Ok(secret) => (file_name, secret.expose().to_owned()),
                // The code that needs it reports it: most commands need few secrets.
                Err(wrong) if self.is_served(layer) => {
                    let wrong = format!("comes from {file_name} of `pixeld serve`, which {wrong}");
                    self.missing.insert(setting.name.to_owned(), wrong);
                    return None;
                }
                Err(wrong) => {
                    self.refuse_in(Some(layer), &file_name, wrong, PATH.to_owned());
                    return None;
                }
            },
            (None, None) => return None,
        };
        match check(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(wrong) => {
                self.refuse_in(Some(layer), &variable, wrong, setting.allowed.to_owned());
                None
            }
        }
    }

    /// What `serve` left for commands, with what is missing here.
    pub(super) fn served(&self) -> Option<Served> {
        let layer = self.layers.iter().find(|layer| layer.origin == Origin::Served)?;
        let mut served = Served::of(|name| layer.get(name));
        served.missing.extend(self.missing.clone());
        // What the environment or the settings file has is not missing.
        served.missing.retain(|name, _| {
            let file_name = format!("{name}_FILE");
            self.layers
                .iter()
                .all(|layer| layer.origin == Origin::Served || layer.get(name).or(layer.get(&file_name)).is_none())
        });
        Some(served)
    }

    /// The settings of the environment to leave for commands, and the names of secrets that only the environment has.
    pub(super) fn to_leave(&self) -> (Vec<(String, String)>, Vec<&'static str>) {
        let (mut given, mut secrets) = (Vec::new(), Vec::new());
        let Some(environment) = self.layers.first() else { return (given, secrets) };
        let text = |name: &str| environment.get(name).and_then(OsStr::to_str).map(|text| text.trim().to_owned());
        for setting in SETTINGS.iter().filter(|setting| !served::NOT_LEFT.contains(&setting.name)) {
            let path = setting.file_name().and_then(|name| Some((text(&name)?, name)));
            match (text(setting.name), path) {
                (Some(_), _) if setting.secret => secrets.push(setting.name),
                (Some(value), _) if layer::PATHS.contains(&setting.name) => {
                    given.push((setting.name.to_owned(), served::absolute(&value)));
                }
                (Some(value), _) => given.push((setting.name.to_owned(), value)),
                (None, Some((path, name))) => given.push((name, served::absolute(&path))),
                (None, None) => {}
            }
        }
        (given, secrets)
    }

    /// The settings that the environment and the settings file set to different values.
    pub(super) fn overridden(&self) -> Vec<&'static str> {
        let of = |origin| self.layers.iter().find(|layer| layer.origin == origin);
        let (Some(environment), Some(file)) = (of(Origin::Environment), of(Origin::File)) else { return Vec::new() };
        let differ = |name: &str| matches!((environment.get(name), file.get(name)), (Some(ours), Some(theirs)) if ours != theirs);
        SETTINGS.iter().filter(|setting| differ(setting.name)).map(|setting| setting.name).collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All problems, if there are any.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError::new(self.problems)) }
    }

    /// The first layer that has one of these names.
    fn layer_of(&self, names: &[&str]) -> Option<usize> {
        self.layers.iter().position(|layer| names.iter().any(|name| layer.get(name).is_some()))
    }

    fn is_served(&self, layer: usize) -> bool {
        self.layers.get(layer).is_some_and(|layer| layer.origin == Origin::Served)
    }

    /// A variable's text; `None` if it is unset, empty, or not UTF-8; the last is recorded.
    fn text(&mut self, layer: usize, name: &str, allowed: &str) -> Option<String> {
        let value = self.layers.get(layer)?.get(name)?;
        let text = value.to_str().map(str::to_owned);
        if text.is_none() {
            self.refuse_in(Some(layer), name, "is not UTF-8".to_owned(), allowed.to_owned());
        }
        text
    }
}

/// Records each variable that has our prefix but is not ours: it is probably misspelt and would silently do nothing.
pub(super) fn refuse_unknown(vars: &mut Vars) {
    let known: Vec<String> = names::all().collect();
    let in_kubernetes = vars.all().any(|(name, _)| name == "KUBERNETES_SERVICE_HOST");
    let is_known = |name: &str, value: &str| {
        known.iter().any(|known| known == name) || (in_kubernetes && names::is_link(name, value))
    };
    let ours = vars.all().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let ours = ours.map(|(name, value)| (name.to_string_lossy(), value.to_string_lossy()));
    let unknown: Vec<String> =
        ours.filter(|(name, value)| !is_known(name, value)).map(|(name, _)| name.into_owned()).collect();
    for name in unknown {
        match names::nearest(&name, &known) {
            Some(meant) => vars.refuse(&name, "is not a setting", format!("{meant}, if you meant that")),
            None => vars.refuse(&name, "is not a setting", "the settings that .env.example lists"),
        }
    }
}
