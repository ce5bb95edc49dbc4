//! Sends a reader's words about leases to givers, each in a task of its own.

use std::time::Duration;

use engine::EngineError;
use engine::replica::NotTaken;
use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use tokio::time::{Instant, sleep};

use super::Peers;

const RETRY: Duration = Duration::from_millis(100);
const INBOX_WAIT: Duration = Duration::from_secs(5);
const INBOX_RETRY: Duration = Duration::from_millis(1);

impl Peers {
    /// Sends a word of the replica to a giver, at an address where it answers, and repeats it for up to one beat until
    /// the giver has heard it. The answer comes over the giver's link.
    pub(super) async fn tell(&self, giver: InstanceId, word: ToGiver) {
        let deadline = Instant::now() + Duration::from_micros(self.shared.worker.lease_beat.us());
        loop {
            let Some(peer) = self.table().peer(giver) else { return self.tell_nobody(giver, word).await };
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
    async fn tell_nobody(&self, giver: InstanceId, word: ToGiver) {
        match word {
            ToGiver::Renew(leases) => self.pass_on(Event::Giver(giver, ToReader::Gone(leases))).await,
            ToGiver::Follow(lease) => self.pass_on(Event::Giver(giver, ToReader::Gone(vec![lease]))).await,
            ToGiver::Release(lease) => self.pass_on(Event::ReleaseUnheard { giver, lease }).await,
            ToGiver::Abort(lease) => tracing::debug!(%giver, %lease, "a giver that is lost needs no abort"),
        }
    }

    /// Has a giver met again that lives but does not know this reader any more.
    fn meet_again(&self, giver: InstanceId, failure: &Failure) {
        if failure.kind == FailureKind::Incompatible {
            self.table().look_again(giver);
        }
    }

    pub(super) async fn pass_on(&self, event: Event) {
        let deadline = Instant::now() + INBOX_WAIT;
        let mut command = event.into();
        while let Err(NotTaken { command: back, why }) = self.shared.worker.replica.send(command) {
            if Instant::now() >= deadline || matches!(why, EngineError::Stopped) {
                tracing::error!(%why, command = ?back, "the replica was not told");
                return;
            }
            command = *back;
            sleep(INBOX_RETRY).await;
        }
    }
}
