//! Tests of a stranger on the gRPC ports of a deployment: another user of the host who knows the public contracts but
//! not the secret. Nothing that it sends may affect others.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, signal};
use baton_tests::http;
use serde_json::json;
use stranger::{
    Batch, Caller, Cancel, Challenge, Hello, Instance, LeaseCall, Leg, PeerHello, PeerProof, Said, Stranger, VERSION,
};
use tonic::Code;

#[path = "strangers/stranger.rs"]
#[allow(unreachable_pub, reason = "messages are derived as public")]
mod stranger;

const SOON: Duration = Duration::from_secs(30);

fn stream() -> serde_json::Value {
    json!({"prompt": "Once upon a time", "max_tokens": 600, "ignore_eos": true, "temperature": 0, "stream": true})
}

fn text(deployment: &Deployment) -> Result<String> {
    let events = http::stream(deployment.address, "/v1/completions", &stream())?.collect()?;
    Ok(events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect())
}

/// Returns the port of a child that speaks gRPC.
fn grpc_port(deployment: &Deployment, role: &str) -> Result<u16> {
    let ports = listening(deployment.child_pid(role)?)?;
    let speaks = |port: &u16| http::get(([127, 0, 0, 1], *port).into(), "/health").is_err();
    ports.into_iter().find(speaks).with_context(|| format!("{role} has no port that is not HTTP"))
}

/// Returns the TCP ports on which a process listens.
fn listening(pid: u32) -> Result<BTreeSet<u16>> {
    let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let ours = *state == "0A" && sockets.contains(*inode);
        ours.then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
    };
    Ok(table.lines().skip(1).filter_map(of_line).collect())
}

/// Sends everything that a stranger can send to a worker, and checks the answers.
async fn try_everything(port: u16) -> Result<()> {
    let cancel = Batch::cancel(Cancel { leg: Some(Leg { request: 1, attempt: 0 }) });

    let old = Stranger::at(port).await?.session(vec![Said::hello(Hello::new(1))]).await;
    let status = old.err().context("an old router is refused")?;
    ensure!(
        status.message().contains("version 1") && status.message().contains(&format!("worker {VERSION}")),
        "{status:?}"
    );

    let (_, end) = Stranger::at(port).await?.greeted(vec![Said::batch(cancel.clone())]).await?;
    ensure_refused(end, "a batch instead of a proof")?;
    for proof in [vec![], vec![0; 32], vec![7; 5000]] {
        let (_, end) = Stranger::at(port).await?.greeted(vec![Said::proof(proof), Said::batch(cancel.clone())]).await?;
        ensure_refused(end, "a wrong proof")?;
    }
    let (challenge, end) = Stranger::at(port).await?.mirrored(cancel).await?;
    ensure_refused(end, "the worker's own proof")?;
    ensure!(challenge.proof.len() == 32);
    Ok(())
}

/// Does the same at the service that readers use.
async fn try_leases(port: u16) -> Result<()> {
    let mut stranger = Stranger::at(port).await?;
    let old = stranger.call::<_, Challenge>("Hello", PeerHello::new(1)).await;
    let status = old.err().context("an old reader is refused")?;
    ensure!(
        status.message().contains("version 1") && status.message().contains(&format!("giver {VERSION}")),
        "{status:?}"
    );
    let hello = PeerHello::new(VERSION);
    let challenge: Challenge = stranger.call("Hello", hello.clone()).await?;
    for proof in [vec![], challenge.proof.clone(), vec![0; 32]] {
        let said = PeerProof { hello: Some(hello.clone()), nonce: challenge.nonce.clone(), proof };
        let welcomed = stranger.call::<_, Challenge>("Meet", said).await;
        ensure_refused(welcomed.err().context("nobody welcomes a stranger")?.code(), "a wrong proof")?;
    }
    let giver = challenge.instance;
    let forged = Caller { reader: Some(Instance { high: 1, low: 1 }), meeting: 1, sequence: 1, proof: vec![0; 32] };
    for caller in [None, Some(forged)] {
        for method in ["Watch", "Say"] {
            let call = LeaseCall { giver, caller: caller.clone() };
            let answer = stranger.call::<_, Challenge>(method, call).await;
            ensure_refused(answer.err().context(method)?.code(), method)?;
        }
    }
    Ok(())
}

fn ensure_refused(code: Code, why: &str) -> Result<()> {
    ensure!(code == Code::Unauthenticated, "{why}: {code:?}");
    Ok(())
}

/// Opens connections that send nothing, half of a hello, or noise, and keeps them open.
fn crowd(port: u16, connections: usize) -> Vec<TcpStream> {
    let says = |at: usize| -> Vec<u8> {
        match at % 3 {
            0 => Vec::new(),
            1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            _ => (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        }
    };
    let open = |at| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
        // Noise is cut off in the middle; only the connection matters.
        let _ = stream.write_all(&says(at));
        Some(stream)
    };
    (0..connections).filter_map(open).collect()
}

#[test]
fn a_stranger_can_do_nothing_and_costs_nobody_anything() -> Result<()> {
    let deployment = Deployment::start(&["--set", "engine.transport=shm"])?;
    let undisturbed = text(&deployment)?;
    let ports = [grpc_port(&deployment, "prefill")?, grpc_port(&deployment, "decode")?];
    let runtime = tokio::runtime::Runtime::new()?;
    let (one, other) = std::thread::scope(|scope| {
        let victim = scope.spawn(|| text(&deployment));
        let attack = || -> Result<()> {
            for port in ports {
                runtime.block_on(try_everything(port))?;
            }
            runtime.block_on(try_leases(ports[0]))
        };
        (attack(), victim.join())
    });
    one?;
    let disturbed = other.map_err(|_| anyhow::anyhow!("the victim's thread panicked"))??;
    assert_eq!(disturbed, undisturbed, "somebody else's request was touched");
    assert!(deployment.metric("baton_plane_turned_away_total", &["reason=\"stranger\""])? >= 10.0);
    assert_eq!(deployment.metric("baton_handoffs_total", &["outcome=\"reader_lost\""])?, 0.0);
    Ok(())
}

#[test]
fn a_crowd_at_the_port_keeps_nobody_out() -> Result<()> {
    let deployment = Deployment::start(&["--set", "engine.transport=shm"])?;
    let undisturbed = text(&deployment)?;
    let ports = [grpc_port(&deployment, "prefill")?, grpc_port(&deployment, "decode")?];
    let crowds: Vec<_> = ports.iter().map(|port| crowd(*port, 150)).collect();
    assert_eq!(text(&deployment)?, undisturbed);
    // A restarted worker must be greeted among these connections.
    let decode = deployment.child_pid("decode")?;
    signal(decode, "KILL")?;
    deployment.wait_until("decode is restarted", SOON, |deployment| Ok(deployment.child_pid("decode")? != decode))?;
    let more = crowd(ports[0], 150);
    deployment.wait_until("it serves again", SOON, |deployment| Ok(text(deployment)? == undisturbed))?;
    drop((crowds, more));
    Ok(())
}

/// The secret is where the children find it and nowhere else.
#[test]
fn the_secret_of_a_deployment_is_not_shown() -> Result<()> {
    let deployment = Deployment::start(&["--set", "engine.transport=shm"])?;
    let pids = [deployment.child_pid("prefill")?, deployment.child_pid("decode")?];
    let mut secrets = BTreeSet::new();
    for pid in pids {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let config = command.split('\0').find(|word| word.ends_with(".toml")).context("a configuration file")?;
        let file = std::path::Path::new(config).with_file_name("plane.secret");
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "readable for others");
        let secret = std::fs::read_to_string(file)?;
        ensure!(secret.len() == 64, "{} characters", secret.len());
        let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
        for shown in [command.clone().into_bytes(), environment, std::fs::read(config)?, deployment.log().into_bytes()]
        {
            ensure!(!String::from_utf8_lossy(&shown).contains(&secret), "the secret is shown");
        }
        secrets.insert(secret);
    }
    assert_eq!(secrets.len(), 1, "one deployment has one secret");
    Ok(())
}
