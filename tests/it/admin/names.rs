//! Texts that people type: names in another case, and characters that reverse a text.

use crate::kit::support::{App, beside};
use crate::kit::visitor::{PASSWORD, Visitor, form, run_with, text};

#[test]
fn a_name_in_another_case_is_the_same_user_in_any_language() {
    let _machine = beside();
    let app = App::start();
    let adding = |name: &str| {
        let arguments = ["user", "add", name, "--password-stdin"];
        run_with(app.server.settings(), &arguments, &format!("{PASSWORD}\n"))
    };
    for (name, others) in [
        ("ÄNNE", &["änne", "A\u{308}nne"][..]),
        ("straße", &["STRASSE", "STRAẞE"]),
        ("İlker", &["ilker", "ILKER", "ılker"]),
    ] {
        assert!(adding(name).status.success(), "{name}");
        for other in others {
            let output = adding(other);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && said.contains("already"), "{other}: {said}");
            Visitor::signed_in(&app, other);
        }
    }
    // Two earlier users: each signs in by the exact name, and neither is taken for the other.
    app.query("INSERT INTO users (name, role, password_hash) SELECT 'änne', 'viewer', password_hash FROM users WHERE name = 'ÄNNE'");
    for (name, who) in [("ÄNNE", "title=\"ÄNNE\""), ("änne", "title=\"änne\"")] {
        let page = text(&Visitor::signed_in(&app, name).get("/"));
        assert!(page.contains(who), "{name}: {page}");
    }
    assert_eq!(Visitor::of(&app).sign_in("Änne", PASSWORD, "/").status, 401, "it could be either");
    let removed = app.server.settings().run(&["user", "remove", "änne"]).unwrap();
    assert!(removed.contains("removed"), "{removed}");
    Visitor::signed_in(&app, "Änne");
}

#[test]
fn a_search_finds_a_messages_name_in_any_case() {
    let _machine = beside();
    let app = App::start();
    let ben = Visitor::viewer(&app);
    for (message, name) in [("a", "ÄRZTE-Newsletter (50 %)"), ("b", "Große STRASSE"), ("c", "İLKBAHAR")] {
        app.server.settings().run(&["message", "set", message, "--name", name]).unwrap();
    }
    for (words, name) in [
        ("ärzte-n", "ÄRZTE-Newsletter"),
        ("(50 %)", "ÄRZTE-Newsletter"),
        ("GROẞE", "Große"),
        ("straße", "Große"),
        ("ilkbahar", "İLKBAHAR"),
        ("ILKBAHAR", "İLKBAHAR"),
    ] {
        let page = text(&ben.get(&format!("/messages?{}", form(&[("q", words)]))));
        assert!(page.contains(name), "{words}: {page}");
    }
    for words in ["a.zte", "%", "[a-z]+"] {
        let page = text(&ben.get(&format!("/messages?{}", form(&[("q", words)]))));
        assert_eq!(page.contains("ÄRZTE"), words == "%", "{words}: {page}");
    }
}

#[test]
fn what_turns_a_text_around_is_refused_or_written_out() {
    let _machine = beside();
    let app = App::start();
    let ann = Visitor::admin(&app);
    let turned = "May\u{202e}txt.exe";
    let image = app.image;
    for arguments in [
        &["user", "add", turned, "--password-stdin"][..],
        &["message", "set", "may", "--name", turned],
        &["image", "add", "x.gif", "--title", turned],
    ] {
        assert_eq!(run_with(app.server.settings(), arguments, "").status.code(), Some(2), "{arguments:?}");
    }
    let answer = ann.post(&format!("/images/{image}/title"), &form(&[("title", turned)]));
    assert_eq!(answer.status, 422);
    // Existing texts, and texts from strangers.
    app.query(&format!(
        "UPDATE images SET title = '{turned}'; INSERT INTO messages (id, name) VALUES ('{image}', '{turned}')"
    ));
    let path = format!("/t/{image}/{}/x.gif", "a%E2%80%AEb%zz");
    app.get(&path);
    app.at_rest();
    for page in [
        "/images",
        "/messages",
        "/audit",
        "/not-recorded",
        &format!("/images/{image}"),
        &format!("/messages?{}", form(&[("q", turned)])),
    ] {
        let page = text(&ann.get(page));
        assert!(!page.contains('\u{202e}'), "{page}");
    }
    assert!(text(&ann.get("/images")).contains("May[U+202E]txt.exe"));
    let listed = app.server.settings().run(&["image", "list"]).unwrap();
    assert!(listed.contains("May[U+202E]txt.exe"), "{listed}");
}
