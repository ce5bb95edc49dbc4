//! The link to one address: meets the giver that answers, stays connected while it lives, and reports its loss.

use std::sync::Arc;
use std::time::Duration;

use engine::replica::PeerInfo;
use node::telemetry::LiveGauge;
use proto::peer::PeerWelcome;
use proto::peer::client::{Peer, Watch, connect};
use sched::layout::Resharding;
use sched::{Failure, FailureKind, InstanceId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use worker::Taking;

use super::Peers;
use super::path::Wire;
use super::pauses::{After, Pauses};
use super::table::{Loss, Told};

/// Shortest time that a giver that has fallen silent gets to answer.
const ANSWER_WAIT_MIN: Duration = Duration::from_millis(50);
const WIRE_WAIT: Duration = Duration::from_secs(5);
/// Time for a giver whose transport went down to say that it is leaving.
const FAREWELL_WAIT: Duration = Duration::from_millis(300);
/// Time up after which a problem that comes back is logged as a new one.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Interval of pings, time for an answer, and unanswered pings in a row after which a giver is silent.
const PING_EVERY: Duration = Duration::from_secs(3);
const PING_WAIT: Duration = Duration::from_secs(3);
const PINGS_UNANSWERED_MAX: u32 = 2;
/// Time without an answer after which a learned address is forgotten; at once if no giver was ever met there.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// A giver whose connection ends before this is met again only after a pause: it leaves, or the path is cut.
const SHORT_LIFE: Duration = Duration::from_secs(1);

pub(super) struct Link {
    peers: Peers,
    address: String,
    wake: Arc<Notify>,
    /// Giver met here last that is not known to be gone.
    giver: Option<InstanceId>,
    /// Name of the giver; its address until the name is known.
    name: String,
    /// Gauge of the rate, exported while the giver can be read from.
    speed: Option<LiveGauge>,
    was_met: bool,
    silent_since: Option<Instant>,
    pauses: Pauses,
    problem: Option<String>,
}

struct Up {
    peer: Peer,
    watch: Watch,
    wire: watch::Receiver<Wire>,
}

enum Interruption {
    Ended(String),
    WireDown(String),
    /// The giver does not answer, although its connection is open.
    Silent,
    /// An offer names another incarnation at this address, or the giver does not know this reader.
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

    /// Meets the giver, holds the connection, meets again; ends when the address is forgotten.
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

    async fn meet(&mut self) -> Result<(InstanceId, Up), Failure> {
        let shared = &self.peers.shared;
        let config = &shared.config;
        let connecting = connect(&self.address, &shared.hello, &shared.worker.secret, &config.limits);
        let connected = match self.silent_since.filter(|_| self.giver.is_some()) {
            None => connecting.await,
            // A stopped process accepts connections and answers nothing: the time until it is lost runs on.
            Some(since) => {
                let left = config.lost_after.saturating_sub(since.elapsed()).max(ANSWER_WAIT_MIN);
                let no_answer = |_| Failure::new(FailureKind::WorkerLost, format!("no answer within {left:?}"));
                timeout(left, connecting).await.unwrap_or_else(|late| Err(no_answer(late)))
            }
        };
        let (peer, welcome) = match connected {
            Ok(connected) => connected,
            Err(failure) => {
                // A giver that was met is met again as long as its process lives: another one refuses.
                if failure.kind == FailureKind::Incompatible {
                    self.lose_former(None);
                }
                return Err(failure);
            }
        };
        self.silent_since = None;
        self.lose_former(Some(welcome.instance));
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
        // From here on words and answers arrive; earlier ones may be lost.
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

    /// Returns the facts that the replica needs, with the endpoint of the configured transport, never of another.
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

    /// Holds the connection to a giver that is up, until something about it changes.
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
                // A wire that goes down as soon as it is up must not cause a hot loop.
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

    /// Warns of a problem once, even if it repeats.
    fn say(&mut self, what: &str, reason: &str) {
        if self.problem.as_deref() == Some(reason) {
            tracing::debug!(giver = self.name, address = self.address, reason, "{what}");
        } else {
            tracing::warn!(giver = self.name, address = self.address, reason, "{what}");
            self.problem = Some(reason.to_owned());
        }
    }

    /// Passes the giver's words to the replica until its connection ends; returns the reason.
    async fn listen(&self, giver: InstanceId, watch: &mut Watch) -> String {
        loop {
            match watch.next().await {
                Ok(word) => self.peers.hear(giver, word).await,
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

    /// Acts on a try that failed. True if the address is forgotten.
    fn failed(&mut self, failure: &Failure) -> bool {
        if self.after(failure) == After::Silence {
            // The giver may restart, or end together with this worker; if it does not come back, its loss is logged.
            tracing::debug!(giver = self.name, address = self.address, reason = failure.detail, "a giver is silent");
            self.problem = Some(failure.detail.clone());
        } else {
            self.say("a giver is not up", &failure.detail);
        }
        self.peers.not_met(&self.address, failure);
        let silent = match self.after(failure) {
            After::Silence | After::Absence => self.silent_since.get_or_insert_with(Instant::now).elapsed(),
            // The giver answers, even if it refuses.
            After::Trouble => Duration::ZERO,
        };
        if let Some(giver) = self.giver.filter(|_| silent >= self.peers.shared.config.lost_after) {
            self.giver = None;
            self.lose(giver, "nobody answers at its address");
        }
        let patience = if self.was_met { FORGET_AFTER } else { Duration::ZERO };
        silent >= patience && self.peers.table().forget(&self.address)
    }

    /// Loses the giver that was met here if it is not the one that answers now.
    fn lose_former(&mut self, now: Option<InstanceId>) {
        if let Some(former) = self.giver.take_if(|former| Some(*former) != now) {
            self.lose(former, "another process answers at its address");
        }
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

    /// Waits before the next try; an offer that names this address ends the wait.
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

/// Waits until the transport cannot read from the giver any more; returns the reason.
async fn went_down(wire: &mut watch::Receiver<Wire>) -> String {
    match wire.wait_for(|wire| matches!(wire, Wire::Down { .. })).await.as_deref() {
        Ok(Wire::Down { reason }) => reason.clone(),
        Ok(Wire::Up { .. } | Wire::Connecting) | Err(_) => "it was lost meanwhile".to_owned(),
    }
}

/// Waits until the giver has not answered several pings: a stopped process keeps its connections, and over one-sided
/// transports even its memory can still be read.
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
