//! The TLS of nginx/: versions, OCSP, and the script that makes a first certificate. There is no pixeld behind it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use pixeld_testkit::process::{free_port, wait_until};

use crate::kit::support::{PATIENCE, open_dir};
use crate::ship::edge_nginx::{ADMIN, Nginx, PUBLIC, installed};

/// nginx without an upstream; `change` receives the configuration's folder before the start.
fn alone_in(dir: &Path, change: impl FnOnce(&Path)) -> Nginx {
    change(&installed(dir));
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    Nginx::start(dir, [("127.0.0.1:8080", nobody), ("127.0.0.1:8081", nobody)], &[])
}

/// A handshake, as openssl reports it.
fn handshake(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", PUBLIC])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn tls_is_1_2_or_1_3_with_forward_secrecy() {
    let dir = open_dir();
    let nginx = alone_in(dir.path(), |_| {});
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = handshake(nginx.https, &[option, "-alpn", "h2"]);
        assert!(said.contains(&format!("New, {version}, Cipher is")), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
    }
    for old in ["-tls1", "-tls1_1"] {
        let said = handshake(nginx.https, &[old, "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(said.contains("alert protocol version") && said.contains("Cipher is (NONE)"), "{old}: {said}");
    }
    let weak =
        handshake(nginx.https, &["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA:ECDHE-ECDSA-AES128-SHA@SECLEVEL=0"]);
    assert!(weak.contains("handshake failure"), "{weak}");
}

/// An authority, a certificate that names the authority's OCSP server, and that server.
fn authority(certificates: &Path, responder: SocketAddr) -> std::process::Child {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").current_dir(certificates).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    };
    let settings = format!(
        "[req]\ndistinguished_name=name\n[name]\n[ca]\nbasicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n\
         [leaf]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{PUBLIC}\nauthorityInfoAccess=OCSP;URI:http://localhost:{}\n",
        responder.port()
    );
    fs::write(certificates.join("openssl.cnf"), settings).unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config", "openssl.cnf"];
    openssl(
        &[
            &["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-extensions", "ca"],
            &key[..],
            &["-keyout", "ca.key", "-out", "chain.pem"],
        ]
        .concat(),
    );
    openssl(&[&["req", "-subj", "/CN=leaf"], &key[..], &["-keyout", "privkey.pem", "-out", "leaf.csr"]].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        "chain.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "4096",
        "-days",
        "2",
        "-extfile",
        "openssl.cnf",
        "-extensions",
        "leaf",
        "-out",
        "leaf.pem",
    ]);
    let full =
        [fs::read(certificates.join("leaf.pem")).unwrap(), fs::read(certificates.join("chain.pem")).unwrap()].concat();
    fs::write(certificates.join("fullchain.pem"), full).unwrap();
    fs::write(certificates.join("index.txt"), "V\t491231235959Z\t\t1000\tunknown\t/CN=leaf\n").unwrap();
    let log = fs::File::create(certificates.join("ocsp.log")).unwrap();
    Command::new("openssl")
        .current_dir(certificates)
        .args([
            "ocsp",
            "-index",
            "index.txt",
            "-CA",
            "chain.pem",
            "-rsigner",
            "chain.pem",
            "-rkey",
            "ca.key",
            "-nmin",
            "5",
        ])
        .args(["-port", &responder.port().to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

#[test]
fn the_issuers_word_on_the_certificate_comes_along_with_it() {
    let dir = open_dir();
    let responder = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let mut child = None;
    let nginx = alone_in(dir.path(), |conf| child = Some(authority(&conf.join("certificates"), responder)));
    // The first handshake makes nginx ask.
    let mut said = String::new();
    let stapled = wait_until("OCSP", PATIENCE, || {
        said = handshake(nginx.https, &["-status"]);
        said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good")
    });
    let mut child = child.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stapled.is_ok(), "{said}{}", nginx.written());
}

#[test]
fn the_certificates_script_makes_one_for_all_names_and_overwrites_none() {
    let dir = open_dir();
    let conf = installed(dir.path());
    let folder = conf.join("certificates");
    let output =
        Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(folder.join("fullchain.pem")).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains(&format!("DNS:{PUBLIC}, DNS:{ADMIN}")) && text.contains("CA:FALSE"), "{text}");
    let before = fs::read(folder.join("privkey.pem")).unwrap();
    let run = |arguments: &[&str]| Command::new(conf.join("make-certificate.sh")).args(arguments).output().unwrap();
    let again = run(&[folder.to_str().unwrap(), PUBLIC]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("already"), "{again:?}");
    assert_eq!(fs::read(folder.join("privkey.pem")).unwrap(), before);
    assert_eq!(run(&[folder.to_str().unwrap()]).status.code(), Some(64));
    let failed = run(&[dir.path().join("bad").to_str().unwrap(), "a\nb"]);
    assert!(!failed.status.success() && !dir.path().join("bad/privkey.pem").exists(), "{failed:?}");
}
