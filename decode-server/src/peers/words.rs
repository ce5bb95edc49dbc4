//! What a reader tells givers about leases. Every word is a task of its own.

use std::time::Duration;

use engine::EngineError;
use engine::replica::NotTaken;
use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use tokio::time::{Instant, sleep};

use super::Peers;

/// Between two tries of one word.
const RETRY: Duration = Duration::from_millis(100);
/// How long a fact may wait for room in the replica's inbox.
const INBOX_WAIT: Duration = Duration::from_secs(5);
/// How often room is looked for.
const INBOX_RETRY: Duration = Duration::from_millis(1);

impl Peers {
    /// Tells a giver a word of the replica's, and repeats it for one beat until the giver has heard it, at whichever of its
    /// addresses. What it answers comes over its link.
    pub(super) async fn tell(&self, giver: InstanceId, word: ToGiver) {
        let deadline = Instant::now() + Duration::from_micros(self.shared.worker.lease_beat.us());
        loop {
            let Some(peer) = self.table().peer(giver) else { return self.tell_nobody(giver, word).await };
            let left = || deadline.saturating_duration_since(Instant::now());
            let Err(failure) = peer.say(&word, left()).await else { return };
            self.meet_again(giver, &failure);
            if left() <= RETRY {
                // Whether the giver is gone is the link's to find out. The replica says again what it still means at the
                // next beat, and a lease that nobody speaks of runs out.
                let (giver, reason) = (self.table().name(giver), failure.detail);
                return match word {
                    ToGiver::Renew(_) => tracing::warn!(giver, reason, "a heartbeat was not heard"),
                    word => tracing::debug!(giver, word = word.label(), reason, "a word was not heard"),
                };
            }
            sleep(RETRY).await;
        }
    }

    /// Answers for a giver that is lost: whoever waits for it must not wait for the end of the request.
    async fn tell_nobody(&self, giver: InstanceId, word: ToGiver) {
        match word {
            ToGiver::Renew(leases) => self.pass_on(Event::Giver(giver, ToReader::Gone(leases))).await,
            ToGiver::Follow(lease) => self.pass_on(Event::Giver(giver, ToReader::Gone(vec![lease]))).await,
            ToGiver::Release(lease) => self.pass_on(Event::ReleaseUnheard { giver, lease }).await,
            ToGiver::Abort(lease) => tracing::debug!(%giver, %lease, "a giver that is lost needs no abort"),
        }
    }

    /// A giver that does not know us any more, though it lives, has to be met again.
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
