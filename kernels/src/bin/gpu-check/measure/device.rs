//! What the driver says of itself and of the device; runs nothing on it.

use kernels::cuda::{CudaError, CudaVersion, Device, DeviceAttribute as Attribute, Driver};

use super::{Failure, Measured};
use crate::json::Json;

pub(super) fn measure(driver: Driver, device: Device) -> Result<Measured, Failure> {
    let count = |attribute| device.attribute(attribute).map(|value| Json::Count(value.into()));
    let flag = |attribute| device.attribute(attribute).map(|value| Json::Flag(value != 0));
    let mhz = |attribute| device.attribute(attribute).map(|khz| Json::Number(f64::from(khz) / 1e3));
    Ok(Json::Object(vec![
        ("name", Json::text(device.name()?)),
        ("uuid", or_error(device.uuid().map(Json::Text))),
        ("pci_bus_id", or_error(device.pci_bus_id().map(Json::Text))),
        ("ordinal", Json::Count(device.ordinal().into())),
        ("devices_visible", Json::Count(driver.device_count().into())),
        ("driver_version", driver_version().map_or(Json::Null, Json::Text)),
        ("driver_cuda_version", Json::text(driver.cuda_version().to_string())),
        ("built_for_cuda_version", Json::text(CudaVersion::OF_BINDINGS.to_string())),
        ("compute_capability", Json::text(device.compute_capability()?.to_string())),
        ("sm_count", Json::Count(device.sm_count()?.into())),
        ("memory_bytes", Json::Count(device.memory_bytes()? as u64)),
        ("sm_clock_max_mhz", or_error(mhz(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE))),
        ("memory_clock_max_mhz", or_error(mhz(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE))),
        ("memory_bus_bits", or_error(count(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH))),
        ("l2_bytes", or_error(count(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE))),
        (
            "shared_memory_per_block_max_bytes",
            or_error(count(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)),
        ),
        ("copy_engines", or_error(count(Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT))),
        ("ecc", or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED))),
        ("compute_mode", or_error(device.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE).map(compute_mode))),
        (
            "virtual_memory_management",
            or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED)),
        ),
        ("gpu_direct_rdma", or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED))),
        ("dma_buf", or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED))),
        ("multicast", or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED))),
        ("ipc_events", or_error(flag(Attribute::CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED))),
    ]))
}

/// Older drivers do not know every attribute; the rest of the description stands without it.
fn or_error(value: Result<Json, CudaError>) -> Json {
    value.unwrap_or_else(|error| Json::error(error.to_string()))
}

/// `CUcomputemode`: an exclusive device refuses the second process of the ipc measurement.
fn compute_mode(mode: u32) -> Json {
    match mode {
        0 => Json::text("default"),
        2 => Json::text("prohibited"),
        3 => Json::text("exclusive process"),
        other => Json::text(format!("unknown ({other})")),
    }
}

/// The version of the kernel module, which libcuda does not tell. `None` where the system hides it.
fn driver_version() -> Option<String> {
    let module = std::fs::read_to_string("/sys/module/nvidia/version").ok();
    module
        .map(|text| text.trim().to_owned())
        .or_else(|| version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?))
}

/// The first word of the form 580.95.05 in what the kernel module says of itself.
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
