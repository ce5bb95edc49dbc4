//! Rates at which another process reads and writes memory of this one: the owner's side. The peer is this program
//! again.

use std::fmt;
use std::str::FromStr;

use kernels::cuda::IpcHandle;
use serde_json::{Value, json};

use super::bandwidth::{expect_words, filled};
use super::{Bench, Failure};
use crate::bounded;
use crate::options::Options;

const SHARED_BYTES: usize = 512 << 20;
/// Word that the owner writes and the peer must find.
const OWNERS_WORD: u32 = 0x0BA7_0001;
/// Word that the peer writes and the owner must find.
pub(super) const PEERS_WORD: u32 = 0x0BA7_0002;

pub(super) fn measure(bench: &Bench, options: &Options) -> Result<Value, Failure> {
    let bytes = bench.buffer_bytes(SHARED_BYTES)?;
    let shared = filled(bench, bytes, OWNERS_WORD)?;
    let task = Task { handle: shared.share()?, bytes, word: OWNERS_WORD };
    let mut peer = options.again(&["--peer"]).map_err(|error| Failure::Peer(error.to_string()))?;
    // When the peer ends it has closed the mapping, so `shared` outlives it.
    let ended = bounded::run(&mut peer, &format!("{task}\n"), options.limit)?;
    if !ended.status.success() {
        return Err(Failure::Peer(format!("{}: {}", ended.status, ended.complaint)));
    }
    expect_words(&shared, &[0, bytes / 2, bytes - 4], PEERS_WORD)?;
    let measured: Value = serde_json::from_str(&ended.output)
        .map_err(|error| Failure::Peer(format!("its result is not JSON: {error}")))?;
    Ok(json!({
        "owner_device": options.device,
        "peer_device": options.peer_device.unwrap_or(options.device),
        "bytes": bytes,
        "peer": measured,
    }))
}

/// The owner's message to the peer, one line of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) handle: IpcHandle,
    pub(super) bytes: usize,
    pub(super) word: u32,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.handle, self.bytes, self.word)
    }
}

impl FromStr for Task {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Task, Failure> {
        let wrong = || Failure::Peer(format!("its task is \"HANDLE BYTES WORD\", not {line:?}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [handle, bytes, word] = words[..] else { return Err(wrong()) };
        Ok(Task {
            handle: handle.parse()?,
            bytes: bytes.parse().map_err(|_| wrong())?,
            word: word.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_survives_its_line() {
        let line = format!("{} 1024 7", "0a".repeat(64));
        let task: Task = line.parse().unwrap();
        assert_eq!((task.bytes, task.word, task.to_string()), (1024, 7, line));
    }

    #[test]
    fn what_is_no_task_is_refused() {
        let handle = "0a".repeat(64);
        for line in
            ["", "a b", &format!("{handle} 1024"), &format!("{handle} x 7"), &format!("{handle} 1 7 9"), "zz 1 7"]
        {
            assert!(line.parse::<Task>().is_err(), "{line}");
        }
    }
}
