//! What people do with the admin page from the first image to the last click, in a real Chromium.

use std::time::Instant;

use pixeld_testkit::process::wait_until;
use pixeld_testkit::server::get;

use crate::admin::browser::{sign_in, take};
use crate::kit::support::{App, PATIENCE, beside};
use crate::kit::visitor::add_user;
use crate::kit::webdriver::Browser;

/// Reloads a page until it shows these words: a new fetch is loaded and counted within seconds.
fn until(browser: &Browser, url: &str, words: &str) {
    let began = Instant::now();
    loop {
        browser.open(url);
        if browser.text().contains(words) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{words:?} is not on {url}: {}", browser.text());
    }
}

/// One person's way through the page, from one click to the next.
struct Flow {
    browser: Browser,
    base: String,
    app: App,
}

impl Flow {
    fn sign_in() -> Flow {
        let app = App::start();
        let base = format!("http://{}", app.server.settings().admin());
        add_user(&app, "ann@example.com", "admin");
        let browser = Browser::start();
        browser.open(&base);
        sign_in(&browser, "ann@example.com");
        browser.wait_for("No opens yet");
        Flow { browser, base, app }
    }

    /// Returns its page.
    fn add_an_image(&self) -> String {
        let browser = &self.browser;
        browser.click("nav a[href='/images']");
        browser.wait_for("Add an image");
        let logo = self.app.dir.path().join("logo.png");
        std::fs::write(&logo, include_bytes!("../../../src/app/sample.png")).unwrap();
        browser.write("#title", "Our logo");
        browser.choose("#file", &logo);
        browser.click("form.panel button");
        browser.wait_for("The image was added");
        let image = browser.path();
        self.app.wait_for_image(image.rsplit('/').next().unwrap().parse().unwrap());
        image
    }

    /// On the page of the image, which is open.
    fn make_a_link(&self) -> String {
        let browser = &self.browser;
        browser.write("#message", "may-news");
        browser.write("#recipient", "4711");
        browser.click("form.panel button");
        browser.wait_for("If you open it in your browser");
        let shown = browser.evaluate("document.querySelector('pre.command').innerText");
        let link = shown.as_str().unwrap().trim().to_owned();
        assert!(link.contains("/t/") && link.contains("/may-news/4711.png"), "{link}");
        take(browser, "flow-1-image");
        link
    }

    /// The open, on the overview, the message's page and the recipient's. Returns the message's page.
    fn see_who_opens(&self, link: &str) -> String {
        let browser = &self.browser;
        browser.open(link);
        until(browser, &self.base, "1 confirmed open");
        browser.click("nav a[href='/messages']");
        browser.wait_for("First and last fetch");
        take(browser, "flow-2-messages");
        browser.click("main table a");
        browser.wait_for("Who opened?");
        let message = browser.path();
        browser.click("details.panel summary");
        browser.write("form.edit input[name=name]", "News of May");
        browser.write("form.edit input[name=sent_count]", "4");
        browser.click("form.edit button");
        browser.wait_for("News of May");
        assert!(browser.text().contains("25.0%"), "one of four opened it: {}", browser.text());
        take(browser, "flow-3-message");
        browser.click("main a[href^='/recipients/']");
        browser.wait_for("News of May");
        take(browser, "flow-4-recipient");
        message
    }

    /// Who opened? Uploads a list and gets it back.
    fn send_a_list(&self, message: &str) {
        let (browser, base, dir) = (&self.browser, &self.base, self.app.dir.path());
        let downloads = dir.join("downloads");
        std::fs::create_dir(&downloads).unwrap();
        browser.download_to(&downloads);
        let list = dir.join("list.csv");
        std::fs::write(&list, "name,id\nJane,4711\n=HYPERLINK(\"x\"),4712\n").unwrap();
        browser.open(&format!("{base}{message}/who-opened"));
        take(browser, "flow-5-who-opened");
        browser.write("#column", "id");
        browser.choose("#file", &list);
        browser.click("form.panel button");
        let back = downloaded(&downloads);
        let rows: Vec<&str> = back.lines().collect();
        assert_eq!(rows[0], "name,id,pixeld_opened,pixeld_first_at,pixeld_class");
        assert!(rows[1].starts_with("Jane,4711,opened,20") && rows[1].ends_with(",human"), "{back}");
        assert!(rows[2].contains("'=HYPERLINK") && rows[2].contains(",4712,not opened,"), "{back}");
        browser.open(&format!("{base}{message}/links"));
        take(browser, "flow-6-links");
    }

    /// The log, requests that made no hit, and what a link would record.
    fn look_into_the_log(&self, link: &str) {
        let (browser, base) = (&self.browser, &self.base);
        browser.open(&format!("{base}/hits"));
        browser.wait_for("1 hit shown");
        take(browser, "flow-7-hits");
        get(self.app.server.public(), &path_of(link).replace("4711", "*%7CUNIQID%7C*")).unwrap();
        browser.open(&format!("{base}/not-recorded"));
        browser.wait_for("UNIQID");
        take(browser, "flow-8-not-recorded");
    }

    /// Deletes what was recorded, with a receipt.
    fn delete_the_hits(&self) {
        let (app, browser, base) = (&self.app, &self.browser, &self.base);
        browser.open(&format!("{base}/hits?message=may-news"));
        browser.click("main a[href^='/hits/delete']");
        browser.wait_for("You are about to delete");
        take(browser, "flow-9-delete-hits");
        browser.click("form[action='/hits/delete'] button");
        browser.wait_for("Started");
        let receipt = format!("{base}{}", browser.path());
        until(browser, &receipt, "The deletion is finished.");
        take(browser, "flow-10-receipt");
        assert_eq!(app.query("SELECT count(*) FROM hits"), ["0"]);
        assert_eq!(app.query("SELECT count(*) FROM opens"), ["0"]);
    }

    /// The image is deleted: old emails get the transparent GIF.
    fn delete_the_image(&self, image: &str, link: &str) {
        let (browser, base) = (&self.browser, &self.base);
        browser.open(&format!("{base}{image}"));
        browser.click("details.panel summary");
        browser.click("form[action$='/delete'] button");
        browser.wait_for("This image is deleted");
        take(browser, "flow-11-image-deleted");
        wait_until("the deletion", PATIENCE, || {
            get(self.app.server.public(), path_of(link)).unwrap().header("content-type") == Some("image/gif")
        })
        .unwrap();
        browser.open(&format!("{base}/images"));
        take(browser, "flow-12-images");
    }

    fn sign_out(&self, message: &str) {
        let browser = &self.browser;
        browser.click("form.account button");
        browser.wait_for("You are signed out");
        browser.open(&format!("{}{message}", self.base));
        assert_eq!(browser.path(), "/sign-in");
    }
}

fn path_of(link: &str) -> &str {
    &link[link.find("/t/").unwrap()..]
}

#[test]
fn from_a_picture_to_who_opened_and_back() {
    let _machine = beside();
    let flow = Flow::sign_in();
    let image = flow.add_an_image();
    let link = flow.make_a_link();
    let message = flow.see_who_opens(&link);
    flow.send_a_list(&message);
    flow.look_into_the_log(&link);
    flow.delete_the_hits();
    flow.delete_the_image(&image, &link);
    flow.sign_out(&message);
    // Chromium shows an image on its own with its own styles, which the image's policy refuses.
    let complaints = flow.browser.complaints().into_iter().filter(|complaint| !complaint.starts_with(&link));
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The one file that the browser stored, once it is complete: Chromium first creates an empty one with its name.
fn downloaded(folder: &std::path::Path) -> String {
    let mut found = None;
    wait_until("the file", PATIENCE, || {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found = files.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "csv"));
        found.as_ref().is_some_and(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 0))
    })
    .unwrap();
    std::fs::read_to_string(found.unwrap()).unwrap()
}
