//! Properties of the driver and of the device; runs nothing on it.

use kernels::cuda::{CudaVersion, Device, DeviceAttribute as Attribute, Driver};
use serde_json::{Value, json};

use super::Failure;
use crate::value::or_error;

pub(super) fn measure(driver: Driver, device: Device) -> Result<Value, Failure> {
    // Older drivers lack some attributes; the rest of the description is still valid.
    let count = |attribute| or_error(device.attribute(attribute));
    let flag = |attribute| or_error(device.attribute(attribute).map(|value| value != 0));
    let mhz = |attribute| or_error(device.attribute(attribute).map(|khz| f64::from(khz) / 1e3));
    Ok(json!({
        "name": device.name()?,
        "uuid": or_error(device.uuid()),
        "pci_bus_id": or_error(device.pci_bus_id()),
        "ordinal": device.ordinal(),
        "devices_visible": driver.device_count(),
        "driver_version": driver_version(),
        "driver_cuda_version": driver.cuda_version().to_string(),
        "built_for_cuda_version": CudaVersion::OF_BINDINGS.to_string(),
        "compute_capability": device.compute_capability()?.to_string(),
        "sm_count": device.sm_count()?,
        "memory_bytes": device.memory_bytes()?,
        "sm_clock_max_mhz": mhz(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        "memory_clock_max_mhz": mhz(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        "memory_bus_bits": count(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
        "l2_bytes": count(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        "shared_memory_per_block_max_bytes": count(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        "copy_engines": count(Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT),
        "ecc": flag(Attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED),
        "compute_mode": or_error(device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE).map(compute_mode)),
        "virtual_memory_management": flag(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED),
        "gpu_direct_rdma": flag(Attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED),
        "dma_buf": flag(Attribute::CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED),
        "multicast": flag(Attribute::CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED),
        "ipc_events": flag(Attribute::CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED),
    }))
}

/// Name of a `CUcomputemode`: an exclusive device refuses the second process of the ipc measurement.
fn compute_mode(mode: u32) -> String {
    match mode {
        0 => "default".to_owned(),
        2 => "prohibited".to_owned(),
        3 => "exclusive process".to_owned(),
        other => format!("unknown ({other})"),
    }
}

/// Version of the kernel module, which libcuda does not tell; `None` if the system hides it.
fn driver_version() -> Option<String> {
    let module = std::fs::read_to_string("/sys/module/nvidia/version").ok();
    module
        .map(|text| text.trim().to_owned())
        .or_else(|| version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?))
}

fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let mut parts = word.split('.');
        parts.clone().count() >= 2 && parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_module_says_its_version() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@host)\n\
                    GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)";
        assert_eq!(version_in(open).as_deref(), Some("580.95.05"));
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023";
        assert_eq!(version_in(closed).as_deref(), Some("535.129.03"));
        assert_eq!(version_in("no such thing. 12 a.b"), None);
    }
}
