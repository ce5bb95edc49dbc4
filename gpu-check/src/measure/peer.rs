//! Rates at which another process reads and writes memory of this one: the side of the peer, which the owner started.

use std::io::BufRead;
use std::time::Instant;

use kernels::cuda::{Argument, Context, CudaError, DeviceBytes, Driver, Function, Grid, Module, PeerBytes};
use serde_json::{Value, json};

use super::bandwidth::{expect_words, filled};
use super::ipc::{PEERS_WORD, Task};
use super::{Bench, Failure};
use crate::options::Options;
use crate::ptx::BASIC;
use crate::samples::Samples;
use crate::value::rounded;

const ROUNDS: usize = 10;
/// Size of one copy: a pull by the driver consists of such copies if nothing is contiguous.
const COPY_BYTES: usize = 64 << 10;
const COPIES: usize = 256;
/// Sizes of a KV tile, 16 tokens of one head with 128 elements in bf16, and of 16 tiles.
const TILE_BYTES: [usize; 2] = [4 << 10, 64 << 10];

pub(crate) fn run(options: &Options) -> Result<Value, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::Peer(format!("reading its task: {error}")))?;
    let task: Task = line.trim().parse()?;
    let device = Driver::open()?.device(options.peer_device.unwrap_or(options.device))?;
    let bench = Bench::new(Context::primary(device)?, options.limit)?;
    let began = Instant::now();
    let peer = PeerBytes::open(&bench.context, task.handle, task.bytes)?;
    let open_ms = began.elapsed().as_secs_f64() * 1e3;
    exchange(&bench, &peer, &task, open_ms)
}

fn exchange(bench: &Bench, peer: &PeerBytes, task: &Task, open_ms: f64) -> Result<Value, Failure> {
    let ends = [0, task.bytes / 2, task.bytes - 4];
    let own = filled(bench, task.bytes, 0)?;
    let pulled = bench.gb_per_s(&bench.stream, task.bytes, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy; the owner neither writes nor frees its memory until we end.
        unsafe { bench.stream.copy_within(own.range(), peer.range()) }
    })?;
    expect_words(&own, &ends, task.word)?;
    let copies = bench.gb_per_s(&bench.stream, COPY_BYTES * COPIES, ROUNDS, || {
        (0..COPIES).try_for_each(|copy| {
            // Far apart in the peer's memory, like blocks of a pool.
            let stride = task.bytes / COPIES / COPY_BYTES * COPY_BYTES;
            let (to, from) =
                (own.range().part(copy * COPY_BYTES, COPY_BYTES)?, peer.range().part(copy * stride, COPY_BYTES)?);
            // SAFETY: as above.
            unsafe { bench.stream.copy_within(to, from) }
        })
    })?;
    let gather = Gather::new(bench)?;
    let [small_tiles, large_tiles] =
        TILE_BYTES.map(|tile_bytes| gather.gb_per_s(bench, peer, &own, tile_bytes, task.word));
    // SAFETY: nothing uses the allocation; the stream is waited for.
    unsafe { bench.stream.fill(own.range(), PEERS_WORD) }?;
    bench.finish()?;
    let pushed = bench.gb_per_s(&bench.stream, task.bytes, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy; the owner does not use its memory until we end.
        unsafe { bench.stream.copy_within(peer.range(), own.range()) }
    })?;
    Ok(json!({
        "open_ms": rounded(open_ms),
        "pull_gb_per_s": pulled.to_json(),
        "pull_by_copies_of_64_kib_gb_per_s": copies.to_json(),
        "pull_by_kernel_4_kib_tiles_gb_per_s": small_tiles?.to_json(),
        "pull_by_kernel_64_kib_tiles_gb_per_s": large_tiles?.to_json(),
        "push_gb_per_s": pushed.to_json(),
    }))
}

struct Gather(Function);

impl Gather {
    fn new(bench: &Bench) -> Result<Gather, CudaError> {
        Ok(Gather(Module::from_ptx(&bench.context, BASIC)?.function("copy_tiles")?))
    }

    /// Rate of pulling every second tile of `peer`, which is full of `word`, to the beginning of `own`.
    fn gb_per_s(
        &self,
        bench: &Bench,
        peer: &PeerBytes,
        own: &DeviceBytes,
        tile_bytes: usize,
        word: u32,
    ) -> Result<Samples, Failure> {
        let tiles = peer.range().len() / (2 * tile_bytes);
        // SAFETY: nothing uses the allocation.
        unsafe { bench.stream.fill(own.range(), 0) }?;
        let grid = Grid { blocks: tiles as u32, threads_per_block: (tile_bytes / 16).min(512) as u32 };
        let arguments = [
            Argument::U64(own.range().address()),
            Argument::U64(peer.range().address()),
            Argument::U64(2 * tile_bytes as u64),
            Argument::U32(tile_bytes as u32),
        ];
        let rate = bench.gb_per_s(&bench.stream, tiles * tile_bytes, ROUNDS, || {
            // SAFETY: the arguments are copy_tiles'; the last tile ends before `peer` does, and `own` is as long;
            // `gb_per_s` waits; the owner neither writes nor frees its memory until we end.
            unsafe { self.0.launch(&bench.stream, grid, &arguments) }
        })?;
        let bytes = tiles * tile_bytes;
        expect_words(own, &[0, bytes / 2, bytes - 4], word)?;
        Ok(rate)
    }
}
