//! TLS from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::config::TlsConfig;

/// A file that TLS cannot be made of.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path} as {what}: {reason}", path = path.display())]
pub struct TlsError {
    path: PathBuf,
    what: &'static str,
    reason: String,
}

fn failed(path: &Path, what: &'static str) -> impl Fn(String) -> TlsError {
    move |reason| TlsError { path: path.to_owned(), what, reason }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = failed(path, what);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(fail("it holds no certificate in PEM form".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// Reads the files.
pub(super) fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, TlsError> {
    let TlsConfig { cert, key, client_ca, handshake_first: _, timeout: _ } = config;
    let chain = certificates(cert, "the server's certificate")?;
    let fail = failed(key, "the server's private key");
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fail(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let fail = failed(ca, "the authority of client certificates");
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca, "the authority of client certificates")? {
                roots.add(certificate).map_err(|error| fail(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| fail(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, private).map_err(|error| fail(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
