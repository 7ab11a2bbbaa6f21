//! Changed links, what they mean, and what must not be guessed.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::link::route::{Ids, Route, route};
use crate::link::token::{SigningKeys, Token};

const I: &str = "5a3b1e00-0000-4000-8000-0000000000aF";
const M: &str = "11111111111141118111111111111111";
const R: &str = "22222222-2222-4222-8222-222222222222";

fn keys() -> SigningKeys {
    SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

fn uuid<Id: From<Uuid>>(text: &str) -> Id {
    Uuid::try_parse(text).unwrap().into()
}

fn token() -> String {
    let token = Token { sent_at_s: 1_777_885_200, image: uuid(I), message: uuid(M), recipient: uuid(R) };
    keys().sign(&token).unwrap()
}

/// The meaning of the unchanged link.
fn meant(link: &str) -> Route<'_> {
    let read = strict_only(link);
    assert!(read, "{link}");
    route(link, Box::leak(Box::new(keys())))
}

/// Whether the strict reader accepts it, so that nothing is forgiven.
fn strict_only(link: &str) -> bool {
    let is_named = |ids: &Ids<'_>| matches!(ids, Ids::Named { .. } | Ids::Keyed { .. });
    matches!(&crate::link::route::strict(link, &keys()), Route::Pixel { ids, .. } if is_named(ids))
}

/// A link's text with `what` inserted before the character with this number, for each such number.
fn with_each(text: &str, what: &str) -> Vec<String> {
    (0..=text.len()).map(|at| format!("{}{what}{}", &text[..at], &text[at..])).collect()
}

/// What is appended to a link when it is pasted, quoted or counted.
const BEHIND: [&str; 61] = [
    "&utm=1",
    "&amp;utm=1",
    "&utm_source=x.y&v=1.5",
    "%20",
    "%20%20",
    ".",
    "..",
    "...",
    "\"",
    "%22",
    "'",
    "%27",
    ")",
    ").",
    "%29",
    ";jsessionid=1",
    ";",
    "/",
    "//",
    "/x",
    ">",
    "%3E",
    "%22%3E",
    "\"/>",
    "%3C/a%3E",
    ",",
    "=",
    "=3D",
    "#x",
    "%23x",
    "%3Futm=1",
    "%3F",
    "%0D%0A",
    "%0A",
    "%09",
    "%00",
    "%C2%A0",
    "%E2%80%8B",
    "%EF%BB%BF",
    "\\",
    "%5C",
    "(opened)",
    "&quot;",
    "&#39;",
    "%20x=%22y%22",
    "%20=200x",
    "=200x",
    "%0A%0AOn%20Monday",
    "]",
    "%5B1%5D",
    "**",
    "%7Chere",
    "!",
    "%60",
    "\\n",
    "%5Cu0026x=1",
    "%E2%80%9D",
    "%E2%80%A6",
    "%C2%BB",
    "%E3%80%82",
    "”",
];

/// A plain, a keyed and a signed link.
fn links() -> [String; 3] {
    [
        format!("/image/{I}_{M}_{R}.gif"),
        format!("/t/{I}/May%20news/jane%40example.com.png"),
        format!("/o/{}.gif", token()),
    ]
}

/// A link with something before it or between its parts, and in other spellings.
fn spellings(link: &str) -> Vec<String> {
    let (prefix, rest) = link[1..].split_once('/').unwrap();
    vec![
        format!("/{link}"),
        format!("//{link}"),
        format!("/.{link}"),
        format!("/./{link}"),
        format!("/x/..{link}"),
        format!("/../..{link}"),
        format!("/{prefix}//{rest}"),
        format!("/{prefix}/./{rest}"),
        format!("/{prefix}/x/../{rest}"),
        format!("/{}/{rest}", prefix.to_uppercase()),
        format!("//{}//{rest}", prefix.to_uppercase()),
        format!("/%20{prefix}/{rest}"),
        format!("/%{:02x}{}/{rest}", prefix.as_bytes()[0], &prefix[1..]),
        format!("/https://pixels.example.com{link}"),
        format!("/HTTP:/pixels.example.com:8080/base{link}"),
        format!("/https%3A%2F%2Fpixels.example.com/{prefix}/{rest}"),
        format!("/pixels.example.com{link}"),
        format!("/%3Chttps://pixels.example.com{link}%3E"),
        format!("/%E2%80%9Chttps://pixels.example.com{link}%E2%80%9D"),
        format!("/http://pixels.example.com/http://pixels.example.com{link}"),
        format!("/%20{link}"),
        format!("/%22{link}%22"),
        format!("/%E2%80%8B{link}"),
        link.replace('/', "\\/"),
        link.replace('/', "%5C/"),
        link.replace(".gif", "%2e%67%69%66").replace(".png", "%2E%70ng"),
        link.replace(".gif", ".%67if").replace(".png", "%252Epng"),
        link.replace(".gif", ".GIF").replace(".png", ".PNG"),
    ]
}

/// An id or a token with something in it that cannot be part of one, at every position.
fn with_what_is_no_part(text: &str) -> Vec<String> {
    let mut changed = vec![text.to_owned(), format!("3D{text}"), format!("=3D{text}"), format!("%3D{text}")];
    for what in ["%20", "%0D%0A", "%0d%0a%20", "%0A%09", "=%0D%0A", "=%0A", "%E2%80%8B", "%C2%AD", "%C2%A0", "%2520"] {
        changed.extend(with_each(text, what));
    }
    changed.extend(with_each(text, "=").into_iter().take(text.len()));
    for (plain, encoded) in [
        ("_", "%5F"),
        ("_", "%5f"),
        ("-", "%2D"),
        ("2", "%32"),
        ("a", "%61"),
        ("_", "%255F"),
        ("_", "=5F"),
        ("-", "=2D"),
    ] {
        changed.push(text.replace(plain, encoded));
        changed.push(text.replacen(plain, encoded, 1));
    }
    changed
}

#[test]
fn slightly_changed_links_mean_what_they_meant() {
    for link in &links() {
        let meant = meant(link);
        let mut changed = spellings(link);
        for junk in BEHIND {
            changed.push(format!("{link}{junk}"));
            changed.push(format!("/{}{junk}", link.to_owned()));
        }
        for path in &changed {
            assert_eq!(route(path, &keys()), meant, "{path}");
        }
    }
}

#[test]
fn slightly_changed_ids_and_tokens_mean_what_they_meant() {
    let [plain, _, signed] = links();
    for (link, prefix) in [(plain, "image"), (signed, "o")] {
        let meant = meant(&link);
        let text = link.strip_prefix(&format!("/{prefix}/")).unwrap().strip_suffix(".gif").unwrap();
        for text in with_what_is_no_part(text) {
            for path in [
                format!("/{prefix}/{text}.gif"),
                format!("/{prefix}/{text}"),
                format!("/{prefix}/{text}%2Egif"),
                format!("/{prefix}/{text}=2Egif"),
            ] {
                assert_eq!(route(&path, &keys()), meant, "{path}");
            }
        }
    }
}

#[test]
fn other_hyphens_are_hyphens_of_an_id_and_change_a_token() {
    let [plain, keyed, signed] = links();
    for hyphen in ["%E2%80%91", "%E2%80%93", "\u{2010}"] {
        let path = plain.replace('-', hyphen);
        assert_eq!(route(&path, &keys()), meant(&plain), "{path}");
        let path = signed.replace('-', hyphen);
        assert_eq!(route(&path, &keys()), Route::Forged, "{path}");
    }
    let image = format!("/t/{}/May%20news/jane%40example.com.png", I.replace('-', "%2D"));
    assert_eq!(route(&image, &keys()), meant(&keyed));
    let image = format!("/t/3D{I}/May%20news/jane%40example.com.png");
    assert_eq!(route(&image, &keys()), meant(&keyed));
}

#[test]
fn what_has_no_one_meaning_is_not_guessed() {
    let t = token();
    let is_named = |path: &str| match route(path, &keys()) {
        Route::Pixel { ids, .. } => matches!(ids, Ids::Named { .. } | Ids::Keyed { .. }),
        _ => false,
    };
    for path in [
        // Half an id, or one too many.
        format!("/image/{I}_{M}_{}.gif", &R[1..]),
        format!("//image/{I}_{M}_{}.gif", &R[..35]),
        format!("/IMAGE/{I}_{M}_{R}_{R}.gif"),
        format!("/image/{I}_{M}_{R}3D"),
        format!("/image/{I}_{M}__{R}.gif"),
        // Cut, perhaps before another id.
        format!("/image/{I}"),
        format!("/image/{I}."),
        format!("/image/{I}_{M}"),
        format!("/image/{I}_{M}%20"),
        format!("/image/{I}_{M}_"),
        format!("/image/{I}_"),
        // Two links in one.
        format!("/image/{I}_{M}.gif_{R}.gif"),
        format!("/image/{I}.gif,https://pixels.example.com/image/{I}_{M}_{R}.gif"),
        format!("/image/{I}.gif/IMAGE/{I}_{M}_{R}.gif"),
        // An ending that is not one.
        format!("/image/{I}.abcdef"),
        format!("/image/{I}.g-f"),
        format!("/image/{I}.a.gif"),
        // Altered, padded, cut.
        format!("/o/{}.gif", &t[1..]),
        format!("/o/{}", &t[..93]),
        format!("/o/{t}A.gif"),
        format!("/o/{t}=.gif"),
        format!("/o/{t}=="),
        format!("/o/{t}%3D%3D.gif"),
        format!("/o/{t}=3D=3D.gif"),
        format!("//O//{}+{}.gif", &t[..40], &t[41..]),
        format!("/o/{}", t.to_uppercase()),
        format!("/x/image/{I}_{M}_{R}.gif"),
    ] {
        assert!(!is_named(&path), "{path}: {:?}", route(&path, &keys()));
    }
    // Left over from a soft break, or an underscore in quoted-printable: both are readable, and they differ.
    let soft = |id: &str| format!("/image/{I}_{M}_{id}.gif");
    assert!(is_named(&soft("5f=5f5555555555555555555555555555")), "only the soft break leaves a whole id");
    assert!(!is_named(&format!("/image/{I}_{M}=5F{}.gif", "5".repeat(30))), "half an id either way");
    assert_eq!(readings(&format!("/image/{I}_{M}=5F{R}.gif")).len(), 2);
}

#[test]
fn links_to_the_opt_out_page_are_read_however_they_came() {
    let token = "AgECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8_-A";
    assert_eq!(token.len(), opt_out::TOKEN_CHARS);
    let mut paths = vec![
        format!("/OPT-OUT/{token}"),
        format!("//opt-out//{token}"),
        format!("/./Opt-Out/./{token}"),
        format!("/opt%2Dout/{token}"),
        format!("/https://pixels.example.com/opt-out/{token}"),
        format!("/opt-out/3D{token}"),
        format!("/opt-out/=3D{token}"),
        format!("/opt-out/{}", token.replace('_', "%5F")),
    ];
    for junk in
        [".", ")", ").", "%20", "%0D%0A", "/", "&utm=1", ";", ",", "%22", "%3E", "\"", ">", "%3Fx", "%E2%80%8B", "."]
    {
        paths.push(format!("/opt-out/{token}{junk}"));
    }
    for what in ["%20", "%0D%0A", "=%0D%0A", "%C2%AD"] {
        paths.extend(with_each(token, what).into_iter().map(|text| format!("/opt-out/{text}")));
    }
    for path in &paths {
        assert_eq!(opt_out_path(path).as_deref(), Some(&*format!("/opt-out/{token}")), "{path}");
    }
    for path in [
        "/opt-out/",
        "/opt-out",
        "/opt-out/x",
        "/opt-out/../sign-in",
        "/opt-out/%2e%2e/sign-in",
        &format!("/opt-out/{token}="),
        &format!("/opt-out/{token}A"),
        &format!("/opt-out/{}", &token[1..]),
        &format!("/opt-out/../{token}"),
        &format!("/sign-in/opt-out/{token}"),
        &format!("/opt-out/style/{token}"),
    ] {
        assert_eq!(opt_out_path(path), None, "{path}");
    }
}

fn changed() -> impl Strategy<Value = String> {
    let link = prop_oneof![
        Just(format!("/image/{I}_{M}_{R}.gif")),
        Just(format!("/image/{I}_{M}.png")),
        Just(format!("/t/{I}/May/4711.gif")),
        Just(format!("/o/{}.gif", token())),
    ];
    let piece = prop_oneof![
        "[ -~]{1,3}",
        Just("=".to_owned()),
        Just("3D".to_owned()),
        Just("%0D%0A".to_owned()),
        Just("/".to_owned()),
        Just("_".to_owned()),
        Just(".gif".to_owned()),
        Just(R.to_owned()),
    ];
    (link, prop::collection::vec((any::<prop::sample::Index>(), piece, 0usize..4), 0..4)).prop_map(
        |(mut link, edits)| {
            for (at, piece, cut) in edits {
                let at = at.index(link.len() + 1);
                let end = (at + cut).min(link.len());
                link.replace_range(at..end, &piece);
            }
            link
        },
    )
}

proptest! {
    #[test]
    fn a_reading_has_nothing_left_to_forgive(path in changed()) {
        for reading in readings(&path) {
            if strict_only(&reading) {
                prop_assert_eq!(route(&reading, &keys()), crate::link::route::strict(&reading, &keys()), "{}", path);
            }
        }
    }

    #[test]
    fn what_the_strict_reader_takes_keeps_its_meaning(path in changed()) {
        if strict_only(&path) {
            prop_assert_eq!(route(&path, &keys()), crate::link::route::strict(&path, &keys()), "{}", path);
        }
    }

    #[test]
    fn no_change_makes_a_token_that_was_not_signed(path in changed(), at in 0..94usize, other in "[A-Za-z0-9_-]") {
        let signed = meant_ids();
        if let Route::Pixel { image, ids, is_signed: true, .. } = route(&path, &keys()) {
            prop_assert_eq!((image, ids), (uuid(I), signed), "{}", path);
        }
        let mut altered = token();
        altered.replace_range(at..=at, &other);
        prop_assume!(altered != token());
        for path in [format!("//O/{altered}&x"), format!("/o/3D{altered}"), format!("/o/%20{altered}")] {
            prop_assert!(!matches!(route(&path, &keys()), Route::Pixel { .. }), "{}", path);
        }
    }

    #[test]
    fn a_link_that_was_cut_never_names_others(cut in 0usize..200, front in "/?", junk in "(%20|&x|\\.|\"|=)?", form in 0..2) {
        let link = match form {
            0 => format!("{front}/IMAGE/{I}_{M}_{R}.gif"),
            _ => format!("{front}/image/{M}_{M}_{M}.gif"),
        };
        let cut = &link[..cut.min(link.len())];
        if let Route::Pixel { ids: Ids::Named { message, recipient }, .. } = route(&format!("{cut}{junk}"), &keys()) {
            let whole = if form == 0 { (uuid(M), uuid(R)) } else { (uuid(M), uuid(M)) };
            prop_assert_eq!((message, recipient), whole, "{}{}", cut, junk);
        }
    }

    #[test]
    fn any_path_is_read_in_time(path: String, many in "[=%/._]{0,2000}") {
        for front in ["", "/image/", "/T/", "//o/", "/opt-out/"] {
            let _ = (readings(&format!("{front}{path}")), opt_out_path(&format!("{front}{many}")), readings(&format!("{front}{many}")));
        }
    }
}

fn meant_ids() -> Ids<'static> {
    Ids::Named { message: uuid(M), recipient: uuid(R) }
}
