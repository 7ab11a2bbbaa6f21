//! A Chromium that acts like a person: the few commands of WebDriver that the tests need.

use crate::kit::support::PATIENCE;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pixeld_testkit::process::{free_port, wait_until};
use serde_json::{Value, json};

/// WebDriver's name for an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser; ended when dropped.
pub struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let (port, profile) = (free_port().unwrap(), tempfile::tempdir().unwrap());
        let mut driver = Command::new("chromedriver");
        let driver = driver.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = driver.spawn().expect("make test installs chromium-driver");
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = agent.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        let mut browser = Browser { driver, session: format!("http://127.0.0.1:{port}"), agent, _profile: profile };
        wait_until("chromedriver", PATIENCE, || {
            browser.agent.get(format!("{}/status", browser.session)).call().is_ok()
        })
        .unwrap();
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        // A normal browser's user agent: a headless one is not a person's, and is counted so.
        let agent_of_people = "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            agent_of_people,
            &folder,
        ];
        let options = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
        let begun = browser.post("/session", &json!({ "capabilities": { "alwaysMatch": options } }));
        browser.session.push_str("/session/");
        browser.session.push_str(begun["sessionId"].as_str().unwrap());
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.try_post(path, body);
        assert!(answer["error"].is_null(), "{path} {body}: {answer}");
        answer
    }

    fn try_post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.session)).content_type("application/json");
        let text = request.send(body.to_string()).unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["value"].clone()
    }

    /// Sends a command to Chromium itself, in its own protocol.
    fn chromium(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub fn click(&self, css: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    pub fn write(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/clear"), &json!({}));
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Chooses a file, as in the dialogue that a click opens.
    pub fn choose(&self, css: &str, file: &Path) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/value"), &json!({ "text": file.to_str().unwrap() }));
    }

    /// From here on downloads go to this folder, without a question.
    pub fn download_to(&self, folder: &Path) {
        let to = json!({ "behavior": "allow", "downloadPath": folder.to_str().unwrap() });
        self.chromium("Browser.setDownloadBehavior", to);
    }

    /// The value of an expression in the page.
    pub fn evaluate(&self, expression: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    pub fn text(&self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap().to_owned()
    }

    /// Waits until the page shows these words: a click may return before the next page is loaded.
    pub fn wait_for(&self, words: &str) {
        // Between two pages there is none to query.
        let ask = json!({ "script": "return document.body.innerText", "args": [] });
        let waited = wait_until(words, PATIENCE, || {
            self.try_post("/execute/sync", &ask).as_str().is_some_and(|text| text.contains(words))
        });
        waited.unwrap_or_else(|error| panic!("{error}: {}", self.text()));
    }

    pub fn path(&self) -> String {
        self.evaluate("location.pathname").as_str().unwrap().to_owned()
    }

    /// From here on the page has this width, in light or dark mode.
    pub fn look(&self, width: u32, is_dark: bool) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.chromium("Emulation.setDeviceMetricsOverride", size);
        let scheme = if is_dark { "dark" } else { "light" };
        // Without transitions: a screenshot must not catch one half way.
        let still = json!({ "name": "prefers-reduced-motion", "value": "reduce" });
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }, still] });
        self.chromium("Emulation.setEmulatedMedia", media);
    }

    /// A screenshot of the whole page.
    pub fn screenshot(&self, file: &Path) {
        let shot = self.chromium("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        std::fs::write(file, STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// The places with serious faults by axe-core on this page: what excludes people with a screen reader or a
    /// keyboard.
    pub fn faults(&self) -> Vec<String> {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/axe-core-4.14.1.min.js");
        let axe = std::fs::read_to_string(place).expect("make test fetches axe-core");
        let run = "const done = arguments[arguments.length - 1]; axe.run(document, { resultTypes: ['violations'] }).then( \
                   found => done({ passed: found.passes.length, faults: found.violations.filter( \
                     fault => ['serious', 'critical'].includes(fault.impact)).flatMap( \
                     fault => fault.nodes.map(node => `${fault.id}: ${fault.help}: ${node.html}`)) }), \
                   error => done({ passed: 0, faults: [String(error)] }))";
        let found = self.post("/execute/async", &json!({ "script": format!("{axe};{run}"), "args": [] }));
        // An axe that checked nothing finds nothing.
        assert!(found["passed"].as_u64().unwrap() > 5, "{found}");
        found["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap().to_owned()).collect()
    }

    /// The console's complaints since the last call, including violations of the policy.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its end closes Chromium; a killed driver leaves it running.
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
