//! The UCX address in a worker's endpoint, by which peers connect; knows no library.

use crate::endpoint::{Endpoint, RemoteRegion};
use crate::host::Host;
use crate::probe::PROBE_BYTES;
use crate::wire::{Reader, Writer};

/// Packed keys and worker addresses are opaque and UCX trusts them; empty ones are refused here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: Host,
    pub(super) pid: u32,
    pub(super) worker: Vec<u8>,
    /// The page of known bytes.
    pub(super) page: Memory,
}

/// A memory: its base address in its process, and the packed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) base: u64,
    pub(super) key: Vec<u8>,
}

impl Memory {
    pub(super) fn encode(&self) -> Vec<u8> {
        Writer::new().u64(self.base).string(&self.key).finish()
    }

    /// Returns the memory if `bytes` bytes from its base lie inside the address space.
    fn of(self, bytes: u64) -> Option<Self> {
        self.base.checked_add(bytes).map(|_| self)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (base, key) = (reader.u64()?, reader.string()?.to_vec());
        (reader.is_empty() && !key.is_empty()).then_some(Self { base, key })
    }
}

impl Address {
    pub(super) fn encode(&self) -> Vec<u8> {
        let writer = Writer::new().string(self.host.boot.as_bytes()).u64(self.host.pid_namespace).u32(self.pid);
        writer.string(&self.worker).string(&self.page.encode()).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let boot = str::from_utf8(reader.string()?).ok()?.to_owned();
        let host = Host { boot, pid_namespace: reader.u64()? };
        let (pid, worker) = (reader.u32()?, reader.string()?.to_vec());
        let page = Memory::decode(reader.string()?)?.of(PROBE_BYTES as u64)?;
        (reader.is_empty() && !worker.is_empty()).then_some(Self { host, pid, worker, page })
    }
}

/// Returns the keys of an endpoint's regions; `None` if one is malformed or reaches beyond the end of the address space
/// (reads add offsets to its base).
pub(super) fn regions(endpoint: &Endpoint) -> Option<Vec<Memory>> {
    let region = |region: &RemoteRegion| Memory::decode(&region.key)?.of(region.bytes);
    endpoint.regions.iter().map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_address_space_is_refused() {
        let (kind, instance, token) = (crate::TransportKind::Ucx, sched::InstanceId(1), crate::token::Token([0; 16]));
        let of = |base, bytes| {
            let region = RemoteRegion { bytes, key: Memory { base, key: vec![1] }.encode() };
            regions(&Endpoint { kind, instance, token, address: Vec::new(), regions: vec![region] })
        };
        assert!(of(u64::MAX - 8, 8).is_some());
        assert_eq!(of(u64::MAX - 8, 9), None);
    }

    #[test]
    fn an_address_survives_its_encoding() {
        let address = Address {
            host: Host { boot: "boot".to_owned(), pid_namespace: 7 },
            pid: 8,
            worker: vec![1; 200],
            page: Memory { base: 1 << 46, key: vec![2; 9] },
        };
        let bytes = address.encode();
        assert_eq!(Address::decode(&bytes), Some(address));
        for length in 0..bytes.len() {
            assert_eq!(Address::decode(&bytes[..length]), None, "{length} of {} bytes", bytes.len());
        }
    }
}
