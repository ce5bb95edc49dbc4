//! What is simulated: workers, links, settings of the router, faults; knows no file format.

use sched::cost::Fitted;
use sched::journey::JourneyConfig;
use sched::layout::Shape;
use sched::replica::ReplicaConfig;
use sched::route::{LeastLoaded, RoundRobin, RouteConfig, RoutePolicy};
use sched::{Role, Span, Time, WorkerId};

/// A deployment and the faults that befall it.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Its workers. Every decode worker can read from every prefill worker.
    pub workers: Vec<WorkerSpec>,
    /// How KV moves.
    pub link: LinkSpec,
    /// One way of any message between two processes.
    pub hop: Span,
    /// Which routes exist.
    pub route: RouteConfig,
    /// Which of them is taken.
    pub policy: Policy,
    /// Requests that are inside at a time; more are refused.
    pub requests_max: usize,
    /// How patient requests are.
    pub journey: JourneyConfig,
    /// Choices of requests of several that run at a time, for each worker that generates.
    pub wide_choices_max: u32,
    /// How often the router renews request leases.
    pub renew_every: Span,
    /// How often workers report their load.
    pub load_every: Span,
    /// Which quantile of a request's ITLs is compared with its tail target, in (0, 1].
    pub itl_quantile: f64,
    /// Workers that die.
    pub faults: Vec<Fault>,
    /// Links that carry no KV cache although everybody is there.
    pub broken_links: Vec<BrokenLink>,
    /// Size of the vocabulary that modelled tokens are drawn from.
    pub vocab: u32,
    /// Events after which the simulation gives up.
    pub events_max: u64,
}

/// One worker.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// What it is for.
    pub role: Role,
    /// Its scheduler, as it would be configured live.
    pub replica: ReplicaConfig,
    /// How fast its device is.
    pub cost: Fitted,
    /// Its KV cache. `block_tokens` has to be the scheduler's.
    pub kv: Shape,
}

/// How fast each worker's link is, in either direction; pulls at one end of it share that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSpec {
    /// Bandwidth.
    pub bytes_per_second: u64,
    /// From a pull's last byte until it is known to be there.
    pub latency: Span,
}

/// A worker dies and does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// Index in `SimConfig::workers`.
    pub worker: usize,
}

/// Every pull of a reader from a giver fails for some time; control goes on. The other direction is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenLink {
    /// Index of the giver in `SimConfig::workers`.
    pub giver: usize,
    /// Index of the reader.
    pub reader: usize,
    /// From when on.
    pub from: Time,
    /// Until when; `None` is for good.
    pub until: Option<Time>,
}

impl BrokenLink {
    /// Whether a pull that ends now fails.
    pub(crate) fn breaks(&self, now: Time, giver: WorkerId, reader: WorkerId) -> bool {
        let here = (self.giver, self.reader) == (giver.0 as usize, reader.0 as usize);
        here && self.from <= now && self.until.is_none_or(|until| now < until)
    }
}

/// A routing policy by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The shortest queue.
    LeastLoaded,
    /// Everyone in turn.
    RoundRobin,
}

impl Policy {
    pub(crate) fn build(self) -> Box<dyn RoutePolicy> {
        match self {
            Policy::LeastLoaded => Box::new(LeastLoaded),
            Policy::RoundRobin => Box::new(RoundRobin::default()),
        }
    }
}
