//! Sessions over real loopback sockets, with a worker that only records the messages it gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod worker;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use proptest::test_runner::{Config as ProptestConfig, TestRunner};
use proto::session::client::connect;
use proto::session::server::SessionHost;
use proto::session::{EndReason, Phase, RouterHello, SessionLimits, WorkerUpdate};
use proto::{Secret, TurnedAway};
use sched::message::{FromWorker, Load, Offer, ToWorker, Work};
use sched::{BlockId, Choice, Failure, FailureKind, FinishReason, InstanceId, LeaseId, Leg};
use tokio::net::TcpListener;
use tokio::time::timeout;

use worker::{PATIENCE, commit, end, leg, messages, next, request, router, secret, submit, token, worker};

#[tokio::test]
async fn legs_go_down_and_tokens_come_up_in_order() {
    let worker = worker(SessionLimits::default()).await;
    let mut session = router(&worker).await;
    assert_eq!(session.welcome, worker.host.welcome());
    for id in 0..50 {
        session.commands.send(submit(id)).unwrap();
    }
    let taken = worker.host.until(|taken| taken.len() == 50).await;
    assert_eq!(taken, (0..50).map(submit).collect::<Vec<_>>());
    let said: Vec<_> = (0..50).map(|id| token(id, 0, None)).collect();
    assert_eq!(worker.sessions.tell(said.clone()), 0);
    assert_eq!(messages(&mut session, 50).await, said);
}

#[tokio::test]
async fn everything_that_is_ready_is_one_message() {
    let worker = worker(SessionLimits::default()).await;
    let mut session = router(&worker).await;
    session.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    worker.sessions.tell((0..1000).map(|_| token(1, 0, None)));
    assert!(matches!(next(&mut session).await, WorkerUpdate::Status(_)), "the status comes first");
    match next(&mut session).await {
        WorkerUpdate::Messages(messages) => assert_eq!(messages.len(), 1000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_router_hears_of_its_own_legs_only() {
    let worker = worker(SessionLimits::default()).await;
    let (mut one, mut two) = (router(&worker).await, router(&worker).await);
    one.commands.send(submit(1)).unwrap();
    two.commands.send(submit(2)).unwrap();
    worker.host.until(|taken| taken.len() == 2).await;
    worker.sessions.tell([token(1, 0, None), token(2, 0, None), token(3, 0, None)]);
    assert_eq!(messages(&mut one, 1).await, [token(1, 0, None)]);
    assert_eq!(messages(&mut two, 1).await, [token(2, 0, None)]);
}

#[tokio::test]
async fn a_lost_router_cancels_its_legs_and_no_others() {
    let worker = worker(SessionLimits::default()).await;
    let (gone, stays) = (router(&worker).await, router(&worker).await);
    for id in [1, 2, 3] {
        gone.commands.send(submit(id)).unwrap();
    }
    stays.commands.send(submit(4)).unwrap();
    worker.host.until(|taken| taken.len() == 4).await;
    worker.sessions.tell([token(2, 0, Some(FinishReason::Stop))]);
    worker.sessions.over([leg(2)]);
    drop(gone);
    let taken = worker.host.until(|taken| taken.len() == 6).await;
    let cancel = |id| ToWorker::Cancel { leg: leg(id), choice: None };
    assert_eq!(taken[4..], [cancel(1), cancel(3)], "leg 2 had ended, leg 4 is another router's");
    worker.sessions.over([leg(1), leg(3)]);
    assert_eq!(worker.sessions.legs(), 1);
}

const SERVES: &str = "PROTO_TEST_SERVES_WITH_FILES_LEFT";

/// Not a test: runs a worker with few free descriptors in a process of its own, when the environment says so.
#[tokio::test]
async fn other_process() {
    let Ok(left) = std::env::var(SERVES) else { return };
    let worker = worker(SessionLimits::default()).await;
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - left.parse::<usize>().unwrap());
    eprintln!("{}", worker.address);
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
}

/// Found by reading: silent connections took all descriptors of a worker, which then accepted no connection, so that
/// none could take the place of the oldest.
#[tokio::test]
async fn silent_strangers_keep_no_router_out_of_a_worker_with_few_files() {
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    limited.args(["other_process", "--exact", "--nocapture"]).env(SERVES, "4");
    let (stdin, stdout, stderr) = (Stdio::piped(), Stdio::null(), Stdio::piped());
    let mut other = limited.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(other.stderr.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim();
    let silent: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let hello = RouterHello { router: InstanceId(1) };
    let connected = connect(address, &hello, &secret(), &SessionLimits::default()).await;
    drop((silent, other.stdin.take()));
    other.wait().unwrap();
    assert_eq!(connected.map(|session| session.welcome.name).unwrap(), "prefill-0");
}

/// Found by trying: a second router aborted the legs of the first, which was never told.
#[tokio::test]
async fn nobody_touches_a_leg_of_another_session() {
    let worker = worker(SessionLimits::default()).await;
    let (mut owner, thief) = (router(&worker).await, router(&worker).await);
    owner.commands.send(ToWorker::Submit(request(1, 2), Work::Whole)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    for message in [
        ToWorker::Cancel { leg: leg(1), choice: None },
        ToWorker::Cancel { leg: leg(1), choice: Some(Choice(0)) },
        commit(1, 0, Some(FinishReason::Stop)),
        ToWorker::Renew(vec![leg(1), leg(77)]),
        submit(2),
        ToWorker::Renew(vec![leg(2), leg(1)]),
    ] {
        thief.commands.send(message).unwrap();
    }
    let taken = worker.host.until(|taken| taken.len() == 3).await;
    assert_eq!(taken[1..], [submit(2), ToWorker::Renew(vec![leg(2)])], "only what is about its own leg");
    assert_eq!(*worker.host.turned_away.lock().unwrap(), [TurnedAway::ForeignLeg; 5]);
    drop(thief);
    worker.host.until(|taken| taken.last() == Some(&ToWorker::Cancel { leg: leg(2), choice: None })).await;
    let said = [token(1, 0, None), token(1, 1, None)];
    worker.sessions.tell(said.clone());
    assert_eq!(messages(&mut owner, 2).await, said, "the owner is still told");
}

#[tokio::test]
async fn a_router_with_another_secret_or_none_is_turned_away_and_told_why() {
    let worker = worker(SessionLimits::default()).await;
    let others = [Secret::open(), Secret::new(&[b'x'; 64]).unwrap()];
    for other in others {
        let hello = RouterHello { router: InstanceId(1) };
        let error = connect(&worker.address, &hello, &other, &SessionLimits::default()).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("plane.secret"), "{said}");
    }
    let mut session = router(&worker).await;
    session.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    worker.sessions.tell([token(1, 0, None)]);
    assert_eq!(messages(&mut session, 1).await, [token(1, 0, None)]);
}

/// A full inbox ends legs one by one, and the session goes on. A lost commit is no refusal of the offer before it: the
/// replica has the offer and has bound the giver's lease to itself.
#[tokio::test]
async fn a_full_inbox_ends_legs_but_no_session() {
    let worker = worker(SessionLimits { inbox_wait: Duration::from_millis(20), ..Default::default() }).await;
    let mut session = router(&worker).await;
    for id in [1, 2] {
        session.commands.send(submit(id)).unwrap();
    }
    worker.host.until(|taken| taken.len() == 2).await;
    *worker.host.busy.lock().unwrap() = u32::MAX;
    session.commands.send(ToWorker::Renew(vec![leg(1)])).unwrap();
    session.commands.send(commit(1, 0, None)).unwrap();
    session.commands.send(ToWorker::Cancel { leg: leg(2), choice: None }).unwrap();
    let said = messages(&mut session, 1).await;
    assert!(
        matches!(&said[..], [FromWorker::Failed { leg: of, failure }]
        if *of == leg(1) && failure.kind == FailureKind::KvLost && failure.detail.contains("inbox was full")),
        "{said:?}"
    );
    *worker.host.busy.lock().unwrap() = 0;
    let cancel = |id| ToWorker::Cancel { leg: leg(id), choice: None };
    let taken = worker.host.until(|taken| taken.len() == 4).await;
    assert!(taken[2..].contains(&cancel(1)) && taken[2..].contains(&cancel(2)), "{taken:?}");
    session.commands.send(submit(3)).unwrap();
    worker.host.until(|taken| taken.len() == 5).await;
}

#[tokio::test]
async fn a_leg_is_over_when_the_worker_says_so_whatever_was_said_about_it() {
    let worker = worker(SessionLimits::default()).await;
    let (session, mut other) = (router(&worker).await, router(&worker).await);
    session.commands.send(ToWorker::Submit(request(1, 1), Work::Whole)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    worker.sessions.tell([token(1, 0, Some(FinishReason::Length))]);
    session.commands.send(ToWorker::Cancel { leg: leg(1), choice: None }).unwrap();
    worker.host.until(|taken| taken.len() == 2).await;
    // The leg's name is taken until then, even if its router leaves.
    drop(session);
    worker.host.until(|taken| taken.len() == 3).await;
    other.commands.send(submit(1)).unwrap();
    let said = messages(&mut other, 1).await;
    assert!(matches!(&said[..], [FromWorker::Failed { failure, .. }] if failure.detail.contains("runs here already")));
    assert_eq!((worker.sessions.legs(), worker.sessions.tell([token(1, 0, None)])), (1, 1), "nobody hears of it");
    worker.sessions.over([leg(1)]);
    timeout(PATIENCE, worker.sessions.idle()).await.expect("no leg is left");
    other.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 4).await;
    worker.sessions.tell([token(1, 0, None)]);
    assert_eq!(messages(&mut other, 1).await, [token(1, 0, None)]);
}

#[tokio::test]
async fn a_leg_that_runs_already_is_refused() {
    let worker = worker(SessionLimits::default()).await;
    let (first, mut second) = (router(&worker).await, router(&worker).await);
    first.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    second.commands.send(submit(1)).unwrap();
    let said = messages(&mut second, 1).await;
    let failure = Failure::new(FailureKind::InvalidRequest, "req1/try0 runs here already");
    assert_eq!(said, [FromWorker::Failed { leg: leg(1), failure }]);
    assert_eq!(worker.sessions.legs(), 1);
}

#[tokio::test]
async fn a_full_inbox_is_tried_again_and_given_up_in_time() {
    let worker = worker(SessionLimits { inbox_wait: Duration::from_millis(50), ..Default::default() }).await;
    let mut session = router(&worker).await;
    *worker.host.busy.lock().unwrap() = 3;
    session.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    *worker.host.busy.lock().unwrap() = u32::MAX;
    session.commands.send(submit(2)).unwrap();
    let said = messages(&mut session, 1).await;
    let failure = Failure::new(FailureKind::Overloaded, "the worker's inbox was full for 50ms");
    assert_eq!(said, [FromWorker::Failed { leg: leg(2), failure }]);
    assert_eq!(worker.sessions.legs(), 1);
}

#[tokio::test]
async fn a_draining_worker_refuses_new_legs_and_says_so() {
    let worker = worker(SessionLimits::default()).await;
    let mut session = router(&worker).await;
    worker.sessions.load(Load { running: 3, ..Load::default() });
    worker.sessions.drain();
    // A status that is not written before the next one comes is never written.
    loop {
        match next(&mut session).await {
            WorkerUpdate::Status(status) if status.phase == Phase::Draining => {
                assert_eq!(status.load.running, 3);
                break;
            }
            WorkerUpdate::Status(_) => {}
            other => panic!("{other:?}"),
        }
    }
    session.commands.send(submit(1)).unwrap();
    let said = messages(&mut session, 1).await;
    let failure = Failure::new(FailureKind::Unavailable, "the worker is draining");
    assert_eq!(said, [FromWorker::Failed { leg: leg(1), failure }]);
}

#[tokio::test]
async fn a_router_that_does_not_read_is_let_go() {
    let limits = SessionLimits { queue_messages_max: 1000, ..Default::default() };
    let worker = worker(limits).await;
    let mut session = router(&worker).await;
    session.commands.send(submit(1)).unwrap();
    worker.host.until(|taken| taken.len() == 1).await;
    let flood = async {
        while worker.host.taken().len() == 1 {
            worker.sessions.tell((0..500).map(|_| token(1, 0, None)));
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    };
    timeout(PATIENCE, flood).await.expect("the session is given up");
    match end(&mut session).await {
        EndReason::Failed(failure) => assert_eq!(failure.kind, FailureKind::Overloaded),
        EndReason::Lost(_) => {}
        other => panic!("{other:?}"),
    }
    worker.host.until(|taken| taken.contains(&ToWorker::Cancel { leg: leg(1), choice: None })).await;
}

#[tokio::test]
async fn the_worker_says_why_it_ends_a_session() {
    let worker = worker(SessionLimits::default()).await;
    let mut session = router(&worker).await;
    let failure = Failure::new(FailureKind::Unavailable, "the worker shuts down");
    timeout(PATIENCE, worker.sessions.end(&failure)).await.expect("all sessions end");
    assert_eq!(end(&mut session).await, EndReason::Failed(failure));
    assert!(session.commands.send(submit(1)).is_err());
}

#[tokio::test]
async fn a_dead_address_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = connect(&address, &RouterHello { router: InstanceId(1) }, &secret(), &SessionLimits::default())
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&address) && said.contains("refused"), "{said}");
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = SessionLimits { handshake: Duration::from_millis(100), ..Default::default() };
    let error = connect(&address, &RouterHello { router: InstanceId(1) }, &secret(), &limits).await.unwrap_err();
    assert!(matches!(error.reason, EndReason::Lost(_)), "{error}");
}

/// For any messages of a router about any legs: another router's legs run on, only its own messages reach them, and it
/// receives all of their messages.
#[test]
fn nothing_a_router_says_reaches_the_legs_of_another() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
    let said = (0_u64..6, 0_u32..3, 0_u8..6);
    let outcome = runner.run(&proptest::collection::vec(said, 1..60), |said| {
        runtime.block_on(async {
            let worker = worker(SessionLimits::default()).await;
            let (mut owner, thief) = (router(&worker).await, router(&worker).await);
            for id in 0..3 {
                owner.commands.send(ToWorker::Submit(request(id, 2), Work::Give)).unwrap();
            }
            worker.host.until(|taken| taken.len() == 3).await;
            for (id, choice, kind) in said {
                thief.commands.send(noise(id, choice, kind)).unwrap();
            }
            thief.commands.send(submit(99)).unwrap();
            let taken = worker.host.until(|taken| taken.contains(&submit(99))).await;
            let touched = taken[3..].iter().filter(|message| legs_of(message).iter().any(|leg| leg.request.0 < 3));
            assert_eq!(touched.count(), 0, "{taken:?}");
            let said: Vec<_> = (0..3).map(|id| token(id, 1, None)).collect();
            assert_eq!(worker.sessions.tell(said.clone()), 0);
            assert_eq!(messages(&mut owner, 3).await, said);
        });
        Ok(())
    });
    outcome.unwrap();
}

fn noise(id: u64, choice: u32, kind: u8) -> ToWorker {
    match kind {
        0 => ToWorker::Submit(request(id, choice + 1), Work::Whole),
        1 => commit(id, choice, Some(FinishReason::Stop)),
        2 => ToWorker::Cancel { leg: leg(id), choice: None },
        3 => ToWorker::Cancel { leg: leg(id), choice: Some(Choice(choice)) },
        4 => ToWorker::Renew((0..=id).map(leg).collect()),
        _ => ToWorker::Offer(Offer {
            request: request(id, choice + 1),
            giver: InstanceId(3),
            giver_address: "nowhere:1".into(),
            lease: LeaseId(id),
            blocks: vec![BlockId(0)],
        }),
    }
}

fn legs_of(message: &ToWorker) -> Vec<Leg> {
    match message {
        ToWorker::Submit(request, _) | ToWorker::Offer(Offer { request, .. }) => vec![request.leg],
        ToWorker::Commit(commit) => vec![commit.leg],
        ToWorker::Cancel { leg, .. } => vec![*leg],
        ToWorker::Renew(legs) => legs.clone(),
    }
}
