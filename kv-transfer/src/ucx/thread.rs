//! The one thread that owns context, worker and endpoints: takes commands, makes progress, sleeps when idle. Knows no
//! detail of a peer.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;

use super::Paths;
use super::address::{Address, Memory};
use super::connection::Returned;
use super::library::{Arming, Bell, Library, Mapped};
use super::peer::{Life, Peer};
use crate::driver::Command;
use crate::flow::Ending;
use crate::host::Host;
use crate::outbox::Outbox;
use crate::{Limits, PeerId, TransferError, TransferEvent, probe};

/// Calls of progress between two looks at commands and deadlines; each copies up to 512 KiB by cross-memory attach.
const PROGRESS_MAX: u32 = 8;
/// Longest sleep: UCX does not promise to wake the descriptor for every event.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Longest sleep while a connection closes: no descriptor reports the end of that.
const SLEEP_CLOSING: Duration = Duration::from_millis(1);
/// Longest wait for connections to close at the end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct Beginning {
    pub(super) inbox: Receiver<Message>,
    pub(super) bell: Arc<Bell>,
    pub(super) outbox: Outbox,
    pub(super) limits: Limits,
    pub(super) instance: InstanceId,
    pub(super) paths: Paths,
}

pub(super) enum Message {
    Command(Command),
    Register { memory: Arc<HostMemory>, reply: Sender<Result<Vec<u8>, TransferError>> },
    Stop,
}

/// State of the thread that its peers share.
pub(super) struct Shared {
    pub(super) returned: Returned,
    pub(super) regions: Vec<Rc<Mapped>>,
    pub(super) library: Rc<Library>,
    pub(super) outbox: Outbox,
    pub(super) limits: Limits,
    pub(super) here: Host,
    pub(super) paths: Paths,
}

/// Opens UCX, sends the address through `ready`, and serves until told to stop.
pub(super) fn run(beginning: Beginning, ready: &Sender<Result<Vec<u8>, TransferError>>) {
    let _alive = beginning.outbox.essential("the ucx thread");
    match Thread::open(beginning) {
        Ok((mut thread, address)) => {
            let _gave_up = ready.send(Ok(address));
            thread.serve();
            thread.close();
        }
        Err(error) => {
            let _gave_up = ready.send(Err(error));
        }
    }
}

struct Thread {
    inbox: Receiver<Message>,
    bell: Arc<Bell>,
    peers: BTreeMap<PeerId, Peer>,
    shared: Shared,
    /// Page of known bytes, served as long as the thread lives.
    _page: Rc<Mapped>,
}

enum Heard {
    Nothing,
    Something,
    Stop,
}

impl Thread {
    fn open(beginning: Beginning) -> Result<(Self, Vec<u8>), TransferError> {
        let Beginning { inbox, bell, outbox, limits, instance, paths } = beginning;
        let library = Library::open(&paths.tls)?;
        let here = Host::here()?;
        let page = Mapped::new(&library, &probe::page(instance, Backing::Anonymous)?)?;
        let address = Address {
            host: here.clone(),
            pid: std::process::id(),
            worker: library.address()?,
            page: Memory { base: page.memory.as_ptr() as u64, key: page.key()? },
        };
        let (returned, regions) = (Returned::default(), Vec::new());
        let shared = Shared { returned, regions, library, outbox, limits, here, paths };
        let thread = Self { inbox, bell, peers: BTreeMap::new(), shared, _page: page };
        Ok((thread, address.encode()))
    }

    fn serve(&mut self) {
        loop {
            let heard = match self.hear_all() {
                Heard::Stop => return,
                Heard::Something => true,
                Heard::Nothing => false,
            };
            let moved = self.advance();
            if heard || moved {
                continue;
            }
            match self.shared.library.arm() {
                Ok(Arming::Armed) => self.bell.wait(self.shared.library.events(), self.sleep()),
                Ok(Arming::Busy) => {}
                Err(error) => {
                    tracing::error!(%error, "the ucx transport cannot sleep and stops");
                    return;
                }
            }
        }
    }

    fn hear_all(&mut self) -> Heard {
        let mut heard = Heard::Nothing;
        while let Ok(message) = self.inbox.try_recv() {
            heard = Heard::Something;
            match message {
                Message::Command(command) => self.follow(command),
                Message::Register { memory, reply } => {
                    let _gave_up = reply.send(self.register(&memory));
                }
                Message::Stop => return Heard::Stop,
            }
        }
        heard
    }

    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<Vec<u8>, TransferError> {
        let mapped = Mapped::new(&self.shared.library, memory)?;
        let key = Memory { base: memory.as_ptr() as u64, key: mapped.key()? };
        self.shared.regions.push(mapped);
        Ok(key.encode())
    }

    fn follow(&mut self, command: Command) {
        match command {
            Command::Connect { peer, endpoint } => match Peer::connect(peer, &endpoint, &self.shared) {
                Ok(connecting) => drop(self.peers.insert(peer, connecting)),
                Err(error) => self.shared.outbox.tell(TransferEvent::PeerDown { peer, error }),
            },
            Command::Start { ticket, peer, job } => match self.peers.get_mut(&peer) {
                Some(known) => known.start(ticket, job, &self.shared),
                None => {
                    let error = TransferError::lost("start a batch", "it went down meanwhile");
                    self.shared.outbox.tell(TransferEvent::Failed { ticket, error });
                }
            },
            Command::Abort { ticket, peer } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.abort(ticket, &self.shared);
                }
            }
            Command::Disconnect { peer } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.go_down(TransferError::Disconnected, &Ending::Aborted, &self.shared);
                }
            }
        }
    }

    /// Makes progress, hands reads that came back to their peers, and steps each peer. True if anything happened.
    fn advance(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..PROGRESS_MAX {
            if !self.shared.library.progress() {
                break;
            }
            moved = true;
        }
        loop {
            // Removed first: acting on it may post a read that comes back at once.
            let Some(back) = self.shared.returned.borrow_mut().pop_front() else { break };
            moved = true;
            if let Some(peer) = self.peers.get_mut(&back.peer) {
                peer.take_back(back, &self.shared);
            }
        }
        let now = Instant::now();
        self.peers.retain(|_, peer| peer.step(now, &self.shared) == Life::Alive);
        moved || !self.shared.returned.borrow().is_empty()
    }

    fn sleep(&self) -> Duration {
        let longest = if self.peers.values().any(Peer::is_closing) { SLEEP_CLOSING } else { SLEEP_MAX };
        let deadlines = self.peers.values().filter_map(|peer| peer.next_timeout(&self.shared));
        let now = Instant::now();
        deadlines.map(|deadline| deadline.saturating_duration_since(now)).fold(longest, Duration::min)
    }

    /// Closes every connection. One that does not close in time is leaked with its memory, because a read might still
    /// land there.
    fn close(&mut self) {
        for peer in self.peers.values_mut() {
            peer.go_down(TransferError::Disconnected, &Ending::Aborted, &self.shared);
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.peers.is_empty() && Instant::now() < deadline {
            if !self.advance() {
                std::thread::sleep(SLEEP_CLOSING);
            }
        }
        if !self.peers.is_empty() {
            tracing::error!(peers = self.peers.len(), "ucx connections did not close and are leaked");
        }
    }
}
