//! TLS of a listener: its certificate and key, which may change while it serves; knows no HTTP.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::watched::Watched;

/// Protocols offered to clients, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Most bytes of a certificate chain, or of a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificate and key in use; clones share them. A connection keeps those with which it began.
#[derive(Debug, Clone)]
pub struct Tls {
    now: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Files of a certificate and its key, as they were read last.
#[derive(Debug)]
pub struct TlsFiles {
    cert: Watched,
    key: Watched,
}

/// Reason why certificate and key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{0}")]
    Read(String),
    /// The file has no certificate, or one that is none.
    #[error("{} has no certificate chain in PEM: {problem}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// Problem of its contents.
        problem: String,
    },
    /// The file has no private key.
    #[error("{} has no private key in PEM: {problem}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Problem of its contents, which repeats none of them.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("certificate {} and key {} cannot be used together: {problem}", cert.display(), key.display())]
    Unfit {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// Problem of the two.
        problem: rustls::Error,
    },
}

/// What came of a look at the files.
#[derive(Debug)]
pub enum Look {
    /// Both are as they were.
    Same,
    /// New connections get the new certificate.
    Changed,
    /// The new files cannot be used; everything stays as it was.
    Unusable(TlsError),
}

impl Tls {
    /// Reads certificate chain and key, both PEM.
    ///
    /// # Errors
    /// They cannot be read or used.
    pub fn load(cert: &Path, key: &Path) -> Result<(Tls, TlsFiles), TlsError> {
        let open = |path: &Path| Watched::open(path, FILE_BYTES_MAX).map_err(TlsError::Read);
        let files = TlsFiles { cert: open(cert)?, key: open(key)? };
        let tls = Tls { now: Arc::new(RwLock::new(files.config()?)) };
        Ok((tls, files))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn change(&self, config: Arc<ServerConfig>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

impl TlsFiles {
    /// Looks whether the files have changed. While only one of the two has been exchanged they do not fit, and the look
    /// after the exchange of the other one finds both.
    pub async fn look(&mut self, tls: &Tls) -> Look {
        let (cert, key) = (self.cert.look().await, self.key.look().await);
        if !cert && !key {
            return Look::Same;
        }
        match self.config() {
            Ok(config) => {
                tls.change(config);
                Look::Changed
            }
            Err(error) => Look::Unusable(error),
        }
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let bytes = |file: &Watched| file.seen().clone().map_err(TlsError::Read);
        let (cert, key) = (self.cert.path().to_owned(), self.key.path().to_owned());
        let chain = certificates(&bytes(&self.cert)?)
            .map_err(|problem| TlsError::NoCertificate { path: cert.clone(), problem })?;
        let secret = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?)
            .map_err(|error| TlsError::NoKey { path: key.clone(), problem: error.to_string() })?;
        let unfit = |problem| TlsError::Unfit { cert: cert.clone(), key: key.clone(), problem };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(unfit)?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(Arc::new(config))
    }
}

/// Returns true if the first certificate of the file is for `host`, a name or an address.
#[must_use]
pub fn is_certificate_for(cert: &Path, host: &str) -> bool {
    let chain = Watched::open(cert, FILE_BYTES_MAX).ok().and_then(|file| certificates(file.seen().as_ref().ok()?).ok());
    let own = chain.as_deref().and_then(<[_]>::first).and_then(|own| ParsedCertificate::try_from(own).ok());
    own.zip(ServerName::try_from(host).ok()).is_some_and(|(own, host)| verify_server_name(&own, &host).is_ok())
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain =
        CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is none".to_owned()) } else { Ok(chain) }
}
