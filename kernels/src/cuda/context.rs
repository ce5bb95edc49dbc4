//! A device's primary context, current on one thread; everything on the device is made inside it.

use std::ptr::null_mut;
use std::rc::Rc;

use cudarc::driver::sys;

use super::call::cu;
use super::{CudaError, Device};

/// The primary context of a device, retained as long as anything made from it lives. All of a process's work on a
/// device shares it; green contexts ([`super::Partition`]) are parts of it.
///
/// It is current on the thread that made it, and neither it nor anything made from it can leave that thread. One thread
/// has one context at a time: making a second one unbinds the first.
#[derive(Debug)]
pub struct Context {
    device: Device,
    handle: sys::CUcontext,
}

impl Context {
    /// Retains the context, initialising it if this process has none yet (some hundred milliseconds), and makes it
    /// current on this thread.
    pub fn primary(device: Device) -> Result<Rc<Context>, CudaError> {
        let mut handle = null_mut();
        // SAFETY: writes one handle; the device comes from an initialised driver.
        unsafe { cu!(cuDevicePrimaryCtxRetain(&mut handle, device.handle)) }?;
        let context = Context { device, handle };
        // SAFETY: the handle was just retained and is released only when `context` is dropped.
        unsafe { cu!(cuCtxSetCurrent(context.handle)) }?;
        Ok(Rc::new(context))
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Bytes of device memory that nobody has allocated now.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers; the context is current on this thread.
        unsafe { cu!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok(free)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A destructor has nobody to tell: if the driver refuses, the process is about to lose the context anyway.
        // SAFETY: whatever was made from this context held it, so it is gone; the device's retain count goes back down.
        let _refused =
            unsafe { cu!(cuCtxSetCurrent(null_mut())).and(cu!(cuDevicePrimaryCtxRelease_v2(self.device.handle))) };
    }
}
