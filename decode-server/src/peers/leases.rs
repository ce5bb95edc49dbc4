//! What a reader tells givers about leases: heartbeats, release, abort. Every call is a task of its own.

use std::time::Duration;

use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId, LeaseId};
use tokio::time::{Instant, sleep};

use super::Peers;

/// Between two tries of one call.
const RETRY: Duration = Duration::from_millis(100);
/// How long a fact may wait for room in the replica's inbox.
const INBOX_WAIT: Duration = Duration::from_secs(5);
/// How often room is looked for.
const INBOX_RETRY: Duration = Duration::from_millis(1);

impl Peers {
    /// Tells a giver a word of the replica's.
    pub(crate) fn say(&self, giver: InstanceId, word: ToGiver) {
        match word {
            ToGiver::Renew(leases) => self.renew(giver, leases),
            ToGiver::Release(lease) => self.release(giver, lease),
            ToGiver::Abort(lease) => self.abort(giver, lease),
        }
    }

    /// Renews leases; those that are gone are told to the replica.
    fn renew(&self, giver: InstanceId, leases: Vec<LeaseId>) {
        let (peers, peer) = (self.clone(), self.table().peer(giver));
        let name = self.table().name(giver);
        self.shared.runtime.spawn(async move {
            // Nobody renews at a giver that is lost: whoever waits for it must not wait for the end of the request.
            let gone = |leases| Event::Giver(giver, ToReader::Gone(leases));
            let Some(peer) = peer else { return peers.tell_replica(gone(leases)).await };
            match peer.renew(&leases).await {
                Ok(lost) if lost.is_empty() => {}
                Ok(lost) => peers.tell_replica(gone(lost)).await,
                // Whether the giver is gone is the link's to find out; the next beat is near.
                Err(failure) => {
                    tracing::warn!(giver = name, reason = failure.detail, "a heartbeat was not answered");
                    peers.meet_again(giver, &failure);
                }
            }
        });
    }

    /// Asks a giver whether its lease covered the pull, for one beat; the replica asks again until it gives up.
    fn release(&self, giver: InstanceId, lease: LeaseId) {
        let peers = self.clone();
        self.shared.runtime.spawn(async move {
            if let Some(heard) = peers.released(giver, lease).await {
                peers.tell_replica(heard).await;
            }
        });
    }

    /// Tells a giver that nothing will be read any more. If it is not heard, the lease runs out by itself.
    fn abort(&self, giver: InstanceId, lease: LeaseId) {
        let Some(peer) = self.table().peer(giver) else {
            return tracing::debug!(%giver, %lease, "a giver that is lost needs no abort");
        };
        let giver = self.table().name(giver);
        self.shared.runtime.spawn(async move {
            if let Err(failure) = peer.abort(lease).await {
                tracing::warn!(giver, %lease, reason = failure.detail, "an abort was not heard; the lease will run out");
            }
        });
    }

    /// What came of a release, repeated for one beat: the giver's answer stays the same, at whichever of its addresses.
    async fn released(&self, giver: InstanceId, lease: LeaseId) -> Option<Event> {
        let deadline = Instant::now() + self.shared.config.lease_beat;
        loop {
            let Some(peer) = self.table().peer(giver) else { return Some(Event::ReleaseUnheard { giver, lease }) };
            let left = deadline.saturating_duration_since(Instant::now());
            match peer.release(lease, left).await {
                Ok(answer) => return Some(Event::Giver(giver, ToReader::Released { lease, answer })),
                Err(failure) => {
                    tracing::debug!(%lease, %failure, "a release was not answered");
                    self.meet_again(giver, &failure);
                }
            }
            if deadline.saturating_duration_since(Instant::now()) <= RETRY {
                return None;
            }
            sleep(RETRY).await;
        }
    }

    /// A giver that does not know us any more, though it lives, has to be met again.
    fn meet_again(&self, giver: InstanceId, failure: &Failure) {
        if failure.kind == FailureKind::Incompatible {
            self.table().look_again(giver);
        }
    }

    pub(super) async fn tell_replica(&self, event: Event) {
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
