//! What is measured, and what all measurements share: a bound context, a stream and a way to time work in it.

mod bandwidth;
mod cublas_lt;
mod device;
mod ipc;
mod partitions;
pub(crate) mod peer;
mod read_rate;
mod sm_sweep;
mod tensor_rate;

use std::rc::Rc;
use std::time::Duration;

use kernels::cuda::{Context, CudaError, Driver, Event, Stream};

use crate::bounded::Unended;
use crate::json::Json;
use crate::options::Options;
use crate::samples::Samples;

/// One measurement, which has a process and a field of the document to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measurement {
    Device,
    Bandwidth,
    Mma,
    Wgmma,
    CublasLt,
    Partitions,
    SmSweep,
    Ipc,
}

/// What a measurement gives.
pub(crate) type Measured = Json;

/// Why a measurement gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The device did something, but not what it was told: its speed means nothing.
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

impl Measurement {
    /// All but the device, which is always described.
    pub(crate) const SELECTABLE: [Measurement; 7] = [
        Measurement::Bandwidth,
        Measurement::Mma,
        Measurement::Wgmma,
        Measurement::CublasLt,
        Measurement::Partitions,
        Measurement::SmSweep,
        Measurement::Ipc,
    ];

    /// Its field in the document and its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Measurement::Device => "device",
            Measurement::Bandwidth => "bandwidth",
            Measurement::Mma => "mma_sync",
            Measurement::Wgmma => "wgmma",
            Measurement::CublasLt => "cublas_lt",
            Measurement::Partitions => "partitions",
            Measurement::SmSweep => "sm_sweep",
            Measurement::Ipc => "ipc",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Measurement> {
        [Measurement::Device].into_iter().chain(Self::SELECTABLE).find(|each| each.name() == name)
    }

    pub(crate) fn run(self, options: &Options) -> Result<Measured, Failure> {
        let driver = Driver::open()?;
        let chosen = driver.device(options.device)?;
        if self == Measurement::Device {
            return device::measure(driver, chosen);
        }
        let bench = Bench::new(Context::primary(chosen)?, options.limit)?;
        match self {
            Measurement::Device => device::measure(driver, chosen),
            Measurement::Bandwidth => bandwidth::measure(&bench),
            Measurement::Mma => tensor_rate::measure_mma(&bench),
            Measurement::Wgmma => tensor_rate::measure_wgmma(&bench),
            Measurement::CublasLt => cublas_lt::measure(&bench),
            Measurement::Partitions => partitions::measure(&bench),
            Measurement::SmSweep => sm_sweep::measure(&bench),
            Measurement::Ipc => ipc::measure(&bench, options),
        }
    }
}

/// Where work is timed.
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

    /// Seconds that the device takes for what `queue` puts into `stream`.
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

    /// Bytes per second, in GB (1e9), of a piece of work that moves `bytes`: one round to warm up, then `rounds`.
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

    /// Waits for everything in the bench's own stream.
    pub(crate) fn finish(&self) -> Result<(), CudaError> {
        self.stream.finish("queued work", self.limit)
    }

    /// At most `wanted` bytes, at most a quarter of what is free, a whole number of MiB.
    pub(crate) fn buffer_bytes(&self, wanted: usize) -> Result<usize, CudaError> {
        let fits = (self.context.free_bytes()? / 4).min(wanted) >> 20 << 20;
        if fits < BUFFER_BYTES_MIN {
            let what = format!("only {} bytes of device memory are free", self.context.free_bytes()?);
            return Err(CudaError::Invalid { what });
        }
        Ok(fits)
    }
}

/// Less than this fits into a cache.
const BUFFER_BYTES_MIN: usize = 128 << 20;

/// Not a failure: this device or this installation has no such thing.
pub(crate) fn unavailable(reason: impl Into<String>) -> Json {
    Json::Object(vec![("unavailable", Json::text(reason))])
}
