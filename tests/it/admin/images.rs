//! Images on the admin page: added, shown, linked to, replaced, deleted; and everything that is refused.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use pixeld_edge::images::TRANSPARENT_GIF;
use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::{Answer, exchange, parse};

use crate::kit::support::{App, PATIENCE, beside};
use crate::kit::visitor::{Visitor, form, text};

/// How long a change may take to be served.
const SOON: Duration = PATIENCE;

const SAMPLE: &[u8] = include_bytes!("../../../src/app/sample.png");

const SVG: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";

/// A form with a title and a file, as browsers send it.
fn multipart(title: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n{title}\r\n\
         --xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n"
    );
    [head.as_bytes(), bytes, b"\r\n--xyz--\r\n"].concat()
}

fn upload_head(visitor: &Visitor, path: &str, length: usize) -> Vec<u8> {
    let Visitor { host, cookie, .. } = visitor;
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nCookie: {cookie}\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

fn send(visitor: &Visitor, path: &str, title: &str, name: &str, bytes: &[u8]) -> Answer {
    let body = multipart(title, name, bytes);
    let request = [upload_head(visitor, path, body.len()), body].concat();
    exchange(visitor.address, &request).unwrap()
}

/// Adds a picture and returns its id.
fn add(visitor: &Visitor, title: &str, bytes: &[u8]) -> String {
    let answer = send(visitor, "/images", title, "picture", bytes);
    let to = answer.header("location").unwrap_or_else(|| panic!("{}", text(&answer)));
    to.strip_prefix("/images/").and_then(|to| to.strip_suffix("?done=added")).unwrap().to_owned()
}

fn wait_for(app: &App, id: &str, bytes: &[u8]) {
    wait_until("the picture", SOON, || app.get(&format!("/image/{id}.png")).body == bytes).unwrap();
}

fn with_admin() -> (App, Visitor) {
    let app = App::start();
    let ann = Visitor::admin(&app);
    (app, ann)
}

fn audit(app: &App, id: &str) -> Vec<String> {
    app.query(&format!("SELECT actor || ': ' || action FROM audit WHERE subject = '{id}' ORDER BY id"))
}

#[test]
fn a_picture_is_added_titled_replaced_deleted_and_restored_and_readers_get_just_that() {
    let _machine = beside();
    let (app, ann) = with_admin();
    let id = add(&ann, "  Our logo ", SAMPLE);
    wait_for(&app, &id, SAMPLE);
    let shown = ann.get(&format!("/images/{id}/picture"));
    assert_eq!((shown.status, shown.header("content-type"), &*shown.body), (200, Some("image/png"), SAMPLE));
    assert_eq!(shown.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
    let page = text(&ann.get(&format!("/images/{id}?done=added")));
    assert!(page.contains("<h1>Our logo</h1>") && page.contains("32 × 32 px"), "{page}");
    let grid = text(&ann.get("/images"));
    assert!(grid.contains("Our logo") && grid.contains(&format!("src=\"/images/{id}/picture\"")), "{grid}");

    let titled = ann.post(&format!("/images/{id}/title"), &form(&[("title", "Another")]));
    assert_eq!(titled.header("location"), Some(&*format!("/images/{id}?done=titled")));
    for wrong in ["a\nb", "a\0b", &"x".repeat(201)] {
        let answer = ann.post(&format!("/images/{id}/title"), &form(&[("title", wrong)]));
        assert!(answer.status == 422 && text(&answer).contains("at most 200 characters"), "{wrong:?}");
    }
    let refused = send(&ann, &format!("/images/{id}/replace"), "", "logo.png", SVG);
    assert!(refused.status == 422 && text(&refused).contains("The image was not changed"));
    let replaced = send(&ann, &format!("/images/{id}/replace"), "", "logo.gif", TRANSPARENT_GIF);
    assert_eq!(replaced.header("location"), Some(&*format!("/images/{id}?done=replaced")));
    wait_for(&app, &id, TRANSPARENT_GIF);
    assert_eq!(app.get(&format!("/image/{id}.png")).header("content-type"), Some("image/gif"));
    assert!(text(&ann.get(&format!("/images/{id}"))).contains("1 × 1 px"));
    assert_eq!(send(&ann, &format!("/images/{id}/replace"), "", "logo.png", SAMPLE).status, 303);
    wait_for(&app, &id, SAMPLE);

    let page = text(&ann.get(&format!("/images/{id}")));
    assert!(page.contains("<details") && page.contains("transparent GIF of one pixel"), "{page}");
    for _ in 0..2 {
        let deleted = ann.post(&format!("/images/{id}/delete"), "");
        assert_eq!(deleted.header("location"), Some(&*format!("/images/{id}?done=deleted")));
    }
    wait_for(&app, &id, TRANSPARENT_GIF);
    assert!(!text(&ann.get("/images")).contains(&id) && text(&ann.get("/images?show=deleted")).contains(&id));
    let page = text(&ann.get(&format!("/images/{id}")));
    assert!(page.contains("This image is deleted") && !page.contains("Make the link"), "{page}");
    let refused = send(&ann, &format!("/images/{id}/replace"), "", "logo.png", SAMPLE);
    assert!(refused.status == 422 && text(&refused).contains("restore it first"));
    assert_eq!(ann.post(&format!("/images/{id}/restore"), "").status, 303);
    wait_for(&app, &id, SAMPLE);
    // A change without effect is not in the audit.
    let changes =
        ["image added", "image titled", "image replaced", "image replaced", "image deleted", "image restored"];
    assert_eq!(audit(&app, &id), changes.map(|change| format!("ann: {change}")));
    assert_eq!(audit(&app, &app.image.to_string()), ["command line: image added"]);
}

#[test]
fn what_is_not_a_picture_is_refused_in_words_and_the_title_stays() {
    let _machine = beside();
    let (app, ann) = with_admin();
    let images = || app.number("SELECT count(*) FROM images");
    let before = images();
    let zip = [b"PK\x03\x04\x14\0\0\0", SAMPLE].concat();
    let large = [SAMPLE, &vec![0; 1 << 20]].concat();
    let huge = vec![7; 5 << 20];
    for (name, bytes, part) in [
        ("logo.png", &b""[..], "the file is empty"),
        ("logo.png", SVG, "the file is image/svg+xml"),
        ("logo.png", b"<!DOCTYPE html><html><body>x</body></html>", "the file is text/html"),
        ("logo.png", &zip, "the file is application/zip"),
        ("logo.png", b"plain words", "the file is of no known kind"),
        ("logo.png", &SAMPLE[..16], "width and height cannot be read"),
        ("logo.png", &large, "larger than 1048576 bytes"),
        ("logo.png", &huge, "larger than 1048576 bytes"),
        ("", b"", "choose a file first"),
    ] {
        let answer = send(&ann, "/images", "My <title>", name, bytes);
        let page = text(&answer);
        assert_eq!(answer.status, 422, "{part}");
        assert!(page.contains("The image was not added: ") && page.contains(part), "{part}: {page}");
        assert!(page.contains("value=\"My &lt;title&gt;\""), "{part}: {page}");
        assert!(page.contains("No SVG."), "{part}");
    }
    // No file at all, and a title that is too long for a field.
    let bare = b"--xyz\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nT\r\n--xyz--\r\n";
    let request = [upload_head(&ann, "/images", bare.len()), bare.to_vec()].concat();
    let answer = exchange(ann.address, &request).unwrap();
    assert!(answer.status == 422 && text(&answer).contains("choose a file first"));
    let answer = send(&ann, "/images", &"x".repeat(201), "logo.png", SAMPLE);
    assert!(answer.status == 422 && text(&answer).contains("at most 200 characters"));
    assert_eq!(send(&ann, "/images", &"x".repeat(5000), "logo.png", SAMPLE).status, 422);
    assert_eq!(ann.post("/images", "title=x").status, 415);

    // The connection is lost in the middle of the file.
    let body = multipart("T", "logo.png", SAMPLE);
    let mut stream = TcpStream::connect(ann.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&upload_head(&ann, "/images", body.len())).unwrap();
    stream.write_all(&body[..body.len() / 2]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty() || parse(&bytes).unwrap().status == 422, "{}", String::from_utf8_lossy(&bytes));
    // The form itself is cut off, although as many bytes arrive as announced.
    let half = &body[..body.len() / 2];
    let answer = exchange(ann.address, &[&upload_head(&ann, "/images", half.len())[..], half].concat()).unwrap();
    assert!(answer.status == 422 && text(&answer).contains("did not arrive completely"), "{}", text(&answer));
    assert_eq!(images(), before);
    add(&ann, "T", SAMPLE);
    assert_eq!(images(), before + 1);

    // The command line refuses the same.
    let file = app.dir.path().join("logo.png");
    std::fs::write(&file, &zip).unwrap();
    let output = app.server.settings().command(&["image", "add", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("the file is application/zip"), "{said}");
}

#[test]
fn a_cameras_picture_is_taken_byte_for_byte_and_its_place_is_warned_of() {
    let _machine = beside();
    let (app, ann) = with_admin();
    // 3 by 2 pixels, to be rotated (6), with the place where it was taken, and a film after its end like a phone's.
    let exif = b"\xff\xe1\0\x58Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x88\x25\0\x04\0\0\0\x01\0\0\0\x26\0\0\0\0\
                 \0\x01\0\x02\0\x05\0\0\0\x03\0\0\0\x38\0\0\0\0\0\0\0\x34\0\0\0\x01\0\0\0\x1e\0\0\0\x01\0\0\0\0\0\0\0\x01";
    let frame = b"\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda\0\x03\0ab\xff\xd9";
    let sent = [&b"\xff\xd8"[..], exif, frame, b"\0\0\0\x18ftypmp42"].concat();
    let id = add(&ann, "Camera", &sent);
    wait_for(&app, &id, &sent);
    let page = text(&ann.get(&format!("/images/{id}")));
    assert!(page.contains("2 × 3 px") && page.contains("width=&quot;2&quot; height=&quot;3&quot;"), "{page}");
    assert!(page.contains("This image says where it was taken"), "{page}");
    assert!(!text(&ann.get(&format!("/images/{}", app.image))).contains("where it was taken"));
    let settings = app.server.settings();
    let tag = settings.run(&["link", "--image", &id]).unwrap();
    assert!(tag.contains("width=\"2\" height=\"3\""), "{tag}");
    let file = app.dir.path().join("camera.jpg");
    std::fs::write(&file, &sent).unwrap();
    let output = settings.command(&["image", "add", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("where it was taken"), "{said}");
    let webp = [&b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0"[..], &[0; 9]].concat();
    let id = add(&ann, "New", &webp);
    assert!(text(&ann.get(&format!("/images/{id}"))).contains("Outlook for Windows does not show WebP"));
}

#[test]
fn what_browsers_show_is_taken_and_served_byte_for_byte_with_headers_that_forbid_all_else() {
    let _machine = beside();
    let (app, ann) = with_admin();
    // A WebP of odd length, without the padding byte.
    let webp = [&b"RIFF\x19\0\0\0WEBPVP8L\x0d\0\0\0\x2f\x0f\xc0\x01\0"[..], &[0; 8]].concat();
    // 3 by 2 pixels, with a second picture after its end, as cameras add a preview.
    let frame =
        b"\xff\xd8\xff\xc0\0\x11\x08\0\x02\0\x03\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda\0\x03\0ab\xff\xd9";
    for (title, media_type, bytes) in [
        ("a preview after a JPEG", "image/jpeg", &[&frame[..], frame].concat()[..]),
        ("bytes after IEND", "image/png", &[SAMPLE, b"PK\x03\x04\x14\0\0\0"].concat()),
        ("a page after a GIF", "image/gif", &[TRANSPARENT_GIF, &b"<script>alert(1)</script>"[..]].concat()),
        ("a GIF without its last byte", "image/gif", &TRANSPARENT_GIF[..TRANSPARENT_GIF.len() - 1]),
        ("an odd WebP", "image/webp", &webp),
    ] {
        let id = add(&ann, title, bytes);
        wait_for(&app, &id, bytes);
        for answer in [app.get(&format!("/image/{id}.html")), ann.get(&format!("/images/{id}/picture"))] {
            assert!(answer.status == 200 && answer.body == bytes, "{title}");
            assert_eq!(answer.header("content-type"), Some(media_type), "{title}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{title}");
            assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; sandbox"), "{title}");
        }
    }
}

#[test]
fn links_are_made_like_the_commands_and_wrong_input_is_reported() {
    let _machine = beside();
    let (app, ann) = with_admin();
    let path = format!("/images/{}", app.image);
    let settings = app.server.settings();
    let command = |arguments: &[&str]| {
        let image = app.image.to_string();
        settings.run(&[&["link", "--image", &image], arguments].concat()).unwrap().lines().next().unwrap().to_owned()
    };
    let page = text(&ann.get(&path));
    assert!(page.contains(&format!("<code>{}</code>", command(&[]))), "{page}");
    let url = command(&["--message", "may news", "--recipient", "jane@example.com"]);
    let page = text(&ann.get(&format!("{path}?message=may+news&recipient=jane%40example.com")));
    assert!(page.contains(&format!("<code>{url}</code>")), "{url} {page}");
    assert!(page.contains(&format!("&lt;img src=&quot;{url}&quot;")), "{page}");
    assert!(!page.contains("name=\"sent-at\""), "without a key there is nothing to sign");
    for (query, part) in [
        ("message=*%7CID%7C*", "merge tag"),
        ("message=..", "step in the path"),
        ("recipient=4711&sent-at=2026-05-04T09:00", "PIXELD_SIGNING_KEYS"),
        ("sent-at=tomorrow", "cannot be read"),
        ("sent-at=1960-01-01T00:00", "from 1970 to 2106"),
        (&*format!("recipient={}", "x".repeat(129)), "1 to 128 bytes"),
    ] {
        let answer = ann.get(&format!("{path}?{query}"));
        let page = text(&answer);
        assert!(
            answer.status == 200 && page.contains("The link cannot be made") && page.contains(part),
            "{query}: {page}"
        );
    }

    let app = App::start_with(|settings| settings.with("PIXELD_SIGNING_KEYS", "1:AAECAwQFBgcICQoLDA0ODw=="));
    let ann = Visitor::admin(&app);
    assert_eq!(ann.post("/settings/zone", &form(&[("zone", "Europe/Berlin")])).status, 303);
    let page = text(&ann.get(&format!("/images/{}?message=may&recipient=7&sent-at=2026-05-04T09:00", app.image)));
    let path = page.split_once("/o/").unwrap().1.split_once('<').unwrap().0;
    assert_eq!(app.get(&format!("/o/{path}")).body, SAMPLE);
    app.at_rest();
    let sent = "SELECT (sent_at AT TIME ZONE 'UTC')::text FROM hits";
    wait_until("the hit", SOON, || app.query(sent) == ["2026-05-04 07:00:00"]).unwrap();
    // Both pages count its hit, whatever fetched it.
    wait_until("the count", PATIENCE, || {
        text(&ann.get("/images")).contains("1 fetch in 30 days")
            && text(&ann.get(&format!("/images/{}", app.image))).contains(": 1 fetches</title>")
    })
    .unwrap();
}

#[test]
fn a_viewer_looks_and_changes_nothing() {
    let _machine = beside();
    let (app, ann) = with_admin();
    let ben = Visitor::viewer(&app);
    let path = format!("/images/{}", app.image);
    for page in [ben.get("/images"), ben.get(&path)] {
        let page = text(&page);
        assert!(page.contains("/picture\"") && !page.contains("type=\"file\"") && !page.contains("/delete"), "{page}");
    }
    assert!(text(&ann.get(&path)).contains("/delete"));
    let audit = || app.number("SELECT count(*) FROM audit");
    let before = audit();
    for path in ["/images".to_owned(), format!("{path}/replace")] {
        let answer = send(&ben, &path, "T", "logo.png", SAMPLE);
        assert!(answer.status == 403 && text(&answer).contains("Only an admin"), "{path}");
    }
    for action in ["title", "delete", "restore"] {
        assert_eq!(ben.post(&format!("{path}/{action}"), "title=x").status, 403, "{action}");
    }
    assert_eq!(audit(), before);
    let nobody = Visitor { cookie: String::new(), host: ben.host.clone(), ..ben };
    assert_eq!(nobody.get(&format!("{path}/picture")).status, 303);
    assert_eq!(send(&nobody, "/images", "T", "logo.png", SAMPLE).status, 303);
    for path in ["/images/x", "/images/x/picture", "/images/00000000-0000-0000-0000-000000000007/picture"] {
        assert_eq!(ann.get(path).status, 404, "{path}");
    }
    let unknown = "/images/00000000-0000-0000-0000-000000000007";
    for action in ["title", "delete", "restore"] {
        assert_eq!(ann.post(&format!("{unknown}/{action}"), "title=x").status, 404, "{action}");
    }
    assert_eq!(send(&ann, &format!("{unknown}/replace"), "", "logo.png", SAMPLE).status, 404);
}

#[test]
fn titles_are_only_text_and_a_thousand_images_are_leafed_through_each_once() {
    let _machine = beside();
    let (app, ann) = with_admin();
    let hostile = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";
    let id = add(&ann, hostile, SAMPLE);
    for path in ["/images".to_owned(), format!("/images/{id}")] {
        let page = text(&ann.get(&path));
        assert!(!page.contains("<script") && !page.contains("<img src=x"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    }
    // Many at one instant, so that the time alone is not a key.
    app.query(&format!(
        "INSERT INTO images (id, title, media_type, width, height, bytes, sha256, created_at) \
         SELECT gen_random_uuid(), 'n' || n, media_type, width, height, bytes, sha256, now() - (n / 100) * interval '1 day' \
         FROM images, generate_series(1, 1000) n WHERE id = '{id}'"
    ));
    let (mut path, mut seen, mut pages) = ("/images".to_owned(), Vec::new(), 0);
    loop {
        let page = text(&ann.get(&path));
        let found = page.split("src=\"/images/").skip(1).filter_map(|rest| rest.split_once("/picture\""));
        seen.extend(found.map(|(id, _)| id.to_owned()));
        pages += 1;
        let Some((_, rest)) = page.split_once("rel=\"next\" href=\"") else { break };
        path = rest.split_once('"').unwrap().0.replace("&amp;", "&");
    }
    assert_eq!((pages, seen.len()), (17, 1002));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1002);

    app.query("UPDATE images SET deleted_at = now()");
    assert!(text(&ann.get("/images")).contains("No images yet"));
    let page = text(&ann.get("/images?show=deleted"));
    assert!(page.contains("href=\"/images?show=deleted&amp;before="), "{page}");
    app.query("DELETE FROM images");
    assert!(text(&ann.get("/images?show=deleted")).contains("No deleted images"));
}
