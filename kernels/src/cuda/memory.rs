//! Memory on a device, and host memory that a device can reach; knows nothing of its contents.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::rc::Rc;

use cudarc::driver::sys;

use super::call::cu;
use super::{Context, CudaError};

/// A range of addresses on a device, without ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRange {
    pub(super) address: sys::CUdeviceptr,
    pub(super) bytes: usize,
}

impl DeviceRange {
    /// First address, as kernels take it.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True if the length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The `bytes` bytes from offset `offset` on.
    pub fn part(&self, offset: usize, bytes: usize) -> Result<DeviceRange, CudaError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(DeviceRange { address: self.address + offset as u64, bytes }),
            _ => Err(CudaError::Invalid { what: format!("{bytes} bytes at {offset} of a range of {}", self.bytes) }),
        }
    }

    /// Copies into `to` from offset `offset` on. Blocks; work that writes the range must have finished before.
    pub(super) fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), CudaError> {
        let from = self.part(offset, to.len())?;
        // SAFETY: the addresses are inside the range, whose owner is borrowed by our caller; `to` is ours to write.
        unsafe { cu!(cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), from.address, from.bytes)) }
    }
}

/// An allocation on the device, by `cuMemAlloc`, so that other processes can open it. Its contents are unspecified at
/// first.
#[derive(Debug)]
pub struct DeviceBytes {
    range: DeviceRange,
    _context: Rc<Context>,
}

impl DeviceBytes {
    /// Allocates.
    pub fn new(context: &Rc<Context>, bytes: usize) -> Result<DeviceBytes, CudaError> {
        let mut address = 0;
        // SAFETY: writes one address; the context is current on this thread.
        unsafe { cu!(cuMemAlloc_v2(&mut address, bytes)) }?;
        Ok(DeviceBytes { range: DeviceRange { address, bytes }, _context: Rc::clone(context) })
    }

    /// Addresses of the allocation.
    #[must_use]
    pub fn range(&self) -> DeviceRange {
        self.range
    }

    /// Copies into `to` from offset `offset` on. Blocks; work that writes the bytes must have finished before.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<(), CudaError> {
        self.range.read(offset, to)
    }

    /// Copies the first 32-bit words, as [`DeviceBytes::read`].
    pub fn read_words(&self, count: usize) -> Result<Vec<u32>, CudaError> {
        let mut bytes = vec![0; count * 4];
        self.read(0, &mut bytes)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }
}

impl Drop for DeviceBytes {
    fn drop(&mut self) {
        // SAFETY: the allocation is this value's own. The driver waits for work that still uses it.
        let _refused = unsafe { cu!(cuMemFree_v2(self.range.address)) };
    }
}

/// Host memory that the device reads and writes at full rate.
#[derive(Debug)]
pub struct PinnedBytes {
    pub(super) start: *mut u8,
    pub(super) bytes: usize,
    _context: Rc<Context>,
}

impl PinnedBytes {
    /// Allocates zeroes.
    pub fn new(context: &Rc<Context>, bytes: usize) -> Result<PinnedBytes, CudaError> {
        let mut start: *mut c_void = null_mut();
        // SAFETY: writes one address; the context is current. No flag: plain cached memory (cudarc's own helper asks
        // for write-combined memory, which the host reads slowly).
        unsafe { cu!(cuMemHostAlloc(&mut start, bytes, 0)) }?;
        // SAFETY: the driver just gave us this many bytes, which nobody else knows.
        unsafe { start.cast::<u8>().write_bytes(0, bytes) };
        Ok(PinnedBytes { start: start.cast(), bytes, _context: Rc::clone(context) })
    }

    /// The bytes. No copy into them is under way: the caller of a copy has promised to wait for it first.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: initialised when allocated; nobody writes them meanwhile (`Stream::copy_out`).
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// The bytes, to write. No copy from or into them is under way, as above.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        // SAFETY: the allocation is this value's own, and no copy is under way (`Stream::copy_in`, `Stream::copy_out`).
        let _refused = unsafe { cu!(cuMemFreeHost(self.start.cast())) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_inside_their_range() {
        let range = DeviceRange { address: 1000, bytes: 100 };
        assert_eq!(range.part(40, 60), Ok(DeviceRange { address: 1040, bytes: 60 }));
        assert_eq!(range.part(41, 60).unwrap_err().to_string(), "60 bytes at 41 of a range of 100");
        assert!(range.part(usize::MAX, 2).is_err());
    }
}
