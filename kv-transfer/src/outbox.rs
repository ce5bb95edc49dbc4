//! How a transport's threads tell their owner; knows no transport.

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{Notify, PeerId, TransferError, TransferEvent};

/// Where transport threads put events. The queue holds at most one end per open ticket and two events per peer, so the
/// limits on those bound it.
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
        // The owner is gone when this fails, and nobody is left to be told.
        let _gone = self.events.send(event);
        (self.notify)();
    }

    /// To be held by a thread without which the transport is none: its end is told, also when it ends by a panic.
    pub(crate) fn essential(&self, part: &'static str) -> Essential {
        Essential { outbox: self.clone(), part }
    }

    /// To be held by whoever serves one peer: its end is told, also when it ends by a panic.
    pub(crate) fn peer(&self, peer: PeerId) -> PeerEnd {
        let reason = "the task that reads from it has ended";
        PeerEnd { outbox: self.clone(), peer, error: TransferError::lost("read", reason) }
    }
}

/// Tells the end of the transport when dropped. When the owner itself has ended it, nobody listens.
pub(crate) struct Essential {
    outbox: Outbox,
    part: &'static str,
}

impl Drop for Essential {
    fn drop(&mut self) {
        self.outbox.tell(TransferEvent::Stopped { part: self.part });
    }
}

/// Tells the end of a peer when dropped.
pub(crate) struct PeerEnd {
    outbox: Outbox,
    peer: PeerId,
    /// Why, as far as is known.
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
