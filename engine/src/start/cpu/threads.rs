//! Followers as threads of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use kernels::collective::Segment;

use super::crew::Crew;
use crate::backend::Notify;
use crate::{EngineError, KvStore};

/// Threads of all followers; dropping this waits for them. They end when the leader has closed the segment.
pub(super) struct Threads {
    segment: Arc<Segment>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) fn start(
    crew: &Crew,
    kv: &KvStore,
    segment: &Arc<Segment>,
    notify: &Notify,
) -> Result<Threads, EngineError> {
    let mut started = Threads { segment: Arc::clone(segment), threads: Vec::new() };
    for rank in 1..crew.grid.ranks() {
        let (crew, kv, segment, notify) = (crew.clone(), kv.clone(), Arc::clone(segment), Arc::clone(notify));
        let body = move || {
            let said = match catch_unwind(AssertUnwindSafe(|| crew.follow(rank, &segment, &kv))) {
                Ok(Ok(())) => "its thread has ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "its thread panicked".to_owned(),
            };
            segment.declare_ended(rank as usize, &said);
            notify();
        };
        let thread = std::thread::Builder::new().name(format!("rank-{rank}")).spawn(body);
        let failed = |error: std::io::Error| EngineError::Thread { name: "rank", reason: error.to_string() };
        started.threads.push(thread.map_err(failed)?);
    }
    Ok(started)
}

impl Drop for Threads {
    fn drop(&mut self) {
        // After a failed start there may be no leader that has closed the segment.
        self.segment.declare_ended(0, "the worker stops");
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a rank's thread panicked at its end");
            }
        }
    }
}
