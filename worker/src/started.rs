//! Reports of a worker process to its supervisor: progress of the start, then readiness; one JSON line each.

use serde::{Deserialize, Serialize};

/// Description of a worker that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Role.
    pub role: String,
    /// Incarnation.
    pub instance: String,
    /// Address for routers and peers, `host:port`.
    pub address: String,
    /// Address of health and metrics, `host:port`.
    pub admin_address: String,
    /// Name of the model.
    pub model: String,
    /// Backend and kernel set that compute.
    pub backend: String,
    /// Transport that moves KV.
    pub transport: String,
    /// Ranks, such as `tp 2 × pp 2 (processes)`; empty for a single rank.
    #[serde(default)]
    pub ranks: String,
    /// Longest sequence in tokens.
    pub context_max: u32,
    /// Tokens that the KV pool holds.
    pub capacity_tokens: u64,
    /// Pairs with the configured givers; empty at a worker that takes nothing.
    #[serde(default)]
    pub pairs: Vec<PairReport>,
}

/// Outcome of trying a giver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairReport {
    /// Address of the giver.
    pub giver: String,
    /// Transport that was tried.
    pub transport: String,
    /// Rate measured when the pair came up.
    pub bytes_per_second: Option<u64>,
    /// Reason for which the pair is not up.
    pub problem: Option<String>,
    /// Cause to blame if the pair is not up.
    #[serde(default)]
    pub blame: PairBlame,
}

/// Cause that keeps a pair from coming up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairBlame {
    /// The transport or the system below it: another transport may work.
    #[default]
    Transport,
    /// The workers do not fit each other (number formats, versions): no transport helps.
    Workers,
}

/// Report of a worker about its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Not ready yet; the text is the current work.
    Loading(String),
    /// Ready.
    Ready(Box<Started>),
}

impl Report {
    /// Returns the report as a line of JSON, without line end.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Parses a line.
    ///
    /// # Errors
    /// The line is no report.
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
