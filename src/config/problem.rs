//! All that is wrong with the settings.

use std::fmt;

/// One wrong setting. None of its texts holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable, as spelt.
    pub variable: String,
    /// The file that sets it, if that is not the environment.
    pub file: Option<String>,
    /// What is wrong, as the rest of a sentence that begins with the variable.
    pub wrong: String,
    /// What is allowed instead.
    pub allowed: String,
}

/// Every wrong setting that was found; never empty. Its `Display` has a line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> ConfigError {
        ConfigError { problems }
    }

    /// The wrong settings, in the order of the settings' table, unknown variables last.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { variable, file, wrong, allowed } = self;
        match file {
            Some(file) => write!(f, "{variable} in {file} {wrong}; allowed: {allowed}"),
            None => write!(f, "{variable} {wrong}; allowed: {allowed}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("a setting is wrong:")?,
            count => write!(f, "{count} settings are wrong:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
