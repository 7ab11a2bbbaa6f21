//! Which variables are ours, and which one a misspelt name probably means.

use super::SETTINGS;

/// The prefix of all variables that only pixeld has.
pub(super) const PREFIX: &str = "PIXELD_";

/// Longest unknown name for which a similar one is searched, in bytes.
const GUESS_BYTES_MAX: usize = 64;

/// Every variable that is read.
pub(super) fn all() -> impl Iterator<Item = String> {
    SETTINGS.iter().flat_map(|setting| [Some(setting.name.to_owned()), setting.file_name()]).flatten()
}

/// Whether a variable is read.
pub(super) fn is_known(name: &str) -> bool {
    all().any(|known| known == name)
}

/// Whether Kubernetes made this variable: it sets such variables in each pod for every service, and one may be called
/// `pixeld`.
pub(super) fn is_link(name: &str, value: &str) -> bool {
    let port = |(_, rest): (&str, &str)| {
        let mut words = rest.split('_');
        words.next().is_some_and(|number| number.parse::<u16>().is_ok())
            && words.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(port)
        || name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// The known name that is most similar to `name`, if one is similar at all.
pub(super) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let wanted = name.strip_prefix(PREFIX).filter(|wanted| wanted.len() <= GUESS_BYTES_MAX)?;
    let like = |known: &'a String| {
        let bare = known.strip_prefix(PREFIX).unwrap_or(known);
        let steps = match is_front(wanted, bare) || is_front(bare, wanted) {
            true => 1,
            false => edits(wanted, bare).min(edits(&in_order(wanted), &in_order(bare))),
        };
        (steps, known.as_str())
    };
    let (steps, found) = known.iter().map(like).min()?;
    (steps <= (wanted.len() / 3).max(1)).then_some(found)
}

/// Whether `short` is `long` without its last words.
fn is_front(short: &str, long: &str) -> bool {
    !short.is_empty() && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
}

/// A name's words, sorted, so that swapped words match.
fn in_order(name: &str) -> String {
    let mut words: Vec<&str> = name.split('_').collect();
    words.sort_unstable();
    words.join("_")
}

/// The number of bytes to insert, remove or change to get from `a` to `b` (Levenshtein distance).
fn edits(a: &str, b: &str) -> usize {
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.bytes().enumerate() {
        let mut left_above = above[0];
        above[0] = row + 1;
        for (column, to) in b.bytes().enumerate() {
            let change = left_above + usize::from(from != to);
            left_above = above[column + 1];
            above[column + 1] = change.min(left_above + 1).min(above[column] + 1);
        }
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Option<String> {
        let known: Vec<String> = all().collect();
        nearest(name, &known).map(str::to_owned)
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        for (name, expected) in [
            ("PIXELD_LISTN", "PIXELD_LISTEN"),
            ("PIXELD_THREAD", "PIXELD_THREADS"),
            ("PIXELD_DRAIN", "PIXELD_DRAIN_SECONDS"),
            ("PIXELD_SPOOL_MAX_BYTES", "PIXELD_SPOOL_BYTES_MAX"),
            ("PIXELD_DATABASE_URL", "DATABASE_URL"),
            ("PIXELD_SENTRY_DSN_FILE", "SENTRY_DSN_FILE"),
            ("PIXELD_SIGNING_KEY", "PIXELD_SIGNING_KEYS"),
            ("PIXELD_RETENTION", "PIXELD_RETENTION_DAYS"),
            ("PIXELD_THROTTLE_SECONDS", "PIXELD_THROTTLE"),
        ] {
            assert_eq!(meant(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_name_like_no_other_gets_no_guess() {
        for name in ["PIXELD_", "PIXELD_PORT", "PIXELD_FAVOURITE_COLOUR", &format!("PIXELD_{}", "X".repeat(10_000))] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, steps) in [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), steps, "{a} {b}");
        }
    }
}
