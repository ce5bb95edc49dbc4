//! Tests of pairs of workers that cannot hand over: refused by name where that is known, bounded where it shows later.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use baton_tests::deployment::Deployment;
use baton_tests::http;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// TCP data path that carries a connection's greeting and probe, and breaks when told to.
struct BreakingPath {
    address: SocketAddr,
    /// Bytes that each connection may carry from the giver; unlimited at first.
    allowance: Arc<AtomicU64>,
    carried: Arc<AtomicU64>,
}

impl BreakingPath {
    fn to(giver: SocketAddr) -> Result<BreakingPath> {
        // Readers are told another address of the same port.
        let listener = TcpListener::bind(("127.0.0.2", giver.port()))?;
        let path = BreakingPath {
            address: listener.local_addr()?,
            allowance: Arc::new(AtomicU64::new(u64::MAX)),
            carried: Arc::new(AtomicU64::new(0)),
        };
        let (allowance, carried) = (Arc::clone(&path.allowance), Arc::clone(&path.carried));
        std::thread::spawn(move || {
            for reader in listener.incoming().flatten() {
                let Ok(giver) = TcpStream::connect(giver) else { continue };
                let (allowance, carried) = (Arc::clone(&allowance), Arc::clone(&carried));
                std::thread::spawn(move || carry(&reader, &giver, &allowance, &carried));
            }
        });
        Ok(path)
    }

    /// Breaks the path: no connection carries more bytes than the largest number so far, which was enough to connect.
    fn breaks(&self) {
        self.allowance.store(self.carried.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Carries bytes both ways until one end, or the path, is gone.
fn carry(reader: &TcpStream, giver: &TcpStream, allowance: &AtomicU64, carried: &AtomicU64) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*reader, &mut &*giver);
            let _ = giver.shutdown(std::net::Shutdown::Both);
        });
        let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
        while let Ok(count @ 1..) = (&mut &*giver).read(&mut buffer) {
            total += count as u64;
            if total > allowance.load(Ordering::SeqCst) || (&mut &*reader).write_all(&buffer[..count]).is_err() {
                break;
            }
            carried.fetch_max(total, Ordering::SeqCst);
        }
        let _ = reader.shutdown(std::net::Shutdown::Both);
        let _ = giver.shutdown(std::net::Shutdown::Both);
    });
}

fn broken_pair(settings: &[&str]) -> Result<(Deployment, BreakingPath)> {
    let giver = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = BreakingPath::to(giver)?;
    let (listen, advertise) =
        (format!("prefill.engine.tcp_listen={giver}"), format!("prefill.engine.tcp_advertise={}", path.address.ip()));
    let mut arguments = vec!["--set", "engine.transport=tcp", "--set", listen.as_str(), "--set", advertise.as_str()];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let deployment = Deployment::start(&arguments)?;
    path.breaks();
    Ok((deployment, path))
}

const REQUESTS: u32 = 3;
const ATTEMPTS_MAX: u32 = 3;

/// Request whose KV is longer than greeting and probe, so that it cannot pass.
fn request(number: u32) -> serde_json::Value {
    let prompt: Vec<u32> = (0..900).map(|place| 300 + (number * 97 + place * 31) % 900).collect();
    json!({"prompt": prompt, "max_tokens": 40, "ignore_eos": true, "temperature": 0})
}

#[test]
fn a_path_that_always_breaks_costs_a_bounded_number_of_prefills_and_ends_in_a_counted_failure() -> Result<()> {
    let (deployment, _path) = broken_pair(&[])?;
    for number in 0..REQUESTS {
        let answer = http::post(deployment.address, "/v1/completions", &request(number))?;
        assert_eq!(answer.status, 503, "{}\n{}", answer.body, deployment.log());
        let error = answer.json()?["error"].clone();
        assert_eq!(error["code"], "kv_lost", "{error}");
        let message = error["message"].as_str().context("no message")?;
        assert!(message.contains("3 attempts in a row were lost, the last one on its way to decode"), "{error}");
    }
    let given_up = deployment.metric("baton_handoffs_given_up_total", &["instead=\"failed\""])?;
    assert_eq!(given_up, f64::from(REQUESTS));
    let retries = deployment.metric("baton_retries_total", &["role=\"router\""])?;
    assert_eq!(retries, f64::from(REQUESTS * (ATTEMPTS_MAX - 1)), "\n{}", deployment.log());
    deployment.wait_until("gauges back to zero", SOON, |deployment| {
        Ok(deployment.metric("baton_kv_blocks", &["state=\"in_use\""])? + deployment.metric("baton_held_legs", &[])?
            == 0.0)
    })
}

#[test]
fn where_it_is_allowed_decode_prefills_what_no_path_carries() -> Result<()> {
    let (deployment, path) = broken_pair(&["router.route.local_prefill_without_pair=true"])?;
    let broken: Vec<_> = (0..REQUESTS)
        .map(|number| http::post(deployment.address, "/v1/completions", &request(number))?.json())
        .collect::<Result<_>>()?;
    path.allowance.store(u64::MAX, Ordering::SeqCst);
    deployment
        .wait_until("the pair is up again", SOON, |d| Ok(d.metric("baton_peers_up", &["role=\"decode\""])? == 1.0))?;
    for (number, broken) in (0..REQUESTS).zip(broken) {
        let whole = http::post(deployment.address, "/v1/completions", &request(number))?.json()?;
        assert_eq!(broken["choices"][0]["text"], whole["choices"][0]["text"], "{broken}\n{}", deployment.log());
    }
    Ok(())
}
