//! Small deployments and workloads that several tests share.

use crate::{LinkSpec, Poisson, Policy, SimConfig, WorkerSpec};
use sched::cost::Fitted;
use sched::handoff::LeaseKey;
use sched::journey::JourneyConfig;
use sched::layout::{KvDtype, Shape, TileOrder};
use sched::replica::{LaneConfig, LaneWork, LeaseConfig, PrefixCache, Reading, ReplicaConfig, STEPS_IN_FLIGHT_MAX};
use sched::route::RouteConfig;
use sched::scheduling::Scheduling;
use sched::share::ShareConfig;
use sched::{Role, Slo, Span};

/// One letter per worker: p, d, a or c.
pub(super) fn deployment(roles: &str, blocks: u32) -> SimConfig {
    let workers = roles.chars().zip((1..=u8::MAX).cycle()).map(|(letter, seed)| worker(letter, blocks, seed)).collect();
    SimConfig {
        workers,
        link: LinkSpec { bytes_per_second: 1_000_000_000, latency: Span(100) },
        hop: Span(200),
        route: RouteConfig::default(),
        policy: Policy::LeastLoaded,
        requests_max: usize::MAX,
        journey: JourneyConfig::default(),
        wide_choices_max: u32::MAX,
        renew_every: Span::from_secs(5),
        load_every: Span::from_secs(1),
        itl_quantile: 0.99,
        faults: Vec::new(),
        broken_links: Vec::new(),
        vocab: 32_000,
        events_max: 5_000_000,
    }
}

fn worker(letter: char, blocks: u32, lease_key: u8) -> WorkerSpec {
    let role = match letter {
        'p' => Role::Prefill,
        'd' => Role::Decode,
        'a' => Role::Aggregated,
        'c' => Role::Colocated,
        other => panic!("no role {other}"),
    };
    let lane = |work: &LaneWork| LaneConfig {
        work: *work,
        step_tokens_max: 512,
        step_layers_max: 12,
        steps_in_flight: STEPS_IN_FLIGHT_MAX,
    };
    let replica = ReplicaConfig {
        lanes: LaneWork::of_role(role).iter().map(lane).collect(),
        blocks_total: blocks,
        block_tokens: 16,
        layers: 12,
        // Prompts of the workload have tokens of 20 bits.
        vocab: 1 << 20,
        context_max: 2_048,
        sequences_max: 64,
        queue_legs_max: 100_000,
        pulls_per_giver_max: 4,
        pull_tokens_max: 1 << 20,
        reading: Reading::WhenComplete,
        prefix_cache: PrefixCache::On,
        filling_share: 0.5,
        scheduling: Scheduling::default(),
        lease: LeaseConfig::default(),
        hash_salt: 0,
        lease_key: LeaseKey::new([lease_key; 32]),
    };
    let kv = Shape {
        layers_total: 12,
        kv_heads_total: 12,
        head_dim: 64,
        block_tokens: 16,
        dtype: KvDtype::Bf16,
        tile_order: TileOrder("modelled".into()),
        tile_bytes: 2_048,
    };
    let share = (role == Role::Colocated).then(ShareConfig::default);
    WorkerSpec { role, replica, cost: Fitted::example(), kv, share }
}

pub(super) fn workload(seed: u64, rate_per_second: f64, requests: u32) -> Poisson {
    Poisson {
        seed,
        rate_per_second,
        requests,
        prompt_tokens: 1..=300,
        output_tokens: 1..=40,
        choices: 1..=3,
        slo: Slo { class: 0, ttft: Some(Span::from_ms(500)), tpot: Some(Span::from_ms(50)), itl_tail: None },
    }
}
