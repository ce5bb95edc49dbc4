//! A device's primary context, current on one thread; every object on the device is made in it.

use std::ptr::null_mut;
use std::rc::Rc;

use cudarc::driver::sys;

use super::call::cu;
use super::{CudaError, Device};

/// Primary context of a device, retained as long as any object made from it lives. All work of a process on a device
/// shares it; green contexts ([`super::Partition`]) are parts of it.
///
/// The context is current on the thread that made it; neither it nor any object made from it can leave that thread. A
/// thread has one context at a time: making a second one unbinds the first.
#[derive(Debug)]
pub struct Context {
    device: Device,
    handle: sys::CUcontext,
}

impl Context {
    /// Retains the context and makes it current on this thread; initialising the first one takes some hundred
    /// milliseconds.
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

    /// Bytes of free device memory.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers; the context is current on this thread.
        unsafe { cu!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok(free)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A destructor cannot report an error: if the driver refuses, the process is about to lose the context anyway.
        // SAFETY: all objects made from this context held it, so they are gone; the device's retain count goes back
        // down.
        let _refused =
            unsafe { cu!(cuCtxSetCurrent(null_mut())).and(cu!(cuDevicePrimaryCtxRelease_v2(self.device.handle))) };
    }
}
