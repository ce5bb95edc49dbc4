//! A page of known bytes that every transport serves beside the pool: reading it at connect proves path and
//! incarnation, measures the rate, and reveals nothing of any request.

use std::sync::Arc;
use std::time::Instant;

use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;

use crate::{Probe, TransferError};

pub(crate) const PROBE_BYTES: usize = 1 << 20;
/// Measured reads, after one that warms up both sides.
pub(crate) const PROBE_READS: u32 = 4;

/// Length of the magic and the instance at the start of the page.
pub(crate) const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 16] = *b"kv-transfer page";

/// Returns the page of an instance: its id, then a pattern made from it.
pub(crate) fn page(instance: InstanceId, backing: Backing) -> Result<Arc<HostMemory>, TransferError> {
    let memory = HostMemory::new(PROBE_BYTES, backing)?;
    let bytes = expected(instance);
    // SAFETY: the mapping is `PROBE_BYTES` long, as `bytes` is, and only this function has it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_ptr(), PROBE_BYTES) };
    Ok(Arc::new(memory))
}

/// Destination of the reads at connect, and the instance whose page they must bring.
pub(crate) struct Scratch {
    memory: Arc<HostMemory>,
    instance: InstanceId,
    begun: Option<Instant>,
}

impl Scratch {
    pub(crate) fn new(peer: InstanceId) -> Result<Self, TransferError> {
        let memory = Arc::new(HostMemory::new(PROBE_BYTES, Backing::Anonymous)?);
        Ok(Self { memory, instance: peer, begun: None })
    }

    pub(crate) fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Ends the warm-up read: checks the instance of the peer and starts the measurement.
    pub(crate) fn warm(&mut self) -> Result<(), TransferError> {
        self.verify()?;
        // SAFETY: the scratch is `PROBE_BYTES` long and no read into it is in flight here.
        unsafe { std::ptr::write_bytes(self.memory.as_ptr(), 0, PROBE_BYTES) };
        self.begun = Some(Instant::now());
        Ok(())
    }

    /// Ends the measured reads: checks the bytes and returns the rate.
    pub(crate) fn measured(&self) -> Result<Probe, TransferError> {
        let elapsed = self.begun.map(|begun| begun.elapsed()).unwrap_or_default();
        self.verify()?;
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Ok(Probe { bytes: u64::from(PROBE_READS) * PROBE_BYTES as u64, elapsed_ns })
    }

    fn verify(&self) -> Result<(), TransferError> {
        // SAFETY: the scratch is `PROBE_BYTES` long, initialised by the kernel, and no read into it is in flight here.
        let found = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), PROBE_BYTES) };
        let expected = expected(self.instance);
        if found[..HEADER_BYTES] != expected[..HEADER_BYTES] {
            return Err(TransferError::WrongInstance { expected: self.instance });
        }
        if found == expected { Ok(()) } else { Err(TransferError::ProbeMismatch) }
    }
}

pub(crate) fn header(instance: InstanceId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&instance.0.to_le_bytes());
    header
}

/// Returns the bytes of an instance's page: header, then words of a Weyl sequence seeded with the instance.
fn expected(instance: InstanceId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PROBE_BYTES);
    bytes.extend_from_slice(&header(instance));
    let mut word = instance.0 as u64 ^ (instance.0 >> 64) as u64;
    while bytes.len() < PROBE_BYTES {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_proves_whose_it_is() {
        let page = page(InstanceId(5), Backing::Anonymous).unwrap();
        let read = |scratch: &Scratch, bytes| {
            // SAFETY: both mappings are `PROBE_BYTES` long and only this test uses them.
            unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), scratch.memory().as_ptr(), bytes) };
        };
        let mut right = Scratch::new(InstanceId(5)).unwrap();
        read(&right, PROBE_BYTES);
        right.warm().unwrap();
        assert!(right.measured().is_err(), "the scratch is cleared before what is measured");
        read(&right, PROBE_BYTES - 1);
        assert_eq!(right.measured(), Err(TransferError::ProbeMismatch));
        read(&right, PROBE_BYTES);
        assert!(right.measured().unwrap().bytes_per_second() > 0.0);
        let mut wrong = Scratch::new(InstanceId(6)).unwrap();
        read(&wrong, PROBE_BYTES);
        assert_eq!(wrong.warm(), Err(TransferError::WrongInstance { expected: InstanceId(6) }));
    }
}
