//! Journeys against scripted workers (scenarios) and against hostile ones (properties).

mod handoffs;
mod losses;
mod properties;
mod scenarios;
mod scores;
mod script;

use std::sync::Arc;

use super::*;
use crate::cluster::{Link, WorkerInfo};
use crate::route::{RoundRobin, RouteConfig, Routing};
use crate::{CompatKey, InstanceId, ModelId, RequestId, Role, SamplingParams, Slo, Span};

const MODEL: ModelId = ModelId(0);

/// A cluster in which every reader can read from every giver, and the policy over it.
struct World {
    routing: Routing,
    joined: u32,
}

impl World {
    /// One letter per worker: p, d or a. The first is worker 0.
    fn new(roles: &str) -> World {
        World::with(roles, RouteConfig::default())
    }

    fn with(roles: &str, config: RouteConfig) -> World {
        let mut world = World { routing: Routing::new(Box::new(RoundRobin::default()), config), joined: 0 };
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
        let instance = InstanceId(100 + u128::from(self.joined));
        let id = WorkerId(self.joined);
        self.joined += 1;
        let info = WorkerInfo {
            name: id.to_string().into(),
            instance,
            role,
            model: MODEL,
            weights: 1,
            peer_address: format!("host{}:1", instance.0).into(),
            compat: CompatKey(1),
            context_max: 1_000,
            capacity_tokens: 1_000,
            sequences_max: 8,
        };
        self.routing.join(id, info);
        let givers: Vec<InstanceId> =
            self.routing.cluster.of_role(MODEL, Role::Prefill).map(|w| w.info.instance).collect();
        let readers: Vec<WorkerId> = self.routing.cluster.of_role(MODEL, Role::Decode).map(|w| w.id).collect();
        for reader in readers {
            let link = |giver| Link { giver, transport: "tcp".into(), bytes_per_second: 1 };
            self.routing.cluster.set_links(reader, givers.iter().copied().map(link));
        }
        id
    }

    fn on(&mut self, journey: &mut Journey, now: Time, event: JourneyEvent) {
        journey.on(now, event, &mut self.routing);
    }
}

fn parts(choices: u32, max_tokens: u32) -> Parts {
    Parts {
        id: RequestId(1),
        model: MODEL,
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
