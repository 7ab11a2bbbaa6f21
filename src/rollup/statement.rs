//! The rollup's statements, and what they share.
//!
//! A longer statement has a `.sql` file in the folder of the code that runs it. The file opens with a comment: what the
//! statement does, and its parameters. Statements that are merely similar are each written out, so that one file is
//! enough to read. Parts that must never differ are written once: the files have a name in braces for them, and
//! [`statement`] replaces that name.
//! - `{human}`, `{confirmed}` and so on are numbers of classes ([`numbered`]). No statement has a bare one (`tests/it/ship/sql.rs`).
//! - `{slot of at}` is when the slot of the time `at` begins ([`SLOT`]).
//! - `{opens of work_hits}` is the definition of opens, computed from the table `work_hits` (`statement/opens.sql`).
//!
//! `{day}`, `{from}`, `{to}` and `{target}` are filled in later, each time the statement runs.

use pixeld_core::opens::class::{Certainty, Class};

/// The definition of an open; `{hits}` is a table with its hits.
const OPENS: &str = include_str!("statement/opens.sql");

/// When the slot of the time `{at}` begins. Its subquery runs once per statement; `date_trunc` with a zone's name would
/// cost four times as much for each row.
const SLOT: &str = "date_bin(CASE WHEN {at} >= (SELECT quarters_from FROM counting) THEN interval '15 minutes' \
     ELSE interval '1 hour' END, {at}, '2000-01-01 00:00:00+00')";

/// The statement of a file, with the shared parts filled in.
pub(super) fn statement(file: &str) -> String {
    let opens = filled(file, "{opens of ", |table| OPENS.replace("{hits}", table));
    let slots = filled(&opens, "{slot of ", |at| SLOT.replace("{at}", at));
    numbered(&slots)
}

/// Replaces each `opening`, the name after it and its closing brace by the result of `by` for that name.
fn filled(text: &str, opening: &str, by: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(opening);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for (name, after) in parts.filter_map(|part| part.split_once('}')) {
        filled += &by(name);
        filled += after;
    }
    filled
}

/// A statement with numbers for the names in braces: `{human}` and the like are a class, `{rank of human}` is its rank, and
/// `{confirmed}`, `{possible}` and `{machine}` are lists of classes. Other braces stay.
fn numbered(statement: &str) -> String {
    let of = |certainty: Certainty| {
        let classes = Class::ALL.into_iter().filter(|class| class.certainty() == certainty);
        classes.map(|class| class.number().to_string()).collect::<Vec<_>>().join(", ")
    };
    let lists = statement
        .replace("{confirmed}", &of(Certainty::Confirmed))
        .replace("{possible}", &of(Certainty::Possible))
        .replace("{machine}", &of(Certainty::Machine));
    Class::ALL.into_iter().fold(lists, |statement, class| {
        statement
            .replace(&format!("{{{}}}", class.name()), &class.number().to_string())
            .replace(&format!("{{rank of {}}}", class.name()), &class.rank().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_gets_the_numbers_of_classes_that_postgresql_has() {
        assert_eq!(
            numbered("class IN ({confirmed}) OR class IN ({possible}) OR class IN ({machine})"),
            "class IN (1, 2) OR class IN (0, 3) OR class IN (4, 5, 6)"
        );
        assert_eq!(numbered("{human} {proxied} {privacy_prefetch} {prefetch}"), "1 2 3 4");
        assert_eq!(numbered("{rank of human} {rank of unknown} {rank of bot} {day}"), "0 2 6 {day}");
    }

    #[test]
    fn what_statements_share_is_filled_in() {
        let filled = statement("SELECT {slot of e.at} FROM ({opens of work_hits}) AS o, {day} WHERE class = {human}");
        assert!(filled.starts_with("SELECT date_bin(CASE WHEN e.at >= (SELECT"), "{filled}");
        assert!(filled.contains("FROM work_hits\n") && filled.contains("class IN (1, 2)"), "{filled}");
        assert!(filled.ends_with(") AS o, {day} WHERE class = 1"), "{filled}");
    }
}
