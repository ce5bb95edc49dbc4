//! Routes and policies over small clusters written as text.

use expect_test::expect;

use super::*;
use crate::cluster::{Link, PairPause, WorkerInfo};
use crate::message::Load;
use crate::{CompatKey, FailureKind, Role};

/// `roles` is one letter per worker (p, d, a); every decode worker is linked to every prefill worker of its key.
fn cluster(roles: &str) -> Cluster {
    least_loaded(roles, RouteConfig::default()).cluster
}

fn least_loaded(roles: &str, config: RouteConfig) -> Routing {
    routing(roles, Box::new(LeastLoaded), config)
}

const MODEL: ModelId = ModelId(0);

fn routing(roles: &str, policy: Box<dyn RoutePolicy>, config: RouteConfig) -> Routing {
    let mut routing = Routing::new(policy, config);
    for (place, letter) in roles.chars().enumerate() {
        let role = match letter {
            'p' => Role::Prefill,
            'd' => Role::Decode,
            'a' => Role::Aggregated,
            other => panic!("no role {other}"),
        };
        let info = WorkerInfo {
            name: "worker".into(),
            instance: InstanceId(place as u128),
            role,
            model: MODEL,
            weights: 1,
            peer_address: "localhost:1".into(),
            compat: CompatKey(1),
            context_max: 1_000,
            capacity_tokens: 500,
            sequences_max: 8,
        };
        routing.join(WorkerId(place as u32), info);
    }
    let links: Vec<Link> = (0..roles.len() as u128)
        .map(|giver| Link { giver: InstanceId(giver), transport: "tcp".into(), bytes_per_second: 1 })
        .collect();
    for reader in 0..roles.len() as u32 {
        routing.cluster.set_links(WorkerId(reader), links.clone());
    }
    routing
}

fn ask(prefill_tokens: u32, sequence_tokens: u32, avoid: &BTreeSet<WorkerId>) -> RouteAsk<'_> {
    let output = if sequence_tokens == prefill_tokens + 1 { Output::FirstToken } else { Output::Sequence };
    RouteAsk {
        now: Time(0),
        model: MODEL,
        begun: None,
        prompt: &[],
        prefill_tokens,
        sequence_tokens,
        choices: 1,
        output,
        slo: Slo::default(),
        ttft_slack: None,
        avoid,
        avoided: Avoided::LastResort,
    }
}

fn show(chosen: Option<Chosen>) -> String {
    match chosen.map(|chosen| chosen.route) {
        None => "none".into(),
        Some(Route::Pair { giver, reader }) => format!("{}>{}", giver.0, reader.0),
        Some(Route::Whole(worker)) => format!("{}", worker.0),
    }
}

fn picks(routing: &mut Routing, asks: &[(u32, u32)]) -> String {
    let nobody = BTreeSet::new();
    let shown: Vec<String> = asks.iter().map(|(p, s)| show(routing.route(&ask(*p, *s, &nobody)))).collect();
    shown.join(" ")
}

#[test]
fn round_robin_turns_on_both_sides() {
    let turns = |roles| routing(roles, Box::new(RoundRobin::default()), RouteConfig::default());
    let shown = picks(&mut turns("ppddd"), &[(10, 20); 7]);
    expect!["0>2 1>3 0>4 1>2 0>3 1>4 0>2"].assert_eq(&shown);
    let shown = picks(&mut turns("aaa"), &[(10, 20); 4]);
    expect!["0 1 2 0"].assert_eq(&shown);
}

#[test]
fn least_loaded_counts_what_it_has_just_assigned() {
    let shown = picks(
        &mut least_loaded("ppdd", RouteConfig::default()),
        &[(100, 200), (10, 20), (10, 20), (10, 20), (200, 300), (10, 20)],
    );
    expect!["0>2 1>3 1>2 1>3 1>2 0>3"].assert_eq(&shown);
}

/// Found by an attacker: which of two workers was asked, and so whether eight choices were refused, was chance.
#[test]
fn choices_go_where_all_of_them_are_begun_together() {
    let mut routing = least_loaded("ppdd", RouteConfig::default());
    for (place, role) in [(4, Role::Prefill), (5, Role::Decode)] {
        let first = &routing.cluster.of_role(MODEL, role).next().expect("a worker of the role").info;
        let roomy = WorkerInfo { instance: InstanceId(place), sequences_max: 20, ..first.clone() };
        routing.join(WorkerId(place as u32), roomy);
    }
    let link = |giver| Link { giver: InstanceId(giver), transport: "tcp".into(), bytes_per_second: 1 };
    for reader in [2, 3, 5] {
        routing.cluster.set_links(WorkerId(reader), [0, 1, 4].map(link));
    }
    let nobody = BTreeSet::new();
    let mut goes = |choices| show(routing.route(&RouteAsk { choices, ..ask(10, 20, &nobody) }));
    assert_eq!([goes(20), goes(9), goes(20)], ["4>5", "4>5", "4>5"]);
    assert_ne!(goes(21), "none", "a worker says that it is too many");
}

/// Found by reading: the roomiest worker of each role counted, also where only one of another role had the seats.
#[test]
fn a_whole_route_has_the_seats() {
    let mut routing = least_loaded("pd", RouteConfig::default());
    let giver = &routing.cluster.of_role(MODEL, Role::Prefill).next().expect("a giver").info;
    let alone = WorkerInfo { instance: InstanceId(7), role: Role::Aggregated, sequences_max: 20, ..giver.clone() };
    routing.join(WorkerId(7), alone);
    routing.cluster.set_load(WorkerId(7), Load { waiting_tokens: 1_000, ..Load::default() });
    let nobody = BTreeSet::new();
    let mut goes = |choices| show(routing.route(&RouteAsk { choices, ..ask(10, 20, &nobody) }));
    assert_eq!([goes(1), goes(8), goes(9)], ["0>1", "0>1", "7"]);
    routing.cluster.set_intake(WorkerId(7), Intake::Draining);
    let mut goes = |choices| show(routing.route(&RouteAsk { choices, ..ask(10, 20, &nobody) }));
    assert_eq!(goes(9), "0>1", "who is there says that it is too many");
}

/// Found by reading: the first of several idle givers was taken, however busy the only reader that it has.
#[test]
fn among_equally_short_queues_the_reader_decides() {
    let mut routing = least_loaded("ppdd", RouteConfig::default());
    let link = |giver| [Link { giver: InstanceId(giver), transport: "tcp".into(), bytes_per_second: 1 }];
    routing.cluster.set_links(WorkerId(2), link(0));
    routing.cluster.set_links(WorkerId(3), link(1));
    routing.cluster.set_load(WorkerId(2), Load { running: 100, ..Load::default() });
    assert_eq!(picks(&mut routing, &[(10, 20)]), "1>3");
    routing.cluster.set_load(WorkerId(1), Load { waiting_tokens: 50, ..Load::default() });
    assert_eq!(picks(&mut routing, &[(10, 20)]), "0>2", "a shorter queue comes first");
}

#[test]
fn least_loaded_follows_reports() {
    let mut routing = least_loaded("ppdd", RouteConfig::default());
    let cluster = &mut routing.cluster;
    cluster.set_load(WorkerId(0), Load { waiting_tokens: 5_000, ..Load::default() });
    cluster.set_load(WorkerId(2), Load { running: 8, waiting: 3, ..Load::default() });
    cluster.set_load(WorkerId(3), Load { running: 10, waiting: 0, ..Load::default() });
    let shown = picks(&mut routing, &[(10, 20), (10, 20), (10, 20)]);
    expect!["1>3 1>2 1>3"].assert_eq(&shown);
}

#[test]
fn routes_depend_on_roles_sizes_and_settings() {
    let waits = RouteConfig::default();
    let local = RouteConfig { local_prefill: LocalPrefill::WithoutPair, ..waits };
    let short = RouteConfig { local_prefill_tokens_max: 16, ..waits };
    // Each line: workers, settings, (prompt, sequence) and the route.
    let rows = [
        ("pd", waits, (10, 20)),
        ("pd", waits, (10, 11)),
        ("d", waits, (10, 11)),
        ("d", waits, (10, 20)),
        ("d", local, (10, 20)),
        ("p", local, (10, 20)),
        ("pd", short, (16, 20)),
        ("pd", short, (17, 20)),
        ("a", waits, (10, 11)),
        ("pd", waits, (490, 500)),
        ("pd", waits, (490, 501)),
        ("", waits, (10, 20)),
    ];
    let shown: Vec<String> = rows
        .iter()
        .map(|(roles, config, size)| {
            format!("{roles} {size:?} -> {}", picks(&mut least_loaded(roles, *config), &[*size]))
        })
        .collect();
    expect![[r#"
        pd (10, 20) -> 0>1
        pd (10, 11) -> 0
        d (10, 11) -> none
        d (10, 20) -> none
        d (10, 20) -> 0
        p (10, 20) -> none
        pd (16, 20) -> 1
        pd (17, 20) -> 0>1
        a (10, 11) -> 0
        pd (490, 500) -> 0>1
        pd (490, 501) -> none
         (10, 20) -> none"#]]
    .assert_eq(&shown.join("\n"));
}

#[test]
fn avoided_workers_are_the_last_resort() {
    let mut picker = least_loaded("ppd", RouteConfig::default());
    let avoid = BTreeSet::from([WorkerId(0)]);
    assert_eq!(show(picker.route(&ask(10, 20, &avoid))), "1>2");
    assert_eq!(show(picker.route(&ask(10, 20, &avoid))), "1>2");
    let all = BTreeSet::from([WorkerId(0), WorkerId(1)]);
    assert_eq!(show(picker.route(&ask(10, 20, &all))), "0>2");
    assert_eq!(picker.reader(WorkerId(1), &ask(10, 20, &all)), Some(WorkerId(2)));
    assert_eq!(picker.giver(WorkerId(1)).map(|giver| giver.instance), Some(InstanceId(1)));
    assert_eq!(picker.giver(WorkerId(9)), None);
}

#[test]
fn pairs_that_lost_a_hand_off_come_last_for_a_while() {
    let nobody = BTreeSet::new();
    let at = |ms: u64| RouteAsk { now: Time(ms * 1_000), ..ask(10, 20, &nobody) };
    let mut picker = least_loaded("ppdd", RouteConfig::default());
    let mut lose =
        |giver, reader| picker.cluster.handoff_lost(Time(0), WorkerId(giver), WorkerId(reader), PairPause::default());
    [(0, 2), (0, 3), (1, 2)].into_iter().for_each(|(giver, reader)| lose(giver, reader));
    let mut shown = vec![];
    for ms in [1, 2, 499, 500, 501, 502] {
        shown.push(show(picker.route(&at(ms))));
    }
    expect!["1>3 1>3 1>3 0>2 0>3 1>2"].assert_eq(&shown.join(" "));
    picker.learn(Time(0), WorkerId(1), WorkerId(3), Passage::Lost);
    assert_ne!(show(picker.route(&at(503))), "none", "a pair in trouble is better than none");
    picker.learn(Time(0), WorkerId(0), WorkerId(2), Passage::Arrived);
    assert_eq!(show(picker.route(&at(504))), "0>2");
    picker.cluster.set_intake(WorkerId(2), Intake::Quiet);
    assert!(!picker.takes(WorkerId(0), WorkerId(2)) && picker.takes(WorkerId(0), WorkerId(3)));
}

#[test]
fn a_pair_is_known_by_its_incarnations() {
    let mut cluster = cluster("pd");
    let (giver, reader) = (WorkerId(0), WorkerId(1));
    let info = cluster.get(reader).unwrap().info.clone();
    cluster.leave(reader);
    cluster.handoff_lost(Time(0), giver, reader, PairPause::default());
    let again = WorkerId(9);
    cluster.join(again, info);
    assert!(cluster.is_strained(Time(1), giver, again), "the same process, met again");
}

#[test]
fn what_is_missing_is_named() {
    let lack = |cluster: &Cluster| format!("{:?}", Lack::of(cluster, MODEL));
    let shown: Vec<String> = ["", "p", "d", "pd", "a"].iter().map(|roles| lack(&cluster(roles))).collect();
    expect!["Worker Decode Prefill Room Room"].assert_eq(&shown.join(" "));
    let mut apart = cluster("pd");
    apart.set_links(WorkerId(1), []);
    assert_eq!(Lack::of(&apart, MODEL), Lack::Connection);
    let problem = |kind, detail: &str| crate::Failure::new(kind, detail);
    let down = problem(FailureKind::WorkerLost, "p:1 does not answer");
    let unequal = problem(FailureKind::Incompatible, "p:2 has other blocks");
    apart.set_problems(WorkerId(1), vec![down.clone()]);
    assert_eq!(
        (Lack::of(&apart, MODEL), Lack::of(&apart, MODEL).failure_kind()),
        (Lack::Refused(down.clone()), FailureKind::Unavailable)
    );
    apart.set_problems(WorkerId(1), vec![down, unequal]);
    assert_eq!(
        Lack::of(&apart, MODEL).to_string(),
        "a connection between a decode and a prefill worker; p:2 has other blocks"
    );
    assert_eq!(Lack::of(&apart, MODEL).failure_kind(), FailureKind::Incompatible);
    let other = WorkerInfo { compat: CompatKey(2), ..cluster("d").get(WorkerId(0)).unwrap().info.clone() };
    apart.leave(WorkerId(1));
    apart.join(WorkerId(9), other);
    assert_eq!(Lack::of(&apart, MODEL), Lack::Compatible);
    assert_eq!(Lack::Compatible.failure_kind(), FailureKind::Incompatible);
}
