//! All measurements, and their common parts: a bound context, a stream and a way to time work in it.

mod bandwidth;
mod cublas_lt;
mod device;
mod ipc;
mod partitions;
pub(crate) mod peer;
mod read_rate;
mod sm_sweep;
mod tensor_rate;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use kernels::cuda::{Context, CudaError, Driver, Event, Stream};
use serde_json::Value;

use crate::bounded::Unended;
use crate::options::Options;
use crate::samples::Samples;

/// A measurement, with a process and a field of the document to itself. The field is named as on the command line, in
/// the order of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Measurement {
    Device,
    Bandwidth,
    MmaSync,
    Wgmma,
    CublasLt,
    Partitions,
    SmSweep,
    Ipc,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The device did something else than it was told, so its speed means nothing.
    #[error("wrong result: {0}")]
    Wrong(String),
    #[error("the peer process: {0}")]
    Peer(String),
    #[error("the peer process: {0}")]
    PeerUnended(#[from] Unended),
}

impl Failure {
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Failure::Cuda(error) if error.is_absence())
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

impl Measurement {
    /// All measurements but the device, which is always described.
    pub(crate) fn selectable() -> impl Iterator<Item = Measurement> {
        Measurement::value_variants().iter().copied().filter(|each| *each != Measurement::Device)
    }

    pub(crate) fn run(self, options: &Options) -> Result<Value, Failure> {
        let driver = Driver::open()?;
        let chosen = driver.device(options.device)?;
        if self == Measurement::Device {
            return device::measure(driver, chosen);
        }
        let bench = Bench::new(Context::primary(chosen)?, options.limit)?;
        match self {
            Measurement::Device => device::measure(driver, chosen),
            Measurement::Bandwidth => Ok(bandwidth::measure(&bench)),
            Measurement::MmaSync => tensor_rate::measure_mma(&bench),
            Measurement::Wgmma => tensor_rate::measure_wgmma(&bench),
            Measurement::CublasLt => cublas_lt::measure(&bench),
            Measurement::Partitions => partitions::measure(&bench),
            Measurement::SmSweep => sm_sweep::measure(&bench),
            Measurement::Ipc => ipc::measure(&bench, options),
        }
    }
}

pub(crate) struct Bench {
    pub(crate) context: Rc<Context>,
    /// A stream that may use all SMs.
    pub(crate) stream: Stream,
    pub(crate) limit: Duration,
}

impl Bench {
    pub(crate) fn new(context: Rc<Context>, limit: Duration) -> Result<Bench, CudaError> {
        Ok(Bench { stream: Stream::on_all_sms(&context)?, context, limit })
    }

    /// Seconds that the device takes for the work that `queue` puts into `stream`.
    pub(crate) fn seconds_in(
        &self,
        stream: &Stream,
        queue: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<f64, CudaError> {
        let began = Event::now(stream)?;
        queue()?;
        let ended = Event::now(stream)?;
        ended.wait("a measured piece of work", self.limit)?;
        ended.seconds_since(&began)
    }

    /// GB (1e9 bytes) per second of work that moves `bytes`: one round to warm up, then `rounds`.
    pub(crate) fn gb_per_s(
        &self,
        stream: &Stream,
        bytes: usize,
        rounds: usize,
        mut queue: impl FnMut() -> Result<(), CudaError>,
    ) -> Result<Samples, CudaError> {
        self.seconds_in(stream, &mut queue)?;
        let seconds = Samples::take(rounds, || self.seconds_in(stream, &mut queue))?;
        Ok(seconds.map(|seconds| bytes as f64 / seconds / 1e9))
    }

    /// Waits for all work in the bench's own stream.
    pub(crate) fn finish(&self) -> Result<(), CudaError> {
        self.stream.finish("queued work", self.limit)
    }

    /// Size of a buffer: at most `wanted` bytes and a quarter of the free memory, a whole number of MiB.
    pub(crate) fn buffer_bytes(&self, wanted: usize) -> Result<usize, CudaError> {
        let fits = (self.context.free_bytes()? / 4).min(wanted) >> 20 << 20;
        if fits < BUFFER_BYTES_MIN {
            let what = format!("only {} bytes of device memory are free", self.context.free_bytes()?);
            return Err(CudaError::Invalid { what });
        }
        Ok(fits)
    }
}

/// Least size of a buffer; smaller ones fit into a cache.
const BUFFER_BYTES_MIN: usize = 128 << 20;
