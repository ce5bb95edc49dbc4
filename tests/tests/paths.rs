//! Tests of a path for KV bytes that is slow or dead while everything else lives: the roles run as single processes,
//! and on the tcp transport a relay stands between decode and prefill.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_tests::deployment::{command, signal, sum_of};
use baton_tests::{http, repository};
use serde_json::json;

/// Relay that passes bytes on until it is told to swallow them.
struct Relay {
    swallows: Arc<AtomicBool>,
}

impl Relay {
    /// Listens on the owner's port of another loopback address.
    fn before(owner: SocketAddr, bytes_per_second: u64) -> Result<Relay> {
        let listener = TcpListener::bind((BESIDE, owner.port()))?;
        let swallows = Arc::new(AtomicBool::new(false));
        let swallowing = Arc::clone(&swallows);
        std::thread::spawn(move || {
            for reader in listener.incoming().flatten() {
                let Ok(owner) = TcpStream::connect(owner) else { continue };
                let (Ok(reader_too), Ok(owner_too)) = (reader.try_clone(), owner.try_clone()) else { continue };
                let (first, second) = (Arc::clone(&swallowing), Arc::clone(&swallowing));
                std::thread::spawn(move || pass(reader, owner_too, u64::MAX, &first));
                std::thread::spawn(move || pass(owner, reader_too, bytes_per_second, &second));
            }
        });
        Ok(Relay { swallows })
    }

    fn swallow(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: u64, swallows: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let (begun, mut passed) = (Instant::now(), 0);
    while let Ok(some @ 1..) = from.read(&mut buffer) {
        if swallows.load(Ordering::SeqCst) {
            continue;
        }
        passed += some as u64;
        let due = Duration::from_secs_f64(passed as f64 / bytes_per_second as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if to.write_all(&buffer[..some]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

const BESIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Process of one role, ended with the test.
struct Role {
    child: Child,
    /// Standard input of the role; closing it ends the role.
    _lifeline: Option<ChildStdin>,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Role {
    fn start(role: &str, settings: &[String]) -> Result<Role> {
        let mut command = command()?;
        command.args([role, "--supervised"]);
        for setting in settings {
            command.args(["--set", setting.as_str()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let lifeline = child.stdin.take();
        let mut lines = BufReader::new(stdout).lines();
        let started = loop {
            let Some(Ok(line)) = lines.next() else { bail!("{role} ended before it was ready") };
            // Progress reports come first, in the same form.
            let said: serde_json::Value = serde_json::from_str(&line)?;
            let ready = said.as_object().and_then(|said| said.values().find(|value| value.get("address").is_some()));
            if let Some(started) = ready {
                break started.clone();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let address = |key: &str| -> Result<SocketAddr> {
            Ok(started[key].as_str().with_context(|| format!("no {key} in {started}"))?.parse()?)
        };
        Ok(Role { address: address("address")?, metrics: address("admin_address")?, child, _lifeline: lifeline })
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let text = http::get(self.metrics, "/metrics")?.body;
        sum_of(&text, name, &[]).with_context(|| format!("no series {name}"))
    }

    fn wait_for(&self, name: &str, value: f64, within: Duration) -> Result<Duration> {
        let begun = Instant::now();
        while self.metric(name).ok() != Some(value) {
            if begun.elapsed() > within {
                bail!("{name} is {:?}, not {value}, after {within:?}", self.metric(name));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(begun.elapsed())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = signal(self.child.id(), "CONT");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Router {
    child: Child,
    address: SocketAddr,
}

impl Router {
    fn start(prefill: &Role, decode: &Role) -> Result<Router> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let demo = repository::root().join("models/demo");
        let settings = &[
            format!("router.model_dir={:?}", demo.display().to_string()),
            format!("router.listen={address}"),
            format!("router.workers.prefill=[\"{}\"]", prefill.address),
            format!("router.workers.decode=[\"{}\"]", decode.address),
        ];
        let mut command = command()?;
        command.arg("router");
        for setting in settings {
            command.args(["--set", setting.as_str()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let router = Router { child, address };
        let begun = Instant::now();
        while !http::get(address, "/ready").is_ok_and(|answer| answer.status == 200) {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the router is not ready");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(router)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    // Must be free on the relay's address.
    let listener = TcpListener::bind((BESIDE, 0))?;
    Ok(listener.local_addr()?.port())
}

fn model(section: &str) -> Result<Vec<String>> {
    let demo = repository::root().join("models/demo");
    let engine = format!("{section}.engine");
    Ok(vec![
        format!("{engine}.model_dir={:?}", demo.display().to_string()),
        format!("{engine}.backend=modelled"),
        format!("{engine}.modelled.prefill_step_us=100"),
        format!("{engine}.modelled.prefill_token_us=1"),
        format!("{section}.listen=127.0.0.1:0"),
        format!("{section}.admin_listen=127.0.0.1:0"),
    ])
}

/// Starts a prefill and a decode worker.
fn pair(transport: &str, port: u16) -> Result<(Role, Role)> {
    let mut settings = model("prefill")?;
    settings.push(format!("prefill.engine.transport={transport}"));
    settings.push(format!("prefill.engine.tcp_listen=127.0.0.1:{port}"));
    settings.push("prefill.engine.tcp_advertise=127.0.0.2".to_owned());
    let prefill = Role::start("prefill", &settings)?;
    let mut settings = model("decode")?;
    settings.push(format!("decode.engine.transport={transport}"));
    settings.push(format!("decode.peers=[\"{}\"]", prefill.address));
    let decode = Role::start("decode", &settings)?;
    Ok((prefill, decode))
}

const PAIRS: &str = "baton_peers_up";
/// Time in which a pair without arriving bytes must be down, on a busy machine too: a path is probed every 3 s and is
/// dead after 10 s of silence.
const DOWN_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_dead_path_takes_the_pair_down_while_control_lives() -> Result<()> {
    let port = free_port()?;
    let relay = Relay::before(SocketAddr::from(([127, 0, 0, 1], port)), u64::MAX)?;
    let (_prefill, decode) = pair("tcp", port)?;
    decode.wait_for(PAIRS, 1.0, Duration::from_secs(20))?;
    relay.swallow(true);
    let took = decode.wait_for(PAIRS, 0.0, DOWN_WITHIN)?;
    println!("the pair went down after {took:?}");
    relay.swallow(false);
    decode.wait_for(PAIRS, 1.0, Duration::from_secs(30))?;
    Ok(())
}

#[test]
fn a_giver_that_stands_still_takes_the_pair_down() -> Result<()> {
    for transport in ["shm", "ucx"] {
        let (prefill, decode) = pair(transport, free_port()?)?;
        decode.wait_for(PAIRS, 1.0, Duration::from_secs(20)).context(transport)?;
        signal(prefill.child.id(), "STOP")?;
        let took = decode.wait_for(PAIRS, 0.0, DOWN_WITHIN).context(transport)?;
        println!("{transport}: the pair went down after {took:?}");
        signal(prefill.child.id(), "CONT")?;
        decode.wait_for(PAIRS, 1.0, Duration::from_secs(30)).context(transport)?;
    }
    Ok(())
}

/// Ten hand-offs of 1,500 tokens at once, over a link on which each takes 0.6 s (as 2,048 tokens of the 134M shape do
/// over 1 Gbit/s): each arrives once.
#[test]
fn ten_hand_offs_at_once_over_a_slow_link_need_no_retry() -> Result<()> {
    const TOKENS: u32 = 1500;
    /// Bundled model: 6 layers of K and V, 4 heads of 32 numbers, 2 bytes each.
    const BYTES_PER_TOKEN: u64 = 6 * 2 * 4 * 32 * 2;
    let port = free_port()?;
    let rate = u64::from(TOKENS) * BYTES_PER_TOKEN * 10 / 6;
    let _relay = Relay::before(SocketAddr::from(([127, 0, 0, 1], port)), rate)?;
    let (prefill, decode) = pair("tcp", port)?;
    decode.wait_for(PAIRS, 1.0, Duration::from_secs(30))?;
    let router = Router::start(&prefill, &decode)?;
    let ask = |seed: u32| {
        let prompt: Vec<u32> = (0..TOKENS).map(|i| 300 + (i * 7 + seed * 131) % 900).collect();
        let body = json!({"prompt": prompt, "max_tokens": 4, "ignore_eos": true, "temperature": 0});
        http::post(router.address, "/v1/completions", &body)
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = (0..10).map(|seed| scope.spawn(move || ask(seed))).collect();
        asked.into_iter().map(|asked| asked.join()).collect()
    });
    for answer in answers {
        let answer = answer.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let text = http::get(decode.metrics, "/metrics")?.body;
    assert_eq!(sum_of(&text, "baton_kv_transfers_total", &["done"]), Some(10.0), "each arrives once\n{text}");
    let broken = sum_of(&text, "baton_kv_transfers_total", &["failed"]).unwrap_or(0.0);
    assert_eq!(broken, 0.0, "and none is lost on its way\n{text}");
    Ok(())
}
