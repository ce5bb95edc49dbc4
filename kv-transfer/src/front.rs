//! The part of every transport that its caller sees: allots ids, checks arguments, bounds queues. Moves no byte and
//! knows no implementation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};
use kernels::memory::Region;

use crate::batch::Job;
use crate::driver::{Command, Driver};
use crate::endpoint::{Endpoint, RemoteRegion};
use crate::token::Token;
use crate::{
    Batch, KvTransport, Limits, PeerId, RegionId, Serving, Setup, Side, Ticket, TransferError, TransferEvent,
    TransportKind,
};

/// An open transport of any kind.
pub struct Transport {
    /// First field, so that dropping stops the threads before it frees the memory that they use.
    driver: Box<dyn Driver>,
    events: Receiver<TransferEvent>,
    /// Ends of batches and their peer, returned by `poll` before the next event.
    endings: VecDeque<TransferEvent>,
    kind: TransportKind,
    limits: Limits,
    serving: Serving,
    /// This worker's endpoint; grows with each registered region.
    endpoint: Endpoint,
    regions: Vec<Region>,
    peers: BTreeMap<PeerId, Peer>,
    open: BTreeMap<Ticket, PeerId>,
    peers_made: u64,
    tickets_made: u64,
    life: Life,
}

#[derive(PartialEq, Eq)]
enum Life {
    Running,
    Stopped,
}

struct Peer {
    state: PeerState,
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
        token: Token,
        address: Vec<u8>,
        driver: Box<dyn Driver>,
        events: Receiver<TransferEvent>,
    ) -> Self {
        Self {
            driver,
            events,
            endings: VecDeque::new(),
            kind,
            limits: setup.limits,
            serving: setup.serving,
            endpoint: Endpoint { kind, instance: setup.instance, token, address, regions: Vec::new() },
            regions: Vec::new(),
            peers: BTreeMap::new(),
            open: BTreeMap::new(),
            peers_made: 0,
            tickets_made: 0,
            life: Life::Running,
        }
    }

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
            TransferEvent::Stopped { .. } => self.life = Life::Stopped,
            TransferEvent::Done { .. } | TransferEvent::Failed { .. } | TransferEvent::Aborted { .. } => {}
        }
    }

    /// Ends the batches of a peer that went down, before the peer: a batch that was just started may not have reached
    /// the threads when they report the end. Later events of these batches are dropped.
    fn went_down(&mut self, peer: PeerId, error: TransferError) {
        let batches = self.open.iter().filter(|(_, of)| **of == peer);
        let lost = || TransferError::lost("start a batch", "it went down meanwhile");
        self.endings.extend(batches.map(|(ticket, _)| TransferEvent::Failed { ticket: *ticket, error: lost() }));
        self.endings.push_back(TransferEvent::PeerDown { peer, error });
    }

    fn running(&self) -> Result<(), TransferError> {
        match self.life {
            Life::Running => Ok(()),
            Life::Stopped => Err(TransferError::Stopped),
        }
    }
}

impl KvTransport for Transport {
    fn kind(&self) -> TransportKind {
        self.kind
    }

    fn register(&mut self, memory: Region) -> Result<RegionId, TransferError> {
        let operation = "register memory";
        let max = self.limits.regions_max;
        if self.regions.len() >= max {
            return Err(TransferError::Limit { operation, what: "regions", max: max as u64 });
        }
        if let Region::Host(host) = &memory
            && self.kind == TransportKind::Shm
            && self.serving == Serving::Readers
            && host.fd().is_none()
        {
            let (needed, found) = (self.kind.backing(), host.backing());
            return Err(TransferError::WrongBacking { kind: self.kind, needed, found });
        }
        let region = RegionId(self.regions.len() as u32);
        let key = self.driver.register(region, &memory)?;
        self.endpoint.regions.push(RemoteRegion { bytes: memory.bytes() as u64, key });
        self.regions.push(memory);
        Ok(region)
    }

    fn endpoint(&self) -> Vec<u8> {
        self.endpoint.encode()
    }

    fn connect(&mut self, endpoint: &[u8]) -> Result<PeerId, TransferError> {
        self.running()?;
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
        self.running()?;
        let job = Arc::new(self.check(peer, batch)?);
        let ticket = Ticket(self.tickets_made);
        self.driver.submit(Command::Start { ticket, peer, job })?;
        self.tickets_made += 1;
        self.open.insert(ticket, peer);
        Ok(ticket)
    }

    fn poll(&mut self) -> Option<TransferEvent> {
        loop {
            if self.life == Life::Stopped {
                return None;
            }
            if let Some(event) = self.endings.pop_front() {
                self.note(&event);
                return Some(event);
            }
            match self.events.try_recv() {
                Ok(TransferEvent::PeerDown { peer, error }) => {
                    if self.peers.contains_key(&peer) {
                        self.went_down(peer, error);
                    }
                }
                Ok(event) if event.ended().is_some_and(|ticket| !self.open.contains_key(&ticket)) => {}
                Ok(event) => {
                    self.note(&event);
                    return Some(event);
                }
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    let event = TransferEvent::Stopped { part: "every thread" };
                    self.note(&event);
                    return Some(event);
                }
            }
        }
    }

    fn abort(&mut self, ticket: Ticket) {
        if let Some(peer) = self.open.get(&ticket) {
            // `poll` reports it when the threads have ended.
            let _stopped = self.driver.submit(Command::Abort { ticket, peer: *peer });
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        if self.peers.contains_key(&peer) {
            let _stopped = self.driver.submit(Command::Disconnect { peer });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Sender, unbounded};
    use kernels::memory::{Backing, HostMemory};

    use super::*;
    use crate::{LeaseTable, RangeCopy};

    struct Idle;

    impl Driver for Idle {
        fn register(&mut self, _: RegionId, _: &Region) -> Result<Vec<u8>, TransferError> {
            Ok(Vec::new())
        }

        fn submit(&mut self, _: Command) -> Result<(), TransferError> {
            Ok(())
        }
    }

    fn transport() -> (Transport, Sender<TransferEvent>) {
        let (tell, events) = unbounded();
        let setup = Setup {
            instance: sched::InstanceId(1),
            notify: Arc::new(|| {}),
            access: Arc::new(LeaseTable::new()),
            limits: Limits::default(),
            serving: Serving::Readers,
        };
        (Transport::new(TransportKind::Tcp, &setup, Token::draw().unwrap(), Vec::new(), Box::new(Idle), events), tell)
    }

    #[test]
    fn batches_that_the_threads_did_not_see_end_before_their_peer() {
        let (mut transport, tell) = transport();
        let memory = Arc::new(HostMemory::new(4096, Backing::Anonymous).unwrap());
        let local = transport.register(memory.into()).unwrap();
        let endpoint = transport.endpoint();
        let [lost, other] = [(); 2].map(|()| transport.connect(&endpoint).unwrap());
        let batch = |lease| Batch {
            remote: RegionId(0),
            lease,
            local,
            copies: vec![RangeCopy { remote_offset: 0, local_offset: 0, bytes: 64 }],
            deadline: Duration::from_secs(1),
            reading: Duration::from_secs(1),
        };
        for peer in [lost, other] {
            tell.send(TransferEvent::PeerUp { peer, probe: crate::Probe { bytes: 1, elapsed_ns: 1 } }).unwrap();
            assert!(transport.poll().is_some());
        }
        let lease = sched::LeaseId(7);
        let (first, second) =
            (transport.start(lost, batch(lease)).unwrap(), transport.start(lost, batch(lease)).unwrap());
        let elsewhere = transport.start(other, batch(lease)).unwrap();
        let gone = || TransferError::lost("read", "it closed the connection");
        tell.send(TransferEvent::Failed { ticket: first, error: gone() }).unwrap();
        tell.send(TransferEvent::PeerDown { peer: lost, error: gone() }).unwrap();
        tell.send(TransferEvent::Failed { ticket: second, error: gone() }).unwrap();
        tell.send(TransferEvent::Done { ticket: elsewhere, bytes: 64, elapsed_us: 1 }).unwrap();
        let ended: Vec<Option<Ticket>> = std::iter::from_fn(|| transport.poll()).map(|event| event.ended()).collect();
        assert_eq!(ended, [Some(first), Some(second), None, Some(elsewhere)]);
    }
    #[test]
    fn a_transport_that_has_stopped_says_so_once_and_ends_nothing() {
        let (mut transport, tell) = transport();
        let endpoint = transport.endpoint();
        let peer = transport.connect(&endpoint).unwrap();
        tell.send(TransferEvent::Stopped { part: "a thread" }).unwrap();
        tell.send(TransferEvent::PeerDown { peer, error: TransferError::Stopped }).unwrap();
        drop(tell);
        assert_eq!(transport.poll(), Some(TransferEvent::Stopped { part: "a thread" }));
        assert_eq!(transport.poll(), None, "its batches may still be written");
        assert_eq!(transport.connect(&endpoint), Err(TransferError::Stopped));
    }
}
