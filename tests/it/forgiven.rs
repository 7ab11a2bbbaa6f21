//! Links that others changed on the way: answered with the picture, and recorded as what they were.

use loadtest::server::exchange;
use pixeld::link::token::{SigningKeys, Token};
use uuid::Uuid;

use crate::opt_out::KEYS;
use crate::opt_out_page::{footer, page_app};
use crate::support::{App, beside};

/// A link's path before its keys or ids, them, and what ends it.
pub struct Link {
    pub prefix: &'static str,
    pub ids: String,
    pub recipient: Uuid,
}

/// A link of each kind to recipients of their own.
pub fn links(app: &App, message: Uuid) -> [Link; 3] {
    let [plain, keyed, signed] = [(); 3].map(|()| Uuid::new_v4());
    let token = Token { sent_at_s: 0, image: app.image, message, recipient: signed };
    let token = SigningKeys::parse(KEYS).unwrap().sign(&token).unwrap();
    [
        Link { prefix: "image", ids: format!("{}_{message}_{plain}", app.image), recipient: plain },
        Link { prefix: "t", ids: format!("{}/{message}/{keyed}", app.image), recipient: keyed },
        Link { prefix: "o", ids: token, recipient: signed },
    ]
}

/// Changes that leave a link of any kind what it was.
pub fn changed(link: &Link) -> Vec<String> {
    let Link { prefix, ids, .. } = link;
    let upper = prefix.to_uppercase();
    let mut changed = vec![
        format!("//{prefix}/{ids}.gif"),
        format!("/{prefix}//{ids}.gif"),
        format!("/{upper}/{ids}.GIF"),
        format!("/./{prefix}/./{ids}.gif"),
        format!("/https://pixels.example.com/{prefix}/{ids}.gif"),
    ];
    let junk = [
        "&utm=1",
        "&amp;utm=1",
        "%20",
        ".",
        "%22",
        "'",
        ")",
        ";jsessionid=1",
        "/",
        "%3E",
        ",",
        "=",
        "%3Futm=1",
        "%0D%0A",
        "%E2%80%8B",
    ];
    changed.extend(junk.map(|junk| format!("/{prefix}/{ids}.gif{junk}")));
    if *prefix != "t" {
        changed.extend([
            format!("/{prefix}/{}.gif", ids.replace('_', "%5F").replace('-', "%2d")),
            format!("/{prefix}/{}%0D%0A%20{}.gif", &ids[..50], &ids[50..]),
            format!("/{prefix}/{}=%0D%0A{}.gif", &ids[..50], &ids[50..]),
            format!("/{prefix}/3D{ids}.gif"),
            format!("/{prefix}/{ids}"),
        ]);
    }
    changed
}

#[test]
fn a_slightly_changed_link_shows_the_picture_and_is_recorded_as_what_it_was() {
    let _machine = beside();
    let app = App::start_with(|settings| settings.with("PIXELD_SIGNING_KEYS", KEYS));
    let (message, png) = (Uuid::new_v4(), std::fs::read("src/app/sample.png").unwrap());
    let links = links(&app, message);
    for path in links.iter().flat_map(changed) {
        let answer = app.get(&path);
        assert!(answer.status == 200 && answer.body == png, "{path}: {}", answer.status);
    }
    app.at_rest();
    for link in &links {
        let rows = app.number(&format!(
            "SELECT count(*) FROM hits WHERE image = '{}' AND message = '{message}' AND recipient = '{}'",
            app.image, link.recipient
        ));
        assert_eq!(rows, changed(link).len() as u64, "{}", link.prefix);
    }
    let metrics = app.server.metrics().unwrap();
    let all: usize = links.iter().map(|link| changed(link).len()).sum();
    assert_eq!(metrics.get("pixeld_requests_total{outcome=\"image\"}"), all as f64 + 1.0, "and one HEAD at the start");
}

#[test]
fn a_slightly_changed_link_to_the_opt_out_page_leads_there() {
    let _machine = beside();
    let app = page_app();
    let path = footer(app.server.settings(), app.image, "jane@example.com");
    let token = &path["/opt-out/".len()..];
    let ask = |method: &str, path: &str| {
        let body = "List-Unsubscribe=One-Click";
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(app.server.settings().admin(), request.as_bytes()).unwrap()
    };
    for changed in [
        format!("/opt-out/{token}."),
        format!("/opt-out/{token})"),
        format!("/OPT-OUT/{token}"),
        format!("//opt-out/{token}"),
        format!("/opt-out/{}%0D%0A%20{}", &token[..20], &token[20..]),
        format!("/opt-out/3D{token}&utm=1"),
    ] {
        assert_eq!(ask("GET", &changed).status, 200, "{changed}");
    }
    assert_eq!(ask("POST", &format!("//Opt-Out/{token}.")).status, 200);
    assert_eq!(app.number("SELECT count(*) FROM suppressions WHERE until IS NULL"), 1);
    for other in [format!("/opt-out/{}", &token[1..]), format!("/opt-out/{token}="), "/OPT-OUT/../sign-in".to_owned()] {
        assert_ne!(ask("GET", &other).status, 200, "{other}");
    }
}
