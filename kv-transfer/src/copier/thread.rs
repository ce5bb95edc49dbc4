//! The copying thread: one read of each peer in turn, with commands in between.

use std::collections::BTreeMap;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::{Connector, Message, ReadError, Source};
use crate::driver::Command;
use crate::flow::{Ending, Flow};
use crate::outbox::Outbox;
use crate::{Limits, PeerId, TransferError, TransferEvent};

pub(super) struct Thread {
    inbox: Receiver<Message>,
    messages: Sender<Message>,
    connector: Box<dyn Connector>,
    peers: BTreeMap<PeerId, Peer>,
    outbox: Outbox,
    limits: Limits,
}

#[derive(Default)]
struct Peer {
    /// `None` while connecting.
    source: Option<Box<dyn Source>>,
    flow: Flow,
}

impl Thread {
    pub(super) fn new(
        inbox: Receiver<Message>,
        messages: Sender<Message>,
        connector: Box<dyn Connector>,
        outbox: Outbox,
        limits: Limits,
    ) -> Self {
        Self { inbox, messages, connector, peers: BTreeMap::new(), outbox, limits }
    }

    pub(super) fn run(mut self) {
        loop {
            let idle = self.peers.values().all(|peer| peer.flow.is_empty());
            // This thread holds `messages` too, so the channel cannot close.
            let message = if idle { self.inbox.recv().ok() } else { self.inbox.try_recv().ok() };
            match message {
                Some(Message::Stop) => return,
                Some(message) => self.hear(message),
                None if idle => return,
                None => self.copy_one_read_per_peer(),
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Command(Command::Connect { peer, endpoint }) => {
                self.peers.insert(peer, Peer::default());
                self.connector.connect(peer, endpoint, self.messages.clone());
            }
            Message::Command(Command::Start { ticket, peer, job }) => match self.peers.get_mut(&peer) {
                Some(known) => known.flow.push(ticket, job),
                None => {
                    let error = TransferError::lost("start a batch", "it went down meanwhile");
                    self.outbox.tell(TransferEvent::Failed { ticket, error });
                }
            },
            Message::Command(Command::Abort { ticket, peer }) => {
                let ended = self.peers.get_mut(&peer);
                let ended = ended.and_then(|peer| peer.flow.end(ticket, Ending::Aborted, Instant::now()));
                self.tell(ended);
            }
            Message::Command(Command::Disconnect { peer }) => {
                self.drop_peer(peer, &Ending::Aborted, TransferError::Disconnected);
            }
            Message::Connected { peer, source, probe } => {
                // If the peer has been disconnected meanwhile, dropping the source closes the connection.
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.source = Some(source);
                    self.outbox.tell(TransferEvent::PeerUp { peer, probe });
                }
            }
            Message::Lost { peer, error } => self.drop_peer(peer, &Ending::Failed(error.clone()), error),
            Message::Stop => {}
        }
    }

    fn copy_one_read_per_peer(&mut self) {
        let mut lost = Vec::new();
        for (id, peer) in &mut self.peers {
            let now = Instant::now();
            for (ticket, error) in peer.flow.late(now) {
                tell(&self.outbox, peer.flow.end(ticket, Ending::Failed(error), now));
            }
            let Some(source) = &mut peer.source else { continue };
            let Some(read) = peer.flow.next_read(self.limits.read_bytes_max, now) else { continue };
            match source.read(&read) {
                Ok(()) => tell(&self.outbox, peer.flow.landed(read.ticket, Instant::now())),
                Err(ReadError::Batch(error)) => {
                    tell(&self.outbox, peer.flow.failed(read.ticket, error, Instant::now()));
                }
                Err(ReadError::Peer(error)) => {
                    tell(&self.outbox, peer.flow.failed(read.ticket, error.clone(), Instant::now()));
                    lost.push((*id, error));
                }
            }
        }
        for (peer, error) in lost {
            self.drop_peer(peer, &Ending::Failed(error.clone()), error);
        }
    }

    /// Removes a peer. No read is in flight between two reads, so every batch of it can end at once.
    fn drop_peer(&mut self, peer: PeerId, ending: &Ending, error: TransferError) {
        let Some(mut gone) = self.peers.remove(&peer) else { return };
        for ticket in gone.flow.tickets() {
            self.tell(gone.flow.end(ticket, ending.clone(), Instant::now()));
        }
        self.outbox.tell(TransferEvent::PeerDown { peer, error });
    }

    fn tell(&self, event: Option<TransferEvent>) {
        tell(&self.outbox, event);
    }
}

fn tell(outbox: &Outbox, event: Option<TransferEvent>) {
    if let Some(event) = event {
        outbox.tell(event);
    }
}
