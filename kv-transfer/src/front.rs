//! The side of every transport that its owner sees: allots ids, checks arguments, bounds queues. Moves no byte and knows
//! no implementation.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};
use kernels::memory::HostMemory;

use crate::batch::Job;
use crate::driver::{Command, Driver};
use crate::endpoint::{Endpoint, RemoteRegion};
use crate::{
    Batch, KvTransport, Limits, PeerId, RegionId, Setup, Side, Ticket, TransferError, TransferEvent, TransportKind,
};

/// An open transport of any kind.
pub struct Transport {
    /// First, so that dropping stops the threads before the memory they use is let go.
    driver: Box<dyn Driver>,
    events: Receiver<TransferEvent>,
    kind: TransportKind,
    limits: Limits,
    /// Our own endpoint, which grows with each registered region.
    endpoint: Endpoint,
    regions: Vec<Arc<HostMemory>>,
    peers: BTreeMap<PeerId, Peer>,
    /// Batches that have not ended, and whose they are.
    open: BTreeMap<Ticket, PeerId>,
    peers_made: u64,
    tickets_made: u64,
}

struct Peer {
    state: PeerState,
    /// The lengths of the regions that the peer serves.
    region_bytes: Vec<u64>,
}

#[derive(PartialEq, Eq)]
enum PeerState {
    Connecting,
    Up,
}

impl Transport {
    pub(crate) fn new(
        kind: TransportKind,
        setup: &Setup,
        address: Vec<u8>,
        driver: Box<dyn Driver>,
        events: Receiver<TransferEvent>,
    ) -> Self {
        Self {
            driver,
            events,
            kind,
            limits: setup.limits,
            endpoint: Endpoint { kind, instance: setup.instance, address, regions: Vec::new() },
            regions: Vec::new(),
            peers: BTreeMap::new(),
            open: BTreeMap::new(),
            peers_made: 0,
            tickets_made: 0,
        }
    }

    /// Checks a batch against the peer's table of regions and ours.
    fn check(&self, peer: PeerId, batch: Batch) -> Result<Job, TransferError> {
        let operation = "start a batch";
        let known = self.peers.get(&peer).ok_or(TransferError::UnknownPeer { operation, peer })?;
        if known.state == PeerState::Connecting {
            return Err(TransferError::PeerConnecting { peer });
        }
        if self.open.len() >= self.limits.batches_max {
            let max = self.limits.batches_max as u64;
            return Err(TransferError::Limit { operation, what: "open batches", max });
        }
        let unknown = |side, region| TransferError::UnknownRegion { side, region };
        let remote_bytes = known.region_bytes.get(batch.remote.0 as usize);
        let remote_bytes = *remote_bytes.ok_or(unknown(Side::Remote, batch.remote))?;
        let local = self.regions.get(batch.local.0 as usize).ok_or(unknown(Side::Local, batch.local))?;
        Job::check(batch, remote_bytes, local, &self.limits)
    }

    fn note(&mut self, event: &TransferEvent) {
        if let Some(ticket) = event.ended() {
            self.open.remove(&ticket);
        }
        match event {
            TransferEvent::PeerUp { peer, .. } => {
                if let Some(known) = self.peers.get_mut(peer) {
                    known.state = PeerState::Up;
                }
            }
            TransferEvent::PeerDown { peer, .. } => {
                self.peers.remove(peer);
            }
            TransferEvent::Done { .. } | TransferEvent::Failed { .. } | TransferEvent::Aborted { .. } => {}
        }
    }

    /// The threads have ended by themselves: everything still open ends here, batches first.
    fn stopped(&mut self) -> Option<TransferEvent> {
        if let Some((ticket, _)) = self.open.pop_first() {
            return Some(TransferEvent::Failed { ticket, error: TransferError::Stopped });
        }
        let (peer, _) = self.peers.pop_first()?;
        Some(TransferEvent::PeerDown { peer, error: TransferError::Stopped })
    }
}

impl KvTransport for Transport {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    fn register(&mut self, memory: Arc<HostMemory>) -> Result<RegionId, TransferError> {
        let operation = "register memory";
        let max = self.limits.regions_max;
        if self.regions.len() >= max {
            return Err(TransferError::Limit { operation, what: "regions", max: max as u64 });
        }
        let (needed, found) = (self.kind.backing(), memory.backing());
        if self.kind == TransportKind::Shm && found != needed {
            return Err(TransferError::WrongBacking { kind: self.kind, needed, found });
        }
        let region = RegionId(self.regions.len() as u32);
        let key = self.driver.register(region, &memory)?;
        self.endpoint.regions.push(RemoteRegion { bytes: memory.len() as u64, key });
        self.regions.push(memory);
        Ok(region)
    }

    fn endpoint(&self) -> Vec<u8> {
        self.endpoint.encode()
    }

    fn connect(&mut self, endpoint: &[u8]) -> Result<PeerId, TransferError> {
        let max = self.limits.peers_max;
        if self.peers.len() >= max {
            return Err(TransferError::Limit { operation: "connect", what: "peers", max: max as u64 });
        }
        let endpoint = Endpoint::decode(endpoint, self.limits.regions_max)?;
        if endpoint.kind != self.kind {
            return Err(TransferError::WrongTransport { ours: self.kind, theirs: endpoint.kind });
        }
        let peer = PeerId(self.peers_made);
        let region_bytes = endpoint.regions.iter().map(|region| region.bytes).collect();
        self.driver.submit(Command::Connect { peer, endpoint })?;
        self.peers_made += 1;
        self.peers.insert(peer, Peer { state: PeerState::Connecting, region_bytes });
        Ok(peer)
    }

    fn start(&mut self, peer: PeerId, batch: Batch) -> Result<Ticket, TransferError> {
        let job = Arc::new(self.check(peer, batch)?);
        let ticket = Ticket(self.tickets_made);
        self.driver.submit(Command::Start { ticket, peer, job })?;
        self.tickets_made += 1;
        self.open.insert(ticket, peer);
        Ok(ticket)
    }

    fn poll(&mut self) -> Option<TransferEvent> {
        match self.events.try_recv() {
            Ok(event) => {
                self.note(&event);
                Some(event)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.stopped(),
        }
    }

    fn abort(&mut self, ticket: Ticket) {
        if let Some(peer) = self.open.get(&ticket) {
            // When the threads have ended, `poll` ends the ticket.
            let _stopped = self.driver.submit(Command::Abort { ticket, peer: *peer });
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        if self.peers.contains_key(&peer) {
            let _stopped = self.driver.submit(Command::Disconnect { peer });
        }
    }
}
