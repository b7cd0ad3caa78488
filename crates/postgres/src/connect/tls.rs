//! TLS for the connection, with the provider named explicitly: a library must not depend on which
//! provider happens to be installed for the process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
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
    let checked: Option<Arc<dyn ServerCertVerifier>> = match root {
        Some(path) => {
            let roots = Arc::new(read_roots(path)?);
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            let built = built
                .build()
                .map_err(|error| tls(rustls::Error::General(error.to_string())))?;
            Some(built)
        }
        None if matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) => {
            Some(Arc::new(Verifier::new(Arc::clone(provider)).map_err(tls)?))
        }
        None => None,
    };
    Ok(match (mode, checked) {
        (TlsMode::VerifyFull, Some(checked)) => checked,
        (TlsMode::VerifyCa | TlsMode::Require, Some(checked)) => Arc::new(Lenient {
            provider: Arc::clone(provider),
            authority: Some(checked),
        }),
        _ => Arc::new(Lenient {
            provider: Arc::clone(provider),
            authority: None,
        }),
    })
}

fn read_roots(path: &Path) -> Result<RootCertStore> {
    let failed = |why: String| Error::ConnectionFile {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, why),
    };
    let pem = std::fs::read(path).map_err(|source| Error::ConnectionFile {
        path: path.to_owned(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate".into()));
    }
    Ok(roots)
}

/// Checks less than TLS usually does, as libpq's weaker modes ask for: the authority but not the
/// name, or neither. The handshake's own signatures are always checked.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<dyn ServerCertVerifier>>,
}

impl ServerCertVerifier for Lenient {
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
        match authority.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last, so all else was right.
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
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
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
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
