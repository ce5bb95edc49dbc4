//! Passes this worker's memfds to readers, and keeps their connections open so that readers notice its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;

use super::passing;
use crate::accept::{ACCEPT_PAUSE, Failures, LEAVE_PAUSE, is_for_want_of_room};
use crate::greeting::{self, Answer, GREETING_BYTES};
use crate::lobby::{GREETING_DEADLINE, Lobby};
use crate::outbox::Outbox;
use crate::token::Token;
use crate::{Setup, TransferError, copier, probe};

/// Limit on older waiting connections that are closed to make room for a new one.
const ROOM_TRIES_MAX: u32 = 8;

pub(super) struct Owner {
    served: Arc<Served>,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

struct Served {
    instance: InstanceId,
    token: Token,
    page: Passed,
    regions: RwLock<Vec<Arc<Passed>>>,
    readers_max: usize,
    connections: Mutex<Connections>,
}

/// Open connections, kept so that closing can end them.
struct Connections {
    lobby: Lobby<UnixStream>,
    readers: BTreeMap<u64, UnixStream>,
}

/// A memory and a read-only descriptor of it. A reader cannot make it writable, except where processes of ranks write
/// to the memory as well.
struct Passed {
    _memory: Arc<HostMemory>,
    descriptor: OwnedFd,
}

impl Passed {
    fn new(memory: &Arc<HostMemory>) -> Result<Self, TransferError> {
        let failed = |error: io::Error| TransferError::system("open the pool for readers", &error);
        let ours = memory.fd().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let descriptor = File::open(format!("/proc/self/fd/{}", ours.as_raw_fd())).map_err(failed)?;
        Ok(Self { _memory: Arc::clone(memory), descriptor: descriptor.into() })
    }
}

impl Owner {
    pub(super) fn listen(setup: &Setup, name: &str, token: Token, outbox: &Outbox) -> Result<Self, TransferError> {
        let failed = |error: io::Error| TransferError::system("listen for readers", &error);
        let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        let listener = Arc::new(UnixListener::bind_addr(&address).map_err(failed)?);
        let served = Arc::new(Served {
            instance: setup.instance,
            token,
            page: Passed::new(&probe::page(setup.instance, Backing::Memfd)?)?,
            regions: RwLock::new(Vec::new()),
            readers_max: setup.limits.readers_max,
            connections: Mutex::new(Connections { lobby: Lobby::within_files(), readers: BTreeMap::new() }),
        });
        let thread = std::thread::Builder::new().name("kv-shm-owner".to_owned());
        let work = (Arc::clone(&listener), Arc::clone(&served));
        let alive = outbox.essential("the thread that serves shared memory");
        let thread = thread.spawn(move || {
            let _alive = alive;
            accept(&work.0, &work.1);
        });
        Ok(Self { served, listener, thread: Some(thread.map_err(failed)?) })
    }
}

impl copier::Owner for Owner {
    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<(), TransferError> {
        let passed = Arc::new(Passed::new(memory)?);
        self.served.regions.write().unwrap_or_else(PoisonError::into_inner).push(passed);
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: ends a socket that `listener` keeps open; the blocked accept returns with an error.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the shared-memory owner's thread had panicked");
        }
    }
}

/// Accepts readers until the listener is shut down, then ends their connections.
fn accept(listener: &UnixListener, served: &Arc<Served>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut failures = Failures::default();
    loop {
        threads.retain(|thread| !thread.is_finished());
        match listener.accept() {
            Ok((stream, _)) => match admit(stream, served) {
                Ok(thread) => threads.push(thread),
                Err(error) if is_for_want_of_room(&error) => pause(&mut failures, &error, served),
                Err(error) => tracing::debug!(%error, "a reader was not let in"),
            },
            // A listener that was shut down answers with this error.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => pause(&mut failures, &error, served),
        }
    }
    let mut connections = served.connections();
    for stream in connections.lobby.drain().chain(std::mem::take(&mut connections.readers).into_values()) {
        let _already_gone = stream.shutdown(Shutdown::Both);
    }
    drop(connections);
    for thread in threads {
        let _panicked = thread.join();
    }
}

/// Waits after an accept that failed, and makes room if the process is out of descriptors or memory.
fn pause(failures: &mut Failures, error: &io::Error, served: &Served) {
    failures.log(error);
    std::thread::sleep(ACCEPT_PAUSE);
    if is_for_want_of_room(error) {
        make_room(served);
    }
}

fn make_room(served: &Served) {
    let oldest = served.connections().lobby.turn_out_oldest();
    if let Some(oldest) = oldest {
        let _already_gone = oldest.shutdown(Shutdown::Both);
        drop(oldest);
        std::thread::sleep(LEAVE_PAUSE);
    }
}

/// Duplicates the descriptor of a new connection; older waiting connections are closed if that is needed for it.
fn hold(stream: &UnixStream, served: &Served) -> io::Result<UnixStream> {
    let mut tried = 0;
    loop {
        match stream.try_clone() {
            Err(error) if is_for_want_of_room(&error) && tried < ROOM_TRIES_MAX => make_room(served),
            held => return held,
        }
        tried += 1;
    }
}

/// Admits a connection to the lobby. One of another user is closed before it gets a place or a thread.
fn admit(stream: UnixStream, served: &Arc<Served>) -> io::Result<JoinHandle<()>> {
    passing::same_user(&stream)?;
    let hold = hold(&stream, served)?;
    let number = {
        let mut connections = served.connections();
        let number = connections.lobby.next();
        if let Some(oldest) = connections.lobby.enter(hold) {
            let _already_gone = oldest.shutdown(Shutdown::Both);
        }
        number
    };
    let place = Place { served: Arc::clone(served), number };
    // If no thread can be started, the closure is dropped and with it the place.
    std::thread::Builder::new().name("kv-shm-owner".to_owned()).spawn(move || {
        if let Err(error) = welcome(&stream, &place) {
            tracing::debug!(%error, "a reader's connection ended");
        }
    })
}

/// A place in the lobby, later among the readers; given back when dropped.
struct Place {
    served: Arc<Served>,
    number: u64,
}

impl Place {
    /// Moves from the lobby to the readers, if there is room.
    fn settle(&self) -> io::Result<bool> {
        let mut connections = self.served.connections();
        let turned_out = || io::Error::new(io::ErrorKind::ConnectionAborted, "it was turned out meanwhile");
        let hold = connections.lobby.leave(self.number).ok_or_else(turned_out)?;
        let room = connections.readers.len() < self.served.readers_max;
        if room {
            connections.readers.insert(self.number, hold);
        }
        Ok(room)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.served.connections();
        connections.lobby.leave(self.number);
        connections.readers.remove(&self.number);
    }
}

impl Served {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes the page and all regions, then waits until the reader is gone.
fn welcome(mut stream: &UnixStream, place: &Place) -> io::Result<()> {
    let served = &place.served;
    stream.set_read_timeout(Some(GREETING_DEADLINE))?;
    stream.set_write_timeout(Some(GREETING_DEADLINE))?;
    let mut words = [0; GREETING_BYTES];
    stream.read_exact(&mut words)?;
    let judged = greeting::judge(&words, served.instance, served.token);
    let answer = match judged.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it did not greet"))? {
        Answer::Welcome if !place.settle()? => Answer::Full,
        judged => judged,
    };
    let regions = served.regions.read().unwrap_or_else(PoisonError::into_inner).clone();
    let descriptors: Vec<BorrowedFd<'_>> = match answer {
        Answer::Welcome => {
            let regions = regions.iter().map(|region| region.descriptor.as_fd());
            std::iter::once(served.page.descriptor.as_fd()).chain(regions).collect()
        }
        Answer::WrongInstance | Answer::WrongVersion | Answer::Full | Answer::Stranger => Vec::new(),
    };
    passing::send(stream, &greeting::encode_answer(answer), &descriptors)?;
    if answer != Answer::Welcome {
        return Ok(());
    }
    stream.set_read_timeout(None)?;
    let _says_nothing_more = stream.read(&mut [0])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LeaseTable, Limits, Serving};

    /// Found by reading: a reader whose thread could not be started kept its place and its descriptor for ever.
    #[test]
    fn a_place_is_given_back_wherever_it_was() {
        let limits = Limits { readers_max: 1, ..Limits::default() };
        let (instance, notify, access) = (InstanceId(1), Arc::new(|| {}), Arc::new(LeaseTable::new()));
        let setup = Setup { instance, notify, access, limits, serving: Serving::Readers };
        let (outbox, _events) = Outbox::new(Arc::new(|| {}));
        let name = format!("kv-transfer-test-{}", std::process::id());
        let owner = Owner::listen(&setup, &name, Token::draw().unwrap(), &outbox).unwrap();
        let enter = || {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut connections = owner.served.connections();
            let place = Place { served: Arc::clone(&owner.served), number: connections.lobby.next() };
            assert!(connections.lobby.enter(ours).is_none());
            place
        };
        drop(enter());
        assert_eq!(owner.served.connections().lobby.drain().count(), 0);
        let (first, second) = (enter(), enter());
        assert!(first.settle().unwrap());
        assert!(!second.settle().unwrap(), "there is one place");
        assert!(second.settle().is_err(), "it has left the lobby");
        drop((first, second));
        let third = enter();
        assert!(third.settle().unwrap());
        drop(third);
        assert!(owner.served.connections().readers.is_empty());
    }
}
