//! The event loop: takes the next event to its state machine and carries out what that decides.

mod happening;
mod requests;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use sched::desk::{Desk, DeskConfig, DeskEvent, Gate, GateLimits};
use sched::replica::Event;
use sched::route::Routing;
use sched::share::Decision;
use sched::slo::Attainment;
use sched::{RequestId, Time, WorkerId};

use crate::log::LogHash;
use crate::network::Network;
use crate::queue::EventQueue;
use crate::{Arrival, PlannerError, Report, RequestReport, SimConfig};
use happening::Happening;
use requests::Live;
use workers::SimWorker;

/// Serves the arrivals (in order of time) with the deployment, until nothing is left to happen. An error names an
/// impossible setting, or a broken promise: every request ends, and afterwards every surviving worker is idle, holds no
/// block and has consistent accounts.
pub fn simulate(config: &SimConfig, arrivals: &[Arrival]) -> Result<Report, PlannerError> {
    let mut simulation = Simulation::new(config, arrivals)?;
    simulation.run()?;
    simulation.check_leaks()?;
    Ok(simulation.report())
}

struct Simulation<'a> {
    config: &'a SimConfig,
    arrivals: &'a [Arrival],
    now: Time,
    queue: EventQueue<Happening>,
    log: LogHash,
    /// Workers that are alive.
    workers: BTreeMap<WorkerId, SimWorker>,
    /// Workers that got events at this instant and have not decided yet.
    stirred: BTreeSet<WorkerId>,
    /// State machine of the router, and whether it got events at this instant.
    desk: Desk,
    router_stirred: bool,
    /// Time for which the router's timer is set.
    router_timer: Option<Time>,
    gate: Gate,
    /// Requests that run.
    live: BTreeMap<RequestId, Live>,
    ended: BTreeMap<RequestId, RequestReport>,
    classes: BTreeMap<u16, Attainment>,
    ended_at: Time,
    steps: u64,
    decisions: Vec<(WorkerId, Decision)>,
    network: Network,
    /// Time for which the network's timer is set.
    network_timer: Option<Time>,
}

impl<'a> Simulation<'a> {
    fn new(config: &'a SimConfig, arrivals: &'a [Arrival]) -> Result<Simulation<'a>, PlannerError> {
        PlannerError::positive("renew_every", config.renew_every)?;
        PlannerError::positive("load_every", config.load_every)?;
        let mut simulation = Simulation {
            config,
            arrivals,
            now: Time(0),
            queue: EventQueue::new(),
            log: LogHash::default(),
            workers: BTreeMap::new(),
            stirred: BTreeSet::new(),
            desk: desk(config),
            router_stirred: false,
            router_timer: None,
            gate: gate(config),
            live: BTreeMap::new(),
            ended: BTreeMap::new(),
            classes: BTreeMap::new(),
            ended_at: Time(0),
            steps: 0,
            decisions: Vec::new(),
            network: Network::new(config.link.bytes_per_second),
            network_timer: None,
        };
        simulation.start_workers()?;
        for (index, arrival) in arrivals.iter().enumerate() {
            simulation.queue.push(arrival.at, Happening::Arrives(index));
        }
        for fault in &config.faults {
            simulation.queue.push(fault.at, Happening::Dies(WorkerId(fault.worker as u32)));
        }
        simulation.queue.push(Time(0) + config.load_every, Happening::LoadsReported);
        Ok(simulation)
    }

    fn run(&mut self) -> Result<(), PlannerError> {
        while let Some(now) = self.queue.next_time() {
            self.now = now;
            while let Some((sequence, happening)) = self.queue.pop_at(now) {
                self.log.add(now, sequence, &happening);
                if self.log.lines() > self.config.events_max {
                    let (events, running) = (self.config.events_max, self.live.len());
                    return Err(PlannerError::Endless { at: now, events, running });
                }
                self.happen(happening);
            }
            // Events of the same instant are decided on together.
            for worker in std::mem::take(&mut self.stirred) {
                self.decide(worker)?;
            }
            if std::mem::take(&mut self.router_stirred) {
                self.decide_at_router();
            }
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(index) => self.arrive(index),
            Happening::AtWorker { worker, event } => self.feed(worker, event),
            Happening::AtRouter { worker, message } => self.at_router(DeskEvent::Said(worker, message)),
            Happening::AtGiver { giver, reader, word } => self.at_giver(giver, reader, word),
            Happening::DeviceTimer(worker) => self.device_is_due(worker),
            Happening::NetworkTimer => self.network_is_due(),
            Happening::PullEnds { reader, pull, giver, lease } => self.pull_ends(reader, pull, giver, lease),
            Happening::WorkerTimer(worker) => self.feed(worker, Event::Tick),
            Happening::RouterTimer => self.at_router(DeskEvent::Tick),
            Happening::LoadsReported => self.report_loads(),
            Happening::Dies(worker) => self.die(worker),
            Happening::SessionGone(worker) => self.at_router(DeskEvent::Left(worker)),
        }
    }

    /// Schedules an event again, as long as requests run or are still to come.
    fn again(&mut self, span: sched::Span, happening: Happening) {
        if self.ended.len() < self.arrivals.len() {
            self.queue.push(self.now + span, happening);
        }
    }

    fn check_leaks(&self) -> Result<(), PlannerError> {
        if !self.live.is_empty() || self.desk.running() > 0 {
            let (events, running) = (self.log.lines(), self.live.len());
            return Err(PlannerError::Endless { at: self.now, events, running });
        }
        self.workers.values().try_for_each(SimWorker::check_leaks)
    }

    fn report(self) -> Report {
        let preemptions = self.workers.values().map(|worker| worker.load().preemptions).sum();
        Report {
            preemptions,
            decisions: self.decisions,
            requests: self.ended.into_values().collect(),
            classes: self.classes,
            ended_at: self.ended_at,
            events: self.log.lines(),
            log_hash: self.log.hash(),
            moved_bytes: self.network.moved_bytes(),
            steps: self.steps,
        }
    }
}

fn desk(config: &SimConfig) -> Desk {
    let SimConfig { journey, renew_every, load_every, wide_choices_max, .. } = *config;
    // Workers report to the router at least whenever they report their load.
    let settings = DeskConfig { journey, renew_every, status_every: load_every, wide_choices_max };
    Desk::new(Time(0), settings, Routing::new(config.policy.build(), config.route))
}

/// Limits the number of requests; their bodies have no bytes here.
fn gate(config: &SimConfig) -> Gate {
    let all = usize::MAX;
    let limits =
        GateLimits { requests_max: config.requests_max, bytes_max: all, answers_bytes_max: all, answer_bytes_max: all };
    Gate::new(limits)
}
