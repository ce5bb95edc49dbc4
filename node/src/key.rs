//! API keys: what a request presents, and digests with which it is compared; knows no user.

use std::fmt;
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Header in which Anthropic's clients send their key.
const X_API_KEY: &str = "x-api-key";
const SCHEME: &[u8] = b"bearer ";
/// Longest key; a longer one is not even hashed.
const KEY_BYTES_MAX: usize = 512;
const DIGEST_BYTES: usize = 32;

/// SHA-256 of a key. Keys are random, so their digests need no salt, and nobody can get from one back to the key.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyDigest([u64; DIGEST_BYTES / 8]);

/// Text that is no digest. It is not repeated, as it may be a key that was written in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not the SHA-256 of a key, 64 hexadecimal digits (`baton key new` makes a key and prints it)")]
pub struct NotADigest;

/// Text that is no key. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an API key has 1 to {KEY_BYTES_MAX} visible ASCII characters")]
pub struct NotAKey;

impl KeyDigest {
    /// Returns the digest of a key.
    ///
    /// # Errors
    /// No client could send this text as a key.
    pub fn of(key: &[u8]) -> Result<KeyDigest, NotAKey> {
        let is_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.iter().all(u8::is_ascii_graphic);
        if !is_key {
            return Err(NotAKey);
        }
        let mut words = [0; DIGEST_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(Sha256::digest(key).chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Ok(KeyDigest(words))
    }

    /// Returns true if both are digests of one key. Takes the same time for all digests.
    #[must_use]
    pub fn is(&self, other: &KeyDigest) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Returns the digest of the key that a request presents; `None` without a key, or with text that can be none.
    #[must_use]
    pub fn presented(headers: &HeaderMap) -> Presented {
        let bearer = only(headers, AUTHORIZATION.as_str()).and_then(bearer_token);
        match bearer.or_else(|| only(headers, X_API_KEY)) {
            None => Presented::Nothing,
            Some(key) => KeyDigest::of(key).map_or(Presented::NoKey, Presented::Key),
        }
    }
}

/// What a request presents as its key.
#[derive(Debug, Clone, Copy)]
pub enum Presented {
    /// No key.
    Nothing,
    /// Text that can be no key.
    NoKey,
    /// A key.
    Key(KeyDigest),
}

impl Presented {
    /// Returns true if it is this key.
    #[must_use]
    pub fn is(&self, key: &KeyDigest) -> bool {
        match self {
            Presented::Key(presented) => presented.is(key),
            Presented::Nothing | Presented::NoKey => false,
        }
    }
}

/// Returns the value of a header that is sent once. Of two values, this check and a proxy's could see different ones.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

impl FromStr for KeyDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<KeyDigest, NotADigest> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        if text.len() != 2 * DIGEST_BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        let mut words = [0; DIGEST_BYTES / 8];
        for (place, word) in words.iter_mut().enumerate() {
            *word = u64::from_str_radix(&text[place * 16..][..16], 16).map_err(|_| NotADigest)?;
        }
        Ok(KeyDigest(words))
    }
}

impl TryFrom<String> for KeyDigest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<KeyDigest, NotADigest> {
        text.parse()
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> String {
        digest.to_string()
    }
}

/// Form of a digest in a configuration that may have none: an empty text.
pub mod or_empty {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use super::KeyDigest;

    /// Writes the digest, or an empty text.
    ///
    /// # Errors
    /// When the form cannot hold a text.
    pub fn serialize<S: Serializer>(digest: &Option<KeyDigest>, form: S) -> Result<S::Ok, S::Error> {
        form.serialize_str(&digest.map(|digest| digest.to_string()).unwrap_or_default())
    }

    /// Reads a digest, or an empty text.
    ///
    /// # Errors
    /// When it is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(form: D) -> Result<Option<KeyDigest>, D::Error> {
        match String::deserialize(form)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(out, "{word:016x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyDigest({self})")
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &KeyDigest) -> bool {
        self.is(other)
    }
}

impl Eq for KeyDigest {}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn presented(headers: &[(&'static str, &str)]) -> Presented {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        KeyDigest::presented(&pairs.collect())
    }

    fn is_key(presented: Presented, key: &str) -> bool {
        matches!(presented, Presented::Key(digest) if digest == KeyDigest::of(key.as_bytes()).unwrap())
    }

    #[test]
    fn a_digest_is_that_of_sha_256_and_survives_being_written() {
        let digest = KeyDigest::of(b"abc").unwrap();
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(format!("sha256:{}", text.to_uppercase()).parse(), Ok(digest));
        assert_ne!(KeyDigest::of(b"abd").unwrap(), digest);
        assert_eq!(serde_json::from_str::<KeyDigest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
    }

    #[test]
    fn a_text_that_is_no_digest_is_not_repeated() {
        for text in ["", "sk-secret", &"a".repeat(63), &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)] {
            let error = serde_json::from_str::<KeyDigest>(&format!("{text:?}")).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits") && !error.contains("sk-secret"), "{error}");
        }
    }

    #[test]
    fn a_key_comes_as_a_bearer_token_or_in_the_header_of_anthropic() {
        for value in ["Bearer abc", "bearer abc", "BEARER   abc "] {
            assert!(is_key(presented(&[("authorization", value)]), "abc"), "{value}");
        }
        assert!(is_key(presented(&[("x-api-key", "abc")]), "abc"));
        assert!(is_key(presented(&[("authorization", "Basic eDp5"), ("x-api-key", "abc")]), "abc"));
        assert!(is_key(presented(&[("authorization", "Bearer abc"), ("x-api-key", "other")]), "abc"));
        assert!(matches!(presented(&[]), Presented::Nothing));
        assert!(matches!(presented(&[("authorization", "Basic eDp5")]), Presented::Nothing));
        assert!(matches!(
            presented(&[("authorization", "Bearer abc"), ("authorization", "Bearer x")]),
            Presented::Nothing
        ));
    }

    #[test]
    fn what_can_be_no_key_is_not_hashed() {
        for value in ["Bearer ", "Bearer a b", "Bearer \u{e9}", &format!("Bearer {}", "a".repeat(KEY_BYTES_MAX + 1))] {
            assert!(matches!(presented(&[("authorization", value)]), Presented::NoKey), "{value}");
        }
        assert!(is_key(presented(&[("x-api-key", &"a".repeat(KEY_BYTES_MAX))]), &"a".repeat(KEY_BYTES_MAX)));
    }
}
