//! Rates of copies between host and device, inside the device, and of reads by its SMs.

use kernels::cuda::{CudaError, DeviceBytes, DeviceRange, PinnedBytes};
use serde_json::{Value, json};

use super::read_rate::Reader;
use super::{Bench, Failure};
use crate::samples::Samples;
use crate::value::or_error;

const HOST_BYTES: usize = 256 << 20;
const DEVICE_BYTES: usize = 2 << 30;
const ROUNDS: usize = 20;
/// Written to device memory before a copy, so that a copy that does nothing is noticed.
const WORD: u32 = 0x0BA7_0BA7;

pub(super) fn measure(bench: &Bench) -> Value {
    json!({
        "host_memory": "pinned",
        "host_and_device": or_error(host_and_device(bench)),
        "device_to_device": or_error(device_to_device(bench)),
        "device_read": or_error(device_read(bench)),
    })
}

fn host_and_device(bench: &Bench) -> Result<Value, Failure> {
    let mut host = PinnedBytes::new(&bench.context, HOST_BYTES)?;
    let device = DeviceBytes::new(&bench.context, HOST_BYTES)?;
    let pattern = |index: usize| (index as u8).wrapping_mul(31) ^ (index >> 12) as u8;
    host.as_mut_slice().iter_mut().enumerate().for_each(|(index, byte)| *byte = pattern(index));
    let to_device = bench.gb_per_s(&bench.stream, HOST_BYTES, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy, and nothing else uses the two buffers meanwhile.
        unsafe { bench.stream.copy_in(device.range(), &host) }
    })?;
    host.as_mut_slice().fill(0);
    let to_host = bench.gb_per_s(&bench.stream, HOST_BYTES, ROUNDS, || {
        // SAFETY: as above.
        unsafe { bench.stream.copy_out(&host, device.range()) }
    })?;
    if let Some(index) = host.as_slice().iter().enumerate().position(|(index, byte)| *byte != pattern(index)) {
        return Err(Failure::Wrong(format!("byte {index} came back from the device as another one")));
    }
    Ok(json!({
        "bytes": HOST_BYTES,
        "host_to_device_gb_per_s": to_device.to_json(),
        "device_to_host_gb_per_s": to_host.to_json(),
    }))
}

fn device_to_device(bench: &Bench) -> Result<Value, Failure> {
    let bytes = bench.buffer_bytes(DEVICE_BYTES)?;
    let from = filled(bench, bytes, WORD)?;
    let to = filled(bench, bytes, 0)?;
    let copied = bench.gb_per_s(&bench.stream, bytes, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy, and nothing else uses the two buffers meanwhile.
        unsafe { bench.stream.copy_within(to.range(), from.range()) }
    })?;
    expect_words(&to, &[0, bytes / 2, bytes - 4], WORD)?;
    Ok(json!({
        "bytes": bytes,
        "copied_gb_per_s": copied.to_json(),
        "read_and_written_gb_per_s": copied.map(|rate| 2.0 * rate).to_json(),
    }))
}

fn device_read(bench: &Bench) -> Result<Value, Failure> {
    let bytes = bench.buffer_bytes(DEVICE_BYTES)?;
    let memory = filled(bench, bytes, WORD)?;
    let reader = Reader::new(bench)?;
    let rate: Samples = reader.gb_per_s(bench, &bench.stream, bench.context.device().sm_count()?, &memory, WORD)?;
    Ok(json!({"bytes": bytes, "source": "own kernel, 16-byte loads", "read_gb_per_s": rate.to_json()}))
}

pub(super) fn filled(bench: &Bench, bytes: usize, word: u32) -> Result<DeviceBytes, CudaError> {
    let memory = DeviceBytes::new(&bench.context, bytes)?;
    // SAFETY: nobody else knows the allocation, and the stream is waited for.
    unsafe { bench.stream.fill(memory.range(), word) }?;
    bench.finish()?;
    Ok(memory)
}

/// Fails unless the words at `offsets` (in bytes) are `word`. Work that writes the memory must have finished.
pub(super) fn expect_words(memory: &DeviceBytes, offsets: &[usize], word: u32) -> Result<(), Failure> {
    for offset in offsets {
        let mut found = [0; 4];
        memory.read(*offset, &mut found)?;
        let found = u32::from_le_bytes(found);
        if found != word {
            let range: DeviceRange = memory.range();
            let message = format!("word at byte {offset} of {} is {found:#x}, not {word:#x}", range.len());
            return Err(Failure::Wrong(message));
        }
    }
    Ok(())
}
