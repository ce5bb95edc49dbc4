//! Greeting and answer at the start of a connection: the instance that the reader expects, its token, and the owner's
//! verdict. Knows no socket.

use sched::InstanceId;

use crate::TransferError;
use crate::endpoint::WIRE_VERSION;
use crate::token::{TOKEN_BYTES, Token};
use crate::wire::{Reader, Writer};

const MAGIC: [u8; 8] = *b"kv-pull\n";

pub(crate) const GREETING_BYTES: usize = 26 + TOKEN_BYTES;
pub(crate) const ANSWER_BYTES: usize = 11;

pub(crate) fn greeting(expected: InstanceId, token: Token) -> Vec<u8> {
    Writer::new().raw(&MAGIC).u16(WIRE_VERSION).u128(expected.0).raw(&token.0).finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome,
    WrongInstance,
    WrongVersion,
    Full,
    Stranger,
}

/// Decides the answer to a greeting; `None` if the bytes are no greeting.
pub(crate) fn judge(greeting: &[u8; GREETING_BYTES], ours: InstanceId, token: Token) -> Option<Answer> {
    let mut reader = Reader::new(greeting);
    if reader.raw(MAGIC.len()) != Some(&MAGIC) {
        return None;
    }
    if reader.u16()? != WIRE_VERSION {
        return Some(Answer::WrongVersion);
    }
    if reader.u128()? != ours.0 {
        return Some(Answer::WrongInstance);
    }
    let shown = Token(reader.raw(TOKEN_BYTES)?.try_into().ok()?);
    Some(if shown == token { Answer::Welcome } else { Answer::Stranger })
}

pub(crate) fn encode_answer(answer: Answer) -> Vec<u8> {
    let tag = match answer {
        Answer::Welcome => 0,
        Answer::WrongInstance => 1,
        Answer::WrongVersion => 2,
        Answer::Full => 3,
        Answer::Stranger => 4,
    };
    Writer::new().raw(&MAGIC).u16(WIRE_VERSION).u8(tag).finish()
}

/// Checks the owner's answer on the reader's side.
pub(crate) fn accept(answer: &[u8; ANSWER_BYTES], expected: InstanceId) -> Result<(), TransferError> {
    let protocol = TransferError::Protocol { reason: "its first words are not of this protocol" };
    let mut reader = Reader::new(answer);
    if reader.raw(MAGIC.len()) != Some(&MAGIC) {
        return Err(protocol);
    }
    let found = reader.u16().unwrap_or_default();
    match reader.u8() {
        Some(0) => Ok(()),
        Some(1) => Err(TransferError::WrongInstance { expected }),
        Some(2) => Err(TransferError::Version { found, supported: WIRE_VERSION }),
        Some(3) => Err(TransferError::lost("connect", "it serves no more readers")),
        Some(4) => Err(TransferError::NotAdmitted),
        Some(_) | None => Err(protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_judged_by_version_instance_and_token() {
        let ours = InstanceId(3);
        let (token, other) = (Token([1; TOKEN_BYTES]), Token([2; TOKEN_BYTES]));
        let mut hello: [u8; GREETING_BYTES] = greeting(ours, token).try_into().unwrap();
        assert_eq!(judge(&hello, ours, token), Some(Answer::Welcome));
        assert_eq!(judge(&hello, ours, other), Some(Answer::Stranger));
        assert_eq!(judge(&hello, InstanceId(4), token), Some(Answer::WrongInstance));
        hello[8] += 1;
        assert_eq!(judge(&hello, ours, token), Some(Answer::WrongVersion));
        hello[0] = b'G';
        assert_eq!(judge(&hello, ours, token), None);
    }

    #[test]
    fn only_a_welcome_is_accepted() {
        use Answer::{Full, Stranger, Welcome, WrongInstance, WrongVersion};
        for answer in [Welcome, WrongInstance, WrongVersion, Full, Stranger] {
            let answered = accept(&encode_answer(answer).try_into().unwrap(), InstanceId(3));
            assert_eq!(answered.is_ok(), answer == Answer::Welcome);
        }
        assert!(accept(b"HTTP/1.1 40", InstanceId(3)).is_err());
    }
}
