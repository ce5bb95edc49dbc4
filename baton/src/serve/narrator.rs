//! Lines that `serve` prints when something is ready; none when another command runs a deployment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use node::telemetry::Stream;
use worker::started::PairReport;

use super::child::Child;

/// Printer that may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrator {
    /// Prints to standard output.
    Aloud,
    /// Prints nothing.
    Silent,
}

impl Narrator {
    /// Prints a line.
    pub fn say(self, line: &str) {
        match self {
            Narrator::Aloud => Stream::Stdout.line(line),
            Narrator::Silent => {}
        }
    }

    /// Reports what a child does that is not ready yet.
    pub fn loading(self, name: &str, doing: &str) {
        self.say(&format!("{name:<12} {doing}"));
    }

    /// Reports that a child is ready.
    pub fn ready(self, name: &str, child: &Child) {
        let said = &child.started;
        let ranks = if said.ranks.is_empty() { String::new() } else { format!(", {}", said.ranks) };
        let (pid, backend, tokens) = (child.pid, &said.backend, said.capacity_tokens);
        self.say(&format!("{name:<12} ready  pid {pid}  {backend}{ranks}, room for {tokens} tokens"));
        tracing::debug!(worker = name, address = said.address, admin_address = said.admin_address, "worker is ready");
    }

    /// Reports that KV moves between all workers.
    pub fn pairs<'a>(self, children: impl Iterator<Item = &'a Child>) {
        let pairs: Vec<&PairReport> = children.flat_map(|child| &child.started.pairs).collect();
        let rates = pairs.iter().filter_map(|pair| pair.bytes_per_second).map(|rate| rate as f64 / 1e9);
        let (slowest, fastest) = rates.fold((f64::MAX, 0.0_f64), |(min, max), rate| (min.min(rate), max.max(rate)));
        let Some(first) = pairs.first() else { return };
        match pairs.len() {
            1 => self.say(&format!("{:<12} ready  {} at {fastest:.1} GB/s", "kv", first.transport)),
            count => {
                let rates = format!("{slowest:.1} to {fastest:.1} GB/s");
                self.say(&format!("{:<12} ready  {} between {count} pairs at {rates}", "kv", first.transport));
            }
        }
    }

    /// Reports that the deployment is ready.
    pub fn open(self, address: SocketAddr, model: &str, scheme: &str, access: Access) {
        self.say(&format!("{:<12} ready  {scheme}://{address}  model {model}", "router"));
        let address = reached_at(address);
        let key = match access {
            Access::Open => "",
            Access::Keys => " -H 'authorization: Bearer YOUR_KEY'",
        };
        self.say(&format!(
            "try: curl -N {scheme}://{address}/v1/chat/completions{key} -H 'content-type: application/json' \
             -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello! Who are you?\"}}], \"stream\": true}}'"
        ));
    }
}

/// Who may use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the port.
    Open,
    /// Holders of a key.
    Keys,
}

/// Returns the address by which this host reaches a listener at `address`, which may be all addresses.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(host, address.port())
}
