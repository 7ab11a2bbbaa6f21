//! What looks wrong in the column of recipients: it may be another column. Pure.
//!
//! Guarantees: bounded memory; nothing is called wrong for less than [`ROWS_MIN`] rows. Gives up: a wrong column with many different words of one
//! piece, such as places of birth: nothing tells those from keys.

use std::collections::HashSet;

/// Rows from which on a column can look wrong.
const ROWS_MIN: u64 = 3;

/// Rows from which on few different recipients look wrong.
const MANY_ROWS: u64 = 100;

/// Recipients that are told apart; with more there are not few.
const DIFFERENT_MAX: usize = 4096;

/// What was seen.
#[derive(Debug, Default)]
pub struct Doubts {
    rows: u64,
    named: u64,
    dates: u64,
    phrases: u64,
    different: HashSet<u64, foldhash::fast::RandomState>,
    /// A recipient, for the words.
    example: String,
}

impl Doubts {
    /// A row's recipient; nothing where it names none.
    pub fn add(&mut self, recipient: Option<&str>) {
        self.rows += 1;
        let Some(text) = recipient else { return };
        self.named += 1;
        let is_date = is_date(text);
        let is_phrase = text.contains(char::is_whitespace) && text.contains(char::is_alphabetic);
        self.dates += u64::from(is_date);
        self.phrases += u64::from(is_phrase);
        if self.example.is_empty() {
            self.example = text.chars().take(60).collect();
        }
        if self.different.len() < DIFFERENT_MAX {
            self.different.insert(std::hash::BuildHasher::hash_one(self.different.hasher(), text));
        }
    }

    /// Rows that were seen.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that name a recipient.
    #[must_use]
    pub fn named(&self) -> u64 {
        self.named
    }

    /// What looks wrong, as a question about a column; nothing where nothing does.
    #[must_use]
    pub fn words(&self, column: &str) -> Option<String> {
        let Doubts { rows, named, example, .. } = self;
        let different = self.different.len() as u64;
        let is_most = |n: u64| *named >= ROWS_MIN && n * 2 > *named;
        let what = if *rows < ROWS_MIN {
            return None;
        } else if (rows - named) * 2 > *rows {
            format!("{} of {rows} rows name no recipient", rows - named)
        } else if different == 1 {
            format!("All {named} rows name the same recipient, {example:?}")
        } else if is_most(self.dates) {
            format!("Most recipients look like dates, as {example:?}")
        } else if is_most(self.phrases) {
            format!("Most recipients look like names or texts, as {example:?}")
        } else if *named >= MANY_ROWS && different < DIFFERENT_MAX as u64 && different * 10 < *named {
            format!("{named} rows name only {different} different recipients, as {example:?}")
        } else {
            return None;
        };
        Some(format!("{what}. Is {column:?} the right column?"))
    }
}

/// Whether it looks like a date, with or without a time: digits in three groups.
fn is_date(text: &str) -> bool {
    let date = text.split([' ', 'T']).next().unwrap_or_default();
    ['-', '.', '/'].into_iter().any(|between| {
        let parts: Vec<&str> = date.split(between).collect();
        let are_digits =
            parts.iter().all(|part| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()));
        // 10.0.0.1 is not one; 1.2.2026 is.
        parts.len() == 3 && are_digits && parts.iter().any(|part| part.len() == 4 || part.len() == 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(recipients: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
        let mut doubts = Doubts::default();
        for recipient in recipients {
            doubts.add(Some(recipient.as_ref()).filter(|text| !text.is_empty()));
        }
        doubts.words("c")
    }

    #[test]
    fn a_column_that_looks_wrong_is_asked_about() {
        for (recipients, expected) in [
            (&["7", "7", "7"][..], "All 3 rows name the same recipient, \"7\""),
            (&["", "", "7"], "2 of 3 rows name no recipient"),
            (&["2026-05-04", "4.5.2026", "1/2/26 10:00"], "look like dates"),
            (&["Jane Doe", "Max Mustermann", "x"], "look like names or texts, as \"Jane Doe\""),
        ] {
            let words = words(recipients).unwrap();
            assert!(words.contains(expected) && words.ends_with("Is \"c\" the right column?"), "{words}");
        }
        let cities = (0..200).map(|n| ["Bonn", "Kiel", "Ulm"][n % 3]);
        assert_eq!(
            words(cities).unwrap(),
            "200 rows name only 3 different recipients, as \"Bonn\". Is \"c\" the right column?"
        );
    }

    #[test]
    fn keys_of_any_kind_are_not() {
        for recipients in [
            &["7", "7"][..],
            &["4711", "4712", "", "4713"],
            &["jane@example.com", "max@example.com", "a-b-c"],
            &["+49 30 12", "+49 30 13", "+49 30 14"],
            &["10.0.0.1", "10.0.0.2", "1-2-3"],
        ] {
            assert_eq!(words(recipients), None, "{recipients:?}");
        }
        assert_eq!(words((0..100_000).map(|n| n.to_string())), None);
        assert_eq!(words((0..100_000).map(|n| (n % 20_000).to_string())), None);
    }
}
