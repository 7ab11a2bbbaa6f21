use super::*;

#[test]
fn numbers_have_a_comma_each_three_digits() {
    for (n, shown) in [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (-1_234_567, "−1,234,567"),
        (i64::MIN, "−9,223,372,036,854,775,808"),
        (100_000, "100,000"),
    ] {
        assert_eq!(number(n), shown);
    }
    assert_eq!((counted(1, "hit"), counted(1200, "hit")), ("1 hit".to_owned(), "1,200 hits".to_owned()));
}

#[test]
fn a_rate_has_one_decimal_and_none_of_nothing() {
    for (n, all, shown) in [
        (1, 3, "33.3%"),
        (2, 3, "66.7%"),
        (0, 7, "0.0%"),
        (12, 10, "120.0%"),
        (i64::MAX, 1, "922337203685477580700.0%"),
    ] {
        assert_eq!(percent(n, all).as_deref(), Some(shown));
    }
    assert_eq!(percent(5, 0), None);
}

#[test]
fn an_address_keeps_whatever_is_in_its_values() {
    assert_eq!(address("/messages", &[("q", ""), ("before", "")]), "/messages");
    assert_eq!(address("/messages", &[("q", "50% & \u{e4}"), ("x", "1")]), "/messages?q=50%25+%26+%C3%A4&x=1");
}

#[test]
fn a_time_is_shown_in_the_viewers_zone_and_exact_on_hover() {
    let at = OffsetDateTime::from_unix_timestamp(1_777_885_265).unwrap();
    let shown = time(at, Zone::UTC).0;
    let exact = "2026-05-04T09:01:05Z";
    assert_eq!(shown, format!("<time datetime=\"{exact}\" title=\"{exact}\">4 May 2026, 09:01</time>"));
    assert!(time(at, Zone::named("Asia/Kolkata").unwrap()).0.contains(">4 May 2026, 14:31<"));
}

#[test]
fn any_text_stays_a_text() {
    let hostile = "\"><script>alert(1)</script>";
    let user =
        SignedIn { id: 1, name: hostile.to_owned(), role: crate::db::users::Role::Admin, zone: "UTC".to_owned() };
    let frame = Frame { title: hostile, path: "/", user: Some(&user), zone: Zone::UTC };
    let row = html! { td { (hostile) } };
    let content = html! {
        (table(hostile, &[Column::words("Name")], [row]))
        (command(hostile))
        (field(hostile, "x", Some(hostile), nothing()))
    };
    for page in [frame.page(content).0, ask_again(hostile).0] {
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
        assert!(!page.contains("\"><script"), "{page}");
    }
}

#[test]
fn the_policy_finds_nothing_inline() {
    let frame = Frame { title: "T", path: "/", user: None, zone: Zone::UTC };
    let page = frame.page(notice(Tone::Bad, html! { "x" })).0;
    for inline in ["style=", "<style", "<script", " onclick", " onload", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
}

/// The colours that a block of the stylesheet defines.
fn colours(block: &str) -> Vec<(&str, [f64; 3])> {
    let lines = block.lines().filter_map(|line| line.trim().strip_prefix("--")?.strip_suffix(';'));
    let pairs = lines.filter_map(|line| line.split_once(": #"));
    let channel = |hex: &str, at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
    pairs.map(|(name, hex)| (name, [0, 2, 4].map(|at| channel(hex, at)))).collect()
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let light = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (light(a) + 0.05, light(b) + 0.05);
    if a > b { a / b } else { b / a }
}

#[test]
fn text_can_be_read_on_every_ground_by_day_and_by_night() {
    let (day, rest) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let night = &rest[..rest.find("}\n}").unwrap()];
    for (when, block) in [("day", day), ("night", night)] {
        let colours = colours(block);
        let of = |name: &str| colours.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}")).1;
        let on_all = ["ink", "muted", "accent", "good", "warning", "bad", "confirmed", "possible", "machine"];
        let mut pairs: Vec<(&str, &str)> =
            on_all.iter().flat_map(|ink| ["ground", "surface", "sunken"].map(|ground| (*ink, ground))).collect();
        pairs.extend([
            ("on-accent", "accent"),
            ("ink", "good-ground"),
            ("ink", "warning-ground"),
            ("ink", "bad-ground"),
        ]);
        for (ink, ground) in pairs {
            let found = contrast(of(ink), of(ground));
            assert!(found >= 4.5, "by {when} {ink} on {ground} has {found:.2}");
        }
    }
}
