//! The link to one address: meets whoever answers, holds on while it lives, and says when it is gone.

use std::sync::Arc;
use std::time::Duration;

use engine::replica::PeerInfo;
use node::telemetry::LiveGauge;
use proto::peer::PeerWelcome;
use proto::peer::client::{Peer, Watch, connect};
use sched::layout::Resharding;
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use worker::Taking;

use super::Peers;
use super::path::Wire;
use super::pauses::{After, Pauses};
use super::table::{Loss, Told};

/// What a giver that has fallen silent gets at least to answer in.
const ANSWER_WAIT_MIN: Duration = Duration::from_millis(50);
/// How long the transport may take to connect.
const WIRE_WAIT: Duration = Duration::from_secs(5);
/// How long a giver whose transport has gone down has to say that it ends, if that is why.
const FAREWELL_WAIT: Duration = Duration::from_millis(300);
/// What went wrong before a giver was up for this long is news when it happens again.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// How often a giver is asked whether it still answers, how long it has for that, and how often it may fail to.
const PING_EVERY: Duration = Duration::from_secs(3);
const PING_WAIT: Duration = Duration::from_secs(3);
const PINGS_UNANSWERED_MAX: u32 = 2;
/// A learned address where nobody has answered for this long is forgotten; one where nobody was ever met, at once.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// A giver whose connection ends before this is not met again at once: it leaves, or somebody in between cuts.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The task behind one address.
pub(super) struct Link {
    peers: Peers,
    address: String,
    wake: Arc<Notify>,
    /// The process that was met here last and is not known to be gone.
    giver: Option<InstanceId>,
    /// What it calls itself; until it has said so, its address.
    name: String,
    /// Its speed, exported while it can be read from.
    speed: Option<LiveGauge>,
    /// Whether anybody was ever met here.
    was_met: bool,
    silent_since: Option<Instant>,
    pauses: Pauses,
    /// The last problem, so that a repeated one is logged once.
    problem: Option<String>,
}

/// A giver that can be read from.
struct Up {
    peer: Peer,
    watch: Watch,
    wire: watch::Receiver<Wire>,
}

/// Why holding on to a giver ended.
enum Interruption {
    /// Its connection ended.
    Ended(String),
    /// The transport cannot read from it any more.
    WireDown(String),
    /// It does not answer, although its connection is there.
    Silent,
    /// Somebody offers in the name of another incarnation.
    AskedToLook,
}

impl Link {
    pub(super) fn new(peers: Peers, address: String, wake: Arc<Notify>) -> Link {
        let name = address.clone();
        Link {
            peers,
            address,
            wake,
            giver: None,
            name,
            speed: None,
            was_met: false,
            silent_since: None,
            pauses: Pauses::new(),
            problem: None,
        }
    }

    /// Meets, holds on, meets again; ends when its address is forgotten.
    pub(super) async fn run(mut self) {
        loop {
            let met = self.meet().await;
            let outcome = met.as_ref().map_err(Clone::clone).map(|(giver, _)| *giver);
            let told = self.peers.table().tried(&self.address, outcome);
            self.peers.shared.tried.notify_waiters();
            if told == Told::Something {
                self.peers.publish();
            }
            match met {
                Ok((giver, up)) => self.hold(giver, up).await,
                Err(failure) => {
                    if self.failed(&failure) {
                        return;
                    }
                    self.pause(self.after(&failure)).await;
                }
            }
        }
    }

    /// Says hello and connects the transport. An error leaves no offer waiting.
    async fn meet(&mut self) -> Result<(InstanceId, Up), Failure> {
        let shared = &self.peers.shared;
        let config = &shared.config;
        let connecting = connect(&self.address, &shared.hello, &shared.worker.secret, &config.limits);
        let (peer, welcome) = match self.silent_since.filter(|_| self.giver.is_some()) {
            None => connecting.await?,
            // A process that was stopped takes connections and answers nothing: the time to be lost in runs on.
            Some(since) => {
                let left = config.lost_after.saturating_sub(since.elapsed()).max(ANSWER_WAIT_MIN);
                let no_answer = |_| Failure::new(FailureKind::WorkerLost, format!("no answer within {left:?}"));
                timeout(left, connecting).await.map_err(no_answer)??
            }
        };
        self.silent_since = None;
        if let Some(former) = self.giver.filter(|former| *former != welcome.instance) {
            self.lose(former, "another process answers at its address");
        }
        self.giver = Some(welcome.instance);
        if !welcome.name.is_empty() {
            self.name.clone_from(&welcome.name);
        }
        self.was_met = true;
        self.connect_wire(peer, welcome).await
    }

    async fn connect_wire(&self, peer: Peer, welcome: PeerWelcome) -> Result<(InstanceId, Up), Failure> {
        let (giver, mut watch) = (welcome.instance, peer.watch().await?);
        let info = self.peer_info(welcome)?;
        let mut wire = self.peers.greet(&self.address, (peer.clone(), &self.name), info);
        // From here on words reach the giver, and its answers us; those of before may be lost.
        self.peers.greeted(giver);
        let listening = async {
            self.listen(giver, &mut watch).await;
            std::future::pending().await
        };
        let settled = tokio::select! {
            settled = timeout(WIRE_WAIT, wire.wait_for(|wire| *wire != Wire::Connecting)) => settled,
            settled = listening => settled,
        };
        let settled = settled.map(|state| state.map(|state| state.clone()));
        let transport = self.peers.transport();
        let name = &self.name;
        let lost = |reason: String| Failure::new(FailureKind::KvLost, format!("{transport} to {name}: {reason}"));
        let state = match settled {
            Ok(Ok(state)) => state,
            Ok(Err(_)) => return Err(lost("the giver was lost meanwhile".to_owned())),
            Err(_) => {
                let reason = format!("not connected within {WIRE_WAIT:?}");
                self.peers.table().set_wire(giver, Wire::Down { reason: reason.clone() });
                return Err(lost(reason));
            }
        };
        match state {
            Wire::Up { .. } => Ok((giver, Up { peer, watch, wire })),
            Wire::Down { reason } => Err(lost(reason)),
            Wire::Connecting => Err(lost("still connecting".to_owned())),
        }
    }

    /// What the replica needs to know: the endpoint of the one transport that is configured, never of another.
    fn peer_info(&self, welcome: PeerWelcome) -> Result<PeerInfo, Failure> {
        let transport = self.peers.transport();
        let offered: Vec<String> = welcome.endpoints.iter().map(|endpoint| endpoint.transport.clone()).collect();
        let endpoint = welcome.endpoints.into_iter().find(|endpoint| endpoint.transport == transport);
        let Some(endpoint) = endpoint else {
            let offered = offered.join(", ");
            let detail =
                format!("the giver at {} can be read over {offered}, this reader uses {transport}", self.address);
            return Err(Failure::new(FailureKind::Incompatible, detail));
        };
        let PeerWelcome { instance, layout, blocks, .. } = welcome;
        if engine::replica::owner_of(&endpoint.address).is_some_and(|owner| owner != instance) {
            let detail = format!("the giver at {} gives the {transport} endpoint of another process", self.address);
            return Err(Failure::new(FailureKind::Incompatible, detail));
        }
        let resharding = Resharding::of_all(&layout, &self.peers.shared.worker.info.layout).map_err(|error| {
            let detail = format!("the giver at {} cannot be read from: {error}", self.address);
            Failure::new(FailureKind::Incompatible, detail)
        })?;
        Ok(PeerInfo { instance, resharding, blocks, endpoint: endpoint.address })
    }

    /// The giver is up; stays until something about it changes.
    async fn hold(&mut self, giver: InstanceId, mut up: Up) {
        let rate = match *up.wire.borrow() {
            Wire::Up { bytes_per_second } => bytes_per_second,
            Wire::Connecting | Wire::Down { .. } => 0.0,
        };
        let again = self.problem.is_some();
        if again || self.pauses.is_fresh() {
            let transport = self.peers.transport();
            let gb_per_second = (rate / 1e8).round() / 10.0;
            match again {
                true => tracing::info!(giver = self.name, transport, gb_per_second, "a giver is up again"),
                false => tracing::debug!(giver = self.name, transport, gb_per_second, "a giver is up"),
            }
        }
        self.speed = Some(self.peers.shared.worker.metrics.pair_up(&self.name, rate));
        self.peers.met(&self.address, giver);
        let since = Instant::now();
        let interruption = self.interrupted(giver, &mut up).await;
        self.pauses.lived(since.elapsed());
        if since.elapsed() >= STEADY_AFTER {
            self.problem = None;
        }
        match interruption {
            Interruption::Ended(reason) => {
                tracing::debug!(giver = self.name, reason, "a giver's connection has ended");
                self.fell_silent(giver);
                if since.elapsed() < SHORT_LIFE {
                    self.pause(After::Trouble).await;
                }
            }
            Interruption::WireDown(reason) => {
                self.speed = None;
                self.say("a giver cannot be read from", &reason);
                // A wire that goes down as soon as it is up must not be met again in a hot loop.
                self.pause(After::Trouble).await;
            }
            Interruption::Silent => {
                self.speed = None;
                self.peers.wire_down(giver, "it does not answer".to_owned());
                self.say("a giver is silent", "it does not answer");
                self.fell_silent(giver);
            }
            Interruption::AskedToLook => {}
        }
    }

    fn fell_silent(&mut self, giver: InstanceId) {
        self.silent_since = Some(Instant::now());
        self.peers.table().fell_silent(&self.address, giver);
    }

    /// Warns of a problem once, however often it comes back.
    fn say(&mut self, what: &str, reason: &str) {
        if self.problem.as_deref() == Some(reason) {
            tracing::debug!(giver = self.name, address = self.address, reason, "{what}");
        } else {
            tracing::warn!(giver = self.name, address = self.address, reason, "{what}");
            self.problem = Some(reason.to_owned());
        }
    }

    /// Passes on what the giver says, until its connection ends: how it did.
    async fn listen(&self, giver: InstanceId, watch: &mut Watch) -> String {
        loop {
            match watch.next().await {
                Ok(word) => self.peers.pass_on(Event::Giver(giver, word)).await,
                Err(reason) => return reason,
            }
        }
    }

    async fn interrupted(&self, giver: InstanceId, up: &mut Up) -> Interruption {
        let Up { peer, watch, wire } = up;
        let reason = tokio::select! {
            reason = self.listen(giver, watch) => return Interruption::Ended(reason),
            reason = went_down(wire) => reason,
            () = fell_silent(peer) => return Interruption::Silent,
            () = self.wake.notified() => return Interruption::AskedToLook,
        };
        match timeout(FAREWELL_WAIT, self.listen(giver, watch)).await {
            Ok(ended) => Interruption::Ended(ended),
            Err(_) => Interruption::WireDown(reason),
        }
    }

    /// Nobody to read from here. True if the address is forgotten.
    fn failed(&mut self, failure: &Failure) -> bool {
        if self.after(failure) == After::Silence {
            // It may be restarted, or end as we do; if it does not come back, its loss is told.
            tracing::debug!(giver = self.name, address = self.address, reason = failure.detail, "a giver is silent");
            self.problem = Some(failure.detail.clone());
        } else {
            self.say("a giver is not up", &failure.detail);
        }
        self.peers.not_met(&self.address, failure);
        let silent = match self.after(failure) {
            After::Silence | After::Absence => self.silent_since.get_or_insert_with(Instant::now).elapsed(),
            // It answers, if only to say no.
            After::Trouble => Duration::ZERO,
        };
        if let Some(giver) = self.giver.filter(|_| silent >= self.peers.shared.config.lost_after) {
            self.giver = None;
            self.lose(giver, "nobody answers at its address");
        }
        let patience = if self.was_met { FORGET_AFTER } else { Duration::ZERO };
        silent >= patience && self.peers.table().forget(&self.address)
    }

    fn lose(&mut self, giver: InstanceId, why: &str) {
        self.speed = None;
        let (name, address) = (&self.name, &self.address);
        if self.peers.lose(address, giver) == Loss::HeldElsewhere {
            return tracing::warn!(giver = name, address, why, "a giver is not at this address any more");
        }
        tracing::warn!(giver = name, address, why, "a giver is lost");
        self.peers.publish();
    }

    /// Waits before the next try; an offer that waits for this address cuts it short.
    async fn pause(&mut self, after: After) {
        let _ = timeout(self.pauses.next(after), self.wake.notified()).await;
    }

    fn after(&self, failure: &Failure) -> After {
        match failure.kind {
            FailureKind::WorkerLost if self.giver.is_some() => After::Silence,
            FailureKind::WorkerLost => After::Absence,
            FailureKind::InvalidRequest
            | FailureKind::TooLong
            | FailureKind::NotFound
            | FailureKind::Overloaded
            | FailureKind::Unavailable
            | FailureKind::DeadlineExceeded
            | FailureKind::Cancelled
            | FailureKind::KvLost
            | FailureKind::Incompatible
            | FailureKind::Internal => After::Trouble,
        }
    }
}

/// Resolves when the transport cannot read from the giver any more, with the reason.
async fn went_down(wire: &mut watch::Receiver<Wire>) -> String {
    match wire.wait_for(|wire| matches!(wire, Wire::Down { .. })).await.as_deref() {
        Ok(Wire::Down { reason }) => reason.clone(),
        Ok(Wire::Up { .. } | Wire::Connecting) | Err(_) => "it was lost meanwhile".to_owned(),
    }
}

/// Resolves when a giver whose connection looks well has not answered several times: a process that is stopped keeps its
/// connections, and over one-sided transports even its memory can still be read.
async fn fell_silent(peer: &Peer) {
    let mut unanswered = 0;
    while unanswered < PINGS_UNANSWERED_MAX {
        sleep(PING_EVERY).await;
        match peer.ping(PING_WAIT).await {
            Ok(()) => unanswered = 0,
            Err(_) => unanswered += 1,
        }
    }
}
