//! The shared secret of a deployment, and proofs by which two ends show that they know it without sending it.
//!
//! Both ends draw a nonce. A proof is HMAC-SHA256 under the secret over prover, verifier and both nonces, so it cannot
//! be made without the secret, sent back to its sender, or used a second time. See docs/adr/0007-plane-secret.md.

use std::fmt;

use hmac::{Hmac, Mac};
use sched::{Failure, InstanceId};
use sha2::Sha256;
use thiserror::Error;

/// Shortest secret in bytes: an eavesdropper can test guesses against a proof offline, so it must not be guessable.
pub const SECRET_BYTES_MIN: usize = 32;
/// Longest secret in bytes.
pub const SECRET_BYTES_MAX: usize = 4096;

/// Secret that only the processes of one deployment know. Never printed; clones share it.
#[derive(Clone)]
pub struct Secret {
    keyed: Hmac<Sha256>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Open,
}

/// Text that is no valid secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Too short to withstand guessing.
    #[error("the secret has {bytes} bytes, fewer than {SECRET_BYTES_MIN}; `openssl rand -hex 32` makes a good one")]
    TooShort {
        /// Length of the text.
        bytes: usize,
    },
    /// Too long to be a secret.
    #[error("the secret has more than {SECRET_BYTES_MAX} bytes")]
    TooLong,
}

impl Secret {
    /// Makes a secret of `text`, without the white space around it.
    ///
    /// # Errors
    /// The text is too short or too long.
    pub fn new(text: &[u8]) -> Result<Secret, SecretError> {
        let text = text.trim_ascii();
        match text.len() {
            bytes if bytes < SECRET_BYTES_MIN => Err(SecretError::TooShort { bytes }),
            bytes if bytes > SECRET_BYTES_MAX => Err(SecretError::TooLong),
            _ => Ok(Secret { keyed: keyed_with(text), kind: Kind::Shared }),
        }
    }

    /// Returns the secret that every process knows, for planes that only processes of this host can reach.
    #[must_use]
    pub fn open() -> Secret {
        Secret { keyed: keyed_with(b""), kind: Kind::Open }
    }

    /// Whether this is the secret that every process knows.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.kind == Kind::Open
    }

    /// Draws a new secret as text: 64 random hexadecimal digits.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn draw() -> Result<String, Failure> {
        Ok(crate::random::bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Makes the proof of `side` in `meeting`; `said` is further text that the proof covers.
    pub(crate) fn prove(&self, side: Side, meeting: &Meeting<'_>, said: &[u8]) -> Vec<u8> {
        self.over(side.label(), meeting, said).finalize().into_bytes().to_vec()
    }

    /// Checks that `proof` is that of `side`, in constant time.
    pub(crate) fn believes(&self, side: Side, meeting: &Meeting<'_>, said: &[u8], proof: &[u8]) -> bool {
        self.over(side.label(), meeting, said).verify_slice(proof).is_ok()
    }

    /// Derives the key that only the two ends of this meeting have.
    pub(crate) fn key_of(&self, meeting: &Meeting<'_>) -> MeetingKey {
        MeetingKey { keyed: keyed_with(&self.over(b"key", meeting, b"").finalize().into_bytes()) }
    }

    fn over(&self, label: &[u8], meeting: &Meeting<'_>, said: &[u8]) -> Hmac<Sha256> {
        let parts = [
            b"baton plane 2".as_slice(),
            label,
            &meeting.client.0.to_le_bytes(),
            &meeting.server.0.to_le_bytes(),
            meeting.client_nonce,
            meeting.server_nonce,
            said,
        ];
        over(self.keyed.clone(), &parts)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({:?})", self.kind)
    }
}

/// Side that proves itself. The labels differ, so a proof sent back to its sender is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Router,
    Worker,
    Reader,
    Giver,
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Side::Router => b"router",
            Side::Worker => b"worker",
            Side::Reader => b"reader",
            Side::Giver => b"giver",
        }
    }
}

/// The two ends of a meeting, and the nonces that make it unique.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meeting<'a> {
    pub(crate) client: InstanceId,
    pub(crate) server: InstanceId,
    pub(crate) client_nonce: &'a [u8],
    pub(crate) server_nonce: &'a [u8],
}

/// Key of one meeting, which signs the messages that follow.
#[derive(Clone)]
pub(crate) struct MeetingKey {
    keyed: Hmac<Sha256>,
}

impl MeetingKey {
    pub(crate) fn sign(&self, label: &str, said: &[u8]) -> Vec<u8> {
        over(self.keyed.clone(), &[label.as_bytes(), said]).finalize().into_bytes().to_vec()
    }

    pub(crate) fn believes(&self, label: &str, said: &[u8], proof: &[u8]) -> bool {
        over(self.keyed.clone(), &[label.as_bytes(), said]).verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for MeetingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MeetingKey(secret)")
    }
}

/// Adds each part after its length, so that no two lists of parts give the same bytes.
fn over(keyed: Hmac<Sha256>, parts: &[&[u8]]) -> Hmac<Sha256> {
    parts.iter().fold(keyed, |keyed, part| keyed.chain_update((part.len() as u64).to_le_bytes()).chain_update(part))
}

/// Keys HMAC with the SHA-256 digest of `text`.
fn keyed_with(text: &[u8]) -> Hmac<Sha256> {
    use sha2::Digest;
    let mut key = hmac::digest::Key::<Hmac<Sha256>>::default();
    let digest = Sha256::digest(text);
    key[..digest.len()].copy_from_slice(&digest);
    Hmac::new(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCES: ([u8; 16], [u8; 16]) = ([1; 16], [2; 16]);

    fn meeting() -> Meeting<'static> {
        let (client_nonce, server_nonce) = (&NONCES.0, &NONCES.1);
        Meeting { client: InstanceId(1), server: InstanceId(2), client_nonce, server_nonce }
    }

    fn secret(letter: u8) -> Secret {
        Secret::new(&[letter; 40]).unwrap()
    }

    #[test]
    fn a_proof_convinces_only_in_its_own_meeting_from_its_own_side_under_its_own_secret() {
        let proof = secret(b'a').prove(Side::Router, &meeting(), b"hello");
        let believed =
            |secret: &Secret, side, meeting: Meeting<'_>, said: &[u8]| secret.believes(side, &meeting, said, &proof);
        assert!(believed(&secret(b'a'), Side::Router, meeting(), b"hello"));
        assert!(!believed(&secret(b'b'), Side::Router, meeting(), b"hello"));
        assert!(!believed(&Secret::open(), Side::Router, meeting(), b"hello"));
        for side in [Side::Worker, Side::Reader, Side::Giver] {
            assert!(!believed(&secret(b'a'), side, meeting(), b"hello"));
        }
        assert!(!believed(&secret(b'a'), Side::Router, meeting(), b"hallo"));
        let others = [
            Meeting { client: InstanceId(2), server: InstanceId(1), ..meeting() },
            Meeting { client_nonce: &NONCES.1, ..meeting() },
            Meeting { server_nonce: &NONCES.0, ..meeting() },
            Meeting { server_nonce: &[], ..meeting() },
        ];
        for other in others {
            assert!(!believed(&secret(b'a'), Side::Router, other, b"hello"));
        }
    }

    #[test]
    fn cut_and_empty_proofs_convince_nobody() {
        let proof = secret(b'a').prove(Side::Giver, &meeting(), b"");
        for length in 0..proof.len() {
            assert!(!secret(b'a').believes(Side::Giver, &meeting(), b"", &proof[..length]));
        }
        let longer = [proof.as_slice(), &[0]].concat();
        assert!(!secret(b'a').believes(Side::Giver, &meeting(), b"", &longer));
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let key = secret(b'a').key_of(&meeting());
        assert_ne!(key.sign("ab", b"c"), key.sign("a", b"bc"));
        assert!(key.believes("ab", b"c", &key.sign("ab", b"c")));
    }

    #[test]
    fn a_short_secret_is_refused_and_space_around_it_does_not_count() {
        let said = Secret::new(b"  hunter2\n").unwrap_err().to_string();
        assert!(said.starts_with("the secret has 7 bytes, fewer than 32"), "{said}");
        assert_eq!(Secret::new(&[b'x'; 5000]).unwrap_err(), SecretError::TooLong);
        let (plain, spaced) = (secret(b'a'), Secret::new(&[b" ", [b'a'; 40].as_slice(), b"\r\n"].concat()).unwrap());
        assert_eq!(plain.prove(Side::Router, &meeting(), b""), spaced.prove(Side::Router, &meeting(), b""));
    }

    #[test]
    fn secrets_are_drawn_and_never_printed() {
        let (one, two) = (Secret::draw().unwrap(), Secret::draw().unwrap());
        assert_eq!((one.len(), one == two), (64, false));
        let secret = Secret::new(one.as_bytes()).unwrap();
        assert_eq!(format!("{secret:?} {:?}", Secret::open()), "Secret(Shared) Secret(Open)");
        assert_eq!(format!("{:?}", secret.key_of(&meeting())), "MeetingKey(secret)");
    }
}
