//! SQL in the sources: no class is a bare number, and a long statement has a file that says what it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pixeld_core::opens::class::Class;
use proc_macro2::{TokenStream, TokenTree};
use regex::Regex;

/// A statement of this many lines needs a file of its own.
const FILE_LINES_MIN: usize = 8;

/// The names of columns and values that hold a class or its rank.
const CLASS: &str = r"(?:\w*class|\w*best|class_rank\([^()]*\)|\w*rank)";

#[test]
fn no_class_is_a_bare_number_in_sql() {
    let found: Vec<String> = texts()
        .into_iter()
        .flat_map(|text| bare_classes(&text.sql).into_iter().map(move |bare| format!("{}: {bare}", text.place)))
        .collect();
    assert!(found.is_empty(), "write {{human}} and so on, as rollup::statement replaces it: {found:#?}");
}

#[test]
fn a_planted_number_of_a_class_is_found() {
    for bare in [
        "SELECT 1 WHERE class = 1",
        "SELECT 1 WHERE h.class IN (4, 5, 6)",
        "SELECT 1 WHERE was_best NOT IN ( 1, 2)",
        "SELECT 1 WHERE best = ANY ('{1,2}')",
        "SELECT 1 WHERE first_class <> 0::smallint",
        "SELECT 1 WHERE class BETWEEN 4 AND 6",
        "SELECT 1 WHERE first_class IS DISTINCT FROM 3",
        "SELECT 1 WHERE 2 = class",
        "SELECT COALESCE(class_rank(o.best), 6::smallint)",
        "SELECT class_of_rank(3)",
        "SELECT CASE WHEN a < b THEN 1 WHEN c THEN 2 END AS confirmed_first_class",
        "SELECT (CASE class WHEN 4 THEN 'prefetch' END)",
        "UPDATE hits SET class = 0",
        "SELECT 6::smallint AS class",
    ] {
        assert_eq!(bare_classes(bare).len(), 1, "{bare}");
    }
    for named in [
        "SELECT 1 WHERE class IN ({machine}) AND best = ANY($3) AND first_class = {human}",
        "SELECT COALESCE(class_rank(class), {rank of unknown}::smallint), hits > 0, class",
        "SELECT message, first_class, 0, 1 FROM pairs WHERE t.class = d.class AND t.hits = 0",
        "SELECT CASE WHEN human_at < other_at THEN {human} END AS first_class, CASE WHEN a THEN 1 END AS hits",
        "nothing to ask here: class = 1",
    ] {
        assert_eq!(bare_classes(named), Vec::<String>::new());
    }
}

#[test]
fn long_statements_are_in_files_with_an_explanation() {
    let wrong: Vec<String> = texts()
        .iter()
        .filter_map(|text| {
            let wrong = if text.place.ends_with(".sql") { untold(&text.sql) } else { too_long(&text.sql) };
            wrong.map(|wrong| format!("{}: {wrong}", text.place))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(untold("-- Does.\n-- $1: a. {day}: b.\nSELECT $1 FROM {day} WHERE class = {human}\n"), None);
    assert_eq!(untold("SELECT 1\n"), Some("it does not open with a comment".to_owned()));
    assert_eq!(untold("-- Does.\n-- $1: a.\nSELECT $1, $11, {day}"), Some("$11 {day} not explained".to_owned()));
    let long = |lines| "SELECT 1\n".repeat(lines);
    assert_eq!(too_long(&long(6)), None);
    assert_eq!(too_long(&long(7)), Some("a statement of 8 lines".to_owned()));
}

/// Describes a literal that is too long for a statement.
fn too_long(literal: &str) -> Option<String> {
    let lines = literal.split('\n').count();
    (lines >= FILE_LINES_MIN && WORDS.is_match(literal)).then(|| format!("a statement of {lines} lines"))
}

/// What the head of a file of SQL leaves out. Names with the same meaning in all files need no explanation.
fn untold(file: &str) -> Option<String> {
    static PARAMETER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\d+|\{[a-z_ .]+\}").unwrap());
    let shared =
        |name: &str| name.contains(" of ") || Class::ALL.iter().any(|class| name == format!("{{{}}}", class.name()));
    let head: String = file.lines().take_while(|line| line.starts_with("--")).map(|line| format!("{line}\n")).collect();
    if head.is_empty() {
        return Some("it does not open with a comment".to_owned());
    }
    let told: Vec<&str> = PARAMETER.find_iter(&head).map(|found| found.as_str()).collect();
    let taken = PARAMETER.find_iter(&file[head.len()..]).map(|found| found.as_str());
    let mut untold: Vec<&str> = taken
        .filter(|name| {
            !told.contains(name) && !shared(name) && !["{confirmed}", "{possible}", "{machine}"].contains(name)
        })
        .collect();
    untold.sort_unstable();
    untold.dedup();
    (!untold.is_empty()).then(|| format!("{} not explained", untold.join(" ")))
}

/// The ways to write the number of a class.
static BARE: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compared = r"(?:=|<>|!=|<=?|>=?|(?:NOT )?IN|(?:NOT )?BETWEEN|IS (?:NOT )?DISTINCT FROM)";
    let bare = [
        &format!(r"\bCLASS(?:::\w+)? ?{compared} ?(?:ANY ?)?[('{{ ]*\d+"),
        r"[ (]\d+(?:::\w+)? ?(?:=|<>|!=|<=?|>=?) ?(?:\w\.)?CLASS\b",
        r"COALESCE\((?:\w\.)?CLASS, ?\d+",
        r"class(?:_of)?_rank\( ?\d+",
        r"\b(?:THEN|ELSE) \d+ END(?:\)?::\w+)? AS \w*(?:class|best|rank)\b",
        r"\bCASE (?:\w\.)?CLASS WHEN \d+",
        r"[ (,]\d+(?:::\w+)? AS \w*(?:class|best|rank)\b",
    ];
    bare.iter().map(|bare| Regex::new(&bare.replace("CLASS", CLASS)).unwrap()).collect()
});

/// A statement has one of these.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|AND|OR|CASE|WHEN|THEN|SET|FILTER|HAVING|JOIN|COALESCE)\b")
        .unwrap()
});

/// Places with the bare number of a class.
fn bare_classes(text: &str) -> Vec<String> {
    if !WORDS.is_match(text) {
        return Vec::new();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = BARE.iter().flat_map(|bare| bare.find_iter(&text).map(|found| found.as_str().to_owned()));
    found.collect()
}

/// Something that may be SQL.
struct Text {
    /// Its file, and its line there.
    place: String,
    sql: String,
}

/// Every literal of the program outside of tests, with line continuations as the compiler reads them, and every file of
/// SQL.
fn texts() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for path in files(&root.join("src")) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        if name.ends_with(".sql") {
            texts.push(Text { place: name, sql: text });
        } else {
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            literals(tokens, &name, &mut texts);
        }
    }
    assert!(texts.len() > 3000, "{}", texts.len());
    texts
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "sql") {
            files.push(path);
        }
    }
    files
}

fn literals(tokens: TokenStream, name: &str, texts: &mut Vec<Text>) {
    let mut next_is_of_tests = false;
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.to_string().replace(' ', "") == "[cfg(test)]" => next_is_of_tests = true,
            TokenTree::Group(_) if next_is_of_tests => next_is_of_tests = false,
            TokenTree::Group(group) => literals(group.stream(), name, texts),
            TokenTree::Literal(literal) => {
                let sql = literal.to_string().replace("\\\n", "\n");
                texts.push(Text { place: format!("{name}:{}", literal.span().start().line), sql });
            }
            TokenTree::Punct(end) if end.as_char() == ';' => next_is_of_tests = false,
            _ => {}
        }
    }
}
