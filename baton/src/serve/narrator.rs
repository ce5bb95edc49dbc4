//! Lines that `serve` prints when something is ready; none when another command runs a deployment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use decode_server::DecodeRole;
use node::door::is_certificate_for;
use node::telemetry::Stream;
use router::TlsConfig;
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
        // Elsewhere its operator has nothing to set.
        let admin = match said.role == DecodeRole::Colocated.label() {
            true => format!(", admin http://{}", said.admin_address),
            false => String::new(),
        };
        self.say(&format!("{name:<12} ready  pid {pid}  {backend}{ranks}, room for {tokens} tokens{admin}"));
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
    pub fn open(self, address: SocketAddr, model: &str, tls: &TlsConfig, access: Access) {
        self.say(&format!("{:<12} ready  {}://{address}  model {model}", "router", tls.scheme()));
        self.say(&format!("try: {}", to_try(reached_at(address), tls, access)));
    }
}

/// Command that sends a first request.
fn to_try(address: SocketAddr, tls: &TlsConfig, access: Access) -> String {
    let (host, trust) = match tls.certificate() {
        None => (address.ip().to_string(), String::new()),
        Some(certificate) => trusted(address.ip(), certificate),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let (scheme, port) = (tls.scheme(), address.port());
    let key = match access {
        Access::Open => "",
        Access::Keys => " -H 'authorization: Bearer YOUR_KEY'",
    };
    format!(
        "curl -N{trust} {scheme}://{host}:{port}/v1/chat/completions{key} -H 'content-type: application/json' \
         -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello! Who are you?\"}}], \"stream\": true}}'"
    )
}

/// Returns the name under which the certificate can be checked here, with the option that trusts it. Curl does not know
/// whoever has signed it; where it is for another host, it cannot be checked here.
fn trusted(ip: IpAddr, certificate: &Path) -> (String, String) {
    let names = [Some(ip.to_string()), ip.is_loopback().then(|| "localhost".to_owned())];
    match names.into_iter().flatten().find(|name| is_certificate_for(certificate, name)) {
        Some(name) => {
            let file = std::path::absolute(certificate).unwrap_or_else(|_| certificate.to_owned());
            (name, format!(" --cacert {}", quoted(&file.to_string_lossy())))
        }
        None => (ip.to_string(), " -k".to_owned()),
    }
}

/// Writes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(address: &str, certificate: &Path) -> String {
        let tls = TlsConfig { key_file: certificate.to_owned(), cert_file: certificate.to_owned() };
        let command = to_try(reached_at(address.parse().unwrap()), &tls, Access::Open);
        command.rsplit_once("/v1/").unwrap().0.to_owned()
    }

    /// Found by trying: curl refused the certificate, or the host.
    #[test]
    fn the_command_reaches_the_server() {
        let none = Path::new("");
        assert_eq!(begins("0.0.0.0:80", none), "curl -N http://127.0.0.1:80");
        assert_eq!(begins("[::1]:80", none), "curl -N http://[::1]:80");
        // The certificate is for the name localhost.
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/tests/support/certificates/one.pem");
        let shown = quoted(&file.to_string_lossy());
        assert_eq!(begins("127.0.0.1:80", &file), format!("curl -N --cacert {shown} https://localhost:80"));
        assert_eq!(begins("192.0.2.1:80", &file), "curl -N -k https://192.0.2.1:80");
    }

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!([quoted("/a/b-1.pem"), quoted("/a b/it's.pem")], ["/a/b-1.pem", r"'/a b/it'\''s.pem'"]);
    }
}
