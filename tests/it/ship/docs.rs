//! The pages of the repository: their links lead somewhere, all are listed, and the texts that they quote are the
//! program's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the repository is.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Folders without pages of ours.
const LEFT_OUT: [&str; 4] = ["target", "data", "node_modules", "fixtures"];

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() && !name.starts_with('.') && !LEFT_OUT.contains(&&*name) {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(Path::new(ROOT), ".md", &mut found);
    found
}

/// A page without its code, which may look like links and headings.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What `#` may name on a page, in GitHub's form of headings.
pub fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(page).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

/// Where a page's links go: `](…)`, `src="…"`.
fn targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    // Without inline code.
    let prose: String = prose.split('`').step_by(2).collect();
    let ends = [("](", ')'), ("src=\"", '"'), ("href=\"", '"')];
    let found = ends.iter().flat_map(|(begin, end)| {
        prose.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(*end)?.0.to_owned())).collect::<Vec<_>>()
    });
    found.collect()
}

/// What is wrong with a link; `None` if it leads somewhere.
pub fn wrong_link(from: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { from.to_owned() } else { from.parent().unwrap().join(file) };
    if !path.exists() {
        return Some(format!("{}: {target}: there is no such file", from.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let has_anchor = fs::read_to_string(&path).is_ok_and(|page| anchors(&page).contains(anchor));
    (!has_anchor).then(|| format!("{}: {target}: there is no such heading", from.display()))
}

#[test]
fn every_link_of_every_page_leads_to_a_file_and_a_heading() {
    let pages = pages();
    assert!(pages.len() > 15, "{pages:?}");
    let wrong: Vec<String> = pages
        .iter()
        .flat_map(|page| {
            let text = fs::read_to_string(page).unwrap();
            targets(&text).into_iter().filter_map(|target| wrong_link(page, &target)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = Path::new(ROOT).join("README.md");
    let text = "# A `code` & more\n[x](docs/nowhere.md) [y](#a-code--more) `[z](no.md)`\n```\n[z](no.md)\n# No\n```\n\
                [w](https://x.org/y)\n# Twice\n## Twice\n";
    assert_eq!(targets(text), ["docs/nowhere.md", "#a-code--more", "https://x.org/y"]);
    assert_eq!(anchors(text), ["a-code--more", "twice", "twice-1"].map(str::to_owned).into());
    assert!(wrong_link(&page, "docs/nowhere.md").is_some_and(|wrong| wrong.contains("no such file")));
    assert!(wrong_link(&page, "docs/links.md#nowhere").is_some_and(|wrong| wrong.contains("no such heading")));
    assert_eq!(wrong_link(&page, "docs/links.md#signed-links"), None);
}

#[test]
fn every_page_of_docs_is_in_its_list() {
    let list = Path::new(ROOT).join("docs/README.md");
    let listed = targets(&fs::read_to_string(&list).unwrap());
    let listed: BTreeSet<&str> = listed.iter().map(|target| target.split('#').next().unwrap()).collect();
    for entry in fs::read_dir(list.parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_page = name.ends_with(".md") && name != "README.md";
        assert!(!is_page || listed.contains(&*name), "{name} is not in docs/README.md");
    }
}

/// All strings of the program, without the line continuations that the compiler removes.
fn sources() -> String {
    let mut found = Vec::new();
    for folder in ["src", "crates"] {
        files(&Path::new(ROOT).join(folder), ".rs", &mut found);
    }
    let text: String = found.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |all, part| all + part.trim_start()).replace("\\\"", "\"")
}

#[test]
fn quotes_on_the_troubleshooting_page_are_the_programs_texts() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md")).unwrap();
    let sources = sources();
    let quoted: Vec<&str> =
        page.split("```text\n").skip(1).flat_map(|rest| rest.split("```").next().unwrap().lines()).collect();
    assert!(quoted.len() > 10, "{quoted:?}");
    // An ellipsis stands for a value.
    for part in quoted.iter().flat_map(|line| line.split('…')).map(str::trim).filter(|part| part.len() > 3) {
        assert!(sources.contains(part), "the program nowhere says: {part}");
    }
}

#[test]
fn every_decision_is_in_its_list_and_has_all_of_its_parts() {
    let folder = Path::new(ROOT).join("docs/decisions");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let listed: BTreeSet<String> = targets(&list).into_iter().collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        let title = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        assert!(list.contains(&format!("]({name}) {title}")), "docs/decisions/README.md lacks: {name} {title}");
        for part in ["\nDate: 2", "Status: ", "**Context**: ", "**Decision**: ", "**What was rejected**: "] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
        for part in ["**What was measured**: ", "**Where in the code**: "] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
        let number: String = name.chars().take(4).collect();
        assert!(found.insert(number), "{name}: its number is taken");
        assert!(listed.contains(&name), "{name} is not in docs/decisions/README.md");
    }
    assert!(found.len() > 50, "{found:?}");
}

/// Lines of prose that do not fit a screen. Tables, code, and lines that are one link or address cannot be broken.
fn too_wide(page: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ") && !line.starts_with('|')
    });
    lines.filter(|line| line.chars().count() > 150 && line.split_whitespace().count() > 3).collect()
}

#[test]
fn no_line_of_a_page_is_wider_than_a_screen() {
    let long = "word ".repeat(31);
    assert_eq!(too_wide(&format!("{long}\n```\n{long}\n```\n| {long} |\n    {long}\nword\n")), [long]);
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        // A list of links is as wide as its links.
        let wide: Vec<&str> = too_wide(&text).into_iter().filter(|line| !line.contains("](#")).collect();
        assert!(wide.is_empty(), "{}: {wide:#?}", page.display());
    }
}

/// Files and folders of the repository that a page names.
fn named(page: &str) -> Vec<&str> {
    let folders = ["src/", "tests/", "benches/", "scripts/", "nginx/", "systemd/", "migrations/"];
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter(|text| folders.iter().any(|folder| text.starts_with(folder)))
        .filter(|text| !text.contains(|c: char| c.is_whitespace() || "{*:".contains(c)))
        .collect()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    assert_eq!(named("`src/a.rs` and `src/{a,b}.rs`, `cargo src/x`, `tests/it/`"), ["src/a.rs", "tests/it/"]);
    let mut found = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for name in named(&text) {
            found += 1;
            assert!(Path::new(ROOT).join(name).exists(), "{}: {name} is not there", page.display());
        }
    }
    assert!(found > 100, "{found}");
}
