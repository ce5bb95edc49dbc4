//! How fast another process reads and writes memory of this one: the peer's side, a process that the owner started.

use std::io::BufRead;
use std::time::Instant;

use kernels::cuda::{Context, Driver, PeerBytes};

use super::bandwidth::{expect_words, filled};
use super::ipc::{PEERS_WORD, Task};
use super::{Bench, Failure, Measured};
use crate::json::Json;
use crate::options::Options;

const ROUNDS: usize = 10;
/// The size of a tile of KV, about: what a pull consists of where nothing is contiguous.
const TILE_BYTES: usize = 64 << 10;
const TILES: usize = 256;

pub(crate) fn run(options: &Options) -> Result<Measured, Failure> {
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

fn exchange(bench: &Bench, peer: &PeerBytes, task: &Task, open_ms: f64) -> Result<Measured, Failure> {
    let ends = [0, task.bytes / 2, task.bytes - 4];
    let own = filled(bench, task.bytes, 0)?;
    let pulled = bench.gb_per_s(&bench.stream, task.bytes, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy; the owner neither writes nor frees its memory until we end.
        unsafe { bench.stream.copy_within(own.range(), peer.range()) }
    })?;
    expect_words(&own, &ends, task.word)?;
    let tiles = bench.gb_per_s(&bench.stream, TILE_BYTES * TILES, ROUNDS, || {
        (0..TILES).try_for_each(|tile| {
            // Far apart in the peer's memory, as blocks of a pool are.
            let stride = task.bytes / TILES / TILE_BYTES * TILE_BYTES;
            let (to, from) =
                (own.range().part(tile * TILE_BYTES, TILE_BYTES)?, peer.range().part(tile * stride, TILE_BYTES)?);
            // SAFETY: as above.
            unsafe { bench.stream.copy_within(to, from) }
        })
    })?;
    // SAFETY: nothing uses the allocation; the stream is waited for.
    unsafe { bench.stream.fill(own.range(), PEERS_WORD) }?;
    bench.finish()?;
    let pushed = bench.gb_per_s(&bench.stream, task.bytes, ROUNDS, || {
        // SAFETY: `gb_per_s` waits for each copy; the owner does not use its memory until we end.
        unsafe { bench.stream.copy_within(peer.range(), own.range()) }
    })?;
    Ok(Json::Object(vec![
        ("open_ms", Json::Number(open_ms)),
        ("pull_gb_per_s", pulled.to_json()),
        ("pull_64_kib_tiles_gb_per_s", tiles.to_json()),
        ("push_gb_per_s", pushed.to_json()),
    ]))
}
