//! Parts of a device's SMs (green contexts), each with streams of its own; memory and kernels are common to all parts.

use std::ffi::c_uint;
use std::ptr::null_mut;
use std::rc::Rc;

use cudarc::driver::sys;
use cudarc::driver::sys::{
    CUdevResource_st as Resource, CUdevResource_st__bindgen_ty_1 as ResourceBody, CUdevResourceType as ResourceType,
    CUdevSmResourceSplit_flags as SplitFlag, CUgreenCtxCreate_flags as CreateFlag, CUstream_flags_enum as StreamFlag,
};

use super::call::cu;
use super::stream::Home;
use super::{Context, CudaError, Device, Stream};

/// A set of SMs, as the driver gives it.
#[derive(Clone, Copy)]
pub struct SmResource(Resource);

/// Treatment of SMs that can run one cluster of blocks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coscheduling {
    /// They stay in one group, which is as large and as aligned as clusters need.
    Kept,
    /// They may be separated: smaller steps, but kernels with large clusters may not start.
    Ignored,
}

impl SmResource {
    /// All SMs of a device.
    pub fn of(device: Device) -> Result<SmResource, CudaError> {
        let mut resource = empty();
        // SAFETY: writes one struct of the driver's fixed size (144 bytes in every version so far).
        unsafe { cu!(cuDeviceGetDevResource(device.handle, &mut resource, ResourceType::CU_DEV_RESOURCE_TYPE_SM)) }?;
        Ok(SmResource(resource))
    }

    /// Number of SMs.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.body().smCount
    }

    /// Smallest group of a split; unknown to drivers before CUDA 13.0.
    #[must_use]
    pub fn group_min(&self) -> Option<u32> {
        Some(self.body().minSmPartitionSize).filter(|count| *count > 0)
    }

    /// Step of the size of groups; unknown to drivers before CUDA 13.0.
    #[must_use]
    pub fn group_step(&self) -> Option<u32> {
        Some(self.body().smCoscheduledAlignment).filter(|count| *count > 0)
    }

    /// Splits off a group of at least `at_least` SMs, rounded up as the device needs it. The rest has no guarantee
    /// about clusters and must not be split again.
    pub fn split(&self, at_least: u32, coscheduling: Coscheduling) -> Result<(SmResource, SmResource), CudaError> {
        let flags = match coscheduling {
            Coscheduling::Kept => 0,
            Coscheduling::Ignored => SplitFlag::CU_DEV_SM_RESOURCE_SPLIT_IGNORE_SM_COSCHEDULING as c_uint,
        };
        let (mut group, mut rest, mut groups) = (empty(), empty(), 1);
        // SAFETY: room for one group and one rest, as `groups` says; the input is read only and lives.
        unsafe { cu!(cuDevSmResourceSplitByCount(&mut group, &mut groups, &self.0, &mut rest, flags, at_least)) }?;
        if groups == 0 {
            return Err(CudaError::Invalid { what: format!("no group of {at_least} SMs fits into {}", self.count()) });
        }
        Ok((SmResource(group), SmResource(rest)))
    }

    fn body(&self) -> sys::CUdevSmResource {
        // SAFETY: the union is plain integers, and all its bytes were initialised by `empty`.
        unsafe { self.0.__bindgen_anon_1.sm }
    }
}

impl std::fmt::Debug for SmResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmResource").field("count", &self.count()).finish_non_exhaustive()
    }
}

fn empty() -> Resource {
    Resource {
        type_: ResourceType::CU_DEV_RESOURCE_TYPE_INVALID,
        _internal_padding: [0; 92],
        __bindgen_anon_1: ResourceBody { _oversize: [0; 48] },
    }
}

/// A green context: kernels in its streams run on its SMs only. Work in streams of the whole device may run there too,
/// so partitions only protect each other if all work runs in partitions.
#[derive(Debug)]
pub struct Partition {
    handle: sys::CUgreenCtx,
    sms: u32,
    context: Rc<Context>,
}

impl Partition {
    /// Makes the partition. Needs a driver of CUDA 12.4 or later, and of 12.5 for streams.
    pub fn new(context: &Rc<Context>, mut resource: SmResource) -> Result<Rc<Partition>, CudaError> {
        let sms = resource.count();
        if sms == 0 {
            return Err(CudaError::Invalid { what: "a partition without SMs".to_owned() });
        }
        let mut description = null_mut();
        // SAFETY: reads one resource and writes one handle.
        unsafe { cu!(cuDevResourceGenerateDesc(&mut description, &mut resource.0, 1)) }?;
        let mut handle = null_mut();
        let (device, flags) = (context.device().handle, CreateFlag::CU_GREEN_CTX_DEFAULT_STREAM as c_uint);
        // SAFETY: writes one handle; the description was just made for this device, whose primary context is alive.
        unsafe { cu!(cuGreenCtxCreate(&mut handle, description, device, flags)) }?;
        Ok(Rc::new(Partition { handle, sms, context: Rc::clone(context) }))
    }

    /// Makes a stream whose kernels run on this partition's SMs.
    pub fn stream(self: &Rc<Self>) -> Result<Stream, CudaError> {
        let mut handle = null_mut();
        let flags = StreamFlag::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: writes one handle; the green context lives; the flag is the one that it requires; 0 is the default
        // priority.
        unsafe { cu!(cuGreenCtxStreamCreate(&mut handle, self.handle, flags, 0)) }?;
        Ok(Stream::adopt(handle, Home::Partition(Rc::clone(self))))
    }

    /// Number of SMs.
    #[must_use]
    pub fn sms(&self) -> u32 {
        self.sms
    }

    pub(super) fn context(&self) -> &Rc<Context> {
        &self.context
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // SAFETY: the handle is this partition's own; streams of it held it, so none is left. Only this call may end a
        // green context (`cuCtxDestroy` on one is undefined).
        let _refused = unsafe { cu!(cuGreenCtxDestroy(self.handle)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_struct_has_the_size_that_all_versions_agree_on() {
        assert_eq!(size_of::<Resource>(), 144);
    }

    #[test]
    fn an_old_driver_leaves_the_granularity_unsaid() {
        let resource = SmResource(empty());
        assert_eq!((resource.count(), resource.group_min(), resource.group_step()), (0, None, None));
    }
}
