//! The rollup's statements, and what they share.
//!
//! Longer ones stand in `.sql` files, in the folder of the code that runs them. Each opens with a comment that says what it does and
//! what its parameters are, if it has any. Where two statements are much alike, both are written out: who reads one file has read all.
//! Only what must never differ is written once. It stands in the files as a name in braces, and [`statement`] fills it in:
//! - `{human}`, `{confirmed}` and so on are numbers of classes ([`class::numbered`]).
//! - `{slot of at}` is when the slot of the time `at` begins ([`SLOT`]).
//! - `{opens of work_hits}` is what opens are, computed from the table `work_hits` (`statement/opens.sql`).
//!
//! `{day}`, `{from}`, `{to}` and `{target}` are filled in later, each time that the statement runs.

use pixeld_core::opens::class;

/// What an open is; `{hits}` is a table with its hits.
const OPENS: &str = include_str!("statement/opens.sql");

/// When the slot of the time `{at}` begins. The query in it is run once a statement; `date_trunc` with a zone's name would cost four
/// times as much for each row.
const SLOT: &str = "date_bin(CASE WHEN {at} >= (SELECT quarters_from FROM counting) THEN interval '15 minutes' \
     ELSE interval '1 hour' END, {at}, '2000-01-01 00:00:00+00')";

/// The statement of a file, with what it shares filled in.
pub(super) fn statement(file: &str) -> String {
    let opens = filled(file, "{opens of ", |table| OPENS.replace("{hits}", table));
    let slots = filled(&opens, "{slot of ", |at| SLOT.replace("{at}", at));
    class::numbered(&slots)
}

/// A text in which `by` replaces what stands between each `opening` and the next brace.
fn filled(text: &str, opening: &str, by: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(opening);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for (name, after) in parts.filter_map(|part| part.split_once('}')) {
        filled += &by(name);
        filled += after;
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_statements_share_is_filled_in() {
        let filled = statement("SELECT {slot of e.at} FROM ({opens of work_hits}) AS o, {day} WHERE class = {human}");
        assert!(filled.starts_with("SELECT date_bin(CASE WHEN e.at >= (SELECT"), "{filled}");
        assert!(filled.contains("FROM work_hits\n") && filled.contains("class IN (1, 2)"), "{filled}");
        assert!(filled.ends_with(") AS o, {day} WHERE class = 1"), "{filled}");
    }
}
