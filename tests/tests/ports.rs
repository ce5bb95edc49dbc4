//! Tests that a deployment listens at its configured addresses only, whatever moves the KV cache: nobody guards a port
//! that nobody has configured.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton_tests::deployment::{Deployment, command};
use baton_tests::http;
use baton_tests::sockets::{Open, open_to_others};
use serde_json::json;

/// Settings with which `serve` logs the addresses of its workers.
const TELLING: [&str; 2] = ["--set", "telemetry.log=\"info,baton=debug\""];
const SOON: Duration = Duration::from_secs(20);

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Returns the addresses of the workers, from the log of `serve`, and its own; with port 0 in the configuration, these
/// are the configured ones.
fn announced(deployment: &Deployment) -> Result<BTreeSet<SocketAddr>> {
    let ready = |deployment: &Deployment| {
        let log = deployment.log();
        let lines = log.lines().filter(|line| line.contains("worker is ready"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let workers = deployment.log().lines().filter(|line| line.contains(" ready  pid ")).count();
    deployment.wait_until("every worker's addresses are in the log", SOON, |d| Ok(ready(d).len() == workers))?;
    let mut addresses = BTreeSet::from([deployment.address]);
    for line in ready(deployment) {
        let fields = line.split_whitespace().filter_map(|word| word.split_once("address="));
        let of_worker: Vec<SocketAddr> = fields.filter_map(|(_, value)| value.trim_matches('"').parse().ok()).collect();
        assert_eq!(of_worker.len(), 2, "a worker has one address for routers and peers and one for metrics: {line}");
        addresses.extend(of_worker);
    }
    assert_eq!(addresses.len(), 1 + 2 * workers);
    Ok(addresses)
}

/// Starts a deployment, moves KV, and compares what is open with the announced addresses, `ports` and `unix` names.
fn opens_only(arguments: &[&str], ports: &[u16], unix: impl Fn(&str, Holder) -> bool) -> Result<()> {
    let deployment = Deployment::start(&[TELLING.as_slice(), arguments].concat())?;
    let body = json!({"prompt": (0..200).map(|i| 300 + i).collect::<Vec<u32>>(), "max_tokens": 4, "ignore_eos": true});
    let answer = http::post(deployment.address, "/v1/completions", &body)?;
    assert_eq!(answer.status, 200, "{arguments:?}: {}", answer.body);
    let mut expected = announced(&deployment)?;
    expected.extend(ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))));
    let open = open_to_others(deployment.pid())?;
    let mut tcp = BTreeSet::new();
    for (pid, open) in &open {
        match open {
            Open::Tcp(address) => drop(tcp.insert(*address)),
            Open::Unix(name) if unix(name, holder(&deployment, *pid)) => {}
            Open::Unix(_) | Open::Datagrams(_) | Open::SystemV(_) | Open::SharedFile(_) => {
                bail!("{arguments:?}: process {pid} opens {open:?}");
            }
        }
    }
    assert_eq!(tcp, expected, "{arguments:?}: listens on what was announced and on nothing else");
    Ok(())
}

/// Owner of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Prefill,
    Other,
}

fn holder(deployment: &Deployment, pid: u32) -> Holder {
    match deployment.child_pid("prefill") {
        Ok(prefill) if prefill == pid => Holder::Prefill,
        Ok(_) | Err(_) => Holder::Other,
    }
}

/// Accepts the socket over which a prefill worker hands memory to readers of its own user; the kernel checks the user.
fn shm_socket(name: &str, holder: Holder) -> bool {
    holder == Holder::Prefill && is_hex(name.strip_prefix("@kv-transfer-"), 32)
}

/// Accepts the datagram socket that wakes UCX's shared memory, named by the kernel. Its data are discarded unread, so a
/// stranger can only wake a worker for nothing.
fn ucx_bell(name: &str, _: Holder) -> bool {
    is_hex(name.strip_prefix('@'), 5)
}

fn is_hex(name: Option<&str>, length: usize) -> bool {
    name.is_some_and(|name| name.len() == length && name.chars().all(|c| c.is_ascii_hexdigit()))
}

fn none(_: &str, _: Holder) -> bool {
    false
}

#[test]
fn nothing_listens_that_is_not_configured() -> Result<()> {
    opens_only(&[], &[], shm_socket)?;
    opens_only(&["--mode", "aggregated"], &[], none)?;
    opens_only(&["--set", "engine.transport=shm"], &[], shm_socket)?;
    opens_only(&["--set", "engine.transport=ucx"], &[], ucx_bell)?;
    opens_only(&["--mode", "aggregated", "--set", "engine.transport=ucx"], &[], ucx_bell)?;
    opens_only(&["--mode", "aggregated", "--set", "engine.transport=tcp"], &[], none)?;
    let port = free_port()?;
    let listen = format!("prefill.engine.tcp_listen=127.0.0.1:{port}");
    opens_only(&["--set", "engine.transport=tcp", "--set", &listen], &[port], none)?;
    let (port, listen) = (free_port()?, "router.admin_listen=127.0.0.1:");
    opens_only(&["--set", &format!("{listen}{port}")], &[port], shm_socket)?;
    let ranks = ["--set", "decode.engine.tp=2", "--set", "decode.engine.ranks=processes"];
    opens_only(&ranks, &[], shm_socket)
}

/// Runs `baton serve`; returns its exit code and its errors.
fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(i32, String)> {
    let mut command = command()?;
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code().context("it was killed")?, said))
}

#[test]
fn ucx_over_tcp_is_refused_by_name() -> Result<()> {
    for list in ["tcp", "cma,tcp", "sm,tcp", "all", "^ib", ""] {
        let setting = format!("prefill.engine.ucx_tls={list:?}");
        let (code, said) = refused(&["--set", "engine.transport=ucx", "--set", &setting], &[])?;
        assert!(code != 0 && said.contains("ucx_tls") && said.contains("UCX's tcp"), "{list:?}: {code} {said}");
    }
    let rdma = ["--set", "engine.transport=ucx", "--set", "decode.engine.ucx_tls=rc,cma,posix"];
    let (code, said) = refused(&rdma, &[])?;
    assert!(code != 0 && said.contains("ucx_trusts_fabric"), "{code} {said}");
    for variable in [("UCX_TLS", "tcp"), ("UCX_TLS", "all"), ("UCX_PROTO_EMULATION_ENABLE", "y")] {
        let (code, said) = refused(&["--set", "engine.transport=ucx"], &[variable])?;
        assert!(code != 0 && said.contains(variable.0), "{variable:?}: {code} {said}");
    }
    Ok(())
}
