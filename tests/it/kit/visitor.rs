//! A client of the admin page over HTTP, as browsers and attackers use it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Output, Stdio};

use pixeld_testkit::server::{Answer, Settings, exchange};

use crate::kit::support::App;

pub const PASSWORD: &str = "correct horse battery";

/// Runs a command with this standard input.
pub fn run_with(settings: &Settings, arguments: &[&str], input: &str) -> Output {
    let mut command = settings.command(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses may end before it reads.
    match child.stdin.take().unwrap().write_all(input.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    child.wait_with_output().unwrap()
}

pub fn add_user(app: &App, name: &str, role: &str) {
    let arguments = ["user", "add", name, "--role", role, "--password-stdin"];
    let output = run_with(app.server.settings(), &arguments, &format!("{PASSWORD}\n"));
    assert!(output.status.success(), "{output:?}");
}

/// A browser that keeps one cookie.
pub struct Visitor {
    pub address: SocketAddr,
    pub host: String,
    pub cookie: String,
}

impl Visitor {
    pub fn of(app: &App) -> Visitor {
        let address = app.server.settings().admin();
        Visitor { address, host: address.to_string(), cookie: String::new() }
    }

    /// Ann, an admin, added and signed in.
    pub fn admin(app: &App) -> Visitor {
        add_user(app, "ann", "admin");
        Visitor::signed_in(app, "ann")
    }

    /// Ben, a viewer, added and signed in.
    pub fn viewer(app: &App) -> Visitor {
        add_user(app, "ben", "viewer");
        Visitor::signed_in(app, "ben")
    }

    pub fn signed_in(app: &App, name: &str) -> Visitor {
        let mut visitor = Visitor::of(app);
        let answer = visitor.sign_in(name, PASSWORD, "/");
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", text(&answer));
        visitor
    }

    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let Visitor { host, cookie, .. } = self;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nCookie: {cookie}\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        );
        exchange(self.address, request.as_bytes()).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    pub fn post(&self, path: &str, form: &str) -> Answer {
        let headers = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n";
        self.ask("POST", path, headers, form)
    }

    pub fn sign_in(&mut self, name: &str, password: &str, next: &str) -> Answer {
        let answer = self.post("/sign-in", &form(&[("name", name), ("password", password), ("next", next)]));
        if let Some(cookie) = answer.header("set-cookie") {
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
        answer
    }

    /// From here on times are shown in this zone.
    pub fn choose_zone(&self, zone: &str) {
        assert_eq!(self.post("/settings/zone", &form(&[("zone", zone)])).status, 303, "{zone}");
    }

    pub fn is_signed_in(&self) -> bool {
        self.get("/settings").status == 200
    }
}

pub fn form(fields: &[(&str, &str)]) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}
