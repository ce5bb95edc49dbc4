//! Section `[plane]` and its secret: read once at start, required where strangers can reach the process, never shown.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use node::bind::listen_address;
use proto::Secret;
use proto::secret::{SECRET_BYTES_MAX, SecretError};
use serde::{Deserialize, Serialize};

use crate::config::BatonConfig;

/// Variable that may hold the secret instead of a file.
pub const SECRET_VARIABLE: &str = "BATON_PLANE_SECRET";

/// Secret that routers and workers share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlaneConfig {
    /// File with the secret of all routers and workers of a deployment; empty for none.
    pub secret_file: PathBuf,
}

/// Reason why there is no secret to start with.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Both the file and the variable give a secret.
    #[error("plane.secret_file and the variable {SECRET_VARIABLE} both name a secret: one of them has to go")]
    Twice,
    /// The file cannot be read.
    #[error("plane.secret_file: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The text is no valid secret.
    #[error("{origin}")]
    Bad {
        /// Source of the text.
        origin: String,
        /// Problem of the text.
        source: SecretError,
    },
    /// No secret, although strangers can reach this process, or it would trust any answer from another host.
    #[error(
        "{key} is {address}, which is not loopback: routers and workers must share a secret. Set plane.secret_file to a file \
         with the same at least 32 characters on all hosts (`openssl rand -hex 32`), or the variable {SECRET_VARIABLE}"
    )]
    Missing {
        /// Key of the address.
        key: &'static str,
        /// Address that is not loopback.
        address: String,
    },
}

/// Address of the plane, with its key.
type Place<'a> = (&'static str, &'a str);

impl PlaneConfig {
    fn configured(&self) -> Result<Option<Secret>, PlaneError> {
        let Some((origin, text)) = self.source()? else { return Ok(None) };
        Secret::new(&text).map(Some).map_err(|source| PlaneError::Bad { origin, source })
    }

    /// Returns the text of the configured secret, if any, after checking it.
    pub fn text(&self) -> Result<Option<Vec<u8>>, PlaneError> {
        self.configured()?;
        Ok(self.source()?.map(|(_, text)| text))
    }

    fn source(&self) -> Result<Option<(String, Vec<u8>)>, PlaneError> {
        let variable = std::env::var_os(SECRET_VARIABLE).filter(|text| !text.is_empty());
        let file = Some(self.secret_file.as_path()).filter(|path| !path.as_os_str().is_empty());
        match (variable, file) {
            (Some(_), Some(_)) => Err(PlaneError::Twice),
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some((format!("the variable {SECRET_VARIABLE}"), text.into_encoded_bytes()))),
            (None, Some(path)) => Ok(Some((format!("plane.secret_file {}", path.display()), read(path)?))),
        }
    }

    fn required<'a>(&self, places: impl IntoIterator<Item = Place<'a>>) -> Result<Secret, PlaneError> {
        if let Some(secret) = self.configured()? {
            return Ok(secret);
        }
        match places.into_iter().find(|(_, address)| !is_loopback(address)) {
            Some((key, address)) => Err(PlaneError::Missing { key, address: address.to_owned() }),
            None => Ok(Secret::open()),
        }
    }
}

/// Returns the secret of `baton router`.
pub fn of_router(config: &BatonConfig) -> Result<Secret, PlaneError> {
    let workers = &config.router.workers;
    let prefill = workers.prefill.iter().map(|address| ("router.workers.prefill", address.as_str()));
    let decode = workers.decode.iter().map(|address| ("router.workers.decode", address.as_str()));
    config.plane.required(prefill.chain(decode))
}

/// Returns the secret of `baton prefill`.
pub fn of_prefill(config: &BatonConfig) -> Result<Secret, PlaneError> {
    let prefill = &config.prefill;
    let tcp = prefill.engine.transport == engine::TransportChoice::Tcp;
    let data = tcp.then_some(("prefill.engine.tcp_listen", prefill.engine.tcp_listen.as_str()));
    config.plane.required([("prefill.listen", prefill.listen.as_str())].into_iter().chain(data))
}

/// Returns the secret of `baton decode`.
pub fn of_decode(config: &BatonConfig) -> Result<Secret, PlaneError> {
    let decode = &config.decode;
    let peers = decode.peers.iter().map(|address| ("decode.peers", address.as_str()));
    config.plane.required([("decode.listen", decode.listen.as_str())].into_iter().chain(peers))
}

/// Returns true for addresses of this host only. Names but localhost are not looked up, as they may change.
pub fn is_loopback(address: &str) -> bool {
    // A port alone means this host.
    let address = listen_address(address).unwrap_or_default();
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_canonical().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PlaneError> {
    let failed = |source| PlaneError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o004 != 0 {
        tracing::warn!(file = %path.display(), "plane.secret_file can be read by every user of this host");
    }
    let mut text = Vec::new();
    // White space around the secret does not count, so read more than the longest secret.
    file.take(2 * SECRET_BYTES_MAX as u64).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut BatonConfig)) -> BatonConfig {
        let mut config = BatonConfig::default();
        change(&mut config);
        config
    }

    #[test]
    fn loopback_needs_no_secret_and_everything_else_does() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "7411", ":7411"]
        {
            assert!(is_loopback(address), "{address}");
        }
        for address in
            ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1", "prefill-0:7411", "127.0.0.1.nip.io:1", ""]
        {
            assert!(!is_loopback(address), "{address}");
        }
        let quiet = BatonConfig::default();
        for secret in [of_router(&quiet), of_prefill(&quiet), of_decode(&quiet)] {
            assert!(secret.unwrap().is_open());
        }
    }

    #[test]
    fn each_address_of_the_plane_that_is_not_loopback_is_named() {
        let said = |secret: Result<Secret, PlaneError>| secret.unwrap_err().to_string();
        let (tcp, open) = (engine::TransportChoice::Tcp, "0.0.0.0:9".to_owned());
        let router = config(|config| config.router.workers.decode = vec!["decode-0:7421".into()]);
        let listens = config(|config| config.prefill.listen.clone_from(&open));
        let data =
            config(|config| (config.prefill.engine.transport, config.prefill.engine.tcp_listen) = (tcp, open.clone()));
        let peers = config(|config| config.decode.peers = vec!["127.0.0.1:1".into(), "10.0.0.7:7411".into()]);
        for (secret, key) in [
            (of_router(&router), "router.workers.decode is decode-0:7421, which is not loopback"),
            (of_prefill(&listens), "prefill.listen is 0.0.0.0:9"),
            (of_prefill(&data), "prefill.engine.tcp_listen is 0.0.0.0:9"),
            (of_decode(&peers), "decode.peers is 10.0.0.7:7411"),
        ] {
            let said = said(secret);
            assert!(said.starts_with(key) && said.contains("plane.secret_file"), "{said}");
        }
    }

    #[test]
    fn a_file_holds_the_secret_and_its_faults_are_named_without_it() {
        let path = std::env::temp_dir().join(format!("baton-plane-{}", std::process::id()));
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            config(|config| {
                config.plane.secret_file.clone_from(&path);
                config.prefill.listen = "0.0.0.0:1".into();
            })
        };
        let good = with("0123456789abcdef0123456789abcdef\n");
        assert!(!of_prefill(&good).unwrap().is_open());
        let shown = toml::to_string(&good).unwrap() + &format!("{good:?} {:?}", of_prefill(&good));
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
        let error = of_prefill(&with("hunter2")).unwrap_err();
        let said = crate::cli::told(&error.into());
        assert!(said.contains("7 bytes") && !said.contains("hunter2"), "{said}");
        std::fs::remove_file(&path).unwrap();
        let missing = config(|config| config.plane.secret_file.clone_from(&path));
        assert!(matches!(of_decode(&missing), Err(PlaneError::Read { .. })));
    }
}
