//! State that the table of workers keeps up to date, beside a recount of everything.

use super::*;

fn info(instance: u128, role: Role, compat: u128) -> WorkerInfo {
    WorkerInfo {
        name: "worker".into(),
        instance: InstanceId(instance),
        role,
        model: MODEL,
        weights: 1,
        peer_address: "localhost:1".into(),
        compat: CompatKey(compat),
        context_max: 1_000,
        capacity_tokens: 800 + instance as u64,
        sequences_max: 8,
    }
}

const MODEL: ModelId = ModelId(0);

fn join(cluster: &mut Cluster, info: WorkerInfo) -> WorkerId {
    let id = WorkerId((cluster.workers.len() + cluster.left.len()) as u32);
    cluster.join(id, info);
    id
}

fn link(giver: u128) -> Link {
    Link { giver: InstanceId(giver), transport: "tcp".into(), bytes_per_second: 1_000_000 }
}

#[test]
fn a_pair_is_up_when_the_reader_says_so_and_the_keys_agree() {
    let mut cluster = Cluster::default();
    let prefill = join(&mut cluster, info(1, Role::Prefill, 7));
    let other = join(&mut cluster, info(2, Role::Prefill, 8));
    let decode = join(&mut cluster, info(3, Role::Decode, 7));
    assert_eq!(cluster.link(prefill, decode), None);
    assert_eq!(cluster.sequence_tokens_max(MODEL), None);
    cluster.set_links(decode, [link(1), link(2)]);
    assert_eq!(cluster.link(prefill, decode), Some(&link(1)));
    assert_eq!(cluster.link(other, decode), None, "incompatible");
    assert_eq!(cluster.sequence_tokens_max(MODEL), Some(801));
    cluster.leave(prefill);
    assert_eq!(cluster.sequence_tokens_max(MODEL), None);
    assert_eq!(cluster.link(prefill, decode), None);
    let again = join(&mut cluster, info(1, Role::Prefill, 7));
    assert_ne!(again, prefill);
    assert_eq!(cluster.link(again, decode), Some(&link(1)), "the same incarnation, reconnected");
}

#[test]
fn a_draining_worker_is_known_but_no_route_leads_to_it() {
    let mut cluster = Cluster::default();
    let prefill = join(&mut cluster, info(1, Role::Prefill, 7));
    let decode = join(&mut cluster, info(3, Role::Decode, 7));
    cluster.set_links(decode, [link(1)]);
    cluster.set_intake(prefill, Intake::Draining);
    assert_eq!((cluster.sequence_tokens_max(MODEL), cluster.of_role(MODEL, Role::Prefill).count()), (None, 0));
    assert_eq!(cluster.link(prefill, decode), Some(&link(1)), "its offers can still be taken");
    cluster.set_intake(prefill, Intake::Open);
    assert_eq!(cluster.sequence_tokens_max(MODEL), Some(801));
}

#[test]
fn assigned_work_counts_until_the_next_report() {
    let mut cluster = Cluster::default();
    let id = join(&mut cluster, info(1, Role::Aggregated, 7));
    cluster.assign(id, Assigned { prefill_tokens: 100, sequences: 2 });
    cluster.assign(id, Assigned { prefill_tokens: 10, sequences: 1 });
    assert_eq!(cluster.get(id).map(|w| (w.waiting_tokens(), w.sequences())), Some((110, 3)));
    cluster.set_load(id, Load { running: 1, waiting: 1, waiting_tokens: 50, ..Load::default() });
    assert_eq!(cluster.get(id).map(|w| (w.waiting_tokens(), w.sequences())), Some((50, 2)));
}

/// Found by reading: of many that have left, the one with the least name was forgotten first, however lately it had left.
#[test]
fn a_hand_off_counts_for_a_worker_that_has_just_left() {
    let mut cluster = Cluster::default();
    let (giver, reader) = (join(&mut cluster, info(1, Role::Prefill, 7)), join(&mut cluster, info(2, Role::Decode, 7)));
    for instance in 0..2 * LEFT_MAX as u32 {
        let id = WorkerId(100 + instance);
        cluster.join(id, info(u128::from(100 + instance), Role::Decode, 7));
        cluster.leave(id);
    }
    cluster.leave(giver);
    assert_eq!(cluster.pair(giver, reader), Some((InstanceId(1), InstanceId(2))));
    assert_eq!(cluster.pair(WorkerId(100), reader), None, "long gone");
    assert_eq!(cluster.left.len(), LEFT_MAX);
}

#[test]
fn reaches_and_orders_follow_every_change() {
    let mut cluster = Cluster::default();
    let mut dice = 7_u64;
    let mut below = |limit: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % limit
    };
    for step in 0..4_000_u32 {
        let some = cluster.workers.keys().nth(below(12) as usize).copied();
        match (below(8), some) {
            (0 | 1, _) if cluster.workers.len() < 12 => {
                let role = Role::ALL[below(3) as usize];
                let model = ModelId(below(2) as u32);
                let joined = WorkerInfo { model, ..info(below(12).into(), role, below(2).into()) };
                cluster.join(WorkerId(step), joined);
            }
            (2, Some(id)) => drop(cluster.leave(id)),
            (3, Some(id)) => {
                cluster.set_intake(id, [Intake::Open, Intake::Draining, Intake::Quiet][below(3) as usize]);
            }
            (4 | 5, Some(id)) => {
                let links: Vec<Link> = (0..12).filter(|_| below(3) == 0).map(link).collect();
                cluster.set_links(id, links);
            }
            (6, Some(id)) => cluster.set_load(id, Load { waiting_tokens: below(9), ..Load::default() }),
            (_, Some(id)) => cluster.assign(id, Assigned { prefill_tokens: below(9), sequences: below(3) }),
            (_, None) => {}
        }
        let kinds = [0, 1].map(|model| [0, 1].map(|compat| (ModelId(model), CompatKey(compat))));
        let mut served = BTreeSet::new();
        for (model, compat) in kinds.into_iter().flatten() {
            let kind = Kind { model, compat };
            let of_kind = |role| cluster.of_role(model, role).filter(move |worker| worker.info.kind() == kind);
            let (givers, readers) = (of_kind(Role::Prefill), of_kind(Role::Decode));
            let readers: Vec<&Worker> = readers.collect();
            let pairs = givers.flat_map(|giver| readers.iter().map(move |reader| (giver, *reader)));
            let up = pairs.filter(|(giver, reader)| cluster.link(giver.id, reader.id).is_some());
            let reach = up.map(|(giver, reader)| giver.sequence_tokens_max().min(reader.sequence_tokens_max()));
            let alone = of_kind(Role::Aggregated).map(Worker::sequence_tokens_max);
            let longest = reach.chain(alone).max();
            assert_eq!(cluster.reaches.longest(kind), longest);
            assert_eq!(cluster.serving(model).is_none(), cluster.workers().all(|worker| worker.info.model != model));
            if cluster.serving(model) == Some(kind) {
                assert_eq!(cluster.sequence_tokens_max(model), longest);
                let among = cluster.models_that_reach().find(|(of, _)| *of == model).map(|(_, tokens)| tokens);
                assert_eq!(among, longest);
            }
            served.extend(longest.map(|_| model));
            for role in Role::ALL {
                let mut sorted: Vec<&Worker> = of_kind(role).collect();
                sorted.sort_by_key(|worker| (worker.waiting_tokens(), worker.sequences(), worker.id));
                assert!(cluster.by_prompts(kind, role).eq(sorted.iter().copied()));
                sorted.sort_by_key(|worker| (worker.sequences(), worker.id));
                assert!(cluster.by_sequences(kind, role).eq(sorted));
            }
        }
        let can_serve = |model: &ModelId| cluster.sequence_tokens_max(*model).is_some();
        assert!(served.iter().all(can_serve), "a kind that can serve is not asked");
        let linked: usize = cluster.readers.values().map(BTreeSet::len).sum();
        assert_eq!(linked, cluster.workers().map(|worker| worker.links.len()).sum::<usize>());
    }
}
