//! How a transport's threads tell their owner; knows no transport.

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{Notify, TransferEvent};

/// Where transport threads put events. The queue holds at most one end per open ticket and two events per peer, so the
/// limits on those bound it.
#[derive(Clone)]
pub(crate) struct Outbox {
    /// `None` only while being dropped.
    events: Option<Sender<TransferEvent>>,
    notify: Notify,
}

impl Outbox {
    pub(crate) fn new(notify: Notify) -> (Self, Receiver<TransferEvent>) {
        let (events, inbox) = unbounded();
        (Self { events: Some(events), notify }, inbox)
    }

    pub(crate) fn tell(&self, event: TransferEvent) {
        if let Some(events) = &self.events {
            // The owner is gone when this fails, and nobody is left to be told.
            let _gone = events.send(event);
            (self.notify)();
        }
    }
}

impl Drop for Outbox {
    /// The owner must hear that a thread has ended, also when it ended by a panic: an empty channel without senders
    /// says so, and the call makes it look.
    fn drop(&mut self) {
        self.events = None;
        (self.notify)();
    }
}
