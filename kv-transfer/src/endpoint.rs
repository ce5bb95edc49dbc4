//! The endpoint of a transport as bytes: its address, token and regions; knows no transport's address format.

use sched::InstanceId;

use crate::token::{TOKEN_BYTES, Token};
use crate::wire::{Reader, Writer};
use crate::{TransferError, TransportKind};

/// Version of the endpoint and of all messages between transports.
pub(crate) const WIRE_VERSION: u16 = 2;

const MAGIC: [u8; 4] = *b"KVEP";
const ENDPOINT_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) kind: TransportKind,
    pub(crate) instance: InstanceId,
    pub(crate) token: Token,
    /// Address to connect to, in the transport's own format.
    pub(crate) address: Vec<u8>,
    pub(crate) regions: Vec<RemoteRegion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteRegion {
    pub(crate) bytes: u64,
    /// Key of the region for one-sided transports; empty for others.
    pub(crate) key: Vec<u8>,
}

impl Endpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head =
            Writer::new().raw(&MAGIC).u16(WIRE_VERSION).u8(tag(self.kind)).u128(self.instance.0).raw(&self.token.0);
        let count = u16::try_from(self.regions.len()).unwrap_or(u16::MAX);
        let head = head.string(&self.address).u16(count);
        let regions = self.regions.iter().take(usize::from(count));
        regions.fold(head, |blob, region| blob.u64(region.bytes).string(&region.key)).finish()
    }

    /// Parses a peer's endpoint, strictly: no byte may be left over.
    pub(crate) fn decode(blob: &[u8], regions_max: usize) -> Result<Self, TransferError> {
        let refused = |reason| TransferError::Endpoint { bytes: blob.len(), reason };
        if blob.len() > ENDPOINT_BYTES_MAX {
            return Err(refused("it is longer than any endpoint"));
        }
        let mut reader = Reader::new(blob);
        if reader.raw(MAGIC.len()) != Some(&MAGIC) {
            return Err(refused("it does not begin like an endpoint"));
        }
        let truncated = || refused("it is cut short");
        let found = reader.u16().ok_or_else(truncated)?;
        if found != WIRE_VERSION {
            return Err(TransferError::Version { found, supported: WIRE_VERSION });
        }
        let kind = kind(reader.u8().ok_or_else(truncated)?).ok_or_else(|| refused("its transport is unknown"))?;
        let instance = InstanceId(reader.u128().ok_or_else(truncated)?);
        let token = reader.raw(TOKEN_BYTES).and_then(|bytes| bytes.try_into().ok()).map(Token).ok_or_else(truncated)?;
        let address = reader.string().ok_or_else(truncated)?.to_vec();
        let count = usize::from(reader.u16().ok_or_else(truncated)?);
        if count > regions_max {
            return Err(refused("it has more regions than are allowed"));
        }
        let mut regions = Vec::with_capacity(count);
        for _ in 0..count {
            let bytes = reader.u64().ok_or_else(truncated)?;
            let key = reader.string().ok_or_else(truncated)?.to_vec();
            regions.push(RemoteRegion { bytes, key });
        }
        if !reader.is_empty() {
            return Err(refused("bytes follow its end"));
        }
        Ok(Self { kind, instance, token, address, regions })
    }
}

/// Returns the instance that an endpoint names as its owner.
///
/// # Errors
/// The bytes are no valid endpoint.
pub fn instance_of(blob: &[u8]) -> Result<InstanceId, TransferError> {
    Endpoint::decode(blob, usize::MAX).map(|endpoint| endpoint.instance)
}

fn tag(kind: TransportKind) -> u8 {
    match kind {
        TransportKind::Ucx => 1,
        TransportKind::Tcp => 2,
        TransportKind::Shm => 3,
        TransportKind::InProcess => 4,
    }
}

fn kind(found: u8) -> Option<TransportKind> {
    TransportKind::ALL.into_iter().find(|kind| tag(*kind) == found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            kind: TransportKind::Tcp,
            instance: InstanceId(0x1234_5678_9abc_def0_1122_3344_5566_7788),
            token: Token([5; TOKEN_BYTES]),
            address: b"127.0.0.1:80".to_vec(),
            regions: vec![RemoteRegion { bytes: 1 << 40, key: vec![9; 23] }, RemoteRegion { bytes: 1, key: vec![] }],
        }
    }

    #[test]
    fn an_endpoint_survives_its_encoding() {
        assert_eq!(Endpoint::decode(&endpoint().encode(), 2), Ok(endpoint()));
    }

    #[test]
    fn damaged_endpoints_are_refused_with_the_reason() {
        let blob = endpoint().encode();
        for length in 0..blob.len() {
            assert!(Endpoint::decode(&blob[..length], 2).is_err(), "{length} of {} bytes", blob.len());
        }
        let mut longer = blob.clone();
        longer.push(0);
        let error = Endpoint::decode(&longer, 2).unwrap_err().to_string();
        assert_eq!(error, format!("read a peer's endpoint of {} bytes: bytes follow its end", longer.len()));
        let mut newer = blob.clone();
        newer[4] = 3;
        assert_eq!(Endpoint::decode(&newer, 2), Err(TransferError::Version { found: 3, supported: 2 }));
        assert!(Endpoint::decode(&blob, 1).unwrap_err().to_string().contains("more regions"));
        assert!(Endpoint::decode(&vec![0; 1 << 20], 1).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(blob in prop::collection::vec(any::<u8>(), 0..200), keep in 0_usize..60) {
            let _ = Endpoint::decode(&blob, 4);
            let mut near = endpoint().encode();
            near.truncate(keep);
            near.extend(&blob);
            let _ = Endpoint::decode(&near, 4);
        }
    }
}
