//! What a reader tells givers about leases: heartbeats, release, abort. Every call is a task of its own.

use std::time::Duration;

use proto::peer::client::Peer;
use sched::message::{Event, ReleaseAnswer};
use sched::{InstanceId, LeaseId, Leg};
use tokio::time::{Instant, sleep};

use super::Peers;

/// Between two tries of one call.
const RETRY: Duration = Duration::from_millis(100);
/// How long a fact may wait for room in the replica's inbox.
const INBOX_WAIT: Duration = Duration::from_secs(5);
/// How often room is looked for.
const INBOX_RETRY: Duration = Duration::from_millis(1);

impl Peers {
    /// Renews leases; those that are gone are told to the replica.
    pub(crate) fn renew(&self, giver: InstanceId, leases: Vec<LeaseId>) {
        let Some(peer) = self.table().peer(giver) else { return };
        let (peers, giver) = (self.clone(), self.table().name(giver));
        self.shared.runtime.spawn(async move {
            match peer.renew(&leases).await {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => peers.tell_replica(Event::LeasesGone(gone)).await,
                // Whether the giver is gone is the link's to find out; the next beat is near.
                Err(failure) => tracing::warn!(giver, reason = failure.detail, "a heartbeat was not answered"),
            }
        });
    }

    /// Asks a giver whether its lease covered the pull, for one beat; the replica asks again until it gives up.
    pub(crate) fn release(&self, leg: Leg, giver: InstanceId, lease: LeaseId) {
        let (peers, peer) = (self.clone(), self.table().peer(giver));
        self.shared.runtime.spawn(async move {
            let answer = match peer {
                Some(peer) => released(&peer, lease, peers.shared.config.lease_beat).await,
                None => Some(ReleaseAnswer::Unreachable),
            };
            if let Some(answer) = answer {
                peers.tell_replica(Event::ReleaseAnswered { leg, answer }).await;
            }
        });
    }

    /// Tells a giver that nothing will be read any more. If it is not heard, the lease runs out by itself.
    pub(crate) fn abort(&self, giver: InstanceId, lease: LeaseId) {
        let Some(peer) = self.table().peer(giver) else { return };
        let giver = self.table().name(giver);
        self.shared.runtime.spawn(async move {
            if let Err(failure) = peer.abort(lease).await {
                tracing::warn!(giver, %lease, reason = failure.detail, "an abort was not heard; the lease will run out");
            }
        });
    }

    async fn tell_replica(&self, event: Event) {
        let deadline = Instant::now() + INBOX_WAIT;
        while let Err(error) = self.shared.replica.send(event.clone()) {
            if Instant::now() >= deadline || matches!(error, engine::EngineError::Stopped) {
                tracing::error!(%error, ?event, "the replica was not told");
                return;
            }
            sleep(INBOX_RETRY).await;
        }
    }
}

/// The answer to a release, repeated until `within` is over: the giver's answer stays the same.
async fn released(peer: &Peer, lease: LeaseId, within: Duration) -> Option<ReleaseAnswer> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match peer.release(lease, left).await {
            Ok(answer) => return Some(answer),
            Err(failure) => tracing::debug!(%lease, %failure, "a release was not answered"),
        }
        if deadline.saturating_duration_since(Instant::now()) <= RETRY {
            return None;
        }
        sleep(RETRY).await;
    }
}
