//! The messages on a connection after the greeting: requests of fixed size, and replies in the same order.
//! Little-endian; knows no socket.

use sched::LeaseId;

use crate::wire::{Reader, Writer};
use crate::{AccessDenied, RegionId};

/// Limit on the bytes of one request, and so on the bytes sent between two checks of the lease.
pub(super) const REQUEST_BYTES_MAX: u64 = 2 << 20;

pub(super) const REQUEST_BYTES: usize = 40;
pub(super) const REPLY_BYTES: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) what: What,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The page of known bytes; needs no lease.
    Probe,
    Region {
        region: RegionId,
        lease: LeaseId,
    },
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

/// Head of a reply, before its bytes or in place of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) id: u64,
    /// Number of bytes that follow, or the reason why none do.
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
