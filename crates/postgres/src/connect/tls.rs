//! TLS for the connection, with the provider named explicitly: a library must not depend on which
//! provider happens to be installed for the process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier as PlatformVerifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// How a connection over the network is protected, in libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// Encrypted when the server offers it. Who the server is, is not checked.
    #[default]
    Prefer,
    /// Encrypted, or no connection. Who the server is, is checked only when a root certificate is
    /// given, and then as with [`TlsMode::VerifyCa`].
    Require,
    /// Encrypted, and the certificate must come from a trusted authority.
    VerifyCa,
    /// Encrypted, and the certificate must come from a trusted authority and carry the host's
    /// name. The authorities are those of the operating system unless a root certificate is given.
    VerifyFull,
}

impl TlsMode {
    /// The word of libpq.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let what = format!(
                    "sslmode={} is not one of disable, prefer, require, verify-ca, verify-full",
                    text.escape_default()
                );
                return Err(Error::BadConnection { what });
            }
        })
    }
}

/// What `tokio-postgres` makes its TLS streams with.
pub(super) fn connector(mode: TlsMode, root: Option<&Path>) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(mode, root, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Tls { source })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(
    mode: TlsMode,
    root: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>> {
    let tls = |source| Error::Tls { source };
    let mut verifier = Verifier {
        provider: Arc::clone(provider),
        authority: None,
        known: Vec::new(),
        name: mode == TlsMode::VerifyFull,
    };
    if let Some(path) = root {
        verifier.known = read_certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &verifier.known {
            roots.add(certificate.clone()).map_err(tls)?;
        }
        let built =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| tls(rustls::Error::General(error.to_string())))?;
        if mode != TlsMode::Prefer {
            verifier.authority = Some(built);
        }
    } else if matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        let system = PlatformVerifier::new(Arc::clone(provider)).map_err(tls)?;
        verifier.authority = Some(Arc::new(system));
    }
    Ok(Arc::new(verifier))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |why: String| Error::ConnectionFile {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, why),
    };
    let pem = std::fs::read(path)
        .map_err(|source| Error::ConnectionFile { path: path.to_owned(), source })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no certificate".into()));
    }
    Ok(found)
}

/// Checks what libpq's modes ask for: authority and name, the authority alone, or neither. The
/// handshake's own signatures are always checked.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<dyn ServerCertVerifier>>,
    /// Certificates that the operator named. A server that shows one of these itself is trusted:
    /// many servers have a certificate that no other vouches for.
    known: Vec<CertificateDer<'static>>,
    name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(authority) = &self.authority else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.known.iter().any(|known| known == certificate) {
            if self.name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match authority.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last, so all else was right.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_can_be_set_up() {
        for word in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            let mode = TlsMode::parse(word).unwrap();
            connector(mode, None).unwrap();
        }
        assert!(TlsMode::parse("allow").is_err());
    }

    #[test]
    fn a_root_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.crt");
        assert!(connector(TlsMode::VerifyFull, Some(&path)).is_err());
        std::fs::write(&path, "nothing").unwrap();
        assert!(connector(TlsMode::VerifyFull, Some(&path)).is_err());
    }
}
