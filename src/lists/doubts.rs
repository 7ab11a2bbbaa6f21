//! Finds signs that the column of recipients is the wrong one. Pure.
//!
//! Guarantees: bounded memory. Fewer than [`ROWS_MIN`] rows never make a column look wrong. But one value that only a
//! program writes (a rule under the header, a line of totals, a number that a spreadsheet rounded) is enough to ask.
//! Gives up: a wrong column with many different single words, such as places of birth: nothing distinguishes them from
//! keys.

use std::collections::HashSet;

/// Rows from which on a column can look wrong.
const ROWS_MIN: u64 = 3;

/// Rows from which on few different recipients look wrong.
const MANY_ROWS: u64 = 100;

/// What programs and people write in place of a missing recipient, in lower case: empty cells, totals, and names of
/// columns.
const NOBODY: [&str; 24] = [
    "\\n",
    "na",
    "n/a",
    "(blank)",
    "(blanks)",
    "(leer)",
    "(vide)",
    "(empty)",
    "(none)",
    "total",
    "totals",
    "grand total",
    "sum",
    "summe",
    "gesamt",
    "gesamtergebnis",
    "somme",
    "totale",
    "id",
    "recipient",
    "email",
    "e-mail",
    "count",
    "anzahl",
];

/// Maximum different recipients that are counted; with more, there are not few.
const DIFFERENT_MAX: usize = 4096;

/// The signs so far.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    rows: u64,
    named: u64,
    dates: u64,
    phrases: u64,
    /// Numbers in a spreadsheet's or a program's display format.
    shown: u64,
    /// Values with something around them.
    wrapped: u64,
    /// The first value that is not a recipient, its row, and why.
    odd: Option<(u64, String, &'static str)>,
    different: HashSet<u64, foldhash::fast::RandomState>,
    /// A recipient, for the text.
    example: String,
}

impl Doubts {
    /// Adds the recipient of a row with this number; `None` if the row names none.
    pub(crate) fn add(&mut self, row: u64, recipient: Option<&str>) {
        self.rows += 1;
        let Some(text) = recipient else { return };
        self.named += 1;
        let is_date = is_date(text);
        let is_phrase = text.contains(char::is_whitespace) && text.contains(char::is_alphabetic);
        self.dates += u64::from(is_date);
        self.phrases += u64::from(is_phrase);
        self.shown += u64::from(is_shown_number(text));
        self.wrapped += u64::from(is_wrapped(text));
        if self.odd.is_none() {
            self.odd = odd(text).map(|why| (row, text.chars().take(60).collect(), why));
        }
        if self.example.is_empty() {
            self.example = text.chars().take(60).collect();
        }
        if self.different.len() < DIFFERENT_MAX {
            self.different.insert(std::hash::BuildHasher::hash_one(self.different.hasher(), text));
        }
    }

    /// Rows that were read.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// What looks wrong, as a question about a column; `None` if nothing does.
    pub(crate) fn words(&self, column: &str) -> Option<String> {
        let Doubts { rows, named, example, .. } = self;
        let different = self.different.len() as u64;
        let is_most = |n: u64| *named >= ROWS_MIN && n * 2 > *named;
        let what = if let Some((row, text, why)) = &self.odd {
            format!("Row {row}: the recipient {text:?} looks like {why}")
        } else if *rows < ROWS_MIN {
            return None;
        } else if (rows - named) * 2 > *rows {
            format!("{} of {rows} rows name no recipient", rows - named)
        } else if different == 1 {
            format!("All {named} rows name the same recipient, {example:?}")
        } else if is_most(self.dates) {
            format!("Most recipients look like dates, such as {example:?}")
        } else if is_most(self.phrases) {
            format!("Most recipients look like names or texts, such as {example:?}")
        } else if is_most(self.shown) {
            format!("Most recipients look like numbers that a program reformatted, such as {example:?}")
        } else if is_most(self.wrapped) {
            format!("Most cells hold more than one plain recipient, such as {example:?}")
        } else if *named >= MANY_ROWS && different < DIFFERENT_MAX as u64 && different * 10 < *named {
            format!("{named} rows name only {different} different recipients, such as {example:?}")
        } else {
            return None;
        };
        Some(format!("{what}. Is {column:?} the right column?"))
    }
}

/// What a value is that is not a recipient.
fn odd(text: &str) -> Option<&'static str> {
    let is_nobody = || NOBODY.contains(&&*text.to_lowercase());
    // `#NV`, `#BEZUG!`, `#DIV/0!`: each language has its own.
    let is_error = || {
        let word = text.strip_prefix('#').unwrap_or_default();
        word.chars().any(char::is_alphabetic) && word.chars().all(|c| c.is_uppercase() || "/0!?".contains(c))
    };
    match () {
        () if !text.chars().any(char::is_alphanumeric) => {
            Some("a line or a sign, because it has no letter and no digit")
        }
        () if is_rounded(text) => Some("a number that a spreadsheet rounded: several recipients may have become one"),
        () if is_nobody() || is_error() => Some("a word for no value, a total or the name of a column"),
        () if is_row_count(text) => Some("the count of rows below a table"),
        () => None,
    }
}

/// `4.71E+12`, `4,71E+12`.
fn is_rounded(text: &str) -> bool {
    let Some((number, power)) = text.split_once(['E', 'e']) else { return false };
    let power = power.strip_prefix('+').unwrap_or_default();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(power) && number.splitn(2, ['.', ',']).all(is_digits)
}

/// `(2 rows)`, `(1 row affected)`.
fn is_row_count(text: &str) -> bool {
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or_default();
    let Some((number, word)) = inner.split_once(' ') else { return false };
    number.parse::<u64>().is_ok() && ["row", "rows", "row affected", "rows affected", "row(s) affected"].contains(&word)
}

/// `4711.0`, `4711,00`, `4,711`, `4.711`, `4'711`.
fn is_shown_number(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_float =
        text.split_once(['.', ',']).is_some_and(|(whole, rest)| is_digits(whole) && ["0", "00"].contains(&rest));
    let mut groups = text.split(['.', ',', '\'', '\u{2019}', '\u{a0}', '\u{202f}']);
    let is_first = groups.next().is_some_and(|first| is_digits(first) && first.len() <= 3);
    let rest: Vec<&str> = groups.collect();
    is_float || is_first && !rest.is_empty() && rest.iter().all(|group| is_digits(group) && group.len() == 3)
}

/// `<jane@example.com>`, `mailto:jane@example.com`, `'4711'`, `a@example.com,b@example.com`.
fn is_wrapped(text: &str) -> bool {
    let signs = [
        "<>",
        "''",
        "``",
        "\"\"",
        "\u{201c}\u{201d}",
        "\u{201e}\u{201c}",
        "\u{2018}\u{2019}",
        "\u{ab}\u{bb}",
        "\u{201a}\u{2018}",
    ];
    let ends = text.chars().next().zip(text.chars().next_back());
    let is_within = ends.is_some_and(|(first, last)| signs.iter().any(|pair| pair.chars().eq([first, last])));
    let is_two = text.contains([',', ';']) && text.matches('@').count() > 1;
    is_within || is_two || text.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("mailto:"))
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
        for (row, recipient) in (2..).zip(recipients) {
            doubts.add(row, Some(recipient.as_ref()).filter(|text| !text.is_empty()));
        }
        doubts.words("c")
    }

    #[test]
    fn a_column_that_looks_wrong_makes_the_page_ask() {
        for (recipients, expected) in [
            (&["7", "7", "7"][..], "All 3 rows name the same recipient, \"7\""),
            (&["", "", "7"], "2 of 3 rows name no recipient"),
            (&["2026-05-04", "4.5.2026", "1/2/26 10:00"], "look like dates"),
            (&["4711.0", "4712.0", "4713.0"], "look like numbers that a program reformatted, such as \"4711.0\""),
            (&["4711,00", "4712,00", "4713,00"], "look like numbers"),
            (&["4,711", "17,394,001", "12"], "look like numbers"),
            (&["4.711", "4'712", "4\u{202f}713"], "look like numbers"),
            (&["<a@example.com>", "<b@example.com>", "c"], "hold more than one plain recipient"),
            (&["'4711'", "\u{201e}4712\u{201c}", "\u{201c}4713\u{201d}"], "hold more than one plain recipient"),
            (&["mailto:a@example.com", "MAILTO:b@example.com", "c"], "hold more than one plain recipient"),
            (
                &["a@example.com,b@example.com", "c@example.com;d@example.com", "e"],
                "hold more than one plain recipient",
            ),
            (&["4711", "4.71E+12"], "Row 3: the recipient \"4.71E+12\" looks like a number that a spreadsheet rounded"),
            (&["4,71E+12"], "Row 2: the recipient \"4,71E+12\" looks like a number that a spreadsheet rounded"),
            (&["----+-----", "1", "2"], "Row 2: the recipient \"----+-----\" looks like a line"),
            (&["1", "########"], "Row 3: the recipient \"########\" looks like a line"),
            (&["1", "2", "(2 rows)"], "Row 4: the recipient \"(2 rows)\" looks like the count of rows"),
            (&["1", "2", "Total"], "Row 4: the recipient \"Total\" looks like a word for no value, a total"),
            (&["1", "\\N"], "looks like a word for no value"),
            (&["1", "NA"], "looks like a word for no value"),
            (&["1", "#NV"], "looks like a word for no value"),
            (&["1", "#BEZUG!"], "looks like a word for no value"),
            (&["id", "1"], "or the name of a column"),
            (&["Jane Doe", "Max Mustermann", "x"], "look like names or texts, such as \"Jane Doe\""),
        ] {
            let words = words(recipients).unwrap();
            assert!(words.contains(expected) && words.ends_with("Is \"c\" the right column?"), "{words}");
        }
        let cities = (0..200).map(|n| ["Bonn", "Kiel", "Ulm"][n % 3]);
        assert_eq!(
            words(cities).unwrap(),
            "200 rows name only 3 different recipients, such as \"Bonn\". Is \"c\" the right column?"
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
            &["4711.5", "4711.50", "v1.0"],
            &["#4711", "#a", "4e12"],
            &["naomi", "(1)", "O'Brien"],
            &["12e4567", "1E5", "c\u{fc}"],
        ] {
            assert_eq!(words(recipients), None, "{recipients:?}");
        }
        assert_eq!(words((0..100_000).map(|n| n.to_string())), None);
        assert_eq!(words((0..100_000).map(|n| (n % 20_000).to_string())), None);
    }
}
