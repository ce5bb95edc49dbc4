//! The shared secret of a deployment, and how two ends prove to each other that they know it without ever saying it.
//!
//! Both ends draw a nonce. Each proof is HMAC-SHA256 under the secret over who proves, to whom, and both nonces, so none
//! can be made without the secret, sent back to its sender, or used a second time. See docs/adr/0007-plane-secret.md.

use std::fmt;

use hmac::{Hmac, Mac};
use sched::{Failure, InstanceId};
use sha2::Sha256;
use thiserror::Error;

/// Bytes of a secret at least: whoever hears a proof can try secrets against it at leisure, so it must not be guessable.
pub const SECRET_BYTES_MIN: usize = 32;
/// Bytes of a secret at most.
pub const SECRET_BYTES_MAX: usize = 4096;

/// What the processes of one deployment know and nobody else does. Never printed; clones share it.
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

/// A secret that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Too short to withstand guessing.
    #[error("the secret has {bytes} bytes, fewer than {SECRET_BYTES_MIN}; `openssl rand -hex 32` makes a good one")]
    TooShort {
        /// How many it has.
        bytes: usize,
    },
    /// Too long to be meant.
    #[error("the secret has more than {SECRET_BYTES_MAX} bytes")]
    TooLong,
}

impl Secret {
    /// The secret that `text` holds; white space around it does not count.
    ///
    /// # Errors
    /// It is too short or too long.
    pub fn new(text: &[u8]) -> Result<Secret, SecretError> {
        let text = text.trim_ascii();
        match text.len() {
            bytes if bytes < SECRET_BYTES_MIN => Err(SecretError::TooShort { bytes }),
            bytes if bytes > SECRET_BYTES_MAX => Err(SecretError::TooLong),
            _ => Ok(Secret { keyed: keyed_with(text), kind: Kind::Shared }),
        }
    }

    /// No secret at all: everybody knows it. For planes that only processes of this host can reach.
    #[must_use]
    pub fn open() -> Secret {
        Secret { keyed: keyed_with(b""), kind: Kind::Open }
    }

    /// Whether everybody knows it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.kind == Kind::Open
    }

    /// The text of a new secret: 64 hexadecimal digits that nobody can foresee.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn draw() -> Result<String, Failure> {
        Ok(crate::random::bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What `side` proves itself with in `meeting`; `said` is what else the proof vouches for.
    pub(crate) fn prove(&self, side: Side, meeting: &Meeting<'_>, said: &[u8]) -> Vec<u8> {
        self.over(side.label(), meeting, said).finalize().into_bytes().to_vec()
    }

    /// Whether `proof` is that of `side`; takes as long for a wrong one as for the right one.
    pub(crate) fn believes(&self, side: Side, meeting: &Meeting<'_>, said: &[u8], proof: &[u8]) -> bool {
        self.over(side.label(), meeting, said).verify_slice(proof).is_ok()
    }

    /// The key that only the two of this meeting have.
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

/// Who proves. The labels differ, so a proof that is sent back to its sender convinces nobody.
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

/// Who has met whom, and what makes this meeting different from every other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meeting<'a> {
    pub(crate) client: InstanceId,
    pub(crate) server: InstanceId,
    pub(crate) client_nonce: &'a [u8],
    pub(crate) server_nonce: &'a [u8],
}

/// The key of one meeting: vouches for what the two say after it.
#[derive(Clone)]
pub(crate) struct MeetingKey {
    keyed: Hmac<Sha256>,
}

impl MeetingKey {
    /// Vouches for `said` under a label that says what it is.
    pub(crate) fn sign(&self, label: &str, said: &[u8]) -> Vec<u8> {
        over(self.keyed.clone(), &[label.as_bytes(), said]).finalize().into_bytes().to_vec()
    }

    /// Whether `proof` vouches for it; takes as long for a wrong one as for the right one.
    pub(crate) fn believes(&self, label: &str, said: &[u8], proof: &[u8]) -> bool {
        over(self.keyed.clone(), &[label.as_bytes(), said]).verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for MeetingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("MeetingKey(secret)")
    }
}

/// Each part with its length before it: no two lists of parts are the same bytes.
fn over(keyed: Hmac<Sha256>, parts: &[&[u8]]) -> Hmac<Sha256> {
    parts.iter().fold(keyed, |keyed, part| keyed.chain_update((part.len() as u64).to_le_bytes()).chain_update(part))
}

/// HMAC takes a key of any length; longer than a block, it is its digest that counts.
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
