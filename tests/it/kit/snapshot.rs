//! Accepted whole texts, in tests/it/snapshots; `.config/insta.yaml` makes sure that no test writes one by itself.
//! Tests that compare one have "accepted" in their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use insta::Settings;

/// All snapshots.
const NAMES: [&str; 5] = ["help", "metrics", "page-hits", "page-message", "page-sign-in"];

/// Asserts that a text is the accepted one.
pub fn assert_accepted(name: &str, text: &str) {
    assert!(NAMES.contains(&name), "{name} is not in the list");
    let mut settings = Settings::new();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn no_snapshot_is_left_behind_and_none_waits_to_be_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let expected = NAMES.iter().map(|name| format!("{name}.snap"));
    assert_eq!(files.collect::<BTreeSet<_>>(), expected.collect());
}
