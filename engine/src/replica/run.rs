//! The replica thread: takes events in, lets the scheduler decide, carries out, sleeps; decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use crossbeam_utils::sync::Parker;
use kv_transfer::{KvTransport, LeaseTable, RegionId};
use sched::layout::KvLayout;
use sched::message::{Envelope, Load, STATUS_BEAT, ToWorker};
use sched::replica::{Action, Event, Replica};
use sched::share::Partition;
use sched::{Failure, FailureKind, Span, Time};

use super::held::{Held, LOOK};
use super::perform::Performer;
use super::{Command, Outbound, Outlet, ReplicaHandle};
use crate::EngineError;
use crate::backend::Backend;
use crate::clock::Clock;
use crate::structure::Structures;

/// Commands taken in before the scheduler decides again, so that a flood of them delays no step for ever.
const COMMANDS_PER_TURN_MAX: usize = 1024;
/// Shortest time between two reports of a changed load.
const LOAD_CHANGED: Span = Span::from_ms(100);
/// How long the ending thread waits for aborted transfers.
const ABORT_WAIT: Duration = Duration::from_secs(2);

pub(crate) struct Parts {
    pub(crate) scheduler: Replica,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) transport: Box<dyn KvTransport>,
    pub(crate) leases: Arc<LeaseTable>,
    pub(crate) region: RegionId,
    pub(crate) layout: KvLayout,
    /// Set where two lanes share the device.
    pub(crate) partition: Option<Partition>,
    pub(crate) structures: Structures,
    pub(crate) outlet: Box<dyn Outlet>,
    pub(crate) inbox_events_max: usize,
}

/// Starts the thread, which sleeps in `parker`; backend and transport were made with its waker.
pub(crate) fn spawn(parts: Parts, parker: Parker) -> Result<(ReplicaHandle, JoinHandle<()>), EngineError> {
    let (sender, inbox) = bounded(parts.inbox_events_max);
    let stop = Arc::new(AtomicBool::new(false));
    let handle = ReplicaHandle::new(sender, parker.unparker().clone(), Arc::clone(&stop));
    let body = move || {
        let Parts { scheduler, backend, transport, leases, region, layout, partition, structures, outlet, .. } = parts;
        let performer = Performer::new(backend, transport, leases, region, layout, outlet);
        let mut thread = ReplicaThread {
            clock: Clock::start(),
            scheduler,
            performer,
            partition,
            structures,
            held: Held::default(),
            inbox,
            parker,
            stop,
            load: LoadReport::default(),
            checked_idle: false,
        };
        let ended = catch_unwind(AssertUnwindSafe(|| thread.run()));
        let failure = ended.unwrap_or_else(|panic| Some(panicked(panic.as_ref())));
        thread.finish(failure);
    };
    let thread = std::thread::Builder::new()
        .name("replica".to_owned())
        .spawn(body)
        .map_err(|error| EngineError::Thread { name: "replica", reason: error.to_string() })?;
    Ok((handle, thread))
}

struct ReplicaThread {
    clock: Clock,
    scheduler: Replica,
    performer: Performer,
    partition: Option<Partition>,
    structures: Structures,
    held: Held,
    inbox: Receiver<Command>,
    parker: Parker,
    stop: Arc<AtomicBool>,
    load: LoadReport,
    /// True if the invariants were checked since the last event.
    checked_idle: bool,
}

/// Last load report, and whether the load may have changed since; computing it visits every sequence.
#[derive(Default)]
struct LoadReport {
    told: Option<(Time, Load)>,
    /// Time of the last look at the load.
    looked: Time,
    /// True if events came in since that look.
    stale: bool,
}

#[derive(PartialEq, Eq)]
enum Inbox {
    Open,
    Closed,
}

impl ReplicaThread {
    /// Runs turns until told to stop; returns the failure that ended it, if any.
    fn run(&mut self) -> Option<Failure> {
        loop {
            if self.stop.load(Ordering::Acquire) || self.take_in() == Inbox::Closed {
                return None;
            }
            self.decide();
            self.divide();
            if let Some(failure) = self.performer.broken() {
                return Some(failure);
            }
            self.report();
            self.performer.turn_over();
            if self.inbox.is_empty() {
                self.parker.park_deadline(self.clock.instant(self.next_wake()));
            }
        }
    }

    /// Takes in all events at hand before the scheduler decides.
    fn take_in(&mut self) -> Inbox {
        for word in self.held.ready(Instant::now()) {
            self.fact(Event::Router(word));
        }
        for _ in 0..COMMANDS_PER_TURN_MAX {
            match self.inbox.try_recv() {
                Ok(Command::Event(Event::Router(word))) => self.hear(word),
                Ok(Command::Event(event)) => self.fact(event),
                Ok(Command::Pin(split)) => self.with_partition(|partition, now| partition.pin(now, split)),
                Ok(Command::Release) => self.with_partition(Partition::release),
                Ok(Command::AddPeer(peer)) => self.performer.add_peer(*peer),
                Ok(Command::RemovePeer(instance)) => {
                    self.performer.remove_peer(instance);
                    self.fact(Event::GiverLost(instance));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Inbox::Closed,
            }
        }
        while let Some(event) = self.performer.poll_backend() {
            self.fact(event);
        }
        while let Some(event) = self.performer.poll_transport() {
            self.fact(event);
        }
        let now = self.clock.now();
        if self.scheduler.next_timeout().is_some_and(|timeout| timeout <= now) {
            self.fact(Event::Tick);
        }
        Inbox::Open
    }

    /// Has the grammar of a new leg compiled, and lets the leg wait for that.
    fn hear(&mut self, word: ToWorker) {
        self.load.stale = true;
        let structures = &self.structures;
        for word in self.held.take(word, Instant::now(), |structure| structures.prepare(structure)) {
            self.fact(Event::Router(word));
        }
    }

    fn fact(&mut self, event: Event) {
        self.checked_idle = false;
        self.load.stale = true;
        self.with_partition(|partition, now| partition.goes_in(now, &event));
        self.scheduler.on(self.clock.now(), event);
    }

    fn with_partition(&mut self, tell: impl FnOnce(&mut Partition, Time)) {
        if let Some(partition) = &mut self.partition {
            tell(partition, self.clock.now());
        }
    }

    fn decide(&mut self) {
        while let Some(action) = self.scheduler.poll() {
            if let Action::Say(Envelope::Over(leg)) = &action {
                self.held.over(*leg);
            }
            self.with_partition(|partition, now| partition.comes_out(now, &action));
            if let Some(event) = self.performer.perform(action) {
                self.fact(event);
            }
        }
    }

    /// Sets what was decided about the division of the device.
    fn divide(&mut self) {
        let now = self.clock.now();
        if self.partition.as_ref().is_some_and(|partition| partition.is_due(now)) {
            let load = self.load_now();
            self.with_partition(|partition, now| partition.tick(now, &load));
        }
        while let Some(decision) = self.partition.as_mut().and_then(Partition::poll) {
            self.performer.divide(decision);
        }
    }

    fn report(&mut self) {
        let now = self.clock.now();
        if now >= self.load.next()
            && let Some(load) = self.load.look(now, self.load_now())
        {
            self.performer.outlet.put(Outbound::Load(load));
            self.performer.report_used();
        }
        if !self.checked_idle && self.scheduler.is_idle() {
            self.checked_idle = true;
            if let Err(detail) = self.scheduler.check_invariants() {
                tracing::error!(%detail, "the accounting of blocks does not add up");
                self.performer.outlet.put(Outbound::InvariantBroken(detail));
            }
        }
    }

    fn load_now(&self) -> Load {
        let mut load = self.scheduler.load();
        self.held.add_to(&mut load);
        load
    }

    fn next_wake(&self) -> Time {
        let load = self.load.next();
        let wake = self.scheduler.next_timeout().map_or(load, |timeout| timeout.min(load));
        let divides = self.partition.as_ref().and_then(Partition::next_timeout);
        let wake = divides.map_or(wake, |divides| wake.min(divides));
        if self.held.is_empty() { wake } else { wake.min(self.clock.now() + LOOK) }
    }

    /// Leaves nothing behind that still writes: steps end, and aborted transfers are waited for.
    fn finish(&mut self, failure: Option<Failure>) {
        self.structures.stop();
        if let Some(failure) = &failure {
            tracing::error!(%failure, "the replica stops");
        }
        self.performer.abort_all();
        let deadline = Instant::now() + ABORT_WAIT;
        while self.performer.has_transfers() && Instant::now() < deadline {
            if self.performer.poll_transport().is_none() {
                self.parker.park_timeout(Duration::from_millis(5));
            }
        }
        self.performer.outlet.put(Outbound::Stopped(failure));
        self.performer.outlet.flush();
    }
}

impl LoadReport {
    fn next(&self) -> Time {
        match self.told {
            None => Time(0),
            Some(_) if self.stale => self.looked + LOAD_CHANGED,
            Some((told, _)) => told + STATUS_BEAT,
        }
    }

    /// Returns the current load if it must be reported.
    fn look(&mut self, now: Time, load: Load) -> Option<Load> {
        (self.looked, self.stale) = (now, false);
        if self.told.is_some_and(|(told, last)| last == load && now < told + STATUS_BEAT) {
            return None;
        }
        self.told = Some((now, load));
        Some(load)
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Failure::new(FailureKind::Internal, format!("the replica thread panicked: {}", text.unwrap_or("no message")))
}
