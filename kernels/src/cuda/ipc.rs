//! Device memory of another process of this host (CUDA IPC); knows nothing of how handles travel.

use std::ffi::{c_char, c_uint};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use cudarc::driver::sys;
use cudarc::driver::sys::CUipcMem_flags_enum as OpenFlag;

use super::call::cu;
use super::{Context, CudaError, DeviceBytes, DeviceRange};

const HANDLE_BYTES: usize = 64;

/// Handle with which another process opens an allocation; as text, 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IpcHandle([u8; HANDLE_BYTES]);

impl DeviceBytes {
    /// Makes a handle for another process. The allocation must stay until that process has closed it. Share at least 2
    /// MiB: smaller allocations share pages with others, which the process could read too.
    pub fn share(&self) -> Result<IpcHandle, CudaError> {
        let mut handle = sys::CUipcMemHandle { reserved: [0; HANDLE_BYTES] };
        // SAFETY: writes one handle; the address is the beginning of a `cuMemAlloc` allocation that lives.
        unsafe { cu!(cuIpcGetMemHandle(&mut handle, self.range().address)) }?;
        Ok(IpcHandle(handle.reserved.map(|byte| byte as u8)))
    }
}

impl fmt::Display for IpcHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IpcHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpcHandle({self})")
    }
}

impl FromStr for IpcHandle {
    type Err = CudaError;

    fn from_str(text: &str) -> Result<Self, CudaError> {
        let wrong = || CudaError::Invalid {
            what: format!("an IPC handle is {} hexadecimal digits, not {text:?}", 2 * HANDLE_BYTES),
        };
        let digits = text.as_bytes();
        if digits.len() != 2 * HANDLE_BYTES {
            return Err(wrong());
        }
        let mut bytes = [0; HANDLE_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let value = high.zip(low).map(|(high, low)| high * 16 + low).ok_or_else(wrong)?;
            *byte = u8::try_from(value).map_err(|_| wrong())?;
        }
        Ok(IpcHandle(bytes))
    }
}

/// Another process's allocation, mapped here.
#[derive(Debug)]
pub struct PeerBytes {
    range: DeviceRange,
    _context: Rc<Context>,
}

impl PeerBytes {
    /// Opens another process's allocation; the process that shared it cannot. The owner tells its length, `bytes`; the
    /// driver does not check it, and work beyond the end faults the device.
    pub fn open(context: &Rc<Context>, handle: IpcHandle, bytes: usize) -> Result<PeerBytes, CudaError> {
        let handle = sys::CUipcMemHandle { reserved: handle.0.map(|byte| byte as c_char) };
        let flags = OpenFlag::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as c_uint;
        let mut address = 0;
        // SAFETY: writes one address; the driver refuses a handle that names nothing; the flag is the required one.
        unsafe { cu!(cuIpcOpenMemHandle_v2(&mut address, handle, flags)) }?;
        Ok(PeerBytes { range: DeviceRange { address, bytes }, _context: Rc::clone(context) })
    }

    /// Addresses of the mapping. The owner may write or free the memory at any time unless it has promised not to.
    #[must_use]
    pub fn range(&self) -> DeviceRange {
        self.range
    }
}

impl Drop for PeerBytes {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own. The memory stays with its owner.
        let _refused = unsafe { cu!(cuIpcCloseMemHandle(self.range.address)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_survives_its_text() {
        let handle = IpcHandle(std::array::from_fn(|index| (index * 5) as u8));
        let text = handle.to_string();
        assert_eq!(text.len(), 128);
        assert_eq!(text.parse::<IpcHandle>(), Ok(handle));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        for text in ["", "00", &"0".repeat(127), &"g".repeat(128), &"é".repeat(64)] {
            assert!(text.parse::<IpcHandle>().is_err(), "{text}");
        }
    }
}
