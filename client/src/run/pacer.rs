//! Pacer: says on time which request is due. Knows no server.
//!
//! tokio's timers have steps of 1 ms, so a thread of its own waits: the system wakes it within some 50 microseconds.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::body::Bodies;
use crate::workload::Row;
use crate::{Error, Result};

/// Most due requests that wait for the runtime. Beyond it the pacer itself is late, which shows as lag.
const DUE_MAX: usize = 1024;
/// Most bodies that are written ahead.
const AHEAD_MAX: usize = 64;

/// Request that is due.
pub(super) struct Due {
    pub(super) row: usize,
    pub(super) planned_us: u64,
    pub(super) body: Bytes,
}

/// Threads that write bodies and pace them; dropping it ends both.
pub(super) struct Pacer {
    pub(super) due: mpsc::Receiver<Due>,
    _lifeline: Sender<()>,
}

impl Pacer {
    /// Starts to pace `rows` from `start` on.
    pub(super) fn start(rows: Arc<[Row]>, bodies: Arc<Bodies>, start: Instant) -> Result<Pacer> {
        let (tell, due) = mpsc::channel(DUE_MAX);
        let (lifeline, ended) = channel::<()>();
        let (ready, written) = sync_channel(AHEAD_MAX);
        // Bodies are written before their requests are due: in a burst, the long prompt of one delays no other.
        thread("writer", move || {
            for (row, next) in rows.iter().enumerate() {
                let due = Due { row, planned_us: next.at_us, body: bodies.body(row, next) };
                if ready.send(due).is_err() {
                    return;
                }
            }
        })?;
        thread("pacer", move || {
            for next in written {
                let moment = start + Duration::from_micros(next.planned_us);
                let wait = moment.saturating_duration_since(Instant::now());
                if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) || tell.blocking_send(next).is_err() {
                    return;
                }
            }
        })?;
        Ok(Pacer { due, _lifeline: lifeline })
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Error::Settings(format!("no thread could be started for the {name}: {error}")))
}
