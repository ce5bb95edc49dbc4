//! Rates at which each transport pulls blocks from another process, beside one thread's memcpy in the same run.
//!
//! `cargo bench -p kv-transfer` prints medians over interleaved rounds, in GB/s and as ratios to memcpy. Only the
//! ratios can be compared with another machine's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be made fails by panicking"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use kernels::memory::{Backing, HostMemory};
use kv_transfer::{
    Batch, KvTransport, LeaseTable, Limits, Options, PeerId, RangeCopy, RegionId, Serving, Setup, TransferEvent,
    Transport, TransportKind, open,
};
use sched::{InstanceId, LeaseId};

const OWNER: &str = "KV_TRANSFER_BENCH_OWNER";
const LEASE: LeaseId = LeaseId(1);
const BLOCKS_KIB: [usize; 3] = [64, 256, 1024];
const PATIENCE: Duration = Duration::from_secs(60);

struct Scale {
    pool_bytes: usize,
    rounds: usize,
}

fn main() {
    // `cargo test --benches` only checks that this runs.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let scale =
        if measured { Scale { pool_bytes: 256 << 20, rounds: 5 } } else { Scale { pool_bytes: 8 << 20, rounds: 1 } };
    if let Ok(kind) = std::env::var(OWNER) {
        serve(kind.parse().expect("a transport"), &scale);
        return;
    }
    let kinds = [TransportKind::Tcp, TransportKind::Shm, TransportKind::Ucx];
    let mut readers: Vec<Reader> = kinds.into_iter().filter_map(|kind| Reader::connect(kind, &scale)).collect();
    let plain = Plain::new(&scale);
    println!("{:>10} {:>10} {:>8} {:>10}", "transport", "block KiB", "GB/s", "to memcpy");
    for block_kib in BLOCKS_KIB {
        let copies = shuffled(scale.pool_bytes, block_kib << 10);
        let mut rates = vec![Vec::new(); readers.len() + 1];
        for _ in 0..scale.rounds {
            rates[0].push(plain.rate(&copies));
            for (reader, rates) in readers.iter_mut().zip(&mut rates[1..]) {
                rates.push(reader.rate(&copies));
            }
        }
        let memcpy = median(&mut rates[0]);
        println!("{:>10} {block_kib:>10} {memcpy:>8.2} {:>10.2}", "memcpy", 1.0);
        for (reader, rates) in readers.iter().zip(&mut rates[1..]) {
            let rate = median(rates);
            println!("{:>10} {block_kib:>10} {rate:>8.2} {:>10.2}", reader.transport.kind(), rate / memcpy);
        }
    }
}

/// Serves the pool in the other process until its standard input closes.
fn serve(kind: TransportKind, scale: &Scale) {
    let (transport, _pool, _woken) = worker(kind, scale);
    println!("{}", transport.endpoint().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let _until_closed = std::io::stdin().read(&mut [0]);
}

fn worker(kind: TransportKind, scale: &Scale) -> (Transport, Arc<HostMemory>, Receiver<()>) {
    let (wake, woken) = bounded(1);
    let notify = Arc::new(move || {
        let _rings_already = wake.try_send(());
    });
    let leases = Arc::new(LeaseTable::new());
    leases.grant(LEASE, RegionId(0), std::iter::once(0..scale.pool_bytes as u64));
    let instance = InstanceId(u128::from(std::process::id()));
    let setup = Setup { instance, notify, access: leases, limits: Limits::default(), serving: Serving::Readers };
    let mut transport = open(kind, &setup, &Options::default()).expect("the transport opens");
    let pool = touched(scale, kind.backing());
    transport.register(Arc::clone(&pool).into()).expect("the pool can be registered");
    (transport, pool, woken)
}

fn touched(scale: &Scale, backing: Backing) -> Arc<HostMemory> {
    let pool = HostMemory::new(scale.pool_bytes, backing).expect("memory");
    // SAFETY: the whole mapping, which only this function has.
    unsafe { std::ptr::write_bytes(pool.as_ptr(), 1, pool.len()) };
    Arc::new(pool)
}

struct Reader {
    transport: Transport,
    peer: PeerId,
    woken: Receiver<()>,
    _owner: Owner,
}

/// The other process, killed when dropped.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _waited_for = self.0.wait();
    }
}

impl Reader {
    fn connect(kind: TransportKind, scale: &Scale) -> Option<Self> {
        if cfg!(not(feature = "ucx")) && kind == TransportKind::Ucx {
            return None;
        }
        let owner = Command::new(std::env::current_exe().expect("this binary"))
            .args(std::env::args().skip(1))
            .env(OWNER, kind.label())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the other process starts");
        let mut owner = Owner(owner);
        let mut line = String::new();
        BufReader::new(owner.0.stdout.take()?).read_line(&mut line).expect("an endpoint");
        let digits = line.trim().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
        let (mut transport, _pool, woken) = worker(kind, scale);
        let endpoint: Vec<u8> = digits.map(byte).collect();
        let peer = transport.connect(&endpoint).expect("an endpoint");
        let mut reader = Self { transport, peer, woken, _owner: owner };
        match reader.next() {
            TransferEvent::PeerUp { probe, .. } => {
                println!("{kind}: {:.2} GB/s measured at connect", probe.bytes_per_second() / 1e9);
                Some(reader)
            }
            other => {
                println!("{kind}: not measured: {other:?}");
                None
            }
        }
    }

    fn next(&mut self) -> TransferEvent {
        loop {
            if let Some(event) = self.transport.poll() {
                return event;
            }
            self.woken.recv_timeout(PATIENCE).expect("an event");
        }
    }

    fn rate(&mut self, copies: &[RangeCopy]) -> f64 {
        let batch = Batch {
            lease: LEASE,
            remote: RegionId(0),
            local: RegionId(0),
            copies: copies.to_vec(),
            deadline: PATIENCE,
            reading: PATIENCE,
        };
        let begun = Instant::now();
        self.transport.start(self.peer, batch).expect("the batch starts");
        match self.next() {
            TransferEvent::Done { bytes, .. } => bytes as f64 / begun.elapsed().as_secs_f64() / 1e9,
            other => panic!("{other:?}"),
        }
    }
}

struct Plain {
    from: Arc<HostMemory>,
    to: Arc<HostMemory>,
}

impl Plain {
    fn new(scale: &Scale) -> Self {
        Self { from: touched(scale, Backing::Anonymous), to: touched(scale, Backing::Anonymous) }
    }

    fn rate(&self, copies: &[RangeCopy]) -> f64 {
        let begun = Instant::now();
        for copy in copies {
            let (from, to) = (copy.remote_offset as usize, copy.local_offset as usize);
            // SAFETY: all ranges lie inside both pools, which are of one length, and only this thread uses them.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    self.from.as_ptr().add(from),
                    self.to.as_ptr().add(to),
                    copy.bytes as usize,
                );
            }
        }
        let bytes: u64 = copies.iter().map(|copy| copy.bytes).sum();
        bytes as f64 / begun.elapsed().as_secs_f64() / 1e9
    }
}

/// Returns every block of the pool once, in an order with few neighbours to join.
fn shuffled(pool_bytes: usize, block_bytes: usize) -> Vec<RangeCopy> {
    let blocks = pool_bytes / block_bytes;
    let bytes = block_bytes as u64;
    // Odd strides visit every block of a power of two.
    let place = |index: usize, stride: usize| (index * stride % blocks) as u64 * bytes;
    (0..blocks)
        .map(|index| RangeCopy { remote_offset: place(index, 37), local_offset: place(index, 101), bytes })
        .collect()
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
