//! The driver and its devices: presence and properties; makes nothing on a device.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;

use cudarc::driver::sys;
/// A numeric property of a device.
pub use cudarc::driver::sys::CUdevice_attribute as DeviceAttribute;

use super::CudaError;
use super::call::{cu, driver_is_present};

/// An initialised driver with at least one device.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    version: CudaVersion,
    device_count: u32,
}

impl Driver {
    /// Looks for the driver and its devices. [`CudaError::NoDriver`] and [`CudaError::NoDevice`] mean that there is no
    /// GPU; any other error means that a GPU does not work.
    pub fn open() -> Result<Driver, CudaError> {
        if !driver_is_present() {
            return Err(CudaError::NoDriver);
        }
        // SAFETY: takes no pointer; 0 is the only flag word there is.
        unsafe { cu!(cuInit(0)) }?;
        let mut version: c_int = 0;
        // SAFETY: writes one integer, which lives until the call returns.
        unsafe { cu!(cuDriverGetVersion(&mut version)) }?;
        let mut count: c_int = 0;
        // SAFETY: as above.
        unsafe { cu!(cuDeviceGetCount(&mut count)) }?;
        let device_count = u32::try_from(count).unwrap_or(0);
        if device_count == 0 {
            return Err(CudaError::NoDevice);
        }
        Ok(Driver { version: CudaVersion::from_number(version), device_count })
    }

    /// Latest CUDA version that the driver supports.
    #[must_use]
    pub fn cuda_version(&self) -> CudaVersion {
        self.version
    }

    /// Number of devices that this process may use.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.device_count
    }

    /// Device number `ordinal`, from 0.
    pub fn device(&self, ordinal: u32) -> Result<Device, CudaError> {
        let unknown = CudaError::NoSuchDevice { ordinal, count: self.device_count };
        let number = c_int::try_from(ordinal).map_err(|_| unknown.clone())?;
        if ordinal >= self.device_count {
            return Err(unknown);
        }
        let mut handle = 0;
        // SAFETY: writes one handle, which lives until the call returns.
        unsafe { cu!(cuDeviceGet(&mut handle, number)) }?;
        Ok(Device { handle, ordinal })
    }
}

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion {
    /// Before the dot.
    pub major: u32,
    /// After the dot.
    pub minor: u32,
}

impl CudaVersion {
    /// Version of the functions and structs in this build.
    pub const OF_BINDINGS: CudaVersion = CudaVersion { major: 13, minor: 0 };

    /// Reads a version as CUDA writes it: 12.4 is 12040.
    fn from_number(number: c_int) -> CudaVersion {
        let number = u32::try_from(number).unwrap_or(0);
        CudaVersion { major: number / 1000, minor: number % 1000 / 10 }
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Version of a device's instructions: 9.0 is Hopper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeCapability {
    /// Architecture.
    pub major: u32,
    /// Variant of the architecture.
    pub minor: u32,
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One device of an initialised driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub(super) handle: sys::CUdevice,
    ordinal: u32,
}

impl Device {
    /// Index among the devices that this process may use.
    #[must_use]
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Name of the product.
    pub fn name(&self) -> Result<String, CudaError> {
        let mut text: [c_char; 256] = [0; 256];
        // SAFETY: writes at most 256 bytes, NUL included, into an array of 256.
        unsafe { cu!(cuDeviceGetName(text.as_mut_ptr(), 256, self.handle)) }?;
        Ok(until_nul(&text))
    }

    /// `domain:bus:device.function`, as `lspci -D` writes it.
    pub fn pci_bus_id(&self) -> Result<String, CudaError> {
        let mut text: [c_char; 32] = [0; 32];
        // SAFETY: writes at most 32 bytes, NUL included, into an array of 32.
        unsafe { cu!(cuDeviceGetPCIBusId(text.as_mut_ptr(), 32, self.handle)) }?;
        Ok(until_nul(&text))
    }

    /// Identity of the device: 16 bytes, as `nvidia-smi -L` writes them.
    pub fn uuid(&self) -> Result<String, CudaError> {
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: writes one struct of 16 bytes.
        unsafe { cu!(cuDeviceGetUuid_v2(&mut uuid, self.handle)) }?;
        let hex: Vec<String> = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
        let group = |range: std::ops::Range<usize>| hex[range].concat();
        Ok(format!("GPU-{}-{}-{}-{}-{}", group(0..4), group(4..6), group(6..8), group(8..10), group(10..16)))
    }

    /// Bytes of device memory.
    pub fn memory_bytes(&self) -> Result<usize, CudaError> {
        let mut bytes = 0;
        // SAFETY: writes one number.
        unsafe { cu!(cuDeviceTotalMem_v2(&mut bytes, self.handle)) }?;
        Ok(bytes)
    }

    /// Value of a numeric property, in the property's unit.
    pub fn attribute(&self, attribute: DeviceAttribute) -> Result<u32, CudaError> {
        let mut value: c_int = 0;
        // SAFETY: writes one number.
        unsafe { cu!(cuDeviceGetAttribute(&mut value, attribute, self.handle)) }?;
        u32::try_from(value).map_err(|_| CudaError::Invalid { what: format!("{attribute:?} of the device is {value}") })
    }

    /// Streaming multiprocessors.
    pub fn sm_count(&self) -> Result<u32, CudaError> {
        self.attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Version of the instructions.
    pub fn compute_capability(&self) -> Result<ComputeCapability, CudaError> {
        Ok(ComputeCapability {
            major: self.attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: self.attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        })
    }
}

fn until_nul(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|character| *character as u8).collect();
    match CStr::from_bytes_until_nul(&bytes) {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_numbers_are_versions() {
        assert_eq!(CudaVersion::from_number(12040).to_string(), "12.4");
        assert_eq!(CudaVersion::from_number(13000), CudaVersion::OF_BINDINGS);
        assert!(CudaVersion::from_number(12090) < CudaVersion::OF_BINDINGS);
    }

    #[test]
    fn a_name_ends_at_its_nul_or_at_the_end_of_the_field() {
        let field: Vec<c_char> = b"H100\0rest".iter().map(|byte| *byte as c_char).collect();
        assert_eq!(until_nul(&field), "H100");
        assert_eq!(until_nul(&field[..4]), "H100");
    }
}
