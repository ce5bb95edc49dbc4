//! Journeys against scripted workers (scenarios) and against hostile ones (properties).

mod handoffs;
mod losses;
mod properties;
mod scenarios;
mod script;

use std::sync::Arc;

use super::*;
use crate::cluster::{Cluster, Link, WorkerInfo};
use crate::route::{Picker, RoundRobin, RouteConfig, RoutePolicy};
use crate::{CompatKey, InstanceId, RequestId, Role, SamplingParams, Slo, Span};

/// A cluster in which every reader can read from every giver, and the policy over it.
struct World {
    cluster: Cluster,
    policy: Box<dyn RoutePolicy>,
    config: RouteConfig,
}

impl World {
    /// One letter per worker: p, d or a. The first is worker 0.
    fn new(roles: &str) -> World {
        let policy = Box::new(RoundRobin::default());
        let mut world = World { cluster: Cluster::default(), policy, config: RouteConfig::default() };
        for letter in roles.chars() {
            world.join(letter);
        }
        world
    }

    fn join(&mut self, letter: char) -> WorkerId {
        let role = match letter {
            'p' => Role::Prefill,
            'd' => Role::Decode,
            'a' => Role::Aggregated,
            other => panic!("no role {other}"),
        };
        let instance = InstanceId(self.cluster.workers().last().map_or(100, |w| w.info.instance.0 + 1));
        let id = self.cluster.join(WorkerInfo {
            instance,
            role,
            peer_address: format!("host{}:1", instance.0).into(),
            compat: CompatKey(1),
            context_max: 1_000,
            capacity_tokens: 1_000,
        });
        let givers: Vec<InstanceId> = self.cluster.of_role(Role::Prefill).map(|w| w.info.instance).collect();
        let readers: Vec<WorkerId> = self.cluster.of_role(Role::Decode).map(|w| w.id).collect();
        for reader in readers {
            let link = |giver| Link { giver, transport: "tcp".into(), bytes_per_second: 1 };
            self.cluster.set_links(reader, givers.iter().copied().map(link));
        }
        id
    }

    fn on(&mut self, journey: &mut Journey, now: Time, event: JourneyEvent) {
        let mut picker = Picker { cluster: &mut self.cluster, policy: &mut *self.policy, config: &self.config };
        journey.on(now, event, &mut picker);
    }
}

fn parts(choices: u32, max_tokens: u32) -> Parts {
    Parts {
        id: RequestId(1),
        prompt: [TokenId(7), TokenId(8), TokenId(9)].into(),
        choices,
        params: Arc::new(SamplingParams { max_tokens, ..SamplingParams::default() }),
        slo: Slo::default(),
    }
}

fn config() -> JourneyConfig {
    JourneyConfig {
        attempts_max: 3,
        lost_handoffs: LostHandoffs::Fail,
        worker_wait: Span::from_ms(50),
        lost_wait: Span::from_ms(500),
        retry_pause: Span::from_ms(10),
        deadline: Span::from_ms(1_000),
    }
}
