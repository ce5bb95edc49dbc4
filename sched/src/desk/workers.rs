//! Workers' words about themselves, and the consequences of their silence.

use std::sync::Arc;

use super::{Desk, DeskAction, Entry, Phase, View, WorkerStatus};
use crate::cluster::{Conduct, Intake, Kind, Silence, Word, WorkerInfo};
use crate::journey::JourneyEvent;
use crate::route::{Lack, Pick};
use crate::{ModelId, Role, WorkerId};

/// The first status of a session was said before it began; only the second shows that the worker lives.
const STATUSES_OF_LIFE: u32 = 2;

/// Knowledge of a worker besides what routes need.
#[derive(Debug)]
pub(super) struct Seat {
    phase: Phase,
    /// Statuses still to come before new work goes there.
    statuses_wanted: u32,
}

/// Whether waiting requests may find a worker now that they did not find before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routes {
    More,
    Same,
}

impl Desk {
    pub(super) fn joined(&mut self, worker: WorkerId, info: WorkerInfo) {
        let statuses_wanted = if self.hushed.contains(&info.instance) { STATUSES_OF_LIFE } else { 0 };
        self.routing.join(worker, info);
        if statuses_wanted > 0 {
            self.routing.cluster.set_intake(worker, Intake::Quiet);
        }
        self.silences.heard(self.now, worker);
        self.seats.insert(worker, Seat { phase: Phase::Accepting, statuses_wanted });
        match self.routes_changed(Routes::More) {
            // Every unused worker has been told of already.
            Serving::Changed => {}
            Serving::Same => self.tell_unused(worker),
        }
        self.count_generators();
    }

    fn tell_unused(&mut self, worker: WorkerId) {
        if let Some(reason) = self.unused(worker) {
            self.out.push_back(DeskAction::Unused { worker, reason });
        }
    }

    /// Reason why no new request goes to a worker, if another kind serves its model.
    fn unused(&self, worker: WorkerId) -> Option<Arc<str>> {
        let cluster = &self.routing.cluster;
        let info = &cluster.get(worker)?.info;
        let serves = |serving: &Kind| *serving != info.kind() && cluster.can_serve(*serving);
        let serving = cluster.serving(info.model).filter(serves)?;
        let mut others = cluster.workers().map(|worker| &worker.info);
        let other = others.find(|other| other.kind() == serving)?;
        let what = match other.weights == info.weights {
            true => "number formats or kernels",
            false => "weights of the model",
        };
        Some(format!("it has other {what} than {}, which serves", other.name).into())
    }

    pub(super) fn status(&mut self, worker: WorkerId, status: WorkerStatus) {
        let WorkerStatus { load, phase, links, problems } = status;
        let Some(seat) = self.seats.get_mut(&worker) else { return };
        let word = self.silences.heard(self.now, worker);
        let proved = seat.statuses_wanted == 1;
        seat.statuses_wanted = seat.statuses_wanted.saturating_sub(1);
        let returned = seat.statuses_wanted == 0 && (proved || word == Word::Returned);
        let told = std::mem::replace(&mut seat.phase, phase) != phase;
        if returned {
            self.out.push_back(DeskAction::Returned(worker));
            if let Some(worker) = self.routing.cluster.get(worker) {
                self.hushed.remove(&worker.info.instance);
            }
        }
        let mut routes = Routes::Same;
        if returned || told {
            let intake = match phase {
                Phase::Accepting => Intake::Open,
                // Its session stays for the legs it has; new legs do not go there.
                Phase::Draining => Intake::Draining,
            };
            self.routing.cluster.set_intake(worker, intake);
            if intake == Intake::Open {
                routes = Routes::More;
            }
        }
        self.routing.cluster.set_load(worker, load);
        if let Some(links) = links {
            self.routing.cluster.set_links(worker, links);
            routes = Routes::More;
        }
        self.routing.cluster.set_problems(worker, problems);
        self.routes_changed(routes);
    }

    pub(super) fn left(&mut self, worker: WorkerId) {
        let Some(name) = self.routing.cluster.get(worker).map(|worker| Arc::clone(&worker.info.name)) else {
            return;
        };
        let now = self.now;
        let has_legs = |entry: &Entry| entry.journey.bound().any(|(at, _)| at == worker);
        if self.requests.values().any(has_legs) {
            // However many legs are lost with it, the worker has failed once.
            self.routing.learn_conduct(now, worker, Conduct::Failed);
            self.tell_treated();
        }
        self.routing.leave(worker);
        self.silences.forget(worker);
        self.seats.remove(&worker);
        for silent in self.silences.doubt(now) {
            self.hush(silent);
        }
        self.tell_all(&JourneyEvent::WorkerLost { worker, name });
        self.routes_changed(Routes::Same);
        self.count_generators();
    }

    /// Closes the intake of silent workers, and gives up those that have been silent for longer.
    pub(super) fn notice_silence(&mut self) {
        let mut any = false;
        while let Some(silence) = self.silences.poll(self.now) {
            any = true;
            match silence {
                Silence::Quiet(worker) => self.hush(worker),
                Silence::Lost(worker) => {
                    self.hushed.extend(self.routing.cluster.get(worker).map(|worker| worker.info.instance));
                    self.out.push_back(DeskAction::GiveUp(worker));
                    self.left(worker);
                }
            }
        }
        if any {
            self.routes_changed(Routes::Same);
        }
    }

    fn hush(&mut self, worker: WorkerId) {
        self.routing.cluster.set_intake(worker, Intake::Quiet);
        self.out.push_back(DeskAction::Quiet(worker));
    }

    fn routes_changed(&mut self, routes: Routes) -> Serving {
        let view = View {
            sequence_tokens_max: self.routing.cluster.models_that_reach().collect(),
            lack: match self.routing.cluster.sequence_tokens_max(FIRST_MODEL) {
                Some(_) => None,
                None => Some(Lack::of(&self.routing.cluster, FIRST_MODEL)),
            },
        };
        if view != self.view {
            self.view.clone_from(&view);
            self.out.push_back(DeskAction::View(view));
        }
        let able = self.routing.cluster.able();
        let serving = match able.eq(self.serving.iter().map(|(model, kind)| (*model, *kind))) {
            true => Serving::Same,
            false => Serving::Changed,
        };
        if serving == Serving::Changed {
            self.serving = self.routing.cluster.able().collect();
            self.count_generators();
            let all: Vec<WorkerId> = self.routing.cluster.workers().map(|worker| worker.id).collect();
            all.into_iter().for_each(|worker| self.tell_unused(worker));
        }
        match (routes, serving) {
            (Routes::Same, Serving::Same) => {}
            (Routes::More, _) | (_, Serving::Changed) => self.tell_all(&JourneyEvent::WorkersChanged),
        }
        serving
    }

    fn count_generators(&mut self) {
        let cluster = &self.routing.cluster;
        let serves = |info: &WorkerInfo| cluster.serving(info.model) == Some(info.kind());
        let generators = cluster.workers().filter(|worker| generates(worker.info.role) && serves(&worker.info));
        self.generators = generators.count() as u32;
    }
}

/// Whether requests of some model go to another kind of workers than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serving {
    Changed,
    Same,
}

fn generates(role: Role) -> bool {
    match role {
        Role::Decode | Role::Aggregated | Role::Colocated => true,
        Role::Prefill => false,
    }
}

/// Model without which a router is not ready.
const FIRST_MODEL: ModelId = ModelId(0);
