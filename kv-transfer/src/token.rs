//! The token that admits readers: drawn at the owner's start, told in its endpoint, shown in the greeting. A process
//! that gets the endpoint may read. Knows no message.

use crate::TransferError;

pub(crate) const TOKEN_BYTES: usize = 16;

/// Sixteen random bytes. Never printed, so that no log reveals them.
#[derive(Clone, Copy)]
pub(crate) struct Token(pub(crate) [u8; TOKEN_BYTES]);

impl Token {
    pub(crate) fn draw() -> Result<Self, TransferError> {
        Ok(Self(random()?.to_le_bytes()))
    }
}

/// Compares in constant time, wherever two tokens differ.
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

/// Returns a random number from the system that cannot be guessed.
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
