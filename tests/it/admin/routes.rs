//! The admin page over HTTP, as browsers and attackers use it.

use pixeld::parts::admin::{Access, ROUTES};
use pixeld::parts::db::Role;

use crate::kit::support::{App, beside};
use crate::kit::visitor::{PASSWORD, Visitor, add_user, form, run_with, text};

/// An id that does not exist.
const NOWHERE: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn users_are_made_listed_given_passwords_and_removed_by_commands() {
    let _machine = beside();
    let app = App::start();
    let settings = app.server.settings();
    let said = |arguments: &[&str], input: &str| {
        let output = run_with(settings, arguments, input);
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    add_user(&app, "Ann", "admin");
    add_user(&app, "ben@example.com", "viewer");
    for (arguments, input, part) in [
        (&["user", "add", "ANN", "--password-stdin"][..], PASSWORD, "already"),
        (&["user", "add", "carl", "--password-stdin"], "short", "12 characters"),
        (&["user", "add", "carl", "--password-stdin"], "", "12 characters"),
        (&["user", "add", "carl"], PASSWORD, "--password-stdin"),
        (&["user", "password", "nobody", "--password-stdin"], PASSWORD, "no user"),
        (&["user", "remove", "nobody"], "", "no user"),
    ] {
        let (code, words) = said(arguments, input);
        assert!(code == 1 && words.contains(part) && !words.contains(PASSWORD), "{arguments:?}: {code} {words}");
    }
    let listed = settings.run(&["user", "list"]).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("admin") && lines[0].ends_with("Ann"), "{listed}");
    assert!(lines[1].starts_with("viewer") && lines[1].ends_with("ben@example.com"), "{listed}");
    let hash = &app.query("SELECT password_hash FROM users WHERE name = 'Ann'")[0];
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");

    let ann = Visitor::signed_in(&app, "ann");
    assert_eq!(said(&["user", "password", "ann", "--password-stdin"], "another good password\n").0, 0);
    assert!(!ann.is_signed_in(), "a new password ends sessions");
    assert_eq!(Visitor::of(&app).sign_in("ann", PASSWORD, "/").status, 401);
    let mut ann = Visitor::of(&app);
    assert_eq!(ann.sign_in("ann", "another good password", "/").status, 303);
    assert_eq!(said(&["user", "remove", "aNN"], "").0, 0);
    assert!(!ann.is_signed_in());
    let audit = app.query(
        "SELECT actor || ': ' || action || ' ' || subject FROM audit WHERE action NOT LIKE 'image %' ORDER BY id",
    );
    assert_eq!(
        audit,
        [
            "command line: user added Ann",
            "command line: user added ben@example.com",
            "command line: password changed Ann",
            "command line: user removed Ann"
        ]
    );
}

#[test]
fn a_user_signs_in_and_out_and_is_led_to_where_they_were_going() {
    let _machine = beside();
    let app = App::start();
    let mut visitor = Visitor::of(&app);
    let page = text(&visitor.get("/sign-in"));
    assert!(page.contains("user add NAME") && page.contains(env!("CARGO_BIN_EXE_pixeld")), "{page}");
    assert!(!page.contains("type=\"password\""));
    add_user(&app, "ann", "admin");

    let answer = visitor.get("/settings?x=1&y=/");
    assert_eq!(answer.header("location"), Some("/sign-in?next=%2Fsettings%3Fx%3D1%26y%3D%2F"));
    let page = text(&visitor.get("/sign-in?next=%2Fsettings%3Fx%3D1%26y%3D%2F"));
    assert!(page.contains("name=\"next\" value=\"/settings?x=1&amp;y=/\""), "{page}");
    // A click on a link on another site sends no cookie; the page repeats the request.
    let clicked = visitor.ask("GET", "/settings", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", "");
    assert!(clicked.status == 200 && text(&clicked).contains("content=\"0; url=/settings\""), "{}", text(&clicked));

    // The answer does not say which of the two was wrong.
    let wrong = |name: &str| {
        let answer = Visitor::of(&app).sign_in(name, "not the password", "/");
        assert!(answer.status == 401 && answer.header("set-cookie").is_none());
        text(&answer).replace(name, "NAME")
    };
    assert_eq!(wrong("ann"), wrong("bob"));
    for (name, password) in [("ann", ""), ("", PASSWORD), ("a\0b", PASSWORD), ("ann", &*"x".repeat(5000))] {
        assert_eq!(Visitor::of(&app).sign_in(name, password, "/").status, 401, "{name:?}");
    }

    let answer = visitor.sign_in("ANN", PASSWORD, "/settings?x=1");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/settings?x=1")));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("pixeld=") && cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
    let token = visitor.cookie.split_once('=').unwrap().1;
    assert!(token.len() == 43 && app.number("SELECT count(*) FROM sessions") == 1);
    assert!(!app.query("SELECT encode(token_sha256, 'base64') FROM sessions")[0].contains(&token[..20]));
    assert!(visitor.is_signed_in());
    assert_eq!(visitor.get("/sign-in").header("location"), Some("/"));

    // No redirect to another site. With these the account has used its ten attempts.
    for next in ["//evil.example/", "https://evil.example/", "/\\evil.example", "/nowhere", "/sign-in", "/metrics"] {
        assert_eq!(Visitor::of(&app).sign_in("ann", PASSWORD, next).header("location"), Some("/"), "{next}");
    }

    let answer = visitor.post("/sign-out", "");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in?done=signed-out")));
    assert!(answer.header("set-cookie").unwrap().starts_with("pixeld=; Path=/; Max-Age=0;"));
    assert!(!visitor.is_signed_in(), "the token is worth nothing any more, also where the cookie stays");
}

#[test]
fn passwords_cannot_be_tried_for_ever() {
    let _machine = beside();
    let app = App::start();
    add_user(&app, "ann", "admin");
    add_user(&app, "ben", "viewer");
    for _ in 0..10 {
        assert_eq!(Visitor::of(&app).sign_in("ann", "not the password", "/").status, 401);
    }
    let answer = Visitor::of(&app).sign_in("Ann", PASSWORD, "/");
    assert_eq!(answer.status, 429, "the right one, too");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() <= 31);
    assert!(text(&answer).contains("Too many attempts"));
    Visitor::signed_in(&app, "ben");
    // An address has thirty.
    let refused = (0..40).filter(|n| Visitor::of(&app).sign_in(&format!("x{n}"), "y", "/").status == 429).count();
    assert!((18..=24).contains(&refused), "{refused}");
}

#[test]
fn a_session_ends_with_time_or_everywhere_at_once() {
    let _machine = beside();
    let app = App::start();
    add_user(&app, "ann", "admin");
    add_user(&app, "ben", "admin");
    for change in [
        "UPDATE sessions SET used_at = used_at - interval '12 hours 1 second'",
        "UPDATE sessions SET created_at = created_at - interval '7 days 1 second'",
        "UPDATE users SET sessions_valid_from = clock_timestamp()",
        "UPDATE users SET disabled_at = now() WHERE name = 'ann'",
        "DELETE FROM sessions",
    ] {
        app.query("UPDATE users SET disabled_at = NULL");
        let ann = Visitor::signed_in(&app, "ann");
        assert!(ann.is_signed_in());
        app.query(change);
        assert!(!ann.is_signed_in(), "{change}");
    }
    app.query("UPDATE users SET disabled_at = NULL");
    // A session that is used within the hour goes on, and the database shows it.
    let ann = Visitor::signed_in(&app, "ann");
    app.query("UPDATE sessions SET used_at = used_at - interval '11 hours'");
    assert!(ann.is_signed_in());
    assert_eq!(app.number("SELECT count(*) FROM sessions WHERE used_at < now() - interval '1 minute'"), 0);

    let (here, ben) = (Visitor::signed_in(&app, "ann"), Visitor::signed_in(&app, "ben"));
    assert_eq!(here.post("/sign-out-everywhere", "").status, 303);
    assert!(!here.is_signed_in() && !ann.is_signed_in() && ben.is_signed_in());

    let id = app.query("SELECT id FROM users WHERE name = 'ann'").remove(0);
    let ann = Visitor::signed_in(&app, "ann");
    let answer = ben.post(&format!("/settings/users/{id}/disable"), "");
    assert_eq!(answer.header("location"), Some("/settings?done=disabled"));
    assert!(!ann.is_signed_in());
    let id = app.query("SELECT id FROM users WHERE name = 'ben'").remove(0);
    let answer = ben.post(&format!("/settings/users/{id}/disable"), "");
    assert_eq!(answer.header("location"), Some("/settings?done=last-admin"), "the last admin stays");
    assert!(ben.is_signed_in());
}

#[test]
fn only_our_own_pages_under_our_own_name_are_answered() {
    let _machine = beside();
    let app = App::start();
    let ann = Visitor::admin(&app);
    let port = app.server.settings().admin().port();
    for host in ["evil.example", "localhost", "127.0.0.1:1", "pixeld.internal:8081", ""] {
        let visitor = Visitor { host: host.to_owned(), cookie: ann.cookie.clone(), address: ann.address };
        for path in ["/", "/sign-in", "/settings", "/nowhere"] {
            let answer = visitor.get(path);
            assert_eq!(answer.status, 421, "{host} {path}");
            assert!(text(&answer).contains(&format!("ssh -N -L {port}:127.0.0.1:{port} YOU@SERVER")));
        }
        // Monitoring is answered under any name, since load balancers use addresses.
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(visitor.get(path).status, 200, "{host} {path}");
        }
    }
    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), format!("LOCALHOST:{port}")] {
        let visitor = Visitor { host, cookie: ann.cookie.clone(), address: ann.address };
        assert!(visitor.is_signed_in());
    }

    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (headers, is_own) in [
        (String::new(), false),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), false),
        ("Sec-Fetch-Site: same-site\r\n".to_owned(), false),
        ("Sec-Fetch-Site: none\r\n".to_owned(), false),
        ("Origin: null\r\n".to_owned(), false),
        ("Origin: https://evil.example\r\n".to_owned(), false),
        (format!("Origin: http://127.0.0.1:{}\r\n", port + 1), false),
        (format!("Origin: http://127.0.0.1:{port}\r\n"), true),
    ] {
        let answer = ann.ask("POST", "/settings/users/999/disable", &format!("{kind}{headers}"), "");
        assert_eq!(answer.status, if is_own { 303 } else { 403 }, "{headers}");
        assert_eq!(text(&answer).contains("so nothing changed"), !is_own, "{headers}");
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        assert_eq!(ann.ask(method, "/settings", "", "").status, 403, "{method}");
        let answer = ann.ask(method, "/settings", "Sec-Fetch-Site: same-origin\r\n", "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let large = ann.post("/settings/users", &"x".repeat((64 << 10) + 1));
    assert!(large.status == 413 && text(&large).contains("64 KiB"));
    let other = "Content-Type: text/plain\r\nSec-Fetch-Site: same-origin\r\n";
    assert_eq!(ann.ask("POST", "/settings/users", other, "name=x").status, 415);
}

#[test]
fn every_route_admits_exactly_its_users() {
    let _machine = beside();
    let app = App::start();
    add_user(&app, "ann", "admin");
    add_user(&app, "ben", "viewer");
    let changes = || app.number("SELECT count(*) FROM audit") + app.number("SELECT count(*) FROM users");
    let image = uuid::Uuid::new_v4().to_string();
    for route in ROUTES {
        let path = route
            .pattern
            .replace("{user}", "999999")
            .replace("{hash}", "x")
            .replace("{token}", "x")
            .replace("{job}", "999999")
            .replace("{erasure}", "999999")
            .replace("{image}", &image);
        let path = path.replace("{message}", NOWHERE).replace("{recipient}", NOWHERE);
        assert!(!path.contains('{'), "{path}: give this parameter a value here");
        for who in [None, Some(Role::Viewer), Some(Role::Admin)] {
            let mut visitor = Visitor::of(&app);
            if let Some(role) = who {
                // A session that costs no sign-in attempt.
                app.query(&format!(
                    "INSERT INTO sessions (token_sha256, user_id) \
                     SELECT sha256(decode(repeat('00', 32), 'hex')), id FROM users WHERE role = '{}' \
                     ON CONFLICT (token_sha256) DO UPDATE SET user_id = excluded.user_id",
                    role.word()
                ));
                visitor.cookie = format!("pixeld={}", "A".repeat(43));
            }
            let before = changes();
            let answer = if route.method == "GET" { visitor.get(&path) } else { visitor.post(&path, "") };
            let what = format!("{} {path} as {who:?}: {}", route.method, answer.status);
            let may = match route.access {
                Access::Open | Access::Anybody => true,
                Access::SignedIn(role) => who.is_some_and(|who| who >= role),
            };
            match (may, who) {
                (true, _) => assert!(answer.status < 500 && answer.status != 403, "{what}"),
                (false, Some(_)) => assert!(answer.status == 403 && text(&answer).contains("Only an admin"), "{what}"),
                (false, None) => {
                    let to = answer.header("location").unwrap_or_default();
                    assert!(answer.status == 303 && to.starts_with("/sign-in"), "{what} {to}");
                }
            }
            assert!(may || changes() == before, "{what} changed something");
            // HEAD is GET without a body, for the same people.
            if route.method == "GET" && route.access != Access::Open {
                let head = visitor.ask("HEAD", &path, "", "");
                assert!(head.status == answer.status && head.body.is_empty(), "{what}");
            }
        }
    }
    // The walk was complete: some routes are for admins only, and some for everybody.
    assert!(ROUTES.iter().any(|route| route.access == Access::SignedIn(Role::Admin)));
    assert!(ROUTES.iter().any(|route| route.access == Access::Anybody));
}

#[test]
fn every_page_has_the_headers_that_keep_it_private() {
    let _machine = beside();
    let app = App::start();
    add_user(&app, "ann", "admin");
    let (ann, nobody) = (Visitor::signed_in(&app, "ann"), Visitor::of(&app));
    let policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    let refused = Visitor { host: "evil.example".to_owned(), ..Visitor::of(&app) };
    let mut answers = vec![
        ann.get("/"),
        ann.get("/settings"),
        ann.get("/nowhere"),
        ann.post("/settings", ""),
        ann.ask("POST", "/sign-out", "", ""),
        ann.get("/settings/users/1/disable"),
        nobody.get("/sign-in"),
        nobody.get("/"),
        nobody.get("/nowhere"),
        refused.get("/"),
    ];
    answers.push(ann.post("/settings/users", &form(&[("name", "x"), ("new-password", "short"), ("role", "admin")])));
    assert_eq!(
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
        [200, 200, 404, 405, 403, 405, 200, 303, 404, 421, 422]
    );
    for answer in &answers {
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{}", answer.head);
        }
        let page = text(answer);
        assert!(!page.contains("<script") && !page.contains(" style="), "{page}");
        assert!(answer.status == 303 || page.contains("<h1>"), "{page}");
    }
    let page = text(&nobody.get("/sign-in"));
    let path = page.split_once("href=\"/style/").unwrap().1.split_once('"').unwrap().0;
    let style = nobody.get(&format!("/style/{path}"));
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(style.header("cache-control"), Some("public, max-age=31536000, immutable"));
}

#[test]
fn hostile_names_and_titles_are_only_text() {
    let _machine = beside();
    let app = App::start();
    let hostile = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";
    add_user(&app, "ann", "admin");
    add_user(&app, hostile, "viewer");
    let message = "message set may --sent-count 7 --name";
    let arguments: Vec<&str> = message.split(' ').chain([hostile]).collect();
    app.server.settings().run(&arguments).unwrap();
    let ann = Visitor::signed_in(&app, "ann");
    let name = format!("{hostile}2");
    let added = ann.post("/settings/users", &form(&[("name", &name), ("new-password", PASSWORD), ("role", "admin")]));
    assert_eq!(added.header("location"), Some("/settings?done=added"));
    let again = ann.post("/settings/users", &form(&[("name", &name), ("new-password", PASSWORD), ("role", "admin")]));
    assert!(again.status == 422 && text(&again).contains("already"));
    let other = Visitor::signed_in(&app, hostile);
    for page in
        [ann.get("/settings"), ann.get("/"), other.get("/"), again, ann.get(&format!("/{}", form(&[("x", hostile)])))]
    {
        let page = text(&page);
        assert!(!page.contains("<script") && !page.contains("<img src=x"), "{page}");
    }
    assert!(text(&ann.get("/settings")).contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(text(&ann.get("/")).contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    // Admins see what the others changed.
    assert!(
        text(&ann.get("/settings")).contains("user added") && !text(&other.get("/settings")).contains("user added")
    );
}

#[test]
fn over_https_the_cookie_is_this_hosts_alone_and_plain_http_asks_for_no_password() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_ADMIN_BASE_URL", "https://admin.example.com"));
    add_user(&app, "ann", "admin");
    let mut ann = Visitor { host: "admin.example.com".to_owned(), ..Visitor::of(&app) };
    let answer = ann.sign_in("ann", PASSWORD, "/");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-pixeld=") && cookie.contains("; Path=/;"), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure") && !cookie.contains("Domain"), "{cookie}");
    assert!(ann.is_signed_in());
    ann.cookie = ann.cookie.replace("__Host-", "");
    assert!(!ann.is_signed_in(), "a cookie that a sibling host could set is none");

    let app = App::start_with(|settings| settings.with("PIXELD_ADMIN_BASE_URL", "http://admin.example.com:9999"));
    add_user(&app, "ann", "admin");
    let port = app.server.settings().admin().port();
    let mut ann = Visitor { host: "admin.example.com:9999".to_owned(), ..Visitor::of(&app) };
    let page = text(&ann.get("/sign-in"));
    assert!(page.contains(&format!("ssh -N -L {port}:127.0.0.1:{port} YOU@admin.example.com")), "{page}");
    assert!(page.contains("plain HTTP") && !page.contains("type=\"password\""));
    let answer = ann.sign_in("ann", PASSWORD, "/");
    assert!(answer.status == 403 && answer.header("set-cookie").is_none());
    Visitor::signed_in(&app, "ann");
}

#[test]
fn without_the_database_the_page_says_so_and_comes_back_with_it() {
    let _machine = beside();
    let mut app = App::start();
    let ann = Visitor::admin(&app);
    app.postgres.stop().unwrap();
    for path in ["/", "/settings", "/sign-in"] {
        let answer = ann.get(path);
        assert!(answer.status == 503 && text(&answer).contains("Pixels are still served"), "{path}");
    }
    app.postgres.start_again().unwrap();
    pixeld_testkit::process::wait_until("the page", crate::kit::support::PATIENCE, || ann.is_signed_in()).unwrap();
}
