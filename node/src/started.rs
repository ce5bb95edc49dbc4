//! What a worker process tells its supervisor once it is ready: one JSON line.

use serde::{Deserialize, Serialize};

/// A worker that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its role.
    pub role: String,
    /// Its incarnation.
    pub instance: String,
    /// Where routers and peers reach it, `host:port`.
    pub address: String,
    /// Where its health and metrics are, `host:port`.
    pub admin_address: String,
    /// The model it serves.
    pub model: String,
    /// What computes.
    pub backend: String,
    /// What moves KV.
    pub transport: String,
    /// Longest sequence in tokens.
    pub context_max: u32,
    /// Tokens its KV pool can hold.
    pub capacity_tokens: u64,
    /// The givers it was told to know at start, all tried; empty at a giver.
    #[serde(default)]
    pub pairs: Vec<PairReport>,
}

/// How trying a giver went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairReport {
    /// The giver's address.
    pub giver: String,
    /// The transport that was tried.
    pub transport: String,
    /// Measured when the pair came up.
    pub bytes_per_second: Option<u64>,
    /// Why it did not come up.
    pub problem: Option<String>,
}

impl Started {
    /// The line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// The worker that wrote this line.
    ///
    /// # Errors
    /// The line is not one of ours.
    pub fn from_line(line: &str) -> Result<Started, serde_json::Error> {
        serde_json::from_str(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_reads_what_a_worker_writes() {
        let started = Started {
            role: "prefill".into(),
            instance: "inst1".into(),
            address: "127.0.0.1:1".into(),
            admin_address: "127.0.0.1:2".into(),
            model: "demo".into(),
            backend: "cpu".into(),
            transport: "ucx".into(),
            context_max: 4096,
            capacity_tokens: 8192,
            pairs: vec![PairReport {
                giver: "127.0.0.1:3".into(),
                transport: "ucx".into(),
                bytes_per_second: None,
                problem: Some("no right to read its memory".into()),
            }],
        };
        let line = started.to_line();
        assert!(!line.contains('\n'));
        assert_eq!(Started::from_line(&line).unwrap(), started);
        assert!(Started::from_line("hello").is_err());
    }
}
