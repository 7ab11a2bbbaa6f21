//! TLS to an external PostgreSQL, with every kind of certificate that servers have: works as in libpq, or the error has
//! a solution.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use pixeld_testkit::process::{free_port, wait_until};
use pixeld_testkit::server::Settings;

use crate::kit::support::{PIXELD, Postgres, REST, beside, open_dir};

/// Certificates and keys, made by openssl: `{name}.crt` and `{name}.key`, and the authority's `ca.crt`.
fn make_certificates(dir: &Path) {
    let run = |line: &str| {
        let words = line.split(' ').map(|word| word.replace('_', " "));
        let output = Command::new("openssl").args(words).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let itself = "-nodes -days 30 -addext subjectAltName=DNS:localhost";
    run("req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=An_authority");
    run(&format!("req -x509 -newkey rsa:2048 {itself} -keyout self.key -out self.crt -subj /CN=localhost"));
    std::fs::write(dir.join("named.ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n")
        .unwrap();
    std::fs::write(dir.join("elsewhere.ext"), "basicConstraints=CA:FALSE\nsubjectAltName=DNS:db.example.com\n")
        .unwrap();
    for (name, key, more) in [
        ("named", "genrsa -out named.key 2048", "-extfile named.ext"),
        ("elsewhere", "ecparam -name prime256v1 -genkey -noout -out elsewhere.key", "-extfile elsewhere.ext"),
        ("version1", "genrsa -out version1.key 2048", ""),
        ("p521", "ecparam -name secp521r1 -genkey -noout -out p521.key", "-extfile named.ext"),
        ("rsa1024", "genrsa -out rsa1024.key 1024", "-extfile named.ext"),
    ] {
        run(key);
        run(&format!("req -new -key {name}.key -subj /CN=localhost -out {name}.csr"));
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out {name}.crt {more}"
        );
        run(sign.trim_end());
    }
}

/// A PostgreSQL that listens on TCP, with these settings; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    fn start(cluster: &Cluster, settings: &[&str]) -> Server {
        let (port, log) = (free_port().unwrap(), cluster.dir.path().join("server.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new("setpriv");
        if nix::unistd::geteuid().is_root() {
            let [uid, gid] = cluster.owner.map(|id| id.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        }
        command.arg(format!("{}/postgres", cluster.programs)).args(["-D", &cluster.data, "-p", &port.to_string()]);
        for setting in
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "log_connections=on"].iter().chain(settings)
        {
            command.args(["-c", setting]);
        }
        // Its library refuses short keys, which older ones accept.
        command.env("OPENSSL_CONF", cluster.dir.path().join("openssl.cnf"));
        command.current_dir(cluster.dir.path()).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let server = Server { child: command.spawn().unwrap(), port, log };
        wait_until("PostgreSQL", REST, || server.said().contains("ready to accept connections")).unwrap();
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        pixeld_testkit::process::signal(self.child.id(), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
    }
}

/// A cluster that does not run, and certificates that its user can read.
struct Cluster {
    data: String,
    programs: String,
    owner: [u32; 2],
    dir: tempfile::TempDir,
    _postgres: Postgres,
}

impl Cluster {
    fn make() -> Cluster {
        let mut postgres = Postgres::start().unwrap();
        let data = postgres.query("SHOW data_directory").unwrap().remove(0);
        let programs = postgres.query("SELECT setting FROM pg_config WHERE name = 'BINDIR'").unwrap().remove(0);
        postgres.stop().unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        let dir = open_dir();
        make_certificates(dir.path());
        let lax =
            "openssl_conf = c\n[c]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\nCipherString = DEFAULT@SECLEVEL=0\n";
        std::fs::write(dir.path().join("openssl.cnf"), lax).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            let mode = if entry.extension().is_some_and(|ending| ending == "key") { 0o600 } else { 0o644 };
            std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(mode)).unwrap();
            chown(&entry, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        Cluster { data, programs, owner: [owner.uid(), owner.gid()], dir, _postgres: postgres }
    }

    fn start(&self, certificate: &str) -> Server {
        let file = |ending| self.dir.path().join(format!("{certificate}.{ending}"));
        let certificate = format!("ssl_cert_file={}", file("crt").display());
        Server::start(self, &["ssl=on", &certificate, &format!("ssl_key_file={}", file("key").display())])
    }

    /// Runs a command against a server with these options of the URL; `{dir}` is the certificates' directory. Returns
    /// its output if it failed.
    fn try_it(&self, server: &Server, options: &str, roots: Option<&str>) -> Result<(), String> {
        let options = options.replace("{dir}", &self.dir.path().display().to_string());
        let url = format!("postgresql://pixeld@localhost:{}/pixeld?{options}", server.port);
        let mut settings = Settings::new(PIXELD, self.dir.path().join("data")).unwrap().with("DATABASE_URL", url);
        if let Some(roots) = roots {
            settings = settings.with("SSL_CERT_FILE", self.dir.path().join(roots).display().to_string());
        }
        let mut command = settings.command(&["migrate"]);
        if roots.is_none() {
            command.env_remove("SSL_CERT_FILE");
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}

/// Options, `SSL_CERT_FILE`, and the error's text; empty if it connects with TLS.
type Try = (&'static str, Option<&'static str>, &'static str);

#[test]
fn every_certificate_is_taken_as_libpq_takes_it_or_the_error_names_the_way_out() {
    let _machine = beside();
    let cluster = Cluster::make();
    let ca = "sslrootcert={dir}/ca.crt";
    let (unknown, version1, keys) =
        ("sslrootcert=/path/to/ca.crt", "X.509 version 1", "P-521, or RSA of fewer than 2048 bits");
    let tries: [(&str, &[Try]); 6] = [
        (
            "named",
            &[
                ("", None, ""),
                ("sslmode=prefer", None, ""),
                ("sslmode=require", None, unknown),
                ("sslmode=verify-full", None, "SSL_CERT_FILE"),
                ("sslmode=require", Some("ca.crt"), ""),
                ("sslmode=verify-full", Some("ca.crt"), ""),
                (ca, None, ""),
                ("sslmode=verify-full&sslrootcert={dir}/ca.crt", None, ""),
                ("sslmode=verify-full&sslrootcert={dir}/self.crt", None, unknown),
                ("sslmode=require&sslrootcert=system", Some("ca.crt"), ""),
                ("sslmode=require&sslrootcert={dir}/missing.crt", None, "missing.crt, which cannot be read"),
                ("sslmode=require&sslrootcert={dir}/named.ext", None, "no certificate in PEM"),
            ],
        ),
        (
            "elsewhere",
            &[
                ("sslmode=prefer", None, ""),
                ("sslmode=require&sslrootcert={dir}/ca.crt", None, ""),
                ("sslmode=verify-ca&sslrootcert={dir}/ca.crt", None, ""),
                ("sslmode=verify-full&sslrootcert={dir}/ca.crt", None, "sslmode=verify-ca with sslrootcert"),
            ],
        ),
        (
            "self",
            &[
                ("sslmode=prefer", None, ""),
                ("sslmode=require", None, "its own authority"),
                ("sslmode=require&sslrootcert={dir}/self.crt", None, ""),
                ("sslmode=verify-full&sslrootcert={dir}/self.crt", None, ""),
                ("sslmode=verify-full&sslrootcert={dir}/ca.crt", None, "its own authority"),
            ],
        ),
        (
            "version1",
            &[("", None, ""), ("sslmode=prefer", None, ""), (ca, None, version1), ("sslmode=require", None, version1)],
        ),
        ("p521", &[("", None, ""), ("sslmode=prefer", None, ""), (ca, None, keys), ("sslmode=require", None, keys)]),
        ("rsa1024", &[("", None, ""), ("sslmode=prefer", None, ""), (ca, None, keys)]),
    ];
    for (certificate, tries) in tries {
        let server = cluster.start(certificate);
        for (options, roots, wrong) in tries {
            match cluster.try_it(&server, options, *roots) {
                Ok(()) => assert!(wrong.is_empty(), "{certificate} {options}: connected"),
                Err(said) => assert!(!wrong.is_empty() && said.contains(wrong), "{certificate} {options}: {said}"),
            }
        }
        assert!(server.said().contains("SSL enabled"), "{certificate}: {}", server.said());
        let plain =
            server.said().lines().any(|line| line.contains("connection authorized") && !line.contains("SSL enabled"));
        assert!(!plain, "{certificate}: {}", server.said());
    }
}

#[test]
fn prefer_continues_without_tls_and_require_reports_the_reason() {
    let _machine = beside();
    let cluster = Cluster::make();
    let file = |name: &str| cluster.dir.path().join(name).display().to_string();
    let pair = [format!("ssl_cert_file={}", file("named.crt")), format!("ssl_key_file={}", file("named.key"))];
    std::fs::write(file("hba"), "hostssl all all all reject\nhostnossl all all all trust\n").unwrap();
    let hba = format!("hba_file={}", file("hba"));
    for (settings, wrong) in [
        (&["ssl=off"][..], "turn ssl on there"),
        // Ciphers that only old programs support.
        (
            &["ssl=on", &pair[0], &pair[1], "ssl_max_protocol_version=TLSv1.2", "ssl_ciphers=AES128-SHA"],
            "TLS handshake",
        ),
        (&["ssl=on", &pair[0], &pair[1], &hba], "pg_hba.conf rejects connection"),
    ] {
        let server = Server::start(&cluster, settings);
        cluster.try_it(&server, "sslmode=prefer", None).unwrap();
        assert!(!server.said().contains("SSL enabled"), "{}", server.said());
        let said = cluster.try_it(&server, "sslmode=require", Some("ca.crt")).unwrap_err();
        assert!(said.contains(wrong), "{settings:?}: {said}");
    }
}
