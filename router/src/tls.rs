//! Section `[router.tls]`: certificate and key of the client port, kept up with their files; knows no request.

use std::path::{Path, PathBuf};

use metrics::counter;
use node::config::Fault;
use node::door::{Look, Tls, TlsFiles};
use node::names;
use node::watched::LOOK_EVERY;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::Error;

/// TLS of the client port. Without files it speaks plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM, the server's own first; empty for no TLS.
    pub cert_file: PathBuf,
    /// Private key of the first certificate, PEM.
    pub key_file: PathBuf,
}

impl TlsConfig {
    /// Checks that both files are named, or none.
    ///
    /// # Errors
    /// The key that is missing.
    pub fn check(&self) -> Result<(), Fault> {
        let lacks = |key: &str, other: &str| {
            Err(Fault::of(format!("router.tls.{key}"), format!("is not set, although router.tls.{other} is")))
        };
        match (self.cert_file.as_os_str().is_empty(), self.key_file.as_os_str().is_empty()) {
            (true, false) => lacks("cert_file", "key_file"),
            (false, true) => lacks("key_file", "cert_file"),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// Scheme of the URLs of the client port.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }

    /// Reads the files, if there are any.
    pub(crate) fn load(&self) -> Result<Option<(Tls, TlsFiles)>, Error> {
        self.is_on().then(|| Ok(Tls::load(&self.cert_file, &self.key_file)?)).transpose()
    }

    /// Returns the certificate file, if the client port has TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        self.is_on().then_some(&*self.cert_file)
    }

    fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

/// Looks at the files for ever. Files that cannot be used change nothing, and connections keep what they began with.
pub(crate) async fn keep_up((tls, mut files): (Tls, TlsFiles)) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let outcome = match files.look(&tls).await {
            Look::Same => continue,
            Look::Changed => {
                info!("certificate and key are read again");
                "ok"
            }
            Look::Unusable(error) => {
                warn!(%error, "certificate and key stay as they were");
                "failed"
            }
        };
        counter!(names::RELOADS_TOTAL, "role" => "router", "of" => "tls", "outcome" => outcome).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_configuration_is_refused_by_the_missing_key() {
        let (cert, key) = (PathBuf::from("cert.pem"), PathBuf::from("key.pem"));
        assert!(TlsConfig::default().check().is_ok());
        let fault = TlsConfig { cert_file: cert, ..TlsConfig::default() }.check().unwrap_err();
        assert_eq!(fault.key, "router.tls.key_file");
        let fault = TlsConfig { key_file: key, ..TlsConfig::default() }.check().unwrap_err();
        assert_eq!(fault.key, "router.tls.cert_file");
    }
}
