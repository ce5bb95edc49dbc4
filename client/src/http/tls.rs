//! TLS towards one server: which certificates are trusted, the handshake, and what its failures mean. Knows no HTTP.

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use crate::{Error, Result};

const ALPN: &[u8] = b"http/1.1";
/// Most bytes of a file of certificates; the authorities of a whole system need a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Authorities whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those of the system (or of `SSL_CERT_FILE` and `SSL_CERT_DIR`).
    #[default]
    System,
    /// Only those of a PEM file. A server's own certificate may stand there, too.
    Only(PathBuf),
}

/// What every connection to one server begins with.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Prepares connections to a host by the name or address that its certificate must have.
    pub(super) fn new(host: &str, trust: &Trust) -> Result<Tls> {
        let wrong = |_| Error::Target { target: host.to_owned(), problem: "no certificate can be for such a name" };
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        let roots = match trust {
            Trust::System => of_system()?,
            Trust::Only(file) => of_file(file)?,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Error::TlsSettings)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Tls { name, config: Arc::new(config) })
    }

    /// Shakes hands; the caller bounds the time.
    pub(super) async fn over(&self, stream: TcpStream, authority: &str) -> Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let failed = |source| Error::Tls { authority: authority.to_owned(), problem: problem(&source), source };
        connector.connect(self.name.clone(), stream).await.map_err(failed)
    }
}

fn of_system() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry old certificates that are no longer well-formed; what they signed is then not trusted.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let causes = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(Error::NoAuthorities(if causes.is_empty() { "none was found".to_owned() } else { causes }));
    }
    Ok(roots)
}

fn of_file(file: &Path) -> Result<RootCertStore> {
    let wrong = |problem: String| Error::File { file: file.to_owned(), problem };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|source| Error::Io { file: file.to_owned(), source })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("more than {FILE_BYTES_MAX} bytes are no file of certificates")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| wrong(format!("no certificates in PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("there is no certificate in PEM".to_owned())) } else { Ok(roots) }
}

/// Says what a failed handshake means for the user.
fn problem(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer => {
                "nobody who is trusted has signed its certificate; --ca FILE names whom to trust"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
            _ => "its certificate is not accepted",
        },
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "what answers is no TLS; plain HTTP needs http://"
        }
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            "it hung up in the handshake; plain HTTP needs http://"
        }
        _ => "the handshake failed",
    }
}
