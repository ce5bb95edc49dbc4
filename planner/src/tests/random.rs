//! Random deployments, loads and faults: all that ends well has the right tokens, and nothing ever leaks.

use proptest::prelude::*;
use sched::journey::{Ending, LostHandoffs};
use sched::replica::{LaneConfig, LaneWork};
use sched::{FailureKind, Span, Time};

use super::deployments::{deployment, workload};
use crate::{BrokenLink, Fault, Policy, SimConfig, simulate};

prop_compose! {
    fn hostile_deployment()(
        roles in prop::sample::select(vec!["pd", "pdd", "ppd", "ppdd", "pda", "aa", "a"]),
        blocks in 25_u32..200,
        policy in prop::sample::select(vec![Policy::LeastLoaded, Policy::RoundRobin]),
        sequences_max in 3_u32..64,
        step_tokens_max in 64_u32..600,
        steps_in_flight in 1_u32..=2,
        two_lanes in any::<bool>(),
        queue_legs_max in 3_u32..100,
        link_mb_per_second in 1_u64..1_000,
        deadline_s in 1_u64..60,
        faults in prop::collection::vec((0_u64..2_000_000, 0_usize..4), 0..3),
        broken in prop::collection::vec((0_usize..4, 0_usize..4, 0_u64..2_000_000, prop::option::of(0_u64..9_000_000)), 0..5),
        local in any::<bool>(),
    ) -> SimConfig {
        let mut config = deployment(roles, blocks);
        for worker in &mut config.workers {
            worker.replica.sequences_max = sequences_max;
            let lane = LaneConfig { step_tokens_max, steps_in_flight, ..worker.replica.lanes[0] };
            worker.replica.lanes = match two_lanes {
                true => [LaneWork::Prefill, LaneWork::Decode].map(|work| LaneConfig { work, ..lane }).to_vec(),
                false => vec![lane],
            };
            worker.replica.queue_legs_max = queue_legs_max;
        }
        config.policy = policy;
        config.link.bytes_per_second = link_mb_per_second * 1_000_000;
        config.journey.deadline = Span::from_secs(deadline_s);
        let link = |(giver, reader, from, until): (usize, usize, u64, Option<u64>)| {
            BrokenLink { giver, reader, from: Time(from), until: until.map(Time) }
        };
        config.broken_links = broken.into_iter().map(link).collect();
        if local {
            config.journey.lost_handoffs = LostHandoffs::PrefillLocally;
        }
        config.faults = faults.into_iter().map(|(at, worker)| Fault { at: Time(at), worker }).collect();
        config
    }
}

proptest! {
    #[test]
    fn every_request_ends_once_with_the_right_tokens_and_nothing_leaks(
        config in hostile_deployment(), seed in any::<u64>(), rate_per_second in 5_u32..100,
    ) {
        let arrivals = workload(seed, f64::from(rate_per_second), 40).arrivals();
        let calm = simulate(&deployment("aa", 2_000), &arrivals).unwrap();
        // An error would mean a leak, an inconsistent account, or a request that never ends.
        let report = simulate(&config, &arrivals).unwrap();
        prop_assert_eq!(report.requests.len(), arrivals.len());
        for (request, calm) in report.requests.iter().zip(&calm.requests) {
            match &request.ending {
                Ending::Done => prop_assert_eq!(request.output_hash, calm.output_hash),
                Ending::Failed(failure) => prop_assert!(
                    !matches!(failure.kind, FailureKind::Internal | FailureKind::Incompatible | FailureKind::InvalidRequest),
                    "{:?}", failure
                ),
            }
        }
    }
}
