//! No file and no function is longer than a reader can keep in mind: 400 lines without their tests, and 70. A file of
//! tests may be longer, but each test is limited to 70 lines, too.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// The folders that are checked.
const FOLDERS: [&str; 5] = ["src", "crates", "tests", "benches", "loadtest"];

#[test]
fn files_and_functions_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = FOLDERS.iter().flat_map(|folder| files(&root.join(folder))).collect();
    assert!(files.len() > 300, "{}", files.len());
    let mut long: Vec<String> = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        long.extend(too_long(&text, is_of_tests(name)).into_iter().map(|what| format!("{}: {what}", name.display())));
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn what_is_too_long_is_found_and_lines_of_tests_do_not_count_for_their_file() {
    let lines = |count: usize| "    let _ = ();\n".repeat(count);
    let function = |count| format!("fn long() {{\n{}}}\n", lines(count));
    let too_long = |text: &str| self::too_long(text, false);
    let of_tests = |text: &str| self::too_long(text, true);
    assert_eq!(too_long(&function(68)), Vec::<String>::new());
    assert_eq!(too_long(&function(69)), ["fn long has 71 lines"]);
    let tests = format!("fn short() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", function(68).repeat(10));
    assert_eq!(too_long(&tests), Vec::<String>::new());
    assert_eq!(too_long(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(69))), ["fn long has 71 lines"]);
    assert_eq!(of_tests(&function(69).repeat(10)), ["fn long has 71 lines"; 10]);
    let consts = "const A: u8 = 1;\n".repeat(401);
    assert_eq!(too_long(&consts), ["it has 401 lines"]);
    assert_eq!(of_tests(&consts), Vec::<String>::new());
    assert_eq!(too_long(&format!("{}{tests}", "const A: u8 = 1;\n".repeat(399))), Vec::<String>::new());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Files that contain only tests.
fn is_of_tests(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let is_below_tests = path.iter().any(|folder| folder == "tests");
    is_below_tests || stem.ends_with("tests") || ["fake_disk", "fixture"].contains(&stem)
}

/// What is too long in a file: functions, and the file itself unless it is one of tests.
fn too_long(text: &str, is_of_tests: bool) -> Vec<String> {
    let tokens: TokenStream = text.parse().unwrap();
    let mut found = Vec::new();
    let tests = walk(tokens, &mut found);
    let lines = text.lines().count() - tests;
    if lines > FILE_LINES_MAX && !is_of_tests {
        found.push(format!("it has {lines} lines"));
    }
    found
}

/// Adds functions that are too long to `found`, and returns how many lines are tests.
fn walk(tokens: TokenStream, found: &mut Vec<String>) -> usize {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut tests = 0;
    let mut function: Option<(String, usize)> = None;
    let mut attribute = None;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if is_cfg_test(group) => attribute = Some(group.span_open().start().line),
            TokenTree::Ident(word) if word == "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                    function = Some((name.to_string(), word.span().start().line));
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let end = group.span_close().end().line;
                if let Some((name, start)) = function.take() {
                    let lines = end - start + 1;
                    if lines > FUNCTION_LINES_MAX {
                        found.push(format!("fn {name} has {lines} lines"));
                    }
                }
                let inner = walk(group.stream(), found);
                tests += attribute.take().map_or(inner, |start| end - start + 1);
            }
            TokenTree::Punct(end) if end.as_char() == ';' => (function, attribute) = (None, None),
            _ => {}
        }
    }
    tests
}

fn is_cfg_test(group: &Group) -> bool {
    group.delimiter() == Delimiter::Bracket && group.to_string().replace(' ', "") == "[cfg(test)]"
}
