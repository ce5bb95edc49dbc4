//! Sends a reader's words about leases to givers, each in a task of its own.

use std::time::Duration;

use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use tokio::time::{Instant, sleep};

use super::Peers;

const RETRY: Duration = Duration::from_millis(100);

impl Peers {
    /// Sends a word of the replica to a giver, at an address where it answers, and repeats it for up to one beat until
    /// the giver has heard it. The answer comes over the giver's link.
    pub(super) async fn tell(&self, giver: InstanceId, word: ToGiver) {
        let deadline = Instant::now() + Duration::from_micros(self.shared.worker.lease_beat.us());
        loop {
            let Some(peer) = self.table().peer(giver) else { return self.tell_nobody(giver, word) };
            let left = || deadline.saturating_duration_since(Instant::now());
            let Err(failure) = peer.say(&word, left()).await else { return };
            self.meet_again(giver, &failure);
            if left() <= RETRY {
                // The link finds out whether the giver is gone. The replica repeats words that still matter at the next
                // beat, and a lease that is not renewed runs out.
                let (giver, reason) = (self.table().name(giver), failure.detail);
                return match word {
                    ToGiver::Renew(_) => tracing::warn!(giver, reason, "a heartbeat was not heard"),
                    word => tracing::debug!(giver, word = word.label(), reason, "a word was not heard"),
                };
            }
            sleep(RETRY).await;
        }
    }

    /// Answers in place of a lost giver, so that a leg does not wait for it until its deadline.
    fn tell_nobody(&self, giver: InstanceId, word: ToGiver) {
        match word {
            ToGiver::Renew(leases) => self.tell_replica(Event::Giver(giver, ToReader::Gone(leases))),
            ToGiver::Follow(lease) => self.tell_replica(Event::Giver(giver, ToReader::Gone(vec![lease]))),
            ToGiver::Release(lease) => self.tell_replica(Event::ReleaseUnheard { giver, lease }),
            ToGiver::Abort(lease) => tracing::debug!(%giver, %lease, "a giver that is lost needs no abort"),
        }
    }

    /// Has a giver met again that lives but does not know this reader any more.
    fn meet_again(&self, giver: InstanceId, failure: &Failure) {
        if failure.kind == FailureKind::Incompatible {
            self.table().look_again(giver);
        }
    }
}
