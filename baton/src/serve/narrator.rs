//! What `serve` prints: one line per thing that is ready, or nothing when another command runs a deployment inside.

use std::net::SocketAddr;

use super::child::Child;

/// Prints, or keeps quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrator {
    /// To standard output.
    Aloud,
    /// Not at all.
    Silent,
}

impl Narrator {
    /// Any line.
    pub fn say(self, line: &str) {
        match self {
            Narrator::Aloud => println!("{line}"),
            Narrator::Silent => {}
        }
    }

    /// A child is ready.
    pub fn ready(self, name: &str, child: &Child) {
        let said = &child.started;
        self.say(&format!(
            "{name:<12} ready  pid {:<7} {}  metrics http://{}/metrics  {}, {} KV tokens",
            child.pid, said.address, said.admin_address, said.backend, said.capacity_tokens
        ));
        for pair in &said.pairs {
            if let Some(rate) = pair.bytes_per_second {
                let gb_per_second = rate as f64 / 1e9;
                self.say(&format!(
                    "{:<12} ready  {} from {} at {gb_per_second:.1} GB/s",
                    "kv", pair.transport, pair.giver
                ));
            }
        }
    }

    /// Everything is ready.
    pub fn open(self, address: SocketAddr, model: &str) {
        self.say(&format!("{:<12} ready  http://{address}  model {model}", "router"));
        self.say(&format!(
            "try: curl -N http://{address}/v1/chat/completions -H 'content-type: application/json' \
             -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hello! Who are you?\"}}], \"stream\": true}}'"
        ));
    }
}
