//! Reading and multiplying rates of parts of the SMs, over the sizes of partitions.

use kernels::cuda::{ComputeCapability, Coscheduling, DeviceBytes, Partition, SmResource};
use serde_json::{Value, json};

use super::bandwidth::filled;
use super::read_rate::Reader;
use super::tensor_rate::Multiplier;
use super::{Bench, Failure};
use crate::ptx::TensorLoop;
use crate::value::{rounded, unavailable};

const MEMORY_BYTES: usize = 1 << 30;
const WORD: u32 = 3;
/// Samples of the multiplying rate: 0.15 s per size.
const SAMPLES: usize = 3;

pub(super) fn measure(bench: &Bench) -> Result<Value, Failure> {
    let device = bench.context.device();
    let capability = device.compute_capability()?;
    let tensor_loop = match (capability.major, capability.minor) {
        (9, 0) => TensorLoop::wgmma(),
        (8.., _) => TensorLoop::mma(),
        _ => return Ok(unavailable(too_old(capability))),
    };
    let all = SmResource::of(device)?;
    let entry = tensor_loop.entry;
    let sweep = Sweep {
        bench,
        memory: filled(bench, bench.buffer_bytes(MEMORY_BYTES)?, WORD)?,
        reader: Reader::new(bench)?,
        multiplier: Multiplier::new(bench, tensor_loop, all.count())?,
    };
    let mut rows = Vec::new();
    for sms in group_sizes(&all) {
        let row = sweep.row(&all, sms);
        rows.push(row.unwrap_or_else(|failure| json!({"sms": sms, "error": failure.to_string()})));
    }
    Ok(json!({
        "multiplied_by": entry,
        "read_by": "read_sum",
        "read_bytes": sweep.memory.range().len(),
        "rows": rows,
    }))
}

fn too_old(capability: ComputeCapability) -> String {
    format!("bf16 needs compute capability 8.0, this device is {capability}")
}

fn group_sizes(all: &SmResource) -> Vec<u32> {
    let mut sizes: Vec<u32> = (1..=all.count())
        .filter_map(|asked| all.split(asked, Coscheduling::Kept).ok())
        .map(|(group, _)| group.count())
        .collect();
    sizes.dedup();
    sizes
}

struct Sweep<'a> {
    bench: &'a Bench,
    memory: DeviceBytes,
    reader: Reader,
    multiplier: Multiplier,
}

impl Sweep<'_> {
    fn row(&self, all: &SmResource, sms: u32) -> Result<Value, Failure> {
        let (group, _) = all.split(sms, Coscheduling::Kept)?;
        let stream = Partition::new(&self.bench.context, group)?.stream()?;
        let read = self.reader.gb_per_s(self.bench, &stream, sms, &self.memory, WORD)?;
        let multiplied = self.multiplier.tflop_per_s(self.bench, &stream, sms, SAMPLES)?;
        Ok(json!({
            "sms": sms,
            "read_gb_per_s": rounded(read.median()),
            "tflop_per_s": rounded(multiplied.median()),
        }))
    }
}
