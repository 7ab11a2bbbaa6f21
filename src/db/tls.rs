//! TLS to an external PostgreSQL, according to `sslmode` and `sslrootcert` in `DATABASE_URL`.
//!
//! | `sslmode` | without `sslrootcert` | with a file in it |
//! |---|---|---|
//! | `disable` | never | never |
//! | `allow`, `prefer` (default) | over TCP, if the server offers it; nothing is checked, and without TLS where the handshake fails | as `verify-ca` |
//! | `require`, `verify-ca` | always; checked against the system's roots (`SSL_CERT_FILE` names others), with the host's name | always; checked against the file, without the name |
//! | `verify-full` | the same | always; checked against the file, with the name |
//!
//! This is libpq's behaviour with two exceptions: `require` without a root checks here, and a named root always counts.
//! A Unix socket is never encrypted. `prefer` verifies nothing, so it also accepts what it could not verify, namely
//! certificates of version 1 and keys that no check here supports, except if `channel_binding=require` depends on the
//! key.

use std::error::Error as _;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::CertificateCheck;

/// Makes the connector for `config`, and turns TLS off in it if no host is reached over TCP.
///
/// # Errors
/// A sentence, if certificates must be checked and there are no roots.
pub(super) fn connector(
    config: &mut tokio_postgres::Config,
    check: &CertificateCheck,
) -> Result<MakeRustlsConnect, String> {
    let unix_only = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if unix_only && config.get_hostaddrs().is_empty() {
        config.ssl_mode(SslMode::Disable);
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = match check {
        _ if config.get_ssl_mode() == SslMode::Disable => Arc::new(Unchecked { provider, with_key: false }),
        CertificateCheck::Nothing => {
            let with_key = config.get_channel_binding() == ChannelBinding::Require;
            Arc::new(Unchecked { provider, with_key })
        }
        CertificateCheck::System => {
            Arc::new(Checked::new(system_roots()?, Vec::new(), true, provider).map_err(|error| error.to_string())?)
        }
        CertificateCheck::File { path, with_name } => {
            let (roots, certificates) =
                file_roots(path).map_err(|wrong| format!("sslrootcert names {}, which {wrong}", path.display()))?;
            Arc::new(Checked::new(roots, certificates, *with_name, provider).map_err(|error| error.to_string())?)
        }
    };
    let tls = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(MakeRustlsConnect::new(tls.with_no_client_auth()))
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "sslmode asks for a checked certificate, but the system has no root certificates (install ca-certificates, \
             or name a file in sslrootcert or SSL_CERT_FILE) {}",
            reasons.join("; ")
        ));
    }
    Ok(roots)
}

/// The certificates of a PEM file, as roots and unchanged.
fn file_roots(path: &std::path::Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| format!("cannot be read: {error}"))?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| format!("cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    match certificates.is_empty() {
        true => Err("has no certificate in PEM in it".to_owned()),
        false => Ok((roots, certificates)),
    }
}

/// Whether an error comes from the handshake, or from a server that refuses TLS clients.
pub(super) fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    let refused_with_tls = error.code() == Some(&tokio_postgres::error::SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    refused_with_tls || error.to_string().starts_with("error performing TLS handshake")
}

/// What to do about a failed handshake; `None` if that is not the reason.
pub(super) fn way_out(error: &tokio_postgres::Error) -> Option<&'static str> {
    if super::reason::reason(error).contains("server does not support TLS") {
        return Some("turn ssl on there, or use sslmode=disable on a network that nobody else can read");
    }
    let io = error.source()?.downcast_ref::<std::io::Error>()?;
    Some(match io.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => {
                "its certificate comes from an unknown authority: name that authority's certificate in the URL \
                 (sslrootcert=/path/to/ca.crt) or in SSL_CERT_FILE, or use sslmode=prefer, which encrypts and checks nothing"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate names other hosts, or names them in its subject only (a subjectAltName is needed): connect to \
                 a name that is in it, or use sslmode=verify-ca with sslrootcert, which looks at no name"
            }
            CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => KEYS,
            CertificateError::Other(other) => match other.to_string() {
                text if text.contains("UnsupportedCertVersion") => {
                    "its certificate is X.509 version 1, which cannot be checked: give the server one of version 3 (with a \
                     subjectAltName), or use sslmode=prefer, which encrypts and checks nothing"
                }
                text if text.contains("CaUsedAsEndEntity") => {
                    "its certificate is its own authority: name it in the URL (sslrootcert=/path/to/server.crt), or use \
                     sslmode=prefer, which encrypts and checks nothing"
                }
                _ => return None,
            },
            _ => return None,
        },
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) | rustls::Error::PeerIncompatible(_) => KEYS,
        _ => return None,
    })
}

/// For keys that are not supported.
const KEYS: &str = "its key is of a kind that cannot be checked (P-521, or RSA of fewer than 2048 bits): give the server a key of \
     P-256, or RSA of 2048 bits or more, or use sslmode=prefer, which encrypts and checks nothing";

/// Checks certificates like libpq: always the chain, the name if requested, and one that is itself among the roots.
#[derive(Debug)]
struct Checked {
    chain: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
    with_name: bool,
}

impl Checked {
    fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        with_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Checked, rustls::client::VerifierBuilderError> {
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Checked { chain, named, with_name })
    }
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let error = match self.chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        let rustls::Error::InvalidCertificate(wrong) = &error else { return Err(error) };
        match wrong {
            // The chain was checked first.
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } if !self.with_name => {
                Ok(ServerCertVerified::assertion())
            }
            // A self-signed certificate is its own root; its dates were checked before.
            CertificateError::Other(other)
                if other.to_string().contains("CaUsedAsEndEntity") && self.named.contains(certificate) =>
            {
                if self.with_name {
                    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Accepts any certificate. An attacker in between could remove TLS altogether, so the handshake's signature protects
/// only the binding of the password's proof to the server's key, if the URL requests that.
#[derive(Debug)]
struct Unchecked {
    provider: Arc<CryptoProvider>,
    with_key: bool,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.with_key {
            true => verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.provider.signature_verification_algorithms,
            ),
            false => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.with_key {
            true => verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.provider.signature_verification_algorithms,
            ),
            false => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if !self.with_key {
            schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        }
        schemes
    }
}
