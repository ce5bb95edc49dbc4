//! Queues of work on a device, and events in them that can be waited for and timed.

use std::ffi::c_uint;
use std::ptr::null_mut;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cudarc::driver::sys;
use cudarc::driver::sys::{CUevent_flags_enum as EventFlag, CUresult, CUstream_flags_enum as StreamFlag};

use super::call::{cu, driver_has, outcome};
use super::{Context, CudaError, DeviceRange, Partition, PinnedBytes};

/// Time between two queries of the device.
const LOOK: Duration = Duration::from_micros(20);

/// A queue of work. Work in one queue runs in order, different queues run side by side; none waits for the legacy
/// default stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) handle: sys::CUstream,
    /// Dropped after the stream: a stream must not outlive the (green) context it belongs to.
    home: Home,
}

#[derive(Debug)]
pub(super) enum Home {
    Context(Rc<Context>),
    Partition(Rc<Partition>),
}

impl Home {
    fn context(&self) -> &Rc<Context> {
        match self {
            Home::Context(context) => context,
            Home::Partition(partition) => partition.context(),
        }
    }
}

impl Stream {
    /// Makes a queue that may use all SMs, those of partitions included.
    pub fn on_all_sms(context: &Rc<Context>) -> Result<Stream, CudaError> {
        let mut handle = null_mut();
        // SAFETY: writes one handle; the context is current on this thread.
        unsafe { cu!(cuStreamCreate(&mut handle, StreamFlag::CU_STREAM_NON_BLOCKING as c_uint)) }?;
        Ok(Stream { handle, home: Home::Context(Rc::clone(context)) })
    }

    pub(super) fn adopt(handle: sys::CUstream, home: Home) -> Stream {
        Stream { handle, home }
    }

    /// Waits until all work queued so far has ended.
    pub fn finish(&self, what: &'static str, limit: Duration) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as `self`.
        poll(what, limit, || unsafe { cu!(cuStreamQuery(self.handle)) })
    }

    /// Lets work that is queued from now on wait for `event`.
    pub fn wait_for(&self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: both live; 0 is the default kind of wait.
        unsafe { cu!(cuStreamWaitEvent(self.handle, event.handle, 0)) }
    }

    /// Queues a copy from the host.
    ///
    /// # Safety
    /// Until the stream has finished, `from` is neither written nor dropped, `to` neither used nor freed.
    pub unsafe fn copy_in(&self, to: DeviceRange, from: &PinnedBytes) -> Result<(), CudaError> {
        let bytes = same_length(to.bytes, from.bytes)?;
        // SAFETY: both ranges have this length and stay, as the caller promises.
        unsafe { cu!(cuMemcpyHtoDAsync_v2(to.address, from.start.cast(), bytes, self.handle)) }
    }

    /// Queues a copy to the host.
    ///
    /// # Safety
    /// Until the stream has finished, `to` is neither used nor dropped, `from` neither written nor freed.
    pub unsafe fn copy_out(&self, to: &PinnedBytes, from: DeviceRange) -> Result<(), CudaError> {
        let bytes = same_length(to.bytes, from.bytes)?;
        // SAFETY: both ranges have this length and stay, as the caller promises.
        unsafe { cu!(cuMemcpyDtoHAsync_v2(to.start.cast(), from.address, bytes, self.handle)) }
    }

    /// Queues a copy between two ranges of device memory, a peer's included.
    ///
    /// # Safety
    /// Until the stream has finished, `to` is neither used nor freed, `from` neither written nor freed.
    pub unsafe fn copy_within(&self, to: DeviceRange, from: DeviceRange) -> Result<(), CudaError> {
        let bytes = same_length(to.bytes, from.bytes)?;
        // SAFETY: both ranges have this length and stay, as the caller promises.
        unsafe { cu!(cuMemcpyDtoDAsync_v2(to.address, from.address, bytes, self.handle)) }
    }

    /// Queues the filling of a range with one word. Its bytes must be a multiple of 4.
    ///
    /// # Safety
    /// Until the stream has finished, `to` is neither used nor freed.
    pub unsafe fn fill(&self, to: DeviceRange, word: u32) -> Result<(), CudaError> {
        if !to.bytes.is_multiple_of(4) {
            return Err(CudaError::Invalid { what: format!("fill of {} bytes with words of 4", to.bytes) });
        }
        // SAFETY: the range holds this many words and stays, as the caller promises.
        unsafe { cu!(cuMemsetD32Async(to.address, word, to.bytes / 4, self.handle)) }
    }

    fn context(&self) -> &Rc<Context> {
        self.home.context()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the handle is this stream's own; queued work still runs to its end.
        let _refused = unsafe { cu!(cuStreamDestroy_v2(self.handle)) };
    }
}

fn same_length(to: usize, from: usize) -> Result<usize, CudaError> {
    if to == from { Ok(to) } else { Err(CudaError::Invalid { what: format!("copy of {from} bytes into {to}") }) }
}

/// A mark in a stream. Before it is recorded it counts as reached.
#[derive(Debug)]
pub struct Event {
    handle: sys::CUevent,
    _context: Rc<Context>,
}

impl Event {
    /// Makes a mark with a time (to about half a microsecond).
    pub fn timed(context: &Rc<Context>) -> Result<Event, CudaError> {
        Self::with(context, EventFlag::CU_EVENT_DEFAULT)
    }

    /// Makes a cheaper mark, for ordering only.
    pub fn untimed(context: &Rc<Context>) -> Result<Event, CudaError> {
        Self::with(context, EventFlag::CU_EVENT_DISABLE_TIMING)
    }

    /// Makes a timed mark and records it.
    pub fn now(stream: &Stream) -> Result<Event, CudaError> {
        let event = Self::timed(stream.context())?;
        event.record(stream)?;
        Ok(event)
    }

    fn with(context: &Rc<Context>, flag: EventFlag) -> Result<Event, CudaError> {
        let mut handle = null_mut();
        // SAFETY: writes one handle; the context is current on this thread.
        unsafe { cu!(cuEventCreate(&mut handle, flag as c_uint)) }?;
        Ok(Event { handle, _context: Rc::clone(context) })
    }

    /// Marks the work queued in `stream` so far; replaces an earlier mark.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both live.
        unsafe { cu!(cuEventRecord(self.handle, stream.handle)) }
    }

    /// Waits until the marked work has ended.
    pub fn wait(&self, what: &'static str, limit: Duration) -> Result<(), CudaError> {
        // SAFETY: the event lives as long as `self`.
        poll(what, limit, || unsafe { cu!(cuEventQuery(self.handle)) })
    }

    /// Seconds of the device's clock from `earlier` to this mark, both of which must have been reached.
    pub fn seconds_since(&self, earlier: &Event) -> Result<f64, CudaError> {
        let mut milliseconds = 0.0;
        elapsed(&mut milliseconds, earlier.handle, self.handle)?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the handle is this event's own; a pending mark is released when it is reached.
        let _refused = unsafe { cu!(cuEventDestroy_v2(self.handle)) };
    }
}

/// Calls the second version of the function, which drivers have from 12.8 on, or the first one, which every driver has
/// but the bindings of CUDA 13 lack; arguments and meaning are the same.
fn elapsed(milliseconds: &mut f32, from: sys::CUevent, to: sys::CUevent) -> Result<(), CudaError> {
    type First = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    const FIRST: &str = "cuEventElapsedTime";
    if driver_has("cuEventElapsedTime_v2") || !driver_has(FIRST) {
        // SAFETY: writes one number; both events live.
        return unsafe { cu!(cuEventElapsedTime_v2(milliseconds, from, to)) };
    }
    // SAFETY: the symbol exists and has this type in every cuda.h (CUDA driver API, "Event management"); it writes one
    // number; both events live.
    let result = unsafe {
        match sys::culib().get::<First>(FIRST.as_bytes()) {
            Ok(first) => first(milliseconds, from, to),
            Err(_) => CUresult::CUDA_ERROR_NOT_FOUND,
        }
    };
    outcome(FIRST, result)
}

/// Queries until the answer is no longer "not ready", at most for `limit`.
fn poll(
    what: &'static str,
    limit: Duration,
    mut query: impl FnMut() -> Result<(), CudaError>,
) -> Result<(), CudaError> {
    let began = Instant::now();
    loop {
        match query() {
            Err(CudaError::Call { code, .. }) if code == CUresult::CUDA_ERROR_NOT_READY as u32 => {}
            ended => return ended,
        }
        if began.elapsed() >= limit {
            return Err(CudaError::TimedOut { what, limit });
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: CUresult) -> CudaError {
        CudaError::Call { function: "f", code: code as u32, name: String::new(), message: String::new() }
    }

    #[test]
    fn a_wait_ends_with_the_answer_or_at_its_limit() {
        let mut left = 3;
        let ends = || {
            left -= 1;
            if left == 0 { Ok(()) } else { Err(refusal(CUresult::CUDA_ERROR_NOT_READY)) }
        };
        assert_eq!(poll("a test", Duration::from_secs(60), ends), Ok(()));

        let lost = refusal(CUresult::CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(poll("a test", Duration::from_secs(60), || Err(lost.clone())), Err(lost.clone()));

        let limit = Duration::from_millis(1);
        let never = poll("a test", limit, || Err(refusal(CUresult::CUDA_ERROR_NOT_READY)));
        assert_eq!(never, Err(CudaError::TimedOut { what: "a test", limit }));
    }

    #[test]
    fn copies_of_unequal_length_are_refused() {
        assert_eq!(same_length(7, 7), Ok(7));
        assert_eq!(same_length(7, 8).unwrap_err().to_string(), "copy of 8 bytes into 7");
    }
}
