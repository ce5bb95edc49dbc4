//! What a worker process tells its supervisor: how far its start is, then that it is ready; one JSON line each.

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
    /// Its ranks, such as `tp 2 × pp 2 (processes)`; empty where it is one.
    #[serde(default)]
    pub ranks: String,
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
    /// What it did not come up for.
    #[serde(default)]
    pub blame: PairBlame,
}

/// What keeps a pair from coming up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairBlame {
    /// The transport, or whatever it stands on: another one may do.
    #[default]
    Transport,
    /// The two do not fit each other (number formats, versions): no transport helps.
    Workers,
}

/// One thing that a worker says of its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is not ready yet and does this.
    Loading(String),
    /// It is ready.
    Ready(Box<Started>),
}

impl Report {
    /// The line, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What a worker says in this line.
    ///
    /// # Errors
    /// The line is not one of ours.
    pub fn from_line(line: &str) -> Result<Report, serde_json::Error> {
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
            ranks: "tp 2 × pp 1 (threads)".into(),
            context_max: 4096,
            capacity_tokens: 8192,
            pairs: vec![PairReport {
                giver: "127.0.0.1:3".into(),
                transport: "ucx".into(),
                bytes_per_second: None,
                problem: Some("no right to read its memory".into()),
                blame: PairBlame::Transport,
            }],
        };
        for report in [Report::Ready(Box::new(started)), Report::Loading("packing weights".into())] {
            let line = report.to_line();
            assert!(!line.contains('\n'));
            assert_eq!(Report::from_line(&line).unwrap(), report);
        }
        assert!(Report::from_line("hello").is_err());
    }
}
