//! The messages on a connection: one greeting each way, then requests of fixed size and replies in the same order.
//! Little-endian; knows no socket.

use sched::{InstanceId, LeaseId};

use crate::endpoint::WIRE_VERSION;
use crate::wire::{Reader, Writer};
use crate::{AccessDenied, RegionId, TransferError};

const MAGIC: [u8; 8] = *b"kv-tcp\r\n";

/// The most that one request may ask for; bounds what a reply of the owner can be.
pub(super) const REQUEST_BYTES_MAX: u64 = 64 << 20;

pub(super) const GREETING_BYTES: usize = 26;
pub(super) const ANSWER_BYTES: usize = 11;
pub(super) const REQUEST_BYTES: usize = 40;
pub(super) const REPLY_BYTES: usize = 24;

/// The reader's first words: whom it expects.
pub(super) fn greeting(expected: InstanceId) -> Vec<u8> {
    Writer::new().raw(&MAGIC).u16(WIRE_VERSION).u128(expected.0).finish()
}

/// What the owner says to a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome,
    WrongInstance,
    WrongVersion,
    Full,
}

/// The owner's answer to a greeting; `None` if that was no greeting at all.
pub(super) fn judge(greeting: &[u8; GREETING_BYTES], ours: InstanceId) -> Option<Answer> {
    let mut reader = Reader::new(greeting);
    if reader.raw(MAGIC.len()) != Some(&MAGIC) {
        return None;
    }
    if reader.u16()? != WIRE_VERSION {
        return Some(Answer::WrongVersion);
    }
    Some(if reader.u128()? == ours.0 { Answer::Welcome } else { Answer::WrongInstance })
}

pub(super) fn encode_answer(answer: Answer) -> Vec<u8> {
    let tag = match answer {
        Answer::Welcome => 0,
        Answer::WrongInstance => 1,
        Answer::WrongVersion => 2,
        Answer::Full => 3,
    };
    Writer::new().raw(&MAGIC).u16(WIRE_VERSION).u8(tag).finish()
}

/// What an owner's answer means for the reader.
pub(super) fn accept(answer: &[u8; ANSWER_BYTES], expected: InstanceId) -> Result<(), TransferError> {
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
        Some(_) | None => Err(protocol),
    }
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) what: What,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Where the bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The page of known bytes; needs no lease.
    Probe,
    /// A region, under a lease.
    Region { region: RegionId, lease: LeaseId },
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, region, lease) = match self.what {
            What::Probe => (1, 0, 0),
            What::Region { region, lease } => (2, region.0, lease.0),
        };
        Writer::new().u32(tag).u32(region).u64(lease).u64(self.id).u64(self.offset).u64(self.bytes).finish()
    }

    pub(super) fn decode(frame: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let (tag, region, lease) = (reader.u32()?, RegionId(reader.u32()?), LeaseId(reader.u64()?));
        let what = match tag {
            1 => What::Probe,
            2 => What::Region { region, lease },
            _ => return None,
        };
        let (id, offset, bytes) = (reader.u64()?, reader.u64()?, reader.u64()?);
        (bytes <= REQUEST_BYTES_MAX).then_some(Self { id, what, offset, bytes })
    }
}

/// What precedes the bytes of a reply, or stands instead of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) id: u64,
    /// How many bytes follow, or why none do.
    pub(super) outcome: Result<u64, AccessDenied>,
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, bytes) = match self.outcome {
            Ok(bytes) => (1, bytes),
            Err(AccessDenied::Expired) => (2, 0),
            Err(AccessDenied::Unknown) => (3, 0),
            Err(AccessDenied::Bounds) => (4, 0),
        };
        Writer::new().u64(tag).u64(self.id).u64(bytes).finish()
    }

    pub(super) fn decode(frame: &[u8; REPLY_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let (tag, id, bytes) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let outcome = match tag {
            1 => Ok(bytes),
            2 => Err(AccessDenied::Expired),
            3 => Err(AccessDenied::Unknown),
            4 => Err(AccessDenied::Bounds),
            _ => return None,
        };
        Some(Self { id, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array<const N: usize>(bytes: Vec<u8>) -> [u8; N] {
        bytes.try_into().unwrap()
    }

    #[test]
    fn greetings_are_judged_by_version_and_instance() {
        let ours = InstanceId(3);
        let mut hello: [u8; GREETING_BYTES] = array(greeting(ours));
        assert_eq!(judge(&hello, ours), Some(Answer::Welcome));
        assert_eq!(judge(&hello, InstanceId(4)), Some(Answer::WrongInstance));
        hello[8] += 1;
        assert_eq!(judge(&hello, ours), Some(Answer::WrongVersion));
        hello[0] = b'G';
        assert_eq!(judge(&hello, ours), None);
        for answer in [Answer::Welcome, Answer::WrongInstance, Answer::WrongVersion, Answer::Full] {
            let answered = accept(&array(encode_answer(answer)), ours);
            assert_eq!(answered.is_ok(), answer == Answer::Welcome);
        }
        assert!(accept(b"HTTP/1.1 40", ours).is_err());
    }

    #[test]
    fn frames_survive_their_encoding() {
        let region = What::Region { region: RegionId(7), lease: LeaseId(u64::MAX) };
        for what in [What::Probe, region] {
            let request = Request { id: 1, what, offset: 1 << 50, bytes: REQUEST_BYTES_MAX };
            assert_eq!(Request::decode(&array(request.encode())), Some(request));
        }
        let large = Request { id: 1, what: region, offset: 0, bytes: REQUEST_BYTES_MAX + 1 };
        assert_eq!(Request::decode(&array(large.encode())), None);
        assert_eq!(Request::decode(&[9; REQUEST_BYTES]), None);
        let denied = [AccessDenied::Expired, AccessDenied::Unknown, AccessDenied::Bounds].map(Err);
        for outcome in [Ok(5)].into_iter().chain(denied) {
            let reply = Reply { id: 8, outcome };
            assert_eq!(Reply::decode(&array(reply.encode())), Some(reply));
        }
        assert_eq!(Reply::decode(&[9; REPLY_BYTES]), None);
    }
}
