//! The word by which an owner knows its readers: drawn at its start, told in its endpoint, said back in the greeting.
//! Whoever may hear the endpoint may read; knows no message.

use crate::TransferError;

/// How long it is.
pub(crate) const TOKEN_BYTES: usize = 16;

/// Sixteen random bytes. Not printed, so that no log gives it away.
#[derive(Clone, Copy)]
pub(crate) struct Token(pub(crate) [u8; TOKEN_BYTES]);

impl Token {
    pub(crate) fn draw() -> Result<Self, TransferError> {
        Ok(Self(random()?.to_le_bytes()))
    }
}

/// In a time that does not depend on where two tokens differ.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
    }
}

impl Eq for Token {}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A number that nobody can guess.
pub(crate) fn random() -> Result<u128, TransferError> {
    let mut bytes = [0_u8; 16];
    // SAFETY: fills a live buffer of the length that is passed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        Ok(u128::from_le_bytes(bytes))
    } else {
        Err(TransferError::system("draw a random number", &std::io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_are_not_printed() {
        let (first, second) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert!(first == first && first != second);
        assert_eq!(format!("{first:?}"), "Token(..)");
    }
}
