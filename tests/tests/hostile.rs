//! Cost of hostile clients: memory of the router, and latency of another client's small requests. The script is fixed.
//!
//! `cargo test --release -p baton-tests --test hostile -- --ignored --nocapture` is the bench; a tenth of it is a test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::Deployment;
use baton_tests::{http, repository};
use serde_json::{Value, json};

const ATTACKERS: usize = 8;
const MIB: u64 = 1 << 20;
const EXTRA_MEMORY_MAX: u64 = 512 * MIB;
/// Bounds on memory kept after an attack, and on the time for the last work of clients that have left.
const KEPT_MEMORY_MAX: u64 = 64 * MIB;
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
const EXTRA_P99_MAX: Duration = Duration::from_secs(1);
const VICTIM_PAUSE: Duration = Duration::from_millis(50);
/// Fewer than the attackers' connections.
const CONNECTIONS_MAX: &str = "router.limits.connections_max=128";
/// Ends an attack without traffic, which would never send enough bytes.
const ATTACK_TIME_MAX: Duration = Duration::from_secs(120);

#[test]
#[ignore = "a bench of minutes; .ci/long runs it"]
fn a_hundred_megabytes_of_hostility_cost_others_little() -> Result<()> {
    let cost = attacked(100 * MIB)?;
    let extra = cost.p99_under_attack.saturating_sub(cost.p99_before);
    ensure!(extra <= EXTRA_P99_MAX, "a small request takes {extra:?} longer (p99)");
    Ok(())
}

#[test]
fn hostile_clients_cost_neither_memory_nor_other_requests() -> Result<()> {
    attacked(12 * MIB).map(|_| ())
}

#[test]
fn a_text_that_takes_for_ever_does_not_keep_the_process() -> Result<()> {
    // Groups of three digits from the right: each match looks at all digits that follow, so time grows with the square.
    let pattern = r"\d{1,3}(?=(?:\d{3})*\b)";
    let model = model_with_pattern(pattern)?;
    let model_dir = model.to_str().context("a path that is not UTF-8")?;
    let arguments = ["--backend", "modelled", "--mode", "aggregated", "--model", model_dir];
    let slow = ["--set", "router.limits.text_cpu_ms_max=600000", "--set", "router.drain_ms=500"];
    let mut deployment = Deployment::start(&[&arguments[..], &slow[..]].concat())?;
    let sent = AtomicUsize::new(0);
    let target = Target { address: deployment.address, sent: &sent };
    let body = prompt(&"7".repeat(500_000));
    let mut waiting = target.open("/tokenize", body.len())?;
    target.send(&mut waiting, body.as_bytes())?;
    thread::sleep(Duration::from_millis(500));
    let small = http::post(deployment.address, "/tokenize", &json!({"prompt": "1234"}))?;
    ensure!(small.status == 200, "a small text is kept waiting: {}", small.body);
    // The deadline of the stop is far below the time for the text.
    deployment.stop()?;
    std::fs::remove_dir_all(model)?;
    Ok(())
}

fn model_with_pattern(pattern: &str) -> Result<PathBuf> {
    let own = std::env::temp_dir().join(format!("baton-hostile-{}", std::process::id()));
    let bundled = repository::root().join("models/demo");
    std::fs::create_dir_all(&own)?;
    for entry in std::fs::read_dir(&bundled)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), own.join(entry.file_name()))?;
        }
    }
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(bundled.join("tokenizer.json"))?)?;
    tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    std::fs::write(own.join("tokenizer.json"), tokenizer.to_string())?;
    Ok(own)
}

struct Cost {
    p99_before: Duration,
    p99_under_attack: Duration,
}

/// Attacks a deployment with `bytes` of traffic beside a client with small requests, all of which must be served.
fn attacked(bytes: u64) -> Result<Cost> {
    let deployment = Deployment::start(&["--backend", "modelled", "--set", CONNECTIONS_MAX])?;
    let before = Victim::start(deployment.address);
    thread::sleep(Duration::from_secs(2));
    let before = before.stop()?;
    let idle = Memory::of(deployment.pid())?;

    let (victim, sampler) = (Victim::start(deployment.address), Sampler::start(deployment.pid()));
    let began = Instant::now();
    let sent = Arc::new(AtomicUsize::new(0));
    let attackers: Vec<JoinHandle<()>> = (0..ATTACKERS)
        .map(|number| {
            let (sent, address) = (Arc::clone(&sent), deployment.address);
            thread::spawn(move || attack(address, number, bytes, &sent))
        })
        .collect();
    for attacker in attackers {
        attacker.join().ok().context("an attacker panicked")?;
    }
    let took = began.elapsed();
    let during = victim.stop()?;
    let most = sampler.stop()?;
    thread::sleep(Duration::from_secs(3));
    let after = Memory::of(deployment.pid())?;
    let settled = settles(deployment.pid(), idle)?;

    println!("{} MiB sent by {ATTACKERS} attackers in {took:.1?}", sent.load(Ordering::Relaxed) as u64 / MIB);
    println!("small requests before: {before}");
    println!("small requests under attack: {during}");
    let mib = |memory: Memory| memory.0 / MIB;
    println!("router memory: idle {} MiB, most {} MiB, 3 s after {} MiB", mib(idle), mib(most), mib(after));
    println!("within {} MiB of idle {:.1?} after that", KEPT_MEMORY_MAX / MIB, settled);
    ensure!(during.failed == 0, "small requests failed: {during}");
    ensure!(most.0 <= idle.0 + EXTRA_MEMORY_MAX, "the router took {} MiB more", (most.0 - idle.0) / MIB);
    Ok(Cost { p99_before: before.quantile(0.99), p99_under_attack: during.quantile(0.99) })
}

/// Returns the time until memory is back to `idle` and a little more.
fn settles(pid: u32, idle: Memory) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let now = Memory::of(pid)?;
        if now.0 <= idle.0 + KEPT_MEMORY_MAX {
            return Ok(began.elapsed());
        }
        let kept = now.0.saturating_sub(idle.0) / MIB;
        ensure!(began.elapsed() < SETTLE_TIME_MAX, "{kept} MiB stay when everything is over");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Runs attacks in turn, each attacker starting with another one, until all together have sent enough bytes.
fn attack(address: SocketAddr, number: usize, bytes: u64, sent: &AtomicUsize) {
    let began = Instant::now();
    for round in number * 5.. {
        if sent.load(Ordering::Relaxed) as u64 >= bytes || began.elapsed() > ATTACK_TIME_MAX {
            return;
        }
        // A refused attack is a success of the defence, not a failure of the bench.
        let _ = ATTACKS[round % ATTACKS.len()](&Target { address, sent });
    }
}

type Attack = fn(&Target<'_>) -> Result<()>;

const ATTACKS: [Attack; 19] = [
    |target| target.post_and_leave("/v1/completions", &prompt(&"7".repeat(2 << 20)), Duration::from_millis(100)),
    |target| target.post("/v1/completions", &prompt(&"7".repeat(8_000_000))),
    |target| target.post("/v1/completions", &prompt(&"some words and a few more ".repeat(100_000))),
    |target| target.post("/tokenize", &prompt(&"some words and a few more ".repeat(20_000))),
    |target| target.post("/tokenize", &prompt(&"7".repeat(1_000_000))),
    |target| target.announce(8 << 20, 64 << 10, Duration::from_secs(2)),
    |target| target.post_and_leave("/v1/completions", &wide("false"), Duration::from_secs(3)),
    |target| target.post_and_leave("/v1/completions", &wide("true"), Duration::from_secs(3)),
    |target| target.post("/v1/completions", &format!(r#"{{"prompt": [{}7]}}"#, "7,".repeat(2_000_000))),
    |target| target.post("/detokenize", &format!(r#"{{"tokens": [{}7]}}"#, "2000,".repeat(800_000))),
    |target| target.post("/v1/chat/completions", &format!(r#"{{"messages": [{}{{}}]}}"#, "{},".repeat(700_000))),
    |target| {
        let turn = r#"{"role":"user","content":"hi"},"#;
        let last = r#"{"role":"user","content":"hi"}"#;
        target.post("/v1/chat/completions", &format!(r#"{{"messages": [{}{last}]}}"#, turn.repeat(60_000)))
    },
    |target| target.post("/v1/completions", &echo("false")),
    |target| target.post_and_leave("/v1/completions", &echo("true"), Duration::from_secs(3)),
    |target| target.crowd(12, "/tokenize", &strings(), Duration::from_secs(3)),
    |target| {
        target.crowd(
            12,
            "/detokenize",
            &format!(r#"{{"tokens": [{}7]}}"#, "2000,".repeat(40_000)),
            Duration::from_secs(3),
        )
    },
    |target| target.sip("/v1/completions", &wide("true"), Duration::from_secs(5)),
    |target| target.announce_many(100, Duration::from_secs(2)),
    |target| target.post_and_leave("/v1/completions", &stops(), Duration::from_secs(3)),
];

/// Prompts of ids that each of many choices repeats, as text and as ids.
fn echo(stream: &str) -> String {
    let prompts = json!(vec![vec![2000; 2_000]; 64]);
    format!(
        r#"{{"prompt": {prompts}, "n": 16, "max_tokens": 1, "echo": true, "return_token_ids": true, "stream": {stream}}}"#
    )
}

/// As many stop strings and choices as one request may have.
fn stops() -> String {
    let (prompts, stops) = (json!(vec!["hello"; 64]), json!(vec!["x".repeat(1_000); 16]));
    format!(r#"{{"prompt": {prompts}, "n": 16, "max_tokens": 500, "stop": {stops}}}"#)
}

/// Text whose tokens make a larger answer.
fn strings() -> String {
    json!({"prompt": "7 ".repeat(50_000), "return_token_strs": true}).to_string()
}

fn prompt(text: &str) -> String {
    json!({"prompt": text}).to_string()
}

fn wide(stream: &str) -> String {
    let prompts = json!(vec!["hello"; 64]);
    format!(r#"{{"prompt": {prompts}, "n": 16, "max_tokens": 500, "logprobs": 20, "stream": {stream}}}"#)
}

/// Address under attack, and bytes sent to it.
struct Target<'a> {
    address: SocketAddr,
    sent: &'a AtomicUsize,
}

impl Target<'_> {
    fn open(&self, path: &str, length: usize) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.address
        );
        self.send(&mut stream, head.as_bytes())?;
        Ok(stream)
    }

    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(64 << 10) {
            stream.write_all(part)?;
            self.sent.fetch_add(part.len(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn post(&self, path: &str, body: &str) -> Result<()> {
        let mut stream = self.open(path, body.len())?;
        self.send(&mut stream, body.as_bytes())?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }

    fn post_and_leave(&self, path: &str, body: &str, after: Duration) -> Result<()> {
        let mut stream = self.open(path, body.len())?;
        self.send(&mut stream, body.as_bytes())?;
        thread::sleep(after);
        Ok(())
    }

    fn crowd(&self, connections: usize, path: &str, body: &str, after: Duration) -> Result<()> {
        let mut crowd = Vec::new();
        for _ in 0..connections {
            let mut stream = self.open(path, body.len())?;
            self.send(&mut stream, body.as_bytes())?;
            crowd.push(stream);
        }
        thread::sleep(after);
        Ok(())
    }

    fn sip(&self, path: &str, body: &str, time: Duration) -> Result<()> {
        let mut stream = self.open(path, body.len())?;
        self.send(&mut stream, body.as_bytes())?;
        let began = Instant::now();
        while began.elapsed() < time {
            stream.read_exact(&mut [0])?;
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Announces a body over each of many connections, and sends hardly any of it.
    fn announce_many(&self, connections: usize, after: Duration) -> Result<()> {
        let mut crowd = Vec::new();
        for _ in 0..connections {
            let mut stream = self.open("/v1/completions", 8 << 20)?;
            self.send(&mut stream, b"{")?;
            crowd.push(stream);
        }
        thread::sleep(after);
        Ok(())
    }

    fn announce(&self, length: usize, part: usize, after: Duration) -> Result<()> {
        let mut stream = self.open("/v1/completions", length)?;
        self.send(&mut stream, &vec![b' '; part])?;
        thread::sleep(after);
        Ok(())
    }
}

struct Victim {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Served>,
}

struct Served {
    times: Vec<Duration>,
    failed: usize,
}

impl Victim {
    fn start(address: SocketAddr) -> Victim {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut times, mut failed) = (Vec::new(), 0);
            let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2});
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                match http::post(address, "/v1/chat/completions", &body) {
                    Ok(answer) if answer.status == 200 => times.push(began.elapsed()),
                    Ok(answer) => {
                        println!("a small request got {} {}", answer.status, answer.body);
                        failed += 1;
                    }
                    Err(error) => {
                        println!("a small request failed: {error:#}");
                        failed += 1;
                    }
                }
                thread::sleep(VICTIM_PAUSE);
            }
            times.sort_unstable();
            Served { times, failed }
        });
        Victim { stop, thread }
    }

    fn stop(self) -> Result<Served> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the client panicked")
    }
}

impl Served {
    fn quantile(&self, quantile: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.times.get(index).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [middle, high, most] = [0.5, 0.99, 1.0].map(|quantile| self.quantile(quantile));
        let (served, failed) = (self.times.len(), self.failed);
        write!(f, "{served} served, {failed} failed; p50 {middle:.1?}, p99 {high:.1?}, most {most:.1?}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Memory(u64);

impl Memory {
    fn of(pid: u32) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(Memory(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10))
    }
}

struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Memory>>,
}

impl Sampler {
    fn start(pid: u32) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut most = Memory::of(pid)?;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(Memory::of(pid)?);
                thread::sleep(Duration::from_millis(10));
            }
            Ok(most)
        });
        Sampler { stop, thread }
    }

    fn stop(self) -> Result<Memory> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the sampler panicked")?
    }
}
