//! Passes our memfds to readers that connect, and keeps their connections open so that they see when we are gone.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;

use super::passing;
use crate::greeting::{self, Answer, GREETING_BYTES};
use crate::{Setup, TransferError, copier, probe};

/// How long a newcomer may take to greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What we serve, and the thread that does.
pub(super) struct Owner {
    served: Arc<Served>,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

struct Served {
    instance: InstanceId,
    page: Arc<HostMemory>,
    regions: RwLock<Vec<Arc<HostMemory>>>,
    readers_max: usize,
    /// Connections by number, so that closing can end them.
    readers: Mutex<BTreeMap<u64, UnixStream>>,
}

impl Owner {
    pub(super) fn listen(setup: &Setup, name: &str) -> Result<Self, TransferError> {
        let failed = |error: io::Error| TransferError::system("listen for readers", &error);
        let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
        let listener = Arc::new(UnixListener::bind_addr(&address).map_err(failed)?);
        let served = Arc::new(Served {
            instance: setup.instance,
            page: probe::page(setup.instance, Backing::Memfd)?,
            regions: RwLock::new(Vec::new()),
            readers_max: setup.limits.readers_max,
            readers: Mutex::new(BTreeMap::new()),
        });
        let thread = std::thread::Builder::new().name("kv-shm-owner".to_owned());
        let work = (Arc::clone(&listener), Arc::clone(&served));
        let thread = thread.spawn(move || accept(&work.0, &work.1)).map_err(failed)?;
        Ok(Self { served, listener, thread: Some(thread) })
    }
}

impl copier::Owner for Owner {
    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<(), TransferError> {
        self.served.regions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(memory));
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
    let mut readers_made = 0;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                threads.retain(|thread| !thread.is_finished());
                match admit(stream, served, readers_made) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => tracing::warn!(%error, "could not serve a reader"),
                }
                readers_made += 1;
            }
            // This is what a shut-down listener answers.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => {
                tracing::warn!(%error, "could not accept a reader");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
    for stream in served.readers().values() {
        let _already_gone = stream.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _panicked = thread.join();
    }
}

fn admit(stream: UnixStream, served: &Arc<Served>, number: u64) -> io::Result<JoinHandle<()>> {
    if served.readers().len() >= served.readers_max {
        return Err(io::Error::other(format!("readers are limited to {}", served.readers_max)));
    }
    served.readers().insert(number, stream.try_clone()?);
    let served = Arc::clone(served);
    std::thread::Builder::new().name("kv-shm-owner".to_owned()).spawn(move || {
        if let Err(error) = welcome(&stream, &served) {
            tracing::debug!(%error, "a reader's connection ended");
        }
        served.readers().remove(&number);
    })
}

impl Served {
    fn readers(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes the page and all regions, then waits until the reader is gone.
fn welcome(mut stream: &UnixStream, served: &Served) -> io::Result<()> {
    let refused = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let user = passing::peer_user(stream)?;
    if user != passing::our_user() && user != 0 {
        return Err(refused("it runs as another user"));
    }
    stream.set_read_timeout(Some(GREETING_DEADLINE))?;
    let mut words = [0; GREETING_BYTES];
    stream.read_exact(&mut words)?;
    let answer = greeting::judge(&words, served.instance).ok_or_else(|| refused("it did not greet"))?;
    let regions = served.regions.read().unwrap_or_else(PoisonError::into_inner).clone();
    let memories = std::iter::once(&served.page).chain(match answer {
        Answer::Welcome => regions.as_slice(),
        Answer::WrongInstance | Answer::WrongVersion | Answer::Full => &[],
    });
    let descriptors: Vec<BorrowedFd<'_>> = memories.filter_map(|memory| memory.fd()).collect();
    passing::send(stream, &greeting::encode_answer(answer), &descriptors)?;
    stream.set_read_timeout(None)?;
    let _says_nothing_more = stream.read(&mut [0])?;
    Ok(())
}

/// A number that nobody can guess, to name the socket.
pub(super) fn random() -> Result<u128, TransferError> {
    let mut bytes = [0_u8; 16];
    // SAFETY: fills a live buffer of the length that is passed.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize {
        Ok(u128::from_le_bytes(bytes))
    } else {
        Err(TransferError::system("draw a random name", &io::Error::last_os_error()))
    }
}
