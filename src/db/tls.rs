//! TLS to an external PostgreSQL, by what `sslmode` in `DATABASE_URL` asks for.
//!
//! | `sslmode` | |
//! |---|---|
//! | `disable` | never |
//! | `prefer` (default) | over TCP, if the server offers it; the certificate is **not** checked, as in libpq: this keeps out who listens, not who sits in between |
//! | `require`, `verify-ca`, `verify-full` | always; the certificate is checked against the system's roots and the host's name (`SSL_CERT_FILE` names others) |
//!
//! A Unix socket is never encrypted. Unlike libpq, a handshake that fails under `prefer` is not tried again without TLS.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Makes the connector for `config`, and turns TLS off in it where no host is reached over TCP.
///
/// # Errors
/// A sentence, where certificates must be checked and the system has no roots to check them against.
pub(super) fn connector(config: &mut tokio_postgres::Config) -> Result<MakeRustlsConnect, String> {
    let unix_only = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if unix_only && config.get_hostaddrs().is_empty() && config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Disable);
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = if config.get_ssl_mode() == SslMode::Require {
        builder.with_root_certificates(system_roots()?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
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
             or name a file in SSL_CERT_FILE) {}",
            reasons.join("; ")
        ));
    }
    Ok(roots)
}

/// Takes any certificate, for `sslmode=prefer`; the handshake's own signature is still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
