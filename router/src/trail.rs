//! Trail of one request through the workers, written by the dispatcher and read when the request ends; knows no HTTP.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::RequestId;

use crate::traces::Parent;

/// Most workers that are remembered by name.
const WORKERS_MAX: usize = 8;

/// Name of a request and what has become of it inside; all prompts of one client request share it.
#[derive(Debug)]
pub(crate) struct Trail {
    name: Box<str>,
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only traces ask for it"))]
    parent: Option<Parent>,
    retries: AtomicU32,
    workers: Mutex<Visited>,
}

/// Workers that a request went to, in order, each once. Shown as `prefill-0,decode-0`, with `+N` for further ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Visited {
    names: Vec<Arc<str>>,
    further: u32,
}

impl Trail {
    /// Begins the trail of the request that its client calls `name`, and that belongs to its trace if it says so.
    pub(crate) fn of(name: &str, parent: Option<Parent>) -> Trail {
        Trail { name: name.into(), parent, retries: AtomicU32::new(0), workers: Mutex::default() }
    }

    /// Client's name for the request.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Number of the request at the workers, beside the name: `None` if the name is that number, as the router made it.
    pub(crate) fn id_beside_name(&self, id: RequestId) -> Option<String> {
        let id = id.to_string();
        (id != *self.name).then_some(id)
    }

    /// Place in the client's trace.
    #[cfg(feature = "otlp")]
    pub(crate) fn parent(&self) -> Option<Parent> {
        self.parent
    }

    /// Notes that a leg goes to a worker.
    pub(crate) fn visits(&self, worker: Arc<str>) {
        self.lock().add(worker);
    }

    /// Notes that a leg was lost and is tried again.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Further attempts so far.
    pub(crate) fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Workers so far.
    pub(crate) fn visited(&self) -> Visited {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Visited> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visited {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn add(&mut self, worker: Arc<str>) {
        match self.names.len() {
            _ if self.names.contains(&worker) => {}
            ..WORKERS_MAX => self.names.push(worker),
            // One that is not remembered may count twice: the number says that there are more, not how many differ.
            _ => self.further = self.further.saturating_add(1),
        }
    }
}

impl fmt::Display for Visited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.names.iter().enumerate() {
            write!(f, "{}{name}", if place == 0 { "" } else { "," })?;
        }
        if self.further > 0 {
            write!(f, ",+{}", self.further)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by reading logs: lines said the same name as `request` and as `id`.
    #[test]
    fn a_name_that_is_the_number_is_said_once() {
        let id = RequestId(7);
        assert_eq!(Trail::of(&id.to_string(), None).id_beside_name(id), None);
        assert_eq!(Trail::of("mine", None).id_beside_name(id), Some(id.to_string()));
    }

    #[test]
    fn workers_are_named_once_in_order_and_within_a_bound() {
        let trail = Trail::of("req-1", None);
        assert!(trail.visited().is_empty());
        for worker in ["prefill-0", "decode-1", "prefill-0"] {
            trail.visits(worker.into());
        }
        assert_eq!(trail.visited().to_string(), "prefill-0,decode-1");
        (0..20).for_each(|worker| trail.visits(format!("w{worker}").into()));
        let shown = trail.visited().to_string();
        assert_eq!(shown, "prefill-0,decode-1,w0,w1,w2,w3,w4,w5,+14");
    }
}
