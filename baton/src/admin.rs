//! Section `[admin]`: the key of the operators, required where others can reach an admin port; knows no route.

use node::key::KeyDigest;
use serde::{Deserialize, Serialize};

use crate::config::BatonConfig;
use crate::plane::is_loopback;

/// Key of the operators, for the admin ports of all processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// SHA-256 of the key; empty for none.
    #[serde(with = "node::key::or_empty")]
    pub key_sha256: Option<KeyDigest>,
}

/// Error: others can reach an admin port, and there is no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "{key} is {address}, which is not loopback: set admin.key_sha256, the SHA-256 of the key with which operators and \
     Prometheus read metrics there (`baton key new` makes one)"
)]
pub struct NoAdminKey {
    key: &'static str,
    address: String,
}

/// Returns the key for the admin port at `address`, which `key` configures; an empty address opens no port.
pub fn key_for(config: &BatonConfig, key: &'static str, address: &str) -> Result<Option<KeyDigest>, NoAdminKey> {
    let digest = config.admin.key_sha256;
    match digest.is_some() || address.is_empty() || is_loopback(address) {
        true => Ok(digest),
        false => Err(NoAdminKey { key, address: address.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_others_reach_needs_a_key() {
        let mut config = BatonConfig::default();
        for address in ["", "127.0.0.1:7412", "[::1]:0", "localhost:1", "7412"] {
            assert_eq!(key_for(&config, "prefill.admin_listen", address).unwrap(), None, "{address}");
        }
        let refused = key_for(&config, "prefill.admin_listen", "0.0.0.0:7412").unwrap_err().to_string();
        assert!(refused.starts_with("prefill.admin_listen is 0.0.0.0:7412, which is not loopback"), "{refused}");
        config.admin.key_sha256 = Some(KeyDigest::of(b"sk-admin").unwrap());
        for address in ["127.0.0.1:7412", "0.0.0.0:7412"] {
            assert_eq!(key_for(&config, "prefill.admin_listen", address).unwrap(), config.admin.key_sha256);
        }
    }
}
