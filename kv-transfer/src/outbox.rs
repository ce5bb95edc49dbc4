//! The queue of events from a transport's threads to the thread that drives it; knows no transport.

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{Notify, PeerId, TransferError, TransferEvent};

/// Sender of events. The queue holds at most one end per open ticket and two events per peer, so the limits on tickets
/// and peers bound it.
#[derive(Clone)]
pub(crate) struct Outbox {
    events: Sender<TransferEvent>,
    notify: Notify,
}

impl Outbox {
    pub(crate) fn new(notify: Notify) -> (Self, Receiver<TransferEvent>) {
        let (events, inbox) = unbounded();
        (Self { events, notify }, inbox)
    }

    pub(crate) fn tell(&self, event: TransferEvent) {
        // Sending fails only when the receiver is gone.
        let _gone = self.events.send(event);
        (self.notify)();
    }

    /// Returns a guard for a thread that the transport cannot do without: reports its end, also by a panic.
    pub(crate) fn essential(&self, part: &'static str) -> Essential {
        Essential { outbox: self.clone(), part }
    }

    /// Returns a guard for the task of one peer: reports the end of the peer, also by a panic.
    pub(crate) fn peer(&self, peer: PeerId) -> PeerEnd {
        let reason = "the task that reads from it has ended";
        PeerEnd { outbox: self.clone(), peer, error: TransferError::lost("read", reason) }
    }
}

/// Reports the end of the transport when dropped; no receiver is left if the transport was dropped first.
pub(crate) struct Essential {
    outbox: Outbox,
    part: &'static str,
}

impl Drop for Essential {
    fn drop(&mut self) {
        self.outbox.tell(TransferEvent::Stopped { part: self.part });
    }
}

pub(crate) struct PeerEnd {
    outbox: Outbox,
    peer: PeerId,
    pub(crate) error: TransferError,
}

impl Drop for PeerEnd {
    fn drop(&mut self) {
        let (peer, error) = (self.peer, self.error.clone());
        self.outbox.tell(TransferEvent::PeerDown { peer, error });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_is_told_as_an_end() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&woken);
        let notify = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let (outbox, events) = Outbox::new(notify);
        let (essential, peer) = (outbox.essential("a thread"), outbox.peer(PeerId(4)));
        let thread = std::thread::spawn(move || {
            let _held = (peer, essential);
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        let told: Vec<_> = events.try_iter().collect();
        assert!(matches!(told[0], TransferEvent::PeerDown { peer: PeerId(4), .. }), "{told:?}");
        assert_eq!(told[1], TransferEvent::Stopped { part: "a thread" });
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
