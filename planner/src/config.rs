//! Settings of a simulation: workers, links, router, faults; knows no file format.

use sched::cost::Fitted;
use sched::journey::JourneyConfig;
use sched::layout::Shape;
use sched::replica::ReplicaConfig;
use sched::route::{LeastLoaded, RoundRobin, RouteConfig, RoutePolicy};
use sched::share::ShareConfig;
use sched::{Role, Span, Time, WorkerId};

/// A deployment and its faults.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Workers. Every decode worker can read from every prefill worker.
    pub workers: Vec<WorkerSpec>,
    /// Links that move KV.
    pub link: LinkSpec,
    /// Time that any message takes from one process to another.
    pub hop: Span,
    /// Routes that exist.
    pub route: RouteConfig,
    /// Policy that chooses among routes.
    pub policy: Policy,
    /// Most requests inside at a time; further ones are refused.
    pub requests_max: usize,
    /// Patience and retries of requests.
    pub journey: JourneyConfig,
    /// Most choices of multi-choice requests that run at a time, for each worker that generates.
    pub wide_choices_max: u32,
    /// Time between two renewals of request leases by the router.
    pub renew_every: Span,
    /// Time between two load reports of a worker.
    pub load_every: Span,
    /// Quantile of a request's ITLs that is compared with its tail target, in (0, 1].
    pub itl_quantile: f64,
    /// Workers that die.
    pub faults: Vec<Fault>,
    /// Links that carry no KV cache although both ends are up.
    pub broken_links: Vec<BrokenLink>,
    /// Size of the vocabulary that modelled tokens come from.
    pub vocab: u32,
    /// Events after which the simulation gives up.
    pub events_max: u64,
}

/// A worker.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// Role of the worker.
    pub role: Role,
    /// Settings of its scheduler, as they would be live.
    pub replica: ReplicaConfig,
    /// Latency model of its device.
    pub cost: Fitted,
    /// Shape of its KV cache. `block_tokens` must equal the scheduler's.
    pub kv: Shape,
    /// Division of its device, which it needs if its role has two lanes.
    pub share: Option<ShareConfig>,
}

/// Speed of each worker's link, in either direction; concurrent pulls at one end share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSpec {
    /// Bandwidth in bytes per second.
    pub bytes_per_second: u64,
    /// Time from a pull's last byte until the reader knows of it.
    pub latency: Span,
}

/// A worker dies and does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Time of the death.
    pub at: Time,
    /// Index in `SimConfig::workers`.
    pub worker: usize,
}

/// A reader's pulls from a giver fail for some time; control messages arrive. The opposite direction works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenLink {
    /// Index of the giver in `SimConfig::workers`.
    pub giver: usize,
    /// Index of the reader in `SimConfig::workers`.
    pub reader: usize,
    /// First moment of the fault.
    pub from: Time,
    /// End of the fault; `None`: it lasts for ever.
    pub until: Option<Time>,
}

impl BrokenLink {
    pub(crate) fn breaks(&self, now: Time, giver: WorkerId, reader: WorkerId) -> bool {
        let here = (self.giver, self.reader) == (giver.0 as usize, reader.0 as usize);
        here && self.from <= now && self.until.is_none_or(|until| now < until)
    }
}

/// Routing policy by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Takes the worker with the shortest queue.
    LeastLoaded,
    /// Takes every worker in turn.
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
