//! What a reader sees, in a real Chromium.

use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::kit::support::{App, beside, open_dir};

/// Opens a page that shows `url` as an image, and returns what the browser reports: `loaded 1 x 1`, or `broken`.
fn shown(url: &str) -> String {
    let dir = open_dir();
    let page = dir.path().join("page.html");
    let text = format!(
        "<!doctype html><body><img id=i onload=\"document.body.textContent = 'loaded ' + i.naturalWidth + ' x ' + i.naturalHeight\" \
         onerror=\"document.body.textContent = 'broken'\" src=\"{url}\">"
    );
    std::fs::write(&page, text).unwrap();
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok());
    let output = Command::new(browser.expect("make test installs Chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let body = dom.split_once("<body>").and_then(|(_, rest)| rest.split_once("</body>")).map(|(body, _)| body.trim());
    body.unwrap_or_else(|| panic!("no page: {dom} {}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

#[test]
fn chromium_shows_a_pixel_and_the_404_of_an_unknown_image_as_images() {
    let _machine = beside();
    let app = App::start();
    let base = format!("http://{}", app.server.public());
    let recipient = Uuid::new_v4();
    assert_eq!(shown(&format!("{base}{}", app.pixel(Uuid::new_v4(), recipient))), "loaded 32 x 32");
    assert_eq!(shown(&format!("{base}/image/{}.gif", Uuid::new_v4())), "loaded 1 x 1");
    // Otherwise this test could not fail.
    assert_eq!(shown(&format!("http://{}/image/{}.gif", app.server.settings().admin(), Uuid::new_v4())), "broken");
    app.at_rest();
    let agent = format!("SELECT user_agent FROM hits_readable WHERE recipient = '{recipient}'");
    assert!(app.query(&agent).first().unwrap().contains("Chrome"));
}
