//! The nginx of nginx/, unchanged except ports and paths, with curl as its client.

use crate::kit::support::PATIENCE;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use pixeld_testkit::process::{free_port, signal, wait_until};
use pixeld_testkit::server::get;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The names in nginx/.
pub const PUBLIC: &str = "pixels.example.com";
pub const ADMIN: &str = "pixel-admin.example.com";

/// A running nginx; killed when dropped.
pub struct Nginx {
    child: Child,
    dir: PathBuf,
    pub http: u16,
    pub https: u16,
    status: SocketAddr,
}

/// What curl got.
#[derive(Debug)]
pub struct Fetched {
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Fetched {
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    /// Whether it is nginx's own transparent GIF: the same picture as pixeld's in other bytes.
    pub fn is_nginx_gif(&self) -> bool {
        let ours = pixeld_edge::images::TRANSPARENT_GIF;
        self.body.len() == ours.len() && self.body[..10] == ours[..10] && self.body != ours
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The repository's nginx/, with a test certificate, installed as on a host.
pub fn installed(dir: &Path) -> PathBuf {
    let conf = dir.join("conf");
    fs::create_dir(&conf).unwrap();
    for file in fs::read_dir(Path::new(ROOT).join("nginx")).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), conf.join(file.file_name())).unwrap();
        }
    }
    let made =
        Command::new(conf.join("make-certificate.sh")).arg(conf.join("certificates")).args([PUBLIC, ADMIN]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    conf
}

/// Debian keeps it outside users' PATH.
fn program() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

impl Nginx {
    /// Starts it with the configuration in `dir/conf`, with everything that it writes in `dir/state`, with `upstreams`
    /// instead of the addresses in upstreams.conf, and with `words` before it on the command line.
    pub fn start(dir: &Path, upstreams: [(&str, SocketAddr); 2], words: &[&str]) -> Nginx {
        Nginx::start_at([(); 2].map(|()| free_port().unwrap()), dir, upstreams, words)
    }

    /// The same, with the ports of HTTP and HTTPS given.
    pub fn start_at([http, https]: [u16; 2], dir: &Path, upstreams: [(&str, SocketAddr); 2], words: &[&str]) -> Nginx {
        let state = dir.join("state");
        fs::create_dir(&state).unwrap();
        // For whatever user it runs as.
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        let status = free_port().unwrap();
        let state_text = state.to_str().unwrap();
        let change = |file: &str, changes: &[(&str, String)]| {
            let path = dir.join("conf").join(file);
            let mut text = fs::read_to_string(&path).unwrap();
            for (place, value) in changes {
                assert!(text.contains(place), "{place} is not in {file}");
                text = text.replace(place, value);
            }
            fs::write(path, text).unwrap();
        };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {state_text}/{name};"))
            .join(" ");
        change(
            "nginx.conf",
            &[
                ("/var/log/nginx/error.log", format!("{state_text}/error.log")),
                ("include http.conf;", format!("include http.conf; {temporary}")),
            ],
        );
        // A machine may have no IPv6.
        let v6 = |port: u16| match Path::new("/proc/net/if_inet6").exists() {
            true => format!("listen [::1]:{port} "),
            false => format!("# listen [::1]:{port} "),
        };
        let tls = [("listen      443 ", format!("listen {https} ")), ("listen [::]:443 ", v6(https))];
        change("public.conf", &tls);
        change("admin.conf", &tls);
        change("public.conf", &[("listen      80 ", format!("listen {http} ")), ("listen [::]:80 ", v6(http))]);
        change("status.conf", &[("127.0.0.1:8082", format!("127.0.0.1:{status}"))]);
        change("upstreams.conf", &upstreams.map(|(place, address)| (place, address.to_string())));
        let words = [words, &[program()]].concat();
        let child = Command::new(words[0])
            .args(&words[1..])
            .arg("-c")
            .arg(dir.join("conf/nginx.conf"))
            .arg("-e")
            .arg(state.join("early.log"))
            .args(["-g", &format!("daemon off; pid {state_text}/pid;")])
            .stdin(Stdio::null())
            .stdout(File::create(state.join("stdout")).unwrap())
            .stderr(File::create(state.join("stderr")).unwrap())
            .spawn()
            .expect("nginx, which scripts/install-test-tools.sh installs");
        let status = SocketAddr::from((Ipv4Addr::LOCALHOST, status));
        let nginx = Nginx { child, dir: dir.to_owned(), http, https, status };
        let started = wait_until("nginx", PATIENCE, || get(status, "/nginx-status").is_ok());
        assert!(started.is_ok(), "{}", nginx.written());
        nginx
    }

    /// The address of nginx's status.
    pub fn status(&self) -> SocketAddr {
        self.status
    }

    /// Requests since its start, by its own count, including those for this number.
    pub fn requests(&self) -> u64 {
        let answer = get(self.status, "/nginx-status").unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let numbers = text.lines().nth(2).unwrap().split_whitespace();
        numbers.last().unwrap().parse().unwrap()
    }

    /// Everything that it has written, file by file.
    pub fn written(&self) -> String {
        let mut folders = vec![self.dir.join("state")];
        let mut all = String::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.push_str(&format!(
                        "{}:\n{}\n",
                        path.display(),
                        String::from_utf8_lossy(&fs::read(&path).unwrap())
                    ));
                }
            }
        }
        all
    }

    /// From now on its workers can write no file: anything that would be buffered on disk fails.
    pub fn forbid_files(&self) {
        for name in ["client_body", "proxy"] {
            let folder = self.dir.join("state").join(name);
            fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        }
    }

    /// SIGQUIT, as systemd and containers end it.
    pub fn quit(mut self) -> bool {
        signal(self.child.id(), Signal::SIGQUIT).unwrap();
        let mut status = None;
        wait_until("nginx's end", PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .unwrap();
        status.unwrap().success()
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.join("conf/certificates/fullchain.pem")
    }

    /// A command of curl, with the certificate known and the names leading here.
    pub fn curl(&self, arguments: &[&str]) -> Output {
        let (certificate, mut command) = (self.certificate(), Command::new("curl"));
        command.args(["--silent", "--show-error", "--max-time", "120", "--path-as-is", "--cacert"]).arg(certificate);
        for name in [PUBLIC, ADMIN, "old-name.example.com"] {
            for port in [self.http, self.https] {
                command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
            }
        }
        command.args(arguments).output().unwrap()
    }

    /// curl's result for a URL's `https://name/path`, with the port added.
    pub fn fetch(&self, url: &str, arguments: &[&str]) -> Fetched {
        let folder = tempfile::tempdir().unwrap();
        let [head, body] = ["head", "body"].map(|name| folder.path().join(name));
        let (scheme, rest) = url.split_once("://").unwrap();
        let (name, path) = rest.split_once('/').unwrap();
        let port = if scheme == "https" { self.https } else { self.http };
        let url = format!("{scheme}://{name}:{port}/{path}");
        let [head_text, body_text] = [&head, &body].map(|path| path.to_str().unwrap());
        let mut words = vec!["--dump-header", head_text, "--output", body_text];
        words.extend(["--write-out", "%{http_code} %{http_version}"]);
        words.extend(arguments);
        words.push(&url);
        let output = self.curl(&words);
        assert!(output.status.success(), "{url}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let (status, version) = said.split_once(' ').unwrap();
        Fetched {
            status: status.parse().unwrap(),
            version: version.to_owned(),
            head: fs::read_to_string(head).unwrap(),
            body: fs::read(body).unwrap_or_default(),
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM to the first process, which ends its workers; best effort, since it may have ended.
        signal(self.child.id(), Signal::SIGTERM).unwrap_or_default();
        drop(self.child.wait());
    }
}
