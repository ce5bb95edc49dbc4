//! Edge cases of the replica thread: its end, a full inbox, lost peers.

mod support;

use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use engine::replica::{Command, NotTaken, Outbound, Outlet, PeerInfo};
use engine::{BackendKind, Config, EngineError, Started, start};
use sched::layout::Resharding;
use sched::message::{Envelope, FromWorker, Offer, ToWorker, Work};
use sched::replica::Event;
use sched::{FailureKind, InstanceId, LeaseId, Role, SamplingParams};

use support::requests::{request, tokens};
use support::{family, workers};

struct ToChannel(Sender<Outbound>);

impl Outlet for ToChannel {
    fn put(&mut self, out: Outbound) {
        let _test_has_ended = self.0.send(out);
    }

    fn flush(&mut self) {}
}

fn modelled(role: Role, change: impl FnOnce(&mut Config)) -> Result<(Started, Receiver<Outbound>)> {
    let mut config = Config { backend: BackendKind::Modelled, ..workers::config(&family("llama")) };
    change(&mut config);
    let (sender, said) = unbounded();
    Ok((start(&config, role, Box::new(ToChannel(sender)))?, said))
}

fn wait<T>(said: &Receiver<Outbound>, mut wanted: impl FnMut(Outbound) -> Option<T>) -> Result<T> {
    loop {
        let out = said.recv_timeout(Duration::from_secs(30)).context("the replica says nothing")?;
        if let Some(found) = wanted(out) {
            return Ok(found);
        }
    }
}

fn stopped(out: Outbound) -> Option<Option<sched::Failure>> {
    match out {
        Outbound::Stopped(failure) => Some(failure),
        _ => None,
    }
}

#[test]
fn shutdown_ends_the_thread_in_the_middle_of_a_step() -> Result<()> {
    let (started, said) = modelled(Role::Aggregated, |config| config.modelled.prefill_step_us = 6e7)?;
    let request = request(1, tokens(1, 40, 384), 1, SamplingParams::default());
    started.handle.send(Event::Router(ToWorker::Submit(request, Work::Whole)))?;
    wait(&said, |out| matches!(out, Outbound::Load(load) if load.blocks_in_use > 0).then_some(()))?;
    started.handle.shutdown();
    assert_eq!(wait(&said, stopped)?, None);
    started.join.join().expect("the thread ends without a panic");
    assert!(matches!(started.handle.send(Event::Tick), Err(NotTaken { why: EngineError::Stopped, .. })));
    Ok(())
}

#[test]
fn the_thread_ends_with_its_last_handle() -> Result<()> {
    let (started, said) = modelled(Role::Decode, |_| {})?;
    let Started { handle, join, .. } = started;
    let other = handle.clone();
    drop(handle);
    other.send(Event::Tick)?;
    drop(other);
    assert_eq!(wait(&said, stopped)?, None);
    join.join().expect("the thread ends without a panic");
    Ok(())
}

#[test]
fn a_cancelled_leg_gives_its_blocks_back() -> Result<()> {
    let (started, said) = modelled(Role::Aggregated, |config| config.modelled.prefill_step_us = 2e6)?;
    let request = request(1, tokens(1, 40, 384), 1, SamplingParams::default());
    let leg = request.leg;
    started.handle.send(Event::Router(ToWorker::Submit(request, Work::Whole)))?;
    wait(&said, |out| matches!(out, Outbound::Load(load) if load.blocks_in_use > 0).then_some(()))?;
    started.handle.send(Event::Router(ToWorker::Cancel { leg, choice: None }))?;
    // Each layer takes a second, so the step ends at its next boundary, not after its last layer.
    wait(&said, |out| match out {
        Outbound::Load(load) => {
            (load.blocks_in_use + load.blocks_quarantined + load.running + load.waiting == 0).then_some(())
        }
        _ => None,
    })
}

/// Runs one request alone; returns for each of its steps whether there was work before it.
fn steps_of(started: &Started, said: &Receiver<Outbound>, id: u64, max_tokens: u32) -> Result<Vec<bool>> {
    let request = request(id, tokens(id, 40, 384), 1, SamplingParams { max_tokens, ..SamplingParams::default() });
    started.handle.send(Event::Router(ToWorker::Submit(request, Work::Whole)))?;
    let mut steps = Vec::new();
    wait(said, |out| match out {
        Outbound::Stepped { gap, .. } => {
            steps.push(gap.is_some());
            None
        }
        Outbound::Say(Envelope::Router(FromWorker::Token { ended: Some(_), .. })) => Some(()),
        _ => None,
    })?;
    Ok(steps)
}

#[test]
fn the_time_between_steps_counts_as_a_gap_only_while_there_is_work() -> Result<()> {
    for steps_in_flight in [1, 2] {
        let (started, said) = modelled(Role::Aggregated, |config| config.steps_in_flight = steps_in_flight)?;
        for id in [1, 2] {
            assert_eq!(steps_of(&started, &said, id, 4)?, [false, true, true, true], "{steps_in_flight} in flight");
        }
    }
    Ok(())
}

#[test]
fn a_full_inbox_is_an_error_with_its_size() -> Result<()> {
    let (started, _said) = modelled(Role::Aggregated, |config| config.inbox_events_max = 2)?;
    let flood = (0..1_000_000).find_map(|_| started.handle.send(Event::Tick).err());
    let error = flood.context("an inbox of two never filled up")?;
    assert_eq!(error.to_string(), "the replica's inbox is full (2 events)");
    Ok(())
}

#[test]
fn peers_that_cannot_be_reached_are_reported() -> Result<()> {
    let (started, said) = modelled(Role::Decode, |_| {})?;
    let peer = |endpoint: &[u8]| PeerInfo {
        instance: InstanceId(7),
        resharding: Resharding::of_all(&started.info.layout, &started.info.layout).expect("equal layouts"),
        blocks: started.info.blocks,
        endpoint: endpoint.to_vec(),
    };
    started.handle.send(Command::AddPeer(Box::new(peer(b"noise"))))?;
    let down = |out| match out {
        Outbound::PeerDown { instance, reason } => Some((instance, reason)),
        _ => None,
    };
    let (instance, reason) = wait(&said, down)?;
    assert_eq!(instance, InstanceId(7));
    assert!(!reason.is_empty());
    Ok(())
}

#[test]
fn an_offer_from_an_unknown_giver_fails_its_leg_only() -> Result<()> {
    let (started, said) = modelled(Role::Decode, |_| {})?;
    let request = request(1, tokens(1, 40, 384), 1, SamplingParams::default());
    let leg = request.leg;
    let first = sched::message::FirstToken {
        choice: sched::Choice(0),
        token: sched::SampledToken { token: sched::TokenId(9), logprob: None, top: Vec::new() },
        ended: None,
    };
    let offer = Offer {
        request,
        giver: InstanceId(99),
        giver_address: "nowhere:1".into(),
        lease: LeaseId(5),
        blocks: (0..3).map(sched::BlockId).collect(),
    };
    started.handle.send(Event::GiverUp(offer.giver))?;
    started.handle.send(Event::Router(ToWorker::Offer(offer)))?;
    let commit = sched::message::Commit { leg, firsts: vec![first] };
    started.handle.send(Event::Router(ToWorker::Commit(commit)))?;
    let failure = wait(&said, |out| match out {
        Outbound::Say(Envelope::Router(FromWorker::Failed { failure, .. })) => Some(failure),
        _ => None,
    })?;
    assert_eq!(failure.kind, FailureKind::KvLost);
    assert!(failure.detail.contains("is not a peer of this worker"), "{failure}");
    Ok(())
}
