//! The walls between rooms: which one may use which, from the table in ARCHITECTURE.md, and no circle of files.
//!
//! Reads tokens: every path that begins with `crate`, `super`, `self` or the name of one of our crates, in `use`, in
//! code and in macros. Tests inside a file count for walls but not for circles.
//!
//! The rooms of `pixeld-core` and of `pixeld` form one house; `pixeld-spool` and `pixeld-edge` are a room each.
//! `Cargo.toml` limits what a crate may use at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's path without `crate::`, such as `spool::frame`.
type Module = String;

/// The folders of the sources, their crate's name, and the room that the crate is, if it is one.
const CRATES: [(&str, &str, &str); 4] = [
    ("src", "pixeld", ""),
    ("crates/core/src", "pixeld_core", ""),
    ("crates/spool/src", "pixeld_spool", "spool"),
    ("crates/edge/src", "pixeld_edge", "edge"),
];

/// Every module with the paths that its file names, each from the house's root, including `app` and the crates' roots.
struct House {
    names: BTreeMap<Module, Names>,
}

/// The paths that a file names.
#[derive(Default)]
struct Names {
    /// The room that its crate is, or empty.
    root: String,
    /// Outside of tests.
    program: BTreeSet<String>,
    /// In `#[cfg(test)]`.
    tests: BTreeSet<String>,
    /// Its modules that exist in tests only.
    test_modules: BTreeSet<Module>,
}

#[test]
fn rooms_see_what_the_table_in_architecture_allows_and_no_more() {
    let house = House::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let table = table(&read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")));
    let wrong = house.arrows_beside(&table);
    assert!(wrong.is_empty(), "ARCHITECTURE.md, \"Rooms and walls\":\n{}", wrong.join("\n"));
}

#[test]
fn files_import_each_other_in_no_circle() {
    let house = House::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let circles = circles(&house.files());
    assert!(circles.is_empty(), "these import each other in a circle: {circles:#?}");
}

#[test]
fn the_crates_below_pixeld_reach_no_database_and_no_page() {
    let lock = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"));
    let packages = packages(&lock);
    let far = ["tokio-postgres", "deadpool-postgres", "redis", "rustls", "maud", "sentry", "pixeld"];
    for near in ["pixeld-core", "pixeld-spool", "pixeld-edge"] {
        let reached = reached(&packages, &near.to_owned());
        assert!(reached.len() > 20, "{near}: {reached:?}");
        let other = if near == "pixeld-edge" { "pixeld-spool" } else { "pixeld-edge" };
        let seen: Vec<_> = far.iter().chain([&other]).filter(|far| reached.iter().any(|name| name == *far)).collect();
        assert!(seen.is_empty(), "{near} reaches {seen:?}");
    }
    assert!(
        reached(&packages, &"pixeld".to_owned()).iter().any(|name| *name == "tokio-postgres"),
        "Cargo.lock was read wrongly"
    );
}

#[test]
fn the_test_kit_and_the_load_generator_are_apart() {
    let lock = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"));
    let packages = packages(&lock);
    let kit = &packages["pixeld-testkit"];
    // pixeld brings some of these itself.
    for of_loads in ["clap", "hdrhistogram", "loadtest", "mio", "plotters"] {
        assert!(packages["loadtest"].contains(of_loads) || of_loads == "loadtest", "{of_loads}");
        assert!(!kit.contains(of_loads), "pixeld-testkit uses {of_loads}");
    }
    assert!(kit.contains("pixeld") && packages["loadtest"].contains("pixeld-testkit"), "{kit:?}");
}

#[test]
fn a_planted_arrow_and_a_planted_circle_are_found() {
    let table = table("| `edge` | a | `hit` |\n| `hit` | b | |\n| `db` | c | `hit::time` |\n");
    let house = |edge: &str, db: &str| House {
        names: [("edge", edge), ("hit", ""), ("hit::time", ""), ("db", db), ("app", "use crate::edge;")]
            .map(|(name, text)| (name.to_owned(), Names::of("", name, text)))
            .into(),
    };
    let fine = house("use crate::hit::{self, Hit};", "use crate::hit::time::Micros;");
    assert_eq!(fine.arrows_beside(&table), Vec::<String>::new());
    let planted =
        house("use crate::hit::Hit;\nfn f() { crate::db::connect() }", "use crate::hit::{time::Micros, Hit};");
    assert_eq!(
        planted.arrows_beside(&table),
        ["db may not see hit::Hit (in db)", "edge may not see db::connect (in edge)"].map(String::from)
    );
    let unused = house("", "use crate::hit::time::Micros;");
    assert_eq!(unused.arrows_beside(&table), ["edge no longer needs hit".to_owned()]);
    let circle =
        house("use crate::db::Database;", "mod inner { fn f() { drop(html! { (super::super::edge::Edge) }) } }");
    assert_eq!(circles(&circle.files()), [["db".to_owned(), "edge".to_owned()]]);
    let other_crates =
        house("use pixeld_core::hit::Hit;", "use pixeld_core::hit::time;\nuse pixeld_edge::{Edge, queue};");
    assert_eq!(
        other_crates.arrows_beside(&table),
        ["db may not see edge::Edge (in db)", "db may not see edge::queue (in db)"]
    );
    let in_tests = house("use crate::db::Database;", "#[cfg(test)] mod tests { use crate::edge::Edge; }");
    assert_eq!(circles(&in_tests.files()), Vec::<Vec<Module>>::new());
}

impl House {
    fn read(root: &Path) -> House {
        let mut names = BTreeMap::new();
        for (src, _, room) in CRATES {
            let src = root.join(src);
            let mut folders = vec![src.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|extension| extension == "rs") {
                        let module = path.strip_prefix(&src).unwrap().with_extension("");
                        let module = module.to_str().unwrap().replace('/', "::");
                        let module = if module == "lib" { room.to_owned() } else { joined(room, &module) };
                        if !module.is_empty() && module != "main" {
                            let found = Names::of(room, &module, &read(&path));
                            names.insert(module, found);
                        }
                    }
                }
            }
        }
        House { names }
    }

    /// Dependencies that the table lacks, and entries of the table that are not used.
    fn arrows_beside(&self, table: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut used = BTreeSet::new();
        for (module, names) in &self.names {
            let room = room_of(module);
            if room == "app" {
                continue;
            }
            let Some(allowed) = table.get(room) else {
                wrong.push(format!("{room} has no line"));
                continue;
            };
            let seen = names.program.union(&names.tests);
            for name in seen.filter(|name| self.names.contains_key(room_of(name)) && room_of(name) != room) {
                match allowed.iter().find(|allowed| within(name, allowed)) {
                    Some(allowed) => drop(used.insert((room, allowed))),
                    None => wrong.push(format!("{room} may not see {name} (in {module})")),
                }
            }
        }
        for (room, allowed) in table {
            let idle = allowed.iter().filter(|allowed| !used.contains(&(room.as_str(), *allowed)));
            wrong.extend(idle.map(|allowed| format!("{room} no longer needs {allowed}")));
        }
        wrong.sort_by_key(|line| !line.contains("may not"));
        wrong
    }

    /// Which file imports which. A folder's head and its files count as one.
    fn files(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let of_tests: BTreeSet<&Module> = self.names.values().flat_map(|names| &names.test_modules).collect();
        let is_of_tests = |module: &str| of_tests.iter().any(|of_tests| within(module, of_tests));
        let of = |module: &Module, names: &Names| {
            let files = names.program.iter().filter_map(|name| self.file(name));
            files.filter(|file| !within(file, module) && !within(module, file)).collect()
        };
        let of_program = self.names.iter().filter(|(module, _)| !is_of_tests(module));
        of_program.map(|(module, names)| (module.clone(), of(module, names))).collect()
    }

    fn file(&self, name: &str) -> Option<Module> {
        let mut name = name;
        loop {
            if self.names.contains_key(name) {
                return Some(name.to_owned());
            }
            name = name.rsplit_once("::")?.0;
        }
    }
}

/// The dependencies of each package of a `Cargo.lock`, without versions.
fn packages(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let package = |text: &str| {
        let quoted = |line: &str| Some(line.split('"').nth(1)?.split(' ').next()?.to_owned());
        let name = text.lines().find(|line| line.starts_with("name = ")).and_then(quoted)?;
        Some((name, text.lines().filter(|line| line.starts_with(" \"")).filter_map(quoted).collect::<BTreeSet<_>>()))
    };
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, needs) in lock.split("[[package]]").filter_map(package) {
        packages.entry(name).or_default().extend(needs);
    }
    packages
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn room_of(name: &str) -> &str {
    name.split("::").next().unwrap_or(name)
}

/// Whether `name` is `outer` or inside it.
fn within(name: &str, outer: &str) -> bool {
    name.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// For each room of the table, what it may use.
fn table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lines = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix('|')?.split(" |").map(str::trim).collect();
        let [room, _, sees, ..] = cells[..] else { return None };
        let sees = sees.trim_start_matches('|').trim();
        let is_list = sees.split(", ").all(|one| sees.is_empty() || one.starts_with('`') && one.ends_with('`'));
        let sees = sees.split(", ").map(|one| one.trim_matches('`').to_owned()).filter(|one| !one.is_empty());
        is_list.then(|| (room.trim_matches('`').to_owned(), sees.collect()))
    });
    lines.collect()
}

impl Names {
    /// Reads a file's text; its crate's root is `root`.
    fn of(root: &str, module: &str, text: &str) -> Names {
        let mut names = Names { root: root.to_owned(), ..Names::default() };
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module}: {error}"));
        names.walk(module, tokens, false);
        names
    }

    fn walk(&mut self, module: &str, tokens: TokenStream, in_tests: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut next_is_of_tests = false;
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += 1;
            match rest {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] if hash.as_char() == '#' => {
                    next_is_of_tests |= attribute.to_string().replace(' ', "") == "[cfg(test)]";
                    at += 1;
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), after, ..] if word == "mod" => {
                    let inner = format!("{module}::{name}");
                    match after {
                        TokenTree::Group(body) => self.walk(&inner, body.stream(), in_tests || next_is_of_tests),
                        _ if next_is_of_tests => drop(self.test_modules.insert(inner)),
                        _ => {}
                    }
                    (at, next_is_of_tests) = (at + 2, false);
                }
                [TokenTree::Ident(word), ..] if is_start(&word.to_string()) => {
                    at += self.path(module, &word.to_string(), &rest[1..], in_tests || next_is_of_tests);
                }
                [TokenTree::Group(group), ..] => {
                    self.walk(module, group.stream(), in_tests || next_is_of_tests);
                    next_is_of_tests &= group.delimiter() != Delimiter::Brace;
                }
                [TokenTree::Punct(end), ..] if end.as_char() == ';' => next_is_of_tests = false,
                _ => {}
            }
        }
    }

    /// Records the paths that begin with `start` and go on with `rest`. Returns their number of tokens.
    fn path(&mut self, module: &str, start: &str, rest: &[TokenTree], in_tests: bool) -> usize {
        let up = |module: &str| module.rsplit_once("::").map_or(String::new(), |(outer, _)| outer.to_owned());
        let mut prefix = match start {
            "crate" => self.root.clone(),
            "super" => up(module),
            "self" => module.to_owned(),
            name => room_of_crate(name).unwrap_or_default().to_owned(),
        };
        let mut at = 0;
        while let [TokenTree::Punct(first), TokenTree::Punct(second), next, ..] = &rest[at..] {
            if first.as_char() != ':' || second.as_char() != ':' {
                break;
            }
            at += 3;
            match next {
                TokenTree::Ident(name) if name == "super" => prefix = up(&prefix),
                TokenTree::Ident(name) => prefix = joined(&prefix, &name.to_string()),
                TokenTree::Group(group) => {
                    for branch in branches(group.stream()) {
                        match &branch[..] {
                            [TokenTree::Ident(name), rest @ ..] if name != "self" => {
                                self.path(&joined(&prefix, &name.to_string()), "self", rest, in_tests);
                            }
                            _ => self.note(&prefix, in_tests),
                        }
                    }
                    return at;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => break,
            }
        }
        self.note(&prefix, in_tests);
        at
    }

    fn note(&mut self, name: &str, in_tests: bool) {
        let names = if in_tests { &mut self.tests } else { &mut self.program };
        names.insert(name.to_owned());
    }
}

/// Whether a path of ours can begin with this word.
fn is_start(word: &str) -> bool {
    ["crate", "super", "self"].contains(&word) || room_of_crate(word).is_some()
}

fn room_of_crate(name: &str) -> Option<&'static str> {
    CRATES.iter().find(|(_, of_crate, _)| *of_crate == name).map(|(_, _, room)| *room)
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") }
}

/// The parts of `{a, b::c}`.
fn branches(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    tokens.split(is_comma).filter(|branch| !branch.is_empty()).map(<[TokenTree]>::to_vec).collect()
}

/// The files that reach each other both ways, one list per circle.
fn circles(files: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = files.keys().map(|from| (from, reached(files, from))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for from in files.keys() {
        let circle: Vec<Module> =
            reach[from].iter().filter(|to| reach[*to].contains(from)).map(|to| (*to).clone()).collect();
        if !circle.is_empty() && seen.insert(circle.clone()) {
            circles.push(circle);
        }
    }
    circles
}

/// All files that are reached from a file in one step or more.
fn reached<'a>(files: &'a BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = files.get(from).into_iter().flatten().collect();
    while let Some(module) = open.pop() {
        if files.contains_key(module) && reached.insert(module) {
            open.extend(&files[module]);
        }
    }
    reached
}
